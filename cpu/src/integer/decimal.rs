//! Decimal adjustment: AAA, AAS, AAM, AAD, DAA, DAS, and SALC. None of them exists in 64-bit mode.
//!
//! Flags that the SDM leaves undefined are those of a logical operation on AL, with AF clear.

use iced_x86::Mnemonic;

use super::{
    flags::{AF, CF, LazyFlags},
    operand::{full, register, set_register},
};
use crate::{Bus, Cpu, Fault, op::Op};

const RAX: u8 = 0;

/// AAA, AAS: one unpacked digit in AL, the carry into AH.
pub(super) fn adjust_unpacked<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let ax = register(cpu, 16, RAX);
    let carries = ax & 0xf > 9 || cpu.flags.af();
    let adjusted = match full(op).mnemonic() {
        _ if !carries => ax,
        Mnemonic::Aaa => ax.wrapping_add(0x106),
        _ => ax.wrapping_sub(0x106),
    };
    set_register(cpu, 16, RAX, adjusted & 0xff0f);
    set_flags(cpu, adjusted & 0xf, carries, carries);
    Ok(())
}

/// AAM: splits AL by the immediate, which is 10 as a rule.
pub(super) fn split<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let base = u64::from(full(op).immediate8());
    let al = register(cpu, 8, RAX);
    let high = al.checked_div(base).ok_or(Fault::DE)?;
    set_register(cpu, 16, RAX, high << 8 | (al % base));
    set_flags(cpu, al % base, false, false);
    Ok(())
}

/// AAD: the inverse of AAM.
pub(super) fn join<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let base = u64::from(full(op).immediate8());
    let ax = register(cpu, 16, RAX);
    let al = (ax & 0xff).wrapping_add((ax >> 8) * base) & 0xff;
    set_register(cpu, 16, RAX, al);
    set_flags(cpu, al, false, false);
    Ok(())
}

/// DAA, DAS: two packed digits in AL.
pub(super) fn adjust_packed<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let al = register(cpu, 8, RAX);
    let (carry, adjust) = (cpu.flags.cf(), cpu.flags.af());
    let low = al & 0xf > 9 || adjust;
    let high = al > 0x99 || carry;
    let by = if low { 6 } else { 0 } + if high { 0x60 } else { 0 };
    let (result, carries) = match full(op).mnemonic() {
        Mnemonic::Daa => (al.wrapping_add(by) & 0xff, high),
        // The first of the two subtractions may borrow on its own.
        _ => (al.wrapping_sub(by) & 0xff, high || low && al < 6),
    };
    set_register(cpu, 8, RAX, result);
    set_flags(cpu, result, carries, low);
    Ok(())
}

/// SALC: AL becomes 0xff with CF set, else 0. Not in the SDM, but in its opcode map's gap on every Intel processor.
pub(super) fn set_al_to_carry<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    let value = if cpu.flags.cf() { 0xff } else { 0 };
    set_register(cpu, 8, RAX, value);
    Ok(())
}

fn set_flags<B: Bus>(cpu: &mut Cpu<B>, al: u64, cf: bool, af: bool) {
    cpu.flags.set_logic(8, al);
    let carries = if cf { CF } else { 0 } | if af { AF } else { 0 };
    cpu.flags = LazyFlags::load(cpu.flags.fold(0) & !(CF | AF) | carries);
}
