//! Device-dax: programs promise by their own flushes, and there is no file system.

use explore::verdict::Class;
use explore::{RunOptions, Verdict};

use crate::support::{jobs, run, scenario};

#[test]
fn flushed_stores_to_a_device_keep_their_promises_in_every_crash_state() {
    let report = run(&scenario("devdax"), &jobs(2));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.counts.exhaustive, "{report}");
    assert_eq!(report.counts.promises, report.counts.promises_judged, "{report}");
}

#[test]
fn a_device_is_the_same_on_6_12() {
    let mut scenario = scenario("devdax");
    scenario.override_kernel("debian-6.12");
    let report = run(&scenario, &RunOptions { unexplained: true, ..jobs(2) });
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
}

#[test]
fn a_forgotten_flush_to_a_device_is_found() {
    let found = run(&scenario("controls/devdax-no-flush"), &jobs(2));
    assert_eq!((&found.expect[..], found.verdict), (&[Class::Lost][..], Verdict::Expected), "{found}");
    let repaired = run(&scenario("controls/repaired/devdax-no-flush-repaired"), &jobs(2));
    assert_eq!(repaired.verdict, Verdict::Kept, "{repaired}");
}
