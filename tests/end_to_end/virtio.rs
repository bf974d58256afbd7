//! Persistent memory that a virtio-pmem device or the memory map tells of, on both kernels.

use std::collections::BTreeSet;

use explore::report::Finding;
use explore::scenario::Interface;
use explore::verdict::Class;
use explore::{Report, Verdict};
use vmm::{FlushAction, FlushFault};

use crate::support::{jobs, run, scenario};

/// The scenario on another kernel than it names.
fn on(kernel: &str, name: &str) -> Report {
    let mut scenario = scenario(name);
    scenario.machine.kernel = kernel.to_owned();
    scenario.expect.clear();
    run(&scenario, &jobs(2))
}

fn classes(report: &Report) -> Vec<Class> {
    let classes = report.findings.iter().flat_map(Finding::classes);
    classes.collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn fsync_keeps_its_promises_when_the_host_below_virtio_pmem_loses_power() {
    let report = run(&scenario("virtio-pmem-ext4"), &jobs(2));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.counts.promises_judged == 5 && report.counts.exhaustive, "{report}");
}

#[test]
fn linux_6_1_does_not_wait_for_the_flush_in_front_of_the_commit_record() {
    let report = run(&scenario("findings/virtio-pmem-preflush"), &jobs(2));
    assert_eq!(report.verdict, Verdict::Expected, "{report}");
    assert!(!classes(&report).contains(&Class::Lost), "what fsync promised is there: {report}");
    let repaired = on("debian-6.12", "findings/virtio-pmem-preflush");
    assert_eq!(repaired.verdict, Verdict::Kept, "{repaired}");
}

#[test]
fn a_flush_that_fails_is_an_error_of_fsync_and_takes_nothing_back() {
    let mut failing = scenario("virtio-flush-fails");
    let report = run(&failing, &jobs(2));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    // As late as the promise that it answers: fsync does not fail, so the step that is to fail shows it.
    let Interface::VirtioPmem { faults } = &mut failing.regions[0].interface else {
        panic!("another region")
    };
    *faults = vec![FlushFault { which: None, action: FlushAction::Late(3_000_000) }];
    let late = run(&failing, &jobs(2));
    assert_eq!(late.verdict, Verdict::Inconclusive, "{late}");
    assert!(late.to_string().contains("was to fail with errno 5, but gave Ok"), "{late}");
}

#[test]
fn a_flush_that_is_never_answered_hangs_the_guest() {
    let report = run(&scenario("controls/virtio-flush-never"), &jobs(2));
    assert_eq!(report.verdict, Verdict::Expected, "{report}");
}

#[test]
fn map_sync_holds_on_legacy_persistent_memory() {
    for kernel in ["debian-6.1", "debian-6.12"] {
        let report = on(kernel, "map-sync-legacy");
        assert_eq!(report.verdict, Verdict::Kept, "{report}");
        assert_eq!(report.counts.promises_judged, 2, "{report}");
    }
}
