//! Kernel copies that write whole sectors, in `sector` mode.

use smallvec::SmallVec;

use crate::part::{line_of, sector_of};
use crate::{Event, EventKind, Origin, SECTOR, StorePath};

/// A non-temporal store of a run.
#[derive(Clone, Debug)]
pub(crate) struct RunStore {
    pub(crate) addr: u64,
    pub(crate) bytes: SmallVec<[u8; 16]>,
    pub(crate) event: u64,
    pub(crate) origin: Origin,
    /// Whether the processor has drained since.
    pub(crate) drained: bool,
}

/// Non-temporal stores of one call of a kernel flushcache copy that fill one sector from its first byte on, each
/// where the one before ended.
#[derive(Clone, Debug)]
pub(crate) struct CopyRun {
    call: u32,
    /// Address of the sector.
    pub(crate) sector: u64,
    next: u64,
    pub(crate) stores: Vec<RunStore>,
}

impl CopyRun {
    /// The run that starts with this event, if one does.
    pub(crate) fn start(event: &Event) -> Option<Self> {
        let store = copy_store(event)?;
        let (call, sector) = (event.origin.copy_call, store.addr);
        let start = Self { call, sector, next: sector, stores: Vec::new() };
        (sector_of(store.addr) == store.addr).then_some(start)
    }

    /// Whether the event's store belongs to the run: it starts where the run ended and stays in the sector.
    pub(crate) fn goes_on_with(&self, event: &Event) -> bool {
        copy_store(event).is_some_and(|store| self.fits(event.origin.copy_call, &store))
    }

    /// Appends the event's store if it belongs to the run. Returns whether it does.
    pub(crate) fn extend(&mut self, event: &Event) -> bool {
        let store = copy_store(event).filter(|store| self.fits(event.origin.copy_call, store));
        let Some(store) = store else { return false };
        self.next += store.bytes.len() as u64;
        self.stores.push(store);
        true
    }

    fn fits(&self, call: u32, store: &RunStore) -> bool {
        let end = store.addr + store.bytes.len() as u64;
        call == self.call && store.addr == self.next && end <= self.sector + SECTOR
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.next - self.sector == SECTOR
    }

    /// Whether it has written into any of the lines that `start..end` lies in.
    pub(crate) fn shares_line(&self, start: u64, end: u64) -> bool {
        line_of(start) < self.next && self.sector < end
    }

    /// Whether this event of the run's own processor shows that the run will not go on.
    ///
    /// What an interrupting handler does at CPL 0 shows nothing: it carries no call number, drains by IRET, locked
    /// instructions and the like, and neither stores to persistent memory nor fences it.
    pub(crate) fn is_ended_by(&self, event: &Event) -> bool {
        let foreign = event.origin.copy_call != self.call;
        let other_call = foreign && event.origin.copy_call != 0;
        let acts_on_pmem = match &event.kind {
            EventKind::Store { path, .. } => *path != StorePath::Agent,
            EventKind::Flush { .. } | EventKind::FlushHint { .. } => true,
            EventKind::Drain(kind) => kind.is_fence(),
            EventKind::Promise { .. } | EventKind::Marker { .. } | EventKind::Symbol { .. } => false,
        };
        event.origin.cpl != 0 || other_call || acts_on_pmem
    }
}

/// The event as a store that can belong to a run.
fn copy_store(event: &Event) -> Option<RunStore> {
    let EventKind::Store { addr, bytes, path: StorePath::NonTemporal } = &event.kind else { return None };
    let in_copy = event.origin.cpl == 0 && event.origin.copy_call != 0;
    let store = RunStore {
        addr: *addr,
        bytes: bytes.clone(),
        event: event.seq,
        origin: event.origin,
        drained: false,
    };
    in_copy.then_some(store)
}
