//! Media that loses lines of files in use: errors of programs, repair by writing, and power cuts in between.

use explore::verdict::Class;
use explore::{Report, Verdict};

use crate::support::{jobs, run, scenario};

fn keeps_everything_that_can_be_read(name: &str) -> Report {
    let report = run(&scenario(name), &jobs(2));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.findings.iter().all(|finding| finding.class == Class::Poisoned), "{report}");
    assert!(!report.findings.is_empty(), "some power cut comes before the repair: {report}");
    report
}

#[test]
fn lines_that_a_scrub_finds_are_errors_until_they_are_written() {
    keeps_everything_that_can_be_read("poison-scrub-ext4");
}

#[test]
fn a_load_of_a_lost_line_is_a_machine_check_on_ext4() {
    keeps_everything_that_can_be_read("poison-ext4");
}

#[test]
#[ignore = "twenty seconds: in the workflow poison-ext4 stands for it"]
fn a_load_of_a_lost_line_is_a_machine_check_on_xfs() {
    keeps_everything_that_can_be_read("poison-xfs");
}
