//! IRET, and what returns to an outer privilege have in common. SDM vol. 2, IRET and RET.

use iced_x86::Mnemonic;

use crate::{
    Bus, Cpu, Fault, Segment,
    op::Op,
    registers::*,
    segments::{Descriptor, gp},
    stack::legacy_stack_bits,
    state::REG_RIP,
    system::full,
};

/// IRET, IRETD, IRETQ
pub(crate) fn execute<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let size = match full(op)?.mnemonic() {
        Mnemonic::Iret => 2,
        Mnemonic::Iretd => 4,
        _ => 8,
    };
    if cpu.protected() { to_protected(cpu, bus, size) } else { to_real(cpu, bus, size) }
}

fn to_real<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, size: u64) -> Result<(), Fault> {
    let target = cpu.stack_value(bus, 0, size)?;
    let selector = cpu.stack_value(bus, size, size)? as u16;
    let flags = cpu.stack_value(bus, 2 * size, size)?;
    let cs = cpu.state.segments[CS];
    cpu.check_target(&cs, target)?;
    cpu.drain_serialising(bus);
    cpu.move_stack(3 * size);
    cpu.state.regs[REG_RIP] = target;
    cpu.load_real_segment(CS, selector);
    cpu.set_returned_flags(flags, size);
    Ok(())
}

fn to_protected<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, size: u64) -> Result<(), Fault> {
    if cpu.state.rflags & RFLAGS_NT != 0 {
        if !cpu.long_mode() {
            cpu.unsupported = Some("return to another task");
        }
        return Err(Fault::GP0);
    }
    let target = cpu.stack_value(bus, 0, size)?;
    let selector = cpu.stack_value(bus, size, size)? as u16;
    let flags = cpu.stack_value(bus, 2 * size, size)?;
    if !cpu.long_mode() && flags & RFLAGS_VM != 0 && cpu.state.cpl() == 0 {
        cpu.unsupported = Some("return to virtual-8086 mode");
        return Err(Fault::UD);
    }
    let (descriptor, new_cpl) = cpu.return_segment(bus, selector)?;
    let segment = descriptor.segment(selector);
    let was = cpu.state.cpl();
    // 64-bit mode always returns with a stack.
    let outer = if cpu.long_code() || new_cpl > was {
        let rsp = cpu.stack_value(bus, 3 * size, size)?;
        let stack_selector = cpu.stack_value(bus, 4 * size, size)? as u16;
        Some((rsp, cpu.return_stack(bus, stack_selector, new_cpl, &segment)?))
    } else {
        None
    };
    cpu.check_target(&segment, target)?;
    cpu.mark_accessed(bus, descriptor)?;
    cpu.drain_serialising(bus);

    // What may be changed is decided by the privilege that is left.
    cpu.set_returned_flags(flags, size);
    match outer {
        Some((rsp, stack)) => cpu.set_outer_stack(stack, rsp, &segment),
        None => cpu.move_stack(3 * size),
    }
    if new_cpl > was {
        cpu.drop_inner_segments(new_cpl);
    }
    cpu.state.regs[REG_RIP] = target;
    cpu.set_code_segment(segment, new_cpl);
    Ok(())
}

impl<B: Bus> Cpu<B> {
    fn set_returned_flags(&mut self, flags: u64, size: u64) {
        // RF comes from the frame of IRETD and IRETQ, and from nowhere else.
        let mask = self.changeable_flags() | RFLAGS_RF;
        self.set_rflags(flags, if size == 2 { mask & 0xffff } else { mask });
    }

    /// The code segment that a return goes to, and its privilege.
    pub(crate) fn return_segment(&mut self, bus: &mut B, selector: u16) -> Result<(Descriptor, u8), Fault> {
        if selector & !3 == 0 {
            return Err(Fault::GP0);
        }
        let descriptor = self.descriptor(bus, selector)?;
        let (rpl, dpl) = (selector as u8 & 3, descriptor.dpl());
        let matches = if descriptor.has(ACCESS_CONFORMING) { dpl <= rpl } else { dpl == rpl };
        let is_code = descriptor.has(ACCESS_NOT_SYSTEM | ACCESS_CODE);
        if !is_code || rpl < self.state.cpl() || !matches || self.mixes_sizes(descriptor) {
            return Err(gp(selector));
        }
        if !descriptor.has(ACCESS_PRESENT) {
            return Err(Fault::coded(11, selector & !3));
        }
        Ok((descriptor, rpl))
    }

    /// L and D/B both set mean nothing in long mode.
    pub(crate) fn mixes_sizes(&self, descriptor: Descriptor) -> bool {
        self.long_mode() && descriptor.has(ACCESS_LONG | ACCESS_BIG)
    }

    /// The stack segment of a return to `code` at `cpl`. It may be null in 64-bit code of the kernel.
    pub(crate) fn return_stack(
        &mut self,
        bus: &mut B,
        selector: u16,
        cpl: u8,
        code: &Segment,
    ) -> Result<Segment, Fault> {
        let rpl = selector as u8 & 3;
        if selector & !3 == 0 {
            let is_64_bit = self.long_mode() && code.access & ACCESS_LONG != 0;
            return if cpl == 3 || rpl != cpl || !is_64_bit {
                Err(Fault::GP0)
            } else {
                Ok(Segment { selector, access: u16::from(cpl) << 5, ..Segment::default() })
            };
        }
        let descriptor = self.descriptor(bus, selector)?;
        if !descriptor.is_writable_data() || rpl != cpl || descriptor.dpl() != cpl {
            return Err(gp(selector));
        }
        if !descriptor.has(ACCESS_PRESENT) {
            return Err(Fault::coded(12, selector & !3));
        }
        self.mark_accessed(bus, descriptor)?;
        Ok(descriptor.segment(selector))
    }

    /// Loads the stack of a return to `code`. A 16-bit stack takes the low half of ESP only, and the rest stays: what
    /// Linux calls espfix works around that.
    pub(crate) fn set_outer_stack(&mut self, stack: Segment, rsp: u64, code: &Segment) {
        let is_64_bit = self.long_mode() && code.access & ACCESS_LONG != 0;
        let narrow = !is_64_bit && legacy_stack_bits(&stack) == 16;
        let kept = if narrow { self.state.regs[RSP] & !0xffff } else { 0 };
        self.state.segments[SS] = stack;
        self.state.regs[RSP] = kept | if narrow { rsp & 0xffff } else { rsp };
    }

    /// Empties data segment registers that the outer privilege may not use; null selectors lose their RPL, bases stay.
    /// SDM vol. 2, IRET, RETURN-TO-OUTER.
    pub(crate) fn drop_inner_segments(&mut self, cpl: u8) {
        for index in [0, 3, FS, GS] {
            let segment = &mut self.state.segments[index];
            if segment.selector & !3 == 0 {
                segment.selector = 0;
                continue;
            }
            let conforming =
                segment.access & (ACCESS_CODE | ACCESS_CONFORMING) == ACCESS_CODE | ACCESS_CONFORMING;
            let dpl = (segment.access >> 5 & 3) as u8;
            if !conforming && dpl < cpl {
                *segment = Segment::default();
            }
        }
    }
}
