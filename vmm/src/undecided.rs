//! Which bytes of memory are undecided, and which bytes of persistent memory they are copies of.
//!
//! After a power cut a line of persistent memory may hold one of several contents. Recovery begins with some placeholder
//! there, and the bytes that are not the same in all contents are *undecided*. They may be copied without being looked
//! at: then the copy is undecided, too, and has the same *origin*, the byte of persistent memory that it came from.
//!
//! Kept are runs of bytes whose origins follow each other, by page; pages without any cost nothing. A snapshot level
//! keeps a clone, which shares every page that has not changed since.

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::memory::{PAGE, split};

/// Bytes of a line of persistent memory.
pub(crate) const LINE: u64 = 64;
/// Pages with undecided bytes at most, so that a guest that copies them for ever costs bounded memory. What would
/// make more has to decide them first.
const MOST_PAGES: usize = 8192;

/// Undecided bytes that follow each other, as their origins do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// Offset in the page.
    start: u16,
    /// Bytes, at least 1.
    len: u16,
    /// Origin of the first one: a guest-physical address.
    origin: u64,
}

impl Run {
    fn range(&self) -> Range<usize> {
        let start = usize::from(self.start);
        start..start + usize::from(self.len)
    }

    /// The part of it that lies in `range`.
    fn clip(&self, range: &Range<usize>) -> Option<Run> {
        let own = self.range();
        let (start, end) = (own.start.max(range.start), own.end.min(range.end));
        (start < end).then(|| Run {
            start: start as u16,
            len: (end - start) as u16,
            origin: self.origin + (start - own.start) as u64,
        })
    }
}

/// All undecided bytes of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Undecided {
    /// Runs of a page, ascending and apart from each other; never empty.
    pages: FxHashMap<u64, Arc<Vec<Run>>>,
}

impl Undecided {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Whether there are some in `page`.
    pub(crate) fn holds(&self, page: u64) -> bool {
        !self.pages.is_empty() && self.pages.contains_key(&page)
    }

    /// Whether `page` may be given some.
    pub(crate) fn has_room(&self, page: u64) -> bool {
        self.pages.len() < MOST_PAGES || self.pages.contains_key(&page)
    }

    /// The bytes of lines of persistent memory that are undecided: the address of each line and a mask of its bytes.
    /// They are their own origins, and nothing else is undecided.
    pub(crate) fn set(&mut self, lines: &[(u64, u64)]) {
        self.pages.clear();
        for &(line, mask) in lines {
            let line = line & !(LINE - 1);
            for range in ranges(mask) {
                let origins: Vec<u64> = range.map(|byte| line + byte as u64).collect();
                self.put(origins[0], &origins);
            }
        }
    }

    /// The undecided bytes among `len` at `addr`, cut at page borders: offset in the range, length, and origin of the first.
    pub(crate) fn runs(&self, addr: u64, len: usize) -> impl Iterator<Item = (usize, usize, u64)> {
        let pieces = split(addr, if self.is_empty() { 0 } else { len });
        pieces.flat_map(move |piece| {
            let at = addr.wrapping_add(piece.start as u64);
            let offset = (at % PAGE) as usize;
            let within = offset..offset + piece.len();
            let runs = self.pages.get(&(at / PAGE)).map_or(&[][..], |runs| runs);
            let first = runs.partition_point(|run| run.range().end <= within.start);
            let clipped = runs[first..].iter().map_while(move |run| run.clip(&within));
            clipped.map(move |run| {
                (piece.start + usize::from(run.start) - offset, usize::from(run.len), run.origin)
            })
        })
    }

    /// Whether any of `len` bytes at `addr` is undecided.
    pub(crate) fn any(&self, addr: u64, len: usize) -> bool {
        self.runs(addr, len).next().is_some()
    }

    /// The undecided ones among `len` bytes at `addr`, ascending: offset in the range and origin.
    pub(crate) fn origins(&self, addr: u64, len: usize) -> impl Iterator<Item = (usize, u64)> {
        self.runs(addr, len).flat_map(|(at, len, origin)| (0..len).map(move |n| (at + n, origin + n as u64)))
    }

    /// The lines in which the origins of `len` bytes at `addr` lie, in any order and some of them perhaps twice.
    pub(crate) fn lines(&self, addr: u64, len: usize) -> impl Iterator<Item = u64> {
        self.runs(addr, len).flat_map(|(_, len, origin)| {
            let (first, last) = (origin / LINE, (origin + len as u64 - 1) / LINE);
            (first..=last).map(|line| line * LINE)
        })
    }

    /// `len` bytes at `addr` are decided from now on: something else stands there.
    pub(crate) fn overwrite(&mut self, addr: u64, len: usize) {
        if self.is_empty() {
            return;
        }
        for piece in split(addr, len) {
            let at = addr.wrapping_add(piece.start as u64);
            let offset = (at % PAGE) as usize;
            self.change(at / PAGE, &(offset..offset + piece.len()), &[]);
        }
    }

    /// What has been stored at `addr`, all of it in one page, has these origins; `u64::MAX` for decided bytes.
    pub(crate) fn put(&mut self, addr: u64, origins: &[u64]) {
        let offset = (addr % PAGE) as usize;
        let mut runs: Vec<Run> = Vec::new();
        for (at, &origin) in (offset..).zip(origins).filter(|(_, origin)| **origin != cpu::DECIDED) {
            match runs.last_mut() {
                Some(run) if run.range().end == at && run.origin + u64::from(run.len) == origin => {
                    run.len += 1;
                }
                _ => runs.push(Run { start: at as u16, len: 1, origin }),
            }
        }
        self.change(addr / PAGE, &(offset..offset + origins.len()), &runs);
    }

    /// Replaces what is in a range of a page.
    fn change(&mut self, page: u64, range: &Range<usize>, new: &[Run]) {
        let old = self.pages.get(&page).map_or(&[][..], |runs| runs);
        let untouched = old.iter().all(|run| run.clip(range).is_none());
        if new.is_empty() && untouched {
            return;
        }
        let before = old.iter().filter_map(|run| run.clip(&(0..range.start)));
        let behind = old.iter().filter_map(|run| run.clip(&(range.end..PAGE as usize)));
        let runs: Vec<Run> = before.chain(new.iter().copied()).chain(behind).collect();
        if runs.is_empty() {
            self.pages.remove(&page);
        } else {
            self.pages.insert(page, Arc::new(runs));
        }
    }

    /// Where the bytes of a line that are in `mask` have got to, itself included: address and which byte of the line,
    /// ascending.
    pub(crate) fn places(&self, line: u64, mask: u64) -> Vec<(u64, usize)> {
        let line = line & !(LINE - 1);
        let mut found = Vec::new();
        for (page, runs) in &self.pages {
            for run in runs.iter() {
                let first = run.origin.max(line);
                let end = (run.origin + u64::from(run.len)).min(line + LINE);
                for origin in first..end.max(first) {
                    let byte = (origin - line) as usize;
                    if mask >> byte & 1 != 0 {
                        let offset = u64::from(run.start) + (origin - run.origin);
                        found.push((page * PAGE + offset, byte));
                    }
                }
            }
        }
        found.sort_unstable();
        found
    }
}

/// The ranges of ones in a mask, lowest first.
fn ranges(mask: u64) -> impl Iterator<Item = Range<u32>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = mask.checked_shr(at).filter(|left| *left != 0)?;
        let start = at + left.trailing_zeros();
        at = start + (mask >> start).trailing_ones();
        Some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PMEM: u64 = 1 << 32;

    fn all(undecided: &Undecided, addr: u64, len: usize) -> Vec<(usize, u64)> {
        undecided.origins(addr, len).collect()
    }

    #[test]
    fn bytes_of_a_mask_are_their_own_origins() {
        let mut undecided = Undecided::default();
        assert!(undecided.is_empty() && !undecided.holds(PMEM / PAGE));
        undecided.set(&[(PMEM + 64, 0b1011), (PMEM + PAGE - 64, 1 << 63), (PMEM + PAGE, u64::MAX)]);
        let address = |offset: u64| (offset as usize, PMEM + offset);
        assert_eq!(all(&undecided, PMEM, 128), [64, 65, 67].map(address));
        assert_eq!(all(&undecided, PMEM + 65, 2), [(0, PMEM + 65)]);
        assert_eq!(
            all(&undecided, PMEM + PAGE - 2, 4),
            [1, 2, 3].map(|at| (at, PMEM + PAGE - 2 + at as u64))
        );
        assert!(undecided.any(PMEM + 67, 1) && !undecided.any(PMEM + 66, 1));
        undecided.set(&[]);
        assert!(undecided.is_empty());
    }

    #[test]
    fn what_is_stored_over_is_decided_and_the_rest_stays() {
        let mut undecided = Undecided::default();
        undecided.set(&[(PMEM, u64::MAX)]);
        undecided.overwrite(PMEM + 8, 8);
        undecided.overwrite(PMEM + 62, 4);
        let left: Vec<usize> = all(&undecided, PMEM, 64).into_iter().map(|(at, _)| at).collect();
        assert_eq!(left, (0..8).chain(16..62).collect::<Vec<_>>());
        undecided.overwrite(PMEM, 64);
        assert!(undecided.is_empty());
    }

    #[test]
    fn copies_are_found_by_the_line_they_came_from() {
        let mut undecided = Undecided::default();
        undecided.set(&[(PMEM, 0xff), (PMEM + 64, 0xff)]);
        undecided.put(PAGE + 1, &[PMEM + 6, PMEM + 7, cpu::DECIDED, PMEM + 64, PMEM + 6]);
        assert_eq!(
            undecided.places(PMEM, 0b1100_0000),
            [(PAGE + 1, 6), (PAGE + 2, 7), (PAGE + 5, 6), (PMEM + 6, 6), (PMEM + 7, 7)]
        );
        let mut lines: Vec<u64> = undecided.lines(PAGE, 16).collect();
        lines.dedup();
        assert_eq!(lines, [PMEM, PMEM + 64, PMEM]);
        undecided.put(PAGE, &[cpu::DECIDED; 16]);
        assert!(!undecided.holds(1));
    }

    #[test]
    fn a_clone_does_not_follow() {
        let mut undecided = Undecided::default();
        undecided.set(&[(PMEM, u64::MAX)]);
        let kept = undecided.clone();
        undecided.overwrite(PMEM, 1);
        assert!(kept.any(PMEM, 1) && !undecided.any(PMEM, 1));
    }

    #[test]
    fn only_so_many_pages_can_hold_some() {
        let mut undecided = Undecided::default();
        for page in 0..MOST_PAGES as u64 {
            assert!(undecided.has_room(page));
            undecided.put(page * PAGE, &[PMEM]);
        }
        assert!(!undecided.has_room(MOST_PAGES as u64) && undecided.has_room(0));
    }

    #[test]
    fn ranges_of_a_mask() {
        let of = |mask| ranges(mask).collect::<Vec<_>>();
        assert_eq!(of(0), []);
        assert_eq!(of(u64::MAX - 1), vec![Range { start: 1, end: 64 }]);
        assert_eq!(of(1 << 63 | 0b110), [1..3, 63..64]);
    }
}
