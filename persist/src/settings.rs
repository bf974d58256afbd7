//! What the model is told before the first event.

use serde::{Deserialize, Serialize};

/// What the platform saves when the power goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// ADR: what a drain covered is durable, everything else is in flight.
    #[default]
    Adr,
}

/// What one part is: how much of a store persists as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// As `Line`, but a whole aligned sector that one call of a kernel flushcache copy writes is one part: what ext4
    /// and XFS assume of a raw pmem namespace.
    #[default]
    Sector,
    /// A cached store's bytes in one line are one part; non-temporal stores are cut into words.
    Line,
    /// Every store is cut into words.
    Word,
}

/// How one run models persistence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What the platform saves.
    pub platform: Platform,
    /// What one part is.
    pub granularity: Granularity,
    /// Whether a non-temporal store comes after every earlier cached store of its line, because it evicts the line.
    /// A forgotten flush of an unaligned head is invisible then.
    pub nt_evicts: bool,
    /// Whether only SFENCE and MFENCE make durable. What any other drain covers is *handed over* then: the next
    /// SFENCE or MFENCE of any processor makes it durable. (Linux copies on one processor and fences on another; the
    /// hand-off passes a lock.)
    pub strict_fences: bool,
    /// Ways to break the model on purpose; all off for every real run.
    pub faults: ModelFaults,
}

/// Ways to break the model on purpose, for the tests that prove that a broken model is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelFaults {
    /// Every store is durable at once.
    pub stores_are_durable: bool,
    /// SFENCE drains nothing.
    pub ignore_sfence: bool,
    /// A promise drains the processor that makes it.
    pub promises_drain: bool,
}
