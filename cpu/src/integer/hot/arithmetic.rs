//! ADD to CMP, TEST, INC to NOT, shifts, multiplication and division.

use iced_x86::{Instruction, Mnemonic};

use super::{
    super::{
        alu::{self, Binary, Unary},
        arithmetic::set_halves,
        operand::{register, set_register},
        shift::{self, Shift},
    },
    Kinds, Shape, for_bits, for_wide_bits,
    operands::{linear, modify, read, read_then},
};
use crate::{
    Bus, Cpu, Fault,
    op::{Handler, Op},
};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;

pub(super) fn select<B: Bus>(i: &Instruction, shape: &Shape) -> Option<Handler<B>> {
    let bits = shape.bits;
    match i.mnemonic() {
        Mnemonic::Add => binary::<B, 0>(shape),
        Mnemonic::Or => binary::<B, 1>(shape),
        Mnemonic::Adc => binary::<B, 2>(shape),
        Mnemonic::Sbb => binary::<B, 3>(shape),
        Mnemonic::And => binary::<B, 4>(shape),
        Mnemonic::Sub => binary::<B, 5>(shape),
        Mnemonic::Xor => binary::<B, 6>(shape),
        Mnemonic::Cmp => binary::<B, 7>(shape),
        Mnemonic::Test => match shape.kinds {
            Kinds::Rr => for_bits!(bits, test_rr),
            Kinds::Ri => for_bits!(bits, test_ri),
            Kinds::Mr => for_bits!(bits, test_mr),
            Kinds::Mi => for_bits!(bits, test_mi),
            _ => None,
        },
        Mnemonic::Inc => unary::<B, 0>(shape),
        Mnemonic::Dec => unary::<B, 1>(shape),
        Mnemonic::Neg => unary::<B, 2>(shape),
        Mnemonic::Not => unary::<B, 3>(shape),
        Mnemonic::Rol => shift::<B, 0>(i, shape),
        Mnemonic::Ror => shift::<B, 1>(i, shape),
        Mnemonic::Shl | Mnemonic::Sal => shift::<B, 4>(i, shape),
        Mnemonic::Shr => shift::<B, 5>(i, shape),
        Mnemonic::Sar => shift::<B, 6>(i, shape),
        Mnemonic::Imul => match shape.kinds {
            Kinds::Rr => for_wide_bits!(bits, imul_rr),
            Kinds::Rm => for_wide_bits!(bits, imul_rm),
            Kinds::Rri => for_wide_bits!(bits, imul_rri),
            Kinds::Rmi => for_wide_bits!(bits, imul_rmi),
            _ => multiply_accumulator::<B, true>(shape),
        },
        Mnemonic::Mul => multiply_accumulator::<B, false>(shape),
        Mnemonic::Div => divide::<B, false>(shape),
        Mnemonic::Idiv => divide::<B, true>(shape),
        _ => None,
    }
}

const fn binary_of(number: u8) -> Binary {
    match number {
        0 => Binary::Add,
        1 => Binary::Or,
        2 => Binary::Adc,
        3 => Binary::Sbb,
        4 => Binary::And,
        5 => Binary::Sub,
        6 => Binary::Xor,
        _ => Binary::Cmp,
    }
}

fn binary<B: Bus, const OP: u8>(shape: &Shape) -> Option<Handler<B>> {
    match shape.kinds {
        Kinds::Rr => for_bits!(shape.bits, binary_rr, OP),
        Kinds::Ri => for_bits!(shape.bits, binary_ri, OP),
        Kinds::Rm => for_bits!(shape.bits, binary_rm, OP),
        Kinds::Mr if shape.lock => for_wide_bits!(shape.bits, binary_mr, OP, true),
        Kinds::Mi if shape.lock => for_wide_bits!(shape.bits, binary_mi, OP, true),
        Kinds::Mr => for_bits!(shape.bits, binary_mr, OP, false),
        Kinds::Mi => for_bits!(shape.bits, binary_mi, OP, false),
        _ => None,
    }
}

/// Computes with register `dst` and stores there, except for CMP.
#[inline(always)]
pub(super) fn binary_into_register<B: Bus, const OP: u8, const BITS: u32>(cpu: &mut Cpu<B>, dst: u8, b: u64) {
    let a = register(cpu, BITS, dst);
    let result = alu::binary(const { binary_of(OP) }, &mut cpu.flags, BITS, a, b);
    if !matches!(const { binary_of(OP) }, Binary::Cmp) {
        set_register(cpu, BITS, dst, result);
    }
}

fn binary_rr<B: Bus, const OP: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let b = register(cpu, BITS, op.src);
    binary_into_register::<B, OP, BITS>(cpu, op.dst, b);
    Ok(())
}

fn binary_ri<B: Bus, const OP: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    binary_into_register::<B, OP, BITS>(cpu, op.dst, op.imm());
    Ok(())
}

fn binary_rm<B: Bus, const OP: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    read_then::<B, BITS>(cpu, bus, op, |cpu, op, b| binary_into_register::<B, OP, BITS>(cpu, op.dst, b))
}

/// Computes with memory and stores there, except for CMP.
#[inline(always)]
fn binary_into_memory<B: Bus, const OP: u8, const LOCK: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
    b: u64,
) -> Result<(), Fault> {
    if matches!(const { binary_of(OP) }, Binary::Cmp) {
        let a = read::<B, BITS>(cpu, bus, &op.mem)?;
        alu::binary(Binary::Cmp, &mut cpu.flags, BITS, a, b);
        return Ok(());
    }
    let address = linear(cpu, &op.mem);
    modify::<B, LOCK, BITS>(cpu, bus, address, |cpu, a| {
        alu::binary(const { binary_of(OP) }, &mut cpu.flags, BITS, a, b)
    })
}

fn binary_mr<B: Bus, const OP: u8, const LOCK: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let b = register(cpu, BITS, op.src);
    binary_into_memory::<B, OP, LOCK, BITS>(cpu, bus, op, b)
}

fn binary_mi<B: Bus, const OP: u8, const LOCK: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    binary_into_memory::<B, OP, LOCK, BITS>(cpu, bus, op, op.imm())
}

fn test_rr<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let (a, b) = (register(cpu, BITS, op.dst), register(cpu, BITS, op.src));
    alu::binary(Binary::And, &mut cpu.flags, BITS, a, b);
    Ok(())
}

fn test_ri<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let a = register(cpu, BITS, op.dst);
    alu::binary(Binary::And, &mut cpu.flags, BITS, a, op.imm());
    Ok(())
}

fn test_mr<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let a = read::<B, BITS>(cpu, bus, &op.mem)?;
    let b = register(cpu, BITS, op.src);
    alu::binary(Binary::And, &mut cpu.flags, BITS, a, b);
    Ok(())
}

fn test_mi<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let a = read::<B, BITS>(cpu, bus, &op.mem)?;
    alu::binary(Binary::And, &mut cpu.flags, BITS, a, op.imm());
    Ok(())
}

const fn unary_of(number: u8) -> Unary {
    match number {
        0 => Unary::Inc,
        1 => Unary::Dec,
        2 => Unary::Neg,
        _ => Unary::Not,
    }
}

fn unary<B: Bus, const OP: u8>(shape: &Shape) -> Option<Handler<B>> {
    match shape.kinds {
        Kinds::R => for_bits!(shape.bits, unary_r, OP),
        Kinds::M if shape.lock => for_wide_bits!(shape.bits, unary_m, OP, true),
        Kinds::M => for_bits!(shape.bits, unary_m, OP, false),
        _ => None,
    }
}

#[inline(always)]
pub(super) fn unary_into_register<B: Bus, const OP: u8, const BITS: u32>(cpu: &mut Cpu<B>, dst: u8) {
    let a = register(cpu, BITS, dst);
    let result = alu::unary(const { unary_of(OP) }, &mut cpu.flags, BITS, a);
    set_register(cpu, BITS, dst, result);
}

fn unary_r<B: Bus, const OP: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    unary_into_register::<B, OP, BITS>(cpu, op.dst);
    Ok(())
}

fn unary_m<B: Bus, const OP: u8, const LOCK: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let address = linear(cpu, &op.mem);
    modify::<B, LOCK, BITS>(cpu, bus, address, |cpu, a| {
        alu::unary(const { unary_of(OP) }, &mut cpu.flags, BITS, a)
    })
}

const fn shift_of(number: u8) -> Shift {
    match number {
        0 => Shift::Rol,
        1 => Shift::Ror,
        4 => Shift::Shl,
        5 => Shift::Shr,
        _ => Shift::Sar,
    }
}

fn shift<B: Bus, const OP: u8>(i: &Instruction, shape: &Shape) -> Option<Handler<B>> {
    match shape.kinds {
        Kinds::Ri => for_wide_bits!(shape.bits, shift_ri, OP),
        Kinds::Rr if i.op1_register() == iced_x86::Register::CL => {
            for_wide_bits!(shape.bits, shift_rcl, OP)
        }
        _ => None,
    }
}

fn shift_ri<B: Bus, const OP: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let a = register(cpu, BITS, op.dst);
    let result = shift::shift(const { shift_of(OP) }, &mut cpu.flags, BITS, a, op.imm());
    set_register(cpu, BITS, op.dst, result);
    Ok(())
}

fn shift_rcl<B: Bus, const OP: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let (a, count) = (register(cpu, BITS, op.dst), register(cpu, 8, RCX));
    let result = shift::shift(const { shift_of(OP) }, &mut cpu.flags, BITS, a, count);
    set_register(cpu, BITS, op.dst, result);
    Ok(())
}

#[inline(always)]
fn multiply<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, dst: u8, a: u64, b: u64) {
    let (product, _) = alu::imul(&mut cpu.flags, BITS, a, b);
    set_register(cpu, BITS, dst, product);
}

fn imul_rr<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let (a, b) = (register(cpu, BITS, op.dst), register(cpu, BITS, op.src));
    multiply::<B, BITS>(cpu, op.dst, a, b);
    Ok(())
}

fn imul_rm<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let b = read::<B, BITS>(cpu, bus, &op.mem)?;
    let a = register(cpu, BITS, op.dst);
    multiply::<B, BITS>(cpu, op.dst, a, b);
    Ok(())
}

fn imul_rri<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let a = register(cpu, BITS, op.src);
    multiply::<B, BITS>(cpu, op.dst, a, op.imm());
    Ok(())
}

fn imul_rmi<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let a = read::<B, BITS>(cpu, bus, &op.mem)?;
    multiply::<B, BITS>(cpu, op.dst, a, op.imm());
    Ok(())
}

fn multiply_accumulator<B: Bus, const SIGNED: bool>(shape: &Shape) -> Option<Handler<B>> {
    match shape.kinds {
        Kinds::R => for_wide_bits!(shape.bits, multiply_r, SIGNED),
        Kinds::M => for_wide_bits!(shape.bits, multiply_m, SIGNED),
        _ => None,
    }
}

#[inline(always)]
fn multiply_into_halves<B: Bus, const SIGNED: bool, const BITS: u32>(cpu: &mut Cpu<B>, b: u64) {
    let a = register(cpu, BITS, RAX);
    let multiply = if SIGNED { alu::imul } else { alu::mul };
    let (low, high) = multiply(&mut cpu.flags, BITS, a, b);
    set_halves(cpu, BITS, low, high);
}

fn multiply_r<B: Bus, const SIGNED: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let b = register(cpu, BITS, op.dst);
    multiply_into_halves::<B, SIGNED, BITS>(cpu, b);
    Ok(())
}

fn multiply_m<B: Bus, const SIGNED: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let b = read::<B, BITS>(cpu, bus, &op.mem)?;
    multiply_into_halves::<B, SIGNED, BITS>(cpu, b);
    Ok(())
}

fn divide<B: Bus, const SIGNED: bool>(shape: &Shape) -> Option<Handler<B>> {
    match shape.kinds {
        Kinds::R => for_wide_bits!(shape.bits, divide_r, SIGNED),
        Kinds::M => for_wide_bits!(shape.bits, divide_m, SIGNED),
        _ => None,
    }
}

#[inline(always)]
fn divide_halves<B: Bus, const SIGNED: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    divisor: u64,
) -> Result<(), Fault> {
    let (high, low) = (register(cpu, BITS, RDX), register(cpu, BITS, RAX));
    let divide = if SIGNED { alu::idiv } else { alu::div };
    let (quotient, remainder) = divide(BITS, high, low, divisor).ok_or(Fault::DE)?;
    set_halves(cpu, BITS, quotient, remainder);
    Ok(())
}

fn divide_r<B: Bus, const SIGNED: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let divisor = register(cpu, BITS, op.dst);
    divide_halves::<B, SIGNED, BITS>(cpu, divisor)
}

fn divide_m<B: Bus, const SIGNED: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let divisor = read::<B, BITS>(cpu, bus, &op.mem)?;
    divide_halves::<B, SIGNED, BITS>(cpu, divisor)
}
