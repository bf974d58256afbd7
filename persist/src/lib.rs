//! The persistence domain: events in, possible media contents out.
//!
//! Knows nothing of processors or virtual machines.

mod choice;
mod copy_run;
mod count;
mod crash_point;
mod domain;
mod durable;
mod event;
mod groups;
mod order;
mod part;
mod settings;
#[cfg(test)]
mod testing;

pub use choice::{Choice, StateCount};
pub use crash_point::{CrashPoint, Overlay};
pub use domain::Domain;
pub use durable::{Media, NotAStateId, StateId};
pub use event::{DrainKind, Event, EventKind, FlushKind, LINE, Origin, SECTOR, StorePath, WORD};
pub use groups::Group;
pub use part::Part;
pub use settings::{Granularity, ModelFaults, Platform, Settings};
