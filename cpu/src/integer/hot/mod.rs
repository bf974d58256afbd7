//! Specialised handlers of the forms that 64-bit code executes most.
//!
//! Each does what the general handler does with operation, operand size and kind of operands known when it is
//! compiled. What is rare goes the general way: AH to BH, 32-bit addresses.

mod arithmetic;
mod bits;
mod branches;
mod exchange;
mod fused;
mod moves;
mod operands;

use iced_x86::{Instruction, OpKind, Register};

pub(crate) use fused::fuse;

use crate::{
    Bus,
    op::{Based, Mem, Op},
    state::{REG_RIP, REG_ZERO},
};

/// A specialised form of `i`, decoded in 64-bit mode: `full` is `None`.
pub(crate) fn specialise<B: Bus>(i: &Instruction) -> Option<Op<B>> {
    if i.is_string_instruction() {
        return None;
    }
    let shape = Shape::of(i)?;
    let run = arithmetic::select(i, &shape)
        .or_else(|| moves::select(i, &shape))
        .or_else(|| bits::select(i, &shape))
        .or_else(|| exchange::select(i, &shape))
        .or_else(|| branches::select(i, &shape))?;
    let Shape { dst, src, imm, mem, .. } = shape;
    let imm = match i32::try_from(imm as i64) {
        Ok(imm) => imm,
        // Handlers of shorter operands do not look at higher bits.
        Err(_) if shape.bits < 64 => imm as i32,
        Err(_) => return moves::with_wide_immediate(i, &shape),
    };
    Some(Op { run, imm, mem, dst, src, len: i.len() as u8, jump: 0, full: None })
}

/// What the operands of an instruction are, in order: registers, memory, immediates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinds {
    None,
    R,
    M,
    I,
    Rr,
    Rm,
    Ri,
    Mr,
    Mi,
    Rri,
    Rmi,
    /// A relative branch.
    Near,
}

/// An instruction's operands as its [`Op`] holds them.
#[derive(Clone, Copy)]
struct Shape {
    kinds: Kinds,
    /// Operand size in bits: that of the first operand, or of memory where it comes first.
    bits: u32,
    /// Size in bits of the second operand where it is a register or memory.
    source_bits: u32,
    lock: bool,
    dst: u8,
    src: u8,
    imm: u64,
    mem: Mem,
}

impl Shape {
    fn of(i: &Instruction) -> Option<Shape> {
        let mut shape = Shape {
            kinds: Kinds::None,
            bits: 64,
            source_bits: 64,
            lock: i.has_lock_prefix(),
            dst: 0,
            src: 0,
            imm: 0,
            mem: Mem::NONE,
        };
        let mut letters = [' '; 3];
        for n in 0..i.op_count() {
            let letter = letters.get_mut(n as usize)?;
            let bits = match i.op_kind(n) {
                OpKind::Register => {
                    *letter = 'R';
                    let number = low_part(i.op_register(n))?;
                    if n == 0 {
                        shape.dst = number
                    } else {
                        shape.src = number
                    }
                    i.op_register(n).size() as u32 * 8
                }
                OpKind::Memory => {
                    *letter = 'M';
                    shape.mem = memory(i)?;
                    i.memory_size().size() as u32 * 8
                }
                OpKind::NearBranch64 => {
                    *letter = 'N';
                    shape.imm = i.near_branch64().wrapping_sub(i.next_ip());
                    64
                }
                _ => {
                    *letter = 'I';
                    shape.imm = i.try_immediate(n).ok()?;
                    continue;
                }
            };
            match n {
                0 => shape.bits = bits,
                1 => shape.source_bits = bits,
                _ => {}
            }
        }
        shape.kinds = match letters {
            [' ', _, _] => Kinds::None,
            ['N', ' ', _] => Kinds::Near,
            ['R', ' ', _] => Kinds::R,
            ['M', ' ', _] => Kinds::M,
            ['I', ' ', _] => Kinds::I,
            ['R', 'R', ' '] => Kinds::Rr,
            ['R', 'M', ' '] => Kinds::Rm,
            ['R', 'I', ' '] => Kinds::Ri,
            ['M', 'R', ' '] => Kinds::Mr,
            ['M', 'I', ' '] => Kinds::Mi,
            ['R', 'R', 'I'] => Kinds::Rri,
            ['R', 'M', 'I'] => Kinds::Rmi,
            _ => return None,
        };
        Some(shape)
    }
}

/// Number of the general register that `register` is or is the low part of.
fn low_part(register: Register) -> Option<u8> {
    let high = (Register::AH..=Register::BH).contains(&register);
    (register.is_gpr() && !high).then(|| register.full_register().number() as u8)
}

/// The memory operand, `None` if its addresses are not 64 bits long.
fn memory(i: &Instruction) -> Option<Mem> {
    let number = |register: Register| match register {
        Register::None => Some(REG_ZERO as u8),
        Register::RIP => Some(REG_RIP as u8),
        _ => register.is_gpr64().then(|| register.number() as u8),
    };
    let (base, index) = (i.memory_base(), i.memory_index());
    if base == Register::None && index == Register::None && i.memory_displ_size() != 8 {
        return None;
    }
    // iced makes RIP-relative displacements absolute.
    let origin = if base == Register::RIP { i.next_ip() } else { 0 };
    Some(Mem {
        base: number(base)?,
        index: number(index)?,
        scale: i.memory_index_scale().trailing_zeros() as u8,
        segment: Based::of(i),
        disp: i32::try_from(i.memory_displacement64().wrapping_sub(origin) as i64).ok()?,
    })
}

/// The handler `$f` for an operand size in bits.
macro_rules! for_bits {
    ($bits:expr, $f:ident $(, $constant:tt)*) => {
        match $bits {
            8 => Some($f::<B, $($constant,)* 8> as Handler<B>),
            16 => Some($f::<B, $($constant,)* 16> as Handler<B>),
            32 => Some($f::<B, $($constant,)* 32> as Handler<B>),
            64 => Some($f::<B, $($constant,)* 64> as Handler<B>),
            _ => None,
        }
    };
}

/// The handler `$f` for 32- or 64-bit operands, where shorter ones are rare.
macro_rules! for_wide_bits {
    ($bits:expr, $f:ident $(, $constant:tt)*) => {
        match $bits {
            32 => Some($f::<B, $($constant,)* 32> as Handler<B>),
            64 => Some($f::<B, $($constant,)* 64> as Handler<B>),
            _ => None,
        }
    };
}

/// The handler `$f` for a condition code; with `wide`, also for 32- or 64-bit operands.
macro_rules! for_condition {
    ($condition:expr, $f:ident) => {
        match $condition {
            0 => Some($f::<B, 0> as Handler<B>),
            1 => Some($f::<B, 1>),
            2 => Some($f::<B, 2>),
            3 => Some($f::<B, 3>),
            4 => Some($f::<B, 4>),
            5 => Some($f::<B, 5>),
            6 => Some($f::<B, 6>),
            7 => Some($f::<B, 7>),
            8 => Some($f::<B, 8>),
            9 => Some($f::<B, 9>),
            10 => Some($f::<B, 10>),
            11 => Some($f::<B, 11>),
            12 => Some($f::<B, 12>),
            13 => Some($f::<B, 13>),
            14 => Some($f::<B, 14>),
            15 => Some($f::<B, 15>),
            _ => None,
        }
    };
    ($condition:expr, wide $bits:expr, $f:ident) => {
        match $condition {
            0 => for_wide_bits!($bits, $f, 0),
            1 => for_wide_bits!($bits, $f, 1),
            2 => for_wide_bits!($bits, $f, 2),
            3 => for_wide_bits!($bits, $f, 3),
            4 => for_wide_bits!($bits, $f, 4),
            5 => for_wide_bits!($bits, $f, 5),
            6 => for_wide_bits!($bits, $f, 6),
            7 => for_wide_bits!($bits, $f, 7),
            8 => for_wide_bits!($bits, $f, 8),
            9 => for_wide_bits!($bits, $f, 9),
            10 => for_wide_bits!($bits, $f, 10),
            11 => for_wide_bits!($bits, $f, 11),
            12 => for_wide_bits!($bits, $f, 12),
            13 => for_wide_bits!($bits, $f, 13),
            14 => for_wide_bits!($bits, $f, 14),
            15 => for_wide_bits!($bits, $f, 15),
            _ => None,
        }
    };
}

use {for_bits, for_condition, for_wide_bits};
