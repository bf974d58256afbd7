//! What the shifts and rotates compute, in any operand size. Conventions as in `alu`.
//!
//! The count is masked to 5 bits, 6 for 64-bit operands; a masked count of 0 changes nothing. OF is defined for a
//! count of 1 only; for others it is what the same rule gives for the last step.

use super::{
    alu::mask,
    flags::{LazyFlags, sign_extend},
};

/// The eight instructions of the shift group, in the encoding's order (6 is an alias of 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shift {
    Rol,
    Ror,
    Rcl,
    Rcr,
    Shl,
    Shr,
    Sar,
}

#[inline(always)]
fn masked(bits: u32, count: u64) -> u32 {
    count as u32 & if bits == 64 { 63 } else { 31 }
}

#[inline(always)]
fn bit(value: u64, n: u32) -> bool {
    value >> n & 1 != 0
}

/// `a` shifted or rotated by `count`, with its flags.
#[inline(always)]
pub(super) fn shift(op: Shift, flags: &mut LazyFlags, bits: u32, a: u64, count: u64) -> u64 {
    let count = masked(bits, count);
    if count == 0 {
        return a;
    }
    match op {
        Shift::Shl => shl(flags, bits, a, count),
        Shift::Shr => shr(flags, bits, a, count),
        Shift::Sar => sar(flags, bits, a, count),
        Shift::Rol => {
            let result = rotate_left(bits, a, count);
            let cf = bit(result, 0);
            flags.set_cf_of(cf, bit(result, bits - 1) != cf);
            result
        }
        Shift::Ror => {
            let result = rotate_left(bits, a, bits - count % bits);
            let cf = bit(result, bits - 1);
            flags.set_cf_of(cf, bit(result, bits - 2) != cf);
            result
        }
        Shift::Rcl => rotate_through_carry(flags, bits, a, count % (bits + 1)),
        Shift::Rcr => {
            let of = bit(a, bits - 1) != flags.cf();
            let result = rotate_through_carry(flags, bits, a, (bits + 1) - count % (bits + 1));
            let of = if count == 1 { of } else { bit(result, bits - 1) != bit(result, bits - 2) };
            flags.set_cf_of(flags.cf(), of);
            result
        }
    }
}

#[inline(always)]
fn shl(flags: &mut LazyFlags, bits: u32, a: u64, count: u32) -> u64 {
    let result = a << count;
    // A byte or word can be shifted further than it is long: then nothing of it is left, not even in CF.
    let cf = count <= bits && bit(a, bits - count);
    flags.set_result(bits, result, cf, bit(result, bits - 1) != cf);
    result
}

#[inline(always)]
fn shr(flags: &mut LazyFlags, bits: u32, a: u64, count: u32) -> u64 {
    let result = a >> count;
    flags.set_result(bits, result, bit(a, count - 1), bit(a >> (count - 1), bits - 1));
    result
}

#[inline(always)]
fn sar(flags: &mut LazyFlags, bits: u32, a: u64, count: u32) -> u64 {
    let a = sign_extend(bits, a) as i64;
    let result = (a >> count) as u64;
    flags.set_result(bits, result, bit((a >> (count - 1)) as u64, 0), false);
    result
}

#[inline(always)]
fn rotate_left(bits: u32, a: u64, count: u32) -> u64 {
    let count = count % bits;
    if count == 0 { a } else { (a << count | a >> (bits - count)) & mask(bits) }
}

/// Rotates CF and `a`, together `bits + 1` bits, left by `count`.
fn rotate_through_carry(flags: &mut LazyFlags, bits: u32, a: u64, count: u32) -> u64 {
    let length = bits + 1;
    let count = count % length;
    if count == 0 {
        return a;
    }
    let ring = (flags.cf() as u128) << bits | a as u128;
    let turned = ring << count | ring >> (length - count);
    let (result, cf) = (turned as u64 & mask(bits), turned >> bits & 1 != 0);
    flags.set_cf_of(cf, bit(result, bits - 1) != cf);
    result
}

/// SHLD: `a` shifted left, filled from the top of `filler`.
pub(super) fn shld(flags: &mut LazyFlags, bits: u32, a: u64, filler: u64, count: u64) -> u64 {
    let count = masked(bits, count);
    if count == 0 {
        return a;
    }
    if count > bits {
        // A word shifted by more than 16 is undefined; processors go on shifting what came in.
        return shld(flags, bits, filler, a, (count - bits) as u64);
    }
    let result = if count == bits { filler } else { (a << count | filler >> (bits - count)) & mask(bits) };
    let cf = bit(a, bits - count);
    flags.set_result(bits, result, cf, bit(result, bits - 1) != bit(a, bits - 1));
    result
}

/// SHRD: `a` shifted right, filled from the bottom of `filler`.
pub(super) fn shrd(flags: &mut LazyFlags, bits: u32, a: u64, filler: u64, count: u64) -> u64 {
    let count = masked(bits, count);
    if count == 0 {
        return a;
    }
    if count > bits {
        return shrd(flags, bits, filler, a, (count - bits) as u64);
    }
    let result = if count == bits { filler } else { (a >> count | filler << (bits - count)) & mask(bits) };
    flags.set_result(bits, result, bit(a, count - 1), bit(result, bits - 1) != bit(result, bits - 2));
    result
}
