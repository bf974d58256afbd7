//! What a run costs the host. No report has it: it is never the same twice.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Recordings, recoveries, time and memory of a run, counted while it goes on.
#[derive(Debug, Default)]
pub struct Effort {
    recoveries: AtomicU64,
    instructions: AtomicU64,
    events: AtomicU64,
    recording: AtomicU64,
    recovering: AtomicU64,
    workers: AtomicU64,
    memory: AtomicU64,
}

impl Effort {
    /// Instructions that were recorded.
    pub fn instructions(&self) -> u64 {
        self.instructions.load(Relaxed)
    }

    /// Events that were recorded.
    pub fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    /// Time that recording took.
    pub fn recording(&self) -> Duration {
        Duration::from_nanos(self.recording.load(Relaxed))
    }

    /// Ways that recovery went to their end, when states and crash points were explored. What finds the smallest state
    /// and explains it comes on top.
    pub fn recoveries(&self) -> u64 {
        self.recoveries.load(Relaxed)
    }

    /// Time in which there were machines that did that.
    pub fn recovering(&self) -> Duration {
        Duration::from_nanos(self.recovering.load(Relaxed))
    }

    /// Recoveries a second, if there were any.
    pub fn a_second(&self) -> Option<f64> {
        let rate = self.recoveries() as f64 / self.recovering().as_secs_f64();
        Some(rate).filter(|rate| rate.is_finite() && *rate > 0.0)
    }

    /// Machines that recovered at the same time, at most.
    pub fn workers(&self) -> u64 {
        self.workers.load(Relaxed)
    }

    /// Memory of one worker, in bytes: what this process had for itself, shared with no other and no file, more than
    /// without workers, by their number; the most that was seen. Pages of the base snapshot that a worker has not
    /// written are not in it.
    pub fn memory_of_worker(&self) -> u64 {
        self.memory.load(Relaxed)
    }

    pub(crate) fn recorded_since(&self, start: Instant, instructions: u64, events: u64) {
        self.recording.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
        self.instructions.fetch_add(instructions, Relaxed);
        self.events.fetch_add(events, Relaxed);
    }

    pub(crate) fn recovered(&self) {
        self.recoveries.fetch_add(1, Relaxed);
    }

    pub(crate) fn recovered_since(&self, start: Instant) {
        self.recovering.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
    }

    pub(crate) fn saw_workers(&self, workers: usize) {
        self.workers.fetch_max(workers as u64, Relaxed);
    }

    pub(crate) fn saw_memory(&self, of_one: u64) {
        self.memory.fetch_max(of_one, Relaxed);
    }
}

/// Bytes of memory that this process has for itself: `RssAnon` of /proc/self/status, which counts what was written of
/// private mappings. `None` where the host does not tell.
pub fn own_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}
