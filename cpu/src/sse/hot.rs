//! Handlers for what kernels and C libraries execute most: moves, and what string functions are made of. Each does
//! what the general handler does, without looking at the instruction again.

use iced_x86::{Code, Instruction, OpKind, Register};

use super::{hot_float, moves::allows_unaligned, operands::check_usable};
use crate::{
    Bus, Cpu, Fault,
    op::{Based, Handler, Mem, Op},
    state::{REG_RIP, REG_ZERO},
};

/// A specialised form of `i`, decoded in 64-bit mode: `full` is `None`.
pub(crate) fn specialise<B: Bus>(i: &Instruction) -> Option<Op<B>> {
    let memory = (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Memory);
    let run = match memory {
        None => between_registers(i.code())?,
        Some(0) => to_memory(i.code())?,
        Some(_) => from_memory(i.code())?,
    };
    let number =
        |n| if n < i.op_count() && memory != Some(n) { i.op_register(n).number() as u8 & 15 } else { 0 };
    Some(Op {
        run,
        imm: immediate(i),
        mem: if memory.is_some() { memory_operand(i)? } else { Mem::NONE },
        dst: number(0),
        src: number(1),
        len: i.len() as u8,
        jump: 0,
        full: None,
    })
}

/// `None` if only the general handlers can address it.
fn memory_operand(i: &Instruction) -> Option<Mem> {
    let register = |register: Register| match register {
        Register::None => Some(REG_ZERO as u8),
        Register::RIP => Some(REG_RIP as u8),
        _ if register.is_gpr64() => Some(register.number() as u8),
        _ => None,
    };
    let displacement = match i.memory_base() {
        Register::RIP => i.memory_displacement64().wrapping_sub(i.next_ip()),
        _ => i.memory_displacement64(),
    };
    Some(Mem {
        base: register(i.memory_base())?,
        index: register(i.memory_index())?,
        scale: i.memory_index_scale().trailing_zeros() as u8,
        segment: Based::of(i),
        disp: i32::try_from(displacement as i64).ok()?,
    })
}

fn immediate(i: &Instruction) -> i32 {
    let last = i.op_count() - 1;
    if i.op_kind(last) == OpKind::Immediate8 { i32::from(i.immediate8()) } else { 0 }
}

fn between_registers<B: Bus>(code: Code) -> Option<Handler<B>> {
    let run: Handler<B> = match code {
        Code::Movups_xmm_xmmm128
        | Code::Movupd_xmm_xmmm128
        | Code::Movaps_xmm_xmmm128
        | Code::Movapd_xmm_xmmm128
        | Code::Movdqa_xmm_xmmm128
        | Code::Movdqu_xmm_xmmm128 => |cpu, _, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = cpu.state.xmm[x(op.src)];
            Ok(())
        },
        Code::Movq_xmm_xmmm64 => |cpu, _, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = cpu.state.xmm[x(op.src)] as u64 as u128;
            Ok(())
        },
        Code::Movd_xmm_rm32 => |cpu, _, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = cpu.state.regs[x(op.src)] as u32 as u128;
            Ok(())
        },
        Code::Movq_xmm_rm64 => |cpu, _, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = cpu.state.regs[x(op.src)] as u128;
            Ok(())
        },
        Code::Movd_rm32_xmm => |cpu, _, op| {
            check_usable(cpu)?;
            cpu.state.regs[x(op.dst)] = cpu.state.xmm[x(op.src)] as u32 as u64;
            Ok(())
        },
        Code::Movq_rm64_xmm => |cpu, _, op| {
            check_usable(cpu)?;
            cpu.state.regs[x(op.dst)] = cpu.state.xmm[x(op.src)] as u64;
            Ok(())
        },
        Code::Movhlps_xmm_xmm => |cpu, _, op| {
            check_usable(cpu)?;
            let a = cpu.state.xmm[x(op.dst)];
            cpu.state.xmm[x(op.dst)] = a >> 64 << 64 | cpu.state.xmm[x(op.src)] >> 64;
            Ok(())
        },
        Code::Pmovmskb_r32_xmm | Code::Pmovmskb_r64_xmm => |cpu, _, op| {
            check_usable(cpu)?;
            cpu.state.regs[x(op.dst)] = byte_mask(cpu.state.xmm[x(op.src)]);
            Ok(())
        },
        Code::Pshufd_xmm_xmmm128_imm8 => |cpu, _, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = shuffle_doublewords(cpu.state.xmm[x(op.src)], op.imm());
            Ok(())
        },
        Code::Pslldq_xmm_imm8 => |cpu, _, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = cpu.state.xmm[x(op.dst)].checked_shl(op.imm() as u32 * 8).unwrap_or(0);
            Ok(())
        },
        Code::Psrldq_xmm_imm8 => |cpu, _, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = cpu.state.xmm[x(op.dst)].checked_shr(op.imm() as u32 * 8).unwrap_or(0);
            Ok(())
        },
        _ => {
            let handlers = binary(code).or_else(|| hot_float::handlers(code));
            return handlers.map(|[registers, _]| registers).or_else(|| hot_float::conversion(code));
        }
    };
    Some(run)
}

fn from_memory<B: Bus>(code: Code) -> Option<Handler<B>> {
    let run: Handler<B> = match code {
        _ if is_whole_move(code) && allows_unaligned(code) => |cpu, bus, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = u128::from_le_bytes(cpu.read(bus, address(cpu, &op.mem))?);
            Ok(())
        },
        _ if is_whole_move(code) => |cpu, bus, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = load_aligned(cpu, bus, op)?;
            Ok(())
        },
        Code::Movd_xmm_rm32 | Code::Movss_xmm_xmmm32 => |cpu, bus, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = u32::from_le_bytes(cpu.read(bus, address(cpu, &op.mem))?) as u128;
            Ok(())
        },
        Code::Movq_xmm_rm64 | Code::Movq_xmm_xmmm64 | Code::Movsd_xmm_xmmm64 => |cpu, bus, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = u64::from_le_bytes(cpu.read(bus, address(cpu, &op.mem))?) as u128;
            Ok(())
        },
        Code::Movhps_xmm_m64 | Code::Movhpd_xmm_m64 => |cpu, bus, op| {
            check_usable(cpu)?;
            let high = u64::from_le_bytes(cpu.read(bus, address(cpu, &op.mem))?) as u128;
            cpu.state.xmm[x(op.dst)] = cpu.state.xmm[x(op.dst)] as u64 as u128 | high << 64;
            Ok(())
        },
        Code::Pshufd_xmm_xmmm128_imm8 => |cpu, bus, op| {
            check_usable(cpu)?;
            cpu.state.xmm[x(op.dst)] = shuffle_doublewords(load_aligned(cpu, bus, op)?, op.imm());
            Ok(())
        },
        _ => {
            let handlers = binary(code).or_else(|| hot_float::handlers(code));
            return handlers.map(|[_, memory]| memory);
        }
    };
    Some(run)
}

fn to_memory<B: Bus>(code: Code) -> Option<Handler<B>> {
    let run: Handler<B> = match code {
        Code::Movups_xmmm128_xmm | Code::Movupd_xmmm128_xmm | Code::Movdqu_xmmm128_xmm => |cpu, bus, op| {
            check_usable(cpu)?;
            cpu.write(bus, address(cpu, &op.mem), cpu.state.xmm[x(op.src)].to_le_bytes())
        },
        Code::Movaps_xmmm128_xmm | Code::Movapd_xmmm128_xmm | Code::Movdqa_xmmm128_xmm => |cpu, bus, op| {
            check_usable(cpu)?;
            cpu.write(bus, aligned(address(cpu, &op.mem))?, cpu.state.xmm[x(op.src)].to_le_bytes())
        },
        Code::Movd_rm32_xmm | Code::Movss_xmmm32_xmm => |cpu, bus, op| {
            check_usable(cpu)?;
            cpu.write(bus, address(cpu, &op.mem), (cpu.state.xmm[x(op.src)] as u32).to_le_bytes())
        },
        Code::Movq_rm64_xmm
        | Code::Movq_xmmm64_xmm
        | Code::Movsd_xmmm64_xmm
        | Code::Movlps_m64_xmm
        | Code::Movlpd_m64_xmm => |cpu, bus, op| {
            check_usable(cpu)?;
            cpu.write(bus, address(cpu, &op.mem), (cpu.state.xmm[x(op.src)] as u64).to_le_bytes())
        },
        Code::Movhps_m64_xmm | Code::Movhpd_m64_xmm => |cpu, bus, op| {
            check_usable(cpu)?;
            let high = (cpu.state.xmm[x(op.src)] >> 64) as u64;
            cpu.write(bus, address(cpu, &op.mem), high.to_le_bytes())
        },
        Code::Movnti_m32_r32 => |cpu, bus, op| {
            let value = cpu.state.regs[x(op.src)] as u32;
            cpu.write_non_temporal(bus, address(cpu, &op.mem), &value.to_le_bytes())
        },
        Code::Movnti_m64_r64 => |cpu, bus, op| {
            let value = cpu.state.regs[x(op.src)];
            cpu.write_non_temporal(bus, address(cpu, &op.mem), &value.to_le_bytes())
        },
        Code::Movntdq_m128_xmm | Code::Movntps_m128_xmm | Code::Movntpd_m128_xmm => |cpu, bus, op| {
            check_usable(cpu)?;
            let value = cpu.state.xmm[x(op.src)];
            cpu.write_non_temporal(bus, aligned(address(cpu, &op.mem))?, &value.to_le_bytes())
        },
        _ => return None,
    };
    Some(run)
}

/// Loads of all 16 bytes that change nothing.
fn is_whole_move(code: Code) -> bool {
    matches!(
        code,
        Code::Movups_xmm_xmmm128
            | Code::Movupd_xmm_xmmm128
            | Code::Movaps_xmm_xmmm128
            | Code::Movapd_xmm_xmmm128
            | Code::Movdqa_xmm_xmmm128
            | Code::Movdqu_xmm_xmmm128
            | Code::Lddqu_xmm_m128
    )
}

/// An operation of two 128-bit values, as a type, so that each gets handlers of its own.
trait Binary {
    fn apply(a: u128, b: u128) -> u128;
}

macro_rules! operations {
    ($($code:pat => $name:ident: $apply:expr,)*) => {
        $(
            struct $name;
            impl Binary for $name {
                #[inline(always)]
                fn apply(a: u128, b: u128) -> u128 {
                    let apply: fn(u128, u128) -> u128 = $apply;
                    apply(a, b)
                }
            }
        )*

        /// The handlers of `code` with a register and with a memory source.
        fn binary<B: Bus>(code: Code) -> Option<[Handler<B>; 2]> {
            match code {
                $($code => Some([with_register::<B, $name>, with_memory::<B, $name>]),)*
                _ => None,
            }
        }
    };
}

operations! {
    Code::Pxor_xmm_xmmm128 | Code::Xorps_xmm_xmmm128 | Code::Xorpd_xmm_xmmm128 => Xor: |a, b| a ^ b,
    Code::Pand_xmm_xmmm128 | Code::Andps_xmm_xmmm128 | Code::Andpd_xmm_xmmm128 => And: |a, b| a & b,
    Code::Pandn_xmm_xmmm128 | Code::Andnps_xmm_xmmm128 | Code::Andnpd_xmm_xmmm128 => AndNot: |a, b| !a & b,
    Code::Por_xmm_xmmm128 | Code::Orps_xmm_xmmm128 | Code::Orpd_xmm_xmmm128 => Or: |a, b| a | b,
    Code::Pcmpeqb_xmm_xmmm128 => EqualBytes: |a, b| bytes(a, b, |a, b| if a == b { 0xff } else { 0 }),
    Code::Pcmpgtb_xmm_xmmm128 => GreaterBytes: |a, b| bytes(a, b, |a, b| if a as i8 > b as i8 { 0xff } else { 0 }),
    Code::Pminub_xmm_xmmm128 => MinimumBytes: |a, b| bytes(a, b, u8::min),
    Code::Pmaxub_xmm_xmmm128 => MaximumBytes: |a, b| bytes(a, b, u8::max),
    Code::Psubb_xmm_xmmm128 => SubtractBytes: |a, b| bytes(a, b, u8::wrapping_sub),
    Code::Paddb_xmm_xmmm128 => AddBytes: |a, b| bytes(a, b, u8::wrapping_add),
    Code::Pcmpeqd_xmm_xmmm128 => EqualDoublewords: |a, b| doublewords(a, b, |a, b| if a == b { !0 } else { 0 }),
    Code::Paddd_xmm_xmmm128 => AddDoublewords: |a, b| doublewords(a, b, u32::wrapping_add),
    Code::Paddq_xmm_xmmm128 => AddQuadwords: |a, b| {
        let high = (a >> 64).wrapping_add(b >> 64) << 64;
        high | (a as u64).wrapping_add(b as u64) as u128
    },
    Code::Punpcklbw_xmm_xmmm128 => InterleaveBytes: |a, b| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        u128::from_le_bytes(std::array::from_fn(|n| if n % 2 == 0 { a[n / 2] } else { b[n / 2] }))
    },
    Code::Punpcklwd_xmm_xmmm128 => InterleaveWords: |a, b| {
        let word = |x: u128, n: u32| x >> (16 * n) & 0xffff;
        (0..4).fold(0, |vector, n| vector | (word(a, n) | word(b, n) << 16) << (32 * n))
    },
    Code::Punpckldq_xmm_xmmm128 | Code::Unpcklps_xmm_xmmm128 => InterleaveDoublewords: |a, b| {
        let doubleword = |x: u128, n: u32| x >> (32 * n) & 0xffff_ffff;
        (0..2).fold(0, |vector, n| vector | (doubleword(a, n) | doubleword(b, n) << 32) << (64 * n))
    },
    Code::Punpcklqdq_xmm_xmmm128 | Code::Movlhps_xmm_xmm | Code::Unpcklpd_xmm_xmmm128 => LowQuadwords: |a, b| {
        a as u64 as u128 | b << 64
    },
    Code::Punpckhqdq_xmm_xmmm128 | Code::Unpckhpd_xmm_xmmm128 => HighQuadwords: |a, b| a >> 64 | b >> 64 << 64,
}

fn with_register<B: Bus, T: Binary>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    check_usable(cpu)?;
    let b = cpu.state.xmm[x(op.src)];
    let a = &mut cpu.state.xmm[x(op.dst)];
    *a = T::apply(*a, b);
    Ok(())
}

fn with_memory<B: Bus, T: Binary>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    check_usable(cpu)?;
    let b = load_aligned(cpu, bus, op)?;
    let a = &mut cpu.state.xmm[x(op.dst)];
    *a = T::apply(*a, b);
    Ok(())
}

/// A register number as an index that needs no check.
#[inline(always)]
pub(super) fn x(register: u8) -> usize {
    register as usize & 15
}

#[inline(always)]
pub(super) fn address<B: Bus>(cpu: &Cpu<B>, mem: &Mem) -> u64 {
    let offset = cpu.state.regs[mem.base as usize]
        .wrapping_add(cpu.state.regs[mem.index as usize] << mem.scale)
        .wrapping_add(mem.disp as u64);
    match mem.segment {
        None => offset,
        Some(segment) => offset.wrapping_add(cpu.state.segments[segment as usize].base),
    }
}

#[inline(always)]
fn aligned(address: u64) -> Result<u64, Fault> {
    if address.is_multiple_of(16) { Ok(address) } else { Err(Fault::GP0) }
}

#[inline(always)]
fn load_aligned<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<u128, Fault> {
    let address = aligned(address(cpu, &op.mem))?;
    Ok(u128::from_le_bytes(cpu.read(bus, address)?))
}

/// Bytes by bytes: the shape that compilers turn into one vector instruction.
#[inline(always)]
fn bytes(a: u128, b: u128, f: impl Fn(u8, u8) -> u8) -> u128 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    u128::from_le_bytes(std::array::from_fn(|n| f(a[n], b[n])))
}

#[inline(always)]
fn doublewords(a: u128, b: u128, f: impl Fn(u32, u32) -> u32) -> u128 {
    (0..4)
        .fold(0, |vector, n| vector | (f((a >> (32 * n)) as u32, (b >> (32 * n)) as u32) as u128) << (32 * n))
}

/// The top bits of all bytes, gathered by a multiplication per half.
#[inline(always)]
fn byte_mask(v: u128) -> u64 {
    let half = |h: u64| (h & 0x8080_8080_8080_8080).wrapping_mul(0x0002_0408_1020_4081) >> 56;
    half(v as u64) | half((v >> 64) as u64) << 8
}

#[inline(always)]
fn shuffle_doublewords(v: u128, selectors: u64) -> u128 {
    (0..4).fold(0, |vector, n| {
        let from = (selectors >> (2 * n) & 3) as u32;
        vector | (v >> (32 * from) & 0xffff_ffff) << (32 * n)
    })
}
