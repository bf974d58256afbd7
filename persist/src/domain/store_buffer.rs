//! `eadr`: the caches are saved, so a cached part is durable once it has left its processor's store buffer.
//!
//! The newest parts of a processor since its last drain, as many as the buffer is deep, may be lost, a suffix of them.
//! A store is out of the buffer once another processor can have seen it or anything newer: only the processor that
//! executes has anything in its buffer.

use super::Domain;
use super::coverage::Position;
use crate::line::{NewestStore, Source};
use crate::part::{cut, line_of};
use crate::settings::Platform;
use crate::{LINE, Origin, StorePath};

/// A part in a store buffer.
pub(super) struct Buffered {
    line: u64,
    event: u64,
    cut: u32,
    /// Its batch; `None` for a non-temporal part, which waits for a drain when it leaves.
    batch: Option<u64>,
}

impl Domain {
    /// Puts a part that was just appended to its line into its processor's buffer. The oldest leaves when it is full.
    pub(super) fn buffer(&mut self, source: Source, line: u64, cut: u32) {
        if source.path == StorePath::Agent {
            return;
        }
        let depth = self.settings.store_buffer as usize;
        let processor = self.processors.entry(source.origin.vcpu).or_default();
        let cached = source.path != StorePath::NonTemporal;
        if cached {
            processor.newest_buffered = Some(NewestStore::behind(processor.newest_buffered, source));
        }
        let batch = processor.newest_buffered.filter(|_| cached).map(|newest| newest.batch());
        processor.buffer.push_back(Buffered { line, event: source.event, cut, batch });
        let surplus = processor.buffer.len().saturating_sub(depth);
        let left: Vec<Buffered> = processor.buffer.drain(..surplus).collect();
        // Being pushed out by newer stores is nothing that a program waits for: no epoch ends.
        self.leave(&left);
    }

    /// The cached ones of these parts, the oldest of a buffer, are visible: durable.
    fn leave(&mut self, parts: &[Buffered]) -> bool {
        let mut grown = false;
        for part in parts.iter().filter(|part| part.batch.is_some()) {
            let position = Position::behind(part.event, part.cut);
            let seed = |_: u64, other: &crate::Part| other.is_cached() && position.is_behind(other);
            let included = self.closed(&[part.line], seed);
            grown |= self.write_back(included);
        }
        grown
    }

    /// Everything in the processor's buffer has left it.
    pub(super) fn empty_buffer(&mut self, vcpu: u8) {
        let Some(processor) = self.processors.get_mut(&vcpu) else { return };
        processor.newest_buffered = None;
        let parts: Vec<Buffered> = processor.buffer.drain(..).collect();
        let grown = self.leave(&parts);
        self.epoch += u64::from(grown);
    }

    /// A processor does something: the others have stopped, and what they stored can be seen.
    pub(super) fn empty_other_buffers(&mut self, vcpu: u8) {
        if vcpu == Origin::DEVICE {
            return;
        }
        let others: Vec<u8> = self
            .processors
            .iter()
            .filter(|(other, processor)| **other != vcpu && !processor.buffer.is_empty())
            .map(|(&other, _)| other)
            .collect();
        others.into_iter().for_each(|other| self.empty_buffer(other));
    }

    /// The cached parts of events before `before` on these lines are visible: everything that left a buffer before
    /// them is, too.
    pub(super) fn empty_buffers_before(&mut self, before: u64, addr: u64, len: usize) {
        if self.platform(addr) != Platform::Eadr {
            return;
        }
        let lines: Vec<u64> = cut(addr, len, LINE).map(|(start, ..)| line_of(start)).collect();
        let parts = lines.iter().flat_map(|&line| self.line_parts(line));
        let batches =
            parts.filter(|(_, part)| part.event < before).filter_map(|(entry, _)| entry.kind.batch());
        let Some(newest) = batches.max() else { return };
        let mut left = Vec::new();
        for processor in self.processors.values_mut() {
            while let Some(part) = processor.buffer.front()
                && part.batch.is_none_or(|batch| batch < newest)
            {
                left.extend(processor.buffer.pop_front());
            }
        }
        let grown = self.leave(&left);
        self.epoch += u64::from(grown);
    }
}
