//! Runs in parts, on the toy: what shards find together, what an interrupted run keeps, what a journal takes over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use crate::ledger::{Journal, JournalError};
use crate::options::{Progress, RunOptions};
use crate::replay::scenario_of;
use crate::report::{Report, Verdict};
use crate::run::run;
use crate::scenario::{Explore, Scenario};
use crate::shard::{MergeError, Shard, gather};
use crate::toy::ToyLaboratory;

fn shipped(name: &str) -> Scenario {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(format!("{name}.toml"));
    Scenario::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn run_with(scenario: &Scenario, options: &RunOptions) -> Report {
    run(scenario, &ToyLaboratory::new(), options, &|_| ()).expect("a toy has no host trouble")
}

/// Runs every shard, hands the reports on as files would, and merges them.
fn sharded(scenario: &Scenario, options: &RunOptions, of: u32) -> (Vec<Report>, Report) {
    let shards: Vec<Report> = (1..=of)
        .map(|index| {
            let options = RunOptions { shard: Shard::new(index, of), ..options.clone() };
            let report = run_with(scenario, &options);
            Report::from_json(&report.to_json()).unwrap_or_else(|why| panic!("{why}"))
        })
        .collect();
    let gathered = gather(shards.clone(), "").unwrap_or_else(|why| panic!("{why}"));
    let [gathered] = gathered.as_slice() else { panic!("{} runs of one", gathered.len()) };
    let scenario = scenario_of(&gathered.report).unwrap_or_else(|why| panic!("{why}"));
    (shards, run_with(&scenario, &gathered.options))
}

/// Ways to run, of all kinds of work that there are.
fn ways() -> impl Strategy<Value = (&'static str, RunOptions)> {
    let name =
        prop::sample::select(vec!["map-sync-ext4", "fsync-ext4", "controls/no-clwb", "controls/barrier0"]);
    let lazy = Some(Explore::Lazy);
    let options = vec![
        RunOptions { explore: Some(Explore::Sample), ..RunOptions::default() },
        RunOptions {
            explore: Some(Explore::Sample),
            strict_fences: true,
            budget: Some(60),
            ..RunOptions::default()
        },
        RunOptions { explore: lazy, ..RunOptions::default() },
        RunOptions { explore: lazy, strict_fences: true, ..RunOptions::default() },
        // Bounded: searched in rounds, then sampled.
        RunOptions { explore: lazy, budget: Some(150), seed: Some(9), ..RunOptions::default() },
    ];
    (name, prop::sample::select(options))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn shards_together_say_what_one_run_says((name, options) in ways(), of in 1_u32..6) {
        let scenario = shipped(name);
        let whole = run_with(&scenario, &options);
        let (_, merged) = sharded(&scenario, &options, of);
        prop_assert_eq!(whole.to_json(), merged.to_json());
    }

    #[test]
    fn a_run_goes_on_where_it_was_ended((name, options) in ways(), units in 0_usize..60, kept in 0.0..1.0_f64) {
        let scenario = shipped(name);
        let whole = run_with(&scenario, &options);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("results");
        let ended = with_journal(&path, &scenario, &options, Some(units)).expect("a new file");
        prop_assert!(ended.0.verdict == Verdict::Inconclusive || ended.0.to_json() == whole.to_json());
        // As if it had been killed earlier, in the middle of a record perhaps.
        let bytes = std::fs::read(&path).expect("the file");
        std::fs::write(&path, &bytes[..(bytes.len() as f64 * kept) as usize]).expect("to write");
        let (again, _) = with_journal(&path, &scenario, &options, None).expect("the same run");
        prop_assert_eq!(whole.to_json(), again.to_json());
        let (known, taken) = with_journal(&path, &scenario, &options, None).expect("the same run");
        prop_assert!(taken > 0 && known.to_json() == whole.to_json());
    }
}

/// Runs with a journal, and interrupts it when so many units are done. Returns how many were taken over, too.
fn with_journal(
    path: &Path,
    scenario: &Scenario,
    options: &RunOptions,
    interrupt: Option<usize>,
) -> Result<(Report, u64), JournalError> {
    let ledger = Arc::new(Journal::open(path, &[scenario], options)?.ledger(0));
    let options = RunOptions { ledger: Some(Arc::clone(&ledger)), ..options.clone() };
    let report = match interrupt {
        Some(units) => interrupted(scenario, &options, units),
        None => run_with(scenario, &options),
    };
    Ok((report, ledger.taken()))
}

/// Runs until so many units are done.
fn interrupted(scenario: &Scenario, options: &RunOptions, units: usize) -> Report {
    let flag = Arc::new(AtomicBool::new(false));
    let options = RunOptions { interrupted: Some(Arc::clone(&flag)), ..options.clone() };
    let progress = |progress: Progress| {
        if matches!(progress, Progress::Recovering { done, .. } if done >= units) {
            flag.store(true, Ordering::Relaxed);
        }
    };
    run(scenario, &ToyLaboratory::new(), &options, &progress).expect("a toy has no host trouble")
}

#[test]
fn what_was_found_before_an_interruption_is_told_and_nothing_is_concluded() {
    for explore in [Explore::Sample, Explore::Lazy] {
        let options = RunOptions { explore: Some(explore), ..RunOptions::default() };
        let control = shipped("controls/barrier0");
        let whole = run_with(&control, &options);
        let classes = |report: &Report| report.findings.iter().map(|it| it.class).collect::<BTreeSet<_>>();
        let mut kept = 0;
        for units in (0..64).step_by(4) {
            let report = interrupted(&control, &options, units);
            if report.to_json() == whole.to_json() {
                continue;
            }
            assert_eq!(report.verdict, Verdict::Inconclusive, "{report}");
            assert!(report.to_string().contains("inconclusive: interrupted"), "{report}");
            assert!(!report.counts.exhaustive && report.counts.judged <= whole.counts.judged, "{report}");
            assert!(classes(&report).is_subset(&classes(&whole)), "{report}");
            kept += report.findings.len();
        }
        assert!(kept > 0, "nothing was found before an interruption");
        assert_eq!(interrupted(&control, &options, usize::MAX).to_json(), whole.to_json());
    }
}

#[test]
fn a_shard_says_that_it_is_one() {
    let options = RunOptions { explore: Some(Explore::Lazy), ..RunOptions::default() };
    let (shards, merged) = sharded(&shipped("map-sync-ext4"), &options, 3);
    assert_eq!(merged.verdict, Verdict::Kept);
    for (report, number) in shards.iter().zip(1..) {
        assert_eq!((report.verdict, report.verdict.exit_code()), (Verdict::Part, 0), "{report}");
        assert!(report.to_string().starts_with(&format!("map-sync-ext4, shard {number}/3: ")), "{report}");
        assert!(!report.counts.exhaustive && report.counts.recoveries < merged.counts.recoveries, "{report}");
    }
    let work: u64 = shards.iter().map(|report| report.counts.recoveries).sum();
    assert_eq!(work, merged.counts.recoveries, "nothing is done twice");
    // What no scenario expects fails a shard, too.
    let options = RunOptions { shard: Shard::new(1, 1), ..options };
    let control = Scenario { expect: Vec::new(), ..shipped("controls/no-clwb") };
    assert_eq!(run_with(&control, &options).verdict, Verdict::Violated);
    assert_eq!(run_with(&shipped("controls/no-clwb"), &options).verdict, Verdict::Part);
}

#[test]
fn shards_that_do_not_belong_together_are_refused() {
    let scenario = shipped("fsync-ext4");
    let (shards, _) = sharded(&scenario, &RunOptions::default(), 3);
    let refused =
        |reports: Vec<Report>| gather(reports, "").expect_err("these are not all shards of one run");
    let name = "fsync-ext4".to_owned();
    let shard = |index| Shard::new(index, 3).expect("a shard");
    let missing = MergeError::Missing { scenario: name.clone(), missing: vec![shard(2)] };
    assert_eq!(refused(vec![shards[2].clone(), shards[0].clone()]), missing);
    assert_eq!(
        missing.to_string(),
        "shard 2/3 of fsync-ext4: not there: run fsync-ext4 with --shard 2/3 --json FILE, too"
    );
    let twice = [shards.clone(), vec![shards[1].clone()]].concat();
    assert_eq!(refused(twice), MergeError::Double(shard(2), name.clone()));
    let (others, _) = sharded(&scenario, &RunOptions { seed: Some(77), ..RunOptions::default() }, 3);
    let mixed = vec![shards[0].clone(), others[1].clone(), shards[2].clone()];
    assert_eq!(refused(mixed), MergeError::Foreign(shard(1), shard(2), name.clone(), "what was asked for"));
    assert_eq!(refused(vec![run_with(&scenario, &RunOptions::default())]), MergeError::NoShard(name.clone()));
    let mut ended = shards.clone();
    ended[0].shard.as_mut().expect("a shard").interrupted = true;
    assert_eq!(refused(ended), MergeError::Interrupted(shard(1), name.clone()));
    assert!(matches!(gather(shards.clone(), "other"), Err(MergeError::Code(..))));
    let mut damaged = shards;
    let results = &mut damaged[1].shard.as_mut().expect("a shard").results;
    results.values_mut().for_each(|result| result.push('x'));
    assert!(matches!(refused(damaged), MergeError::Damaged(..)));
}

#[test]
fn shards_are_written_as_fractions() {
    assert_eq!("2/3".parse(), Ok(Shard::new(2, 3).expect("a shard")));
    for wrong in ["0/3", "4/3", "1", "a/b", "1/0", "1/2/3", "1/4000000000"] {
        assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
    }
}

#[test]
fn a_journal_of_something_else_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("results");
    let (scenario, options) = (shipped("fsync-ext4"), RunOptions::default());
    with_journal(&path, &scenario, &options, Some(3)).expect("a new file");
    let before = std::fs::read(&path).expect("the file");
    let refused = |scenario: &Scenario, options: &RunOptions| {
        let why = with_journal(&path, scenario, options, None).expect_err("it is of something else");
        assert_eq!(std::fs::read(&path).expect("the file"), before, "it was changed");
        why.to_string()
    };
    assert!(refused(&shipped("map-sync-ext4"), &options).contains("of fsync-ext4, not of map-sync-ext4"));
    let other = RunOptions { seed: Some(5), ..options.clone() };
    assert!(refused(&scenario, &other).contains("other options"));
    let other = RunOptions { code: "2".to_owned(), ..options.clone() };
    assert!(refused(&scenario, &other).contains("another version"));
    let jobs = RunOptions { jobs: 2, ..options.clone() };
    assert!(with_journal(&path, &scenario, &jobs, None).is_ok(), "the number of jobs does not matter");

    let open = Journal::open(&path, &[&scenario], &options).expect("the same run");
    assert!(!open.is_empty() && open.cut() == 0);
    assert!(matches!(Journal::open(&path, &[&scenario], &options), Err(JournalError::InUse { .. })));
    let letter = directory.path().join("letter");
    std::fs::write(&letter, "Dear reader").expect("to write");
    assert!(matches!(Journal::open(&letter, &[&scenario], &options), Err(JournalError::Foreign { .. })));
    assert_eq!(std::fs::read(&letter).expect("the letter"), b"Dear reader");
}

#[test]
fn results_of_another_execution_are_not_taken_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("results");
    let (scenario, options) = (shipped("fsync-ext4"), RunOptions::default());
    with_journal(&path, &scenario, &options, Some(3)).expect("a new file");
    let ledger = Arc::new(Journal::open(&path, &[&scenario], &options).expect("the same run").ledger(0));
    let mut other = ToyLaboratory::new();
    other.kernel = "another".to_owned();
    let options = RunOptions { ledger: Some(ledger), ..options };
    let why = run(&scenario, &other, &options, &|_| ()).expect_err("another kernel");
    assert!(why.to_string().contains("another execution"), "{why}");
}

#[test]
fn no_more_workers_are_had_than_there_is_memory_for() {
    let scenario = shipped("fsync-ext4");
    let with = |memory| {
        let options = RunOptions { jobs: 2, memory, ..RunOptions::default() };
        let report = run(&scenario, &ToyLaboratory::new(), &options, &|_| ());
        (report, options.effort.workers())
    };
    let (plenty, workers) = with(Some(1 << 40));
    assert!(workers <= 2);
    assert_eq!(plenty, with(None).0, "memory is in no report");
    let (none, workers) = with(Some(1));
    assert_eq!(workers, 1);
    let why = none.expect_err("nobody can do with one byte").to_string();
    assert!(why.contains("one worker"), "{why}");
}
