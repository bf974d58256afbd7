//! The software TLB: what makes an access to memory one compare and one add.
//!
//! Three direct-mapped arrays, for reads, writes and fetches. Each has a part per privilege, so that neither a change
//! of CPL nor STAC and CLAC need a flush. An entry's tag is the linear page address; its low bits are *slow bits*,
//! which make the tag differ from every page address, so that the fast path's one compare fails.

use rustc_hash::FxHashSet;

/// Entries of one privilege's part.
const ENTRIES: usize = 1024;
/// Entries of one array: four privileges. A power of two, so that masking replaces bounds checks.
const SLOTS: usize = 4 * ENTRIES;

/// Slow bit: stores lie in persistent memory and are told to the bus.
pub(crate) const PMEM: u64 = 1;
/// Slow bit: there are decoded instructions from this page.
pub(crate) const CODE: u64 = 2;
/// Slow bit: accesses are checked for alignment or for breakpoints.
pub(crate) const CHECKED: u64 = 4;
/// Slow bit: there are undecided bytes in this page, or were.
pub(crate) const WATCHED: u64 = 8;
/// Slow bit: there is nothing in this slot.
const EMPTY: u64 = 0x800;

/// With whose rights memory is accessed: selects the part of each array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Privilege {
    /// CPL 0 to 2, or an implicit access to a descriptor table or TSS.
    Supervisor = 0,
    /// CPL 3.
    User = 1,
    /// CPL 0 to 2 with RFLAGS.AC set: SMAP does not apply.
    SupervisorUserAllowed = 2,
    /// CPL 3 with alignment checks: every translation has [`CHECKED`] set.
    UserAligned = 3,
}

impl Privilege {
    const ALL: [Privilege; 4] =
        [Privilege::Supervisor, Privilege::User, Privilege::SupervisorUserAllowed, Privilege::UserAligned];

    /// CPL 3.
    #[inline]
    pub fn is_user(self) -> bool {
        matches!(self, Privilege::User | Privilege::UserAligned)
    }
}

/// One translation.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// Linear address of the page, and slow bits.
    pub tag: u64,
    /// Host address minus linear address.
    pub addend: u64,
}

impl Entry {
    const NONE: Entry = Entry { tag: EMPTY, addend: 0 };

    /// Whether this is the translation of the page at `linear`, slow or not.
    pub fn is_for(&self, linear: u64) -> bool {
        self.tag & !(PMEM | CODE | CHECKED | WATCHED) == linear & !0xfff
    }
}

/// Logarithms of the sizes of large pages: 2 MiB, 4 MiB without PAE, 1 GiB.
const LARGE_SHIFTS: [u32; 3] = [21, 22, 30];
/// Large pages remembered at most.
const MOST_LARGE: usize = 16384;

/// Translations of one kind of access.
pub(crate) struct Array {
    entries: Box<[Entry; SLOTS]>,
    /// Guest-physical page number of each entry.
    frames: Box<[u64; SLOTS]>,
    /// Slots that hold translations which a load of CR3 drops. Slots may stand here twice.
    not_global: Vec<u16>,
}

/// How many non-global fills are remembered one by one before a flush looks at all slots instead.
const REMEMBERED: usize = SLOTS;

impl Array {
    fn new() -> Array {
        Array { entries: boxed(Entry::NONE), frames: boxed(0), not_global: Vec::new() }
    }

    #[inline(always)]
    fn slot(linear: u64, privilege: Privilege) -> usize {
        ((linear >> 12) as usize & (ENTRIES - 1) | (privilege as usize * ENTRIES)) & (SLOTS - 1)
    }

    /// What stands where `linear`'s translation would.
    #[inline(always)]
    pub fn entry(&self, linear: u64, privilege: Privilege) -> Entry {
        self.entries[Array::slot(linear, privilege)]
    }

    /// Guest-physical page of the entry at `linear`'s slot.
    #[inline(always)]
    pub fn frame(&self, linear: u64, privilege: Privilege) -> u64 {
        self.frames[Array::slot(linear, privilege)]
    }

    /// Remembers a translation.
    pub fn fill(
        &mut self,
        linear: u64,
        privilege: Privilege,
        frame: u64,
        host: u64,
        slow: u64,
        global: bool,
    ) {
        let slot = Array::slot(linear, privilege);
        let page = linear & !0xfff;
        self.entries[slot] = Entry { tag: page | slow, addend: host.wrapping_sub(page) };
        self.frames[slot] = frame;
        if !global && self.not_global.len() <= REMEMBERED {
            self.not_global.push(slot as u16);
        }
    }

    /// There are no undecided bytes any more in the page at `linear`.
    pub fn unwatch(&mut self, linear: u64, privilege: Privilege) {
        self.entries[Array::slot(linear, privilege)].tag &= !WATCHED;
    }

    fn mark(&mut self, frame: u64, slow: u64) {
        for (entry, &its_frame) in self.entries.iter_mut().zip(self.frames.iter()) {
            if its_frame == frame && entry.tag & EMPTY == 0 {
                entry.tag |= slow;
            }
        }
    }

    fn clear(&mut self) {
        self.entries.fill(Entry::NONE);
        self.not_global.clear();
    }

    fn clear_not_global(&mut self) {
        if self.not_global.len() > REMEMBERED {
            // Which of them are global is not known any more: dropping too much is allowed.
            self.clear();
            return;
        }
        for slot in self.not_global.drain(..) {
            self.entries[slot as usize] = Entry::NONE;
        }
    }

    /// Drops all parts of a page of `1 << shift` bytes: they lie next to each other in each privilege's part.
    fn clear_large(&mut self, linear: u64, shift: u32) {
        let count = ENTRIES.min(1 << (shift - 12));
        let start = (linear >> 12) as usize & (ENTRIES - 1) & !(count - 1);
        for part in self.entries.chunks_exact_mut(ENTRIES) {
            for entry in &mut part[start..start + count] {
                if (entry.tag ^ linear) >> shift == 0 {
                    *entry = Entry::NONE;
                }
            }
        }
    }

    fn clear_page(&mut self, linear: u64) {
        for privilege in Privilege::ALL {
            let slot = Array::slot(linear, privilege);
            if self.entries[slot].is_for(linear) {
                self.entries[slot] = Entry::NONE;
            }
        }
    }
}

fn large_page(linear: u64, shift: u32) -> u64 {
    linear >> shift << shift | u64::from(shift)
}

fn boxed<T: Copy>(value: T) -> Box<[T; SLOTS]> {
    match vec![value; SLOTS].into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => unreachable!("a slice of SLOTS elements has SLOTS elements"),
    }
}

/// All translations that one processor remembers.
pub(crate) struct Tlb {
    /// For loads.
    pub read: Array,
    /// For stores. Present only when the page's dirty bit is set.
    pub write: Array,
    /// For instruction fetches.
    pub fetch: Array,
    /// Pages larger than 4 KiB of which there may be parts: first address, and in the low bits the size's logarithm.
    large: FxHashSet<u64>,
}

impl Tlb {
    pub fn new() -> Tlb {
        Tlb { read: Array::new(), write: Array::new(), fetch: Array::new(), large: FxHashSet::default() }
    }

    /// Drops everything.
    pub fn flush(&mut self) {
        self.read.clear();
        self.write.clear();
        self.fetch.clear();
        self.large.clear();
    }

    /// Drops everything that is not global.
    pub fn flush_not_global(&mut self) {
        self.read.clear_not_global();
        self.write.clear_not_global();
        self.fetch.clear_not_global();
    }

    /// Drops the translations of the page at `linear`, whatever its size was when they were made.
    pub fn flush_page(&mut self, linear: u64) {
        for array in [&mut self.read, &mut self.write, &mut self.fetch] {
            array.clear_page(linear);
        }
        for shift in LARGE_SHIFTS {
            if self.large.remove(&large_page(linear, shift)) {
                for array in [&mut self.read, &mut self.write, &mut self.fetch] {
                    array.clear_large(linear, shift);
                }
            }
        }
    }

    /// A translation from a page of `1 << shift` bytes is about to be made.
    pub fn note_size(&mut self, linear: u64, shift: u32) {
        if shift == 12 || !self.large.insert(large_page(linear, shift)) {
            return;
        }
        if self.large.len() > MOST_LARGE {
            self.flush();
            self.large.insert(large_page(linear, shift));
        }
    }

    /// Drops all permission to write.
    pub fn forget_writable(&mut self) {
        self.write.clear();
    }

    /// Makes stores to a guest-physical page slow, wherever it is mapped: code was decoded from it.
    pub fn mark_code(&mut self, frame: u64) {
        self.write.mark(frame, CODE);
    }

    /// Makes every access to a guest-physical page slow: it has undecided bytes now.
    pub fn watch(&mut self, frame: u64) {
        for array in [&mut self.read, &mut self.write, &mut self.fetch] {
            array.mark(frame, WATCHED);
        }
    }

    /// Makes stores to a guest-physical page fast again, as far as code is concerned.
    pub fn unmark_code(&mut self, frame: u64) {
        for (entry, &its_frame) in self.write.entries.iter_mut().zip(self.write.frames.iter()) {
            if its_frame == frame && entry.tag & EMPTY == 0 {
                entry.tag &= !CODE;
            }
        }
    }
}
