//! Power cuts during recovery on a stock kernel.

use explore::verdict::Class;
use explore::{RunOptions, Verdict};

use crate::support::{jobs, run, scenario};

#[test]
fn a_fault_planted_in_the_replay_of_a_journal_is_found_by_a_second_power_cut_only() {
    let control = scenario("controls/recovery-replay");
    let found = run(&control, &jobs(2));
    assert_eq!(found.verdict, Verdict::Expected, "{found}");
    let lost = found.findings.iter().find(|finding| finding.class == Class::Lost).expect("it is expected");
    assert_eq!(lost.earlier.len(), 1, "{found}");
    assert!(lost.stores.iter().any(|store| store.step.as_deref() == Some("recovery: mounting")), "{found}");

    let repaired = scenario("controls/repaired/recovery-replay-repaired");
    let kept = run(&repaired, &jobs(2));
    assert_eq!(kept.verdict, Verdict::Kept, "{kept}");
    let level = &kept.in_recovery[0];
    assert!(level.is_exhaustive() && level.crash_points > 10, "{kept}");

    let once = RunOptions { in_recovery: Some(0), ..jobs(2) };
    let once = run(&repaired, &once);
    assert!(once.verdict == Verdict::Kept && once.in_recovery.is_empty(), "{once}");
}
