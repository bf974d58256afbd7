//! Programs in the guest beside the same programs on the host.
//!
//! The host runs the very same files, in a root of their own. Its processor offers more than the guest's, and glibc
//! chooses functions by that: those with FMA round once where others round twice. So glibc is told not to use them.

use std::path::Path;
use std::process::{Command, Stdio};

use guest_protocol::Command as Step;
use images::{Cache, Initramfs, Kernel};
use vmm::{BootProtocol, Machine, MachineConfig, Stop};

/// What no test comes near: the guest does not end.
const LIMIT: u64 = 100_000_000_000;
/// Instructions that programs of the guest do not get, either.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-FMA4,-AVX512F,-AVX512VL";

/// AES-NI, which the guest's processor does not offer: with it OpenSSL has other ciphers besides, which changes the order
/// of its list of digests.
const WITHOUT_AES: &str = "~0x200000000000000";

/// A script that prints the same everywhere.
pub struct Script {
    /// Its file.
    pub name: &'static str,
    pub text: &'static str,
    /// What the shell is told.
    pub command: &'static str,
}

/// Programs with their scripts.
pub struct Comparison {
    initramfs: Initramfs,
    scripts: Vec<&'static Script>,
}

impl Comparison {
    pub fn new(packages: &[&str], scripts: &[&'static Script]) -> Comparison {
        let cache = Cache::open().expect("a cache directory");
        let mut initramfs = Initramfs::new();
        for package in packages {
            initramfs.program(&cache, package).unwrap_or_else(|error| panic!("{package}: {error}"));
        }
        for script in scripts {
            let path = format!("/{}", script.name);
            initramfs.file(&path, 0o644, script.text.into()).expect("the path is free");
        }
        Comparison { initramfs, scripts: scripts.to_vec() }
    }

    /// Each script must print the same in the guest as on the host.
    pub fn agrees(&self, kernel: &str, memory: u64) {
        let expected = self.on_host();
        let found = self.in_guest(kernel, memory);
        let mut different = String::new();
        for ((script, expected), found) in self.scripts.iter().zip(&expected).zip(&found) {
            assert!(expected.lines().count() > 10, "{} prints nothing: {expected}", script.name);
            keep(script.name, kernel, expected, found);
            different += &difference(script.name, expected, found);
        }
        assert!(different.is_empty() && expected.len() == found.len(), "{different}");
    }

    fn on_host(&self) -> Vec<String> {
        let root = tempfile::tempdir().expect("a temporary directory");
        self.initramfs.unpack(root.path()).expect("it can be unpacked");
        self.scripts.iter().map(|script| on_host(root.path(), script)).collect()
    }

    fn in_guest(&self, kernel: &str, memory: u64) -> Vec<String> {
        // The first one takes what the kernel says.
        let commands = std::iter::once(":").chain(self.scripts.iter().map(|script| script.command));
        let steps: Vec<Step> = commands.map(|command| Step::Exec { argv: argv(command) }).collect();
        let mut initramfs = self.initramfs.clone();
        let steps = postcard::to_stdvec(&steps).expect("commands have only text and numbers");
        initramfs.file("/script", 0o644, steps).expect("the path is free");
        let kernel = Kernel::get(&Cache::open().expect("a cache directory"), kernel).expect("a kernel");
        let console = boot(MachineConfig {
            kernel: kernel.vmlinux,
            initrd: initramfs.finish(),
            modules: Vec::new(),
            command_line: "console=ttyS0 cryptomgr.notests=1 reboot=acpi quiet loglevel=1".to_owned(),
            memory,
            cpus: 1,
            nvdimms: Vec::new(),
            virtio_pmem: Vec::new(),
            legacy_pmem: Vec::new(),
            seed: 1,
            protocol: BootProtocol::default(),
        });
        sections(&console).split_off(1)
    }
}

fn argv(command: &str) -> Vec<String> {
    // Some programs write otherwise to a terminal. Errors go the same way: what bypasses cat overtakes it now and then.
    let command = format!("{{ {command}; }} 2>&1 | cat");
    ["/bin/dash", "-c", &command].map(str::to_owned).to_vec()
}

/// What the script prints in a root that holds the programs of the guest.
fn on_host(root: &Path, script: &Script) -> String {
    let privileged = std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    let mut command = Command::new(if privileged { "chroot" } else { "unshare" });
    if !privileged {
        command.args(["--map-root-user", "chroot"]);
    }
    command.arg(root).args(argv(script.command)).env_clear().stdin(Stdio::null());
    command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", "/").env("LC_ALL", "C");
    command.env("GLIBC_TUNABLES", TUNABLES).env("OPENSSL_ia32cap", WITHOUT_AES);
    let output = command.output().expect("chroot can be run");
    assert!(output.status.success(), "{}: {output:?}", script.name);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs until the guest powers off; its console.
fn boot(config: MachineConfig) -> String {
    let started = std::time::Instant::now();
    let mut machine = Machine::new(&config).expect("a machine");
    let mut console = Vec::new();
    loop {
        let stop = machine.run(5_000_000);
        console.extend(machine.take_console());
        match stop {
            Stop::PowerOff => break,
            // Nobody is at the control port: the agent does what /script says.
            Stop::Budget | Stop::Call(_) if machine.retired() < LIMIT => {}
            other => panic!("{other:?}: {}", String::from_utf8_lossy(&console)),
        }
    }
    eprintln!(
        "{:.1} G instructions, {:.1} s",
        machine.retired() as f64 / 1e9,
        started.elapsed().as_secs_f64()
    );
    String::from_utf8_lossy(&console).replace('\r', "")
}

/// What each step of the agent printed, when it ended well.
fn sections(console: &str) -> Vec<String> {
    let mut sections = Vec::new();
    let mut section = String::new();
    for line in console.lines() {
        match line.strip_prefix("script: ") {
            Some("end") => return sections,
            Some(step) => {
                assert!(step.ends_with("-> Exited { status: 0 }"), "{step}\n{section}");
                sections.push(std::mem::take(&mut section));
            }
            None => section += &format!("{line}\n"),
        }
    }
    panic!("the agent did not come to the end: {console}");
}

/// Leaves both in a file, to be looked at.
fn keep(name: &str, kernel: &str, expected: &str, found: &str) {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (of, text) in [("host", expected), ("guest", found)] {
        std::fs::write(place.join(format!("{name}-{kernel}.{of}")), text).expect("it can be written");
    }
}

/// The first lines that differ; empty when none do.
fn difference(name: &str, expected: &str, found: &str) -> String {
    let (expected, found): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let different = expected.iter().zip(&found).filter(|(expected, found)| expected != found);
    let mut told: String = different
        .map(|(expected, found)| format!("{name}:\nhost:  {expected}\nguest: {found}\n"))
        .take(20)
        .collect();
    if expected.len() != found.len() {
        told += &format!("{name}: {} lines on the host, {} in the guest\n", expected.len(), found.len());
    }
    told
}
