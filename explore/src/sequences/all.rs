//! Running many scenarios that are alike but for their steps.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::options::RunOptions;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::target::{HostError, Laboratory};

/// Runs the scenarios, `options.jobs` at the same time, in machines of one laboratory: they must name the same machine,
/// regions and file system. `each` gets the number of a scenario and its report, from any thread and in any order.
/// A report is the same as if its scenario had been run alone.
pub fn run_all<L: Laboratory>(
    scenarios: &[&Scenario],
    laboratory: &L,
    options: &RunOptions,
    each: &(dyn Fn(usize, Report) + Sync),
) -> Result<(), HostError> {
    let next = AtomicUsize::new(0);
    let alone = RunOptions { jobs: 1, ..options.clone() };
    let work = || -> Result<(), HostError> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(scenario) = scenarios.get(number) else { return Ok(()) };
            each(number, crate::run(scenario, laboratory, &alone, &|_| ())?);
        }
    };
    let jobs = options.jobs.clamp(1, scenarios.len().max(1));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let ended = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(HostError("a worker panicked".to_owned()))));
        ended.collect()
    })
}
