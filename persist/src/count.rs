//! Counting the order-closed sets of a line, and the contents that they give it.
//!
//! Both walk along the line's parts and keep, for every set of the parts walked so far, only what decides about the
//! parts to come. Sets that agree in that are one.

use std::collections::{BTreeMap, BTreeSet};

use crate::choice::StateCount;
use crate::order::{Entry, Kind, Missing};
use crate::search::Orders;

/// How many different sets are kept per line before counting gives up. No order of a real run comes near: it takes
/// many non-temporal stores of different width over each other.
pub(crate) const LIMIT: usize = 4096;

/// Which bytes are alike for all parts to come: of bytes that the same parts touch, the lowest stands for all; bytes
/// that no part touches have no representative.
#[derive(Clone)]
struct Alike {
    representative: [Option<u8>; 64],
}

impl Alike {
    fn nothing_to_come() -> Self {
        Self { representative: [None; 64] }
    }

    /// The same with one more part to come.
    fn with(&self, mask: u64) -> Self {
        let mut representative = [None; 64];
        // The lowest byte of each class outside and inside of the part, by the class's representative so far.
        let mut lowest = [[None; 2]; 65];
        for byte in 0..64_u8 {
            let inside = mask >> byte & 1 == 1;
            let class = self.representative[usize::from(byte)];
            if class.is_some() || inside {
                let lowest = &mut lowest[class.map_or(64, usize::from)][usize::from(inside)];
                representative[usize::from(byte)] = Some(*lowest.get_or_insert(byte));
            }
        }
        Self { representative }
    }

    fn reduce(&self, bytes: u64) -> u64 {
        let mut reduced = 0;
        let mut rest = bytes;
        while rest != 0 {
            let byte = rest.trailing_zeros();
            rest &= rest - 1;
            reduced |= self.representative[byte as usize].map_or(0, |byte| 1 << byte);
        }
        reduced
    }
}

/// The parts of a line with, behind each, what can still matter.
pub(crate) struct Walk<'a> {
    entries: &'a [Entry],
    nt_evicts: bool,
    /// Behind the part with the same index: for sets that miss no cached part, and for those that do.
    alike: Vec<(Alike, Alike)>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(entries: &'a [Entry], nt_evicts: bool) -> Self {
        let mut alike = Vec::with_capacity(entries.len());
        let mut whole = Alike::nothing_to_come();
        // Once a cached part is missing, later batches are out whatever the bytes.
        let mut non_temporal = Alike::nothing_to_come();
        let mut missing = non_temporal.clone();
        let mut batch = None;
        for entry in entries.iter().rev() {
            alike.push((whole.clone(), missing.clone()));
            whole = whole.with(entry.mask);
            match entry.kind {
                Kind::Cached { batch: this } => {
                    if batch.replace(this) != Some(this) {
                        missing = non_temporal.clone();
                    }
                    missing = missing.with(entry.mask);
                }
                Kind::NonTemporal | Kind::Sector => {
                    non_temporal = non_temporal.with(entry.mask);
                    missing = missing.with(entry.mask);
                }
            }
        }
        alike.reverse();
        Self { entries, nt_evicts, alike }
    }

    /// What is missing behind part `index`, if the set may have (`included`) or lack it.
    fn step(&self, index: usize, missing: Missing, included: bool) -> Option<Missing> {
        let entry = &self.entries[index];
        if included && !missing.allows(entry, self.nt_evicts) {
            return None;
        }
        let mut missing = missing;
        if !included {
            missing.add(entry);
        }
        let (whole, after_missing) = &self.alike[index];
        missing
            .reduce(|bytes, cached| if cached { after_missing.reduce(bytes) } else { whole.reduce(bytes) });
        Some(missing)
    }
}

impl Orders for Walk<'_> {
    type Missing = Missing;

    fn start(&self) -> Missing {
        Missing::default()
    }

    fn step(&self, index: usize, missing: &Missing, included: bool) -> Option<Missing> {
        Walk::step(self, index, *missing, included)
    }
}

/// How many order-closed sets the parts have. They contain no whole sector.
pub(crate) fn count_sets(entries: &[Entry], nt_evicts: bool) -> StateCount {
    let cached = entries.iter().filter(|entry| matches!(entry.kind, Kind::Cached { .. })).count();
    match cached {
        0 => separate(entries)
            .iter()
            .fold(StateCount::ONE, |count, part| count.times(walk_sets(part, nt_evicts))),
        _ if cached == entries.len() => batches(entries).unwrap_or_else(|| walk_sets(entries, nt_evicts)),
        _ => walk_sets(entries, nt_evicts),
    }
}

/// Non-temporal parts that overlap, directly or through others, stay together.
fn separate(entries: &[Entry]) -> Vec<Vec<Entry>> {
    let mut groups: Vec<(u64, Vec<Entry>)> = Vec::new();
    for entry in entries {
        let mut joined = (entry.mask, Vec::new());
        for (mask, group) in std::mem::take(&mut groups) {
            if mask & entry.mask != 0 {
                joined.0 |= mask;
                joined.1.extend(group);
            } else {
                groups.push((mask, group));
            }
        }
        joined.1.push(*entry);
        groups.push(joined);
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// Cached parts alone: all of some batches, then any part of the next. `None` when parts of one batch overlap.
fn batches(entries: &[Entry]) -> Option<StateCount> {
    let mut count = StateCount::ONE;
    for batch in entries.chunk_by(|one, next| one.kind == next.kind) {
        let mut bytes = 0;
        for entry in batch {
            if bytes & entry.mask != 0 {
                return None;
            }
            bytes |= entry.mask;
        }
        let states = (1_u128 << batch.len()) - 1;
        count = count.plus(StateCount { states, log2: (states as f64).log2(), exact: true });
    }
    Some(count)
}

fn walk_sets(entries: &[Entry], nt_evicts: bool) -> StateCount {
    let walk = Walk::new(entries, nt_evicts);
    let mut sets = BTreeMap::from([(Missing::default(), StateCount::ONE)]);
    let mut exact = true;
    for index in 0..entries.len() {
        let mut next: BTreeMap<Missing, StateCount> = BTreeMap::new();
        for (missing, count) in sets {
            for missing in
                [true, false].into_iter().filter_map(|included| walk.step(index, missing, included))
            {
                let known = next.entry(missing).or_insert(StateCount::ZERO);
                *known = known.plus(count);
            }
        }
        while next.len() > LIMIT {
            next.pop_last();
            exact = false;
        }
        sets = next;
    }
    let count = sets.into_values().fold(StateCount::ZERO, StateCount::plus);
    StateCount { exact: exact && count.exact, ..count }
}

/// Every content that the order-closed sets give a line whose durable content is `durable`. `apply` writes the part
/// with the given index. `None` when it takes more than `limit` sets that differ.
pub(crate) fn contents(
    entries: &[Entry],
    nt_evicts: bool,
    durable: [u8; 64],
    limit: usize,
    apply: impl Fn(usize, &mut [u8; 64]),
) -> Option<BTreeSet<[u8; 64]>> {
    let walk = Walk::new(entries, nt_evicts);
    let mut sets = BTreeSet::from([(Missing::default(), durable)]);
    for index in 0..entries.len() {
        let mut next = BTreeSet::new();
        for (missing, content) in sets {
            if let Some(missing) = walk.step(index, missing, true) {
                let mut content = content;
                apply(index, &mut content);
                next.insert((missing, content));
            }
            next.extend(walk.step(index, missing, false).map(|missing| (missing, content)));
        }
        if next.len() > limit {
            return None;
        }
        sets = next;
    }
    Some(sets.into_iter().map(|(_, content)| content).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn non_temporal(mask: u64) -> Entry {
        Entry { mask, kind: Kind::NonTemporal }
    }

    fn bytewise(batch: u64) -> impl Iterator<Item = Entry> {
        (0..64).map(move |byte| Entry { mask: 1 << byte, kind: Kind::Cached { batch } })
    }

    #[test]
    fn string_stores_over_each_other_are_counted() {
        let entries: Vec<Entry> = bytewise(0).chain(bytewise(1)).collect();
        assert_eq!(count_sets(&entries, false).states, 1 + 2 * ((1 << 64) - 1));
    }

    #[test]
    fn words_over_string_stores_are_counted() {
        let words = (0..8).map(|word| non_temporal(0xff << (word * 8)));
        let entries: Vec<Entry> = bytewise(0).chain(words).collect();
        // Per word: any bytes without the word, or all of them with it.
        let count = count_sets(&entries, false);
        assert!(count.exact);
        assert!((count.log2 - 8.0 * 257_f64.log2()).abs() < 1e-9);
        assert_eq!(count.states, 257_u128.pow(8));
    }

    #[test]
    fn a_word_between_string_stores_is_counted() {
        let entries: Vec<Entry> = bytewise(0).chain([non_temporal(0xff)]).chain(bytewise(1)).collect();
        let first = (1 << 56) * 257;
        let second = (1 << 64) + (1 << 56);
        let both = 2;
        let count = count_sets(&entries, false);
        assert_eq!((count.states, count.exact), (first + second - both, true));
    }

    #[test]
    fn words_over_words_are_counted_apart() {
        let words = || (0..8).map(|word| non_temporal(0xff << (word * 8)));
        let entries: Vec<Entry> = words().chain(words()).collect();
        assert_eq!(count_sets(&entries, false).states, 3_u128.pow(8));
    }

    #[test]
    fn what_is_too_tangled_to_count_is_said_to_be_more() {
        let mut entries: Vec<Entry> = (0..64).map(|byte| non_temporal(1 << byte)).collect();
        entries.extend((0..63).map(|byte| non_temporal(0b11 << byte)));
        let count = count_sets(&entries, false);
        assert!(!count.exact);
        assert!(count.states >= 4096);
    }
}
