//! From linear to guest-physical addresses: the page walk of SDM vol. 3, chapter 4, for 4-level and PAE paging. 32-bit
//! paging is in `paging_legacy`.

use crate::{
    Bus, Cpu, Fault, Page, StoreKind,
    registers::{CR0_PG, CR0_WP, CR4_PAE, CR4_PGE, CR4_SMAP, CR4_SMEP, EFER_NXE},
    tlb::Privilege,
};

/// What an access wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Fetch,
}

/// Where a linear page lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translation {
    /// Guest-physical page number.
    pub frame: u64,
    /// Survives a load of CR3.
    pub global: bool,
}

/// Physical address width that CPUID leaf 0x80000008 offers.
pub(crate) const PHYSICAL_BITS: u32 = 46;

pub(crate) const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
pub(crate) const ACCESSED: u64 = 1 << 5;
pub(crate) const DIRTY: u64 = 1 << 6;
pub(crate) const LARGE: u64 = 1 << 7;
pub(crate) const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = ((1 << PHYSICAL_BITS) - 1) & !0xfff;
const ABOVE_ADDRESS: u64 = ((1 << 52) - 1) & !((1 << PHYSICAL_BITS) - 1);
/// Software may use these bits of entries in long mode only.
const ABOVE_LEGACY_ADDRESS: u64 = !NO_EXECUTE & !((1 << 52) - 1);

/// Whether bits 63 to 47 of a linear address are equal.
#[inline(always)]
pub(crate) fn is_canonical(linear: u64) -> bool {
    ((linear as i64) << 16 >> 16) as u64 == linear
}

impl<B: Bus> Cpu<B> {
    /// Translates the page of `linear`, checks the rights of `privilege` and sets accessed and dirty bits.
    pub(crate) fn translate(
        &mut self,
        bus: &mut B,
        linear: u64,
        access: Access,
        privilege: Privilege,
    ) -> Result<Translation, Fault> {
        if self.state.cr0 & CR0_PG == 0 {
            return Ok(Translation { frame: (linear & 0xffff_ffff) >> 12, global: false });
        }
        let (first, mut table) = if self.long_mode() {
            (0, self.state.cr3 & ADDRESS)
        } else if self.state.cr4 & CR4_PAE == 0 {
            return self.translate_32_bit(bus, linear, access, privilege);
        } else {
            // The uppermost level of PAE paging is in registers, and has no rights.
            let pointer = self.state.page_pointers[(linear >> 30 & 3) as usize];
            if pointer & PRESENT == 0 {
                return Err(self.page_fault(linear, access, privilege, 0));
            }
            (2, pointer & ADDRESS)
        };
        let mut entries = [(0u64, 0u64); 4];
        let mut rights = WRITABLE | USER;
        let mut no_execute = 0;
        let mut depth = first;
        let leaf = loop {
            let shift = 39 - 9 * depth as u32;
            let at = table + (linear >> shift & 0x1ff) * 8;
            let entry = u64::from_le_bytes(read_physical(bus, at)?);
            entries[depth] = (at, entry);
            if entry & PRESENT == 0 {
                return Err(self.page_fault(linear, access, privilege, 0));
            }
            let is_leaf = depth == 3 || depth > 0 && entry & LARGE != 0;
            if entry & self.reserved(depth, is_leaf) != 0 {
                return Err(self.page_fault(linear, access, privilege, 0b1001));
            }
            rights &= entry;
            no_execute |= entry & NO_EXECUTE;
            if is_leaf {
                break entry;
            }
            table = entry & ADDRESS;
            depth += 1;
        };
        if !self.allowed(access, privilege, rights, no_execute != 0) {
            return Err(self.page_fault(linear, access, privilege, 1));
        }
        for (level, &(at, entry)) in entries[..=depth].iter().enumerate().skip(first) {
            let dirty = if level == depth && access == Access::Write { DIRTY } else { 0 };
            let marked = entry | ACCESSED | dirty;
            if marked != entry {
                self.store_physical(bus, at, marked.to_le_bytes());
            }
        }
        let shift = 39 - 9 * depth as u32;
        self.tlb.note_size(linear, shift);
        let page_mask = (1u64 << shift) - 1;
        let frame = (leaf & ADDRESS & !page_mask | linear & page_mask) >> 12;
        Ok(Translation { frame, global: leaf & GLOBAL != 0 && self.state.cr4 & CR4_PGE != 0 })
    }

    fn reserved(&self, depth: usize, is_leaf: bool) -> u64 {
        let mut reserved = ABOVE_ADDRESS;
        if self.state.efer & EFER_NXE == 0 {
            reserved |= NO_EXECUTE;
        }
        if !self.long_mode() {
            reserved |= ABOVE_LEGACY_ADDRESS;
        }
        reserved
            | match depth {
                0 => LARGE,
                1 if is_leaf => 0x3fff_e000,
                2 if is_leaf => 0x1f_e000,
                _ => 0,
            }
    }

    pub(crate) fn allowed(
        &self,
        access: Access,
        privilege: Privilege,
        rights: u64,
        no_execute: bool,
    ) -> bool {
        let (writable, user_page) = (rights & WRITABLE != 0, rights & USER != 0);
        if privilege.is_user() {
            return user_page
                && (access != Access::Write || writable)
                && (access != Access::Fetch || !no_execute);
        }
        match access {
            Access::Fetch if user_page && self.state.cr4 & CR4_SMEP != 0 => false,
            Access::Fetch => !no_execute,
            _ if user_page && self.state.cr4 & CR4_SMAP != 0 && privilege == Privilege::Supervisor => false,
            Access::Read => true,
            Access::Write => writable || self.state.cr0 & CR0_WP == 0,
        }
    }

    /// Sets CR2 and builds the error code of SDM vol. 3, section 4.7; `cause` is P and RSVD.
    pub(crate) fn page_fault(
        &mut self,
        linear: u64,
        access: Access,
        privilege: Privilege,
        cause: u16,
    ) -> Fault {
        self.state.cr2 = linear;
        let no_execute_offered = self.state.efer & EFER_NXE != 0 && self.state.cr4 & CR4_PAE != 0;
        let fetch_told = no_execute_offered || self.state.cr4 & CR4_SMEP != 0;
        let code = cause
            | ((access == Access::Write) as u16) << 1
            | (privilege.is_user() as u16) << 2
            | ((access == Access::Fetch && fetch_told) as u16) << 4;
        Fault::coded(14, code)
    }

    /// Sets a page-table entry: the walker's own store.
    pub(crate) fn store_physical<const N: usize>(&mut self, bus: &mut B, at: u64, value: [u8; N]) {
        let frame = at >> 12;
        let host = match bus.page(frame) {
            Page::Ram { host } | Page::Pmem { host } => host,
            Page::Device => return,
        };
        self.page_dirtied(bus, frame);
        let offset = entry_offset::<N>(at);
        // SAFETY: `host` points at 4096 valid bytes (contract of `Bus::page`) and `offset` is at most 4096 - N.
        unsafe { host.add(offset).cast::<[u8; N]>().write(value) };
        self.code_written(frame, offset, N);
        if bus.has_undecided(frame) {
            bus.put_origins(at, N, None);
        }
        if let Page::Pmem { .. } = bus.page(frame) {
            self.pmem_stored(bus, at, &value, StoreKind::PageWalk);
        }
    }
}

/// Reads an aligned page-table entry. Tables outside of memory read as not present.
pub(crate) fn read_physical<B: Bus, const N: usize>(bus: &mut B, at: u64) -> Result<[u8; N], Fault> {
    if bus.has_undecided(at >> 12) {
        let entry = at & !(N as u64 - 1);
        if bus.poisoned(entry, N).is_some() {
            return Err(Fault::MC);
        }
        if !bus.consume(entry, N) {
            return Err(Fault::UNDECIDED);
        }
    }
    Ok(match bus.page(at >> 12) {
        // SAFETY: `host` points at 4096 valid bytes (contract of `Bus::page`) and the offset is at most 4096 - N.
        Page::Ram { host } | Page::Pmem { host } => unsafe {
            host.add(entry_offset::<N>(at)).cast::<[u8; N]>().read()
        },
        Page::Device => [0; N],
    })
}

/// Offset in its page of the aligned entry of `N` bytes (a power of two) at `at`.
fn entry_offset<const N: usize>(at: u64) -> usize {
    at as usize & 0xfff & !(N - 1)
}
