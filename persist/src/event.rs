//! What processors and devices do to persistent memory, as the persistence domain hears of it.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Bytes of one line.
pub const LINE: u64 = 64;
/// Bytes of the unit that never tears.
pub const WORD: u64 = 8;
/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// One thing that happened, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the recorded execution, counted from 0.
    pub seq: u64,
    /// Who did it, and where.
    pub origin: Origin,
    /// What it was.
    pub kind: EventKind,
}

/// Who did it, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Index of the virtual processor; [`Origin::DEVICE`] for devices, firmware and the host.
    pub vcpu: u8,
    /// Privilege level, 0 to 3.
    pub cpl: u8,
    /// Linear address of the instruction.
    pub rip: u64,
    /// Instructions this processor had retired before it.
    pub retired: u64,
    /// Which call of a kernel flushcache copy (`__memcpy_flushcache`, `__copy_user_nocache` or `copy_to_nontemporal`) the instruction
    /// belongs to: 0 for none, else a number that is different for every call.
    pub copy_call: u32,
}

impl Origin {
    /// `vcpu` of everything that is not a processor.
    pub const DEVICE: u8 = 255;
}

/// What happened. Addresses are guest-physical and lie in persistent memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// A store; `bytes` never cross a page.
    Store {
        /// Address of the first byte.
        addr: u64,
        /// The bytes now there.
        bytes: SmallVec<[u8; 16]>,
        /// By which path.
        path: StorePath,
    },
    /// CLFLUSH, CLFLUSHOPT or CLWB of the line at `addr` (aligned).
    Flush {
        /// Address of the line.
        addr: u64,
        /// The instruction.
        kind: FlushKind,
    },
    /// Something that drains the processor's pending set.
    Drain(DrainKind),
    /// An 8-byte write to a flush hint of this NFIT device handle.
    FlushHint {
        /// NFIT device handle of the DIMM.
        dimm: u32,
    },
    /// A request to make a region durable was made available to its device: a virtio-pmem FLUSH, told when the doorbell
    /// makes the device look at its queue. Nothing that becomes visible later is covered by it. A request that never
    /// completes (injected fault, reset of the device, loss of power) has no [`EventKind::DeviceFlushCompleted`].
    DeviceFlushSubmitted {
        /// The region it covers, whole: index in the machine's list of regions.
        region: u32,
        /// Number of the request: different for every request of the recorded execution, of any device.
        id: u64,
    },
    /// The device has answered such a request; whoever waits for it goes on behind this event. By
    /// [`Origin::DEVICE`].
    DeviceFlushCompleted {
        /// The region that the request covers, as in [`EventKind::DeviceFlushSubmitted`].
        region: u32,
        /// Number of the request.
        id: u64,
        /// What the guest reads: 0 means that everything visible when the request was made available is durable,
        /// anything else that nothing is known (VIRTIO 1.3, 5.19.6).
        status: i32,
    },
    /// The guest declared a promise. Not an event of the machine: it changes nothing.
    Promise {
        /// The scenario's number of the promise.
        id: u32,
    },
    /// The guest set a marker. Not an event of the machine: it changes nothing.
    Marker {
        /// The scenario's number of the marker.
        id: u32,
    },
    /// A watched kernel symbol was entered. Not an event of the machine: it changes nothing.
    Symbol {
        /// Index into the recording's list of watched symbols.
        index: u32,
    },
    /// The media has lost the content of these lines: they are *poisoned*. Whatever was to arrive there is lost, too, until
    /// [`EventKind::PoisonCleared`].
    Poisoned {
        /// Address of the first line.
        addr: u64,
        /// Bytes, a multiple of [`LINE`].
        len: u64,
    },
    /// Firmware has repaired these lines. They hold zeros, durable, behind this event.
    PoisonCleared {
        /// Address of the first line.
        addr: u64,
        /// Bytes, a multiple of [`LINE`].
        len: u64,
    },
    /// The processor's buffered stores have left for its cache: another processor had its turn, or an interrupt or
    /// exception was delivered. Told only where that matters, under `eadr`; an event of another processor tells the
    /// same.
    StoresVisible,
    /// The processor has gone on without an event, as `retired` of the origin tells: a CLFLUSH before it is complete.
    /// Whoever records several processors says so when one stops behind a CLFLUSH and another goes on. Not an event
    /// of the machine: it changes nothing else.
    Retired,
}

/// By which path a store leaves the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorePath {
    /// Through the cache.
    Cached,
    /// Through the cache, by iterations of the REP execution with this number that lie in one line.
    CachedRep(u64),
    /// Non-temporal.
    NonTemporal,
    /// A device, DMA, the host or firmware; also accessed and dirty bits set by the page walker.
    Agent,
}

/// The flush instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlushKind {
    /// CLFLUSH
    Clflush,
    /// CLFLUSHOPT
    Clflushopt,
    /// CLWB
    Clwb,
}

/// What drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainKind {
    /// SFENCE
    Sfence,
    /// MFENCE
    Mfence,
    /// LOCK-prefixed instruction or XCHG with memory.
    Locked,
    /// A serialising instruction.
    Serialising,
    /// WBINVD or WBNOINVD.
    WriteBackAll,
    /// Uncached access, IN or OUT.
    Uncached,
}

impl DrainKind {
    /// Whether it is one of the instructions made for this: SFENCE and MFENCE.
    pub fn is_fence(self) -> bool {
        matches!(self, DrainKind::Sfence | DrainKind::Mfence)
    }
}
