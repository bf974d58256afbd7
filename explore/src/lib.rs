//! Scenario, recording, crash points, crash states, recovery, verdict, report.
//!
//! A [`Scenario`] says what is done on which machine and where the power is cut. [`run`] executes it once in a
//! [`Laboratory`] and records every event that reaches persistent memory; asks the `persist` crate what may be on the
//! media at each crash point; lets a machine come up on such contents; and holds what it finds against what the steps
//! promised. What comes out is a [`Report`].

mod again;
mod base_snapshot;
pub mod baseline;
pub mod bench;
mod canary;
mod causes;
mod checking;
pub mod console;
mod contents;
mod conversation;
pub mod debug;
pub mod effort;
mod events;
mod evidence;
mod findings;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
#[cfg(test)]
mod hostile;
pub mod html;
pub mod import;
mod kernel_lines;
mod lazy;
pub mod ledger;
pub mod load;
pub mod machines;
pub mod matrix;
pub mod minimise;
mod model;
mod options;
mod oracle;
mod plant;
mod points;
mod record;
mod recover;
mod redundant;
pub mod replay;
pub mod report;
mod run;
pub mod scenario;
mod schema;
pub mod sequences;
pub mod shard;
mod sites;
mod states;
pub mod target;
#[cfg(test)]
mod tests;
mod text;
mod timeline;
mod torn;
#[cfg(test)]
mod toy;
mod user_files;
mod user_programs;
mod user_stack;
mod user_unwind;
pub mod verdict;
mod window_rules;
mod windows;
mod work;

pub use lazy::{Comparison, compare};
pub use options::{OnProgress, Progress, RunOptions, Sabotage};
pub use replay::replay;
pub use report::{Report, Verdict};
pub use run::run;
pub use scenario::{Scenario, ScenarioError};
pub use target::{Health, HostError, Laboratory};
