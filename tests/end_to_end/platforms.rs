//! Platforms that save more than `adr` does, or less, and one that lies.

use explore::replay::scenario_of;
use explore::verdict::Class;
use explore::{Report, Verdict};
use persist::Platform;

use crate::support::{jobs, run, scenario};

/// Runs the control, which must find exactly what it expects, and its repaired twin, which must find nothing. Returns the
/// report of the control.
fn judge(name: &str) -> Report {
    let found = run(&scenario(&format!("controls/{name}")), &jobs(2));
    assert_eq!((&found.expect[..], found.verdict), (&[Class::Lost][..], Verdict::Expected), "{found}");
    let repaired = run(&scenario(&format!("controls/repaired/{name}-repaired")), &jobs(2));
    assert_eq!(repaired.verdict, Verdict::Kept, "{repaired}");
    found
}

/// Whether every store behind the lost promises lacked this.
fn all_lacked(report: &Report, lacked: &str) -> bool {
    let lost = report.findings.iter().filter(|finding| finding.class == Class::Lost);
    let mut stores = lost.flat_map(|finding| &finding.stores).peekable();
    stores.peek().is_some() && stores.all(|store| store.lacked.contains(lacked))
}

#[test]
fn where_the_caches_are_saved_neither_kernel_nor_program_needs_to_flush() {
    let report = run(&scenario("eadr-ext4"), &jobs(2));
    assert_eq!((report.verdict, report.settings.platform.as_str()), (Verdict::Kept, "eadr"), "{report}");
    assert_eq!(report.counts.promises_judged, report.counts.promises, "{report}");
}

#[test]
fn a_program_for_saved_caches_loses_its_stores_where_they_are_not() {
    let mut scenario = scenario("eadr-ext4");
    scenario.override_platform(Platform::Adr).unwrap_or_else(|why| panic!("{why}"));
    let report = run(&scenario, &jobs(2));
    // What it has not flushed itself is lost. The kernel, told so, flushes its part.
    assert_eq!(report.verdict, Verdict::Violated, "{report}");
    assert!(all_lacked(&report, "never flushed"), "{report}");
    let promises = report.findings.iter().filter_map(|finding| finding.promise.as_ref());
    assert!(
        promises.clone().count() > 0 && promises.clone().all(|promise| promise.text.contains("mapped")),
        "{report}"
    );
    let replayed = scenario_of(&report).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(replayed.regions[0].platform, Platform::Adr);
}

#[test]
fn a_platform_that_only_claims_to_save_its_caches_loses_what_fsync_promises() {
    let report = judge("eadr-lie");
    assert!(all_lacked(&report, "never flushed"), "{report}");
    assert_eq!(report.settings.platform, "adr (claims eadr)");
}

#[test]
fn fsync_outlives_a_lost_write_pending_queue_by_flush_hints() {
    let report = run(&scenario("adr-lost-ext4"), &jobs(2));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert_eq!(report.counts.promises_judged, report.counts.promises, "{report}");
}

#[test]
fn without_flush_hints_fsync_is_lost_with_the_write_pending_queue() {
    let report = judge("adr-lost-no-hints");
    assert!(all_lacked(&report, "no flush hint"), "{report}");
}

#[test]
fn a_users_own_flush_is_lost_with_the_write_pending_queue() {
    let report = judge("adr-lost-map-sync");
    assert!(all_lacked(&report, "no flush hint"), "{report}");
}
