//! The power is cut at every point of every update of a label area: the kernel that comes up finds the namespaces as they
//! were before the update or as they are behind it, never neither.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guest_protocol::Command;
use persist::{Choice, CrashPoint, Domain, Event, EventKind, Media, Overlay, Platform, Settings, StateId};
use vmm::{Machine, RegionKind, Stop};

use crate::labels::labelled;
use crate::shell::{BUDGET, console_of, exec, machine};

/// A region before the first event.
struct Blank;

impl Media for Blank {
    fn line(&self, _: u64) -> [u8; 64] {
        [0; 64]
    }
}

/// Binds the DIMM and its region, and tells every namespace that has a size: UUID, size, name.
const LIST: &str = "cd /sys/bus/nd; echo nmem0 > drivers/nvdimm/bind; echo region0 > drivers/nd_region/bind
read wait < devices/ndbus0/wait_probe
for n in devices/namespace0.*; do uuid=; name=; read uuid < $n/uuid; read size < $n/size; read name < $n/alt_name
if [ $size != 0 ]; then echo \"namespace: $uuid $size $name\"; fi; done";

/// A machine that comes up on one content after the other.
struct Reader {
    machine: Machine,
    known: BTreeMap<StateId, BTreeSet<String>>,
}

impl Reader {
    /// Boots to where the agent first says something: regions are unbound, and nothing has read a label.
    fn boot(kernel: &str) -> Reader {
        let mut machine = machine(kernel, &[labelled()], &["dash"], &[exec(LIST)]);
        let stop = machine.run(BUDGET);
        assert!(matches!(stop, Stop::Call(_)), "{stop:?}");
        machine.push();
        Reader { machine, known: BTreeMap::new() }
    }

    /// The namespaces that the kernel finds in this state.
    fn namespaces(&mut self, point: &CrashPoint, choice: &Choice) -> BTreeSet<String> {
        let id = point.state_id(choice);
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        self.machine.rewind();
        self.put(&point.content(choice));
        let console = console_of(&mut self.machine);
        assert!(!console.contains("WARNING:") && !console.contains("BUG:"), "{console}");
        let lines = console.lines().filter_map(|line| line.strip_prefix("namespace: "));
        let found: BTreeSet<String> = lines.map(|line| line.trim().to_owned()).collect();
        self.known.insert(id, found.clone());
        found
    }

    fn put(&mut self, content: &Overlay) {
        for (address, line) in content.lines() {
            self.machine.write_pmem(*address, line);
        }
    }
}

/// What happens to the label area while the guest's shell does this.
fn record(kernel: &str, shell: &str) -> (Vec<Event>, Vec<persist::Region>) {
    let script = [Command::Attach { region: 0 }, exec(shell)];
    let mut machine = machine(kernel, &[labelled()], &["dash", "ndctl"], &script);
    let regions: Vec<_> = machine.regions().to_vec();
    machine.set_tracing(true);
    let console = console_of(&mut machine);
    assert!(console.contains("all done"), "{console}");
    let labels: Vec<usize> =
        (0..regions.len()).filter(|it| regions[*it].kind == RegionKind::Labels).collect();
    let area = &regions[labels[0]];
    let of_labels = |event: &Event| match event.kind {
        EventKind::Store { addr, .. } => (area.base..area.base + area.size).contains(&addr),
        EventKind::DeviceFlushSubmitted { region, .. } | EventKind::DeviceFlushCompleted { region, .. } => {
            region as usize == labels[0]
        }
        _ => false,
    };
    let events = machine.take_events().into_iter().filter(of_labels).collect();
    // The index of a region in events is that among all regions.
    let modelled = regions.iter().map(|region| persist::Region {
        range: region.base..region.base + region.size,
        platform: Platform::VirtioPmem,
        dimm: region.dimm,
    });
    (events, modelled.collect())
}

/// States of a crash point: none and all of what is in flight, each line missing, and each line alone.
fn states(point: &CrashPoint) -> Vec<Choice> {
    let parts = 0..point.in_flight().len();
    let missing = parts.clone().map(|part| point.without([part]));
    let alone = parts.map(|part| point.closure([part]));
    [point.nothing(), point.everything()].into_iter().chain(missing).chain(alone).collect()
}

/// Cuts the power everywhere in what the shell does. Returns what the namespaces were, one after the other.
fn cut(kernel: &str, shell: &str) -> Vec<BTreeSet<String>> {
    let (events, regions) = record(kernel, shell);
    let mut reader = Reader::boot(kernel);
    let mut domain = Domain::of_regions(Settings::default(), regions, Arc::new(Blank));
    let start = domain.crash_point();
    let mut before = reader.namespaces(&start, &start.nothing());
    let mut history = vec![before.clone()];
    let mut under_way: Vec<CrashPoint> = Vec::new();
    let mut tried = 0;
    for event in &events {
        domain.apply(event);
        let point = domain.crash_point();
        if !matches!(event.kind, EventKind::DeviceFlushCompleted { .. }) {
            under_way.push(point);
            continue;
        }
        assert!(point.in_flight().is_empty(), "an update is durable when firmware says so");
        let behind = reader.namespaces(&point, &point.nothing());
        for point in under_way.drain(..) {
            for choice in states(&point) {
                let found = reader.namespaces(&point, &choice);
                tried += 1;
                let lost: Vec<usize> =
                    (0..point.in_flight().len()).filter(|part| !choice.contains(*part)).collect();
                assert!(
                    found == before || found == behind,
                    "event {}, without {lost:?} of {}: {found:?}\nbefore: {before:?}\nbehind: {behind:?}",
                    event.seq,
                    point.in_flight().len()
                );
            }
        }
        if behind != before {
            history.push(behind.clone());
        }
        before = behind;
    }
    println!("{kernel}: {} events, {tried} states, {} of them differ", events.len(), reader.known.len());
    history
}

/// Sizes of the namespaces, in MiB.
fn sizes(namespaces: &BTreeSet<String>) -> Vec<u64> {
    let mut sizes: Vec<u64> = namespaces
        .iter()
        .map(|line| line.split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap_or_default() >> 20)
        .collect();
    sizes.sort_unstable();
    sizes
}

const UPDATES: &str = "ndctl disable-region region0; ndctl init-labels nmem0; ndctl disable-dimm nmem0
ndctl enable-dimm nmem0; ndctl enable-region region0
ndctl create-namespace -m raw -s 32M && ndctl create-namespace -m raw -s 64M -n second &&
ndctl destroy-namespace -f namespace0.0 && echo all done";

fn namespaces_are_old_or_new(kernel: &str) {
    let history = cut(kernel, UPDATES);
    let sizes: Vec<Vec<u64>> = history.iter().map(sizes).collect();
    assert_eq!(sizes[0], [128], "without labels the region is one namespace");
    assert!(sizes.contains(&vec![32]) && sizes.contains(&vec![32, 64]), "{history:?}");
    assert_eq!(sizes.last(), Some(&vec![64]), "{history:?}");
    assert!(history.last().is_some_and(|last| last.iter().all(|it| it.ends_with("second"))), "{history:?}");
}

#[test]
fn namespaces_are_old_or_new_wherever_an_update_of_labels_is_cut_on_6_1() {
    namespaces_are_old_or_new("debian-6.1");
}

#[test]
fn namespaces_are_old_or_new_wherever_an_update_of_labels_is_cut_on_6_12() {
    namespaces_are_old_or_new("debian-6.12");
}
