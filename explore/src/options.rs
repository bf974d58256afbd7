//! How a run is done, and how it tells how far it is.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use persist::{Granularity, ModelFaults};
use serde::{Deserialize, Serialize};

use crate::effort::Effort;
use crate::ledger::Ledger;
use crate::scenario::{Explore, Scenario};
use crate::shard::Shard;
use crate::verdict::Class;

/// How a run is done. What is written down of it is what the report depends on; the rest is left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunOptions {
    /// What persists as one, instead of what the scenario says.
    pub granularity: Option<Granularity>,
    /// Whether a non-temporal store waits for earlier cached ones of its line.
    pub nt_evicts: bool,
    /// Whether only SFENCE and MFENCE make durable, also when the scenario does not say so.
    pub strict_fences: bool,
    /// Instead of the scenario's seed.
    pub seed: Option<u64>,
    /// Instead of the scenario's budget of states.
    pub budget: Option<u64>,
    /// How crash states are found, instead of what the scenario says.
    pub explore: Option<Explore>,
    /// How often the power is cut again while recovering, instead of what the scenario says.
    pub in_recovery: Option<u32>,
    /// Machines that recover at the same time; 0 counts as 1.
    #[serde(skip)]
    pub jobs: usize,
    /// Classes that count as violations although they are none by themselves.
    pub deny: Vec<Class>,
    /// Breaks the tool on purpose, for the tests that prove that it would be noticed.
    #[doc(hidden)]
    #[serde(skip)]
    pub sabotage: Option<Sabotage>,
    /// The part of the work that this run does; all of it if there is none.
    #[serde(skip)]
    pub shard: Option<Shard>,
    /// What is done already, and where what gets done is kept.
    #[serde(skip)]
    pub ledger: Option<Arc<Ledger>>,
    /// Set when the run has to come to its end with what it has found so far.
    #[serde(skip)]
    pub interrupted: Option<Arc<AtomicBool>>,
    /// Leaves findings as they were seen: neither made smaller nor explained.
    #[serde(skip)]
    pub unexplained: bool,
    /// Memory that this process may have for itself, in bytes: fewer machines recover at the same time if they need more.
    #[serde(skip)]
    pub memory: Option<u64>,
    /// Where it is counted what the run costs the host.
    #[serde(skip)]
    pub effort: Arc<Effort>,
    /// Version of the program: results of one are not taken over by another.
    #[serde(skip)]
    pub code: String,
}

/// Ways to break the tool on purpose.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    StoresAreDurable,
    IgnoreSfence,
    PromisesDrain,
    SkipOracle,
}

impl RunOptions {
    /// What persists as one.
    pub(crate) fn granularity_of(&self, scenario: &Scenario) -> Granularity {
        self.granularity.unwrap_or(scenario.crash.granularity)
    }

    /// The settings of the persistence model.
    pub(crate) fn model_of(&self, scenario: &Scenario) -> persist::Settings {
        let mut faults = ModelFaults::default();
        match self.sabotage {
            Some(Sabotage::StoresAreDurable) => faults.stores_are_durable = true,
            Some(Sabotage::IgnoreSfence) => faults.ignore_sfence = true,
            Some(Sabotage::PromisesDrain) => faults.promises_drain = true,
            Some(Sabotage::SkipOracle) | None => (),
        }
        persist::Settings {
            granularity: self.granularity_of(scenario),
            nt_evicts: self.nt_evicts,
            strict_fences: self.strict_fences || scenario.crash.strict_fences,
            store_buffer: scenario.crash.store_buffer,
            failed_flush_loses: scenario.crash.failed_flush_loses,
            faults,
            ..persist::Settings::default()
        }
    }
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The scenario is being executed and recorded.
    Recording,
    /// So many events were recorded.
    Recorded {
        /// How many.
        events: u64,
    },
    /// Of all states, so many have been recovered.
    Recovering {
        /// How many have been.
        done: usize,
        /// How many there are.
        of: usize,
    },
    /// Findings are being made smaller and explained.
    Explaining,
}

/// Receives [`Progress`], from any thread.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);
