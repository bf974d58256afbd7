//! The power goes inside of a synchronous fault: what is in flight there, and what may come back.
//!
//! The windows are those of a MAP_SYNC write fault; W2 ends with the device flush in front of the commit record, W4
//! with the one behind it, W5 with the page table entry.

use explore::report::{PointReport, Report};
use explore::{Scenario, Verdict};

use crate::support::{jobs, run};

/// One synchronous fault on a hole, cut in every window.
fn one_fault(kernel: &str) -> Report {
    let text = format!(
        r#"
name = "inside-{kernel}"
[machine]
kernel = "{kernel}"
[[nvdimm]]
size = "64M"
[filesystem]
type = "ext4"
mount = "dax=always"
[[step]]
create = {{ file = "a", size = "16K" }}
[[step]]
fsync = "a"
[[step]]
map = {{ file = "a", as = "m", sync = true }}
[[step]]
store = {{ map = "m", at = 0, bytes = 64 }}
flush = "clwb"
fence = "sfence"
promise = "contents"
[crash]
points = ["symbol:dax_finish_sync_fault", "window:W2", "window:W3", "window:W4", "window:W5", "window:W6", "promises"]
budget = 200
states = 24
"#
    );
    let scenario = Scenario::parse(&text, kernel).unwrap_or_else(|error| panic!("{error}"));
    let report = run(&scenario, &jobs(2));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    report
}

fn in_window(report: &Report, window: &str) -> Vec<PointReport> {
    let found: Vec<_> = report
        .points
        .iter()
        .filter(|point| point.window.as_deref().is_some_and(|name| name.ends_with(window)))
        .cloned()
        .collect();
    assert!(!found.is_empty(), "no crash point in {window}: {report}");
    found
}

/// What recovery may show before and behind the commit: size and allocated bytes of the file.
const OLD: &str = "a 0x4000/0x0";
const NEW: &str = "a 0x4000/0x1000";

fn windows_hold(kernel: &str) {
    let report = one_fault(kernel);
    let entered = report
        .points
        .iter()
        .find(|point| point.reasons.iter().any(|reason| reason == "symbol:dax_finish_sync_fault"))
        .unwrap_or_else(|| panic!("dax_finish_sync_fault was not entered: {report}"));
    assert!(entered.judged >= 1, "{report}");
    let shows_only = |window: &str, allowed: &[&str]| {
        for point in in_window(&report, window) {
            let fits = point.outcomes.iter().all(|outcome| allowed.contains(&outcome.as_str()));
            assert!(fits && !point.outcomes.is_empty(), "{window} allows {allowed:?}: {point:?}");
        }
    };
    // Before the commit record nothing of the fault may be there; once it is durable, all of it must be.
    shows_only("W2", &[OLD]);
    shows_only("W3", &[OLD, NEW]);
    shows_only("W4", &[OLD, NEW]);
    shows_only("W5", &[NEW]);
    shows_only("W6", &[NEW]);
    let commit = in_window(&report, "W4");
    assert!(commit.iter().any(|point| point.in_flight > 0), "the commit record is in flight in W4: {report}");
}

#[test]
fn the_windows_of_a_fault_hold_on_debian_6_1() {
    windows_hold("debian-6.1");
}

#[test]
fn the_windows_of_a_fault_hold_on_debian_6_12() {
    windows_hold("debian-6.12");
}
