//! The persistence model of a run: its settings, and what the platform saves of every region.

use std::sync::Arc;

use persist::{Domain, Event, EventKind, Media, Overlay, Platform};

/// How persistence is modelled.
#[derive(Clone)]
pub(crate) struct Model {
    pub settings: persist::Settings,
    pub regions: Vec<persist::Region>,
    pub media: Arc<dyn Media>,
    /// What is durable before the first event, where it differs from `media`: a crash state that a machine comes up on.
    pub holding: Overlay,
}

impl Model {
    /// A domain in which nothing has happened.
    pub fn domain(&self) -> Domain {
        Domain::of_regions(self.settings, self.regions.clone(), self.media.clone()).holding(&self.holding)
    }

    /// The same without strict fences.
    pub fn without_strict(&self) -> Model {
        Model { settings: persist::Settings { strict_fences: false, ..self.settings }, ..self.clone() }
    }

    /// The same for a machine that comes up on this content.
    pub fn holding(&self, content: Overlay) -> Model {
        Model { holding: content, ..self.clone() }
    }

    /// What the platform saves of what lies at this address.
    pub fn platform(&self, address: u64) -> Platform {
        let region = self.regions.iter().find(|region| region.range.contains(&address));
        region.map_or(self.settings.platform, |region| region.platform)
    }

    /// Events of their own accord: what makes something durable by a drain or a flush, and device flushes.
    ///
    /// Where the caches are saved, or everything is, every store is such an event, too: these come second.
    pub fn growth(&self, events: impl IntoIterator<Item = Event>) -> Growth {
        let mut readings = vec![self.without_strict().domain()];
        if self.settings.strict_fences {
            readings.push(self.domain());
        }
        let mut growth = Growth::default();
        for event in events {
            let grows = readings.iter_mut().fold(false, |any, domain| domain.apply(&event) | any);
            match &event.kind {
                EventKind::Store { addr, .. } if self.counts_stores(*addr) => growth.stores.push(event.seq),
                EventKind::DeviceFlushSubmitted { .. } | EventKind::DeviceFlushCompleted { .. } => {
                    growth.events.push(event.seq);
                }
                _ if grows => growth.events.push(event.seq),
                _ => {}
            }
        }
        growth
    }

    fn counts_stores(&self, address: u64) -> bool {
        matches!(self.platform(address), Platform::Eadr | Platform::HostSurvives)
    }
}

/// Events between which the states of the media change.
#[derive(Default)]
pub(crate) struct Growth {
    /// Those that a program waits for.
    pub events: Vec<u64>,
    /// Stores that can be durable without anything else.
    pub stores: Vec<u64>,
}
