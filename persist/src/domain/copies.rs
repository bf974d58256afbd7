//! Kernel copies: stores that may turn out to fill a sector.

use super::Domain;
use super::coverage::Covered;
use super::processor::Processor;
use crate::copy_run::{CopyRun, Drained, Fate, RunStore};
use crate::line::Source;
use crate::{Event, StorePath};

impl Domain {
    /// Takes the event's store into its processor's run of a kernel copy, if it belongs to one or starts one.
    pub(super) fn collect(&mut self, event: &Event) -> bool {
        let processor = self.processor(event);
        if processor.run.is_none() {
            processor.run = CopyRun::start(event);
        }
        let collected = processor.run.as_mut().is_some_and(|run| run.extend(event));
        if let Some(run) = processor.run.take_if(|run| run.is_complete()) {
            self.append_sector(event, &run);
        }
        collected
    }

    /// A store into lines of somebody's run comes after it: no sector is written as one then.
    pub(super) fn release_runs_beside(&mut self, event: &Event, start: u64, end: u64) {
        let beside = |(&vcpu, processor): (&u8, &Processor)| {
            let run = processor.run.as_ref()?;
            let goes_on = vcpu == event.origin.vcpu && run.goes_on_with(event);
            (!goes_on && run.shares_line(start, end)).then_some(vcpu)
        };
        let released: Vec<u8> = self.processors.iter().filter_map(beside).collect();
        for vcpu in released {
            self.release_run(vcpu);
        }
    }

    /// Turns a run that did not fill its sector into ordinary non-temporal stores, and does to them what drains and
    /// flushes since have done.
    pub(super) fn release_run(&mut self, vcpu: u8) {
        let Some(run) = self.processors.get_mut(&vcpu).and_then(|processor| processor.run.take()) else {
            return;
        };
        for store in &run.stores {
            let source = Source { event: store.event, origin: store.origin, path: StorePath::NonTemporal };
            self.append(source, store.addr, &store.bytes, store.drained.is_none());
        }
        // Drained by the same drain, and the same done to them since: these are alike.
        for alike in run.stores.chunk_by(|one, next| (one.drained, one.fate) == (next.drained, next.fate)) {
            let stores: Vec<&RunStore> = alike.iter().collect();
            let covered = Covered::stores(vcpu, &stores);
            match alike[0].drained {
                Some(Drained::By(drain)) => self.drained(&covered, drain),
                Some(Drained::HandedOver(drain)) => self.hand_over(&covered, drain),
                None => {}
            }
            match alike[0].fate {
                Some(Fate::Durable) => {
                    let included = self.included(&covered);
                    self.make_durable(included);
                }
                Some(Fate::Failed(event)) => {
                    let included = self.included(&covered);
                    self.fail(included, event);
                }
                None => {}
            }
        }
    }

    /// Tells the stores of every run in some range that were drained before event `before` what becomes of them.
    pub(super) fn decide_runs(&mut self, before: u64, fate: Fate, here: impl Fn(&Domain, u64) -> bool) {
        let mut processors = std::mem::take(&mut self.processors);
        for run in processors.values_mut().filter_map(|processor| processor.run.as_mut()) {
            if here(self, run.sector) {
                run.decide(before, fate);
            }
        }
        self.processors = processors;
    }
}
