//! Drains: what becomes durable, is handed over, or counts as drained, as the platform has it.

use super::Domain;
use super::coverage::{Covered, Marks, Position};
use crate::copy_run::Drained;
use crate::settings::Platform;
use crate::{DrainKind, Event};

impl Domain {
    pub(super) fn drain(&mut self, event: &Event, kind: DrainKind) {
        let vcpu = event.origin.vcpu;
        self.empty_buffer(vcpu);
        let hands_over = self.settings.strict_fences && !kind.is_fence();
        let run_of = self.processor(event).run.as_ref().map(|run| run.sector);
        let run_hands_over = hands_over && run_of.is_some_and(|sector| self.can_hand_over(sector));
        let processor = self.processor(event);
        if let Some(run) = &mut processor.run {
            run.drained(if run_hands_over { Drained::HandedOver(event.seq) } else { Drained::By(event.seq) });
        }
        let hints = std::mem::take(&mut processor.hints);
        let pending = std::mem::take(&mut processor.pending);
        let mut lines: Vec<_> =
            pending.into_iter().map(|(addr, before)| (addr, Position::event(before))).collect();
        if kind == DrainKind::WriteBackAll {
            let own = self.lines.iter().filter(|(_, line)| line.is_held_by(vcpu));
            lines.extend(own.map(|(&addr, _)| (addr, Position::event(event.seq))));
        }
        let covered = Covered { vcpu, lines, non_temporal_before: event.seq };
        self.settle_hints(hints);
        if hands_over {
            self.hand_over(&covered, event.seq);
        } else {
            let mut lines = self.included(&covered.of(self, &[Platform::Adr, Platform::Eadr]));
            self.include_handed_over(&mut lines, event.seq);
            self.make_durable(lines);
        }
        self.drained_only(&covered, event.seq);
    }

    /// What the covered parts become by a drain that is no matter of strict fences: durable, or drained.
    pub(super) fn drained(&mut self, covered: &Covered, drain: u64) {
        let lines = self.included(&covered.of(self, &[Platform::Adr, Platform::Eadr]));
        self.make_durable(lines);
        self.drained_only(covered, drain);
    }

    /// Marks what a drain covers where that does not make it durable.
    fn drained_only(&mut self, covered: &Covered, drain: u64) {
        let lost = self.included(&covered.of(self, &[Platform::AdrLost]));
        let mut new = false;
        for (addr, included) in lost {
            let Some(line) = self.lines.get_mut(&addr) else { continue };
            new |= line.drain(&included, drain);
            self.drained.insert(addr);
        }
        self.epoch += u64::from(new);
        self.make_visible(&covered.of(self, &[Platform::VirtioPmem]), drain);
    }

    /// Whether strict fences count for what lies at this address.
    fn can_hand_over(&self, addr: u64) -> bool {
        matches!(self.platform(addr), Platform::Adr | Platform::Eadr)
    }

    /// Marks what the drain with this number covers, with everything that comes before.
    pub(super) fn hand_over(&mut self, covered: &Covered, drain: u64) {
        for (addr, included) in self.included(&covered.of(self, &[Platform::Adr, Platform::Eadr])) {
            let Some(line) = self.lines.get_mut(&addr) else { continue };
            line.hand_over(&included, drain);
            self.handed_over.insert(addr);
        }
    }

    /// A fence of any processor makes durable what was handed over by whomever.
    fn include_handed_over(&mut self, lines: &mut Marks, fence: u64) {
        for run in self.processors.values_mut().filter_map(|processor| processor.run.as_mut()) {
            run.fenced(fence);
        }
        for addr in std::mem::take(&mut self.handed_over) {
            let Some(line) = self.lines.get(&addr) else { continue };
            let included = lines.entry(addr).or_insert_with(|| vec![false; line.parts.len()]);
            for (included, part) in included.iter_mut().zip(&line.parts) {
                *included |= part.handed_over_by.is_some();
            }
        }
    }
}
