//! Running a scenario of the repository in this process.

use std::path::Path;
use std::sync::Mutex;

use explore::machines::Machines;
use explore::{Report, RunOptions, Scenario};
use images::Cache;

/// Base snapshots are made one after the other: two tests that need the same one boot it once.
static PREPARING: Mutex<()> = Mutex::new(());

/// The scenario `scenarios/NAME.toml`.
pub fn scenario(name: &str) -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(format!("{name}.toml"));
    Scenario::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

/// The machine it asks for.
pub fn machines(scenario: &Scenario, seed: u64) -> Machines {
    let _one = PREPARING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let cache = Cache::open().expect("a cache directory");
    Machines::prepare(scenario, &cache, seed).unwrap_or_else(|error| panic!("{}: {error}", scenario.name))
}

/// Runs it on the machine it asks for.
pub fn run(scenario: &Scenario, options: &RunOptions) -> Report {
    let machines = machines(scenario, options.seed.unwrap_or(scenario.crash.seed));
    explore::run(scenario, &machines, options, &|_| ())
        .unwrap_or_else(|error| panic!("{}: {error}", scenario.name))
}

/// Options with so many recovering machines.
pub fn jobs(jobs: usize) -> RunOptions {
    RunOptions { jobs, ..RunOptions::default() }
}
