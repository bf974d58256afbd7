//! Lazy exploration on a stock kernel: every state is covered, and comes out as it does when it is recovered alone.

use explore::{RunOptions, Verdict};

use crate::support::{jobs, machines, run, scenario};

/// Crash states of a point, of which every one is recovered: the eight sectors of one block.
const SECTORS: u64 = 256;

#[test]
fn map_sync_on_ext4_keeps_its_promises_in_every_crash_state() {
    let scenario = scenario("map-sync-ext4");
    let lazily = jobs(2);
    let report = run(&scenario, &lazily);
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.counts.exhaustive, "{report}");
    assert_eq!(report.counts.points_exhaustive, report.counts.crash_points, "{report}");
    assert_eq!(report.counts.promises, report.counts.promises_judged, "{report}");
    // More states than anything could recover one by one.
    assert!(report.counts.states_exist_log2 > 128.0, "{report}");
    let again = run(&scenario, &RunOptions { jobs: 1, ..lazily.clone() });
    assert!(report.to_json() == again.to_json(), "the report depends on the number of jobs");

    // Of a point with a block in flight that recovery looks into, every state, one by one.
    let recoveries = |events: u64| {
        let point = report.points.iter().find(|point| point.events == events);
        point.and_then(|point| point.search.as_ref()).map_or(0, |search| search.recoveries)
    };
    let small = report.points.iter().filter(|point| point.log2 > 7.9 && point.log2 < 8.1);
    let point =
        small.max_by_key(|point| (recoveries(point.events), point.events)).expect("a block is in flight");
    let machines = machines(&scenario, scenario.crash.seed);
    let compared = explore::compare(&scenario, &machines, &lazily, SECTORS, &[point.events])
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(compared.differences, Vec::<String>::new());
    assert_eq!((compared.points, compared.complete, compared.states), (1, 1, SECTORS), "{compared:?}");
    assert!(compared.leaves > 1, "{compared:?}");
}
