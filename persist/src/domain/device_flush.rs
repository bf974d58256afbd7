//! `virtio-pmem`: what is visible is in the host's page cache, and durable once a FLUSH that was made available later
//! has completed with status 0.

use super::Domain;
use super::coverage::{Covered, Marks};
use crate::Event;
use crate::copy_run::Fate;
use crate::order::{Entry, Kind};
use crate::part::{Part, lines_of_sector, sector_of};
use crate::settings::Platform;
use crate::tangle::{Reach, Tangle};

use std::collections::BTreeMap;
use std::sync::Arc;

/// A FLUSH that was made available.
pub(super) struct Submitted {
    region: u32,
    seq: u64,
}

impl Domain {
    pub(super) fn submit_flush(&mut self, event: &Event, region: u32, id: u64) {
        self.device_flushes.insert(id, Submitted { region, seq: event.seq });
    }

    pub(super) fn complete_flush(&mut self, event: &Event, id: u64, status: i32) {
        let Some(Submitted { region, seq }) = self.device_flushes.remove(&id) else { return };
        let covered = |part: &Part| visible_by(part).is_some_and(|by| by < seq) && part.failed_by.is_none();
        let lines: Vec<u64> = self
            .lines_of_region(region)
            .into_iter()
            .filter(|&line| self.platform(line) == Platform::VirtioPmem)
            .collect();
        let mut marks = Marks::new();
        for sector in lines.chunk_by(|one, next| sector_of(*one) == sector_of(*next)) {
            marks.extend(self.moment(sector[0], covered));
        }
        let fate = if status == 0 {
            self.make_durable(marks);
            Fate::Durable
        } else if self.settings.failed_flush_loses {
            self.fail(marks, event.seq);
            Fate::Failed(event.seq)
        } else {
            return;
        };
        self.decide_runs(seq, fate, |domain, addr| {
            let of = domain.region(addr).map_or(0, |(index, _)| index as u32);
            of == region && domain.platform(addr) == Platform::VirtioPmem
        });
    }

    /// The parts of a sector that are durable when these are: its content at one moment.
    fn moment(&self, sector: u64, seed: impl Fn(&Part) -> bool) -> Marks {
        let mut ids: BTreeMap<(u64, u32), u32> = BTreeMap::new();
        let entries: Vec<(u16, u64, &Entry, &Arc<Part>)> = (0..)
            .zip(lines_of_sector(sector))
            .flat_map(|(number, line)| {
                self.line_parts(line).map(move |(entry, part)| (number, line, entry, part))
            })
            .collect();
        ids.extend(entries.iter().map(|(_, _, _, part)| ((part.event, part.cut), 0)));
        ids.values_mut().zip(0..).for_each(|(id, number)| *id = number);
        let id = |part: &Part| ids[&(part.event, part.cut)];
        let mut included = vec![false; ids.len()];
        entries.iter().for_each(|(_, _, _, part)| included[id(part) as usize] |= seed(part));
        let nodes = entries.iter().map(|&(number, _, entry, part)| (id(part), number, entry, &**part));
        let tangle = Tangle::new(Reach::Moment, self.settings.nt_evicts, 8, nodes);
        let before = included.clone();
        tangle.include_predecessors(|id| before[id as usize], |id| included[id as usize] = true);
        let mut marks = Marks::new();
        for (_, line, _, part) in entries {
            marks.entry(line).or_default().push(included[id(part) as usize]);
        }
        marks
    }

    /// Marks non-temporal parts as visible from this drain on.
    pub(super) fn make_visible(&mut self, covered: &Covered, drain: u64) {
        let mut lines: Vec<u64> = Vec::new();
        for &(line, _) in &covered.lines {
            // A whole sector is pending at its first line.
            let whole = self.line_parts(line).any(|(entry, _)| entry.kind == Kind::Sector);
            if whole { lines.extend(lines_of_sector(line)) } else { lines.push(line) }
        }
        for addr in lines {
            let Some(line) = self.lines.get_mut(&addr) else { continue };
            let own = |part: &Arc<Part>| {
                !part.is_cached()
                    && part.origin.vcpu == covered.vcpu
                    && part.event < covered.non_temporal_before
            };
            let visible: Vec<bool> = line.parts.iter().map(own).collect();
            line.drain(&visible, drain);
        }
    }

    /// Marks parts whose device flush failed.
    pub(super) fn fail(&mut self, marks: Marks, event: u64) {
        for (addr, marks) in marks {
            let Some(line) = self.lines.get_mut(&addr) else { continue };
            for (part, _) in line.parts.iter_mut().zip(marks).filter(|(_, marked)| *marked) {
                Arc::make_mut(part).failed_by.get_or_insert(event);
            }
        }
    }
}

/// The event from which on everybody sees the part.
fn visible_by(part: &Part) -> Option<u64> {
    if part.is_cached() { Some(part.event) } else { part.drained_by }
}
