//! Which lines of persistent memory the media has lost: poison.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Bytes of a line: the smallest piece that is lost.
pub const LINE: u64 = 64;

/// Ranges of poisoned lines, guest-physical, apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaErrors {
    /// End of each range by its start.
    ranges: BTreeMap<u64, u64>,
}

impl MediaErrors {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Every range, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// Every line, ascending.
    pub fn lines(&self) -> impl Iterator<Item = u64> {
        self.iter().flat_map(|range| range.step_by(LINE as usize))
    }

    /// The parts of ranges that lie in `range`, ascending.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let before = self.ranges.range(..range.start).next_back();
        let behind = self.ranges.range(range.start..range.end.max(range.start));
        let all = before.into_iter().chain(behind);
        let clipped = all.map(move |(&start, &end)| start.max(range.start)..end.min(range.end));
        clipped.filter(|part| !part.is_empty())
    }

    /// The first poisoned one of `len` bytes at `addr`.
    pub fn first(&self, addr: u64, len: u64) -> Option<u64> {
        if self.ranges.is_empty() {
            return None;
        }
        self.within(addr..addr.saturating_add(len)).next().map(|part| part.start)
    }

    /// Poisons every line that holds one of these bytes.
    pub fn add(&mut self, range: Range<u64>) {
        let mut range = lines_around(range);
        if range.is_empty() {
            return;
        }
        // Ranges that it meets become one with it.
        while let Some((&start, &end)) = self.ranges.range(..=range.end).next_back()
            && end >= range.start
        {
            self.ranges.remove(&start);
            range = range.start.min(start)..range.end.max(end);
        }
        self.ranges.insert(range.start, range.end);
    }

    /// Repairs every line that lies in the range with all of its bytes.
    pub fn remove(&mut self, range: Range<u64>) {
        let (start, end) = (range.start.next_multiple_of(LINE), range.end & !(LINE - 1));
        if start >= end {
            return;
        }
        let hit: Vec<Range<u64>> = self.within(start..end).collect();
        for part in hit {
            let (&first, &last) = self.ranges.range(..=part.start).next_back().expect("it was found there");
            self.ranges.remove(&first);
            for rest in [first..part.start, part.end..last] {
                if !rest.is_empty() {
                    self.ranges.insert(rest.start, rest.end);
                }
            }
        }
    }
}

/// The whole lines that a range touches.
pub fn lines_around(range: Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return range.start..range.start;
    }
    range.start & !(LINE - 1)..range.end.checked_next_multiple_of(LINE).unwrap_or(!(LINE - 1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_what_a_set_of_lines_is(
            steps in prop::collection::vec((any::<bool>(), 0_u64..1024, 0_u64..400), 0..40),
            asked in (0_u64..1024, 0_u64..300),
        ) {
            let (mut errors, mut lines) = (MediaErrors::default(), BTreeSet::new());
            for (add, at, len) in steps {
                let range = at..at + len;
                if add {
                    errors.add(range.clone());
                    lines.extend((0..32).map(|n| n * LINE).filter(|line| {
                        !range.is_empty() && *line < range.end && range.start < line + LINE
                    }));
                } else {
                    errors.remove(range.clone());
                    lines.retain(|line| *line < range.start || line + LINE > range.end);
                }
                prop_assert!(errors.lines().eq(lines.iter().copied()));
            }
            let (at, len) = asked;
            let first = (at..at + len).find(|byte| lines.contains(&(byte & !(LINE - 1))));
            prop_assert_eq!(errors.first(at, len), first);
            let ranges: Vec<_> = errors.iter().collect();
            prop_assert!(ranges.windows(2).all(|two| two[0].end < two[1].start), "{:?}", ranges);
        }
    }
}
