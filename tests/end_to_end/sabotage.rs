//! A broken tool must not stay green: each way to break it turns a named scenario red.

use explore::{Report, RunOptions, Sabotage, Verdict};

use crate::support::{jobs, run, scenario};

fn broken(name: &str, sabotage: Sabotage) -> Report {
    run(&scenario(name), &RunOptions { sabotage: Some(sabotage), ..jobs(2) })
}

#[test]
fn taking_stores_as_durable_misses_the_forgotten_flush() {
    let report = broken("controls/no-clwb", Sabotage::StoresAreDurable);
    assert_eq!(report.verdict, Verdict::Violated, "{report}");
}

#[test]
fn ignoring_sfence_blames_a_correct_program() {
    let report = broken("controls/repaired/no-fence-repaired", Sabotage::IgnoreSfence);
    assert_eq!(report.verdict, Verdict::Violated, "{report}");
}

#[test]
fn promises_that_drain_miss_the_forgotten_fence() {
    let report = broken("controls/no-fence", Sabotage::PromisesDrain);
    assert_eq!(report.verdict, Verdict::Violated, "{report}");
}

#[test]
fn a_skipped_oracle_does_not_see_the_canary() {
    let report = broken("controls/repaired/no-clwb-repaired", Sabotage::SkipOracle);
    assert_eq!(report.verdict, Verdict::Inconclusive, "{report}");
}
