//! The persistence domain: events in, possible media contents out.
//!
//! Knows nothing of processors or virtual machines.

mod event;

pub use event::{DrainKind, Event, EventKind, FlushKind, LINE, Origin, SECTOR, StorePath, WORD};
