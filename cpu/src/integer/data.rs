//! General handlers of the instructions that move, convert and exchange data, or set single flags.

use iced_x86::{Instruction, Mnemonic, Register};

use super::{
    flags::{self, LazyFlags, sign_extend},
    operand::{Operand, full, moved, register, set_register},
};
use crate::{Bus, Cpu, Fault, op::Op};

const RAX: u8 = 0;
const RDX: u8 = 2;

/// MOV, MOVZX
pub(super) fn mov<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let value = Operand::new(cpu, i, 1).read(cpu, bus)?;
    Operand::new(cpu, i, 0).write(cpu, bus, value)
}

/// MOVSX, MOVSXD
pub(super) fn movsx<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let source = Operand::new(cpu, i, 1);
    let value = source.read(cpu, bus)?;
    Operand::new(cpu, i, 0).write(cpu, bus, sign_extend(source.bits, value))
}

/// LEA
pub(super) fn lea<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let address = cpu.effective_address(i);
    Operand::new(cpu, i, 0).write(cpu, bus, address)
}

/// XCHG: always locked with memory.
pub(super) fn xchg<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let (destination, source) = (Operand::new(cpu, i, 0), Operand::new(cpu, i, 1));
    let b = source.read(cpu, bus)?;
    destination.check_writable(cpu, bus)?;
    let a = destination.read(cpu, bus)?;
    if destination.address().is_some() {
        cpu.locked(bus);
    }
    source.write(cpu, bus, a)?;
    destination.write(cpu, bus, b)
}

/// XLATB: its index is AL, where the address computation takes all of RAX.
pub(super) fn xlat<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let above_al = register(cpu, 64, RAX) & !0xff;
    let value = moved(cpu, full(op), 0, above_al.wrapping_neg(), false)?.read(cpu, bus)?;
    set_register(cpu, 8, RAX, value);
    Ok(())
}

/// CBW, CWDE, CDQE
pub(super) fn extend_accumulator<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let bits = match full(op).mnemonic() {
        Mnemonic::Cbw => 16,
        Mnemonic::Cwde => 32,
        _ => 64,
    };
    let value = sign_extend(bits / 2, register(cpu, bits / 2, RAX));
    set_register(cpu, bits, RAX, value);
    Ok(())
}

/// CWD, CDQ, CQO
pub(super) fn extend_into_rdx<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let bits = match full(op).mnemonic() {
        Mnemonic::Cwd => 16,
        Mnemonic::Cdq => 32,
        _ => 64,
    };
    let sign = register(cpu, bits, RAX) >> (bits - 1);
    set_register(cpu, bits, RDX, sign.wrapping_neg());
    Ok(())
}

/// LAHF
pub(super) fn lahf<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, _: &Op<B>) -> Result<(), Fault> {
    let low = cpu.flags.fold(1 << 1);
    Operand::register(Register::AH).write(cpu, bus, low)
}

/// SAHF
pub(super) fn sahf<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, _: &Op<B>) -> Result<(), Fault> {
    let low = Operand::register(Register::AH).read(cpu, bus)?;
    cpu.flags = LazyFlags::load(low | cpu.flags.fold(0) & flags::OF);
    Ok(())
}

/// CLC, STC, CMC, CLD, STD
pub(super) fn change_flag<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    match full(op).mnemonic() {
        Mnemonic::Clc => cpu.flags.set_cf(false),
        Mnemonic::Stc => cpu.flags.set_cf(true),
        Mnemonic::Cmc => cpu.flags.set_cf(!cpu.flags.cf()),
        Mnemonic::Cld => cpu.state.rflags &= !flags::DF,
        _ => cpu.state.rflags |= flags::DF,
    }
    Ok(())
}

/// The low four bits of a conditional instruction's opcode.
pub(super) fn condition_code(i: &Instruction) -> u8 {
    // iced numbers the conditions as the encoding does, after 0 for "none".
    (i.condition_code() as u8).wrapping_sub(1)
}

/// SETcc
pub(super) fn setcc<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let value = cpu.flags.condition(condition_code(i));
    Operand::new(cpu, i, 0).write(cpu, bus, value as u64)
}

/// CMOVcc: reads its source always, and a 32-bit destination is zero-extended even when nothing is moved.
pub(super) fn cmovcc<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let (destination, source) = (Operand::new(cpu, i, 0), Operand::new(cpu, i, 1));
    let new = source.read(cpu, bus)?;
    let old = destination.read(cpu, bus)?;
    let moves = cpu.flags.condition(condition_code(i));
    destination.write(cpu, bus, if moves { new } else { old })
}
