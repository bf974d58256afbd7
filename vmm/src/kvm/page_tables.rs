//! Page tables that KVM has made its own of, and that somebody else changes.
//!
//! Hardware with nested paging walks the guest's tables itself. A KVM without it keeps *shadow* page tables: it reads the
//! guest's when a program first needs a translation, and takes notice when the guest changes one that it has read,
//! because the guest's stores trap. Stores by this process do not: those of the software processor when it executes the
//! kernel, and of a snapshot level that goes back. KVM would go on with what stood there before; a program could write
//! pages that `fork` has given to its child, too. No flush of the guest's helps, for it only reaches what the guest has
//! changed itself.
//!
//! So where the software processor executes the kernel there is a copy here of every table that KVM may have read. When
//! one of them has been written and an entry of it was there before and is another one now, KVM forgets all of its own.
//! That takes some hundred microseconds, and most of what the kernel does changes no such entry: it adds some.

use cpu::State;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::memory::{Memory, PAGE};

const PRESENT: u64 = 1;
const USER: u64 = 1 << 2;
const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
const HUGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const LEVELS: u8 = 4;
/// CR0.PG, and EFER.LMA: long mode is active.
const PAGING: u64 = 1 << 31;
const LONG_MODE: u64 = 1 << 10;
/// Copies that are kept: no guest may have more of the host's memory.
const MOST: usize = 1 << 14;

/// One table.
type Entries = [u64; 512];

/// Copies of tables that KVM may have read, as they were then.
#[derive(Default)]
pub(super) struct PageTables {
    /// By number of the page, and level: 1 is the lowest.
    known: FxHashMap<(u64, u8), Box<Entries>>,
    /// KVM may have read others, too.
    others: bool,
}

impl PageTables {
    /// KVM is about to execute, or has executed, a processor in this state: finds the tables that its programs reach.
    pub(super) fn look(&mut self, memory: &Memory, state: &State) {
        match (state.cr0 & PAGING != 0, state.efer & LONG_MODE != 0) {
            (false, _) => {}
            (true, false) => self.others = true,
            (true, true) => {
                let root = ((state.cr3 & ADDRESS) / PAGE, LEVELS);
                let mut seen = FxHashSet::from_iter([root]);
                let mut left = vec![root];
                while let Some((page, level)) = left.pop() {
                    let Some(entries) = self.copy(memory, page, level) else { continue };
                    let tables = entries.iter().filter(|&&entry| is_user(entry) && entry & HUGE == 0);
                    let below = tables.map(|entry| ((entry & ADDRESS) / PAGE, level - 1));
                    left.extend(below.filter(|&(page, level)| level > 0 && seen.insert((page, level))));
                }
            }
        }
    }

    /// Copies a table as it is now. `None` if there is none, or no room for it.
    fn copy(&mut self, memory: &Memory, page: u64, level: u8) -> Option<&Entries> {
        let entries = read(memory, page)?;
        if self.known.len() >= MOST && !self.known.contains_key(&(page, level)) {
            self.others = true;
            return None;
        }
        let copy = self.known.entry((page, level)).or_insert_with(|| Box::new([0; 512]));
        **copy = entries;
        Some(copy)
    }

    /// Somebody else than KVM has written these pages. Whether it must forget its own tables; if so, nothing is known any
    /// more.
    pub(super) fn are_outdated(&mut self, memory: &Memory, written: &[u64]) -> bool {
        let outdated = written.iter().any(|&page| self.is_outdated(memory, page));
        if outdated {
            *self = PageTables::default();
        }
        outdated
    }

    fn is_outdated(&self, memory: &Memory, page: u64) -> bool {
        if self.others {
            return true;
        }
        let mut copies = (1..=LEVELS).filter_map(|level| self.known.get(&(page, level))).peekable();
        if copies.peek().is_none() {
            return false;
        }
        let Some(now) = read(memory, page) else { return true };
        copies.any(|before| before.iter().zip(&now).any(|(&before, &now)| is_another(before, now)))
    }
}

/// Whether an entry that programs could use is now another one. KVM itself sets accessed and dirty, and nobody minds that
/// it does not know of ones set by others.
fn is_another(before: u64, now: u64) -> bool {
    is_user(before) && (before & !now & ACCESSED_DIRTY != 0 || (before ^ now) & !ACCESSED_DIRTY != 0)
}

fn is_user(entry: u64) -> bool {
    entry & (PRESENT | USER) == PRESENT | USER
}

fn read(memory: &Memory, page: u64) -> Option<Entries> {
    let mut bytes = [0; PAGE as usize];
    memory.read(page.checked_mul(PAGE)?, &mut bytes).then_some(())?;
    let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    Some(std::array::from_fn(|_| words.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::BankKind;

    const TABLES: [u64; 4] = [4 * PAGE, 3 * PAGE, 2 * PAGE, PAGE];

    const DATA: u64 = 8 * PAGE;
    const OTHER: u64 = 9 * PAGE;

    /// A table of each level, of which each entry 0 leads to the next, and the state of a processor that uses them.
    fn paged() -> (Memory, State) {
        let mut memory = Memory::new(&[(0, 16 * PAGE, BankKind::Ram)], None).unwrap();
        for (&table, next) in TABLES.iter().zip([3 * PAGE, 2 * PAGE, PAGE, DATA]) {
            set(&mut memory, table, next | 7);
        }
        let mut state = crate::software::Software::new(1, 0).cpu.state();
        (state.cr0, state.efer, state.cr3) = (PAGING | 1, LONG_MODE, TABLES[0]);
        (memory, state)
    }

    fn set(memory: &mut Memory, address: u64, entry: u64) {
        assert!(memory.write(address, &entry.to_le_bytes()));
    }

    /// Whether KVM must forget when `change` was made to entry 0 or 1 of the table of a level.
    fn outdated(level: usize, at: u64, entry: u64) -> bool {
        let (mut memory, state) = paged();
        let mut tables = PageTables::default();
        tables.look(&memory, &state);
        let table = TABLES[4 - level];
        set(&mut memory, table + 8 * at, entry);
        tables.are_outdated(&memory, &[table / PAGE])
    }

    #[test]
    fn an_entry_that_becomes_another_one_outdates_what_kvm_has() {
        for level in 1..=4 {
            assert!(outdated(level, 0, 0), "{level}");
            assert!(outdated(level, 0, OTHER | 7), "{level}");
        }
        assert!(outdated(1, 0, DATA | 5), "it may not be written any more");
    }

    #[test]
    fn new_entries_and_marks_of_use_do_not() {
        assert!(!outdated(1, 1, OTHER | 7));
        assert!(!outdated(2, 1, OTHER | 7));
        assert!(!outdated(1, 0, DATA | 7 | ACCESSED_DIRTY));
    }

    #[test]
    fn marks_of_use_that_are_taken_back_do() {
        let (mut memory, state) = paged();
        set(&mut memory, TABLES[3], DATA | 7 | ACCESSED_DIRTY);
        let mut tables = PageTables::default();
        tables.look(&memory, &state);
        set(&mut memory, TABLES[3], DATA | 7);
        assert!(tables.are_outdated(&memory, &[1]));
        assert!(!tables.are_outdated(&memory, &[1]), "nothing is known any more");
    }

    #[test]
    fn pages_that_are_no_tables_do_not_count_and_other_kinds_of_paging_always_do() {
        let (memory, mut state) = paged();
        let mut tables = PageTables::default();
        tables.look(&memory, &state);
        assert!(!tables.are_outdated(&memory, &[8, 0]));
        state.efer = 0;
        tables.look(&memory, &state);
        assert!(!tables.are_outdated(&memory, &[]));
        assert!(tables.are_outdated(&memory, &[8]));
    }

    #[test]
    fn tables_that_lead_to_themselves_come_to_an_end() {
        let (mut memory, state) = paged();
        for at in 0..512 {
            set(&mut memory, TABLES[0] + 8 * at, TABLES[0] | 7);
        }
        let mut tables = PageTables::default();
        tables.look(&memory, &state);
        assert_eq!(tables.known.len(), 4);
    }
}
