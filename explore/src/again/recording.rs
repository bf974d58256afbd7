//! Recording a recovery: a machine comes up on a crash state, and every event that reaches persistent memory meanwhile
//! is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use persist::{Domain, EventKind, Overlay, Platform};

use crate::conversation::{Conversation, Limits, Taken, Trouble};
use crate::events::Events;
use crate::model::Model;
use crate::oracle::acknowledged::Acknowledged;
use crate::oracle::expectation::Expectation;
use crate::plant;
use crate::points::{self, Point, Points};
use crate::record::AtEvent;
use crate::recover::{Look, Looked, Recovered, Worker};
use crate::target::{HostError, Laboratory, Target};

/// One recovery.
pub(crate) struct Recovery {
    pub recovered: Recovered,
    pub events: Events,
    /// What the guest was told to do, and how many events had happened when it was done.
    pub phases: Vec<(&'static str, u64)>,
}

/// Recovers a content of the media and records that, calling `at_event` behind event `first` and then behind each that it
/// asks for.
pub(crate) fn record<L: Laboratory>(
    worker: &mut Worker<L>,
    content: &Overlay,
    told: &Acknowledged,
    first: Option<u64>,
    at_event: AtEvent<L::Target>,
) -> Result<Recovery, HostError> {
    let (scenario, laboratory) = (worker.scenario, worker.laboratory);
    let watched = plant::watched_in_recovery(scenario, laboratory);
    let addresses: Vec<u64> = watched.iter().filter_map(|name| laboratory.symbol(name)).collect();
    worker.put(content);
    worker.target.set_watched(&addresses);
    worker.target.set_store_buffer_events(scenario.has_platform(Platform::Eadr));
    worker.target.set_tracing(true);
    worker.target.stop_at_event(first);
    let mut phases = Vec::new();
    let mut look = Look::default();
    let mut conversation = Conversation::new(&mut worker.target, Limits::of_recovery(&scenario.limits));
    conversation.events = match first {
        None => Taken::Kept(Events::new(&laboratory.scratch())),
        Some(_) => Taken::Forgotten,
    };
    let looked = loop {
        match look.next(scenario, told, &mut conversation) {
            Ok(Looked::Done(phase)) => phases.push((phase, conversation.target.event_count())),
            Ok(Looked::Failed(why)) => break Ok(Some(why)),
            Ok(Looked::End) => break Ok(None),
            Err(Trouble::Event(seq)) => {
                let next = at_event(conversation.target, seq);
                conversation.target.stop_at_event(next);
            }
            Err(trouble) => break Err(trouble),
        }
    };
    let Conversation { heard, events: mut taken, .. } = conversation;
    let target = &mut worker.target;
    let looked = taken.from(target).and(looked);
    let events = taken.kept().unwrap_or_else(|| Events::new(&laboratory.scratch()));
    target.set_tracing(false);
    target.stop_at_event(None);
    target.set_store_buffer_events(false);
    target.set_watched(&[]);
    Ok(Recovery { recovered: worker.judge(looked, heard)?, events, phases })
}

impl Recovery {
    /// The same for recoveries that write the same, flush the same and fence the same, whatever else they do.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        for event in self.events.iter().filter(|event| !is_silent(&event.kind)) {
            hash.update(&postcard::to_stdvec(&event.kind).expect("an event has only numbers and bytes"));
        }
        *hash.finalize().as_bytes()
    }

    /// Stores to persistent memory.
    pub fn stores(&self) -> u64 {
        self.events.iter().filter(|event| matches!(event.kind, EventKind::Store { .. })).count() as u64
    }
}

/// Whether the event is no matter of persistence.
fn is_silent(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Symbol { .. } | EventKind::Retired | EventKind::Marker { .. })
}

/// The crash points of a recovery: the last moment before anything becomes durable and the first one after it. What may be
/// found is what could be found before: nothing is promised on the way, and nothing that was promised may be lost.
pub(crate) fn points_of(events: &Events, model: &Model, expectations: &[Arc<Expectation>]) -> Points {
    let growth = model.growth(events);
    let grows = growth.events.into_iter().chain(growth.stores);
    let wanted: BTreeSet<u64> = grows.flat_map(|seq| [seq, seq + 1]).collect();
    let mut domain = model.domain();
    let mut plain = model.settings.strict_fences.then(|| model.without_strict().domain());
    let mut found =
        Points { points: Vec::new(), equal: 0, left_out: 0, faults: Vec::new(), unresolved: Vec::new() };
    let mut seen = BTreeSet::new();
    let mut happened = events.iter().peekable();
    for events in wanted {
        while let Some(event) = happened.next_if(|event| event.seq < events) {
            domain.apply(&event);
            plain.iter_mut().for_each(|domain| {
                domain.apply(&event);
            });
        }
        for expectation in expectations {
            let media = domain.crash_point();
            if !seen.insert(points::key(&media, expectation, None)) {
                found.equal += 1;
                continue;
            }
            found.points.push(Point {
                events,
                reasons: BTreeSet::from(["durable".to_owned()]),
                media,
                without_strict: plain.as_ref().map(Domain::crash_point),
                expectation: expectation.clone(),
                window: None,
            });
        }
    }
    found
}
