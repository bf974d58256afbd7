//! Paging outside of long mode: 32-bit paging, and the registers that PAE paging begins with. SDM vol. 3, sections 4.3
//! and 4.4.

use crate::{
    Bus, Cpu, Fault,
    paging::*,
    registers::{CR4_PAE, CR4_PGE, CR4_PSE},
    tlb::Privilege,
};

/// Bits of a 4-MiB page's entry that hold bits 39 to 32 of its address: PSE-36 with 40 bits.
const HIGH_ADDRESS: u64 = 0xff << 13;
/// Reserved in a 4-MiB page's entry.
const LARGE_RESERVED: u64 = 1 << 21;
/// Reserved in a page-directory-pointer-table entry of PAE paging.
const POINTER_RESERVED: u64 = 0x1e6 | !((1 << PHYSICAL_BITS) - 1);

impl<B: Bus> Cpu<B> {
    /// As [`Cpu::translate`] with the two levels of 32-bit paging.
    pub(crate) fn translate_32_bit(
        &mut self,
        bus: &mut B,
        linear: u64,
        access: Access,
        privilege: Privilege,
    ) -> Result<Translation, Fault> {
        let directory_at = (self.state.cr3 & 0xffff_f000) + (linear >> 22 & 0x3ff) * 4;
        let directory = read_32(bus, directory_at)?;
        if directory & PRESENT == 0 {
            return Err(self.page_fault(linear, access, privilege, 0));
        }
        let large = directory & LARGE != 0 && self.state.cr4 & CR4_PSE != 0;
        if large && directory & LARGE_RESERVED != 0 {
            return Err(self.page_fault(linear, access, privilege, 0b1001));
        }
        let (at, leaf, address) = if large {
            let base = directory & 0xffc0_0000 | (directory & HIGH_ADDRESS) << 19;
            (directory_at, directory, base | linear & 0x3f_f000)
        } else {
            let at = (directory & 0xffff_f000) + (linear >> 12 & 0x3ff) * 4;
            let entry = read_32(bus, at)?;
            (at, entry, entry & 0xffff_f000)
        };
        if leaf & PRESENT == 0 {
            return Err(self.page_fault(linear, access, privilege, 0));
        }
        if !self.allowed(access, privilege, directory & leaf, false) {
            return Err(self.page_fault(linear, access, privilege, 1));
        }
        let dirty = if access == Access::Write { DIRTY } else { 0 };
        self.mark_32(bus, at, leaf, ACCESSED | dirty);
        if !large {
            self.mark_32(bus, directory_at, directory, ACCESSED);
        }
        self.tlb.note_size(linear, if large { 22 } else { 12 });
        let global = leaf & GLOBAL != 0 && self.state.cr4 & CR4_PGE != 0;
        Ok(Translation { frame: address >> 12, global })
    }

    fn mark_32(&mut self, bus: &mut B, at: u64, entry: u64, bits: u64) {
        if entry & bits != bits {
            self.store_physical(bus, at, ((entry | bits) as u32).to_le_bytes());
        }
    }

    /// Whether paging with these values of CR0, CR4 and IA32_EFER is PAE paging.
    pub(crate) fn is_pae_paging(cr0: u64, cr4: u64, efer: u64) -> bool {
        use crate::registers::{CR0_PG, EFER_LME};
        cr0 & CR0_PG != 0 && cr4 & CR4_PAE != 0 && efer & EFER_LME == 0
    }

    /// Reads the four page-directory-pointer-table entries that CR3 points at: #GP(0) if a present one has reserved bits
    /// set. The processor keeps them until they are loaded again.
    pub(crate) fn read_page_pointers(&self, bus: &mut B, cr3: u64) -> Result<[u64; 4], Fault> {
        let mut pointers = [0; 4];
        for (n, pointer) in (0..).zip(pointers.iter_mut()) {
            *pointer = u64::from_le_bytes(read_physical(bus, (cr3 & 0xffff_ffe0) + n * 8)?);
            if *pointer & PRESENT != 0 && *pointer & POINTER_RESERVED != 0 {
                return Err(Fault::GP0);
            }
        }
        Ok(pointers)
    }
}

fn read_32<B: Bus>(bus: &mut B, at: u64) -> Result<u64, Fault> {
    Ok(u64::from(u32::from_le_bytes(read_physical(bus, at)?)))
}
