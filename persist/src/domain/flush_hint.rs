//! `adr-lost`: what was drained waits in the write-pending queue of its DIMM, until a flush hint empties that.
//!
//! A write to a flush hint covers what was drained before it, once its processor has drained behind it.

use std::collections::BTreeMap;

use super::Domain;
use crate::Event;
use crate::copy_run::Fate;
use crate::settings::Platform;

impl Domain {
    pub(super) fn hint(&mut self, event: &Event, dimm: u32) {
        self.processor(event).hints.insert(dimm, event.seq);
    }

    /// A processor has drained behind its writes to flush hints: (DIMM, number of the newest write).
    pub(super) fn settle_hints(&mut self, hints: BTreeMap<u32, u64>) {
        for (dimm, hint) in hints {
            let lines: Vec<u64> =
                self.drained.iter().copied().filter(|&line| self.is_lost_with(line, dimm)).collect();
            let covered = self.closed(&lines, |_, part| part.drained_by.is_some_and(|drain| drain < hint));
            self.make_durable(covered);
            for line in lines {
                if !self.line_parts(line).any(|(_, part)| part.drained_by.is_some()) {
                    self.drained.remove(&line);
                }
            }
            self.decide_runs(hint, Fate::Durable, |domain, addr| domain.is_lost_with(addr, dimm));
        }
    }

    /// Whether what lies at this address is lost with the write-pending queue of this DIMM.
    fn is_lost_with(&self, addr: u64, dimm: u32) -> bool {
        let here = self.region(addr).map_or(0, |(_, region)| region.dimm);
        here == dimm && self.platform(addr) == Platform::AdrLost
    }
}
