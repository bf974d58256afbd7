//! Guest memory as instructions see it: linear addresses, translated, checked, split at page borders, traced.

use iced_x86::{Instruction, OpKind, Register};

use crate::{
    Bus, Cpu, DrainKind, Fault, Page, StoreKind,
    debug::DataAccess,
    events::granules,
    paging::{Access, is_canonical},
    registers::{FS, GS},
    segments::segment_index,
    state::{REG_RIP, REG_ZERO},
    tlb::{CHECKED, CODE, PMEM, Privilege, WATCHED},
};

/// One page's part of an access, checked and translated.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    Memory {
        /// Host address of the first byte.
        host: *mut u8,
        /// Guest-physical address of the first byte.
        physical: u64,
        /// Slow bits of its translation.
        slow: u64,
    },
    Device {
        physical: u64,
    },
}

impl<B: Bus> Cpu<B> {
    /// Linear address of the (only) memory operand of `i`: segment base included, 32-bit address size honoured.
    /// Works for string operands, too, when asked with the operand's number.
    pub(crate) fn operand_address(&self, i: &Instruction, operand: u32) -> u64 {
        let (offset, segment) = self.operand_place(i, operand);
        self.add_segment_base(offset, segment)
    }

    /// Linear address of an element of `len` bytes of a string instruction's operand, checked outside of 64-bit mode.
    pub(crate) fn element_address(
        &self,
        i: &Instruction,
        operand: u32,
        len: u64,
        writes: bool,
    ) -> Result<u64, Fault> {
        let (offset, segment) = self.operand_place(i, operand);
        if self.fetches_64_bit {
            return Ok(self.add_segment_base(offset, segment));
        }
        self.segment_linear(segment_index(segment), offset, len, writes)
    }

    /// Offset and segment of a memory operand.
    fn operand_place(&self, i: &Instruction, operand: u32) -> (u64, Register) {
        let rsi = self.state.regs[6];
        let rdi = self.state.regs[7];
        match i.op_kind(operand) {
            OpKind::MemorySegSI => (rsi & 0xffff, i.memory_segment()),
            OpKind::MemorySegESI => (rsi & 0xffff_ffff, i.memory_segment()),
            OpKind::MemorySegRSI => (rsi, i.memory_segment()),
            OpKind::MemorySegDI => (rdi & 0xffff, i.memory_segment()),
            OpKind::MemorySegEDI => (rdi & 0xffff_ffff, i.memory_segment()),
            OpKind::MemorySegRDI => (rdi, i.memory_segment()),
            OpKind::MemoryESDI => (rdi & 0xffff, Register::ES),
            OpKind::MemoryESEDI => (rdi & 0xffff_ffff, Register::ES),
            OpKind::MemoryESRDI => (rdi, Register::ES),
            _ => (self.effective_address(i), i.memory_segment()),
        }
    }

    /// The offset that LEA computes: without the segment's base, cut to the address size.
    ///
    /// Blocks are decoded once for every linear address at which their page may be mapped, so that iced's own idea of
    /// RIP means nothing: only the distance to the next instruction counts.
    pub(crate) fn effective_address(&self, i: &Instruction) -> u64 {
        let displacement = i.memory_displacement64();
        let size_mask = match i.memory_base() {
            Register::RIP => {
                return displacement.wrapping_sub(i.next_ip()).wrapping_add(self.state.regs[REG_RIP]);
            }
            Register::EIP => {
                let target = displacement.wrapping_sub(i.next_ip()).wrapping_add(self.state.regs[REG_RIP]);
                return target & 0xffff_ffff;
            }
            base => address_size_mask(i, base),
        };
        let base = self.state.regs[gpr(i.memory_base())];
        let index = self.state.regs[gpr(i.memory_index())];
        let scaled = index.wrapping_mul(u64::from(i.memory_index_scale()));
        base.wrapping_add(scaled).wrapping_add(displacement) & size_mask
    }

    /// Linear address of an offset in a segment, without any check.
    pub(crate) fn add_segment_base(&self, offset: u64, segment: Register) -> u64 {
        if !self.fetches_64_bit {
            let base = self.state.segments[segment_index(segment)].base;
            return offset.wrapping_add(base) & 0xffff_ffff;
        }
        match segment {
            Register::FS => offset.wrapping_add(self.state.segments[FS].base),
            Register::GS => offset.wrapping_add(self.state.segments[GS].base),
            _ => offset,
        }
    }

    /// Where the part of an access from `linear` that lies in the next page begins: outside of 64-bit mode linear
    /// addresses start over at 4 GiB.
    pub(crate) fn next_page(&self, linear: u64) -> u64 {
        let next = (linear & !0xfff).wrapping_add(0x1000);
        if next == 1 << 32 && !self.fetches_64_bit { 0 } else { next }
    }

    /// Reads `N` bytes at a linear address with the current privilege. Faults before anything is visible.
    #[inline(always)]
    pub(crate) fn read<const N: usize>(&mut self, bus: &mut B, linear: u64) -> Result<[u8; N], Fault> {
        if let Some(bytes) = self.read_fast(linear) {
            return Ok(bytes);
        }
        let mut bytes = [0; N];
        self.read_slow(bus, linear, &mut bytes)?;
        Ok(bytes)
    }

    /// As [`Cpu::read`] if nothing stands in the way: the translation is at hand, and it is memory in one page.
    #[inline(always)]
    pub(crate) fn read_fast<const N: usize>(&self, linear: u64) -> Option<[u8; N]> {
        let entry = self.tlb.read.entry(linear, self.privilege);
        // The last byte's page is compared with the first byte's entry: an access across a border never matches,
        // because neighbours have different slots.
        if entry.tag != linear.wrapping_add(N as u64 - 1) & !0xfff {
            return None;
        }
        // SAFETY: an entry without slow bits maps its whole page to host memory that lives as long as the bus.
        Some(unsafe { (linear.wrapping_add(entry.addend) as *const [u8; N]).read() })
    }

    /// Writes `N` bytes at a linear address. Either all bytes are written or none and a fault is returned.
    #[inline(always)]
    pub(crate) fn write<const N: usize>(
        &mut self,
        bus: &mut B,
        linear: u64,
        value: [u8; N],
    ) -> Result<(), Fault> {
        let entry = self.tlb.write.entry(linear, self.privilege);
        if entry.tag == linear.wrapping_add(N as u64 - 1) & !0xfff {
            // SAFETY: as in `read`; entries for writing exist only for pages that the guest may write.
            unsafe { (linear.wrapping_add(entry.addend) as *mut [u8; N]).write(value) };
            return Ok(());
        }
        self.write_value_slow(bus, linear, value)
    }

    /// Takes the value in registers, so that those who call it last need no stack for it.
    #[cold]
    #[inline(never)]
    fn write_value_slow<const N: usize>(
        &mut self,
        bus: &mut B,
        linear: u64,
        value: [u8; N],
    ) -> Result<(), Fault> {
        self.write_slow(bus, linear, &value, StoreKind::Cached)
    }

    /// As [`Cpu::write`] for any length up to 4096, told to the bus as a non-temporal store.
    pub(crate) fn write_non_temporal(&mut self, bus: &mut B, linear: u64, value: &[u8]) -> Result<(), Fault> {
        self.write_slow(bus, linear, value, StoreKind::NonTemporal)
    }

    /// As [`Cpu::write_non_temporal`] for selected bytes of an operand whose alignment has been checked.
    pub(crate) fn write_selected(&mut self, bus: &mut B, linear: u64, value: &[u8]) -> Result<(), Fault> {
        self.write_any(bus, linear, value, StoreKind::NonTemporal)
    }

    /// As [`Cpu::write`] for any length up to 4096, told to the bus as iterations of REP MOVS or REP STOS.
    pub(crate) fn write_rep(
        &mut self,
        bus: &mut B,
        linear: u64,
        bytes: &[u8],
        first: bool,
    ) -> Result<(), Fault> {
        self.write_slow(bus, linear, bytes, StoreKind::CachedRep { first })
    }

    /// Raises now what writing an operand of `len` bytes will raise, setting accessed and dirty bits. The instruction
    /// counts as having written.
    pub(crate) fn check_writable(&mut self, bus: &mut B, linear: u64, len: usize) -> Result<(), Fault> {
        self.probe_writable(bus, linear, len)?;
        self.check_alignment(linear, len)?;
        self.watch_data(linear, len, DataAccess::Write);
        Ok(())
    }

    /// Checks that `len` bytes at a linear address could be written now, setting accessed and dirty bits.
    pub(crate) fn probe_writable(&mut self, bus: &mut B, linear: u64, len: usize) -> Result<(), Fault> {
        let first = bytes_in_page(linear, len);
        if first < len {
            self.check_canonical(self.next_page(linear))?;
        }
        self.write_target(bus, linear)?;
        if first < len {
            self.write_target(bus, self.next_page(linear))?;
        }
        Ok(())
    }

    /// Where the byte at `linear` lies on the host, for writing. Good up to the end of its page and until the next
    /// access. `None` where a store must be seen: devices, persistent memory, pages with decoded code, undecided bytes or
    /// breakpoints.
    pub(crate) fn host_write(&mut self, bus: &mut B, linear: u64) -> Result<Option<*mut u8>, Fault> {
        match self.write_target(bus, linear)? {
            Target::Memory { host, slow: 0, .. } => Ok(Some(host)),
            _ => Ok(None),
        }
    }

    /// Whether instructions were decoded from near these bytes, which lie in one page that may be written: a store there
    /// must end its instruction's work, so that an instruction written over is fetched anew.
    pub(crate) fn has_decoded_code(&self, linear: u64, len: usize) -> bool {
        let frame = self.tlb.write.frame(linear, self.privilege);
        let decoded = self.code_pages.get(&frame).copied().unwrap_or(0);
        decoded & granules((linear & 0xfff) as usize, len) != 0
    }

    /// Guest-physical address of the byte at `linear`, checked as for a load.
    pub(crate) fn physical_for_load(&mut self, bus: &mut B, linear: u64) -> Result<u64, Fault> {
        match self.read_target(bus, linear)? {
            Target::Memory { physical, .. } | Target::Device { physical } => Ok(physical),
        }
    }

    /// Tells the drain of a LOCK-prefixed instruction or XCHG with memory: call it after all checks and before the
    /// instruction's own store.
    #[inline(always)]
    pub(crate) fn locked(&mut self, bus: &mut B) {
        if self.state.drain_pending {
            self.drain(bus, DrainKind::Locked);
        }
    }

    /// Reads any number of bytes up to 4096. That a part of them is not canonical comes before any page fault.
    #[cold]
    #[inline(never)]
    pub(crate) fn read_slow(&mut self, bus: &mut B, linear: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let (head, tail) = bytes.split_at_mut(bytes_in_page(linear, bytes.len()));
        if !tail.is_empty() {
            self.check_canonical(self.next_page(linear))?;
        }
        let first = self.read_target(bus, linear)?;
        if tail.is_empty() {
            self.check_alignment(linear, head.len())?;
            self.consume(bus, [(first, head.len()), (first, 0)])?;
            self.watch_data(linear, head.len(), DataAccess::Read);
            self.load(bus, first, head);
            return Ok(());
        }
        let second = self.read_target(bus, self.next_page(linear))?;
        self.check_alignment(linear, head.len() + tail.len())?;
        self.consume(bus, [(first, head.len()), (second, tail.len())])?;
        self.watch_data(linear, head.len() + tail.len(), DataAccess::Read);
        self.load(bus, first, head);
        self.load(bus, second, tail);
        Ok(())
    }

    /// Writes any number of bytes up to 4096.
    #[cold]
    #[inline(never)]
    pub(crate) fn write_slow(
        &mut self,
        bus: &mut B,
        linear: u64,
        bytes: &[u8],
        kind: StoreKind,
    ) -> Result<(), Fault> {
        if self.privilege == Privilege::UserAligned {
            self.check_writable(bus, linear, bytes.len())?;
        }
        self.write_any(bus, linear, bytes, kind)
    }

    /// Writes at any alignment.
    fn write_any(&mut self, bus: &mut B, linear: u64, bytes: &[u8], kind: StoreKind) -> Result<(), Fault> {
        let (head, tail) = bytes.split_at(bytes_in_page(linear, bytes.len()));
        if !tail.is_empty() {
            self.check_canonical(self.next_page(linear))?;
        }
        let first = self.write_target(bus, linear)?;
        if tail.is_empty() {
            self.watch_data(linear, bytes.len(), DataAccess::Write);
            self.store(bus, first, head, kind);
            return Ok(());
        }
        let second = self.write_target(bus, self.next_page(linear))?;
        self.watch_data(linear, bytes.len(), DataAccess::Write);
        self.store(bus, first, head, kind);
        let kind =
            if let StoreKind::CachedRep { .. } = kind { StoreKind::CachedRep { first: false } } else { kind };
        self.store(bus, second, tail, kind);
        Ok(())
    }

    pub(crate) fn read_target(&mut self, bus: &mut B, linear: u64) -> Result<Target, Fault> {
        let entry = self.tlb.read.entry(linear, self.privilege);
        let frame = if entry.is_for(linear) {
            let frame = self.tlb.read.frame(linear, self.privilege);
            let host = linear.wrapping_add(entry.addend) as *mut u8;
            let mut slow = entry.tag & (CHECKED | WATCHED);
            if slow & WATCHED != 0 && !bus.has_undecided(frame) {
                self.tlb.read.unwatch(linear, self.privilege);
                slow &= !WATCHED;
            }
            return Ok(Target::Memory { host, physical: frame << 12 | linear & 0xfff, slow });
        } else {
            self.check_canonical(linear)?;
            self.translate(bus, linear, Access::Read, self.privilege)?
        };
        let physical = frame.frame << 12 | linear & 0xfff;
        match bus.page(frame.frame) {
            Page::Ram { host } | Page::Pmem { host } => {
                let slow = self.checked(linear) | watched(bus, frame.frame);
                self.tlb.read.fill(linear, self.privilege, frame.frame, host as u64, slow, frame.global);
                Ok(Target::Memory { host: host.wrapping_add((linear & 0xfff) as usize), physical, slow })
            }
            Page::Device => Ok(Target::Device { physical }),
        }
    }

    pub(crate) fn write_target(&mut self, bus: &mut B, linear: u64) -> Result<Target, Fault> {
        let entry = self.tlb.write.entry(linear, self.privilege);
        if entry.is_for(linear) {
            let frame = self.tlb.write.frame(linear, self.privilege);
            let host = linear.wrapping_add(entry.addend) as *mut u8;
            let mut slow = entry.tag & (PMEM | CODE | CHECKED | WATCHED);
            if slow & WATCHED != 0 && !bus.has_undecided(frame) {
                self.tlb.write.unwatch(linear, self.privilege);
                slow &= !WATCHED;
            }
            return Ok(Target::Memory { host, physical: frame << 12 | linear & 0xfff, slow });
        }
        self.check_canonical(linear)?;
        let translation = self.translate(bus, linear, Access::Write, self.privilege)?;
        let frame = translation.frame;
        let physical = frame << 12 | linear & 0xfff;
        let (host, pmem) = match bus.page(frame) {
            Page::Ram { host } => (host, 0),
            Page::Pmem { host } => (host, PMEM),
            Page::Device => return Ok(Target::Device { physical }),
        };
        self.page_dirtied(bus, frame);
        let code = if self.code_pages.contains_key(&frame) { CODE } else { 0 };
        let slow = pmem | code | self.checked(linear) | watched(bus, frame);
        self.tlb.write.fill(linear, self.privilege, frame, host as u64, slow, translation.global);
        Ok(Target::Memory { host: host.wrapping_add((linear & 0xfff) as usize), physical, slow })
    }

    /// Tells the bus before a page changes, once until [`Cpu::forget_writable`].
    pub(crate) fn page_dirtied(&mut self, bus: &mut B, frame: u64) {
        if self.dirtied.insert(frame) {
            bus.page_dirtied(frame);
        }
    }

    /// The slow bit of a translation whose accesses must all be looked at.
    fn checked(&self, linear: u64) -> u64 {
        let checked = self.privilege == Privilege::UserAligned || self.state.watches_page(linear);
        if checked { CHECKED } else { 0 }
    }

    /// Raises #AC if an operand of `len` bytes must be aligned and is not. Where an access could raise #PF as well,
    /// that comes first: SDM vol. 3, table 6-2.
    pub(crate) fn check_alignment(&self, linear: u64, len: usize) -> Result<(), Fault> {
        if self.privilege == Privilege::UserAligned && !linear.is_multiple_of(alignment(len)) {
            return Err(Fault::AC);
        }
        Ok(())
    }

    /// The fault of FXSAVE's area at `linear`, which is not aligned. That the address is not canonical counts more;
    /// for SSE's operands it counts less.
    pub(crate) fn misaligned(&mut self, linear: u64) -> Fault {
        self.check_canonical(linear).err().unwrap_or(Fault::GP0)
    }

    pub(crate) fn check_canonical(&mut self, linear: u64) -> Result<(), Fault> {
        if self.long_mode() && !is_canonical(linear) {
            // The run loop makes it #SS when the operand's segment is the stack's.
            self.not_canonical = true;
            return Err(Fault::GP0);
        }
        Ok(())
    }

    pub(crate) fn load(&mut self, bus: &mut B, target: Target, bytes: &mut [u8]) {
        match target {
            // SAFETY: `host` and what follows it to the end of its page is valid memory (contract of `Bus::page`),
            // the caller split `bytes` at the page's end, and `bytes` is ours alone.
            Target::Memory { host, .. } => unsafe {
                std::ptr::copy_nonoverlapping(host, bytes.as_mut_ptr(), bytes.len());
            },
            Target::Device { physical } => self.load_device(bus, physical, bytes),
        }
    }

    fn store(&mut self, bus: &mut B, target: Target, bytes: &[u8], kind: StoreKind) {
        match target {
            Target::Memory { host, physical, slow } => {
                // SAFETY: as in `load`; the page is one that the guest may write.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), host, bytes.len()) };
                if slow & CODE != 0 {
                    self.code_written(physical >> 12, (physical & 0xfff) as usize, bytes.len());
                }
                if slow & WATCHED != 0 {
                    bus.put_origins(physical, bytes.len(), None);
                }
                if slow & PMEM != 0 {
                    self.pmem_stored(bus, physical, bytes, kind);
                }
            }
            Target::Device { physical } => self.store_device(bus, physical, bytes),
        }
    }

    /// Tells the bus of a store to persistent memory that has just been made.
    pub(crate) fn pmem_stored(&mut self, bus: &mut B, physical: u64, bytes: &[u8], kind: StoreKind) {
        if kind == StoreKind::NonTemporal || self.store_buffer_told && kind != StoreKind::PageWalk {
            self.state.drain_pending = true;
        }
        let view = self.view();
        bus.pmem_store(&view, physical, bytes, kind);
        self.look_for_attention(bus);
    }

    fn load_device(&mut self, bus: &mut B, physical: u64, bytes: &mut [u8]) {
        self.drain_uncached(bus);
        let view = self.view();
        let mut at = 0;
        while at < bytes.len() {
            let size = device_access_size(bytes.len() - at);
            let value = bus.mmio_read(&view, physical + at as u64, size);
            bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
            at += size;
        }
        self.device_accessed();
    }

    fn store_device(&mut self, bus: &mut B, physical: u64, bytes: &[u8]) {
        self.drain_uncached(bus);
        let view = self.view();
        let mut at = 0;
        while at < bytes.len() {
            let size = device_access_size(bytes.len() - at);
            let mut value = [0; 8];
            value[..size].copy_from_slice(&bytes[at..at + size]);
            bus.mmio_write(&view, physical + at as u64, size, u64::from_le_bytes(value));
            at += size;
        }
        self.device_accessed();
    }
}

/// The slow bit of a page with undecided bytes.
pub(crate) fn watched<B: Bus>(bus: &B, frame: u64) -> u64 {
    if bus.has_undecided(frame) { WATCHED } else { 0 }
}

/// How many of `len` bytes from `linear` lie in its page.
pub(crate) fn bytes_in_page(linear: u64, len: usize) -> usize {
    len.min(0x1000 - (linear & 0xfff) as usize)
}

/// What an operand's address must be a multiple of when alignment is checked: SDM vol. 3, table 6-7. Operands of
/// each size have one kind: 6 and 10 bytes are table registers and 80-bit numbers; the others the x87 environment and
/// state, by operand size. FXSAVE has an alignment of its own.
fn alignment(len: usize) -> u64 {
    match len {
        2 | 14 | 94 => 2,
        4 | 6 | 28 | 108 => 4,
        8 | 10 => 8,
        16 => 16,
        _ => 1,
    }
}

/// The largest piece, 8 bytes or less, that a device sees of an access with `left` bytes to go. Pieces of a power of
/// two in size need not be aligned: an unaligned register access is one access.
fn device_access_size(left: usize) -> usize {
    match left {
        8.. => 8,
        4..8 => 4,
        2..4 => 2,
        _ => 1,
    }
}

/// Register number of a 64-, 32- or 16-bit general register in an address; none is the register that is always 0.
fn gpr(register: Register) -> usize {
    if register.is_gpr() { register.number() } else { REG_ZERO }
}

fn address_size_mask(i: &Instruction, base: Register) -> u64 {
    let register = if base == Register::None { i.memory_index() } else { base };
    let size = match register {
        Register::None => i.memory_displ_size() as usize,
        register => register.size(),
    };
    match size {
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}
