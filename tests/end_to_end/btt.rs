//! Block translation tables: sectors that are old or new, also where only words are kept together.

use explore::verdict::Class;
use explore::{Report, RunOptions, Verdict};

use crate::support::{jobs, run, scenario};

fn is_kept_in_every_state(report: &Report) {
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.findings.is_empty(), "nothing is torn, either: {report}");
    assert!(report.counts.exhaustive, "{report}");
    assert_eq!(report.counts.promises, report.counts.promises_judged, "{report}");
}

#[test]
fn ext4_on_a_btt_keeps_its_promises_in_every_crash_state() {
    is_kept_in_every_state(&run(&scenario("btt-ext4"), &jobs(2)));
}

#[test]
fn xfs_on_a_btt_keeps_its_promises_in_every_crash_state() {
    is_kept_in_every_state(&run(&scenario("btt-xfs"), &jobs(2)));
}

#[test]
fn what_is_torn_on_a_raw_namespace_is_not_on_a_btt() {
    let mut raw = scenario("controls/no-btt");
    let found = run(&raw, &jobs(2));
    assert_eq!((&found.expect[..], found.verdict), (&[Class::TornSector][..], Verdict::Expected), "{found}");
    raw.expect.clear();
    let denied = RunOptions { deny: vec![Class::TornSector], unexplained: true, ..jobs(2) };
    assert_eq!(run(&raw, &denied).verdict, Verdict::Violated);
    is_kept_in_every_state(&run(&scenario("controls/repaired/no-btt-repaired"), &jobs(2)));
}

#[test]
fn without_its_log_a_btt_is_damaged() {
    let found = run(&scenario("controls/btt-no-log"), &RunOptions { unexplained: true, ..jobs(2) });
    assert_eq!(found.verdict, Verdict::Expected, "{found}");
    is_kept_in_every_state(&run(&scenario("controls/repaired/btt-no-log-repaired"), &jobs(2)));
}

#[test]
fn a_superblock_of_two_sectors_is_torn_on_a_btt_with_small_ones() {
    let options = RunOptions { unexplained: true, ..jobs(2) };
    let found = run(&scenario("findings/ext4-btt-512"), &options);
    assert_eq!((&found.expect[..], found.verdict), (&[Class::Corrupt][..], Verdict::Expected), "{found}");
}
