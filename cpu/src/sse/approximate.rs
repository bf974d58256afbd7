//! RCPPS and RSQRTPS. The SDM bounds their relative error by 1.5 * 2^-12 and leaves the value to the processor model;
//! ours is the correctly rounded value cut to 12 bits, and thus differs from that of any given hardware. They ignore
//! and leave alone MXCSR: denormal operands count as 0, tiny results become 0.

use iced_x86::Mnemonic as M;

use super::{
    float::{Format, Single, element, is_denormal, is_nan, vector, with_low},
    form::Form::{self, Lanes},
};

/// What `mnemonic` computes, if it is one of this family.
pub(super) fn form(mnemonic: M) -> Option<Form> {
    Some(Lanes(match mnemonic {
        M::Rcpps => |_, b| vector::<Single>(|n| reciprocal(element::<Single>(b, n))),
        M::Rcpss => |a, b| with_low::<Single>(a, reciprocal(element::<Single>(b, 0))),
        M::Rsqrtps => |_, b| vector::<Single>(|n| reciprocal_root(element::<Single>(b, n))),
        M::Rsqrtss => |a, b| with_low::<Single>(a, reciprocal_root(element::<Single>(b, 0))),
        _ => return None,
    }))
}

/// Fraction bits that a result keeps: its error is below 2^-12 of it.
const KEPT: u32 = 12;

fn reciprocal(x: u64) -> u64 {
    match special(x) {
        Some(special) => special,
        None => cut(1.0 / f32::from_bits(x as u32)),
    }
}

fn reciprocal_root(x: u64) -> u64 {
    match special(x) {
        Some(special) => special,
        None if x & Single::SIGN != 0 => Single::INDEFINITE,
        None => cut((1.0 / f64::from(f32::from_bits(x as u32)).sqrt()) as f32),
    }
}

/// NaNs stay, made quiet; zeros and denormals give infinity. Infinity gives 0, except that the root of a negative one
/// is invalid and goes the way of other negative numbers.
fn special(x: u64) -> Option<u64> {
    if is_nan::<Single>(x) {
        return Some(x | Single::QUIET);
    }
    let zero = x & !Single::SIGN == 0 || is_denormal::<Single>(x);
    zero.then_some(x & Single::SIGN | Single::INFINITY)
}

fn cut(x: f32) -> u64 {
    let bits = x.to_bits() as u64 & !(Single::FRACTION_MASK >> KEPT);
    if x.is_normal() || x.is_infinite() { bits } else { bits & Single::SIGN }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFINITY: u64 = Single::INFINITY;

    fn bits(x: f32) -> u64 {
        x.to_bits() as u64
    }

    #[test]
    fn errors_stay_within_the_documented_bound() {
        let bound = 1.5 / 4096.0;
        for step in 0..100_000u32 {
            // All exponents whose results are normal, fractions spread.
            let x = f32::from_bits((2 + step % 250) << 23 | step.wrapping_mul(0x9e37_79b1) >> 9);
            for (ours, exact) in [
                (reciprocal(bits(x)), 1.0 / f64::from(x)),
                (reciprocal_root(bits(x)), 1.0 / f64::from(x).sqrt()),
            ] {
                let error = (f64::from(f32::from_bits(ours as u32)) / exact - 1.0).abs();
                assert!(error <= bound, "{x:e}: {error:e}");
            }
        }
    }

    #[test]
    fn special_operands_give_what_the_sdm_says() {
        let (negative, denormal, signaling) = (Single::SIGN, 1, INFINITY | 1);
        for (x, inverse, root) in [
            (0, INFINITY, INFINITY),
            (negative, negative | INFINITY, negative | INFINITY),
            (denormal, INFINITY, INFINITY),
            (negative | denormal, negative | INFINITY, negative | INFINITY),
            (INFINITY, 0, 0),
            (negative | INFINITY, negative, Single::INDEFINITE),
            (bits(-1.0), bits(-1.0), Single::INDEFINITE),
            (signaling, signaling | Single::QUIET, signaling | Single::QUIET),
        ] {
            assert_eq!((reciprocal(x), reciprocal_root(x)), (inverse, root), "{x:#x}");
        }
        // The result would be denormal.
        assert_eq!(reciprocal(bits(-f32::MAX)), negative);
    }
}
