//! How many machines recover at the same time: as many as were asked for, as long as there is memory for them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use crate::effort::{Effort, own_memory};
use crate::target::HostError;

/// The workers of one kind of work, and what they may have.
pub(super) struct Crew<'a> {
    /// Memory that this process may have for itself.
    limit: Option<u64>,
    /// What it had before the first worker.
    before: u64,
    /// Workers at the moment.
    workers: AtomicUsize,
    /// Workers that have not been told to end.
    staying: AtomicUsize,
    /// Whether the first worker has done its first unit, or has ended.
    begun: Mutex<bool>,
    has_begun: Condvar,
    effort: &'a Effort,
}

impl<'a> Crew<'a> {
    pub fn new(limit: Option<u64>, effort: &'a Effort) -> Crew<'a> {
        Crew {
            limit,
            before: own_memory().unwrap_or(0),
            workers: AtomicUsize::new(0),
            staying: AtomicUsize::new(0),
            begun: Mutex::new(false),
            has_begun: Condvar::new(),
            effort,
        }
    }

    /// Has one more worker while the work is done.
    pub fn have(&self, work: impl FnOnce() -> Result<(), HostError>) -> Result<(), HostError> {
        let _leaving = Leaving(self);
        self.staying.fetch_add(1, Ordering::Relaxed);
        self.effort.saw_workers(1 + self.workers.fetch_add(1, Ordering::Relaxed));
        work()
    }

    /// Whether a worker should end because all together have too much memory. The last one never should.
    pub fn one_is_too_many(&self) -> bool {
        let Some(limit) = self.limit else { return false };
        if own_memory().unwrap_or(0) <= limit {
            return false;
        }
        let fewer = |staying: usize| (staying > 1).then(|| staying - 1);
        self.staying.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok()
    }

    /// Looks at the memory behind a unit of work. It is an error if the first worker alone has too much.
    pub fn unit_is_done(&self) -> Result<(), HostError> {
        let own = own_memory().unwrap_or(0);
        let workers = self.workers.load(Ordering::Relaxed).max(1) as u64;
        self.effort.saw_memory(own.saturating_sub(self.before) / workers);
        let first = !std::mem::replace(&mut *self.lock(), true);
        if first {
            self.has_begun.notify_all();
        }
        match self.limit.filter(|limit| first && own > *limit) {
            Some(limit) => Err(HostError(format!(
                "the memory allowed is {}, and one worker makes it {}: allow at least that",
                mebibytes(limit),
                mebibytes(own)
            ))),
            None => Ok(()),
        }
    }

    /// Waits until it is known what a worker needs. Returns how many more there is room for.
    pub fn room_for_more(&self) -> usize {
        let begun = self.has_begun.wait_while(self.lock(), |begun| !*begun);
        drop(begun.unwrap_or_else(|poisoned| poisoned.into_inner()));
        let own = own_memory().unwrap_or(0);
        let room = self.limit.unwrap_or(u64::MAX).saturating_sub(own);
        usize::try_from(room / self.effort.memory_of_worker().max(1)).unwrap_or(usize::MAX)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, bool> {
        self.begun.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A worker that ends, however it does.
struct Leaving<'c, 'a>(&'c Crew<'a>);

impl Drop for Leaving<'_, '_> {
    fn drop(&mut self) {
        self.0.workers.fetch_sub(1, Ordering::Relaxed);
        *self.0.lock() = true;
        self.0.has_begun.notify_all();
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
