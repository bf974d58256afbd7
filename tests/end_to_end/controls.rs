//! Mistakes that must be found, and the same programs without the mistake.

use explore::report::Finding;
use explore::verdict::Class;
use explore::{Report, RunOptions, Verdict};

use crate::support::{jobs, run, scenario};

/// The agent's function that executes the stores of `store` steps.
const AGENT_STORE: &str = "guest_agent::straight::store+";

/// Runs the control as it is (exactly what it expects must be found), without its `expect` (a violation), and its
/// repaired twin (nothing may be found). Returns the report without `expect`.
fn judge(name: &str, class: Class) -> Report {
    let mut control = scenario(&format!("controls/{name}"));
    assert_eq!(control.expect, [class]);
    let found = run(&control, &jobs(2));
    assert_eq!(found.verdict, Verdict::Expected, "{found}");
    control.expect.clear();
    let bare = run(&control, &jobs(2));
    assert_eq!((bare.verdict, bare.verdict.exit_code()), (Verdict::Violated, 1), "{bare}");
    let repaired = run(&scenario(&format!("controls/repaired/{name}-repaired")), &jobs(2));
    assert_eq!(repaired.verdict, Verdict::Kept, "{repaired}");
    bare
}

/// What the stores behind the findings of the class lacked, and whether some stack names the function.
fn blames(report: &Report, class: Class, lacked: &str, function: &str) -> bool {
    report
        .findings
        .iter()
        .filter(|finding| finding.classes().any(|found| found == class))
        .flat_map(|finding| &finding.stores)
        .any(|store| {
            store.lacked.contains(lacked) && store.stack.iter().any(|frame| frame.contains(function))
        })
}

#[test]
fn a_forgotten_flush_is_found_and_named() {
    let report = judge("no-clwb", Class::Lost);
    assert!(blames(&report, Class::Lost, "never flushed", AGENT_STORE), "{report}");
}

#[test]
fn a_forgotten_fence_is_found_and_named() {
    let report = judge("no-fence", Class::Lost);
    assert!(blames(&report, Class::Lost, "not fenced", AGENT_STORE), "{report}");
}

#[test]
fn a_shared_mapping_without_map_sync_on_a_fresh_block_loses_the_extent() {
    judge("no-map-sync", Class::Lost);
}

#[test]
fn without_barriers_the_commit_record_can_overtake_the_journal() {
    let report = judge("barrier0", Class::Corrupt);
    assert!(blames(&report, Class::Corrupt, "not fenced", "jbd2_journal_commit_transaction"), "{report}");
}

#[test]
fn blocks_that_are_not_zeroed_show_stale_data() {
    judge("skipped-zeroing", Class::Stale);
}

#[test]
fn what_only_a_locked_instruction_drains_relies_on_it_and_is_not_lost() {
    let mut control = scenario("controls/relies-on-lock");
    let report = run(&control, &jobs(2));
    assert_eq!(report.verdict, Verdict::Expected, "{report}");
    assert!(blames(&report, Class::ReliesOnLock, "drained by a locked instruction", AGENT_STORE), "{report}");
    control.expect.clear();
    let denied = RunOptions { deny: vec![Class::ReliesOnLock], ..jobs(2) };
    assert_eq!(run(&control, &denied).verdict, Verdict::Violated);
    let repaired = run(&scenario("controls/repaired/relies-on-lock-repaired"), &jobs(2));
    let relies =
        repaired.findings.iter().flat_map(Finding::classes).any(|class| class == Class::ReliesOnLock);
    assert!(repaired.verdict == Verdict::Kept && !relies, "{repaired}");
}
