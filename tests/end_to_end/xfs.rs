//! The same promises on XFS. Fewer states than the scenarios ask for: the tests are to stay short.

use explore::verdict::Class;
use explore::{RunOptions, Verdict};

use crate::support::{jobs, run, scenario};

fn up_to(budget: u64) -> RunOptions {
    RunOptions { budget: Some(budget), ..jobs(2) }
}

#[test]
fn map_sync_on_xfs_keeps_its_promises_in_every_window() {
    let report = run(&scenario("map-sync-xfs"), &up_to(120));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert_eq!(report.counts.promises, report.counts.promises_judged, "{report}");
    // The first fault is a small one, the last a huge one, and power was cut in each window of both.
    for fault in [0, 4] {
        for window in 0..=8 {
            let name = format!("fault {fault} W{window}");
            assert!(
                report.points.iter().any(|point| point.window.as_deref() == Some(&name)),
                "{name}: {report}"
            );
        }
    }
    let huge = report.points.last().map(|point| point.outcomes.concat()).unwrap_or_default();
    assert!(huge.contains("huge 0x200000/0x200000"), "one fault allocated 2 MiB: {huge}");
}

#[test]
fn without_map_sync_a_fresh_block_of_xfs_is_lost_and_with_it_is_not() {
    let found = run(&scenario("controls/no-map-sync-xfs"), &up_to(40));
    assert_eq!((&found.expect[..], found.verdict), (&[Class::Lost][..], Verdict::Expected), "{found}");
    let repaired = run(&scenario("controls/repaired/no-map-sync-xfs-repaired"), &up_to(40));
    assert_eq!(repaired.verdict, Verdict::Kept, "{repaired}");
}

#[test]
fn fsync_and_rename_on_xfs_keep_their_promises() {
    let report = run(&scenario("fsync-xfs"), &up_to(80));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert_eq!(report.counts.promises, report.counts.promises_judged, "{report}");
}
