//! What firmware tells of NVDIMMs, as Debian's ndctl and sysfs see it.

use explore::machines::COMMAND_LINE;
use guest_protocol::Command;
use images::{Cache, Initramfs, Kernel, PMEM_MODULES};
use vmm::{BootProtocol, Machine, MachineConfig, Nvdimm, Stop};

const BUDGET: u64 = 20_000_000_000;

/// A kernel with ndctl, these NVDIMMs, and what the guest's shell is to do once it has attached the first region.
pub fn machine(kernel: &str, nvdimms: &[Nvdimm], shell: &str) -> Machine {
    let cache = Cache::open().expect("a cache directory");
    let kernel = Kernel::get(&cache, kernel).unwrap_or_else(|error| panic!("{error}"));
    let mut initramfs = Initramfs::new();
    initramfs.modules(kernel.modules(&PMEM_MODULES).unwrap_or_else(|error| panic!("{error}")));
    for program in ["dash", "ndctl", "coreutils/cat", "coreutils/dd"] {
        initramfs.program(&cache, program).unwrap_or_else(|error| panic!("{error}"));
    }
    let argv = ["/bin/dash", "-c", shell].map(str::to_owned).to_vec();
    let script = vec![Command::Attach { region: 0 }, Command::Exec { argv }];
    let script = postcard::to_stdvec(&script).expect("commands can be written");
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

/// Runs until the guest powers off; what it printed behind each mark `==`.
pub fn says(machine: &mut Machine) -> Vec<String> {
    let mut console = String::new();
    loop {
        let stop = machine.run(BUDGET);
        console += &String::from_utf8_lossy(&machine.take_console());
        match stop {
            // Nobody answers: the agent does what its script says.
            Stop::Call(_) => {}
            Stop::PowerOff => break,
            other => panic!("{other:?}: {console}"),
        }
    }
    println!("{console}");
    console.replace('\r', "").split("==\n").skip(1).map(str::to_owned).collect()
}

const ERRORS: &str = "B=/sys/block/pmem0/badblocks; echo ==; cat $B
ndctl list -N --media-errors; echo ==
dd if=/dev/pmem0 of=/dev/null bs=4096 skip=2 count=1 iflag=direct || echo cannot read; echo ==
dd if=/dev/zero of=/dev/pmem0 bs=4096 seek=2 count=1 oflag=direct; cat $B; echo ==
dd if=/dev/pmem0 of=/dev/null bs=4096 skip=2 count=1 iflag=direct && echo can read; echo ==";

fn errors_are_found_by_a_scrub_and_cleared_by_writing(kernel: &str) {
    let nvdimm = Nvdimm { size: 64 << 20, media_errors: true, ..Nvdimm::default() };
    let mut machine = machine(kernel, &[nvdimm], ERRORS);
    let base = machine.regions()[0].base;
    machine.write_pmem(base, &[7; 0x4000]);
    machine.set_poisoned(&[base + 0x2240, base + 0x9000, base + 0x9040]);
    let [found, unread, written, read, _] = <[String; 5]>::try_from(says(&mut machine)).expect("five parts");
    // Sectors: the second line lies in the second one of the third page.
    assert!(found.starts_with("17 1\n72 1\n"), "{found}");
    assert!(found.contains("\"badblock_count\":2"), "{found}");
    assert!(unread.contains("cannot read"), "{unread}");
    assert!(written.contains("72 1\n") && !written.contains("17 1"), "{written}");
    assert!(read.contains("can read"), "{read}");
    assert_eq!(machine.poisoned(), [base + 0x9000, base + 0x9040]);
    let mut page = [1; 0x1000];
    machine.read_pmem(base + 0x2000, &mut page);
    assert_eq!(page, [0; 0x1000]);
}

#[test]
fn errors_are_found_by_a_scrub_and_cleared_by_writing_on_6_1() {
    errors_are_found_by_a_scrub_and_cleared_by_writing("debian-6.1");
}

#[test]
fn errors_are_found_by_a_scrub_and_cleared_by_writing_on_6_12() {
    errors_are_found_by_a_scrub_and_cleared_by_writing("debian-6.12");
}
