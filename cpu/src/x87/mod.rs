//! The x87 floating-point unit, and FXSAVE and FXRSTOR. SDM vol. 1, chapter 8.
//!
//! Where processors differ: the last opcode (FOP) is stored for unmasked exceptions alone (SDM vol. 1, 8.1.9.1); the
//! selectors of the last instruction and operand read as zero, as they do on processors that deprecate them;
//! transcendental functions are rounded correctly, which hardware does not promise.

mod arithmetic;
mod format;
mod image;
mod number;
mod operation;
mod rounding;
#[cfg(test)]
mod tests;
mod transcendental;
mod unit;

use std::cmp::Ordering;

use iced_x86::{Instruction, OpKind};

use crate::integer::LazyFlags;
use crate::op::Op;
use crate::state::REG_RIP;
use crate::{Bus, Cpu, Fault, StoreKind};
use operation::{Format, Operation, Source};
use unit::{Stored, Unit};

const CR0_NE: u64 = 1 << 5;

/// Raises #NM (#UD for FXSAVE and FXRSTOR under CR0.EM) if `i` is an instruction of this module and CR0 wants it to be
/// emulated or to wait for a task's state, SDM vol. 3, table 2-2; #MF if it waits for an exception that is pending.
pub(crate) fn check_usable_by<B: Bus>(cpu: &Cpu<B>, i: &Instruction) -> Result<(), Fault> {
    const CR0_MP: u64 = 1 << 1;
    const CR0_EM: u64 = 1 << 2;
    const CR0_TS: u64 = 1 << 3;
    let cr0 = cpu.state.cr0;
    // Without CR0.NE the error goes to a pin that this machine has not wired.
    let pending = cr0 & CR0_NE != 0 && Unit::new(cpu.state.x87).pending();
    if cr0 & (CR0_EM | CR0_TS) == 0 && !pending {
        return Ok(());
    }
    let Some(operation) = Operation::of(i.code()) else { return Ok(()) };
    let switched_off = match operation {
        Operation::Wait => cr0 & CR0_MP != 0 && cr0 & CR0_TS != 0,
        Operation::Save { .. } | Operation::Restore { .. } if cr0 & CR0_EM != 0 => return Err(Fault::UD),
        _ => cr0 & (CR0_EM | CR0_TS) != 0,
    };
    match switched_off {
        true => Err(Fault::NM),
        false if pending && operation.waits() => Err(Fault::MF),
        false => Ok(()),
    }
}

/// Executes an x87 instruction, WAIT, FXSAVE or FXRSTOR.
pub(crate) fn execute<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let Some(instruction) = op.full.as_deref() else {
        return Err(Fault::UD);
    };
    let Some(operation) = Operation::of(instruction.code()) else {
        return Err(Fault::UD);
    };
    check_usable_by(cpu, instruction)?;
    let mut unit = Unit::new(cpu.state.x87);
    let memory = memory_operand(instruction);
    let address = memory.map_or(0, |operand| cpu.operand_address(instruction, operand));
    if operation.is_control() {
        return execute_control(cpu, bus, operation, unit, address);
    }
    let operand = match source_format(operation) {
        Some(format) => read_operand(cpu, bus, address, format)?,
        None => [0; 10],
    };
    let holds = match operation {
        Operation::Move(condition) => cpu.flags.condition(condition),
        _ => false,
    };
    let ip = cpu.state.regs[REG_RIP].wrapping_sub(u64::from(op.len));
    // Real mode tells linear addresses, and only there do they differ from offsets without a selector to go with them.
    unit.state.ip = if cpu.protected() { ip } else { cpu.code_linear(ip) };
    if memory.is_some() {
        unit.state.dp = if cpu.protected() { cpu.effective_address(instruction) } else { address };
    }
    let effect = unit.execute(operation, operation::register_index(instruction), &operand, holds);
    if unit.pending() {
        unit.state.opcode = op.imm as u16;
    }
    match (effect.store, stored_format(operation)) {
        (Some(stored), _) => write_operand(cpu, bus, address, stored)?,
        // An unmasked exception keeps the operand from being stored, but a page fault comes before it.
        (None, Some(format)) => cpu.check_writable(bus, address, format.size())?,
        (None, None) => {}
    }
    if let Some(order) = effect.compared {
        cpu.flags = LazyFlags::load(order_flags(order));
    }
    cpu.state.x87 = unit.state;
    Ok(())
}

fn memory_operand(instruction: &Instruction) -> Option<u32> {
    (0..instruction.op_count()).find(|operand| instruction.op_kind(*operand) == OpKind::Memory)
}

fn source_format(operation: Operation) -> Option<Format> {
    match operation {
        Operation::Arithmetic(_, Source::Memory(format))
        | Operation::Load(Source::Memory(format))
        | Operation::Compare { source: Source::Memory(format), .. } => Some(format),
        _ => None,
    }
}

fn stored_format(operation: Operation) -> Option<Format> {
    match operation {
        Operation::Store(format, _) | Operation::StoreTruncated(format) => Some(format),
        _ => None,
    }
}

fn read_operand<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    address: u64,
    format: Format,
) -> Result<[u8; 10], Fault> {
    let mut operand = [0; 10];
    match format {
        Format::Word => operand[..2].copy_from_slice(&cpu.read::<2>(bus, address)?),
        Format::Single | Format::Doubleword => operand[..4].copy_from_slice(&cpu.read::<4>(bus, address)?),
        Format::Double | Format::Quadword => operand[..8].copy_from_slice(&cpu.read::<8>(bus, address)?),
        Format::Extended | Format::Decimal => operand = cpu.read::<10>(bus, address)?,
    }
    Ok(operand)
}

fn write_operand<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, address: u64, stored: Stored) -> Result<(), Fault> {
    match stored {
        Stored::Two(bytes) => cpu.write(bus, address, bytes),
        Stored::Four(bytes) => cpu.write(bus, address, bytes),
        Stored::Eight(bytes) => cpu.write(bus, address, bytes),
        Stored::Ten(bytes) => cpu.write(bus, address, bytes),
    }
}

/// ZF, PF and CF of a comparison; OF, SF and AF become zero.
fn order_flags(order: Option<Ordering>) -> u64 {
    const CF: u64 = 1;
    const PF: u64 = 1 << 2;
    const ZF: u64 = 1 << 6;
    match order {
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => CF,
        Some(Ordering::Equal) => ZF,
        None => ZF | PF | CF,
    }
}

fn execute_control<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    operation: Operation,
    mut unit: Unit,
    address: u64,
) -> Result<(), Fault> {
    match operation {
        Operation::LoadControl => unit.set_control(u16::from_le_bytes(cpu.read(bus, address)?)),
        Operation::StoreControl => cpu.write(bus, address, unit.state.control.to_le_bytes())?,
        Operation::StoreStatus => cpu.write(bus, address, unit.state.status.to_le_bytes())?,
        Operation::StoreStatusAx => {
            let rax = &mut cpu.state.regs[0];
            *rax = *rax & !0xffff | u64::from(unit.state.status);
        }
        Operation::ClearExceptions => unit.clear_exceptions(),
        Operation::Initialise => unit.initialise(),
        Operation::LoadEnvironment(size) => load_environment(cpu, bus, &mut unit, size, address)?,
        Operation::StoreEnvironment(size) => store_environment(cpu, bus, &mut unit, size, address)?,
        Operation::Save { wide } => return save_extended(cpu, bus, &unit, wide, address),
        Operation::Restore { wide } => restore_extended(cpu, bus, &mut unit, wide, address)?,
        _ => {}
    }
    cpu.state.x87 = unit.state;
    Ok(())
}

fn load_environment<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    unit: &mut Unit,
    size: usize,
    address: u64,
) -> Result<(), Fault> {
    let real = !cpu.protected();
    match size {
        14 => image::load_environment(unit, &cpu.read::<14>(bus, address)?, real),
        28 => image::load_environment(unit, &cpu.read::<28>(bus, address)?, real),
        94 => image::load_environment(unit, &cpu.read::<94>(bus, address)?, real),
        _ => image::load_environment(unit, &cpu.read::<108>(bus, address)?, real),
    }
    Ok(())
}

/// FNSTENV masks all exceptions after storing; FNSAVE initialises the unit.
fn store_environment<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    unit: &mut Unit,
    size: usize,
    address: u64,
) -> Result<(), Fault> {
    let image = image::environment(unit, size, !cpu.protected());
    match size {
        14 => cpu.write::<14>(bus, address, first(&image))?,
        28 => cpu.write::<28>(bus, address, first(&image))?,
        94 => cpu.write::<94>(bus, address, first(&image))?,
        _ => cpu.write::<108>(bus, address, image)?,
    }
    if size > 28 {
        unit.initialise();
    } else {
        unit.set_control(unit.state.control | 0x3f);
    }
    Ok(())
}

fn first<const N: usize>(image: &[u8; 108]) -> [u8; N] {
    std::array::from_fn(|i| image[i])
}

fn save_extended<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    unit: &Unit,
    wide: bool,
    address: u64,
) -> Result<(), Fault> {
    if address & 15 != 0 {
        return Err(cpu.misaligned(address));
    }
    let mut area = [0; image::FXSAVE_WRITTEN];
    image::store_extended(unit, wide, &mut area);
    area[24..28].copy_from_slice(&cpu.state.mxcsr.to_le_bytes());
    area[28..32].copy_from_slice(&image::MXCSR_MASK.to_le_bytes());
    for (bytes, register) in area[160..].chunks_exact_mut(16).zip(cpu.state.xmm) {
        bytes.copy_from_slice(&register.to_le_bytes());
    }
    cpu.probe_writable(bus, address, 512)?;
    if cpu.long_code() {
        return cpu.write(bus, address, area);
    }
    // There is no XMM8.
    cpu.write_slow(bus, address, &area[..288], StoreKind::Cached)
}

fn restore_extended<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    unit: &mut Unit,
    wide: bool,
    address: u64,
) -> Result<(), Fault> {
    if address & 15 != 0 {
        return Err(cpu.misaligned(address));
    }
    let area = cpu.read::<512>(bus, address)?;
    let mxcsr = u32::from_le_bytes([area[24], area[25], area[26], area[27]]);
    if mxcsr & !image::MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }
    image::load_extended(unit, wide, &area);
    cpu.state.mxcsr = mxcsr;
    let registers = if cpu.long_code() { 16 } else { 8 };
    for (register, bytes) in cpu.state.xmm[..registers].iter_mut().zip(area[160..].chunks_exact(16)) {
        *register = bytes.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte));
    }
    Ok(())
}
