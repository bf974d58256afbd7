//! Segment registers and descriptors. SDM vol. 3, chapters 3 and 5.

use iced_x86::{CodeSize, Instruction, OpKind, Register};

use crate::{
    Bus, Cpu, Fault, Segment, op::Op, paging::is_canonical, registers::*, state::REG_ZERO, tlb::Privilege,
};

/// A general protection fault about a selector.
pub(crate) fn gp(selector: u16) -> Fault {
    Fault::coded(13, selector & !3)
}

/// A descriptor as it stands in a table, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub raw: u64,
    /// Linear address of its first byte.
    pub at: u64,
}

impl Descriptor {
    pub fn access(self) -> u16 {
        (self.raw >> 40) as u16 & 0xf0ff
    }

    pub fn dpl(self) -> u8 {
        (self.access() >> 5 & 3) as u8
    }

    pub fn has(self, bits: u16) -> bool {
        self.access() & bits == bits
    }

    pub fn base(self) -> u64 {
        self.raw >> 16 & 0xff_ffff | self.raw >> 56 << 24
    }

    pub fn limit(self) -> u32 {
        let limit = (self.raw & 0xffff | self.raw >> 32 & 0xf_0000) as u32;
        if self.has(ACCESS_GRANULAR) { limit << 12 | 0xfff } else { limit }
    }

    /// The segment register's content after loading `selector`.
    pub fn segment(self, selector: u16) -> Segment {
        Segment {
            selector,
            base: self.base(),
            limit: self.limit(),
            access: self.access() | if self.has(ACCESS_NOT_SYSTEM) { ACCESS_ACCESSED } else { 0 },
        }
    }
}

impl<B: Bus> Cpu<B> {
    /// Runs `access` with the rights of an implicit supervisor access, whatever CPL and RFLAGS.AC are.
    pub(crate) fn as_supervisor<T>(&mut self, access: impl FnOnce(&mut Self) -> T) -> T {
        let privilege = std::mem::replace(&mut self.privilege, Privilege::Supervisor);
        let result = access(self);
        self.privilege = privilege;
        result
    }

    /// Reads from a descriptor table or TSS.
    pub(crate) fn read_system<const N: usize>(&mut self, bus: &mut B, linear: u64) -> Result<[u8; N], Fault> {
        self.as_supervisor(|cpu| cpu.read(bus, linear))
    }

    /// Base and limit of the table that a selector points into.
    pub(crate) fn descriptor_table(&self, selector: u16) -> Result<(u64, u32), Fault> {
        if selector & 4 == 0 {
            return Ok((self.state.gdtr.base, u32::from(self.state.gdtr.limit)));
        }
        if self.state.ldtr.selector & !3 == 0 {
            return Err(gp(selector));
        }
        Ok((self.state.ldtr.base, self.state.ldtr.limit))
    }

    /// The descriptor that a selector which is not null names.
    pub(crate) fn descriptor(&mut self, bus: &mut B, selector: u16) -> Result<Descriptor, Fault> {
        let (base, limit) = self.descriptor_table(selector)?;
        let offset = u32::from(selector & !7);
        if offset + 7 > limit {
            return Err(gp(selector));
        }
        let at = base.wrapping_add(u64::from(offset));
        let raw = u64::from_le_bytes(self.read_system(bus, at)?);
        Ok(Descriptor { raw, at })
    }

    /// Upper half of a 16-byte system descriptor's base; 0 outside of long mode.
    pub(crate) fn upper_base(&mut self, bus: &mut B, descriptor: Descriptor) -> Result<u64, Fault> {
        if !self.long_mode() {
            return Ok(0);
        }
        let upper = u32::from_le_bytes(self.read_system(bus, descriptor.at.wrapping_add(8))?);
        Ok(u64::from(upper) << 32)
    }

    /// Sets a descriptor's accessed bit, if it is not set.
    pub(crate) fn mark_accessed(&mut self, bus: &mut B, descriptor: Descriptor) -> Result<(), Fault> {
        if descriptor.has(ACCESS_ACCESSED) {
            return Ok(());
        }
        let byte = (descriptor.raw >> 40) as u8 | ACCESS_ACCESSED as u8;
        self.as_supervisor(|cpu| cpu.write(bus, descriptor.at.wrapping_add(5), [byte]))
    }

    /// Linear address of `len` bytes at `offset` in a segment. Outside of 64-bit mode limit and rights are checked:
    /// #SS(0) for the stack segment, #GP(0) for the others.
    pub(crate) fn segment_linear(
        &self,
        index: usize,
        offset: u64,
        len: u64,
        writes: bool,
    ) -> Result<u64, Fault> {
        let segment = &self.state.segments[index];
        if self.fetches_64_bit {
            return Ok(if matches!(index, FS | GS) { offset.wrapping_add(segment.base) } else { offset });
        }
        if !is_roomy(segment) {
            self.check_segment(index, offset, len, writes)?;
        }
        Ok(offset.wrapping_add(segment.base) & 0xffff_ffff)
    }

    /// As [`Cpu::segment_linear`] for code outside of 64-bit mode, without the address.
    #[inline(never)]
    pub(crate) fn check_segment(
        &self,
        index: usize,
        offset: u64,
        len: u64,
        writes: bool,
    ) -> Result<(), Fault> {
        let segment = &self.state.segments[index];
        let allowed = !self.protected() || has_right(segment, writes);
        if allowed && fits(segment, offset, len) {
            return Ok(());
        }
        Err(if index == SS { Fault::SS0 } else { Fault::GP0 })
    }

    /// MOV or POP to a segment register other than CS.
    pub(crate) fn load_segment(&mut self, bus: &mut B, index: usize, selector: u16) -> Result<(), Fault> {
        if !self.protected() {
            self.load_real_segment(index, selector);
            return Ok(());
        }
        let segment = if selector & !3 == 0 {
            self.null_segment(index, selector)?
        } else {
            self.checked_data_segment(bus, index, selector)?
        };
        self.state.segments[index] = segment;
        Ok(())
    }

    /// Any segment register in real mode: limit and size stay what they were. SDM vol. 3, 21.1.1.
    pub(crate) fn load_real_segment(&mut self, index: usize, selector: u16) {
        let segment = &mut self.state.segments[index];
        let kind = if index == CS { 0x9b } else { 0x93 };
        segment.selector = selector;
        segment.base = u64::from(selector) << 4;
        segment.access = segment.access & (ACCESS_BIG | ACCESS_GRANULAR) | kind;
    }

    fn null_segment(&self, index: usize, selector: u16) -> Result<Segment, Fault> {
        let cpl = self.state.cpl();
        if index == SS && !(self.long_code() && cpl < 3 && selector as u8 & 3 == cpl) {
            return Err(Fault::GP0);
        }
        // The DPL of the stack segment is the CPL.
        let access = if index == SS { u16::from(cpl) << 5 } else { 0 };
        Ok(Segment { selector, access, ..Segment::default() })
    }

    fn checked_data_segment(&mut self, bus: &mut B, index: usize, selector: u16) -> Result<Segment, Fault> {
        let descriptor = self.descriptor(bus, selector)?;
        let (cpl, rpl, dpl) = (self.state.cpl(), selector as u8 & 3, descriptor.dpl());
        let writable =
            descriptor.has(ACCESS_NOT_SYSTEM | ACCESS_READABLE_OR_WRITABLE) && !descriptor.has(ACCESS_CODE);
        let missing = if index == SS {
            if !writable || rpl != cpl || dpl != cpl {
                return Err(gp(selector));
            }
            Fault::coded(12, selector & !3)
        } else {
            let readable = descriptor.has(ACCESS_NOT_SYSTEM)
                && (!descriptor.has(ACCESS_CODE) || descriptor.has(ACCESS_READABLE_OR_WRITABLE));
            let conforming = descriptor.has(ACCESS_CODE | ACCESS_CONFORMING);
            if !readable || !conforming && (rpl > dpl || cpl > dpl) {
                return Err(gp(selector));
            }
            Fault::coded(11, selector & !3)
        };
        if !descriptor.has(ACCESS_PRESENT) {
            return Err(missing);
        }
        self.mark_accessed(bus, descriptor)?;
        Ok(descriptor.segment(selector))
    }

    /// Makes a checked code segment the current one, at privilege `cpl`.
    pub(crate) fn set_code_segment(&mut self, mut segment: Segment, cpl: u8) {
        segment.selector = segment.selector & !3 | u16::from(cpl);
        self.state.segments[CS] = segment;
        self.privilege_changed();
        self.boundary = true;
    }

    /// Refuses an address outside of the canonical halves.
    pub(crate) fn check_code_address(&self, target: u64) -> Result<(), Fault> {
        if self.long_mode() && !is_canonical(target) { Err(Fault::GP0) } else { Ok(()) }
    }

    /// Refuses a jump out of the code segment that it is to: beyond its limit, or outside of the canonical halves where
    /// it is a 64-bit one.
    pub(crate) fn check_target(&self, segment: &Segment, target: u64) -> Result<(), Fault> {
        let inside = if self.long_mode() && segment.access & ACCESS_LONG != 0 {
            is_canonical(target)
        } else {
            target <= u64::from(segment.limit)
        };
        if inside { Ok(()) } else { Err(Fault::GP0) }
    }
}

/// Whether every access through this segment is allowed: a writable data segment of 4 GiB.
#[inline(always)]
pub(crate) fn is_roomy(segment: &Segment) -> bool {
    const WRITABLE_DATA: u16 = ACCESS_PRESENT | ACCESS_NOT_SYSTEM | ACCESS_READABLE_OR_WRITABLE;
    let kind = segment.access & (WRITABLE_DATA | ACCESS_CODE | ACCESS_EXPAND_DOWN);
    segment.limit == u32::MAX && kind == WRITABLE_DATA
}

/// Whether the type of a segment allows to write or, else, to read.
fn has_right(segment: &Segment, writes: bool) -> bool {
    let is_code = segment.access & ACCESS_CODE != 0;
    let marked = segment.access & ACCESS_READABLE_OR_WRITABLE != 0;
    let right = if writes { !is_code && marked } else { !is_code || marked };
    const USABLE: u16 = ACCESS_PRESENT | ACCESS_NOT_SYSTEM;
    segment.access & USABLE == USABLE && right
}

/// Whether `len` bytes (at least 1) at `offset` lie within a segment's limit.
pub(crate) fn fits(segment: &Segment, offset: u64, len: u64) -> bool {
    let last = offset + len - 1;
    let limit = u64::from(segment.limit);
    if segment.access & (ACCESS_CODE | ACCESS_EXPAND_DOWN) == ACCESS_EXPAND_DOWN {
        let top = if segment.access & ACCESS_BIG != 0 { 0xffff_ffff } else { 0xffff };
        offset > limit && last <= top
    } else {
        last <= limit
    }
}

/// Number in `State::segments` of a segment register.
pub(crate) fn segment_index(register: Register) -> usize {
    match register {
        Register::ES => 0,
        Register::CS => 1,
        Register::SS => 2,
        Register::DS => 3,
        Register::FS => 4,
        _ => 5,
    }
}

/// Segment of the memory operand: 64-bit mode ignores prefixes that name ES, CS, SS or DS.
fn segment_in_effect(i: &Instruction) -> Register {
    let ignored = matches!(i.segment_prefix(), Register::ES | Register::CS | Register::SS | Register::DS);
    if i.code_size() != CodeSize::Code64 || !ignored {
        return i.memory_segment();
    }
    match i.memory_base() {
        Register::RSP | Register::ESP | Register::RBP | Register::EBP => Register::SS,
        _ => Register::DS,
    }
}

/// Whether an instruction's memory access goes through SS: decides between #GP and #SS.
pub(crate) fn uses_stack_segment<B: Bus>(op: &Op<B>) -> bool {
    let none = REG_ZERO as u8;
    match &op.full {
        Some(i) => {
            let explicit = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
            !explicit && i.is_stack_instruction() || explicit && segment_in_effect(i) == Register::SS
        }
        // A specialised handler without a memory operand can only have touched the stack.
        None if op.mem.base == none && op.mem.index == none => op.mem.segment.is_none(),
        None => op.mem.segment.is_none() && matches!(op.mem.base, 4 | 5),
    }
}
