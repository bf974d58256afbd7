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
    /// The first drain of the processor since.
    pub(crate) drained: Option<Drained>,
    /// What a flush hint or a device flush did for it since that drain.
    pub(crate) fate: Option<Fate>,
}

/// What becomes of a drained store that only a flush hint or a device flush makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is durable once the run turns out not to fill its sector.
    Durable,
    /// The device flush whose failure this event told covered it.
    Failed(u64),
}

/// What a drain did for a store that is still part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// It counts as drained, by the drain with this number, once the run turns out not to fill its sector.
    By(u64),
    /// It is handed over then, by the drain with this number.
    HandedOver(u64),
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

    /// Notes a drain of the run's own processor.
    pub(crate) fn drained(&mut self, drained: Drained) {
        self.stores.iter_mut().for_each(|store| {
            store.drained.get_or_insert(drained);
        });
    }

    /// Notes a fence of any processor, with this number: what was handed over before it is drained.
    pub(crate) fn fenced(&mut self, fence: u64) {
        for store in &mut self.stores {
            if let Some(Drained::HandedOver(_)) = store.drained {
                store.drained = Some(Drained::By(fence));
            }
        }
    }

    /// Notes what a flush hint or a device flush does for the stores that were drained before event `before`.
    pub(crate) fn decide(&mut self, before: u64, fate: Fate) {
        for store in &mut self.stores {
            if matches!(store.drained, Some(Drained::By(drain)) if drain < before) {
                store.fate.get_or_insert(fate);
            }
        }
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
    /// What an interrupting handler does at CPL 0 shows nothing: it drains by IRET, locked instructions and the like,
    /// and neither stores to persistent memory nor fences it nor asks a device for a flush.
    pub(crate) fn is_ended_by(&self, event: &Event) -> bool {
        let acts_on_pmem = match &event.kind {
            EventKind::Store { path, .. } => *path != StorePath::Agent,
            EventKind::Flush { .. }
            | EventKind::FlushHint { .. }
            | EventKind::DeviceFlushSubmitted { .. } => true,
            EventKind::Drain(kind) => kind.is_fence(),
            EventKind::DeviceFlushCompleted { .. }
            | EventKind::Poisoned { .. }
            | EventKind::PoisonCleared { .. }
            | EventKind::StoresVisible
            | EventKind::Promise { .. }
            | EventKind::Marker { .. }
            | EventKind::Symbol { .. }
            | EventKind::Retired => false,
        };
        event.origin.cpl != 0 || acts_on_pmem
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
        drained: None,
        fate: None,
    };
    in_copy.then_some(store)
}

#[cfg(test)]
mod tests {
    use crate::testing::Execution;
    use crate::{DrainKind, Granularity, Origin, SECTOR, Settings, StorePath};

    const S: u64 = 0x2000;

    fn sector() -> Execution {
        Execution::new(Granularity::Sector)
    }

    /// Goes on at CPL 0 in a kernel copy.
    fn in_copy(run: &mut Execution, call: u32) {
        run.origin = Origin { cpl: 0, copy_call: call, ..run.origin };
    }

    /// Stores of 8 bytes by a kernel copy.
    fn copy(run: &mut Execution, call: u32, addr: u64, len: u64) {
        in_copy(run, call);
        for offset in (0..len).step_by(8) {
            run.store(addr + offset, &[1; 8], StorePath::NonTemporal);
        }
        run.origin.copy_call = 0;
    }

    #[test]
    fn a_sector_stays_old_until_the_copy_completes_it() {
        let mut run = sector();
        copy(&mut run, 1, S, SECTOR - 8);
        assert_eq!(run.point().count().states, 1);
        copy(&mut run, 1, S + SECTOR - 8, 8);
        let point = run.point();
        assert_eq!((point.in_flight().len(), point.count().states), (1, 2));
        assert!(point.in_flight()[0].is_sector());
        assert_eq!(point.content(&point.everything()).lines().len(), 8);
        run.sfence();
        assert_eq!(run.byte(S + 511), [1]);
    }

    #[test]
    fn an_interrupt_within_a_copy_does_not_tear_the_sector() {
        let mut run = sector();
        copy(&mut run, 1, S, 256);
        run.drain(DrainKind::Locked);
        assert!(!run.drain(DrainKind::Serialising));
        copy(&mut run, 1, S + 256, 256);
        assert_eq!(run.point().in_flight().len(), 1);
        assert_eq!(run.byte(S), [0, 1], "only a drain behind the last store covers it");
        assert!(run.drain(DrainKind::Locked));
        assert_eq!(run.byte(S), [1]);
    }

    #[test]
    fn a_fence_covers_the_tail_of_a_copy() {
        let mut run = sector();
        copy(&mut run, 1, S, SECTOR + 24);
        assert_eq!(run.point().in_flight().len(), 1);
        assert!(run.sfence());
        assert_eq!((run.byte(S), run.byte(S + SECTOR + 16)), (vec![1], vec![1]));
    }

    #[test]
    fn a_tail_that_something_else_drained_is_durable_once_the_copy_is_known_to_be_over() {
        let mut run = sector();
        copy(&mut run, 1, S, 24);
        assert!(!run.drain(DrainKind::Locked));
        run.origin.cpl = 3;
        assert!(run.promise(), "the promise drains nothing, but it cannot be within the copy");
        assert_eq!(run.byte(S + 16), [1]);
    }

    #[test]
    fn under_strict_fences_a_tail_is_durable_once_somebody_fenced_what_was_handed_over() {
        for fenced in [false, true] {
            let strict = Settings { strict_fences: true, ..Settings::default() };
            let mut run = Execution::with(strict);
            copy(&mut run, 1, S, 24);
            run.drain(DrainKind::Locked);
            if fenced {
                run.origin.vcpu = 1;
                assert!(!run.sfence(), "the copy may still go on");
                run.origin.vcpu = 0;
            }
            run.origin.cpl = 3;
            assert_eq!(run.promise(), fenced);
            assert_eq!(run.point().handed_over().len(), if fenced { 0 } else { 3 });
            assert_eq!(run.sfence(), !fenced);
            assert!(run.point().in_flight().is_empty());
        }
    }

    #[test]
    fn a_tail_that_nothing_drained_is_in_flight_by_words() {
        let mut run = sector();
        copy(&mut run, 1, S, 24);
        assert!(run.point().in_flight().is_empty());
        run.origin.cpl = 3;
        assert!(!run.promise());
        assert_eq!(run.point().count().states, 8);
    }

    #[test]
    fn only_what_was_drained_becomes_durable_with_the_end_of_a_copy() {
        let mut run = sector();
        copy(&mut run, 1, S, 16);
        run.drain(DrainKind::Serialising);
        copy(&mut run, 1, S + 16, 8);
        copy(&mut run, 2, S + 4096, 8);
        assert_eq!((run.byte(S + 8), run.byte(S + 16)), (vec![1], vec![0, 1]));
    }

    #[test]
    fn the_head_of_a_copy_is_words_at_once() {
        let mut run = sector();
        copy(&mut run, 1, S + 256, 256 + 8);
        assert_eq!(run.point().in_flight().len(), 32);
    }

    #[test]
    fn a_copy_in_user_mode_is_words() {
        let mut run = sector();
        in_copy(&mut run, 1);
        run.origin.cpl = 3;
        run.store(S, &[1; 64], StorePath::NonTemporal);
        assert_eq!(run.point().in_flight().len(), 8);
    }

    #[test]
    fn a_store_of_another_processor_into_a_line_of_the_copy_comes_after_it() {
        let mut run = sector();
        copy(&mut run, 1, S, 16);
        run.origin.vcpu = 1;
        run.cached(S + 8, 2);
        assert_eq!(run.byte(S + 8), [0, 1, 2]);
        run.origin.vcpu = 0;
        copy(&mut run, 1, S + 16, SECTOR - 16);
        assert!(run.point().in_flight().iter().all(|part| !part.is_sector()));
    }

    #[test]
    fn a_store_beside_the_copy_in_its_line_comes_after_it() {
        let mut run = sector();
        copy(&mut run, 1, S, 16);
        run.origin.vcpu = 1;
        run.cached(S + 32, 2);
        assert_eq!(run.point().in_flight().len(), 3);
    }

    #[test]
    fn a_store_into_a_line_that_the_copy_has_not_reached_comes_before_it() {
        let mut run = sector();
        copy(&mut run, 1, S, 16);
        run.origin.vcpu = 1;
        run.cached(S + 64, 2);
        run.origin.vcpu = 0;
        copy(&mut run, 1, S + 16, SECTOR - 16);
        let point = run.point();
        assert!(point.closure([1]).iter().eq([0, 1]));
        assert_eq!(point.count().states, 3);
    }

    #[test]
    fn what_comes_after_a_sector_takes_all_of_it_along() {
        let mut run = sector();
        run.cached(S + 448, 9);
        copy(&mut run, 1, S, SECTOR);
        run.cached(S, 2);
        run.clwb(S);
        assert!(run.sfence());
        assert_eq!((run.byte(S), run.byte(S + 448)), (vec![2], vec![1]));
        assert!(run.point().in_flight().is_empty());
    }
}
