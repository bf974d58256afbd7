//! Stack access and the general handlers of PUSH, POP, ENTER and LEAVE.

use iced_x86::{Code, Instruction};

use super::{
    alu::mask,
    operand::{Operand, full, is_long, load, register, set_register, store},
};
use crate::{Bus, Cpu, Fault, op::Op};

pub(super) const RSP: u8 = 4;
pub(super) const RBP: u8 = 5;
const SS: usize = 2;

/// Size in bits of the stack pointer. A 16-bit stack exists only in segments that 64-bit kernels never load.
fn pointer_bits(i: &Instruction) -> u32 {
    if is_long(i) { 64 } else { 32 }
}

/// Linear address of the stack at `pointer`.
fn linear<B: Bus>(cpu: &Cpu<B>, i: &Instruction, pointer: u64) -> u64 {
    if is_long(i) { pointer } else { (cpu.state.segments[SS].base.wrapping_add(pointer)) & mask(32) }
}

/// An access outside the canonical addresses raises #SS on the stack.
pub(super) fn stack_fault(fault: Fault) -> Fault {
    if fault == Fault::GP0 { Fault::SS0 } else { fault }
}

/// Reads `bits` at stack pointer `pointer`.
fn read_at<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    i: &Instruction,
    bits: u32,
    pointer: u64,
) -> Result<u64, Fault> {
    let address = linear(cpu, i, pointer);
    load(cpu, bus, bits, address).map_err(stack_fault)
}

/// Pushes `bits` of `value` below `pointer` and returns the new pointer. RSP itself stays.
fn push_below<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    i: &Instruction,
    bits: u32,
    pointer: u64,
    value: u64,
) -> Result<u64, Fault> {
    let pointer = pointer.wrapping_sub(bits as u64 / 8) & mask(pointer_bits(i));
    let address = linear(cpu, i, pointer);
    store(cpu, bus, bits, address, value).map_err(stack_fault)?;
    Ok(pointer)
}

/// Pushes `bits` of `value`. On a fault RSP stays.
pub(super) fn push_value<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    i: &Instruction,
    bits: u32,
    value: u64,
) -> Result<(), Fault> {
    let pointer = register(cpu, pointer_bits(i), RSP);
    let pointer = push_below(cpu, bus, i, bits, pointer, value)?;
    set_register(cpu, pointer_bits(i), RSP, pointer);
    Ok(())
}

/// Reads `bits` from the top of the stack; RSP stays.
pub(super) fn top<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, i: &Instruction, bits: u32) -> Result<u64, Fault> {
    let pointer = register(cpu, pointer_bits(i), RSP);
    read_at(cpu, bus, i, bits, pointer)
}

/// Adds `bytes` to RSP.
pub(super) fn release<B: Bus>(cpu: &mut Cpu<B>, i: &Instruction, bytes: u64) {
    let pointer = register(cpu, pointer_bits(i), RSP).wrapping_add(bytes);
    set_register(cpu, pointer_bits(i), RSP, pointer);
}

/// PUSH
pub(super) fn push<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let value = Operand::new(cpu, i, 0).read(cpu, bus)?;
    push_value(cpu, bus, i, i.stack_pointer_increment().unsigned_abs() * 8, value)
}

/// POP: an address with RSP as its base is computed after RSP has moved.
pub(super) fn pop<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let bytes = i.stack_pointer_increment().unsigned_abs();
    let value = top(cpu, bus, i, bytes * 8)?;
    let before = cpu.state.regs[RSP as usize];
    release(cpu, i, bytes as u64);
    let written = Operand::new(cpu, i, 0).write(cpu, bus, value);
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
    let mut frame = register(cpu, pointer_bits(i), RBP);
    let mut pointer = register(cpu, pointer_bits(i), RSP);
    pointer = push_below(cpu, bus, i, bits, pointer, frame)?;
    let new_frame = pointer;
    if level > 0 {
        for _ in 1..level {
            frame = frame.wrapping_sub(bits as u64 / 8) & mask(pointer_bits(i));
            let link = read_at(cpu, bus, i, bits, frame)?;
            pointer = push_below(cpu, bus, i, bits, pointer, link)?;
        }
        pointer = push_below(cpu, bus, i, bits, pointer, new_frame)?;
    }
    pointer = pointer.wrapping_sub(size) & mask(pointer_bits(i));
    // SDM: a page fault also when a write with the final stack pointer would cause one.
    let final_top = linear(cpu, i, pointer);
    cpu.check_writable(bus, final_top, bits as usize / 8).map_err(stack_fault)?;
    set_register(cpu, bits, RBP, new_frame);
    set_register(cpu, pointer_bits(i), RSP, pointer);
    Ok(())
}

/// LEAVE
pub(super) fn leave<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let bits = if i.code() == Code::Leavew { 16 } else { pointer_bits(i) };
    let pointer = register(cpu, pointer_bits(i), RBP);
    let frame = read_at(cpu, bus, i, bits, pointer)?;
    set_register(cpu, pointer_bits(i), RSP, pointer.wrapping_add(bits as u64 / 8));
    set_register(cpu, bits, RBP, frame);
    Ok(())
}
