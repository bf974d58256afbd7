//! What the library offers besides the command.

pub mod builder;
pub mod machine;
pub mod power;

use explore::machines::Machines;
use explore::{HostError, Report, RunOptions, Scenario, ScenarioError};
use images::Cache;

/// Why something cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scenario cannot be run.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// Kernel, programs or images cannot be had.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// There is no machine for the scenario.
    #[error(transparent)]
    Machines(#[from] explore::machines::Error),
    /// The machine cannot be built.
    #[error(transparent)]
    Machine(#[from] vmm::Error),
    /// Something on the host does not work.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The guest went where the machine cannot follow.
    #[error("the guest cannot go on: {0}")]
    Guest(String),
    /// An image does not fit.
    #[error("region {region} has {size} bytes, and its image {image}; give an image of that size")]
    Image {
        /// Number of the region.
        region: usize,
        /// Its size in bytes.
        size: u64,
        /// Bytes of the image.
        image: u64,
    },
    /// What the guest is to do cannot be told it.
    #[error("the script for the guest cannot be written: {0}")]
    Script(#[from] postcard::Error),
}

/// Runs a scenario as `pmemsim run` does, on one processor unless `options` say otherwise.
///
/// ```no_run
/// # fn main() -> Result<(), pmemsim::Error> {
/// use pmemsim::{RunOptions, Scenario, Verdict};
///
/// let scenario = Scenario::load("scenarios/map-sync-ext4.toml".as_ref())?;
/// let report = pmemsim::run_scenario(&scenario, &RunOptions::default())?;
/// assert_eq!(report.verdict, Verdict::Kept, "{report}");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Machines`] when kernel, programs or images cannot be had, [`Error::Host`] for trouble on the host.
pub fn run_scenario(scenario: &Scenario, options: &RunOptions) -> Result<Report, Error> {
    let seed = options.seed.unwrap_or(scenario.crash.seed);
    let machines = Machines::prepare(scenario, &Cache::open()?, seed)?;
    Ok(explore::run(scenario, &machines, options, &|_| ())?)
}
