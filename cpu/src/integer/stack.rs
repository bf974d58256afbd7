//! Stack access and the general handlers of PUSH, POP, ENTER and LEAVE.

use iced_x86::Code;

use super::{
    alu::mask,
    operand::{Operand, full, load, set_register, store},
};
use crate::{Bus, Cpu, Fault, op::Op, segments::segment_index};

pub(super) const RSP: u8 = 4;
pub(super) const RBP: u8 = 5;

/// An access outside the canonical addresses raises #SS on the stack.
pub(super) fn stack_fault(fault: Fault) -> Fault {
    if fault == Fault::GP0 { Fault::SS0 } else { fault }
}

/// Reads `bits` at stack pointer `pointer`.
fn read_at<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, bits: u32, pointer: u64) -> Result<u64, Fault> {
    let address = cpu.stack_linear(pointer, u64::from(bits / 8), false)?;
    load(cpu, bus, bits, address).map_err(stack_fault)
}

/// Pushes `bits` of `value` below `pointer` and returns the new pointer. RSP itself stays.
fn push_below<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    bits: u32,
    pointer: u64,
    value: u64,
) -> Result<u64, Fault> {
    let pointer = pointer.wrapping_sub(bits as u64 / 8) & mask(cpu.stack_bits());
    let address = cpu.stack_linear(pointer, u64::from(bits / 8), true)?;
    store(cpu, bus, bits, address, value).map_err(stack_fault)?;
    Ok(pointer)
}

/// Pushes `bits` of `value`. On a fault RSP stays.
pub(super) fn push_value<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, bits: u32, value: u64) -> Result<(), Fault> {
    let pointer = push_below(cpu, bus, bits, cpu.stack_pointer(), value)?;
    cpu.set_stack_pointer(pointer);
    Ok(())
}

/// Reads `bits` from the top of the stack; RSP stays.
pub(super) fn top<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, bits: u32) -> Result<u64, Fault> {
    read_at(cpu, bus, bits, cpu.stack_pointer())
}

/// PUSH
pub(super) fn push<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let value = Operand::new(cpu, i, 0).read(cpu, bus)?;
    push_value(cpu, bus, i.stack_pointer_increment().unsigned_abs() * 8, value)
}

/// POP: an address with RSP as its base is computed after RSP has moved, and the stack is read before the address is
/// checked.
pub(super) fn pop<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let bytes = i.stack_pointer_increment().unsigned_abs();
    let value = top(cpu, bus, bytes * 8)?;
    let before = cpu.state.regs[RSP as usize];
    cpu.move_stack(u64::from(bytes));
    let destination = Operand::new(cpu, i, 0);
    let allowed = match destination.address() {
        Some(_) if !cpu.fetches_64_bit => {
            let segment = segment_index(i.memory_segment());
            cpu.segment_linear(segment, cpu.effective_address(i), bytes.into(), true).map(drop)
        }
        _ => Ok(()),
    };
    let written = allowed.and_then(|()| destination.write(cpu, bus, value));
    if written.is_err() {
        cpu.state.regs[RSP as usize] = before;
    }
    written
}

/// ENTER
pub(super) fn enter<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let bits = match i.code() {
        Code::Enterw_imm16_imm8 => 16,
        Code::Enterd_imm16_imm8 => 32,
        _ => 64,
    };
    let (size, level) = (i.immediate16() as u64, i.immediate8_2nd() % 32);
    let pointer_mask = mask(cpu.stack_bits());
    let mut frame = cpu.state.regs[RBP as usize] & pointer_mask;
    let old_frame = cpu.state.regs[RBP as usize];
    let mut pointer = push_below(cpu, bus, bits, cpu.stack_pointer(), old_frame)?;
    // ESP and not SP if operands have 32 bits, however wide the stack is.
    let new_frame = cpu.state.regs[RSP as usize] & !pointer_mask | pointer;
    if level > 0 {
        for _ in 1..level {
            frame = frame.wrapping_sub(bits as u64 / 8) & pointer_mask;
            let link = read_at(cpu, bus, bits, frame)?;
            pointer = push_below(cpu, bus, bits, pointer, link)?;
        }
        pointer = push_below(cpu, bus, bits, pointer, new_frame)?;
    }
    pointer = pointer.wrapping_sub(size) & pointer_mask;
    // SDM: a fault also when a write with the final stack pointer would cause one.
    let final_top = cpu.stack_linear(pointer, u64::from(bits / 8), true)?;
    cpu.probe_writable(bus, final_top, bits as usize / 8).map_err(stack_fault)?;
    cpu.check_alignment(final_top, bits as usize / 8)?;
    set_register(cpu, bits, RBP, new_frame);
    cpu.set_stack_pointer(pointer);
    Ok(())
}

/// LEAVE
pub(super) fn leave<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let bits = match full(op).code() {
        Code::Leavew => 16,
        Code::Leaved => 32,
        _ => 64,
    };
    let pointer = cpu.state.regs[RBP as usize] & mask(cpu.stack_bits());
    let frame = read_at(cpu, bus, bits, pointer)?;
    cpu.set_stack_pointer(pointer.wrapping_add(bits as u64 / 8));
    set_register(cpu, bits, RBP, frame);
    Ok(())
}
