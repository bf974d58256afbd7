//! pmemsim as a library: for tests of your own.
//!
//! A [`Scenario`] run from a test says what the command says, as a [`Report`]: see [`run_scenario`]. A [`Machine`] boots a
//! kernel, calls a hook at every event of persistent memory, and lets the hook cut the power or fail a flush.
//!
//! ```
//! use pmemsim::{EventKind, Machine, Survives, Then};
//!
//! # fn main() -> Result<(), pmemsim::Error> {
//! let mut machine = Machine::builder()
//!     .kernel("debian-6.1")
//!     .nvdimm(16 << 20)
//!     .sh("printf precious > /dev/pmem0; sync; echo synced")
//!     .build()?;
//! // The power goes right behind the first store to the first bytes of the region.
//! let start = machine.regions()[0].start;
//! let end = machine.run(|event| match event.kind {
//!     EventKind::Store { addr, .. } if addr == start => Then::Cut,
//!     _ => Then::Continue,
//! })?;
//! assert!(end.is_cut());
//! // Nothing has made it durable yet; it may be there all the same.
//! assert_eq!(machine.media(Survives::Durable)[0][..8], [0; 8]);
//! assert_eq!(&machine.media(Survives::Everything)[0][..8], b"precious");
//! # Ok(())
//! # }
//! ```

mod library;

#[cfg(doctest)]
#[doc = include_str!("../docs/own.md")]
struct Documentation;

pub use explore::{HostError, Report, RunOptions, Scenario, ScenarioError, Verdict};
pub use images::FilesystemKind;
pub use library::builder::Builder;
pub use library::machine::{End, Machine, Then};
pub use library::power::{PowerSupply, Survives};
pub use library::{Error, run_scenario};
pub use persist::{DrainKind, Event, EventKind, FlushKind, Origin, Platform, StorePath};
