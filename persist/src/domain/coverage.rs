//! What a drain or a flush covers, and moving that to the media.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Domain;
use crate::LINE;
use crate::copy_run::RunStore;
use crate::order::{Entry, Kind, include_predecessors};
use crate::part::{Part, cut, line_of, lines_of_sector, sector_of};
use crate::settings::{Granularity, Platform};

/// Lines with a mark for each of their parts.
pub(super) type Marks = BTreeMap<u64, Vec<bool>>;

/// A place among all parts: those of events before the first number, and of that event those before the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(u64, u32);

impl Position {
    /// In front of the parts of this event.
    pub(super) fn event(seq: u64) -> Self {
        Self(seq, 0)
    }

    /// Right behind a part.
    pub(super) fn behind(event: u64, cut: u32) -> Self {
        Self(event, cut + 1)
    }

    pub(super) fn is_behind(self, part: &Part) -> bool {
        (part.event, part.cut) < (self.0, self.1)
    }
}

/// What a drain or a completed flush covers.
pub(super) struct Covered {
    pub(super) vcpu: u8,
    /// Of each line the cached parts in front of a position.
    pub(super) lines: Vec<(u64, Position)>,
    /// The non-temporal parts of `vcpu` on these lines of events before this one.
    pub(super) non_temporal_before: u64,
}

impl Covered {
    /// The stores of a run, which are parts by now.
    pub(super) fn stores(vcpu: u8, stores: &[&RunStore]) -> Self {
        let pieces = stores.iter().flat_map(|store| cut(store.addr, store.bytes.len(), LINE));
        let lines = pieces.map(|(start, ..)| (line_of(start), Position::default())).collect();
        Self { vcpu, lines, non_temporal_before: stores.last().map_or(0, |store| store.event + 1) }
    }

    /// The same, of the lines of some platforms only.
    pub(super) fn of(&self, domain: &Domain, platforms: &[Platform]) -> Self {
        let here = |(line, _): &&(u64, Position)| platforms.contains(&domain.platform(*line));
        Self { lines: self.lines.iter().filter(here).copied().collect(), ..*self }
    }
}

impl Domain {
    /// The parts that a drain or flush covers, with everything that comes before.
    pub(super) fn included(&self, covered: &Covered) -> Marks {
        let mut lines: BTreeMap<u64, Position> = BTreeMap::new();
        for &(addr, before) in &covered.lines {
            let line = lines.entry(addr).or_default();
            *line = before.max(*line);
        }
        let addresses: Vec<u64> = lines.keys().copied().collect();
        self.closed(&addresses, |addr, part| match part.is_cached() {
            true => lines.get(&addr).is_some_and(|before| before.is_behind(part)),
            false => part.origin.vcpu == covered.vcpu && part.event < covered.non_temporal_before,
        })
    }

    /// Of these lines the parts that `seed` takes, with everything that comes before in their lines. A whole sector
    /// takes the other lines of its sector along.
    pub(super) fn closed(&self, lines: &[u64], seed: impl Fn(u64, &Part) -> bool) -> Marks {
        let of_line = |addr: u64, before: u64| {
            let line = self.lines.get(&addr)?;
            let mut marks: Vec<bool> =
                line.parts.iter().map(|part| seed(addr, part) || part.event < before).collect();
            include_predecessors(&line.entries, &mut marks, self.settings.nt_evicts);
            marks.contains(&true).then_some((addr, marks))
        };
        let mut marks: Marks = lines.iter().filter_map(|&addr| of_line(addr, 0)).collect();
        if self.settings.granularity == Granularity::Sector {
            for (sector, newest) in self.newest_sectors(&marks) {
                marks.extend(lines_of_sector(sector).filter_map(|addr| of_line(addr, newest + 1)));
            }
        }
        marks
    }

    /// The event of the newest marked part of each sector that is whole.
    fn newest_sectors(&self, marks: &Marks) -> BTreeMap<u64, u64> {
        let mut sectors: BTreeMap<u64, u64> = BTreeMap::new();
        for (&addr, marks) in marks {
            let line = &self.lines[&addr];
            let marked = line.entries.iter().zip(&line.parts).zip(marks).filter(|(_, marked)| **marked);
            for ((_, part), _) in marked.filter(|((entry, _), _)| entry.kind == Kind::Sector) {
                let newest = sectors.entry(sector_of(addr)).or_default();
                *newest = part.event.max(*newest);
            }
        }
        sectors
    }

    /// Moves the marked parts of the lines to the media. Returns whether there were any.
    pub(super) fn write_back(&mut self, lines: Marks) -> bool {
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
        self.grown |= grown;
        grown
    }

    /// Moves the marked parts to the media: an epoch ends.
    pub(super) fn make_durable(&mut self, lines: Marks) {
        let grown = self.write_back(lines);
        self.epoch += u64::from(grown);
    }

    /// A store is durable at once, with everything that comes before.
    pub(super) fn make_stores_durable(&mut self, event: u64, addr: u64, len: usize) {
        let lines: Vec<u64> = cut(addr, len, LINE).map(|(start, ..)| line_of(start)).collect();
        let included = self.closed(&lines, |_, part| part.event == event);
        self.make_durable(included);
    }

    /// The lines of a region with parts in flight.
    pub(super) fn lines_of_region(&self, region: u32) -> Vec<u64> {
        match self.regions.get(region as usize) {
            Some(region) => self.lines.range(region.range.clone()).map(|(&addr, _)| addr).collect(),
            // Without a list of regions everything is region 0.
            None if self.regions.is_empty() && region == 0 => self.lines.keys().copied().collect(),
            None => Vec::new(),
        }
    }

    /// Entries and parts of a line.
    pub(super) fn line_parts(&self, addr: u64) -> impl Iterator<Item = (&Entry, &Arc<Part>)> {
        self.lines.get(&addr).into_iter().flat_map(|line| line.entries.iter().zip(&line.parts))
    }
}
