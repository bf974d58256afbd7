//! The work of a run in units, on several machines at once. What comes of it depends neither on how many there are nor
//! on what was known before.

mod crew;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::crew::Crew;
use crate::ledger::Key;
use crate::options::{OnProgress, Progress};
use crate::run::Run;
use crate::target::{HostError, Laboratory};

/// Units of work of one kind.
pub(crate) struct Units<'a, T> {
    /// The key of each.
    pub keys: &'a [Key],
    /// Whether shards divide them among themselves. If not, every shard does them all.
    pub divided: bool,
    /// Whether a result is one: it may have been left in the middle when the run was interrupted.
    pub is_whole: fn(&T) -> bool,
    /// Whether a result that is known can be one of the unit with this index.
    pub fits: &'a (dyn Fn(usize, &T) -> bool + Sync),
}

impl<L: Laboratory> Run<'_, L> {
    /// Whether the run has to come to its end now.
    pub fn interrupted(&self) -> bool {
        self.options.interrupted.as_ref().is_some_and(|asked| asked.load(Ordering::Relaxed))
    }

    /// Whether something may be missing because others do it, or because the run has to come to its end.
    pub fn is_partial(&self) -> bool {
        self.options.shard.is_some() || self.interrupted()
    }

    /// Whether findings are left as they were seen.
    pub fn leaves_unexplained(&self) -> bool {
        self.is_partial() || self.options.unexplained
    }

    /// Does all units that are this run's and not known, on as many machines as there are jobs. `begin` makes such a
    /// machine, `work` does the unit with this index. There is no result of what other shards do, nor of what was not
    /// begun when the run was interrupted.
    pub fn do_all<W, T: Serialize + DeserializeOwned + Send>(
        &self,
        units: &Units<T>,
        begin: impl Fn() -> Result<W, HostError> + Sync,
        work: impl Fn(&mut W, usize) -> Result<T, HostError> + Sync,
        progress: OnProgress,
    ) -> Result<Vec<Option<T>>, HostError> {
        let mut results: Vec<Option<T>> = Vec::new();
        for (unit, key) in units.keys.iter().enumerate() {
            let result = self.ledger.get(key)?;
            if !result.as_ref().is_none_or(|result| (units.fits)(unit, result)) {
                return Err(HostError("a result that is known does not fit the work it is of".to_owned()));
            }
            results.push(result);
        }
        let shard = self.options.shard.filter(|_| units.divided);
        let mine = |unit: &usize| shard.is_none_or(|shard| shard.has(*unit));
        let wanted: Vec<usize> =
            (0..units.keys.len()).filter(|unit| results[*unit].is_none() && mine(unit)).collect();
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results = Mutex::new(results);
        progress(Progress::Recovering { done: 0, of: wanted.len() });
        self.on_all_workers(wanted.len(), |crew| {
            let mut worker = begin()?;
            while !self.interrupted() && !crew.one_is_too_many() {
                let Some(&unit) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let result = work(&mut worker, unit)?;
                let is_whole = (units.is_whole)(&result);
                if is_whole {
                    self.ledger.put(units.keys[unit], &result)?;
                }
                results.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[unit] = Some(result);
                let done = 1 + done.fetch_add(1, Ordering::Relaxed);
                progress(Progress::Recovering { done, of: wanted.len() });
                crew.unit_is_done()?;
            }
            Ok(())
        })?;
        Ok(results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Does the work on as many threads as there are jobs, at most `tasks`, and as memory allows.
    fn on_all_workers(
        &self,
        tasks: usize,
        work: impl Fn(&Crew) -> Result<(), HostError> + Sync,
    ) -> Result<(), HostError> {
        let jobs = self.options.jobs.max(1).min(tasks);
        if jobs == 0 {
            return Ok(());
        }
        let start = Instant::now();
        let crew = Crew::new(self.options.memory, &self.options.effort);
        let outcome = std::thread::scope(|scope| {
            let spawn = || scope.spawn(|| crew.have(|| work(&crew)));
            let mut workers = vec![spawn()];
            let more = if self.options.memory.is_some() { crew.room_for_more() } else { usize::MAX };
            workers.extend((1..jobs).take(more).map(|_| spawn()));
            let ended = workers.into_iter().map(|worker| {
                worker.join().unwrap_or_else(|_| Err(HostError("a worker panicked".to_owned())))
            });
            ended.collect()
        });
        self.options.effort.recovered_since(start);
        outcome
    }
}

#[cfg(test)]
mod tests;
