//! Instructions that do not exist in 64-bit mode: PUSHA, POPA, BOUND and ARPL.

use iced_x86::Mnemonic;

use super::{
    flags::sign_extend,
    operand::{Operand, full, load, set_register},
};
use crate::{Bus, Cpu, Fault, op::Op, segments::segment_index};

const RSP: usize = 4;

/// PUSHA, PUSHAD
pub(super) fn push_all<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let size = if full(op).mnemonic() == Mnemonic::Pushad { 4 } else { 2 };
    let stack = cpu.current_stack();
    let mut values = [0; 8];
    values.copy_from_slice(&cpu.state.regs[..8]);
    let pointer = cpu.push_all(bus, &stack, &values, size)?;
    cpu.set_stack_pointer(pointer);
    Ok(())
}

/// POPA, POPAD: what stands in the place of SP is skipped.
pub(super) fn pop_all<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let size = if full(op).mnemonic() == Mnemonic::Popad { 4 } else { 2 };
    let mut values = [0; 8];
    for (n, value) in (0..).zip(values.iter_mut()) {
        *value = cpu.stack_value(bus, n * size, size)?;
    }
    cpu.move_stack(8 * size);
    for (number, value) in (0..8).rev().zip(values) {
        if number != RSP {
            set_register(cpu, size as u32 * 8, number as u8, value);
        }
    }
    Ok(())
}

/// BOUND: #BR unless the index lies between the two signed limits in memory.
pub(super) fn bound<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let index = Operand::new(cpu, i, 0);
    let bits = index.bits;
    let index = sign_extend(bits, index.read(cpu, bus)?) as i64;
    let at = cpu.operand_address(i, 1);
    // Two operands, each aligned on its own.
    let lower = sign_extend(bits, load(cpu, bus, bits, at)?) as i64;
    let second = at.wrapping_add(u64::from(bits / 8)) & 0xffff_ffff;
    let upper = sign_extend(bits, load(cpu, bus, bits, second)?) as i64;
    if (lower..=upper).contains(&index) { Ok(()) } else { Err(Fault::BR) }
}

/// ARPL: raises the privilege level of a selector to that of another. #UD in real mode.
pub(super) fn adjust_privilege<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    if !cpu.protected() {
        return Err(Fault::UD);
    }
    let least = Operand::new(cpu, i, 1).read(cpu, bus)? & 3;
    let destination = Operand::new(cpu, i, 0);
    let selector = destination.read(cpu, bus)?;
    let raised = selector & 3 < least;
    if raised {
        if destination.address().is_some() {
            cpu.segment_linear(segment_index(i.memory_segment()), cpu.effective_address(i), 2, true)?;
        }
        destination.write(cpu, bus, selector & !3 | least)?;
    }
    cpu.flags.set_zf(raised);
    Ok(())
}
