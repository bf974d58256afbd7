//! Time of the machine while KVM executes: real time.

use std::time::{Duration, Instant};

/// Counts nanoseconds of the machine from where a run begins.
pub(super) struct Clock {
    begun: Instant,
    at: u64,
}

impl Clock {
    /// It is `at` now.
    pub(super) fn start(at: u64) -> Clock {
        Clock { begun: Instant::now(), at }
    }

    pub(super) fn now(&self) -> u64 {
        self.at.saturating_add(self.begun.elapsed().as_nanos() as u64)
    }

    /// Sleeps until then.
    pub(super) fn sleep_until(&self, time: u64) {
        std::thread::sleep(Duration::from_nanos(time.saturating_sub(self.now())));
    }
}
