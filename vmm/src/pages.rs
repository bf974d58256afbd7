//! Recording by pages: what can be known of an engine that tells which pages were written, and when it looked.
//!
//! Between two looks nothing is known of the order of stores, of flushes or of fences. What a sector holds at a look it
//! did hold at one moment. That is what decides below a virtio-pmem device, where each sector survives as it was at some
//! moment since it was last made durable; moments between two looks are missed, and no state is made up.

use std::collections::BTreeSet;

use crate::memory::{BankKind, Memory, PAGE};

/// Bytes of what is told as one.
pub(crate) const SECTOR: usize = 512;

/// Persistent memory as it was at the last look.
pub(crate) struct Pages {
    /// Base and content of every bank.
    banks: Vec<(u64, Vec<u8>)>,
    /// Pages that may have been written since.
    written: BTreeSet<u64>,
}

impl Pages {
    /// Begins with memory as it is.
    pub(crate) fn new(memory: &Memory) -> Pages {
        let banks = memory.layout().into_iter().filter(|&(.., kind)| kind == BankKind::Pmem);
        let copy = |(base, size, _)| {
            let mut content = vec![0; size as usize];
            memory.read(base, &mut content);
            (base, content)
        };
        Pages { banks: banks.map(copy).collect(), written: BTreeSet::new() }
    }

    /// These pages may have been written, or may still be.
    pub(crate) fn note(&mut self, pages: &[u64]) {
        let holds =
            |addr: u64| self.banks.iter().any(|(base, all)| addr.wrapping_sub(*base) < all.len() as u64);
        self.written.extend(pages.iter().filter(|&&page| page.checked_mul(PAGE).is_some_and(holds)));
    }

    /// Looks: addresses and contents of the sectors that are not what they were at the last look, ascending. Pages that
    /// were noted are looked at again next time, until [`Pages::settle`].
    pub(crate) fn look(&mut self, memory: &Memory) -> Vec<(u64, [u8; SECTOR])> {
        let mut changed = Vec::new();
        for &page in &self.written {
            let addr = page * PAGE;
            let mut now = [0; PAGE as usize];
            let bank = self.banks.iter_mut().find(|(base, all)| addr.wrapping_sub(*base) < all.len() as u64);
            let Some((base, all)) = bank.filter(|_| memory.read(addr, &mut now)) else { continue };
            let before = &mut all[(addr - *base) as usize..][..PAGE as usize];
            let sectors = before.as_chunks_mut::<SECTOR>().0.iter_mut().zip(now.as_chunks::<SECTOR>().0);
            for (number, (before, now)) in (0..).zip(sectors).filter(|(_, (before, now))| before != now) {
                *before = *now;
                changed.push((addr + number * SECTOR as u64, *now));
            }
        }
        changed
    }

    /// Whoever wrote the noted pages will say so before it writes them again.
    pub(crate) fn settle(&mut self) {
        self.written.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 1 << 32;

    #[test]
    fn sectors_that_changed_are_told_once_with_what_they_hold() {
        let layout = [(0, PAGE, BankKind::Ram), (BASE, 4 * PAGE, BankKind::Pmem)];
        let mut memory = Memory::new(&layout, None).unwrap();
        let mut pages = Pages::new(&memory);
        for at in [0, BASE + 511, BASE + 512, BASE + PAGE, BASE + 2 * PAGE] {
            memory.write(at, &[7]);
        }
        let noted = [0, 1].map(|page| BASE / PAGE + page);
        pages.note(&noted);
        pages.note(&[0, 99, u64::MAX]);
        let changed = pages.look(&memory);
        let places: Vec<u64> = changed.iter().map(|(addr, _)| *addr).collect();
        assert_eq!(places, [BASE, BASE + 512, BASE + PAGE], "the third page was not noted");
        assert_eq!((changed[0].1[511], changed[0].1[510], changed[1].1[0]), (7, 0, 7));
        assert!(pages.look(&memory).is_empty());
        memory.write(BASE, &[8]);
        assert_eq!(pages.look(&memory).len(), 1, "still noted");
        memory.write(BASE, &[9]);
        pages.settle();
        assert!(pages.look(&memory).is_empty());
    }
}
