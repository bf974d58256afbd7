//! Near jumps, calls and returns.

use iced_x86::{Code, Instruction, Mnemonic};

use super::{
    super::{
        branch::{call_target, canonical},
        data::condition_code,
        operand::{load, load_fast, register, set_register},
        stack::{RSP, stack_fault},
    },
    Kinds, Shape, for_condition,
    moves::push,
    operands::read,
};
use crate::{
    Bus, Cpu, Fault,
    op::{Handler, Op},
    state::REG_RIP,
};

pub(super) fn select<B: Bus>(i: &Instruction, shape: &Shape) -> Option<Handler<B>> {
    if i.is_jcc_short_or_near() && shape.kinds == Kinds::Near {
        return for_condition!(condition_code(i), jcc);
    }
    match (i.mnemonic(), shape.kinds) {
        (Mnemonic::Jmp, Kinds::Near) => Some(jmp),
        (Mnemonic::Jmp, Kinds::R) if shape.bits == 64 => Some(jmp_r),
        (Mnemonic::Jmp, Kinds::M) if shape.bits == 64 && i.is_jmp_near_indirect() => Some(jmp_m),
        (Mnemonic::Call, Kinds::Near) => Some(call),
        (Mnemonic::Call, Kinds::R) if shape.bits == 64 => Some(call_r),
        (Mnemonic::Call, Kinds::M) if shape.bits == 64 && i.is_call_near_indirect() => Some(call_m),
        (Mnemonic::Ret, Kinds::None) if i.code() == Code::Retnq => Some(ret),
        _ => None,
    }
}

#[inline(always)]
fn jump<B: Bus>(cpu: &mut Cpu<B>, target: u64) -> Result<(), Fault> {
    cpu.state.regs[REG_RIP] = canonical(target)?;
    Ok(())
}

#[inline(always)]
fn relative<B: Bus>(cpu: &Cpu<B>, op: &Op<B>) -> u64 {
    cpu.state.regs[REG_RIP].wrapping_add(op.imm())
}

fn jcc<B: Bus, const CONDITION: u8>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    if cpu.flags.condition(CONDITION) { jump(cpu, relative(cpu, op)) } else { Ok(()) }
}

fn jmp<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    jump(cpu, relative(cpu, op))
}

fn jmp_r<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let target = register(cpu, 64, op.dst);
    jump(cpu, target)
}

fn jmp_m<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let target = read::<B, 64>(cpu, bus, &op.mem)?;
    jump(cpu, target)
}

#[inline(always)]
fn call_to<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, target: u64) -> Result<(), Fault> {
    let target = call_target(cpu, bus, target)?;
    let next = cpu.state.regs[REG_RIP];
    push(cpu, bus, next)?;
    cpu.state.regs[REG_RIP] = target;
    Ok(())
}

fn call<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let target = relative(cpu, op);
    call_to(cpu, bus, target)
}

fn call_r<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let target = register(cpu, 64, op.dst);
    call_to(cpu, bus, target)
}

fn call_m<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let target = read::<B, 64>(cpu, bus, &op.mem)?;
    call_to(cpu, bus, target)
}

fn ret<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let pointer = register(cpu, 64, RSP);
    let target = load_fast(cpu, 64, pointer).filter(|target| canonical(*target).is_ok());
    let Some(target) = target else { return ret_slow(cpu, bus, op) };
    cpu.state.regs[REG_RIP] = target;
    set_register(cpu, 64, RSP, pointer.wrapping_add(8));
    Ok(())
}

#[cold]
#[inline(never)]
fn ret_slow<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, _: &Op<B>) -> Result<(), Fault> {
    let pointer = register(cpu, 64, RSP);
    let target = load(cpu, bus, 64, pointer).map_err(stack_fault)?;
    jump(cpu, target)?;
    set_register(cpu, 64, RSP, pointer.wrapping_add(8));
    Ok(())
}
