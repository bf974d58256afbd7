//! Stock kernels on several processors: they come up, they work, and the seed decides who goes when.

use explore::machines::COMMAND_LINE;
use explore::scenario::Explore;
use explore::{RunOptions, Scenario, Verdict};
use guest_protocol::{Command, call};
use images::{Cache, Initramfs, Kernel, PMEM_MODULES};
use vmm::{BootProtocol, Machine, MachineConfig, Nvdimm, Stop};

use crate::support::{run, scenario};

const BUDGET: u64 = 10_000_000_000;

fn machine(name: &str, cpus: u8, seed: u64, shell: Option<&str>) -> Machine {
    let cache = Cache::open().expect("a cache directory");
    let kernel = Kernel::get(&cache, name).unwrap_or_else(|error| panic!("{error}"));
    let mut initramfs = Initramfs::new();
    initramfs.modules(kernel.modules(&PMEM_MODULES).unwrap_or_else(|error| panic!("{error}")));
    if let Some(shell) = shell {
        for program in ["dash", "coreutils"] {
            initramfs.program(&cache, program).unwrap_or_else(|error| panic!("{error}"));
        }
        let argv = ["/bin/dash", "-c", shell].map(str::to_owned).to_vec();
        let script = postcard::to_stdvec(&vec![Command::Exec { argv }]).expect("commands can be written");
        initramfs.file("/script", 0o644, script).unwrap_or_else(|error| panic!("{error}"));
    }
    let config = MachineConfig {
        kernel: kernel.vmlinux,
        initrd: initramfs.finish(),
        modules: Vec::new(),
        command_line: COMMAND_LINE.to_owned(),
        memory: 256 << 20,
        cpus,
        nvdimms: vec![Nvdimm { size: 64 << 20, ..Nvdimm::default() }],
        virtio_pmem: Vec::new(),
        legacy_pmem: Vec::new(),
        seed,
        protocol: BootProtocol::default(),
    };
    Machine::new(&config).unwrap_or_else(|error| panic!("{error}"))
}

/// The trace hash of debian-6.1 on two processors from power-on to the agent's first call.
fn boot_hash(seed: u64) -> String {
    let mut machine = machine("debian-6.1", 2, seed, None);
    machine.start_trace_hash();
    match machine.run(BUDGET) {
        Stop::Call(first) if first.number == call::HELLO => {}
        other => panic!("{other:?}: {}", String::from_utf8_lossy(&machine.take_console())),
    }
    machine.trace_hash().expect("it was started")
}

#[test]
fn a_boot_on_two_processors_is_the_same_twice_and_another_by_another_seed() {
    let first = boot_hash(1);
    assert_eq!(first, boot_hash(1));
    assert_ne!(first, boot_hash(2));
}

/// What the guest's shell says on the console before the guest powers off.
fn says(kernel: &str, cpus: u8, shell: &str) -> String {
    let mut machine = machine(kernel, cpus, 1, Some(shell));
    loop {
        match machine.run(BUDGET) {
            // Nobody answers: the agent does what its script says.
            Stop::Call(_) => {}
            Stop::PowerOff => return String::from_utf8_lossy(&machine.take_console()).into_owned(),
            other => panic!("{other:?}: {}", String::from_utf8_lossy(&machine.take_console())),
        }
    }
}

#[test]
fn both_kernels_use_every_processor() {
    // Each loop says on which processor it ended: field 39 of /proc/self/stat (proc(5)).
    let shell = "echo processors $(nproc); \
        for loop in 1 2 3 4; do \
            ( i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; \
              read -r line < /proc/self/stat; set -- $line; shift 38; echo ended on $1 ) & \
        done; wait; \
        while read -r name counts; do case $name in RES:|CAL:) echo $name $counts;; esac; done < /proc/interrupts";
    for (kernel, cpus) in [("debian-6.1", 2), ("debian-6.12", 4)] {
        let said = says(kernel, cpus, shell);
        assert!(said.contains(&format!("processors {cpus}")), "{said}");
        let ended: std::collections::BTreeSet<&str> =
            said.lines().filter_map(|line| line.trim().strip_prefix("ended on ")).collect();
        assert!(ended.len() > 1, "only one processor worked: {said}");
        let interrupts = |name: &str| {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
            let counts = line.into_iter().flat_map(str::split_whitespace);
            counts.take(cpus.into()).filter(|count| count.parse() != Ok(0)).count()
        };
        assert!(interrupts("RES:") > 1, "no rescheduling interrupts: {said}");
        assert!(interrupts("CAL:") > 1, "no function call interrupts: {said}");
        assert!(!said.contains("Call Trace"), "{said}");
    }
}

#[test]
fn map_sync_on_two_processors_keeps_its_promises_whatever_the_interleaving() {
    let text = scenario("map-sync-ext4").text.replacen("[machine]", "[machine]\ncpus = 2", 1);
    let scenario =
        Scenario::parse(&text, "map-sync-ext4 on two processors").unwrap_or_else(|error| panic!("{error}"));
    let sampled = RunOptions { explore: Some(Explore::Sample), budget: Some(60), ..RunOptions::default() };
    let options = |count, seed| RunOptions { seed: Some(seed), jobs: count, ..sampled.clone() };
    let report = run(&scenario, &options(2, 1));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert_eq!(report.counts.promises, report.counts.promises_judged, "{report}");
    let again = run(&scenario, &options(1, 1));
    assert!(report.to_json() == again.to_json(), "the report is not the same twice");
    let other = run(&scenario, &options(2, 2));
    assert_eq!(other.verdict, Verdict::Kept, "{other}");
    assert_ne!(report.trace, other.trace, "another seed is another execution");
}
