//! A machine whose agent has nobody to talk to: it does what a script of commands says, and powers off.

use explore::machines::COMMAND_LINE;
use guest_protocol::Command;
use images::{Cache, DEVDAX_MODULES, Initramfs, Kernel, PMEM_MODULES};
use vmm::{BootProtocol, Machine, MachineConfig, Nvdimm, Stop};

/// Instructions until something must happen.
pub const BUDGET: u64 = 20_000_000_000;

/// A command to the guest's shell.
pub fn exec(shell: &str) -> Command {
    Command::Exec { argv: ["/bin/dash", "-c", shell].map(str::to_owned).to_vec() }
}

/// A kernel with programs and NVDIMMs, and what its agent does.
pub fn machine(kernel: &str, nvdimms: &[Nvdimm], programs: &[&str], script: &[Command]) -> Machine {
    let cache = Cache::open().expect("a cache directory");
    let kernel = Kernel::get(&cache, kernel).unwrap_or_else(|error| panic!("{error}"));
    let mut initramfs = Initramfs::new();
    let modules = [&PMEM_MODULES[..], &DEVDAX_MODULES[..]].concat();
    initramfs.modules(kernel.modules(&modules).unwrap_or_else(|error| panic!("{error}")));
    for program in programs {
        initramfs.program(&cache, program).unwrap_or_else(|error| panic!("{error}"));
    }
    let script = postcard::to_stdvec(script).expect("commands can be written");
    initramfs.file("/script", 0o644, script).unwrap_or_else(|error| panic!("{error}"));
    let config = MachineConfig {
        kernel: kernel.vmlinux,
        initrd: initramfs.finish(),
        modules: Vec::new(),
        command_line: COMMAND_LINE.to_owned(),
        memory: 256 << 20,
        cpus: 1,
        nvdimms: nvdimms.to_vec(),
        virtio_pmem: Vec::new(),
        legacy_pmem: Vec::new(),
        seed: 1,
        protocol: BootProtocol::default(),
    };
    Machine::new(&config).unwrap_or_else(|error| panic!("{error}"))
}

/// What the guest says until it powers off.
pub fn console_of(machine: &mut Machine) -> String {
    let mut console = String::new();
    loop {
        let stop = machine.run(BUDGET);
        console += &String::from_utf8_lossy(&machine.take_console());
        match stop {
            // Nobody answers: the agent does what its script says.
            Stop::Call(_) => {}
            Stop::PowerOff => return console.replace('\r', ""),
            other => panic!("{other:?}: {console}"),
        }
    }
}
