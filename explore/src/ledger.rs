//! What is done already: the results of units of work, by what the work was.
//!
//! A unit is a crash state that is recovered, or a class of crash points that is searched. Its result depends on
//! nothing but its key and the execution it belongs to, so it can be taken over from a run that was interrupted or from
//! a shard, and what comes of the run is the same to the last byte.

mod journal;

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::journal::{Journal, JournalError};
use crate::target::HostError;

/// Names a unit of work.
pub(crate) type Key = [u8; 32];

/// Results of one scenario's run by their keys, in the form in which they are kept.
pub(crate) type Results = BTreeMap<Key, Vec<u8>>;

/// The results of one scenario's run: those that are known, and a place for new ones.
#[derive(Default)]
pub struct Ledger {
    known: Mutex<Results>,
    /// The execution that the results are of, as far as one has been named.
    execution: Mutex<Option<Key>>,
    /// Where new results go at once, and the number of this run there.
    journal: Option<(Arc<Journal>, u32)>,
    taken: AtomicU64,
}

impl Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Ledger").field("known", &lock(&self.known).len()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The key of a unit of work of this kind. `what` must tell it from all others of the same execution.
pub(crate) fn key(kind: &str, what: &impl Serialize) -> Key {
    let bytes = postcard::to_stdvec(&(kind, what)).expect("a key has only numbers and text");
    *blake3::hash(&bytes).as_bytes()
}

impl Ledger {
    /// With these results of an execution.
    pub(crate) fn knowing(execution: Option<Key>, known: Results) -> Ledger {
        Ledger { known: Mutex::new(known), execution: Mutex::new(execution), ..Ledger::default() }
    }

    /// Results that were taken over so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Names the execution that all results are of. It is an error if what is known is of another.
    pub(crate) fn begin(&self, execution: Key) -> Result<(), HostError> {
        let mut known = lock(&self.execution);
        match *known {
            Some(of) if of != execution => Err(HostError(
                "the results that are known are of another execution: kernel, programs, images and seed must be the \
                 same, and so must the recording"
                    .to_owned(),
            )),
            Some(_) => Ok(()),
            None => {
                *known = Some(execution);
                self.journal.as_ref().map_or(Ok(()), |(journal, run)| journal.begin(*run, execution))
            }
        }
    }

    /// The execution, once it has been named.
    pub(crate) fn execution(&self) -> Option<Key> {
        *lock(&self.execution)
    }

    /// The result of a unit, if it is known.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, HostError> {
        let known = lock(&self.known);
        let Some(bytes) = known.get(key) else { return Ok(None) };
        let result = postcard::from_bytes(bytes)
            .map_err(|why| HostError(format!("a result that is known cannot be read: {why}")))?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(Some(result))
    }

    /// Keeps the result of a unit.
    pub(crate) fn put<T: Serialize>(&self, key: Key, result: &T) -> Result<(), HostError> {
        let bytes = postcard::to_stdvec(result)
            .map_err(|why| HostError(format!("a result cannot be written down: {why}")))?;
        if let Some((journal, run)) = &self.journal {
            journal.append(*run, key, &bytes)?;
        }
        lock(&self.known).insert(key, bytes);
        Ok(())
    }

    /// Everything that is known.
    pub(crate) fn results(&self) -> Results {
        lock(&self.known).clone()
    }
}
