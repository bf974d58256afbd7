//! What the model is told before the first event.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What the platform saves when the power goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// ADR: what a drain covered is durable, everything else is in flight.
    #[default]
    Adr,
    /// eADR: the caches are saved, write-combining buffers and store buffers are not.
    Eadr,
    /// ADR that failed: the write-pending queue is lost, unless a flush hint has emptied it.
    AdrLost,
    /// virtio-pmem when the host loses power: only what a FLUSH covered that completed with status 0 is durable.
    VirtioPmem,
    /// virtio-pmem when the guest crashes and the host lives on: every store is durable.
    HostSurvives,
}

impl Platform {
    /// All of them.
    pub const ALL: [Platform; 5] =
        [Platform::Adr, Platform::Eadr, Platform::AdrLost, Platform::VirtioPmem, Platform::HostSurvives];

    /// Its name, as settings write it.
    pub fn name(self) -> &'static str {
        match self {
            Platform::Adr => "adr",
            Platform::Eadr => "eadr",
            Platform::AdrLost => "adr-lost",
            Platform::VirtioPmem => "virtio-pmem",
            Platform::HostSurvives => "host-survives",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A range of persistent memory, and what the platform saves of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical addresses, whole sectors.
    pub range: Range<u64>,
    /// What the platform saves of it.
    pub platform: Platform,
    /// NFIT device handle of its DIMM: which flush hints cover it.
    pub dimm: u32,
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

/// Stores that a processor buffers, unless told otherwise: more than any processor has by now.
const STORE_BUFFER: u32 = 112;

/// How one run models persistence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What the platform saves, where no [`Region`] says so.
    pub platform: Platform,
    /// What one part is.
    pub granularity: Granularity,
    /// Whether a non-temporal store comes after every earlier cached store of its line, because it evicts the line.
    /// A forgotten flush of an unaligned head is invisible then.
    pub nt_evicts: bool,
    /// Whether only SFENCE and MFENCE make durable. What any other drain covers is *handed over* then: the next
    /// SFENCE or MFENCE of any processor makes it durable. (Linux copies on one processor and fences on another; the
    /// hand-off passes a lock.) Counts for `adr` and `eadr` only.
    pub strict_fences: bool,
    /// Depth of the store buffer, in parts: under `eadr` so many of a processor's newest stores may be lost.
    pub store_buffer: u32,
    /// Whether what a device flush covered that failed is never made durable by a later flush, as a host kernel does
    /// that forgets which pages it could not write.
    pub failed_flush_loses: bool,
    /// Ways to break the model on purpose; all off for every real run.
    pub faults: ModelFaults,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            platform: Platform::default(),
            granularity: Granularity::default(),
            nt_evicts: false,
            strict_fences: false,
            store_buffer: STORE_BUFFER,
            failed_flush_loses: false,
            faults: ModelFaults::default(),
        }
    }
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
