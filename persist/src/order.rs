//! Which parts of one line come before which.
//!
//! A line's parts in coherence order are a list of [`Entry`]s. Two orders hold:
//! - a cached part comes after every cached part of an earlier *batch*; a batch is what one store, or one execution
//!   of a REP string instruction without a store of somebody else in between, put into the line;
//! - any part comes after an earlier part that overlaps its bytes.
//!
//! Under `nt_evicts` a non-temporal part comes after every earlier cached part of its line, too.

/// What the orders need to know of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    /// Bytes of the line that it covers.
    pub(crate) mask: u64,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Cached, of this batch. Batches are numbered upwards along the list.
    Cached { batch: u64 },
    /// Non-temporal.
    NonTemporal,
    /// One line of a whole sector: covers all bytes, so it comes after everything before it.
    Sector,
}

impl Kind {
    /// The batch of a cached part.
    pub(crate) fn batch(self) -> Option<u64> {
        match self {
            Kind::Cached { batch } => Some(batch),
            Kind::NonTemporal | Kind::Sector => None,
        }
    }
}

/// Adds to `included` everything that its entries come after.
pub(crate) fn include_predecessors(entries: &[Entry], included: &mut [bool], nt_evicts: bool) {
    let mut bytes = 0;
    let mut newest_batch = None;
    let mut all_cached = false;
    for (entry, included) in entries.iter().zip(included).rev() {
        let ordered = match entry.kind {
            Kind::Cached { batch } => all_cached || newest_batch.is_some_and(|newest| batch < newest),
            Kind::NonTemporal | Kind::Sector => false,
        };
        *included |= ordered || entry.mask & bytes != 0;
        if *included {
            bytes |= entry.mask;
            match entry.kind {
                Kind::Cached { batch } => newest_batch = newest_batch.max(Some(batch)),
                Kind::NonTemporal => all_cached |= nt_evicts,
                Kind::Sector => {}
            }
        }
    }
}

/// What of the entries walked so far is missing from a set: all that decides which later entries it may contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Missing {
    bytes: u64,
    /// Oldest batch of which a part is missing.
    batch: Option<u64>,
}

impl Missing {
    /// Whether a set from which this is missing may contain the next entry.
    pub(crate) fn allows(&self, entry: &Entry, nt_evicts: bool) -> bool {
        let ordered = match entry.kind {
            Kind::Cached { batch } => self.batch.is_some_and(|oldest| oldest < batch),
            Kind::NonTemporal => nt_evicts && self.batch.is_some(),
            Kind::Sector => false,
        };
        !ordered && self.bytes & entry.mask == 0
    }

    pub(crate) fn add(&mut self, entry: &Entry) {
        self.bytes |= entry.mask;
        if let Kind::Cached { batch } = entry.kind {
            self.batch = Some(self.batch.map_or(batch, |oldest| oldest.min(batch)));
        }
    }
}

/// Keeps of what is missing only what can matter to later entries.
impl Missing {
    /// `reduce` gets the missing bytes and whether a cached part is missing.
    pub(crate) fn reduce(&mut self, reduce: impl Fn(u64, bool) -> u64) {
        self.bytes = reduce(self.bytes, self.batch.is_some());
    }
}

/// Adds to `excluded` everything that comes after its entries.
pub(crate) fn exclude_successors(entries: &[Entry], excluded: &mut [bool], nt_evicts: bool) {
    let mut missing = Missing::default();
    for (entry, excluded) in entries.iter().zip(excluded) {
        *excluded |= !missing.allows(entry, nt_evicts);
        if *excluded {
            missing.add(entry);
        }
    }
}
