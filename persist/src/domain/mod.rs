//! The state of the model: follows the events.

mod copies;
mod coverage;
mod device_flush;
mod drain;
mod flush_hint;
mod poison;
mod processor;
mod store_buffer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use self::device_flush::Submitted;
use self::processor::Processor;
use crate::copy_run::CopyRun;
use crate::crash_point::CrashPoint;
use crate::durable::{DurableLines, Media};
use crate::line::{Line, NewestStore, Source};
use crate::order::{Entry, Kind};
use crate::overlay::Overlay;
use crate::part::{Part, cut, line_of, lines_of_sector};
use crate::settings::{Granularity, Platform, Region, Settings};
use crate::{DrainKind, Event, EventKind, LINE, StorePath, WORD};

/// The persistence domain: everything that stands between the processors and the media.
///
/// Feed it every event of an execution, in order of `seq`. Memory and time of [`Domain::apply`] depend on the parts in
/// flight, not on the length of the run.
pub struct Domain {
    settings: Settings,
    regions: Vec<Region>,
    media: Arc<dyn Media>,
    durable: DurableLines,
    /// Lines with parts in flight.
    lines: BTreeMap<u64, Line>,
    processors: BTreeMap<u8, Processor>,
    epoch: u64,
    /// The event being followed has made something durable.
    grown: bool,
    /// Lines with parts that are handed over: under strict fences only.
    handed_over: BTreeSet<u64>,
    /// Lines with parts that were drained and are not durable: under `adr-lost` only.
    drained: BTreeSet<u64>,
    /// Device flushes that have not completed, by the number of the request.
    device_flushes: BTreeMap<u64, Submitted>,
}

impl Domain {
    /// A domain before the first event: nothing in flight, and `media` durable. All of the persistent memory is one
    /// region, of DIMM 0, of which the platform saves what the settings say.
    pub fn new(settings: Settings, media: Arc<dyn Media>) -> Self {
        Self::of_regions(settings, Vec::new(), media)
    }

    /// A domain with several regions: device flushes name them by their index here. The platform of the settings holds
    /// for what lies outside of all of them.
    pub fn of_regions(settings: Settings, regions: Vec<Region>, media: Arc<dyn Media>) -> Self {
        Self {
            settings,
            regions,
            media,
            durable: DurableLines::default(),
            lines: BTreeMap::new(),
            processors: BTreeMap::new(),
            epoch: 0,
            grown: false,
            handed_over: BTreeSet::new(),
            drained: BTreeSet::new(),
            device_flushes: BTreeMap::new(),
        }
    }

    /// The same before the first event of a machine that comes up on `content`, which is durable. Names of contents, and
    /// the contents themselves, stay relative to the initial media.
    pub fn holding(mut self, content: &Overlay) -> Self {
        for (addr, line) in content.lines() {
            self.durable.set(*addr, Some(*line));
        }
        for &line in content.poisoned() {
            self.durable.set_poisoned(line, true);
        }
        self
    }

    /// Follows the next event. Returns whether it made something durable.
    pub fn apply(&mut self, event: &Event) -> bool {
        self.grown = false;
        self.empty_other_buffers(event.origin.vcpu);
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
            EventKind::FlushHint { dimm } => self.hint(event, *dimm),
            EventKind::DeviceFlushSubmitted { region, id } => self.submit_flush(event, *region, *id),
            EventKind::DeviceFlushCompleted { id, status, .. } => self.complete_flush(event, *id, *status),
            EventKind::Poisoned { addr, len } => self.poison(*addr, *len),
            EventKind::PoisonCleared { addr, len } => self.clear_poison(event, *addr, *len),
            EventKind::StoresVisible => self.empty_buffer(event.origin.vcpu),
            EventKind::Promise { .. } if self.settings.faults.promises_drain => {
                self.drain(event, DrainKind::Sfence)
            }
            EventKind::Promise { .. }
            | EventKind::Marker { .. }
            | EventKind::Symbol { .. }
            | EventKind::Retired => {}
        }
        self.grown
    }

    /// What could be on the media if the power went now. Costs time and memory in proportion to the parts in flight.
    ///
    /// For a promise, take it after applying the promise: that drains nothing, but it is the proof that a kernel copy
    /// or a CLFLUSH before it is over.
    pub fn crash_point(&self) -> CrashPoint {
        let platform = |addr| self.platform(addr);
        let (media, durable) = (self.media.clone(), self.durable.clone());
        CrashPoint::new(self.settings.nt_evicts, media, durable, &self.lines, platform)
    }

    /// The region that holds `addr`, with its index.
    fn region(&self, addr: u64) -> Option<(usize, &Region)> {
        self.regions.iter().enumerate().find(|(_, region)| region.range.contains(&addr))
    }

    fn platform(&self, addr: u64) -> Platform {
        self.region(addr).map_or(self.settings.platform, |(_, region)| region.platform)
    }

    fn processor(&mut self, event: &Event) -> &mut Processor {
        self.processors.entry(event.origin.vcpu).or_default()
    }

    fn store(&mut self, event: &Event, addr: u64, bytes: &[u8], path: StorePath) {
        self.release_runs_beside(event, addr, addr + bytes.len() as u64);
        let platform = self.platform(addr);
        let durable_at_once = self.settings.faults.stores_are_durable || platform == Platform::HostSurvives;
        if self.settings.granularity == Granularity::Sector && !durable_at_once && self.collect(event) {
            return;
        }
        let source = Source { event: event.seq, origin: event.origin, path };
        self.append(source, addr, bytes, true);
        if durable_at_once {
            self.make_stores_durable(event.seq, addr, bytes.len());
        } else if platform == Platform::Eadr && path == StorePath::Agent {
            // It has no store buffer to go through, and what it overwrites has left its own.
            self.empty_buffers_before(event.seq, addr, bytes.len());
            self.make_stores_durable(event.seq, addr, bytes.len());
        }
    }

    /// Cuts a store and appends its parts to their lines. `buffered` tells whether it is new, or one of a copy that
    /// was drained since.
    fn append(&mut self, source: Source, addr: u64, bytes: &[u8], buffered: bool) {
        let cached = source.path != StorePath::NonTemporal;
        // The iterations of a REP are stores of their own, unordered on their line, and arrive a line at a time: the
        // unit that never tears is what can be told apart of them.
        let iterations = matches!(source.path, StorePath::CachedRep(_));
        let words = !cached || iterations || self.settings.granularity == Granularity::Word;
        let unit = if words { WORD } else { LINE };
        for (index, (start, offset, len)) in cut(addr, bytes.len(), unit).enumerate() {
            let cut = index as u32;
            let part = self.part(source, cut, start, SmallVec::from_slice(&bytes[offset..offset + len]));
            let line_addr = part.line();
            let batch = cached.then(|| self.batch(source, line_addr));
            let kind = batch.map_or(Kind::NonTemporal, |batch| Kind::Cached { batch });
            let line = self.lines.entry(line_addr).or_default();
            line.push(Entry { mask: part.mask(line_addr), kind }, part);
            if !cached {
                self.processors.entry(source.origin.vcpu).or_default().pending.entry(line_addr).or_default();
            }
            if buffered && self.platform(line_addr) == Platform::Eadr {
                self.buffer(source, line_addr, cut);
            }
        }
    }

    /// The batch of a cached part that comes next in the line.
    fn batch(&mut self, source: Source, line: u64) -> u64 {
        let before = match self.platform(line) {
            Platform::Adr | Platform::AdrLost | Platform::HostSurvives => {
                self.lines.get(&line).and_then(|line| line.newest)
            }
            Platform::Eadr => {
                self.processors.get(&source.origin.vcpu).and_then(|processor| processor.newest_buffered)
            }
            Platform::VirtioPmem => {
                let lines = lines_of_sector(line).filter_map(|line| self.lines.get(&line)?.newest);
                lines.max_by_key(|newest| newest.event)
            }
        };
        let newest = NewestStore::behind(before, source);
        self.lines.entry(line).or_default().newest = Some(newest);
        newest.batch()
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
        if self.platform(part.addr) == Platform::Eadr {
            self.buffer(source, part.addr, 0);
        }
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
            drained_by: None,
            failed_by: None,
            cut,
        })
    }
}
