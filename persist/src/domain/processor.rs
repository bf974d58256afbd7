//! What a processor has asked for, and CLFLUSH, which needs no drain.

use std::collections::{BTreeMap, VecDeque};

use super::Domain;
use super::coverage::{Covered, Position};
use super::store_buffer::Buffered;
use crate::copy_run::CopyRun;
use crate::line::NewestStore;
use crate::{Event, EventKind, FlushKind};

/// What a processor has asked for and no drain has covered yet.
#[derive(Default)]
pub(super) struct Processor {
    /// Lines with flush targets or non-temporal parts of this processor. Of the cached parts, those of events before
    /// the given one are targets; a whole sector stands at its first line.
    pub(super) pending: BTreeMap<u64, u64>,
    clflushes: Vec<Clflush>,
    pub(super) run: Option<CopyRun>,
    /// Under `eadr`: its newest parts since its last drain, the oldest first.
    pub(super) buffer: VecDeque<Buffered>,
    /// Under `eadr`: its newest cached store in the buffer.
    pub(super) newest_buffered: Option<NewestStore>,
    /// Under `adr-lost`: number of its newest write to a flush hint of each DIMM since its last drain.
    pub(super) hints: BTreeMap<u32, u64>,
}

/// A CLFLUSH that the processor's next instruction completes.
struct Clflush {
    line: u64,
    seq: u64,
    retired: u64,
}

impl Domain {
    pub(super) fn flush(&mut self, event: &Event, addr: u64, kind: FlushKind) {
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

    /// A CLFLUSH is complete once another instruction of its processor has been executed. The instruction by which
    /// the guest reaches the simulator is none of the machine's, nor has a symbol's first instruction been executed.
    pub(super) fn complete_clflushes(&mut self, event: &Event) {
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
            self.empty_buffers_before(seq, line, 1);
            let lines = vec![(line, Position::event(seq))];
            self.drained(&Covered { vcpu, lines, non_temporal_before: 0 }, seq);
        }
    }
}
