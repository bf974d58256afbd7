//! The task-state segment as the place of stacks for inner privileges. SDM vol. 3, section 7.2. Switching tasks is not
//! offered.

use crate::{
    Bus, Cpu, Fault,
    paging::is_canonical,
    registers::*,
    segments::Descriptor,
    stack::{Stack, legacy_stack_bits},
    tlb::Privilege,
};

impl<B: Bus> Cpu<B> {
    /// The stack of privilege `cpl` outside of long mode, from a 16-bit or 32-bit TSS. `external` is the EXT bit of
    /// error codes.
    pub(crate) fn inner_stack(&mut self, bus: &mut B, cpl: u8, external: u16) -> Result<Stack, Fault> {
        let (pointer, selector) = self.inner_stack_pointer(bus, cpl, external)?;
        let invalid = |selector: u16| Fault::coded(10, selector & !3 | external);
        if selector & !3 == 0 {
            return Err(invalid(0));
        }
        let descriptor = self.descriptor(bus, selector).map_err(|fault| match fault.vector() {
            13 => invalid(selector),
            _ => fault,
        })?;
        if !descriptor.is_writable_data() || selector as u8 & 3 != cpl || descriptor.dpl() != cpl {
            return Err(invalid(selector));
        }
        if !descriptor.has(ACCESS_PRESENT) {
            return Err(Fault::coded(12, selector & !3 | external));
        }
        self.mark_accessed(bus, descriptor)?;
        let segment = descriptor.segment(selector);
        let bits = legacy_stack_bits(&segment);
        let outside = Fault::coded(12, selector & !3 | external);
        let pointer = if bits == 16 { pointer & 0xffff } else { pointer };
        Ok(Stack { segment, bits, pointer, privilege: Privilege::Supervisor, outside })
    }

    fn inner_stack_pointer(&mut self, bus: &mut B, cpl: u8, external: u16) -> Result<(u64, u16), Fault> {
        let tr = self.state.tr;
        // Types 1 and 3 are 16-bit task-state segments.
        let wide = tr.access & 8 != 0;
        let (offset, size) = if wide { (4 + u32::from(cpl) * 8, 6) } else { (2 + u32::from(cpl) * 4, 4) };
        if offset + size - 1 > tr.limit {
            return Err(Fault::coded(10, tr.selector & !3 | external));
        }
        let at = tr.base.wrapping_add(u64::from(offset));
        let bytes: [u8; 4] = self.read_system(bus, at)?;
        if wide {
            let selector = u16::from_le_bytes(self.read_system(bus, at.wrapping_add(4))?);
            Ok((u64::from(u32::from_le_bytes(bytes)), selector))
        } else {
            let pointer = u16::from_le_bytes([bytes[0], bytes[1]]);
            Ok((u64::from(pointer), u16::from_le_bytes([bytes[2], bytes[3]])))
        }
    }

    /// The stack of privilege `cpl` in long mode, where the TSS holds 64-bit pointers: the one of `ist`, or the
    /// privilege's own if that is 0. The stack segment becomes a null one.
    pub(crate) fn long_inner_stack(
        &mut self,
        bus: &mut B,
        ist: u8,
        cpl: u8,
        external: u16,
    ) -> Result<u64, Fault> {
        let offset = match ist {
            0 => 4 + u32::from(cpl) * 8,
            _ => 0x24 + u32::from(ist - 1) * 8,
        };
        if offset + 7 > self.state.tr.limit {
            return Err(Fault::coded(10, self.state.tr.selector & !3 | external));
        }
        let at = self.state.tr.base.wrapping_add(u64::from(offset));
        let rsp = u64::from_le_bytes(self.read_system(bus, at)?);
        if !is_canonical(rsp) {
            return Err(Fault::coded(12, external));
        }
        Ok(rsp)
    }
}

impl Descriptor {
    /// Whether it may be a stack segment.
    pub(crate) fn is_writable_data(self) -> bool {
        self.has(ACCESS_NOT_SYSTEM | ACCESS_READABLE_OR_WRITABLE) && !self.has(ACCESS_CODE)
    }
}
