//! Sequences of operations: a few of those that `pmemsim sequences` tries, and that a kernel that breaks them is found.

use std::sync::Mutex;

use explore::sequences::{Bounds, Sequence, run_all};
use explore::{Report, Scenario, Verdict};

use crate::support::{jobs, machines};

fn sequences(filesystem: &str, names: &[&str]) -> Vec<Sequence> {
    let bounds =
        Bounds { operations: 1, filesystem: filesystem.into(), kernel: "debian-6.1".into(), crash: None };
    let all = bounds.sequences();
    let named = |name: &&str| all.iter().find(|one| one.scenario.name == **name).cloned();
    names.iter().map(|name| named(name).unwrap_or_else(|| panic!("no sequence {name}"))).collect()
}

fn reports(scenarios: &[&Scenario]) -> Vec<Report> {
    let machines = machines(scenarios[0], scenarios[0].crash.seed);
    let reports = Mutex::new(Vec::new());
    run_all(scenarios, &machines, &jobs(2), &|number, report| reports.lock().unwrap().push((number, report)))
        .unwrap_or_else(|error| panic!("{error}"));
    let mut reports = reports.into_inner().unwrap();
    reports.sort_by_key(|(number, _)| *number);
    reports.into_iter().map(|(_, report)| report).collect()
}

#[test]
fn operations_on_ext4_are_old_or_new_in_every_crash_state() {
    let sequences = sequences(
        "ext4",
        &["rename-over fsync", "setxattr-again fsync", "unlink-hard fsync-dir", "collapse-range fsync"],
    );
    let scenarios: Vec<&Scenario> = sequences.iter().map(|sequence| &sequence.scenario).collect();
    for report in reports(&scenarios) {
        assert_eq!(report.verdict, Verdict::Kept, "{report}");
        assert!(report.counts.exhaustive, "{report}");
        assert!(report.counts.crash_points > 2, "{report}");
    }
}

/// The journal's commit record can be there without what it commits.
#[test]
fn an_operation_without_barriers_is_found() {
    let sequence = &sequences("ext4", &["rename-over fsync"])[0];
    let text = sequence.scenario.text.replace("dax=always", "dax=always,barrier=0");
    let scenario = Scenario::parse(&text, "barrier0").unwrap();
    let report = &reports(&[&scenario])[0];
    assert_eq!(report.verdict, Verdict::Violated, "{report}");
}
