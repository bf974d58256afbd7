//! General handlers of arithmetic, logic, shifts, multiplication, division and the exchanging arithmetic.

use iced_x86::{Instruction, Mnemonic};

use super::{
    alu::{self, Binary, Unary, mask},
    operand::{Operand, full, register, set_register},
    shift::{self, Shift},
};
use crate::{Bus, Cpu, Fault, op::Op};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RBX: u8 = 3;

/// ADD, OR, ADC, SBB, AND, SUB, XOR, CMP
pub(super) fn binary<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let kind = binary_of(i.mnemonic());
    let (destination, source) = (Operand::new(cpu, i, 0), Operand::new(cpu, i, 1));
    let bits = destination.bits;
    let b = source.read(cpu, bus)?;
    if kind == Binary::Cmp {
        let a = destination.read(cpu, bus)?;
        alu::binary(kind, &mut cpu.flags, bits, a, b);
        return Ok(());
    }
    destination.modify(cpu, bus, i.has_lock_prefix(), |cpu, a| alu::binary(kind, &mut cpu.flags, bits, a, b))
}

pub(super) fn binary_of(mnemonic: Mnemonic) -> Binary {
    match mnemonic {
        Mnemonic::Add => Binary::Add,
        Mnemonic::Or => Binary::Or,
        Mnemonic::Adc => Binary::Adc,
        Mnemonic::Sbb => Binary::Sbb,
        Mnemonic::And => Binary::And,
        Mnemonic::Sub => Binary::Sub,
        Mnemonic::Xor => Binary::Xor,
        _ => Binary::Cmp,
    }
}

/// TEST
pub(super) fn test<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let destination = Operand::new(cpu, i, 0);
    let b = Operand::new(cpu, i, 1).read(cpu, bus)?;
    let a = destination.read(cpu, bus)?;
    alu::binary(Binary::And, &mut cpu.flags, destination.bits, a, b);
    Ok(())
}

/// INC, DEC, NEG, NOT
pub(super) fn unary<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let kind = match i.mnemonic() {
        Mnemonic::Inc => Unary::Inc,
        Mnemonic::Dec => Unary::Dec,
        Mnemonic::Neg => Unary::Neg,
        _ => Unary::Not,
    };
    let destination = Operand::new(cpu, i, 0);
    destination
        .modify(cpu, bus, i.has_lock_prefix(), |cpu, a| alu::unary(kind, &mut cpu.flags, destination.bits, a))
}

/// ROL, ROR, RCL, RCR, SHL, SHR, SAR
pub(super) fn shift<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let kind = shift_of(i.mnemonic());
    let destination = Operand::new(cpu, i, 0);
    let count = Operand::new(cpu, i, 1).read(cpu, bus)?;
    destination
        .modify(cpu, bus, false, |cpu, a| shift::shift(kind, &mut cpu.flags, destination.bits, a, count))
}

pub(super) fn shift_of(mnemonic: Mnemonic) -> Shift {
    match mnemonic {
        Mnemonic::Rol => Shift::Rol,
        Mnemonic::Ror => Shift::Ror,
        Mnemonic::Rcl => Shift::Rcl,
        Mnemonic::Rcr => Shift::Rcr,
        Mnemonic::Shr => Shift::Shr,
        Mnemonic::Sar => Shift::Sar,
        _ => Shift::Shl,
    }
}

/// SHLD, SHRD
pub(super) fn double_shift<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let destination = Operand::new(cpu, i, 0);
    let filler = Operand::new(cpu, i, 1).read(cpu, bus)?;
    let count = Operand::new(cpu, i, 2).read(cpu, bus)?;
    let bits = destination.bits;
    destination.modify(cpu, bus, false, |cpu, a| match i.mnemonic() {
        Mnemonic::Shld => shift::shld(&mut cpu.flags, bits, a, filler, count),
        _ => shift::shrd(&mut cpu.flags, bits, a, filler, count),
    })
}

/// MUL and IMUL with one operand: RDX:RAX (or AX) becomes the product.
pub(super) fn multiply_accumulator<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let source = Operand::new(cpu, i, 0);
    let bits = source.bits;
    let b = source.read(cpu, bus)?;
    let a = register(cpu, bits, RAX);
    let multiply = if i.mnemonic() == Mnemonic::Mul { alu::mul } else { alu::imul };
    let (low, high) = multiply(&mut cpu.flags, bits, a, b);
    set_halves(cpu, bits, low, high);
    Ok(())
}

/// Stores two halves in RDX:RAX, EDX:EAX, DX:AX or AH:AL.
#[inline(always)]
pub(super) fn set_halves<B: Bus>(cpu: &mut Cpu<B>, bits: u32, low: u64, high: u64) {
    if bits == 8 {
        set_register(cpu, 16, RAX, (high & 0xff) << 8 | low & 0xff);
    } else {
        set_register(cpu, bits, RAX, low);
        set_register(cpu, bits, RDX, high);
    }
}

/// IMUL with two or three operands
pub(super) fn imul<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let destination = Operand::new(cpu, i, 0);
    let a = Operand::new(cpu, i, i.op_count() - 2).read(cpu, bus)?;
    let b = Operand::new(cpu, i, i.op_count() - 1).read(cpu, bus)?;
    let (product, _) = alu::imul(&mut cpu.flags, destination.bits, a, b);
    destination.write(cpu, bus, product)
}

/// DIV, IDIV
pub(super) fn divide<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let source = Operand::new(cpu, i, 0);
    let bits = source.bits;
    let divisor = source.read(cpu, bus)?;
    let low = register(cpu, bits, RAX);
    let high = if bits == 8 { register(cpu, 16, RAX) >> 8 } else { register(cpu, bits, RDX) };
    let divide = if i.mnemonic() == Mnemonic::Div { alu::div } else { alu::idiv };
    let (quotient, remainder) = divide(bits, high, low, divisor).ok_or(Fault::DE)?;
    set_halves(cpu, bits, quotient, remainder);
    Ok(())
}

/// XADD
pub(super) fn xadd<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let (destination, source) = (Operand::new(cpu, i, 0), Operand::new(cpu, i, 1));
    let b = source.read(cpu, bus)?;
    destination.check_writable(cpu, bus)?;
    let a = destination.read(cpu, bus)?;
    if i.has_lock_prefix() {
        cpu.locked(bus);
    }
    let sum = alu::binary(Binary::Add, &mut cpu.flags, destination.bits, a, b);
    // The source first, so that XADD of a register with itself leaves the sum.
    source.write(cpu, bus, a)?;
    destination.write(cpu, bus, sum)
}

/// CMPXCHG
pub(super) fn cmpxchg<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let destination = Operand::new(cpu, i, 0);
    let bits = destination.bits;
    let new = Operand::new(cpu, i, 1).read(cpu, bus)?;
    destination.check_writable(cpu, bus)?;
    let old = destination.read(cpu, bus)?;
    let expected = register(cpu, bits, RAX);
    if i.has_lock_prefix() {
        cpu.locked(bus);
    }
    alu::binary(Binary::Cmp, &mut cpu.flags, bits, expected, old);
    if old == expected {
        return destination.write(cpu, bus, new);
    }
    // Hardware writes the old value back to memory, where nobody sees it; a register it does not touch at all.
    set_register(cpu, bits, RAX, old);
    Ok(())
}

/// CMPXCHG8B
pub(super) fn cmpxchg8b<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    compare_exchange_pair(cpu, bus, full(op), 32)
}

/// CMPXCHG16B: #GP when not aligned to 16.
pub(super) fn cmpxchg16b<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let linear = cpu.operand_address(i, 0);
    if !linear.is_multiple_of(16) {
        return Err(Fault::GP0);
    }
    compare_exchange_pair(cpu, bus, i, 64)
}

/// Compares RDX:RAX with memory of twice `bits`; equal: RCX:RBX goes there, else it comes to RDX:RAX. Sets ZF only.
fn compare_exchange_pair<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    i: &Instruction,
    bits: u32,
) -> Result<(), Fault> {
    let destination = Operand::new(cpu, i, 0);
    destination.check_writable(cpu, bus)?;
    let linear = cpu.operand_address(i, 0);
    let old = if bits == 32 {
        u64::from_le_bytes(cpu.read(bus, linear)?) as u128
    } else {
        u128::from_le_bytes(cpu.read(bus, linear)?)
    };
    if i.has_lock_prefix() {
        cpu.locked(bus);
    }
    let pair = |high, low| (register(cpu, bits, high) as u128) << bits | register(cpu, bits, low) as u128;
    let (expected, new) = (pair(RDX, RAX), pair(RCX, RBX));
    if old != expected {
        cpu.flags.set_zf(false);
        set_register(cpu, bits, RAX, old as u64 & mask(bits));
        set_register(cpu, bits, RDX, (old >> bits) as u64);
        return Ok(());
    }
    if bits == 32 {
        cpu.write(bus, linear, (new as u64).to_le_bytes())?;
    } else {
        cpu.write(bus, linear, new.to_le_bytes())?;
    }
    cpu.flags.set_zf(true);
    Ok(())
}
