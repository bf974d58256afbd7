//! Building the payload (guest/bare) and running payloads on the machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use vmm::{BootProtocol, Machine, MachineConfig, Module, Stop};

/// Instructions that no payload here needs.
const BUDGET: u64 = 10_000_000_000;

/// The payload, built once: an ELF64 file with a multiboot header that has addresses, and a PVH note.
pub fn file() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

/// Its bytes.
pub fn bytes() -> Vec<u8> {
    std::fs::read(file()).unwrap()
}

fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/bare");
    let scratch = tempdir();
    let (library, payload) = (scratch.join("libguest_bare.a"), scratch.join("bare.elf"));
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "--crate-name", "guest_bare", "--crate-type", "staticlib"]);
    rustc.args([
        "--target",
        "x86_64-unknown-linux-gnu",
        "-Cpanic=abort",
        "-Copt-level=1",
        "-Ccodegen-units=1",
    ]);
    rustc.args(["-Crelocation-model=static", "-o"]).arg(&library).arg(source.join("src/lib.rs"));
    run(&mut rustc);
    let mut link = Command::new("cc");
    link.args(["-nostdlib", "-static", "-no-pie", "-u", "start_multiboot"]);
    link.arg("-Wl,--gc-sections,--no-warn-rwx-segments,--build-id=none,-z,max-page-size=4096");
    link.arg("-T").arg(source.join("link.ld")).arg("-o").args([&payload, &library]);
    run(&mut link);
    payload
}

/// A directory of this process below the target directory.
fn tempdir() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bare-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    assert!(done.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&done.stderr));
}

/// A machine with nothing but this payload.
pub fn config(
    kernel: Vec<u8>,
    protocol: BootProtocol,
    command_line: &str,
    modules: &[Module],
) -> MachineConfig {
    MachineConfig {
        kernel,
        initrd: Vec::new(),
        modules: modules.to_vec(),
        command_line: command_line.to_owned(),
        memory: 256 << 20,
        nvdimms: Vec::new(),
        virtio_pmem: Vec::new(),
        legacy_pmem: Vec::new(),
        cpus: 1,
        seed: 1,
        protocol,
    }
}

/// What a payload printed before it ended by the debug-exit port with this value.
pub fn output(config: &MachineConfig, status: u32) -> String {
    let mut machine = Machine::new(config).unwrap_or_else(|error| panic!("{error}"));
    let stop = machine.run(BUDGET);
    let console = String::from_utf8_lossy(&machine.take_console()).into_owned();
    assert_eq!(stop, Stop::DebugExit(status), "at {:#x}:\n{console}", machine.cpu_state().rip());
    console
}
