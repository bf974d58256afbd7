//! Transfers between code segments and privileges: far jumps, calls and returns, IRET, SYSCALL, SYSRET, INT.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use crate::{
    Bus, Cpu, Fault, Segment,
    op::Op,
    paging::is_canonical,
    registers::*,
    segments::{Descriptor, gp},
    state::REG_RIP,
    system::full,
};

/// INT n, INT3, INTO
pub(crate) fn interrupt<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let vector = match i.mnemonic() {
        Mnemonic::Int3 => 3,
        Mnemonic::Into if cpu.rflags() & 1 << 11 == 0 => return Ok(()),
        Mnemonic::Into => 4,
        _ => i.immediate8(),
    };
    cpu.software_interrupt(bus, vector)
}

/// INT1
pub(crate) fn debug_interrupt<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, _: &Op<B>) -> Result<(), Fault> {
    cpu.debug_interrupt(bus)
}

/// SYSCALL
pub(crate) fn syscall<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    if cpu.state.efer & EFER_SCE == 0 || !cpu.long_code() {
        return Err(Fault::UD);
    }
    let flags = cpu.rflags() & !RFLAGS_RF;
    cpu.state.regs[1] = cpu.state.regs[REG_RIP];
    cpu.state.regs[11] = flags;
    cpu.state.regs[REG_RIP] = cpu.state.lstar;
    let selector = (cpu.state.star >> 32) as u16 & !3;
    cpu.state.segments[CS] = flat_code(selector, 0);
    cpu.state.segments[SS] = flat_data(selector.wrapping_add(8), 0);
    cpu.set_rflags(flags & !cpu.state.fmask, !0);
    Ok(())
}

/// SYSRET to 64-bit code
pub(crate) fn sysret<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    if cpu.state.efer & EFER_SCE == 0 || !cpu.long_code() {
        return Err(Fault::UD);
    }
    cpu.require_cpl0()?;
    if full(op)?.mnemonic() != Mnemonic::Sysretq {
        cpu.unsupported = Some("SYSRET to compatibility mode");
        return Err(Fault::UD);
    }
    let target = cpu.state.regs[1];
    if !is_canonical(target) {
        return Err(Fault::GP0);
    }
    let selector = (cpu.state.star >> 48) as u16;
    cpu.state.segments[CS] = flat_code(selector.wrapping_add(16) | 3, 3);
    cpu.state.segments[SS] = flat_data(selector.wrapping_add(8) | 3, 3);
    cpu.state.regs[REG_RIP] = target;
    cpu.set_rflags(cpu.state.regs[11] & 0x3c_7fd7, !0);
    Ok(())
}

fn flat_code(selector: u16, dpl: u16) -> Segment {
    Segment { selector, base: 0, limit: u32::MAX, access: 0xa09b | dpl << 5 }
}

fn flat_data(selector: u16, dpl: u16) -> Segment {
    Segment { selector, base: 0, limit: u32::MAX, access: 0xc093 | dpl << 5 }
}

/// JMP to another code segment
pub(crate) fn far_jump<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let (selector, target) = far_target(cpu, bus, i)?;
    let segment = target_segment(cpu, bus, selector)?;
    cpu.check_code_address(target)?;
    cpu.state.regs[REG_RIP] = target;
    let cpl = cpu.state.cpl();
    cpu.set_code_segment(segment, cpl);
    Ok(())
}

/// CALL to another code segment of the same privilege
pub(crate) fn far_call<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let (selector, target) = far_target(cpu, bus, i)?;
    let segment = target_segment(cpu, bus, selector)?;
    cpu.check_code_address(target)?;
    let size = far_size(i);
    cpu.check_writable(bus, cpu.stack_address((2 * size).wrapping_neg()), 2 * size as usize)?;
    let (old_selector, return_to) = (cpu.state.segments[CS].selector, cpu.state.regs[REG_RIP]);
    cpu.push_value(bus, u64::from(old_selector), size)?;
    cpu.push_value(bus, return_to, size)?;
    cpu.state.regs[REG_RIP] = target;
    let cpl = cpu.state.cpl();
    cpu.set_code_segment(segment, cpl);
    Ok(())
}

/// RETF to the same or an outer privilege
pub(crate) fn far_return<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let size = far_size(i);
    let released =
        if i.op_count() > 0 && i.op0_kind() == OpKind::Immediate16 { u64::from(i.immediate16()) } else { 0 };
    let target = cpu.stack_value(bus, 0, size)?;
    let selector = cpu.stack_value(bus, 1, size)? as u16;
    let (descriptor, new_cpl) = return_segment(cpu, bus, selector)?;
    cpu.check_code_address(target)?;
    if new_cpl == cpu.state.cpl() {
        cpu.move_stack(2 * size + released);
    } else {
        let outer = |n| n + released / size;
        let rsp = cpu.stack_value(bus, outer(2), size)?;
        let stack_selector = cpu.stack_value(bus, outer(3), size)? as u16;
        let stack = return_stack(cpu, bus, stack_selector, new_cpl)?;
        cpu.state.segments[SS] = stack;
        cpu.state.regs[RSP] = rsp.wrapping_add(released);
        cpu.drop_inner_segments(new_cpl);
    }
    cpu.mark_accessed(bus, descriptor)?;
    cpu.state.regs[REG_RIP] = target;
    cpu.set_code_segment(descriptor.segment(selector), new_cpl);
    Ok(())
}

/// IRET, IRETD, IRETQ in long mode
pub(crate) fn interrupt_return<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let size = match full(op)?.mnemonic() {
        Mnemonic::Iret => 2,
        Mnemonic::Iretd => 4,
        _ => 8,
    };
    if !cpu.long_code() {
        cpu.unsupported = Some("IRET outside of 64-bit mode");
        return Err(Fault::UD);
    }
    if cpu.state.rflags & RFLAGS_NT != 0 {
        return Err(Fault::GP0);
    }
    let target = cpu.stack_value(bus, 0, size)?;
    let selector = cpu.stack_value(bus, 1, size)? as u16;
    let flags = cpu.stack_value(bus, 2, size)?;
    let rsp = cpu.stack_value(bus, 3, size)?;
    let stack_selector = cpu.stack_value(bus, 4, size)? as u16;

    let (descriptor, new_cpl) = return_segment(cpu, bus, selector)?;
    if !descriptor.has(ACCESS_LONG) {
        cpu.unsupported = Some("return to compatibility mode");
        return Err(Fault::UD);
    }
    if !is_canonical(target) {
        return Err(Fault::GP0);
    }
    let stack = return_stack(cpu, bus, stack_selector, new_cpl)?;
    cpu.mark_accessed(bus, descriptor)?;
    cpu.drain_serialising(bus);

    let mut mask = cpu.changeable_flags();
    if size == 2 {
        mask &= 0xffff;
    }
    let was = cpu.state.cpl();
    cpu.state.regs[REG_RIP] = target;
    cpu.state.regs[RSP] = rsp;
    cpu.state.segments[SS] = stack;
    if new_cpl > was {
        cpu.drop_inner_segments(new_cpl);
    }
    let mut segment = descriptor.segment(selector);
    segment.selector = selector & !3 | u16::from(new_cpl);
    cpu.state.segments[CS] = segment;
    cpu.set_rflags(flags, mask);
    Ok(())
}

/// Selector and offset of a far JMP's or CALL's operand.
fn far_target<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, i: &Instruction) -> Result<(u16, u64), Fault> {
    match i.op0_kind() {
        OpKind::FarBranch16 => return Ok((i.far_branch_selector(), u64::from(i.far_branch16()))),
        OpKind::FarBranch32 => return Ok((i.far_branch_selector(), u64::from(i.far_branch32()))),
        _ => {}
    }
    let at = cpu.operand_address(i, 0);
    let size = far_size(i) as usize;
    let mut bytes = [0; 8];
    cpu.read_slow(bus, at, &mut bytes[..size])?;
    let selector = u16::from_le_bytes(cpu.read(bus, at.wrapping_add(size as u64))?);
    Ok((selector, u64::from_le_bytes(bytes)))
}

/// Bytes of one stack slot or of the offset.
fn far_size(i: &Instruction) -> u64 {
    use Code as C;
    match i.code() {
        C::Jmp_m1616 | C::Jmp_ptr1616 | C::Call_m1616 | C::Call_ptr1616 | C::Retfw | C::Retfw_imm16 => 2,
        C::Jmp_m1664 | C::Call_m1664 | C::Retfq | C::Retfq_imm16 => 8,
        _ => 4,
    }
}

/// The code segment that a far JMP or CALL names, checked. Gates and task switches are not offered.
fn target_segment<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, selector: u16) -> Result<Segment, Fault> {
    if !cpu.protected() {
        cpu.unsupported = Some("far transfer in real mode");
        return Err(Fault::UD);
    }
    if selector & !3 == 0 {
        return Err(Fault::GP0);
    }
    let descriptor = cpu.descriptor(bus, selector)?;
    if !descriptor.has(ACCESS_NOT_SYSTEM) {
        cpu.unsupported = Some("far transfer through a gate or task");
        return Err(Fault::UD);
    }
    let (cpl, rpl, dpl) = (cpu.state.cpl(), selector as u8 & 3, descriptor.dpl());
    let privileged_enough =
        if descriptor.has(ACCESS_CONFORMING) { dpl <= cpl } else { rpl <= cpl && dpl == cpl };
    if !descriptor.has(ACCESS_CODE) || !privileged_enough || mixed_size(cpu, descriptor) {
        return Err(gp(selector));
    }
    if !descriptor.has(ACCESS_PRESENT) {
        return Err(Fault::coded(11, selector & !3));
    }
    cpu.mark_accessed(bus, descriptor)?;
    Ok(descriptor.segment(selector))
}

/// The code segment that a return goes to, and its privilege.
fn return_segment<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, selector: u16) -> Result<(Descriptor, u8), Fault> {
    if selector & !3 == 0 {
        return Err(Fault::GP0);
    }
    let descriptor = cpu.descriptor(bus, selector)?;
    let (rpl, dpl) = (selector as u8 & 3, descriptor.dpl());
    let matches = if descriptor.has(ACCESS_CONFORMING) { dpl <= rpl } else { dpl == rpl };
    let is_code = descriptor.has(ACCESS_NOT_SYSTEM | ACCESS_CODE);
    if !is_code || rpl < cpu.state.cpl() || !matches || mixed_size(cpu, descriptor) {
        return Err(gp(selector));
    }
    if !descriptor.has(ACCESS_PRESENT) {
        return Err(Fault::coded(11, selector & !3));
    }
    Ok((descriptor, rpl))
}

/// L and D/B both set mean nothing in long mode.
fn mixed_size<B: Bus>(cpu: &Cpu<B>, descriptor: Descriptor) -> bool {
    cpu.long_mode() && descriptor.has(ACCESS_LONG | ACCESS_BIG)
}

/// The stack segment of a return to 64-bit code at `cpl`.
fn return_stack<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, selector: u16, cpl: u8) -> Result<Segment, Fault> {
    let rpl = selector as u8 & 3;
    if selector & !3 == 0 {
        return if cpl == 3 || rpl != cpl {
            Err(Fault::GP0)
        } else {
            Ok(Segment { selector, ..Segment::default() })
        };
    }
    let descriptor = cpu.descriptor(bus, selector)?;
    let writable =
        descriptor.has(ACCESS_NOT_SYSTEM | ACCESS_READABLE_OR_WRITABLE) && !descriptor.has(ACCESS_CODE);
    if !writable || rpl != cpl || descriptor.dpl() != cpl {
        return Err(gp(selector));
    }
    if !descriptor.has(ACCESS_PRESENT) {
        return Err(Fault::coded(12, selector & !3));
    }
    cpu.mark_accessed(bus, descriptor)?;
    Ok(descriptor.segment(selector))
}

impl<B: Bus> Cpu<B> {
    /// Empties data segment registers that the outer privilege may not use. SDM vol. 2, IRET, RETURN-TO-OUTER.
    fn drop_inner_segments(&mut self, cpl: u8) {
        for index in [0, 3, FS, GS] {
            let segment = &mut self.state.segments[index];
            let conforming =
                segment.access & (ACCESS_CODE | ACCESS_CONFORMING) == ACCESS_CODE | ACCESS_CONFORMING;
            let dpl = (segment.access >> 5 & 3) as u8;
            if segment.selector & !3 != 0 && !conforming && dpl < cpl {
                *segment = Segment::default();
            }
        }
    }
}
