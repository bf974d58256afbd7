//! Transfers between code segments: far jumps, calls and returns, and software interrupts. SDM vol. 3, section 5.8.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use crate::{
    Bus, Cpu, Fault, Segment,
    call_gates::CallGate,
    op::Op,
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

/// What the selector of a far JMP or CALL names.
enum Destination {
    Segment(Descriptor),
    Gate(CallGate),
}

/// JMP to another code segment
pub(crate) fn far_jump<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let (selector, target) = far_target(cpu, bus, i)?;
    if !cpu.protected() {
        return real_jump(cpu, selector, target);
    }
    let (descriptor, selector, target) = match destination(cpu, bus, selector)? {
        Destination::Segment(descriptor) => (descriptor, selector, target),
        Destination::Gate(gate) => {
            let descriptor = cpu.gate_segment(bus, &gate)?;
            check_same_privilege(cpu, descriptor, gate.selector & !3)?;
            (descriptor, gate.selector, gate.target)
        }
    };
    let segment = enterable(descriptor, selector)?;
    cpu.check_target(&segment, target)?;
    cpu.mark_accessed(bus, descriptor)?;
    enter(cpu, segment, target);
    Ok(())
}

/// CALL to another code segment, or through a call gate
pub(crate) fn far_call<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let (selector, target) = far_target(cpu, bus, i)?;
    let size = far_size(i);
    let back = [u64::from(cpu.state.segments[CS].selector), cpu.state.regs[REG_RIP]];
    let stack = cpu.current_stack();
    if !cpu.protected() {
        stack.check_room(back.len(), size)?;
        let cs = cpu.state.segments[CS];
        cpu.check_target(&cs, target)?;
        let pointer = cpu.push_all(bus, &stack, &back, size)?;
        cpu.set_stack_pointer(pointer);
        return real_jump(cpu, selector, target);
    }
    let descriptor = match destination(cpu, bus, selector)? {
        Destination::Segment(descriptor) => descriptor,
        Destination::Gate(gate) => return cpu.call_through_gate(bus, &gate),
    };
    let segment = enterable(descriptor, selector)?;
    stack.check_room(back.len(), size)?;
    cpu.check_target(&segment, target)?;
    cpu.mark_accessed(bus, descriptor)?;
    let pointer = cpu.push_all(bus, &stack, &back, size)?;
    cpu.set_stack_pointer(pointer);
    enter(cpu, segment, target);
    Ok(())
}

fn real_jump<B: Bus>(cpu: &mut Cpu<B>, selector: u16, target: u64) -> Result<(), Fault> {
    let cs = cpu.state.segments[CS];
    cpu.check_target(&cs, target)?;
    cpu.state.regs[REG_RIP] = target;
    cpu.load_real_segment(CS, selector);
    cpu.privilege_changed();
    Ok(())
}

/// Goes on at `target` in a code segment of the same privilege.
pub(crate) fn enter<B: Bus>(cpu: &mut Cpu<B>, segment: Segment, target: u64) {
    cpu.state.regs[REG_RIP] = target;
    let cpl = cpu.state.cpl();
    cpu.set_code_segment(segment, cpl);
}

/// RETF to the same or an outer privilege
pub(crate) fn far_return<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let size = far_size(i);
    let released =
        if i.op_count() > 0 && i.op0_kind() == OpKind::Immediate16 { u64::from(i.immediate16()) } else { 0 };
    let target = cpu.stack_value(bus, 0, size)?;
    let selector = cpu.stack_value(bus, size, size)? as u16;
    if !cpu.protected() {
        real_jump(cpu, selector, target)?;
        cpu.move_stack(2 * size + released);
        return Ok(());
    }
    let (descriptor, new_cpl) = cpu.return_segment(bus, selector)?;
    let segment = descriptor.segment(selector);
    cpu.check_target(&segment, target)?;
    if new_cpl == cpu.state.cpl() {
        cpu.mark_accessed(bus, descriptor)?;
        cpu.move_stack(2 * size + released);
    } else {
        let rsp = cpu.stack_value(bus, 2 * size + released, size)?;
        let stack_selector = cpu.stack_value(bus, 3 * size + released, size)? as u16;
        let stack = cpu.return_stack(bus, stack_selector, new_cpl, &segment)?;
        cpu.mark_accessed(bus, descriptor)?;
        cpu.set_outer_stack(stack, rsp.wrapping_add(released), &segment);
        cpu.drop_inner_segments(new_cpl);
    }
    cpu.state.regs[REG_RIP] = target;
    cpu.set_code_segment(segment, new_cpl);
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
    far_pointer(cpu, bus, at, size)
}

/// Selector and offset in memory, the offset of `size` bytes first. The two are aligned each on its own: SDM vol. 3,
/// table 6-7.
pub(crate) fn far_pointer<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    at: u64,
    size: usize,
) -> Result<(u16, u64), Fault> {
    let mut offset = [0; 8];
    cpu.read_slow(bus, at, &mut offset[..size])?;
    let behind = at.wrapping_add(size as u64);
    let behind = if cpu.long_code() { behind } else { behind & 0xffff_ffff };
    let selector = u16::from_le_bytes(cpu.read(bus, behind)?);
    Ok((selector, u64::from_le_bytes(offset)))
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

fn destination<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, selector: u16) -> Result<Destination, Fault> {
    if selector & !3 == 0 {
        return Err(Fault::GP0);
    }
    let descriptor = cpu.descriptor(bus, selector)?;
    if !descriptor.has(ACCESS_NOT_SYSTEM) {
        return cpu.call_gate(bus, descriptor, selector).map(Destination::Gate);
    }
    let rpl = selector as u8 & 3;
    let too_outer = !descriptor.has(ACCESS_CONFORMING) && rpl > cpu.state.cpl();
    if !descriptor.has(ACCESS_CODE) || too_outer || cpu.mixes_sizes(descriptor) {
        return Err(gp(selector));
    }
    check_same_privilege(cpu, descriptor, selector)?;
    Ok(Destination::Segment(descriptor))
}

fn check_same_privilege<B: Bus>(cpu: &Cpu<B>, descriptor: Descriptor, selector: u16) -> Result<(), Fault> {
    let (cpl, dpl) = (cpu.state.cpl(), descriptor.dpl());
    let same = if descriptor.has(ACCESS_CONFORMING) { dpl <= cpl } else { dpl == cpl };
    if same { Ok(()) } else { Err(gp(selector)) }
}

fn enterable(descriptor: Descriptor, selector: u16) -> Result<Segment, Fault> {
    if !descriptor.has(ACCESS_PRESENT) {
        return Err(Fault::coded(11, selector & !3));
    }
    Ok(descriptor.segment(selector))
}
