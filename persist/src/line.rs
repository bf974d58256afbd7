//! The parts of one line that are not durable.

use std::sync::Arc;

use crate::order::Entry;
use crate::part::Part;
use crate::{Origin, StorePath};

/// The parts of a line that are not durable, in coherence order, which is the order of their events.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) entries: Vec<Entry>,
    pub(crate) parts: Vec<Arc<Part>>,
    pub(crate) newest: Option<NewestStore>,
}

/// The newest cached store to a line, or to whatever else orders its parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewestStore {
    name: StoreName,
    batch: u64,
    /// Its event, the newest one of a REP execution.
    pub(crate) event: u64,
    /// The processor whose cache holds the line; `None` for agents.
    writer: Option<u8>,
}

impl NewestStore {
    /// The store that comes behind `before`: of the same batch if it is the same store.
    pub(crate) fn behind(before: Option<NewestStore>, source: Source) -> Self {
        let name = match source.path {
            StorePath::CachedRep(number) => StoreName::Rep { vcpu: source.origin.vcpu, number },
            StorePath::Cached | StorePath::Agent | StorePath::NonTemporal => StoreName::Event(source.event),
        };
        let same = before.filter(|newest| newest.name == name);
        let batch = same.map_or(source.event, |newest| newest.batch);
        let writer = (source.path != StorePath::Agent).then_some(source.origin.vcpu);
        Self { name, batch, event: source.event, writer }
    }

    /// The batch of its parts.
    pub(crate) fn batch(&self) -> u64 {
        self.batch
    }
}

/// Which store a cached part belongs to: parts of one store are unordered among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreName {
    Event(u64),
    Rep { vcpu: u8, number: u64 },
}

/// Where a part comes from.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    pub(crate) event: u64,
    pub(crate) origin: Origin,
    pub(crate) path: StorePath,
}

impl Line {
    pub(crate) fn push(&mut self, entry: Entry, part: Arc<Part>) {
        self.entries.push(entry);
        self.parts.push(part);
    }

    /// Marks every cached part as flushed by this event. Returns whether there is any.
    pub(crate) fn flush(&mut self, event: u64) -> bool {
        let mut cached = false;
        for part in self.parts.iter_mut().rev().filter(|part| part.is_cached()) {
            cached = true;
            if part.flushed_by.is_some() {
                // A flush reaches every cached part before it: the rest is marked.
                break;
            }
            Arc::make_mut(part).flushed_by = Some(event);
        }
        cached
    }

    /// Marks the parts in `included` as handed over by this drain.
    pub(crate) fn hand_over(&mut self, included: &[bool], drain: u64) {
        for (part, _) in self.parts.iter_mut().zip(included).filter(|(_, included)| **included) {
            if part.handed_over_by.is_none() {
                Arc::make_mut(part).handed_over_by = Some(drain);
            }
        }
    }

    /// Marks the parts in `included` as drained by this drain. Returns whether that is new for any.
    pub(crate) fn drain(&mut self, included: &[bool], drain: u64) -> bool {
        let mut new = false;
        for (part, _) in self.parts.iter_mut().zip(included).filter(|(_, included)| **included) {
            if part.drained_by.is_none() {
                Arc::make_mut(part).drained_by = Some(drain);
                new = true;
            }
        }
        new
    }

    pub(crate) fn is_held_by(&self, vcpu: u8) -> bool {
        self.newest.as_ref().is_some_and(|newest| newest.writer == Some(vcpu))
    }

    /// Takes the parts marked in `gone` out, handing each to `take` in order.
    pub(crate) fn remove(&mut self, gone: &[bool], mut take: impl FnMut(&Part)) {
        let mut marks = gone.iter();
        self.parts.retain(|part| {
            let gone = *marks.next().expect("one mark per part");
            if gone {
                take(part);
            }
            !gone
        });
        let mut marks = gone.iter();
        self.entries.retain(|_| !marks.next().expect("one mark per entry"));
    }
}
