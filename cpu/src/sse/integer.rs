//! Element-wise integer arithmetic, comparison, logic and shifts. SDM vol. 1, sections 9.4, 11.4, 12.6, 12.9.

use iced_x86::Mnemonic as M;

use super::{
    form::Form::{self, Lanes},
    lanes::{collect, lane, map, select, zip},
};

/// What `mnemonic` computes, if it is one of this family.
pub(super) fn form(mnemonic: M) -> Option<Form> {
    arithmetic(mnemonic)
        .or_else(|| multiply(mnemonic))
        .or_else(|| logic(mnemonic))
        .or_else(|| shift(mnemonic))
        .map(Lanes)
}

type Binary = fn(u128, u128) -> u128;

fn arithmetic(mnemonic: M) -> Option<Binary> {
    let f: Binary = match mnemonic {
        M::Paddb => |a, b| zip(a, b, u8::wrapping_add),
        M::Paddw => |a, b| zip(a, b, u16::wrapping_add),
        M::Paddd => |a, b| zip(a, b, u32::wrapping_add),
        M::Paddq => |a, b| zip(a, b, u64::wrapping_add),
        M::Psubb => |a, b| zip(a, b, u8::wrapping_sub),
        M::Psubw => |a, b| zip(a, b, u16::wrapping_sub),
        M::Psubd => |a, b| zip(a, b, u32::wrapping_sub),
        M::Psubq => |a, b| zip(a, b, u64::wrapping_sub),
        M::Paddsb => |a, b| zip(a, b, i8::saturating_add),
        M::Paddsw => |a, b| zip(a, b, i16::saturating_add),
        M::Paddusb => |a, b| zip(a, b, u8::saturating_add),
        M::Paddusw => |a, b| zip(a, b, u16::saturating_add),
        M::Psubsb => |a, b| zip(a, b, i8::saturating_sub),
        M::Psubsw => |a, b| zip(a, b, i16::saturating_sub),
        M::Psubusb => |a, b| zip(a, b, u8::saturating_sub),
        M::Psubusw => |a, b| zip(a, b, u16::saturating_sub),
        M::Pavgb => |a, b| zip(a, b, |x: u8, y: u8| ((x as u16 + y as u16 + 1) >> 1) as u8),
        M::Pavgw => |a, b| zip(a, b, |x: u16, y: u16| ((x as u32 + y as u32 + 1) >> 1) as u16),
        M::Pminub => |a, b| zip(a, b, u8::min),
        M::Pminuw => |a, b| zip(a, b, u16::min),
        M::Pminud => |a, b| zip(a, b, u32::min),
        M::Pminsb => |a, b| zip(a, b, i8::min),
        M::Pminsw => |a, b| zip(a, b, i16::min),
        M::Pminsd => |a, b| zip(a, b, i32::min),
        M::Pmaxub => |a, b| zip(a, b, u8::max),
        M::Pmaxuw => |a, b| zip(a, b, u16::max),
        M::Pmaxud => |a, b| zip(a, b, u32::max),
        M::Pmaxsb => |a, b| zip(a, b, i8::max),
        M::Pmaxsw => |a, b| zip(a, b, i16::max),
        M::Pmaxsd => |a, b| zip(a, b, i32::max),
        M::Pabsb => |_, b| map(b, i8::wrapping_abs),
        M::Pabsw => |_, b| map(b, i16::wrapping_abs),
        M::Pabsd => |_, b| map(b, i32::wrapping_abs),
        M::Psignb => |a, b| zip(a, b, |x: i8, sign: i8| x.wrapping_mul(sign.signum())),
        M::Psignw => |a, b| zip(a, b, |x: i16, sign: i16| x.wrapping_mul(sign.signum())),
        M::Psignd => |a, b| zip(a, b, |x: i32, sign: i32| x.wrapping_mul(sign.signum())),
        M::Phminposuw => |_, b| minimum_and_position(b),
        _ => return None,
    };
    Some(f)
}

fn multiply(mnemonic: M) -> Option<Binary> {
    let f: Binary = match mnemonic {
        M::Pmullw => |a, b| zip(a, b, u16::wrapping_mul),
        M::Pmulld => |a, b| zip(a, b, u32::wrapping_mul),
        M::Pmulhw => |a, b| zip(a, b, |x: i16, y: i16| ((x as i32 * y as i32) >> 16) as i16),
        M::Pmulhuw => |a, b| zip(a, b, |x: u16, y: u16| ((x as u32 * y as u32) >> 16) as u16),
        M::Pmulhrsw => |a, b| zip(a, b, |x: i16, y: i16| ((((x as i32 * y as i32) >> 14) + 1) >> 1) as i16),
        M::Pmuludq => |a, b| zip(a, b, |x: u64, y: u64| (x as u32 as u64) * (y as u32 as u64)),
        M::Pmuldq => |a, b| zip(a, b, |x: i64, y: i64| (x as i32 as i64) * (y as i32 as i64)),
        M::Pmaddwd => |a, b| multiply_and_add_words(a, b),
        M::Pmaddubsw => |a, b| multiply_and_add_bytes(a, b),
        M::Psadbw => |a, b| sum_of_differences(a, b),
        _ => return None,
    };
    Some(f)
}

fn logic(mnemonic: M) -> Option<Binary> {
    let f: Binary = match mnemonic {
        M::Pand | M::Andps | M::Andpd => |a, b| a & b,
        M::Pandn | M::Andnps | M::Andnpd => |a, b| !a & b,
        M::Por | M::Orps | M::Orpd => |a, b| a | b,
        M::Pxor | M::Xorps | M::Xorpd => |a, b| a ^ b,
        M::Pcmpeqb => |a, b| select(a, b, |x: u8, y: u8| x == y),
        M::Pcmpeqw => |a, b| select(a, b, |x: u16, y: u16| x == y),
        M::Pcmpeqd => |a, b| select(a, b, |x: u32, y: u32| x == y),
        M::Pcmpeqq => |a, b| select(a, b, |x: u64, y: u64| x == y),
        M::Pcmpgtb => |a, b| select(a, b, |x: i8, y: i8| x > y),
        M::Pcmpgtw => |a, b| select(a, b, |x: i16, y: i16| x > y),
        M::Pcmpgtd => |a, b| select(a, b, |x: i32, y: i32| x > y),
        M::Pcmpgtq => |a, b| select(a, b, |x: i64, y: i64| x > y),
        _ => return None,
    };
    Some(f)
}

/// The count is the low 64 bits of the second operand, whether that is a register, memory or an immediate.
fn shift(mnemonic: M) -> Option<Binary> {
    let f: Binary = match mnemonic {
        M::Psllw => |a, n| map(a, |x: u16| x.checked_shl(bounded(n)).unwrap_or(0)),
        M::Pslld => |a, n| map(a, |x: u32| x.checked_shl(bounded(n)).unwrap_or(0)),
        M::Psllq => |a, n| map(a, |x: u64| x.checked_shl(bounded(n)).unwrap_or(0)),
        M::Psrlw => |a, n| map(a, |x: u16| x.checked_shr(bounded(n)).unwrap_or(0)),
        M::Psrld => |a, n| map(a, |x: u32| x.checked_shr(bounded(n)).unwrap_or(0)),
        M::Psrlq => |a, n| map(a, |x: u64| x.checked_shr(bounded(n)).unwrap_or(0)),
        M::Psraw => |a, n| map(a, |x: i16| x >> bounded(n).min(15)),
        M::Psrad => |a, n| map(a, |x: i32| x >> bounded(n).min(31)),
        M::Pslldq => |a, bytes| a.checked_shl(bounded(bytes) * 8).unwrap_or(0),
        M::Psrldq => |a, bytes| a.checked_shr(bounded(bytes) * 8).unwrap_or(0),
        _ => return None,
    };
    Some(f)
}

/// A shift count: anything above 128 shifts everything out just as 128 does.
fn bounded(count: u128) -> u32 {
    (count as u64).min(128) as u32
}

fn multiply_and_add_words(a: u128, b: u128) -> u128 {
    let product = |n| lane::<i16>(a, n) as i32 * lane::<i16>(b, n) as i32;
    // Wraps for one input only: four times -32768.
    collect(4, |n| product(2 * n).wrapping_add(product(2 * n + 1)))
}

/// Unsigned bytes of `a` times signed bytes of `b`.
fn multiply_and_add_bytes(a: u128, b: u128) -> u128 {
    let product = |n| lane::<u8>(a, n) as i32 * lane::<i8>(b, n) as i32;
    collect(8, |n| clamp_to_i16(product(2 * n) + product(2 * n + 1)))
}

fn clamp_to_i16(x: i32) -> i16 {
    x.clamp(i16::MIN as i32, i16::MAX as i32) as i16
}

fn sum_of_differences(a: u128, b: u128) -> u128 {
    let per_half = (u64::BITS / u8::BITS) as usize;
    collect(2, |half| {
        (half * per_half..(half + 1) * per_half)
            .map(|n| lane::<u8>(a, n).abs_diff(lane::<u8>(b, n)) as u64)
            .sum::<u64>()
    })
}

/// PHMINPOSUW: the smallest word and, above it, the number of the first element that has it.
fn minimum_and_position(x: u128) -> u128 {
    let words = (0..8).map(|n| (lane::<u16>(x, n), n));
    let (minimum, position) = words.min().unwrap_or((0, 0));
    minimum as u128 | (position as u128) << 16
}
