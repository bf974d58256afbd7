//! What MAP_SYNC promises holds on a stock kernel, and the report is the same however it is made.

use explore::scenario::Explore;
use explore::{RunOptions, Verdict};

use crate::support::{jobs, run, scenario};

#[test]
fn map_sync_on_ext4_keeps_its_promises_in_every_state_tried() {
    let scenario = scenario("map-sync-ext4");
    let sampled = RunOptions { explore: Some(Explore::Sample), ..jobs(2) };
    let report = run(&scenario, &sampled);
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.counts.crash_points >= 30, "{report}");
    assert!(report.counts.states_distinct >= 300, "{report}");
    assert_eq!(report.counts.promises, report.counts.promises_judged, "{report}");
    let again = run(&scenario, &RunOptions { jobs: 1, ..sampled });
    assert!(report.to_json() == again.to_json(), "the report depends on the number of jobs");
}

#[test]
fn fsync_and_rename_on_ext4_keep_their_promises() {
    let report = run(&scenario("fsync-ext4"), &jobs(2));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.counts.promises_judged > 0, "{report}");
}

#[test]
fn the_superblock_of_ext4_that_tears_across_two_sectors_is_told_apart() {
    let report = run(&scenario("findings/ext4-superblock-torn"), &jobs(2));
    assert_eq!(report.verdict, Verdict::Expected, "{report}");
}
