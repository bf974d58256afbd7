//! BT, BTS, BTR, BTC, BSF, BSR, POPCNT, BSWAP.

use iced_x86::{Instruction, Mnemonic};

use super::{
    super::{
        alu::{self, BitChange},
        flags::sign_extend,
        operand::{load, register, set_register},
    },
    Kinds, Shape, for_wide_bits,
    operands::{linear, modify, read},
};
use crate::{
    Bus, Cpu, Fault,
    op::{Handler, Op},
};

pub(super) fn select<B: Bus>(i: &Instruction, shape: &Shape) -> Option<Handler<B>> {
    let bits = shape.bits;
    match (i.mnemonic(), shape.kinds) {
        (Mnemonic::Bt, _) => bit_test::<B, 0>(shape),
        (Mnemonic::Bts, _) => bit_test::<B, 1>(shape),
        (Mnemonic::Btr, _) => bit_test::<B, 2>(shape),
        (Mnemonic::Btc, _) => bit_test::<B, 3>(shape),
        (Mnemonic::Bsf | Mnemonic::Tzcnt, Kinds::Rr) => for_wide_bits!(bits, scan_rr, true),
        (Mnemonic::Bsf | Mnemonic::Tzcnt, Kinds::Rm) => for_wide_bits!(bits, scan_rm, true),
        (Mnemonic::Bsr | Mnemonic::Lzcnt, Kinds::Rr) => for_wide_bits!(bits, scan_rr, false),
        (Mnemonic::Bsr | Mnemonic::Lzcnt, Kinds::Rm) => for_wide_bits!(bits, scan_rm, false),
        (Mnemonic::Popcnt, Kinds::Rr) => for_wide_bits!(bits, popcnt_rr),
        (Mnemonic::Bswap, Kinds::R) => for_wide_bits!(bits, bswap),
        _ => None,
    }
}

const fn change_of(number: u8) -> BitChange {
    match number {
        0 => BitChange::None,
        1 => BitChange::Set,
        2 => BitChange::Reset,
        _ => BitChange::Complement,
    }
}

fn bit_test<B: Bus, const CHANGE: u8>(shape: &Shape) -> Option<Handler<B>> {
    match (shape.kinds, shape.lock) {
        (Kinds::Rr, _) => for_wide_bits!(shape.bits, bit_rr, CHANGE),
        (Kinds::Ri, _) => for_wide_bits!(shape.bits, bit_ri, CHANGE),
        (Kinds::Mr, false) => for_wide_bits!(shape.bits, bit_mr, CHANGE, false),
        (Kinds::Mr, true) => for_wide_bits!(shape.bits, bit_mr, CHANGE, true),
        (Kinds::Mi, false) => for_wide_bits!(shape.bits, bit_mi, CHANGE, false),
        (Kinds::Mi, true) => for_wide_bits!(shape.bits, bit_mi, CHANGE, true),
        _ => None,
    }
}

#[inline(always)]
fn bit_in_register<B: Bus, const CHANGE: u8, const BITS: u32>(cpu: &mut Cpu<B>, dst: u8, index: u64) {
    let a = register(cpu, BITS, dst);
    let result = alu::bit_test(const { change_of(CHANGE) }, &mut cpu.flags, BITS, a, index);
    if !matches!(const { change_of(CHANGE) }, BitChange::None) {
        set_register(cpu, BITS, dst, result);
    }
}

fn bit_rr<B: Bus, const CHANGE: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let index = register(cpu, BITS, op.src);
    bit_in_register::<B, CHANGE, BITS>(cpu, op.dst, index);
    Ok(())
}

fn bit_ri<B: Bus, const CHANGE: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    bit_in_register::<B, CHANGE, BITS>(cpu, op.dst, op.imm());
    Ok(())
}

#[inline(always)]
fn bit_in_memory<B: Bus, const CHANGE: u8, const LOCK: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    address: u64,
    index: u64,
) -> Result<(), Fault> {
    if matches!(const { change_of(CHANGE) }, BitChange::None) {
        let a = load(cpu, bus, BITS, address)?;
        alu::bit_test(BitChange::None, &mut cpu.flags, BITS, a, index);
        return Ok(());
    }
    modify::<B, LOCK, BITS>(cpu, bus, address, |cpu, a| {
        alu::bit_test(const { change_of(CHANGE) }, &mut cpu.flags, BITS, a, index)
    })
}

/// The index selects a bit in a string of any length, in both directions from the operand.
fn bit_mr<B: Bus, const CHANGE: u8, const LOCK: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let index = register(cpu, BITS, op.src);
    let whole_operands = sign_extend(BITS, index) as i64 >> BITS.trailing_zeros();
    let bytes = (whole_operands as u64).wrapping_mul(BITS as u64 / 8);
    let address = linear(cpu, &op.mem).wrapping_add(bytes);
    bit_in_memory::<B, CHANGE, LOCK, BITS>(cpu, bus, address, index)
}

fn bit_mi<B: Bus, const CHANGE: u8, const LOCK: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let address = linear(cpu, &op.mem);
    bit_in_memory::<B, CHANGE, LOCK, BITS>(cpu, bus, address, op.imm())
}

/// BSF or BSR of `a`: a source of 0 leaves the destination.
#[inline(always)]
fn scan<B: Bus, const FORWARD: bool, const BITS: u32>(cpu: &mut Cpu<B>, dst: u8, a: u64) {
    cpu.flags.set_logic(BITS, a);
    if a != 0 {
        let index = if FORWARD { a.trailing_zeros() } else { a.ilog2() };
        set_register(cpu, BITS, dst, index as u64);
    }
}

fn scan_rr<B: Bus, const FORWARD: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let a = register(cpu, BITS, op.src);
    scan::<B, FORWARD, BITS>(cpu, op.dst, a);
    Ok(())
}

fn scan_rm<B: Bus, const FORWARD: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let a = read::<B, BITS>(cpu, bus, &op.mem)?;
    scan::<B, FORWARD, BITS>(cpu, op.dst, a);
    Ok(())
}

fn popcnt_rr<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let a = register(cpu, BITS, op.src);
    let count = alu::popcnt(&mut cpu.flags, a);
    set_register(cpu, BITS, op.dst, count);
    Ok(())
}

fn bswap<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let swapped = register(cpu, BITS, op.dst).swap_bytes() >> (64 - BITS);
    set_register(cpu, BITS, op.dst, swapped);
    Ok(())
}
