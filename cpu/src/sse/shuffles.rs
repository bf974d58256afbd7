//! Moving elements about: pack, unpack, shuffle, blend, insert, extract, widen, and sums across neighbours.

use iced_x86::{Code, Mnemonic as M};

use super::{
    form::Form::{self, Across, Immediate, Lanes, Masked},
    lanes::{Lane, collect, count, lane, sign_mask, with_lane},
};

/// What `code` computes, if it is one of this family.
pub(super) fn form(code: Code, mnemonic: M) -> Option<Form> {
    across(mnemonic)
        .map(Across)
        .or_else(|| unary(mnemonic).map(Lanes))
        .or_else(|| immediate(code, mnemonic).map(Immediate))
        .or_else(|| masked(mnemonic).map(Masked))
}

fn across(mnemonic: M) -> Option<fn(u128, u128, usize) -> u128> {
    let f: fn(u128, u128, usize) -> u128 = match mnemonic {
        M::Packsswb => |a, b, w| pack(a, b, w, |x: i16| x.clamp(i8::MIN as i16, i8::MAX as i16) as i8),
        M::Packuswb => |a, b, w| pack(a, b, w, |x: i16| x.clamp(0, u8::MAX as i16) as u8),
        M::Packssdw => |a, b, w| pack(a, b, w, saturate),
        M::Packusdw => |a, b, w| pack(a, b, w, |x: i32| x.clamp(0, u16::MAX as i32) as u16),
        M::Punpcklbw => |a, b, w| interleave::<u8>(a, b, w, 0),
        M::Punpcklwd => |a, b, w| interleave::<u16>(a, b, w, 0),
        M::Punpckldq | M::Unpcklps => |a, b, w| interleave::<u32>(a, b, w, 0),
        M::Punpcklqdq | M::Unpcklpd => |a, b, w| interleave::<u64>(a, b, w, 0),
        M::Punpckhbw => |a, b, w| interleave::<u8>(a, b, w, count::<u8>(w) / 2),
        M::Punpckhwd => |a, b, w| interleave::<u16>(a, b, w, count::<u16>(w) / 2),
        M::Punpckhdq | M::Unpckhps => |a, b, w| interleave::<u32>(a, b, w, count::<u32>(w) / 2),
        M::Punpckhqdq | M::Unpckhpd => |a, b, w| interleave::<u64>(a, b, w, count::<u64>(w) / 2),
        M::Phaddw => |a, b, w| neighbours(a, b, w, i16::wrapping_add),
        M::Phaddd => |a, b, w| neighbours(a, b, w, i32::wrapping_add),
        M::Phaddsw => |a, b, w| neighbours(a, b, w, i16::saturating_add),
        M::Phsubw => |a, b, w| neighbours(a, b, w, i16::wrapping_sub),
        M::Phsubd => |a, b, w| neighbours(a, b, w, i32::wrapping_sub),
        M::Phsubsw => |a, b, w| neighbours(a, b, w, i16::saturating_sub),
        M::Pshufb => shuffle_bytes,
        _ => return None,
    };
    Some(f)
}

fn unary(mnemonic: M) -> Option<fn(u128, u128) -> u128> {
    let f: fn(u128, u128) -> u128 = match mnemonic {
        M::Pmovsxbw => |_, b| collect(8, |n| lane::<i8>(b, n) as i16),
        M::Pmovsxbd => |_, b| collect(4, |n| lane::<i8>(b, n) as i32),
        M::Pmovsxbq => |_, b| collect(2, |n| lane::<i8>(b, n) as i64),
        M::Pmovsxwd => |_, b| collect(4, |n| lane::<i16>(b, n) as i32),
        M::Pmovsxwq => |_, b| collect(2, |n| lane::<i16>(b, n) as i64),
        M::Pmovsxdq => |_, b| collect(2, |n| lane::<i32>(b, n) as i64),
        M::Pmovzxbw => |_, b| collect(8, |n| lane::<u8>(b, n) as u16),
        M::Pmovzxbd => |_, b| collect(4, |n| lane::<u8>(b, n) as u32),
        M::Pmovzxbq => |_, b| collect(2, |n| lane::<u8>(b, n) as u64),
        M::Pmovzxwd => |_, b| collect(4, |n| lane::<u16>(b, n) as u32),
        M::Pmovzxwq => |_, b| collect(2, |n| lane::<u16>(b, n) as u64),
        M::Pmovzxdq => |_, b| collect(2, |n| lane::<u32>(b, n) as u64),
        M::Movsldup => |_, b| collect(4, |n| lane::<u32>(b, n & !1)),
        M::Movshdup => |_, b| collect(4, |n| lane::<u32>(b, n | 1)),
        M::Movddup => |_, b| collect(2, |_| lane::<u64>(b, 0)),
        // The high half of an MMX register reads as 0, so that 16 bytes do for both widths.
        M::Pmovmskb => |_, b| sign_mask::<u8>(b, 16),
        M::Movmskps => |_, b| sign_mask::<u32>(b, 4),
        M::Movmskpd => |_, b| sign_mask::<u64>(b, 2),
        _ => return None,
    };
    Some(f)
}

fn immediate(code: Code, mnemonic: M) -> Option<fn(u128, u128, u8) -> u128> {
    let f: fn(u128, u128, u8) -> u128 = match mnemonic {
        M::Pshufd => |_, b, imm| collect(4, |n| lane::<u32>(b, pair(imm, n))),
        M::Pshufw => |_, b, imm| collect(4, |n| lane::<u16>(b, pair(imm, n))),
        M::Pshuflw => |_, b, imm| (b >> 64) << 64 | collect(4, |n| lane::<u16>(b, pair(imm, n))),
        M::Pshufhw => |_, b, imm| b as u64 as u128 | collect(4, |n| lane::<u16>(b, 4 + pair(imm, n))) << 64,
        M::Shufps => |a, b, imm| collect(4, |n| lane::<u32>(if n < 2 { a } else { b }, pair(imm, n))),
        M::Shufpd => {
            |a, b, imm| collect(2, |n| lane::<u64>(if n == 0 { a } else { b }, (imm >> n & 1) as usize))
        }
        M::Pblendw => |a, b, imm| collect(8, |n| lane::<u16>(if imm >> n & 1 != 0 { b } else { a }, n)),
        M::Blendps => |a, b, imm| collect(4, |n| lane::<u32>(if imm >> n & 1 != 0 { b } else { a }, n)),
        M::Blendpd => |a, b, imm| collect(2, |n| lane::<u64>(if imm >> n & 1 != 0 { b } else { a }, n)),
        M::Pextrb => |_, b, imm| lane::<u8>(b, imm as usize & 15).widen(),
        M::Pextrd | M::Extractps => |_, b, imm| lane::<u32>(b, imm as usize & 3).widen(),
        M::Pextrq => |_, b, imm| lane::<u64>(b, imm as usize & 1).widen(),
        M::Pinsrb => |a, b, imm| with_lane(a, imm as usize & 15, b as u8),
        M::Pinsrd => |a, b, imm| with_lane(a, imm as usize & 3, b as u32),
        M::Pinsrq => |a, b, imm| with_lane(a, imm as usize & 1, b as u64),
        M::Mpsadbw => sums_of_differences,
        _ => return width_dependent(code),
    };
    Some(f)
}

fn width_dependent(code: Code) -> Option<fn(u128, u128, u8) -> u128> {
    let f: fn(u128, u128, u8) -> u128 = match code {
        Code::Pextrw_r32_mm_imm8 | Code::Pextrw_r64_mm_imm8 => {
            |_, b, imm| lane::<u16>(b, imm as usize & 3).widen()
        }
        Code::Pextrw_r32_xmm_imm8
        | Code::Pextrw_r64_xmm_imm8
        | Code::Pextrw_r32m16_xmm_imm8
        | Code::Pextrw_r64m16_xmm_imm8 => |_, b, imm| lane::<u16>(b, imm as usize & 7).widen(),
        Code::Pinsrw_mm_r32m16_imm8 | Code::Pinsrw_mm_r64m16_imm8 => {
            |a, b, imm| with_lane(a, imm as usize & 3, b as u16)
        }
        Code::Pinsrw_xmm_r32m16_imm8 | Code::Pinsrw_xmm_r64m16_imm8 => {
            |a, b, imm| with_lane(a, imm as usize & 7, b as u16)
        }
        Code::Palignr_mm_mmm64_imm8 => |a, b, imm| (a << 64 | b).checked_shr(imm as u32 * 8).unwrap_or(0),
        Code::Palignr_xmm_xmmm128_imm8 => align,
        Code::Insertps_xmm_xmmm32_imm8 => insert_single,
        _ => return None,
    };
    Some(f)
}

fn masked(mnemonic: M) -> Option<fn(u128, u128, u128) -> u128> {
    let f: fn(u128, u128, u128) -> u128 = match mnemonic {
        M::Pblendvb => blend::<i8>,
        M::Blendvps => blend::<i32>,
        M::Blendvpd => blend::<i64>,
        _ => return None,
    };
    Some(f)
}

/// The two-bit field `n` of a shuffle's immediate.
fn pair(imm: u8, n: usize) -> usize {
    (imm >> (2 * n) & 3) as usize
}

fn saturate(x: i32) -> i16 {
    x.clamp(i16::MIN as i32, i16::MAX as i32) as i16
}

/// All elements of `a`, then all of `b`, each made half as wide.
fn pack<From: Lane, To: Lane>(a: u128, b: u128, width: usize, narrow: impl Fn(From) -> To) -> u128 {
    let each = count::<From>(width);
    collect(2 * each, |n| narrow(if n < each { lane(a, n) } else { lane(b, n - each) }))
}

/// Elements of `a` and `b` in turns, starting with `a`'s element `first`.
fn interleave<T: Lane>(a: u128, b: u128, width: usize, first: usize) -> u128 {
    collect(count::<T>(width), |n| lane::<T>(if n % 2 == 0 { a } else { b }, first + n / 2))
}

/// `f` of each pair of neighbours: those of `a`, then those of `b`.
fn neighbours<T: Lane>(a: u128, b: u128, width: usize, f: impl Fn(T, T) -> T) -> u128 {
    let half = count::<T>(width) / 2;
    collect(2 * half, |n| {
        let (from, n) = if n < half { (a, n) } else { (b, n - half) };
        f(lane(from, 2 * n), lane(from, 2 * n + 1))
    })
}

fn shuffle_bytes(a: u128, selectors: u128, width: usize) -> u128 {
    collect(width, |n| {
        let selector: u8 = lane(selectors, n);
        if selector & 0x80 != 0 { 0 } else { lane::<u8>(a, selector as usize & (width - 1)) }
    })
}

/// The 32 bytes `a`:`b` moved down by `bytes`, low 16 of them.
fn align(a: u128, b: u128, bytes: u8) -> u128 {
    let byte = |n: usize| match n {
        0..16 => lane::<u8>(b, n),
        16..32 => lane::<u8>(a, n - 16),
        _ => 0,
    };
    collect(16, |n| byte(n + bytes as usize))
}

/// INSERTPS with a register source; with a memory source, `b` holds the only element, so COUNT_S must not select.
fn insert_single(a: u128, b: u128, imm: u8) -> u128 {
    let inserted = with_lane::<u32>(a, (imm >> 4 & 3) as usize, lane(b, (imm >> 6) as usize));
    collect(4, |n| if imm >> n & 1 != 0 { 0 } else { lane::<u32>(inserted, n) })
}

/// MPSADBW: eight sums of four absolute differences, one block of `b` against eight overlapping ones of `a`.
fn sums_of_differences(a: u128, b: u128, imm: u8) -> u128 {
    let (of_a, of_b) = ((imm >> 2 & 1) as usize * 4, (imm & 3) as usize * 4);
    collect(8, |n| {
        (0..4).map(|k| lane::<u8>(a, of_a + n + k).abs_diff(lane::<u8>(b, of_b + k)) as u16).sum::<u16>()
    })
}

/// `b`'s element where the mask's element has its top bit set.
fn blend<T: Lane>(a: u128, b: u128, mask: u128) -> u128 {
    let elements = count::<T>(16);
    let chosen = sign_mask::<T>(mask, elements);
    collect(elements, |n| lane::<T>(if chosen >> n & 1 != 0 { b } else { a }, n))
}
