//! Sets of parts in flight, and how many there are.

use serde::{Deserialize, Serialize};

/// Which of the parts in flight at a crash point reached the media.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Choice {
    words: Box<[u64]>,
}

impl Choice {
    /// The empty choice among `len` parts.
    pub(crate) fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)].into() }
    }

    /// Whether it contains the part with this index in [`crate::CrashPoint::in_flight`].
    pub fn contains(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// The indexes of its parts, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.words.len() * 64).filter(|&index| self.contains(index))
    }

    /// How many parts it contains.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether it contains no part: everything in flight is lost.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    pub(crate) fn set(&mut self, index: usize, included: bool) {
        let bit = 1 << (index % 64);
        if included {
            self.words[index / 64] |= bit;
        } else {
            self.words[index / 64] &= !bit;
        }
    }

    /// Drops every index from `index` on.
    pub(crate) fn truncate(&mut self, index: usize) {
        let (word, bit) = (index / 64, index % 64);
        if word < self.words.len() {
            self.words[word] &= (1 << bit) - 1;
            self.words[word + 1..].fill(0);
        }
    }
}

/// How many crash states there are, as sets of parts: two of them may have equal content.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateCount {
    /// How many; `u128::MAX` for that many or more.
    pub states: u128,
    /// Logarithm to base 2 of how many.
    pub log2: f64,
    /// False when counting was given up: there are at least this many.
    pub exact: bool,
}

impl StateCount {
    pub(crate) const ONE: Self = Self { states: 1, log2: 0.0, exact: true };
    pub(crate) const ZERO: Self = Self { states: 0, log2: f64::NEG_INFINITY, exact: true };

    fn new(states: u128, log2: f64, exact: bool) -> Self {
        let log2 = if states == u128::MAX { log2.max(128.0) } else { (states as f64).log2() };
        Self { states, log2, exact }
    }

    pub(crate) fn times(self, other: Self) -> Self {
        let states = self.states.saturating_mul(other.states);
        Self::new(states, self.log2 + other.log2, self.exact && other.exact)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        let states = self.states.saturating_add(other.states);
        let (small, large) =
            if self.log2 < other.log2 { (self.log2, other.log2) } else { (other.log2, self.log2) };
        let log2 = if small == f64::NEG_INFINITY {
            large
        } else {
            large + (small - large).exp2().ln_1p() / std::f64::consts::LN_2
        };
        Self::new(states, log2, self.exact && other.exact)
    }
}
