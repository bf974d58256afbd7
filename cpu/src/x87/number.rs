//! Binary numbers wide enough to hold what the x87 unit computes before it rounds.

use std::cmp::Ordering;

/// `(-1)^negative * significand * 2^(exponent - 127)`. Bit 127 of the significand is set unless the number is
/// zero. An operation whose result needs more than 128 bits sets one of the lowest two ("jamming"), which keeps a later rounding to
/// 64 bits or fewer exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub negative: bool,
    pub exponent: i32,
    pub significand: u128,
}

impl Number {
    pub const ZERO: Number = Number { negative: false, exponent: 0, significand: 0 };
    pub const ONE: Number = Number { negative: false, exponent: 0, significand: 1 << 127 };

    /// `significand * 2^(exponent - 127)`, normalised.
    pub fn new(negative: bool, exponent: i32, significand: u128) -> Number {
        if significand == 0 {
            return Number { negative, ..Number::ZERO };
        }
        let shift = significand.leading_zeros();
        Number { negative, exponent: exponent - shift as i32, significand: significand << shift }
    }

    /// A whole number.
    pub fn integer(value: i64) -> Number {
        Number::new(value < 0, 127, value.unsigned_abs().into())
    }

    pub fn is_zero(self) -> bool {
        self.significand == 0
    }

    pub fn negate(self) -> Number {
        Number { negative: !self.negative, ..self }
    }

    pub fn magnitude(self) -> Number {
        Number { negative: false, ..self }
    }

    /// `self * 2^power`
    pub fn scale(self, power: i32) -> Number {
        Number { exponent: self.exponent + power, ..self }
    }

    /// Compares the absolute values.
    pub fn compare_magnitude(self, other: Number) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => (self.exponent, self.significand).cmp(&(other.exponent, other.significand)),
        }
    }

    pub fn add(self, other: Number) -> Number {
        if self.is_zero() {
            return other;
        }
        if other.is_zero() {
            return self;
        }
        let (large, small) =
            if self.compare_magnitude(other) == Ordering::Less { (other, self) } else { (self, other) };
        // One bit of room for the carry.
        let high = shift_right_jam(large.significand, 1);
        let low = shift_right_jam(small.significand, 1 + (large.exponent - small.exponent) as u32);
        let sum = if large.negative == small.negative { high + low } else { high - low };
        Number::new(large.negative, large.exponent + 1, sum)
    }

    pub fn sub(self, other: Number) -> Number {
        self.add(other.negate())
    }

    pub fn mul(self, other: Number) -> Number {
        let negative = self.negative != other.negative;
        if self.is_zero() || other.is_zero() {
            return Number { negative, ..Number::ZERO };
        }
        let (high, low) = multiply(self.significand, other.significand);
        // Both factors lie in [2^127, 2^128): the product has one leading zero at most.
        let shift = high.leading_zeros();
        let (high, low) = if shift == 1 { (high << 1 | low >> 127, low << 1) } else { (high, low) };
        Number {
            negative,
            exponent: self.exponent + other.exponent + 1 - shift as i32,
            significand: high | u128::from(low != 0),
        }
    }

    /// `self / divisor`; the divisor must not be zero.
    pub fn div(self, divisor: Number) -> Number {
        let quotient = if self.significand as u64 == 0 && divisor.significand as u64 == 0 {
            divide_short(self.significand, divisor.significand)
        } else {
            divide_long(self.significand, divisor.significand)
        };
        Number::new(self.negative != divisor.negative, self.exponent - divisor.exponent, quotient)
    }

    /// `self / divisor` for a small divisor.
    pub fn div_integer(self, divisor: u64) -> Number {
        self.div(Number::new(false, 127, divisor.into()))
    }

    /// Square root of a number of at most 64 significant bits that is not negative: 65 bits, and jam.
    pub fn sqrt(self) -> Number {
        let odd = self.exponent & 1;
        let radicand = self.significand >> (1 - odd);
        let root = radicand.isqrt();
        let remainder = radicand - root * root;
        // sqrt(radicand) >= root + 1/2 exactly when the remainder exceeds the root; equality with a half is
        // impossible.
        let half = u128::from(remainder > root) << 63;
        Number::new(false, (self.exponent - odd) / 2, root << 64 | half | u128::from(remainder != 0))
    }

    /// Makes the number inexact: for results that are known to be irrational.
    pub fn jam(self) -> Number {
        Number { significand: self.significand | 1, ..self }
    }
}

/// Shifts right; a lost bit that was set sets bit 0.
pub(super) fn shift_right_jam(value: u128, by: u32) -> u128 {
    match by {
        0 => value,
        1..=127 => value >> by | u128::from(value << (128 - by) != 0),
        _ => u128::from(value != 0),
    }
}

/// The 256-bit product as (high, low).
fn multiply(a: u128, b: u128) -> (u128, u128) {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let low = a0 * b0;
    let middle = a1 * b0 + (low >> 64);
    let other = a0 * b1 + (middle & LOW);
    (a1 * b1 + (middle >> 64) + (other >> 64), other << 64 | low & LOW)
}

/// `a / b * 2^127`, jammed, for significands whose low 64 bits are zero.
fn divide_short(a: u128, b: u128) -> u128 {
    let b = b >> 64;
    let (first, rest) = (a / b, a % b);
    let rest = rest << 64;
    let (second, rest) = (rest / b, rest % b);
    // `first` has 64 or 65 bits: one of `second` goes into the sticky bit.
    first << 63 | second >> 1 | u128::from(second & 1 != 0 || rest != 0)
}

/// `a / b * 2^127`, jammed, for normalised significands.
fn divide_long(a: u128, b: u128) -> u128 {
    let (mut quotient, mut rest) = if a >= b { (1u128, a - b) } else { (0, a) };
    for _ in 0..127 {
        let carry = rest >> 127 != 0;
        rest <<= 1;
        quotient <<= 1;
        if carry || rest >= b {
            rest = rest.wrapping_sub(b);
            quotient |= 1;
        }
    }
    quotient | u128::from(rest != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn short() -> impl Strategy<Value = Number> {
        (any::<bool>(), -100..100i32, any::<u64>()).prop_map(|(negative, exponent, s)| {
            Number::new(negative, exponent, u128::from(s | 1 << 63) << 64)
        })
    }

    proptest! {
        #[test]
        fn both_divisions_agree(a in short(), b in short()) {
            prop_assert_eq!(
                divide_short(a.significand, b.significand),
                divide_long(a.significand, b.significand)
            );
        }

        #[test]
        fn product_divided_by_a_factor_is_the_other(a in short(), b in short()) {
            prop_assert_eq!(a.mul(b).div(b), a);
        }

        #[test]
        fn root_of_a_square_is_exact(a in any::<u32>().prop_filter("not zero", |a| *a != 0)) {
            let root = Number::integer(a.into());
            prop_assert_eq!(root.mul(root).sqrt(), root);
        }

        #[test]
        fn sums_of_whole_numbers_are_exact(a in any::<i32>(), b in any::<i32>()) {
            let (a, b) = (i64::from(a), i64::from(b));
            let sum = Number::integer(a).add(Number::integer(b));
            prop_assert_eq!(sum.magnitude(), Number::integer(a + b).magnitude());
        }
    }

    #[test]
    fn a_lost_bit_is_jammed() {
        let tiny = Number::ONE.scale(-200);
        assert!(Number::ONE.add(tiny).compare_magnitude(Number::ONE).is_gt());
        assert!(Number::ONE.sub(tiny).compare_magnitude(Number::ONE).is_lt());
    }
}
