//! Turns what the processor tells its bus into the events of the persistence model.

use std::collections::BTreeMap;
use std::ops::Range;

use cpu::CpuView;
use persist::{DrainKind, Event, EventKind, FlushKind, Origin, StorePath};
use rustc_hash::FxHashMap;

use crate::config::MAX_CPUS;
use crate::memory::PAGE;
use crate::pages::SECTOR;
use crate::trace_hash::TraceHash;

/// Bytes of a kernel stack (THREAD_SIZE of x86-64): a copy is told from an interrupting one by its stack.
const STACK: u64 = 16 << 10;

/// Kernel stacks whose copies are told apart.
const MAX_STACKS: usize = 1 << 16;

/// What a snapshot keeps of the recording, so that going back makes the same events again.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct RecorderState {
    next: u64,
    next_copy: u32,
    next_rep: u64,
    /// Retired count in front of the last CLFLUSH of each processor, until it is known to be complete.
    clflushes: [Option<u64>; MAX_CPUS as usize],
    /// Number of the REP execution that each processor began last.
    reps: [u64; MAX_CPUS as usize],
    /// Copy in progress on each kernel stack.
    copies: BTreeMap<u64, u32>,
    /// Which processors have stored since their store buffer was last known to be empty.
    buffered: [bool; MAX_CPUS as usize],
}

/// Records events while it is on.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) on: bool,
    /// Stores, flushes and fences of processors are not recorded: an engine executes that does not tell of its own.
    pub(crate) by_pages: bool,
    /// Whether it is an event when the store buffer of a processor is empty.
    pub(crate) store_buffer: bool,
    pub(crate) state: RecorderState,
    pub(crate) hash: TraceHash,
    events: Vec<Event>,
    copy_functions: Vec<Range<u64>>,
    watched: FxHashMap<u64, u32>,
    pub(crate) stop_at_symbols: bool,
    pub(crate) stop_at: Option<u64>,
}

impl Recorder {
    pub(crate) fn set_copy_functions(&mut self, ranges: &[Range<u64>]) {
        self.copy_functions = ranges.to_vec();
    }

    pub(crate) fn set_watched(&mut self, symbols: &[u64]) {
        self.watched = symbols.iter().zip(0..).map(|(&address, index)| (address, index)).collect();
    }

    /// Every address at which [`Recorder::probe`] wants to be called.
    pub(crate) fn probes(&self) -> Vec<u64> {
        let mut probes: Vec<u64> = self.copy_functions.iter().map(|range| range.start).collect();
        probes.extend(self.watched.keys());
        probes.sort_unstable();
        probes.dedup();
        probes
    }

    pub(crate) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn next(&self) -> u64 {
        self.state.next
    }

    /// Events recorded and not taken yet.
    pub(crate) fn recorded(&self) -> usize {
        self.events.len()
    }

    /// Forgets the events behind the first `len`: the machine went back.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.events.truncate(len);
    }

    fn origin(&self, view: &CpuView) -> Origin {
        Origin {
            vcpu: view.vcpu,
            cpl: view.cpl,
            rip: view.rip,
            retired: view.retired,
            copy_call: self.copy_call(view),
        }
    }

    fn copy_call(&self, view: &CpuView) -> u32 {
        let inside = view.cpl == 0 && self.copy_functions.iter().any(|range| range.contains(&view.rip));
        if inside { self.state.copies.get(&(view.rsp / STACK)).copied().unwrap_or(0) } else { 0 }
    }

    /// Appends an event. Returns whether the run should stop right behind it.
    fn push(&mut self, origin: Origin, kind: EventKind) -> bool {
        let seq = self.state.next;
        self.state.next += 1;
        let event = Event { seq, origin, kind };
        self.hash.event(&event);
        self.events.push(event);
        self.stop_at == Some(seq)
    }

    /// A store by a processor.
    pub(crate) fn store(&mut self, view: &CpuView, addr: u64, bytes: &[u8], kind: cpu::StoreKind) -> bool {
        if !self.on || self.by_pages {
            return false;
        }
        let path = match kind {
            cpu::StoreKind::Cached => StorePath::Cached,
            cpu::StoreKind::CachedRep { first } => StorePath::CachedRep(self.rep(view.vcpu, first)),
            cpu::StoreKind::NonTemporal => StorePath::NonTemporal,
            cpu::StoreKind::PageWalk => StorePath::Agent,
        };
        if let Some(buffered) = self.state.buffered.get_mut(usize::from(view.vcpu)) {
            *buffered |= path != StorePath::Agent;
        }
        self.push(self.origin(view), EventKind::Store { addr, bytes: bytes.into(), path })
    }

    /// Number of the REP execution that a processor is in, a new one when it begins.
    fn rep(&mut self, vcpu: u8, first: bool) -> u64 {
        let Some(rep) = self.state.reps.get_mut(usize::from(vcpu)) else { return 0 };
        if first {
            self.state.next_rep += 1;
            *rep = self.state.next_rep;
        }
        *rep
    }

    /// A store by a device or the host.
    pub(crate) fn agent_store(&mut self, addr: u64, bytes: &[u8]) {
        if !self.by_pages {
            let origin = Origin { vcpu: Origin::DEVICE, ..Origin::default() };
            self.firmware_store(origin, addr, bytes);
        }
    }

    /// A store to a label area, for which a processor had asked.
    pub(crate) fn label_store(&mut self, view: &CpuView, addr: u64, bytes: &[u8]) -> bool {
        let origin = Origin { vcpu: Origin::DEVICE, ..self.origin(view) };
        self.firmware_store(origin, addr, bytes)
    }

    /// The media has lost lines.
    pub(crate) fn poisoned(&mut self, addr: u64, len: u64) -> bool {
        let origin = Origin { vcpu: Origin::DEVICE, ..Origin::default() };
        self.on && self.push(origin, EventKind::Poisoned { addr, len })
    }

    /// Firmware has repaired lines, for which a processor had asked.
    pub(crate) fn poison_cleared(&mut self, view: &CpuView, addr: u64, len: u64) -> bool {
        let origin = Origin { vcpu: Origin::DEVICE, ..self.origin(view) };
        self.on && self.push(origin, EventKind::PoisonCleared { addr, len })
    }

    fn firmware_store(&mut self, origin: Origin, addr: u64, bytes: &[u8]) -> bool {
        self.on && self.push(origin, EventKind::Store { addr, bytes: bytes.into(), path: StorePath::Agent })
    }

    /// A flush of a line.
    pub(crate) fn flush(&mut self, view: &CpuView, addr: u64, kind: cpu::FlushKind) -> bool {
        let kind = match kind {
            cpu::FlushKind::Clflush => FlushKind::Clflush,
            cpu::FlushKind::Clflushopt => FlushKind::Clflushopt,
            cpu::FlushKind::Clwb => FlushKind::Clwb,
        };
        if !self.on || self.by_pages {
            return false;
        }
        if kind == FlushKind::Clflush
            && let Some(clflush) = self.state.clflushes.get_mut(usize::from(view.vcpu))
        {
            *clflush = Some(view.retired);
        }
        self.push(self.origin(view), EventKind::Flush { addr, kind })
    }

    /// A processor stops and another one goes on. If it has executed CLFLUSH and something behind it, that is told: the
    /// next event is another processor's, perhaps because of what this one did (litmus test 35).
    /// The same holds for what it has stored, where the store buffer counts.
    pub(crate) fn stops(&mut self, view: &CpuView) -> bool {
        // `view` is that of an instruction which has not been executed yet.
        let last = view.retired.saturating_sub(1);
        let origin = Origin { retired: last, ..self.origin(view) };
        let Some(clflush) = self.state.clflushes.get_mut(usize::from(view.vcpu)) else { return false };
        let beyond = clflush.is_some_and(|retired| last > retired);
        if beyond && self.on {
            *clflush = None;
        }
        if self.empties_buffer(view) {
            return self.push(origin, EventKind::StoresVisible);
        }
        self.on && beyond && self.push(origin, EventKind::Retired)
    }

    /// An interrupt or exception is delivered.
    pub(crate) fn stores_visible(&mut self, view: &CpuView) -> bool {
        self.empties_buffer(view) && self.push(self.origin(view), EventKind::StoresVisible)
    }

    /// Whether an event tells that the processor's store buffer is empty from now on.
    fn empties_buffer(&mut self, view: &CpuView) -> bool {
        let buffered = self.state.buffered.get_mut(usize::from(view.vcpu));
        self.on && self.store_buffer && buffered.is_some_and(std::mem::take)
    }

    /// A drain.
    pub(crate) fn drain(&mut self, view: &CpuView, kind: cpu::DrainKind) -> bool {
        let kind = match kind {
            cpu::DrainKind::Sfence => DrainKind::Sfence,
            cpu::DrainKind::Mfence => DrainKind::Mfence,
            cpu::DrainKind::Locked => DrainKind::Locked,
            cpu::DrainKind::Serialising => DrainKind::Serialising,
            cpu::DrainKind::WriteBackAll => DrainKind::WriteBackAll,
            cpu::DrainKind::Uncached => DrainKind::Uncached,
        };
        if let Some(buffered) = self.state.buffered.get_mut(usize::from(view.vcpu)) {
            *buffered = false;
        }
        self.on && !self.by_pages && self.push(self.origin(view), EventKind::Drain(kind))
    }

    /// Sectors were found to hold this now. Each is told as a store that persists as one and is visible: a copy of the
    /// kernel's that fills it, drained. Adjoining sectors of a page count as one copy.
    pub(crate) fn sectors(&mut self, sectors: &[(u64, [u8; SECTOR])]) {
        if !self.on || sectors.is_empty() {
            return;
        }
        let mut next = None;
        for (addr, bytes) in sectors {
            if next != Some(*addr) || addr.is_multiple_of(PAGE) {
                self.state.next_copy = self.state.next_copy.wrapping_add(1).max(1);
            }
            next = addr.checked_add(SECTOR as u64);
            let origin = Origin { copy_call: self.state.next_copy, ..Origin::default() };
            let bytes = bytes.as_slice().into();
            self.push(origin, EventKind::Store { addr: *addr, bytes, path: StorePath::NonTemporal });
        }
        self.push(Origin::default(), EventKind::Drain(DrainKind::Sfence));
    }

    /// A write to a flush hint.
    pub(crate) fn flush_hint(&mut self, view: &CpuView, dimm: u32) -> bool {
        self.on && self.push(self.origin(view), EventKind::FlushHint { dimm })
    }

    /// A processor has made a flush of the region's device available.
    pub(crate) fn device_flush_submitted(&mut self, view: &CpuView, region: u32, id: u64) -> bool {
        self.on && self.push(self.origin(view), EventKind::DeviceFlushSubmitted { region, id })
    }

    /// The region's device has answered a flush.
    pub(crate) fn device_flush_completed(&mut self, region: u32, id: u64, status: i32) -> bool {
        let origin = Origin { vcpu: Origin::DEVICE, ..Origin::default() };
        self.on && self.push(origin, EventKind::DeviceFlushCompleted { region, id, status })
    }

    /// A promise or marker of the guest.
    pub(crate) fn declared(&mut self, view: &CpuView, kind: EventKind) -> bool {
        self.on && self.push(self.origin(view), kind)
    }

    /// The processor is about to enter a function that somebody asked for. Returns the index of the watched symbol
    /// when the run should stop in front of it.
    pub(crate) fn probe(&mut self, view: &CpuView) -> Option<u32> {
        if self.copy_functions.iter().any(|range| range.start == view.rip) {
            self.state.next_copy = self.state.next_copy.wrapping_add(1).max(1);
            if self.state.copies.len() == MAX_STACKS {
                // More kernel stacks than any kernel has here: a guest that only wants our memory.
                self.state.copies.clear();
            }
            self.state.copies.insert(view.rsp / STACK, self.state.next_copy);
        }
        let index = *self.watched.get(&view.rip)?;
        if self.on {
            self.push(self.origin(view), EventKind::Symbol { index });
        }
        self.stop_at_symbols.then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(rip: u64, rsp: u64) -> CpuView {
        CpuView { vcpu: 0, cpl: 0, rip, rsp, retired: 0, tsc: 0 }
    }

    fn calls(recorder: &mut Recorder) -> Vec<u32> {
        recorder.take().iter().map(|event| event.origin.copy_call).collect()
    }

    #[test]
    fn copies_on_different_stacks_keep_their_own_call_number() {
        let mut recorder = Recorder { on: true, ..Recorder::default() };
        recorder.set_copy_functions(std::slice::from_ref(&(0x1000..0x1100)));
        let (first, second) = (10 * STACK + 8, 20 * STACK + 8);
        let store = |recorder: &mut Recorder, rip, rsp| {
            recorder.store(&view(rip, rsp), 0, &[0; 8], cpu::StoreKind::NonTemporal)
        };
        recorder.probe(&view(0x1000, first));
        store(&mut recorder, 0x1010, first);
        recorder.probe(&view(0x1000, second));
        store(&mut recorder, 0x1010, second);
        store(&mut recorder, 0x1010, first);
        store(&mut recorder, 0x2000, first);
        assert_eq!(calls(&mut recorder), [1, 2, 1, 0]);
    }

    #[test]
    fn iterations_of_one_rep_execution_share_a_number() {
        let mut recorder = Recorder { on: true, ..Recorder::default() };
        for first in [true, false, true] {
            recorder.store(&view(0, 0), 0, &[0], cpu::StoreKind::CachedRep { first });
        }
        let paths: Vec<_> = recorder
            .take()
            .into_iter()
            .map(|event| match event.kind {
                EventKind::Store { path, .. } => path,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(paths, [StorePath::CachedRep(1), StorePath::CachedRep(1), StorePath::CachedRep(2)]);
    }

    #[test]
    fn executions_of_two_processors_keep_their_own_numbers() {
        let mut recorder = Recorder { on: true, ..Recorder::default() };
        for (vcpu, first) in [(0, true), (1, true), (0, false), (1, false)] {
            let view = CpuView { vcpu, ..view(0, 0) };
            recorder.store(&view, 0, &[0], cpu::StoreKind::CachedRep { first });
        }
        let numbers = recorder.take().into_iter().map(|event| match event.kind {
            EventKind::Store { path: StorePath::CachedRep(number), .. } => number,
            other => panic!("{other:?}"),
        });
        assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 1, 2]);
    }

    #[test]
    fn a_processor_that_stops_tells_once_that_it_has_gone_beyond_a_clflush() {
        let mut recorder = Recorder { on: true, ..Recorder::default() };
        let at = |retired| CpuView { retired, ..view(0, 0) };
        recorder.flush(&at(7), 0, cpu::FlushKind::Clflush);
        for retired in [8, 9, 10] {
            recorder.stops(&at(retired));
        }
        recorder.stops(&CpuView { vcpu: 1, ..at(100) });
        let told = recorder.take();
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!((told[1].origin.retired, &told[1].kind), (8, &EventKind::Retired));
    }

    #[test]
    fn a_processor_that_stops_tells_once_that_its_stores_can_be_seen_where_that_counts() {
        for store_buffer in [false, true] {
            let mut recorder = Recorder { on: true, store_buffer, ..Recorder::default() };
            let at = |retired| CpuView { retired, ..view(0, 0) };
            recorder.flush(&at(7), 0, cpu::FlushKind::Clflush);
            recorder.store(&at(8), 0, &[0], cpu::StoreKind::Cached);
            recorder.stops(&at(9));
            recorder.stores_visible(&at(9));
            recorder.store(&at(9), 0, &[0], cpu::StoreKind::Cached);
            recorder.drain(&at(10), cpu::DrainKind::Sfence);
            recorder.stores_visible(&at(11));
            let kinds: Vec<EventKind> = recorder.take().into_iter().map(|event| event.kind).collect();
            let told = if store_buffer { EventKind::StoresVisible } else { EventKind::Retired };
            assert_eq!((kinds.len(), &kinds[2]), (5, &told), "{kinds:?}");
        }
    }

    #[test]
    fn it_stops_right_behind_the_chosen_event() {
        let mut recorder = Recorder { on: true, stop_at: Some(1), ..Recorder::default() };
        assert!(!recorder.drain(&view(0, 0), cpu::DrainKind::Sfence));
        assert!(recorder.drain(&view(0, 0), cpu::DrainKind::Sfence));
        assert!(!recorder.drain(&view(0, 0), cpu::DrainKind::Sfence));
    }

    #[test]
    fn nothing_is_recorded_while_it_is_off() {
        let mut recorder = Recorder::default();
        recorder.agent_store(0, &[1]);
        recorder.store(&view(0, 0), 0, &[0], cpu::StoreKind::Cached);
        assert_eq!((recorder.take().len(), recorder.next()), (0, 0));
    }
}
