//! MOV, MOVZX, MOVSX, LEA, PUSH, POP, SETcc, CMOVcc, and the sign extensions of the accumulator.

use iced_x86::{Code, Instruction, Mnemonic};

use super::{
    super::{
        data::condition_code,
        flags::sign_extend,
        operand::{load, load_fast, register, set_register, store},
        stack::{RBP, RSP, stack_fault},
    },
    Kinds, Shape, for_bits, for_condition, for_wide_bits,
    operands::{effective, read, read_then, write},
};
use crate::{
    Bus, Cpu, Fault,
    op::{Handler, Mem, Op},
};

const RAX: u8 = 0;
const RDX: u8 = 2;

pub(super) fn select<B: Bus>(i: &Instruction, shape: &Shape) -> Option<Handler<B>> {
    let bits = shape.bits;
    match (i.mnemonic(), shape.kinds) {
        (Mnemonic::Mov, Kinds::Rr) => for_bits!(bits, mov_rr),
        (Mnemonic::Mov, Kinds::Ri) => for_bits!(bits, mov_ri),
        (Mnemonic::Mov, Kinds::Rm) => for_bits!(bits, mov_rm),
        (Mnemonic::Mov, Kinds::Mr) => for_bits!(bits, mov_mr),
        (Mnemonic::Mov, Kinds::Mi) => for_bits!(bits, mov_mi),
        (Mnemonic::Movzx, Kinds::Rr | Kinds::Rm) => zero_extending(shape),
        (Mnemonic::Movsx | Mnemonic::Movsxd, Kinds::Rr | Kinds::Rm) => sign_extending(shape),
        (Mnemonic::Lea, Kinds::Rm) => for_wide_bits!(bits, lea),
        (Mnemonic::Push, Kinds::R) if bits == 64 => Some(push_r),
        (Mnemonic::Push, Kinds::M) if bits == 64 => Some(push_m),
        (Mnemonic::Push, Kinds::I) if i.stack_pointer_increment() == -8 => Some(push_i),
        (Mnemonic::Pop, Kinds::R) if bits == 64 => Some(pop_r),
        (Mnemonic::Leave, Kinds::None) if i.code() == Code::Leaveq => Some(leave),
        (Mnemonic::Cdqe, Kinds::None) => Some(|cpu, _, _| {
            let value = sign_extend(32, register(cpu, 32, RAX));
            set_register(cpu, 64, RAX, value);
            Ok(())
        }),
        (Mnemonic::Cdq, Kinds::None) => Some(|cpu, _, _| {
            let sign = register(cpu, 32, RAX) >> 31;
            set_register(cpu, 32, RDX, sign.wrapping_neg());
            Ok(())
        }),
        (Mnemonic::Cqo, Kinds::None) => Some(|cpu, _, _| {
            let sign = register(cpu, 64, RAX) >> 63;
            set_register(cpu, 64, RDX, sign.wrapping_neg());
            Ok(())
        }),
        (_, Kinds::R) if is_setcc(i.mnemonic()) => for_condition!(condition_code(i), set_r),
        (_, Kinds::M) if is_setcc(i.mnemonic()) => for_condition!(condition_code(i), set_m),
        (_, Kinds::Rr) if is_cmovcc(i) => for_condition!(condition_code(i), wide bits, cmov_rr),
        (_, Kinds::Rm) if is_cmovcc(i) => for_condition!(condition_code(i), wide bits, cmov_rm),
        _ => None,
    }
}

fn is_setcc(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Seta | Setae
            | Setb
            | Setbe
            | Sete
            | Setg
            | Setge
            | Setl
            | Setle
            | Setne
            | Setno
            | Setnp
            | Setns
            | Seto
            | Setp
            | Sets
    )
}

fn is_cmovcc(i: &Instruction) -> bool {
    // Of the instructions with a condition only CMOVcc has two operands (and FCMOVcc, which has no general registers).
    condition_code(i) < 16
}

fn mov_rr<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let value = register(cpu, BITS, op.src);
    set_register(cpu, BITS, op.dst, value);
    Ok(())
}

fn mov_ri<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    set_register(cpu, BITS, op.dst, op.imm());
    Ok(())
}

/// MOV of 64 bits to a register: the only immediate that is longer than its place in [`Op`]. The upper half stands in
/// the displacement.
pub(super) fn with_wide_immediate<B: Bus>(i: &Instruction, shape: &Shape) -> Option<Op<B>> {
    if i.mnemonic() != Mnemonic::Mov || shape.kinds != Kinds::Ri {
        return None;
    }
    let mem = Mem { disp: (shape.imm >> 32) as i32, ..Mem::NONE };
    let Shape { dst, imm, .. } = *shape;
    Some(Op { run: mov_ri_wide, imm: imm as i32, mem, dst, src: 0, len: i.len() as u8, jump: 0, full: None })
}

fn mov_ri_wide<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let value = (op.mem.disp as u64) << 32 | u64::from(op.imm as u32);
    set_register(cpu, 64, op.dst, value);
    Ok(())
}

fn mov_rm<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    read_then::<B, BITS>(cpu, bus, op, |cpu, op, value| set_register(cpu, BITS, op.dst, value))
}

fn mov_mr<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let value = register(cpu, BITS, op.src);
    write::<B, BITS>(cpu, bus, &op.mem, value)
}

fn mov_mi<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    write::<B, BITS>(cpu, bus, &op.mem, op.imm())
}

fn zero_extending<B: Bus>(shape: &Shape) -> Option<Handler<B>> {
    // A 32-bit destination is zero-extended to 64 bits anyway.
    match (shape.kinds, shape.source_bits, shape.bits) {
        (Kinds::Rr, 8, 32 | 64) => Some(movzx_rr::<B, 8>),
        (Kinds::Rr, 16, 32 | 64) => Some(movzx_rr::<B, 16>),
        (Kinds::Rm, 8, 32 | 64) => Some(movzx_rm::<B, 8>),
        (Kinds::Rm, 16, 32 | 64) => Some(movzx_rm::<B, 16>),
        _ => None,
    }
}

fn movzx_rr<B: Bus, const FROM: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let value = register(cpu, FROM, op.src);
    set_register(cpu, 64, op.dst, value);
    Ok(())
}

fn movzx_rm<B: Bus, const FROM: u32>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    read_then::<B, FROM>(cpu, bus, op, |cpu, op, value| set_register(cpu, 64, op.dst, value))
}

fn sign_extending<B: Bus>(shape: &Shape) -> Option<Handler<B>> {
    match (shape.kinds, shape.source_bits) {
        (Kinds::Rr, 8) => for_wide_bits!(shape.bits, movsx_rr, 8),
        (Kinds::Rr, 16) => for_wide_bits!(shape.bits, movsx_rr, 16),
        (Kinds::Rr, 32) => for_wide_bits!(shape.bits, movsx_rr, 32),
        (Kinds::Rm, 8) => for_wide_bits!(shape.bits, movsx_rm, 8),
        (Kinds::Rm, 16) => for_wide_bits!(shape.bits, movsx_rm, 16),
        (Kinds::Rm, 32) => for_wide_bits!(shape.bits, movsx_rm, 32),
        _ => None,
    }
}

fn movsx_rr<B: Bus, const FROM: u32, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let value = register(cpu, FROM, op.src);
    set_register(cpu, BITS, op.dst, sign_extend(FROM, value));
    Ok(())
}

fn movsx_rm<B: Bus, const FROM: u32, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    read_then::<B, FROM>(cpu, bus, op, |cpu, op, value| {
        set_register(cpu, BITS, op.dst, sign_extend(FROM, value));
    })
}

fn lea<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let address = effective(cpu, &op.mem);
    set_register(cpu, BITS, op.dst, address);
    Ok(())
}

/// Pushes 64 bits. On a fault RSP stays.
#[inline(always)]
pub(super) fn push<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, value: u64) -> Result<(), Fault> {
    let pointer = register(cpu, 64, RSP).wrapping_sub(8);
    store(cpu, bus, 64, pointer, value).map_err(stack_fault)?;
    set_register(cpu, 64, RSP, pointer);
    Ok(())
}

fn push_r<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let value = register(cpu, 64, op.dst);
    push(cpu, bus, value)
}

fn push_i<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    push(cpu, bus, op.imm())
}

fn push_m<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let value = read::<B, 64>(cpu, bus, &op.mem)?;
    push(cpu, bus, value)
}

fn pop_r<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let pointer = register(cpu, 64, RSP);
    let Some(value) = load_fast(cpu, 64, pointer) else { return pop_r_slow(cpu, bus, op) };
    set_register(cpu, 64, RSP, pointer.wrapping_add(8));
    set_register(cpu, 64, op.dst, value);
    Ok(())
}

#[cold]
#[inline(never)]
fn pop_r_slow<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let pointer = register(cpu, 64, RSP);
    let value = load(cpu, bus, 64, pointer).map_err(stack_fault)?;
    set_register(cpu, 64, RSP, pointer.wrapping_add(8));
    set_register(cpu, 64, op.dst, value);
    Ok(())
}

fn leave<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, _: &Op<B>) -> Result<(), Fault> {
    let pointer = register(cpu, 64, RBP);
    let frame = load(cpu, bus, 64, pointer).map_err(stack_fault)?;
    set_register(cpu, 64, RSP, pointer.wrapping_add(8));
    set_register(cpu, 64, RBP, frame);
    Ok(())
}

fn set_r<B: Bus, const CONDITION: u8>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let value = cpu.flags.condition(CONDITION) as u64;
    set_register(cpu, 8, op.dst, value);
    Ok(())
}

fn set_m<B: Bus, const CONDITION: u8>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let value = cpu.flags.condition(CONDITION) as u64;
    write::<B, 8>(cpu, bus, &op.mem, value)
}

fn cmov_rr<B: Bus, const CONDITION: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let source = if cpu.flags.condition(CONDITION) { op.src } else { op.dst };
    let value = register(cpu, BITS, source);
    set_register(cpu, BITS, op.dst, value);
    Ok(())
}

fn cmov_rm<B: Bus, const CONDITION: u8, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let new = read::<B, BITS>(cpu, bus, &op.mem)?;
    let old = register(cpu, BITS, op.dst);
    let value = if cpu.flags.condition(CONDITION) { new } else { old };
    set_register(cpu, BITS, op.dst, value);
    Ok(())
}
