//! MMX and SSE to SSE4.2, without CRC32, POPCNT (integer), FISTTP, FXSAVE (x87), PREFETCH and fences (core).
//!
//! What an instruction computes is a pure function on 128-bit values, found in one table per family; fetching the
//! operands and writing the result is the same for all of them. The few that do more stand in `special`. [`hot`] and
//! [`hot_float`] repeat the commonest ones with their operands resolved at decoding.

mod approximate;
mod arithmetic;
mod compare;
mod convert;
mod float;
mod form;
mod hot;
mod hot_float;
mod integer;
mod lanes;
mod moves;
mod mxcsr;
mod operands;
mod shuffles;
mod special;
mod strings;
#[cfg(test)]
mod tests;

use iced_x86::{Code, Instruction, OpKind};

use crate::{
    Bus, Cpu, Fault,
    integer::LazyFlags,
    op::{Handler, Op},
};
use form::Form;
use mxcsr::Mxcsr;

pub(crate) use hot::specialise;

/// The general handler of `i`, if `i` is an instruction of this module. The handler wants `op.full`. It
/// checks CR0.EM, CR0.TS and CR4.OSFXSR itself, as do the specialised ones.
pub(crate) fn general<B: Bus>(i: &Instruction) -> Option<Handler<B>> {
    let known = special::handles(i.code()) || form_of(i.code(), false).is_some();
    known.then_some(execute as Handler<B>)
}

/// Executes `op.full`, which must be there and one that this module has a [`general`] handler for.
pub(crate) fn execute<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let Some(i) = op.full.as_deref() else { return Err(Fault::UD) };
    operands::check_enabled(cpu, operands::registers(i))?;
    let mmx = operands::uses_mmx(i);
    if mmx {
        operands::check_pending_x87(cpu)?;
    }
    let result = match form_of(i.code(), i.op1_kind() == OpKind::Memory) {
        Some(form) => compute(cpu, bus, i, form),
        None => special::execute(cpu, bus, i),
    };
    // Hardware has changed over by the time a conversion raises its exception.
    if mmx && (result.is_ok() || result == Err(Fault::XM)) {
        operands::enter_mmx(cpu);
    }
    result
}

/// Raises what comes before the limit of a segment if `i` is an instruction of this module: #UD or #NM if the system has
/// not switched on what it needs, #MF if MMX waits for one, #GP(0) if its memory operand is not aligned as it must be.
pub(crate) fn check_usable_by<B: Bus>(cpu: &Cpu<B>, i: &Instruction) -> Result<(), Fault> {
    if general::<B>(i).is_none() {
        return Ok(());
    }
    operands::check_enabled(cpu, operands::registers(i))?;
    if operands::uses_mmx(i) {
        operands::check_pending_x87(cpu)?;
    }
    match (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory) {
        Some(operand) => operands::memory_address(cpu, i, operand).map(drop),
        None => Ok(()),
    }
}

/// `None` for what `special` does, and for instructions of other modules.
fn form_of(code: Code, from_memory: bool) -> Option<Form> {
    if special::handles(code) || is_string_instruction(code) {
        return None;
    }
    let mnemonic = code.mnemonic();
    moves::form(code, from_memory)
        .or_else(|| integer::form(mnemonic))
        .or_else(|| shuffles::form(code, mnemonic))
        .or_else(|| arithmetic::form(mnemonic))
        .or_else(|| approximate::form(mnemonic))
        .or_else(|| compare::form(mnemonic))
        .or_else(|| convert::form(code))
}

/// MOVSD and CMPSD are also the names of the string instructions.
fn is_string_instruction(code: Code) -> bool {
    matches!(code, Code::Movsd_m32_m32 | Code::Cmpsd_m32_m32)
}

fn compute<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, i: &Instruction, form: Form) -> Result<(), Fault> {
    let a = if i.op0_kind() == OpKind::Register { operands::register(cpu, i.op0_register()) } else { 0 };
    let b = operands::fetch(cpu, bus, i, 1)?;
    let result = match form {
        Form::Lanes(f) => f(a, b),
        Form::Across(f) => f(a, b, if i.op0_register().is_mm() { 8 } else { 16 }),
        Form::Immediate(f) => f(a, b, immediate(i)),
        Form::Masked(f) => f(a, b, cpu.state.xmm[0]),
        Form::Float(f) => in_mxcsr(cpu, |mxcsr| f(mxcsr, a, b))?,
        Form::FloatImmediate(f) => in_mxcsr(cpu, |mxcsr| f(mxcsr, a, b, i.immediate8()))?,
        Form::Flags(f) => {
            let flags = in_mxcsr(cpu, |mxcsr| f(mxcsr, a, b))?;
            cpu.flags = LazyFlags::load(flags);
            return Ok(());
        }
    };
    operands::store(cpu, bus, i, result)
}

/// Computes under MXCSR and keeps the exception flags. An unmasked exception becomes a fault, with the flags kept.
#[inline(always)]
fn in_mxcsr<B: Bus, T>(cpu: &mut Cpu<B>, compute: impl FnOnce(&mut Mxcsr) -> T) -> Result<T, Fault> {
    const CR4_OSXMMEXCPT: u64 = 1 << 10;
    let mut mxcsr = Mxcsr::new(cpu.state.mxcsr);
    let result = compute(&mut mxcsr);
    let (value, unmasked) = mxcsr.finish();
    cpu.state.mxcsr = value;
    match unmasked {
        false => Ok(result),
        true if cpu.state.cr4 & CR4_OSXMMEXCPT != 0 => Err(Fault::XM),
        true => Err(Fault::UD),
    }
}

/// INSERTPS from memory has one element to choose from, whatever its immediate says.
fn immediate(i: &Instruction) -> u8 {
    match i.code() == Code::Insertps_xmm_xmmm32_imm8 && i.op1_kind() == OpKind::Memory {
        true => i.immediate8() & 0x3f,
        false => i.immediate8(),
    }
}
