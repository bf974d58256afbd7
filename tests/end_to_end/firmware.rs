//! What firmware tells of NVDIMMs, as Debian's ndctl and sysfs see it.

use guest_protocol::Command;
use vmm::{Machine, Nvdimm};

use crate::shell::{self, console_of, exec};

/// A kernel with ndctl, these NVDIMMs, and what the guest's shell is to do once it has attached the first region.
fn machine(kernel: &str, nvdimms: &[Nvdimm], command: &str) -> Machine {
    let programs = ["dash", "ndctl", "coreutils/cat", "coreutils/dd"];
    shell::machine(kernel, nvdimms, &programs, &[Command::Attach { region: 0 }, exec(command)])
}

/// Runs until the guest powers off; what it printed behind each mark `==`.
fn says(machine: &mut Machine) -> Vec<String> {
    let console = console_of(machine);
    println!("{console}");
    console.split("==\n").skip(1).map(str::to_owned).collect()
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

const TOPOLOGY: &str = "echo ==; ndctl list -DHRNvvv; echo ==
cd /sys/bus/nd/devices; for it in region0 region1 region2; do read ro < $it/read_only; read node < $it/numa_node
read target < $it/target_node || target=none; read ways < $it/mappings; echo $it $ro $node $target $ways; done; echo ==
cat nmem0/nfit/dirty_shutdown nmem2/nfit/flags; cat nmem0/nfit/id nmem1/nfit/id; echo ==
ndctl disable-region region0; ndctl init-labels nmem0 nmem1; ndctl enable-region region0
ndctl create-namespace -r region0 -m fsdax -s 32M; ndctl list -N -r region0; echo ==";

fn topology_is_what_firmware_says(kernel: &str) {
    let nvdimms = [
        Nvdimm { size: 64 << 20, dimms: 2, smart: true, labels: true, ..Nvdimm::default() },
        Nvdimm { size: 32 << 20, not_armed: true, smart: true, ..Nvdimm::default() },
        Nvdimm { size: 32 << 20, proximity: Some(1), smart: true, ..Nvdimm::default() },
    ];
    let mut first = machine(kernel, &nvdimms, TOPOLOGY);
    first.set_dirty_shutdowns(3);
    let labels: Vec<u32> = first.regions()[3..].iter().map(|region| region.dimm).collect();
    assert_eq!(labels, [1, 2], "each DIMM of the set has an area of its own");
    let [listed, regions, sysfs, made, _] = <[String; 5]>::try_from(says(&mut first)).expect("five parts");
    assert_eq!(listed.matches("\"health_state\":\"ok\"").count(), 4, "{listed}");
    assert_eq!(listed.matches("\"shutdown_state\":\"dirty\"").count(), 4, "{listed}");
    assert_eq!(listed.matches("\"shutdown_count\":3").count(), 4, "{listed}");
    assert_eq!(
        listed.matches("\"position\":").count(),
        4,
        "two mappings of the set, one of each other: {listed}"
    );
    assert!(listed.contains("\"flag_failed_arm\":true"), "{listed}");
    // Read-only, node, target node, mappings.
    for region in ["region0 0 0 none 2\n", "region1 1 0 none 1\n", "region2 0 0 1 1\n"] {
        assert!(regions.contains(region), "{region}: {regions}");
    }
    assert!(sysfs.starts_with("3\nflush_fail not_armed \n"), "{sysfs}");
    assert!(made.contains("\"mode\":\"fsdax\"") && made.contains("\"size\":"), "{made}");

    let mut second = machine(kernel, &nvdimms, "echo ==; ndctl list -N -r region0; echo ==");
    for (from, to) in first.regions().iter().zip(second.regions().to_vec()) {
        let mut bytes = vec![0; from.size as usize];
        first.read_pmem(from.base, &mut bytes);
        second.write_pmem(to.base, &bytes);
    }
    let found = says(&mut second).remove(0);
    let uuid = made.lines().find(|line| line.contains("\"uuid\"")).expect("a namespace has one");
    assert!(found.contains(uuid.trim()), "labels on both DIMMs survive: {found}");
}

#[test]
fn topology_is_what_firmware_says_on_6_1() {
    topology_is_what_firmware_says("debian-6.1");
}

#[test]
fn topology_is_what_firmware_says_on_6_12() {
    topology_is_what_firmware_says("debian-6.12");
}
