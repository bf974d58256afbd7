//! General handlers of near branches.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use super::{
    alu::mask,
    data::condition_code,
    flags::sign_extend,
    operand::{Operand, full, register, set_register},
    stack,
};
use crate::{Bus, Cpu, Fault, op::Op, registers::CS, state::REG_RIP};

const RCX: u8 = 1;

/// Goes to `target`: #GP when it is not canonical, or outside of 64-bit mode beyond the segment's limit.
fn jump<B: Bus>(cpu: &mut Cpu<B>, target: u64) -> Result<(), Fault> {
    cpu.state.regs[REG_RIP] = reachable(cpu, target)?;
    Ok(())
}

fn reachable<B: Bus>(cpu: &Cpu<B>, target: u64) -> Result<u64, Fault> {
    if cpu.fetches_64_bit {
        canonical(target)
    } else if target <= u64::from(cpu.state.segments[CS].limit) {
        Ok(target)
    } else {
        Err(Fault::GP0)
    }
}

/// `target`, or #GP when it is not canonical.
#[inline(always)]
pub(super) fn canonical(target: u64) -> Result<u64, Fault> {
    if sign_extend(48, target) == target { Ok(target) } else { Err(Fault::GP0) }
}

/// As [`canonical`] for a 64-bit CALL: a fault of its push comes first.
#[inline(always)]
pub(super) fn call_target<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, target: u64) -> Result<u64, Fault> {
    let checked = canonical(target);
    if checked.is_err() {
        let top = register(cpu, 64, stack::RSP).wrapping_sub(8);
        cpu.check_writable(bus, top, 8).map_err(stack::stack_fault)?;
    }
    checked
}

/// Target of a relative branch. iced has made it absolute, relative to where it was told the instruction is; the
/// same bytes can be mapped at several addresses.
fn relative<B: Bus>(cpu: &Cpu<B>, i: &Instruction) -> u64 {
    let displacement = i.near_branch_target().wrapping_sub(i.next_ip());
    let bits = match i.op0_kind() {
        OpKind::NearBranch64 => 64,
        OpKind::NearBranch32 => 32,
        _ => 16,
    };
    cpu.state.regs[REG_RIP].wrapping_add(displacement) & mask(bits)
}

/// Target of a JMP or CALL and the operand size in bits.
fn target<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, i: &Instruction) -> Result<(u64, u32), Fault> {
    match i.op0_kind() {
        OpKind::NearBranch64 => Ok((relative(cpu, i), 64)),
        OpKind::NearBranch32 => Ok((relative(cpu, i), 32)),
        OpKind::NearBranch16 => Ok((relative(cpu, i), 16)),
        _ => {
            let operand = Operand::new(cpu, i, 0);
            Ok((operand.read(cpu, bus)?, operand.bits))
        }
    }
}

/// Jcc
pub(super) fn jcc<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    if cpu.flags.condition(condition_code(i)) { jump(cpu, relative(cpu, i)) } else { Ok(()) }
}

/// JCXZ, JECXZ, JRCXZ
pub(super) fn jump_if_counter_is_0<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let bits = match i.mnemonic() {
        Mnemonic::Jcxz => 16,
        Mnemonic::Jecxz => 32,
        _ => 64,
    };
    if register(cpu, bits, RCX) == 0 { jump(cpu, relative(cpu, i)) } else { Ok(()) }
}

/// LOOP, LOOPE, LOOPNE
pub(super) fn r#loop<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let bits = loop_counter_bits(i.code());
    let counter = register(cpu, bits, RCX).wrapping_sub(1) & mask(bits);
    let goes_on = match i.mnemonic() {
        Mnemonic::Loope => cpu.flags.zf(),
        Mnemonic::Loopne => !cpu.flags.zf(),
        _ => true,
    };
    if counter != 0 && goes_on {
        jump(cpu, relative(cpu, i))?;
    }
    set_register(cpu, bits, RCX, counter);
    Ok(())
}

fn loop_counter_bits(code: Code) -> u32 {
    use Code::*;
    match code {
        Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX | Loopne_rel8_16_CX
        | Loopne_rel8_32_CX => 16,
        Loop_rel8_16_ECX | Loop_rel8_32_ECX | Loop_rel8_64_ECX | Loope_rel8_16_ECX | Loope_rel8_32_ECX
        | Loope_rel8_64_ECX | Loopne_rel8_16_ECX | Loopne_rel8_32_ECX | Loopne_rel8_64_ECX => 32,
        _ => 64,
    }
}

/// JMP near
pub(super) fn jmp<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let (target, _) = target(cpu, bus, full(op))?;
    jump(cpu, target)
}

/// CALL near
pub(super) fn call<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let (target, bits) = target(cpu, bus, i)?;
    let target = if cpu.fetches_64_bit { call_target(cpu, bus, target)? } else { reachable(cpu, target)? };
    let next = cpu.state.regs[REG_RIP];
    stack::push_value(cpu, bus, bits, next)?;
    cpu.state.regs[REG_RIP] = target;
    Ok(())
}

/// RET near
pub(super) fn ret<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let bits = match i.code() {
        Code::Retnw | Code::Retnw_imm16 => 16,
        Code::Retnd | Code::Retnd_imm16 => 32,
        _ => 64,
    };
    let target = stack::top(cpu, bus, bits)?;
    jump(cpu, target)?;
    let arguments = if i.op_count() == 1 { i.immediate16() as u64 } else { 0 };
    cpu.move_stack(u64::from(bits) / 8 + arguments);
    Ok(())
}
