//! The same payload under QEMU, where it is installed.

use std::io::Write;
use std::process::{Command, Stdio};

/// A processor as near to ours as QEMU 7.2 has one: the same vendor, family and features, as far as TCG knows them.
const PROCESSOR: &str = "Nehalem,vendor=GenuineIntel,family=6,model=54,stepping=1,-sep,-vme,-mce,-mca,-tsc-deadline,\
+fsgsbase,+smep,+smap,+erms,+clflushopt,+clwb,+pdpe1gb,+rdrand,+rdtscp,+nx,+syscall,phys-bits=46";

/// Version line of the QEMU that is installed; `None` where there is none.
pub fn version() -> Option<String> {
    let said = Command::new("qemu-system-x86_64").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&said.stdout).lines().next()?.to_owned())
}

/// As [`version`], and says so where there is none.
pub fn version_or_say() -> Option<String> {
    let version = version();
    if version.is_none() {
        // Not println: the harness would swallow it.
        let said = "SKIPPED: qemu-system-x86_64 is not installed\n";
        std::io::stderr().write_all(said.as_bytes()).expect("standard error takes a line");
    }
    version
}

/// What the payload prints under QEMU before it ends by the debug-exit port with `status`.
pub fn output(payload: &std::path::Path, append: &str, module: Option<&str>, status: i32) -> String {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-cpu", PROCESSOR, "-m", "256", "-display", "none", "-serial", "stdio"]);
    qemu.args(["-monitor", "none", "-no-reboot", "-nodefaults"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-append", append, "-kernel"]).arg(payload);
    if let Some(module) = module {
        qemu.args(["-initrd", module]);
    }
    // A QEMU that a case sends round in circles must not hang the test.
    let mut limited = Command::new("timeout");
    limited.arg("300").arg(qemu.get_program()).args(qemu.get_args()).stdin(Stdio::null());
    let done = limited.output().unwrap_or_else(|why| panic!("{limited:?}: {why}"));
    let text = String::from_utf8_lossy(&done.stdout).replace('\r', "");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2 * status + 1), "{said}\nits last words: {}", tail(&text));
    text
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(3)..].join("\n")
}
