//! Label areas of NVDIMMs: Debian's ndctl makes, changes and destroys namespaces of every mode, and they are there after a
//! power cut.

use guest_protocol::Command;
use vmm::{Machine, Nvdimm, RegionKind};

use crate::shell::{self, console_of, exec};

const ID: &str = "uuid";

/// One NVDIMM with a label area.
pub fn labelled() -> Nvdimm {
    Nvdimm { size: 128 << 20, labels: true, ..Nvdimm::default() }
}

/// A kernel with ndctl, one NVDIMM, and what the guest's shell is to do.
fn machine(kernel: &str, command: &str) -> Machine {
    let script = [Command::Attach { region: 0 }, exec(command)];
    shell::machine(kernel, &[labelled()], &["dash", "ndctl"], &script)
}

/// Runs until the guest powers off; the JSON array that it printed behind each mark `==`.
fn says(machine: &mut Machine) -> Vec<String> {
    let console = console_of(machine);
    let lists =
        console.split("==\n").skip(1).map(|section| section.split("\n]\n").next().unwrap_or_default());
    lists.map(str::to_owned).collect()
}

/// Values of a field of ndctl's JSON, in order.
fn values(json: &str, field: &str) -> Vec<String> {
    let field = format!("\"{field}\":");
    let lines = json.lines().filter_map(|line| line.trim().strip_prefix(&field));
    lines.map(|value| value.trim_matches([',', '"']).to_owned()).collect()
}

fn sorted(mut values: Vec<String>) -> Vec<String> {
    values.sort();
    values
}

/// What survives a power cut, put into another machine.
fn power_cycle(from: &Machine, to: &mut Machine) {
    for (from_region, to_region) in from.regions().iter().zip(to.regions().to_vec()) {
        let mut bytes = vec![0; from_region.size as usize];
        from.read_pmem(from_region.base, &mut bytes);
        to.write_pmem(to_region.base, &bytes);
    }
}

const MAKE: &str = "ndctl disable-region region0; ndctl init-labels nmem0; ndctl disable-dimm nmem0
ndctl enable-dimm nmem0; ndctl enable-region region0
for mode in raw fsdax devdax sector; do ndctl create-namespace -m $mode -s 32M; done; echo ==; ndctl list -N";

/// Makes each into another mode, and takes one away.
const CHANGE: &str = "echo ==; ndctl list -N
set -- fsdax devdax sector raw; for mode; do ndctl create-namespace -f -e namespace0.$((i)) -m $mode; i=$((i + 1)); done
ndctl destroy-namespace -f namespace0.0; echo ==; ndctl list -N";

fn namespaces_survive(kernel: &str) {
    let mut first = machine(kernel, MAKE);
    let made = says(&mut first).remove(0);
    // Last made comes first.
    assert_eq!(sorted(values(&made, "mode")), ["devdax", "fsdax", "raw", "sector"], "{made}");
    assert_eq!(values(&made, "chardev").len(), 1, "{made}");
    // The others say 512: only a BTT has larger sectors.
    assert_eq!(sorted(values(&made, "sector_size")), ["4096", "512", "512"], "{made}");
    assert_eq!(first.regions()[1].kind, RegionKind::Labels);

    let mut second = machine(kernel, CHANGE);
    power_cycle(&first, &mut second);
    let [found, changed] = <[String; 2]>::try_from(says(&mut second)).expect("it lists twice");
    assert_eq!(found, made, "after the power cut");
    assert_eq!(sorted(values(&changed, "mode")), ["devdax", "raw", "sector"], "one is gone: {changed}");
    let old = values(&found, ID);
    assert!(values(&changed, ID).iter().all(|new| !old.contains(new)), "made anew, each has another {ID}");

    let mut third = machine(kernel, "echo ==; ndctl list -N");
    power_cycle(&second, &mut third);
    // Its number may be another: Linux counts what it finds.
    let left = says(&mut third).remove(0);
    for field in [ID, "mode", "size"] {
        assert_eq!(sorted(values(&left, field)), sorted(values(&changed, field)), "after the next power cut");
    }
}

#[test]
fn namespaces_made_by_ndctl_survive_power_cuts_on_6_1() {
    namespaces_survive("debian-6.1");
}

#[test]
fn namespaces_made_by_ndctl_survive_power_cuts_on_6_12() {
    namespaces_survive("debian-6.12");
}
