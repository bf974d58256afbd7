//! Fetching operands and writing results, wherever they lie.

use iced_x86::{Code, Instruction, OpKind, Register};

use super::moves::{allows_unaligned, is_non_temporal};
use crate::{Bus, Cpu, Fault};

/// Exponent and sign that an MMX write leaves in the x87 register. SDM vol. 1, section 9.2.
const MMX_EXPONENT: u128 = 0xffff << 64;

const CR0_EM: u64 = 1 << 2;
const CR0_TS: u64 = 1 << 3;
const CR0_NE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;

/// Which registers an instruction works on: SDM vol. 3, sections 2.5 and 13.1, ask for other control bits for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registers {
    /// General ones and memory only: MOVNTI.
    General,
    /// MMX registers and no XMM register.
    Mmx,
    /// XMM registers or MXCSR.
    Xmm,
}

/// See [`Registers`].
pub(super) fn registers(i: &Instruction) -> Registers {
    let is = |n: u32, f: fn(Register) -> bool| i.op_kind(n) == OpKind::Register && f(i.op_register(n));
    match i.code() {
        Code::Movnti_m32_r32 | Code::Movnti_m64_r64 => Registers::General,
        Code::Emms => Registers::Mmx,
        _ if uses_mmx(i) && !(0..i.op_count()).any(|n| is(n, Register::is_xmm)) => Registers::Mmx,
        _ => Registers::Xmm,
    }
}

/// Raises #UD or #NM if the system has not switched on what instructions on `registers` need.
pub(super) fn check_enabled<B: Bus>(cpu: &Cpu<B>, registers: Registers) -> Result<(), Fault> {
    match registers {
        Registers::General => Ok(()),
        Registers::Xmm if cpu.state.cr4 & CR4_OSFXSR == 0 => Err(Fault::UD),
        _ if cpu.state.cr0 & CR0_EM != 0 => Err(Fault::UD),
        _ if cpu.state.cr0 & CR0_TS != 0 => Err(Fault::NM),
        _ => Ok(()),
    }
}

/// [`check_enabled`] for instructions on XMM registers.
#[inline(always)]
pub(super) fn check_usable<B: Bus>(cpu: &Cpu<B>) -> Result<(), Fault> {
    let usable = cpu.state.cr0 & (CR0_EM | CR0_TS) == 0 && cpu.state.cr4 & CR4_OSFXSR != 0;
    if usable { Ok(()) } else { check_enabled(cpu, Registers::Xmm) }
}

/// Whether `i` names an MMX register: it then puts the x87 unit into MMX state, and waits for its exceptions first.
pub(super) fn uses_mmx(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm())
}

/// Raises what x87 instructions left pending, SDM vol. 1, section 9.6.2. Without CR0.NE it goes to a pin that this
/// machine has not wired.
pub(super) fn check_pending_x87<B: Bus>(cpu: &Cpu<B>) -> Result<(), Fault> {
    let x87 = &cpu.state.x87;
    if cpu.state.cr0 & CR0_NE != 0 && x87.status & !x87.control & 0x3f != 0 { Err(Fault::MF) } else { Ok(()) }
}

/// What every MMX instruction but EMMS does to the x87 unit: TOP is 0, every register valid.
pub(super) fn enter_mmx<B: Bus>(cpu: &mut Cpu<B>) {
    cpu.state.x87.status &= !(7 << 11);
    cpu.state.x87.tags = 0xff;
}

/// Where the memory operand of `i` is: aligned if it must be.
pub(super) fn memory_address<B: Bus>(cpu: &Cpu<B>, i: &Instruction, operand: u32) -> Result<u64, Fault> {
    let address = cpu.operand_address(i, operand);
    if !address.is_multiple_of(16) && i.memory_size().size() == 16 && !allows_unaligned(i.code()) {
        return Err(Fault::GP0);
    }
    Ok(address)
}

/// The value of operand `n`, zero-extended.
pub(super) fn fetch<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, i: &Instruction, n: u32) -> Result<u128, Fault> {
    match i.op_kind(n) {
        OpKind::Register => Ok(register(cpu, i.op_register(n))),
        OpKind::Memory => {
            let address = memory_address(cpu, i, n)?;
            Ok(match i.memory_size().size() {
                1 => u8::from_le_bytes(cpu.read(bus, address)?) as u128,
                2 => u16::from_le_bytes(cpu.read(bus, address)?) as u128,
                4 => u32::from_le_bytes(cpu.read(bus, address)?) as u128,
                8 => u64::from_le_bytes(cpu.read(bus, address)?) as u128,
                _ => u128::from_le_bytes(cpu.read(bus, address)?),
            })
        }
        _ => Ok(i.immediate8() as u128),
    }
}

/// Writes the result to operand 0.
pub(super) fn store<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    i: &Instruction,
    value: u128,
) -> Result<(), Fault> {
    if i.op0_kind() == OpKind::Register {
        set_register(cpu, i.op0_register(), value);
        return Ok(());
    }
    let address = memory_address(cpu, i, 0)?;
    let size = i.memory_size().size();
    if is_non_temporal(i.code()) {
        return cpu.write_non_temporal(bus, address, &value.to_le_bytes()[..size]);
    }
    match size {
        1 => cpu.write(bus, address, (value as u8).to_le_bytes()),
        2 => cpu.write(bus, address, (value as u16).to_le_bytes()),
        4 => cpu.write(bus, address, (value as u32).to_le_bytes()),
        8 => cpu.write(bus, address, (value as u64).to_le_bytes()),
        _ => cpu.write(bus, address, value.to_le_bytes()),
    }
}

/// A register's value, zero-extended.
pub(super) fn register<B: Bus>(cpu: &Cpu<B>, register: Register) -> u128 {
    let n = register.number();
    if register.is_xmm() {
        cpu.state.xmm[n & 15]
    } else if register.is_mm() {
        cpu.state.x87.regs[n & 7] as u64 as u128
    } else if register.is_gpr32() {
        cpu.state.regs[n & 15] as u32 as u128
    } else {
        cpu.state.regs[n & 15] as u128
    }
}

fn set_register<B: Bus>(cpu: &mut Cpu<B>, register: Register, value: u128) {
    let n = register.number();
    if register.is_xmm() {
        cpu.state.xmm[n & 15] = value;
    } else if register.is_mm() {
        cpu.state.x87.regs[n & 7] = value as u64 as u128 | MMX_EXPONENT;
    } else if register.is_gpr32() {
        cpu.state.regs[n & 15] = value as u32 as u64;
    } else {
        cpu.state.regs[n & 15] = value as u64;
    }
}
