//! A comparison, or another instruction that sets flags, and the conditional jump behind it, executed as one.
//!
//! Every seventh instruction of a kernel is such a jump: one handler less to find.
//! A block has such a pair only at its end, and keeps the two instructions, too, for runs that end between them.

use iced_x86::{Instruction, Mnemonic};

use super::{
    super::{
        alu::{self, Binary},
        branch::canonical,
        data::condition_code,
        operand::register,
    },
    Kinds, Shape,
    arithmetic::{binary_into_register, unary_into_register},
    for_bits, for_wide_bits,
    operands::read,
};
use crate::{
    Bus, Cpu, Fault,
    op::{Handler, Mem, Op},
    state::REG_RIP,
};

/// Bit of [`Op::jump`]: the jump has a displacement of 32 bits.
const NEAR: u8 = 0x10;
/// Bytes of a jump with a displacement of 32 bits, and of 8.
const NEAR_LEN: u64 = 6;
const SHORT_LEN: u64 = 2;
/// JP and JNP, which compilers use behind comparisons of floating-point numbers only.
const PARITY: std::ops::RangeInclusive<u8> = 10..=11;

/// The pair as one, if there is a handler for it. Both are 64-bit code.
pub(crate) fn fuse<B: Bus>(first: &Instruction, second: &Instruction) -> Option<Op<B>> {
    if !second.is_jcc_short_or_near()
        || PARITY.contains(&condition_code(second))
        || first.is_string_instruction()
    {
        return None;
    }
    let near = match second.len() as u64 {
        SHORT_LEN => 0,
        NEAR_LEN => NEAR,
        _ => return None,
    };
    let (shape, target) = (Shape::of(first)?, Shape::of(second)?);
    if shape.lock || target.kinds != Kinds::Near {
        return None;
    }
    let displacement = i32::try_from(target.imm as i64).ok()?;
    let Shape { mut dst, mut src, mut mem, .. } = shape;
    if mem.base == REG_RIP as u8 {
        // RIP points behind the jump when the operand is read.
        mem.disp = mem.disp.checked_sub(second.len() as i32)?;
    }
    let mut imm = displacement;
    match shape.kinds {
        Kinds::R | Kinds::Rr | Kinds::Rm | Kinds::Mr => {}
        Kinds::Ri => {
            imm = immediate(&shape)?;
            mem = Mem { disp: displacement, ..Mem::NONE };
        }
        Kinds::Mi => {
            imm = immediate(&shape)?;
            [dst, src] = i16::try_from(displacement).ok()?.to_le_bytes();
        }
        _ => return None,
    }
    let run = select(first, &shape)?;
    let len = (first.len() + second.len()) as u8;
    Some(Op { run, imm, mem, dst, src, len, jump: condition_code(second) | near, full: None })
}

/// The immediate as [`Op`] holds it.
fn immediate(shape: &Shape) -> Option<i32> {
    match i32::try_from(shape.imm as i64) {
        Ok(imm) => Some(imm),
        Err(_) => (shape.bits < 64).then_some(shape.imm as i32),
    }
}

fn select<B: Bus>(first: &Instruction, shape: &Shape) -> Option<Handler<B>> {
    let bits = shape.bits;
    match (first.mnemonic(), shape.kinds) {
        (Mnemonic::Add, _) => in_register::<B, 0>(shape),
        (Mnemonic::Or, _) => in_register::<B, 1>(shape),
        (Mnemonic::And, _) => in_register::<B, 4>(shape),
        (Mnemonic::Sub, _) => in_register::<B, 5>(shape),
        (Mnemonic::Xor, _) => in_register::<B, 6>(shape),
        (Mnemonic::Cmp, Kinds::Rr | Kinds::Ri) => in_register::<B, 7>(shape),
        (Mnemonic::Cmp, Kinds::Rm) => for_bits!(bits, compare_rm),
        (Mnemonic::Cmp, Kinds::Mr) => for_bits!(bits, compare_mr, true),
        (Mnemonic::Cmp, Kinds::Mi) => for_bits!(bits, compare_mi, true),
        (Mnemonic::Test, Kinds::Rr) => for_bits!(bits, test_rr),
        (Mnemonic::Test, Kinds::Ri) => for_bits!(bits, test_ri),
        (Mnemonic::Test, Kinds::Mr) => for_bits!(bits, compare_mr, false),
        (Mnemonic::Test, Kinds::Mi) => for_bits!(bits, compare_mi, false),
        (Mnemonic::Inc, Kinds::R) => for_wide_bits!(bits, unary_r, 0),
        (Mnemonic::Dec, Kinds::R) => for_wide_bits!(bits, unary_r, 1),
        _ => None,
    }
}

fn in_register<B: Bus, const OP: u8>(shape: &Shape) -> Option<Handler<B>> {
    match shape.kinds {
        Kinds::Rr => for_bits!(shape.bits, binary_rr, OP),
        Kinds::Ri => for_bits!(shape.bits, binary_ri, OP),
        _ => None,
    }
}

/// The jump, once the first instruction of the pair has completed.
#[inline(always)]
fn jump<B: Bus>(cpu: &mut Cpu<B>, op: &Op<B>, displacement: i64) -> Result<(), Fault> {
    cpu.state.retired += 1;
    if cpu.flags.holds(op.jump) {
        let next = cpu.state.regs[REG_RIP];
        match canonical(next.wrapping_add(displacement as u64)) {
            Ok(target) => cpu.state.regs[REG_RIP] = target,
            Err(fault) => {
                cpu.at = next.wrapping_sub(jump_len(op));
                return Err(fault);
            }
        }
    }
    Ok(())
}

fn jump_len<B: Bus>(op: &Op<B>) -> u64 {
    if op.jump & NEAR != 0 { NEAR_LEN } else { SHORT_LEN }
}

/// As [`jump`], behind an instruction that has read memory: what came of that may have to be looked at first.
#[inline(always)]
fn jump_behind_access<B: Bus>(cpu: &mut Cpu<B>, op: &Op<B>, displacement: i64) -> Result<(), Fault> {
    if cpu.boundary {
        cpu.state.regs[REG_RIP] = cpu.state.regs[REG_RIP].wrapping_sub(jump_len(op));
        return Ok(());
    }
    jump(cpu, op, displacement)
}

fn binary_rr<B: Bus, const OP: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let b = register(cpu, BITS, op.src);
    binary_into_register::<B, OP, BITS>(cpu, op.dst, b);
    jump(cpu, op, op.imm.into())
}

fn binary_ri<B: Bus, const OP: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    binary_into_register::<B, OP, BITS>(cpu, op.dst, op.imm());
    jump(cpu, op, op.mem.disp.into())
}

fn unary_r<B: Bus, const OP: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    unary_into_register::<B, OP, BITS>(cpu, op.dst);
    jump(cpu, op, op.imm.into())
}

fn test_rr<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let (a, b) = (register(cpu, BITS, op.dst), register(cpu, BITS, op.src));
    alu::binary(Binary::And, &mut cpu.flags, BITS, a, b);
    jump(cpu, op, op.imm.into())
}

fn test_ri<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let a = register(cpu, BITS, op.dst);
    alu::binary(Binary::And, &mut cpu.flags, BITS, a, op.imm());
    jump(cpu, op, op.mem.disp.into())
}

fn compare_rm<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let b = read::<B, BITS>(cpu, bus, &op.mem)?;
    let a = register(cpu, BITS, op.dst);
    alu::binary(Binary::Cmp, &mut cpu.flags, BITS, a, b);
    jump_behind_access(cpu, op, op.imm.into())
}

/// CMP, or else TEST.
const fn comparison(cmp: bool) -> Binary {
    if cmp { Binary::Cmp } else { Binary::And }
}

fn compare_mr<B: Bus, const CMP: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let a = read::<B, BITS>(cpu, bus, &op.mem)?;
    let b = register(cpu, BITS, op.src);
    alu::binary(const { comparison(CMP) }, &mut cpu.flags, BITS, a, b);
    jump_behind_access(cpu, op, op.imm.into())
}

fn compare_mi<B: Bus, const CMP: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let a = read::<B, BITS>(cpu, bus, &op.mem)?;
    alu::binary(const { comparison(CMP) }, &mut cpu.flags, BITS, a, op.imm());
    jump_behind_access(cpu, op, i16::from_le_bytes([op.dst, op.src]).into())
}
