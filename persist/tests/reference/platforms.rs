//! What the other platforms save, by looking back over the whole execution for every part.

use std::collections::BTreeSet;

use persist::{Event, EventKind, Origin, Platform, Settings};

use super::{InCopy, Reference};

pub(super) fn run(events: &[Event], copies: &[InCopy], settings: Settings) -> Reference {
    let strict_fences = settings.strict_fences && matches!(settings.platform, Platform::Adr | Platform::Eadr);
    let settings = Settings { strict_fences, ..settings };
    let mut this = Reference::adr(events, copies, settings);
    this.platform = settings.platform;
    match settings.platform {
        Platform::Adr => {}
        Platform::Eadr => this.add_visible(events, settings),
        Platform::AdrLost => this.keep_hinted(events, copies, settings),
        Platform::VirtioPmem => this.keep_flushed(events, settings),
        Platform::HostSurvives => this.durable = (0..this.parts.len()).collect(),
    }
    this
}

impl Reference {
    /// Orders beyond those of a line: `later` stands behind `earlier`.
    pub(super) fn comes_after_elsewhere(&self, later: usize, earlier: usize) -> bool {
        let (one, two) = (&self.parts[earlier], &self.parts[later]);
        match self.platform {
            // Of one store buffer.
            Platform::Eadr => {
                let buffered =
                    |number: usize| !self.parts[number].non_temporal && self.parts[number].processor;
                buffered(earlier) && buffered(later) && one.vcpu == two.vcpu && one.store != two.store
            }
            // Visible before the other was stored, by another store.
            Platform::VirtioPmem => {
                let sector = |number: usize| self.parts[number].line() / 8;
                let before = self.visible[earlier].is_some_and(|visible| visible < two.event);
                sector(earlier) == sector(later) && before && one.store != two.store
            }
            Platform::Adr | Platform::AdrLost | Platform::HostSurvives => false,
        }
    }

    /// `eadr`: what has left the store buffer is durable, too.
    fn add_visible(&mut self, events: &[Event], settings: Settings) {
        let left = |number: usize| {
            let part = &self.parts[number];
            let behind =
                self.parts[number + 1..].iter().filter(|other| other.processor && other.vcpu == part.vcpu);
            let pushed_out = behind.count() >= settings.store_buffer as usize;
            let told = events[part.event + 1..].iter().any(|event| {
                let own = event.origin.vcpu == part.vcpu;
                let empties = matches!(event.kind, EventKind::Drain(_) | EventKind::StoresVisible);
                own && empties || !own && event.origin.vcpu != Origin::DEVICE
            });
            !part.non_temporal && (!part.processor || pushed_out || told)
        };
        let visible: BTreeSet<usize> = (0..self.parts.len()).filter(|&number| left(number)).collect();
        self.make_durable(visible);
        // By way of the store buffer more may come before what a drain or CLFLUSH has made durable.
        let durable = self.durable.clone();
        self.make_durable(durable);
    }

    /// `adr-lost`: durable is what was before a flush hint, if that hint's processor drained later.
    fn keep_hinted(&mut self, events: &[Event], copies: &[InCopy], settings: Settings) {
        self.durable.clear();
        for (index, event) in events.iter().enumerate() {
            let drained = events[index..].iter().any(|later| {
                later.origin.vcpu == event.origin.vcpu && matches!(later.kind, EventKind::Drain(_))
            });
            if event.kind == (EventKind::FlushHint { dimm: 0 }) && drained {
                let then = Reference::adr(&events[..=index], copies, settings);
                let names: Vec<_> = then.durable.iter().map(|&number| then.name(number)).collect();
                let hinted = (0..self.parts.len()).filter(|&number| names.contains(&self.name(number)));
                let hinted = hinted.collect();
                self.make_durable(hinted);
            }
        }
    }

    /// Event and first byte: the same in a longer execution.
    fn name(&self, number: usize) -> (usize, Option<u64>) {
        (self.parts[number].event, self.parts[number].bytes.keys().next().copied())
    }

    /// `virtio-pmem`: durable is what was visible before a request that was answered with success.
    fn keep_flushed(&mut self, events: &[Event], settings: Settings) {
        let visible = |number: usize| {
            let part = &self.parts[number];
            let drain = |(index, event): (usize, &Event)| {
                let own = index > part.event && event.origin.vcpu == part.vcpu;
                (own && matches!(event.kind, EventKind::Drain(_))).then_some(index)
            };
            if part.non_temporal { events.iter().enumerate().find_map(drain) } else { Some(part.event) }
        };
        self.visible = (0..self.parts.len()).map(visible).collect();
        self.durable.clear();
        let mut failed: BTreeSet<usize> = BTreeSet::new();
        for (index, event) in events.iter().enumerate() {
            let EventKind::DeviceFlushCompleted { id, status, .. } = event.kind else { continue };
            let submitted = events[..index].iter().position(
                |event| matches!(event.kind, EventKind::DeviceFlushSubmitted { id: of, .. } if of == id),
            );
            let Some(submitted) = submitted else { continue };
            let covered = (0..self.parts.len())
                .filter(|&number| self.visible[number].is_some_and(|visible| visible < submitted));
            let covered: BTreeSet<usize> = covered.collect();
            if status == 0 {
                self.make_durable(covered.difference(&failed).copied().collect());
            } else if settings.failed_flush_loses {
                // With what was covered goes what comes before it: a non-temporal store that was still to be drained
                // lies under a cached one that was not.
                failed.extend(self.with_predecessors(covered).difference(&self.durable));
            }
        }
    }

    /// Under `virtio-pmem`, the sets of parts of each moment of the execution, whatever is durable: all that was
    /// visible, and of what was stored but not drained anything, as long as nothing shines through what came over it.
    /// For executions without REP.
    pub fn moments(&self, events: usize) -> BTreeSet<BTreeSet<usize>> {
        let mut found = BTreeSet::new();
        for moment in 0..events {
            // The parts of the store of this moment are under way.
            let (mut sure, mut open) = (BTreeSet::new(), Vec::new());
            for (number, part) in self.parts.iter().enumerate().filter(|(_, part)| part.event <= moment) {
                if self.visible[number].is_some_and(|visible| visible < moment) {
                    sure.insert(number);
                } else {
                    open.push(number);
                }
                let _ = part;
            }
            for bits in 0_u32..1 << open.len() {
                let mut set = sure.clone();
                set.extend((0..open.len()).filter(|bit| bits >> bit & 1 == 1).map(|bit| open[bit]));
                let covers = |later: usize| {
                    (0..later).all(|one| !self.parts[one].overlaps(&self.parts[later]) || set.contains(&one))
                };
                if set.iter().all(|&part| covers(part)) {
                    found.insert(set);
                }
            }
        }
        found
    }
}
