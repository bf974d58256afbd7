//! Lines whose content the media has lost, and their repair.

use super::Domain;
use crate::line::Source;
use crate::part::lines_of;
use crate::{Event, LINE, StorePath};

impl Domain {
    /// The media loses the content of lines.
    pub(super) fn poison(&mut self, addr: u64, len: u64) {
        for line in lines_of(addr, len) {
            self.grown |= self.durable.set_poisoned(line, true);
        }
    }

    /// Firmware repairs lines: zeros arrive, whatever was in flight there is no more.
    pub(super) fn clear_poison(&mut self, event: &Event, addr: u64, len: u64) {
        let source = Source { event: event.seq, origin: event.origin, path: StorePath::Agent };
        for line in lines_of(addr, len) {
            self.release_runs_beside(event, line, line + LINE);
            self.empty_buffers_before(event.seq, line, LINE as usize);
            self.append(source, line, &[0; LINE as usize], false);
            self.make_stores_durable(event.seq, line, LINE as usize);
            self.grown |= self.durable.set_poisoned(line, false);
        }
    }
}
