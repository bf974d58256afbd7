//! The state of the model: follows the events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::copy_run::{CopyRun, Drained, RunStore};
use crate::crash_point::CrashPoint;
use crate::durable::{DurableLines, Media};
use crate::line::{Line, Source};
use crate::order::{Entry, Kind, include_predecessors};
use crate::part::{Part, cut, line_of, lines_of_sector, sector_of};
use crate::settings::{Granularity, Settings};
use crate::{DrainKind, Event, EventKind, FlushKind, LINE, StorePath, WORD};

/// The persistence domain: everything that stands between the processors and the media.
///
/// Feed it every event of an execution, in order of `seq`. Memory and time of [`Domain::apply`] depend on the parts in
/// flight, not on the length of the run.
pub struct Domain {
    settings: Settings,
    media: Arc<dyn Media>,
    durable: DurableLines,
    /// Lines with parts in flight.
    lines: BTreeMap<u64, Line>,
    processors: BTreeMap<u8, Processor>,
    epoch: u64,
    /// Lines with parts that are handed over: under strict fences only.
    handed_over: BTreeSet<u64>,
}

/// What a processor has asked for and no drain has covered yet.
#[derive(Default)]
struct Processor {
    /// Lines with flush targets or non-temporal parts of this processor. Of the cached parts, those of events before
    /// the given one are targets; a whole sector stands at its first line.
    pending: BTreeMap<u64, u64>,
    clflushes: Vec<Clflush>,
    run: Option<CopyRun>,
}

/// A CLFLUSH that the processor's next instruction completes.
struct Clflush {
    line: u64,
    seq: u64,
    retired: u64,
}

impl Domain {
    /// A domain before the first event: nothing in flight, and `media` durable.
    pub fn new(settings: Settings, media: Arc<dyn Media>) -> Self {
        let durable = DurableLines::default();
        let (lines, processors) = (BTreeMap::new(), BTreeMap::new());
        Self { settings, media, durable, lines, processors, epoch: 0, handed_over: BTreeSet::new() }
    }

    /// Follows the next event. Returns whether it made something durable.
    pub fn apply(&mut self, event: &Event) -> bool {
        let epoch = self.epoch;
        self.complete_clflushes(event);
        if self
            .processor(event)
            .run
            .as_ref()
            .is_some_and(|run| !run.goes_on_with(event) && run.is_ended_by(event))
        {
            self.release_run(event.origin.vcpu);
        }
        match &event.kind {
            EventKind::Store { addr, bytes, path } => self.store(event, *addr, bytes, *path),
            EventKind::Flush { addr, kind } => self.flush(event, line_of(*addr), *kind),
            EventKind::Drain(DrainKind::Sfence) if self.settings.faults.ignore_sfence => {}
            EventKind::Drain(kind) => self.drain(event, *kind),
            EventKind::Promise { .. } if self.settings.faults.promises_drain => {
                self.drain(event, DrainKind::Sfence)
            }
            EventKind::FlushHint { .. }
            | EventKind::DeviceFlushSubmitted { .. }
            | EventKind::DeviceFlushCompleted { .. }
            | EventKind::Promise { .. }
            | EventKind::Marker { .. }
            | EventKind::Symbol { .. }
            | EventKind::Retired => {}
        }
        self.epoch != epoch
    }

    /// What could be on the media if the power went now. Costs time and memory in proportion to the parts in flight.
    ///
    /// For a promise, take it after applying the promise: that drains nothing, but it is the proof that a kernel copy
    /// or a CLFLUSH before it is over.
    pub fn crash_point(&self) -> CrashPoint {
        CrashPoint::new(&self.settings, self.media.clone(), self.durable.clone(), &self.lines)
    }

    fn processor(&mut self, event: &Event) -> &mut Processor {
        self.processors.entry(event.origin.vcpu).or_default()
    }

    /// A CLFLUSH is complete once another instruction of its processor has been executed. The instruction by which
    /// the guest reaches the simulator is none of the machine's, nor has a symbol's first instruction been executed.
    fn complete_clflushes(&mut self, event: &Event) {
        let declares = matches!(event.kind, EventKind::Promise { .. } | EventKind::Marker { .. });
        let symbol = matches!(event.kind, EventKind::Symbol { .. });
        let vcpu = event.origin.vcpu;
        let mut complete = Vec::new();
        self.processor(event).clflushes.retain_mut(|clflush| {
            let since = event.origin.retired.saturating_sub(clflush.retired);
            let completed = since > u64::from(declares || symbol);
            if completed {
                complete.push((clflush.line, clflush.seq));
            } else if declares {
                clflush.retired += since;
            }
            !completed
        });
        for (line, seq) in complete {
            self.make_durable(&Covered { vcpu, lines: vec![(line, seq)], non_temporal_before: 0 });
        }
    }

    fn store(&mut self, event: &Event, addr: u64, bytes: &[u8], path: StorePath) {
        self.release_runs_beside(event, addr, addr + bytes.len() as u64);
        let faults = self.settings.faults;
        if self.settings.granularity == Granularity::Sector
            && !faults.stores_are_durable
            && self.collect(event)
        {
            return;
        }
        let source = Source { event: event.seq, origin: event.origin, path };
        self.append(source, addr, bytes);
        if faults.stores_are_durable {
            let all = event.seq + 1;
            let lines = cut(addr, bytes.len(), LINE).map(|(start, ..)| (line_of(start), all)).collect();
            self.make_durable(&Covered { vcpu: event.origin.vcpu, lines, non_temporal_before: all });
        }
    }

    /// Takes the event's store into its processor's run of a kernel copy, if it belongs to one or starts one.
    fn collect(&mut self, event: &Event) -> bool {
        let processor = self.processor(event);
        if processor.run.is_none() {
            processor.run = CopyRun::start(event);
        }
        let collected = processor.run.as_mut().is_some_and(|run| run.extend(event));
        if let Some(run) = processor.run.take_if(|run| run.is_complete()) {
            self.append_sector(event, &run);
        }
        collected
    }

    /// A store into lines of somebody's run comes after it: no sector is written as one then.
    fn release_runs_beside(&mut self, event: &Event, start: u64, end: u64) {
        let beside = |(&vcpu, processor): (&u8, &Processor)| {
            let run = processor.run.as_ref()?;
            let goes_on = vcpu == event.origin.vcpu && run.goes_on_with(event);
            (!goes_on && run.shares_line(start, end)).then_some(vcpu)
        };
        let released: Vec<u8> = self.processors.iter().filter_map(beside).collect();
        for vcpu in released {
            self.release_run(vcpu);
        }
    }

    /// Turns a run that did not fill its sector into ordinary non-temporal stores. What its processor drained since
    /// becomes durable.
    fn release_run(&mut self, vcpu: u8) {
        let Some(run) = self.processors.get_mut(&vcpu).and_then(|processor| processor.run.take()) else {
            return;
        };
        let (mut durable, mut handed_over): (Vec<&RunStore>, Vec<(u64, &RunStore)>) = Default::default();
        for store in &run.stores {
            let source = Source { event: store.event, origin: store.origin, path: StorePath::NonTemporal };
            self.append(source, store.addr, &store.bytes);
            match store.drained {
                Some(Drained::Durable) => durable.push(store),
                Some(Drained::HandedOver(drain)) => handed_over.push((drain, store)),
                None => {}
            }
        }
        self.make_durable(&Covered::stores(vcpu, &durable));
        for same in handed_over.chunk_by(|one, next| one.0 == next.0) {
            let stores: Vec<&RunStore> = same.iter().map(|(_, store)| *store).collect();
            self.hand_over(&Covered::stores(vcpu, &stores), same[0].0);
        }
    }

    /// Cuts a store and appends its parts to their lines.
    fn append(&mut self, source: Source, addr: u64, bytes: &[u8]) {
        let cached = source.path != StorePath::NonTemporal;
        // The iterations of a REP are stores of their own, unordered on their line, and arrive a line at a time: the
        // unit that never tears is what can be told apart of them.
        let iterations = matches!(source.path, StorePath::CachedRep(_));
        let words = !cached || iterations || self.settings.granularity == Granularity::Word;
        let unit = if words { WORD } else { LINE };
        for (index, (start, offset, len)) in cut(addr, bytes.len(), unit).enumerate() {
            let part =
                self.part(source, index as u32, start, SmallVec::from_slice(&bytes[offset..offset + len]));
            let line_addr = part.line();
            let line = self.lines.entry(line_addr).or_default();
            let kind = if cached { Kind::Cached { batch: line.batch(source) } } else { Kind::NonTemporal };
            line.push(Entry { mask: part.mask(line_addr), kind }, part);
            if !cached {
                self.processors.entry(source.origin.vcpu).or_default().pending.entry(line_addr).or_default();
            }
        }
    }

    /// Appends a whole sector as one part.
    fn append_sector(&mut self, event: &Event, run: &CopyRun) {
        let source = Source { event: event.seq, origin: event.origin, path: StorePath::NonTemporal };
        let bytes = run.stores.iter().flat_map(|store| store.bytes.iter().copied()).collect();
        let part = self.part(source, 0, run.sector, bytes);
        for line in lines_of_sector(part.addr) {
            let entry = Entry { mask: u64::MAX, kind: Kind::Sector };
            self.lines.entry(line).or_default().push(entry, part.clone());
        }
        self.processor(event).pending.entry(part.addr).or_default();
    }

    fn part(&self, source: Source, cut: u32, addr: u64, bytes: SmallVec<[u8; 16]>) -> Arc<Part> {
        let Source { event, origin, path } = source;
        Arc::new(Part {
            addr,
            bytes,
            event,
            origin,
            path,
            epoch: self.epoch,
            flushed_by: None,
            handed_over_by: None,
            cut,
        })
    }

    fn flush(&mut self, event: &Event, addr: u64, kind: FlushKind) {
        let flushed = self.lines.get_mut(&addr).is_some_and(|line| line.flush(event.seq));
        let processor = self.processor(event);
        if flushed {
            processor.pending.insert(addr, event.seq);
        }
        if flushed && kind == FlushKind::Clflush {
            let retired = event.origin.retired;
            processor.clflushes.push(Clflush { line: addr, seq: event.seq, retired });
        }
    }

    fn drain(&mut self, event: &Event, kind: DrainKind) {
        let vcpu = event.origin.vcpu;
        let hands_over = self.settings.strict_fences && !kind.is_fence();
        let processor = self.processor(event);
        if let Some(run) = &mut processor.run {
            let drained = if hands_over { Drained::HandedOver(event.seq) } else { Drained::Durable };
            run.drained(drained);
        }
        let mut targets: Vec<_> = std::mem::take(&mut processor.pending).into_iter().collect();
        if kind == DrainKind::WriteBackAll {
            let own = self.lines.iter().filter(|(_, line)| line.is_held_by(vcpu));
            targets.extend(own.map(|(&addr, _)| (addr, event.seq)));
        }
        let covered = Covered { vcpu, lines: targets, non_temporal_before: event.seq };
        if hands_over {
            self.hand_over(&covered, event.seq);
        } else {
            let mut lines = self.included(&covered);
            self.include_handed_over(&mut lines);
            self.write_back(lines);
        }
    }

    /// Marks what the drain with this number covers, with everything that comes before.
    fn hand_over(&mut self, covered: &Covered, drain: u64) {
        for (addr, included) in self.included(covered) {
            let Some(line) = self.lines.get_mut(&addr) else { continue };
            line.hand_over(&included, drain);
            self.handed_over.insert(addr);
        }
    }

    /// A fence of any processor makes durable what was handed over by whomever.
    fn include_handed_over(&mut self, lines: &mut BTreeMap<u64, Vec<bool>>) {
        for processor in self.processors.values_mut() {
            processor.run.iter_mut().for_each(CopyRun::fenced);
        }
        for addr in std::mem::take(&mut self.handed_over) {
            let Some(line) = self.lines.get(&addr) else { continue };
            let included = lines.entry(addr).or_insert_with(|| vec![false; line.parts.len()]);
            for (included, part) in included.iter_mut().zip(&line.parts) {
                *included |= part.handed_over_by.is_some();
            }
        }
    }

    fn make_durable(&mut self, covered: &Covered) {
        let included = self.included(covered);
        self.write_back(included);
    }

    /// Which parts a drain or flush covers, with everything that comes before: lines with such parts, and a mark for
    /// each of their parts.
    fn included(&self, covered: &Covered) -> BTreeMap<u64, Vec<bool>> {
        let seeds = Seeds { covered, nt_evicts: self.settings.nt_evicts };
        let mut lines: BTreeMap<u64, Durably> = BTreeMap::new();
        for &(addr, before) in &covered.lines {
            let line = lines.entry(addr).or_default();
            line.cached_before = line.cached_before.max(before);
        }
        if self.settings.granularity == Granularity::Sector {
            self.reach_sectors(&seeds, &mut lines);
        }
        let included = lines.iter().filter_map(|(&addr, target)| {
            let included = seeds.included(self.lines.get(&addr)?, target);
            included.contains(&true).then_some((addr, included))
        });
        included.collect()
    }

    /// Moves the marked parts of the lines to the media.
    fn write_back(&mut self, lines: BTreeMap<u64, Vec<bool>>) {
        let mut grown = false;
        for (addr, included) in lines {
            let Some(line) = self.lines.get_mut(&addr) else { continue };
            grown |= included.contains(&true);
            let initial = self.media.line(addr);
            let mut content = self.durable.get(addr).unwrap_or(initial);
            line.remove(&included, |part| part.write_to(addr, &mut content));
            if line.parts.is_empty() {
                self.lines.remove(&addr);
            }
            self.durable.set(addr, (content != initial).then_some(content));
        }
        self.epoch += u64::from(grown);
    }

    /// Adds the other lines of every whole sector that becomes durable.
    fn reach_sectors(&self, seeds: &Seeds, lines: &mut BTreeMap<u64, Durably>) {
        let mut sectors: BTreeMap<u64, u64> = BTreeMap::new();
        for (&addr, target) in lines.iter() {
            let Some(line) = self.lines.get(&addr) else { continue };
            let included = seeds.included(line, target);
            let entries = line.entries.iter().zip(&line.parts).zip(&included);
            let newest =
                entries.rev().find(|((entry, _), included)| **included && entry.kind == Kind::Sector);
            if let Some(((_, part), _)) = newest {
                let event = sectors.entry(sector_of(addr)).or_default();
                *event = part.event.max(*event);
            }
        }
        for (sector, event) in sectors {
            for addr in lines_of_sector(sector) {
                lines.entry(addr).or_default().all_before = event + 1;
            }
        }
    }
}

/// What of a line becomes durable, apart from non-temporal parts.
#[derive(Default)]
struct Durably {
    /// Cached parts of events before this one.
    cached_before: u64,
    /// All parts of events before this one.
    all_before: u64,
}

/// What a drain or a completed flush covers.
struct Covered {
    vcpu: u8,
    /// Of each (line, `before`) the cached parts of events before `before`.
    lines: Vec<(u64, u64)>,
    /// The non-temporal parts of `vcpu` on these lines of events before this one.
    non_temporal_before: u64,
}

impl Covered {
    /// The stores of a run, which are parts by now.
    fn stores(vcpu: u8, stores: &[&RunStore]) -> Self {
        let pieces = stores.iter().flat_map(|store| cut(store.addr, store.bytes.len(), LINE));
        let lines = pieces.map(|(start, ..)| (line_of(start), 0)).collect();
        Self { vcpu, lines, non_temporal_before: stores.last().map_or(0, |store| store.event + 1) }
    }
}

/// What a drain or flush covers in every line, apart from what comes before it.
struct Seeds<'a> {
    covered: &'a Covered,
    nt_evicts: bool,
}

impl Seeds<'_> {
    /// Which parts of the line become durable.
    fn included(&self, line: &Line, target: &Durably) -> Vec<bool> {
        let seed = |(entry, part): (&Entry, &Arc<Part>)| {
            let covered = match entry.kind {
                Kind::Cached { .. } => part.event < target.cached_before,
                Kind::NonTemporal | Kind::Sector => {
                    part.origin.vcpu == self.covered.vcpu && part.event < self.covered.non_temporal_before
                }
            };
            covered || part.event < target.all_before
        };
        let mut included: Vec<bool> = line.entries.iter().zip(&line.parts).map(seed).collect();
        include_predecessors(&line.entries, &mut included, self.nt_evicts);
        included
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Execution;
    use crate::{ModelFaults, Origin};

    const X: u64 = 0x1000;
    const Y: u64 = 0x1040;

    fn line() -> Execution {
        Execution::new(Granularity::Line)
    }

    #[test]
    fn clflush_is_complete_once_another_instruction_was_executed() {
        let mut run = line();
        run.cached(X, 1);
        assert!(!run.flush(X, FlushKind::Clflush));
        assert_eq!(run.byte(X), [0, 1]);
        assert!(run.cached(Y, 1));
        assert_eq!(run.byte(X), [1]);
    }

    #[test]
    fn promises_and_markers_do_not_complete_a_clflush() {
        let mut run = line();
        run.cached(X, 1);
        run.flush(X, FlushKind::Clflush);
        assert!(!run.event(EventKind::Marker { id: 0 }));
        assert!(!run.promise());
        assert_eq!(run.byte(X), [0, 1]);
        run.nop();
        assert!(run.promise(), "an instruction lies between");
        assert_eq!(run.byte(X), [1]);
    }

    #[test]
    fn a_symbol_does_not_complete_a_clflush_right_before_it() {
        let mut run = line();
        run.cached(X, 1);
        run.flush(X, FlushKind::Clflush);
        assert!(!run.event(EventKind::Symbol { index: 0 }));
        assert!(
            run.event(EventKind::Symbol { index: 1 }),
            "the first instruction behind the symbol was executed"
        );
    }

    #[test]
    fn another_processor_does_not_complete_a_clflush() {
        let mut run = line();
        run.cached(X, 1);
        run.flush(X, FlushKind::Clflush);
        run.origin.vcpu = 1;
        run.nop();
        assert!(!run.sfence());
        assert_eq!(run.byte(X), [0, 1]);
    }

    #[test]
    fn a_processor_that_has_gone_on_has_completed_its_clflush() {
        let mut run = line();
        run.cached(X, 1);
        run.flush(X, FlushKind::Clflush);
        assert!(run.event(EventKind::Retired));
        assert_eq!(run.byte(X), [1]);
        run.cached(Y, 1);
        run.flush(Y, FlushKind::Clflush);
        run.origin.retired -= 1;
        assert!(!run.event(EventKind::Retired), "it stopped right behind the CLFLUSH");
    }

    fn strict(granularity: Granularity) -> Execution {
        Execution::with(Settings { granularity, strict_fences: true, ..Settings::default() })
    }

    #[test]
    fn under_strict_fences_a_lock_hands_over_and_a_fence_anywhere_makes_durable() {
        let mut run = strict(Granularity::Line);
        run.cached(X, 1);
        run.clwb(X);
        run.store(Y, &[1; 8], StorePath::NonTemporal);
        assert!(!run.drain(DrainKind::Locked));
        let point = run.point();
        assert!(point.handed_over().iter().eq([0, 1]));
        assert_eq!(point.in_flight()[0].handed_over_by, Some(3));
        run.cached(X, 2);
        run.origin.vcpu = 1;
        assert!(run.sfence());
        assert_eq!((run.byte(X), run.byte(Y)), (vec![1, 2], vec![1]));
    }

    #[test]
    fn under_strict_fences_what_was_not_handed_over_waits_for_its_own_processor() {
        let mut run = strict(Granularity::Line);
        run.cached(X, 1);
        run.clwb(X);
        run.drain(DrainKind::Serialising);
        run.cached(Y, 1);
        run.clwb(Y);
        run.origin.vcpu = 1;
        assert!(run.drain(DrainKind::Mfence));
        assert_eq!((run.byte(X), run.byte(Y)), (vec![1], vec![0, 1]));
    }

    #[test]
    fn strict_fences_leave_clflush_alone() {
        let mut run = strict(Granularity::Line);
        run.cached(X, 1);
        run.flush(X, FlushKind::Clflush);
        assert!(run.cached(Y, 1));
        assert_eq!(run.byte(X), [1]);
    }

    #[test]
    fn under_strict_fences_wbinvd_hands_over() {
        let mut run = strict(Granularity::Line);
        run.cached(X, 1);
        assert!(!run.drain(DrainKind::WriteBackAll));
        assert!(run.sfence());
        assert!(run.point().in_flight().is_empty());
    }

    #[test]
    fn a_clflush_covers_only_what_was_stored_before_it() {
        let mut run = line();
        run.cached(X, 1);
        run.flush(X, FlushKind::Clflush);
        run.cached(X, 2);
        assert_eq!(run.byte(X), [1, 2]);
    }

    #[test]
    fn any_processor_can_write_back_what_an_agent_stored() {
        let mut run = line();
        run.origin.vcpu = Origin::DEVICE;
        run.store(X, &[1; 100], StorePath::Agent);
        assert_eq!((run.byte(X), run.byte(Y)), (vec![0, 1], vec![0, 1]));
        run.origin.vcpu = 1;
        run.clwb(X);
        assert!(run.sfence());
        assert_eq!((run.byte(X), run.byte(Y)), (vec![1], vec![0, 1]));
    }

    #[test]
    fn wbinvd_writes_back_the_lines_that_its_processor_stored_last() {
        let mut run = line();
        run.cached(X, 1);
        run.cached(Y, 1);
        run.origin.vcpu = 1;
        run.cached(Y + 8, 1);
        run.origin.vcpu = 0;
        assert!(run.drain(DrainKind::WriteBackAll));
        assert_eq!((run.byte(X), run.byte(Y)), (vec![1], vec![0, 1]));
    }

    #[test]
    fn iterations_of_one_rep_execution_are_unordered() {
        let mut run = line();
        run.cached(X, 1);
        for byte in 0..2 {
            run.store(X + 1 + byte, &[1], StorePath::CachedRep(7));
        }
        run.cached(X + 3, 1);
        // 0, then 1 with any of the two iterations, then all.
        assert_eq!(run.point().count().states, 6);
        assert!(run.point().closure([2]).iter().eq([0, 2]));
    }

    #[test]
    fn a_store_between_iterations_orders_them() {
        let mut run = line();
        run.store(X, &[1], StorePath::CachedRep(7));
        run.cached(X + 8, 1);
        run.store(X + 1, &[1], StorePath::CachedRep(7));
        assert_eq!(run.point().count().states, 4);
    }

    #[test]
    fn a_drain_covers_what_a_flushed_part_comes_after() {
        let mut run = line();
        run.store(X, &[1; 8], StorePath::NonTemporal);
        run.origin.vcpu = 1;
        run.cached(X, 2);
        run.clwb(X);
        assert!(run.sfence());
        assert!(run.point().in_flight().is_empty());
    }

    #[test]
    fn a_flush_that_failed_to_be_fenced_is_named() {
        let mut run = line();
        run.cached(X, 1);
        run.clwb(X);
        run.clwb(X);
        run.cached(X, 2);
        let point = run.point();
        let flushed: Vec<_> = point.in_flight().iter().map(|part| part.flushed_by).collect();
        assert_eq!(flushed, [Some(1), None]);
    }

    #[test]
    fn parts_of_one_epoch_have_equal_numbers() {
        let mut run = line();
        run.cached(X, 1);
        run.sfence();
        run.cached(X, 2);
        run.store(Y, &[1; 8], StorePath::NonTemporal);
        run.sfence();
        run.cached(X, 3);
        let epochs: Vec<u64> = run.point().in_flight().iter().map(|part| part.epoch).collect();
        assert_eq!(epochs, [0, 0, 1]);
    }

    #[test]
    fn a_crash_point_stays_what_it_was() {
        let mut run = line();
        run.cached(X, 1);
        run.clwb(X);
        run.sfence();
        run.cached(X, 2);
        let before = run.point();
        let (contents, id) = (before.line_contents(X, 10), before.state_id(&before.everything()));
        run.clwb(X);
        run.sfence();
        run.cached(X, 3);
        assert_eq!(before.line_contents(X, 10), contents);
        assert_eq!(before.state_id(&before.everything()), id);
        assert_eq!(before.in_flight()[0].flushed_by, None);
        assert_eq!(before.durable_line(X)[0], 1);
    }

    fn faulty(faults: ModelFaults) -> Execution {
        Execution::with(Settings { faults, ..Settings::default() })
    }

    #[test]
    fn a_model_can_be_broken_to_take_stores_as_durable() {
        let mut run = faulty(ModelFaults { stores_are_durable: true, ..ModelFaults::default() });
        assert!(run.cached(X, 1));
        assert!(run.store(Y, &[1; 8], StorePath::NonTemporal));
        run.origin = Origin { copy_call: 1, ..Origin::default() };
        assert!(run.store(X, &[2; 8], StorePath::NonTemporal));
        assert!(run.point().in_flight().is_empty());
    }

    #[test]
    fn a_model_can_be_broken_to_ignore_sfence() {
        let mut run = faulty(ModelFaults { ignore_sfence: true, ..ModelFaults::default() });
        run.cached(X, 1);
        run.clwb(X);
        assert!(!run.sfence());
        assert!(run.drain(DrainKind::Mfence));
    }

    #[test]
    fn a_model_can_be_broken_to_drain_at_promises() {
        for promises_drain in [false, true] {
            let mut run = faulty(ModelFaults { promises_drain, ..ModelFaults::default() });
            run.cached(X, 1);
            run.clwb(X);
            assert_eq!(run.promise(), promises_drain);
        }
    }
}
