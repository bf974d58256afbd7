//! The classes of what can be found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A class of finding. Up to [`Class::GuestCrash`] they are violations; the others are violations only when the
/// user denies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Something promised durable is not there.
    Lost,
    /// Something is there that nobody put there: old content of reused blocks, names that no step made.
    Stale,
    /// Something that must be old or new is neither.
    NotAtomic,
    /// The file system cannot be mounted, or its checker finds it damaged.
    Corrupt,
    /// The guest oopsed, panicked, reset, hung or flooded its console.
    GuestCrash,
    /// A checksummed block was torn, which only happens below sector granularity.
    TornSector,
    /// Only what a locked instruction, or another drain that is no fence, has drained keeps it: what strict fences
    /// find beyond what is found without them.
    ReliesOnLock,
    /// A file cannot be read in places, for the scenario had the media lose lines of it.
    Poisoned,
    /// The kernel flushes, in a fault that waits for the journal, lines that have nothing volatile in them.
    RedundantFlush,
    /// The kernel warned, or the file system wrote an error to the log.
    GuestWarning,
}

impl Class {
    /// Whether finding it breaks a promise without being denied.
    pub fn is_violation(self) -> bool {
        self <= Class::GuestCrash
    }

    /// The word for it, as in scenarios and reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::Lost => "lost",
            Class::Stale => "stale",
            Class::NotAtomic => "not-atomic",
            Class::Corrupt => "corrupt",
            Class::GuestCrash => "guest-crash",
            Class::TornSector => "torn-sector",
            Class::ReliesOnLock => "relies-on-lock",
            Class::Poisoned => "poisoned",
            Class::RedundantFlush => "redundant-flush",
            Class::GuestWarning => "guest-warning",
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
