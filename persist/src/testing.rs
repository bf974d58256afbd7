//! Short ways to write executions in tests.

use std::sync::Arc;

use crate::{
    CrashPoint, Domain, DrainKind, Event, EventKind, FlushKind, Granularity, Media, Origin, Settings,
    StorePath,
};

/// Initial media: every byte is 0.
pub(crate) struct Zeros;

impl Media for Zeros {
    fn line(&self, _: u64) -> [u8; 64] {
        [0; 64]
    }
}

/// A domain with the events fed so far.
pub(crate) struct Execution {
    pub(crate) domain: Domain,
    /// Origin of the next event; every event counts one retired instruction more.
    pub(crate) origin: Origin,
    seq: u64,
}

impl Execution {
    pub(crate) fn new(granularity: Granularity) -> Self {
        Self::with(Settings { granularity, ..Settings::default() })
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let origin = Origin { cpl: 3, ..Origin::default() };
        Self { domain: Domain::new(settings, Arc::new(Zeros)), origin, seq: 0 }
    }

    /// Feeds an event. Returns whether it made something durable.
    pub(crate) fn event(&mut self, kind: EventKind) -> bool {
        let event = Event { seq: self.seq, origin: self.origin, kind };
        self.seq += 1;
        self.origin.retired += 1;
        self.domain.apply(&event)
    }

    pub(crate) fn store(&mut self, addr: u64, bytes: &[u8], path: StorePath) -> bool {
        self.event(EventKind::Store { addr, bytes: bytes.into(), path })
    }

    /// A cached store of one byte.
    pub(crate) fn cached(&mut self, addr: u64, byte: u8) -> bool {
        self.store(addr, &[byte], StorePath::Cached)
    }

    pub(crate) fn flush(&mut self, addr: u64, kind: FlushKind) -> bool {
        self.event(EventKind::Flush { addr, kind })
    }

    pub(crate) fn clwb(&mut self, addr: u64) -> bool {
        self.flush(addr, FlushKind::Clwb)
    }

    pub(crate) fn drain(&mut self, kind: DrainKind) -> bool {
        self.event(EventKind::Drain(kind))
    }

    pub(crate) fn sfence(&mut self) -> bool {
        self.drain(DrainKind::Sfence)
    }

    pub(crate) fn promise(&mut self) -> bool {
        self.event(EventKind::Promise { id: 0 })
    }

    /// Something without an event.
    pub(crate) fn nop(&mut self) {
        self.origin.retired += 1;
    }

    pub(crate) fn point(&self) -> CrashPoint {
        self.domain.crash_point()
    }

    /// The values that the byte can have if the power goes now.
    pub(crate) fn byte(&self, addr: u64) -> Vec<u8> {
        self.point().byte_values(addr)
    }
}
