//! Operations whose results are exact before rounding. SDM vol. 2A, the tables of each instruction.

use std::cmp::Ordering;

use super::format::{Class, Extended};
use super::number::Number;
use super::rounding::{Answer, Context, INVALID, PRECISION, ZERO_DIVIDE};

/// The four basic operations and the reversed ones: `Subtract` is destination minus source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Multiply,
    Subtract,
    SubtractReversed,
    Divide,
    DivideReversed,
}

/// What FPREM and FPREM1 deliver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remainder {
    pub value: Extended,
    pub reduction: Reduction,
}

/// How far a remainder was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduction {
    /// Not at all: the operands are no numbers.
    None,
    /// The value is congruent to the operand but still too large.
    Partial,
    /// The low bits of the quotient.
    Complete(u64),
}

impl Context {
    pub fn arithmetic(&mut self, operation: Arithmetic, destination: Extended, source: Extended) -> Answer {
        if let Some(answer) = self.screen_two(destination, source) {
            return answer;
        }
        match operation {
            Arithmetic::Add => self.add(destination, source),
            Arithmetic::Multiply => self.multiply(destination, source),
            Arithmetic::Subtract => self.add(destination, source.negate()),
            Arithmetic::SubtractReversed => self.add(source, destination.negate()),
            Arithmetic::Divide => self.divide(destination, source),
            Arithmetic::DivideReversed => self.divide(source, destination),
        }
    }

    fn add(&mut self, a: Extended, b: Extended) -> Answer {
        match (a.class(), b.class()) {
            (Class::Infinity, Class::Infinity) if a.negative() != b.negative() => return self.invalid(),
            (Class::Infinity, _) => return self.check_denormal(&[b]).map(|()| a),
            (_, Class::Infinity) => return self.check_denormal(&[a]).map(|()| b),
            (Class::Zero, Class::Zero) if a.negative() == b.negative() => return Ok(a),
            _ => {}
        }
        self.check_denormal(&[a, b])?;
        let sum = a.number().add(b.number());
        if sum.is_zero() {
            return Ok(Extended::zero(self.rounds_down()));
        }
        Ok(self.round_controlled(sum))
    }

    fn multiply(&mut self, a: Extended, b: Extended) -> Answer {
        let negative = a.negative() != b.negative();
        match (a.class(), b.class()) {
            (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => return self.invalid(),
            (Class::Infinity, _) | (_, Class::Infinity) => {
                return self.check_denormal(&[a, b]).map(|()| Extended::infinity(negative));
            }
            _ => {}
        }
        self.check_denormal(&[a, b])?;
        Ok(self.round_controlled(a.number().mul(b.number())))
    }

    fn divide(&mut self, a: Extended, b: Extended) -> Answer {
        let negative = a.negative() != b.negative();
        match (a.class(), b.class()) {
            (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => return self.invalid(),
            (Class::Infinity, _) => return self.check_denormal(&[b]).map(|()| Extended::infinity(negative)),
            (_, Class::Infinity) => return self.check_denormal(&[a]).map(|()| Extended::zero(negative)),
            (_, Class::Zero) => return self.raise(ZERO_DIVIDE).map(|()| Extended::infinity(negative)),
            _ => {}
        }
        self.check_denormal(&[a, b])?;
        if a.class() == Class::Zero {
            return Ok(Extended::zero(negative));
        }
        Ok(self.round_controlled(a.number().div(b.number())))
    }

    pub fn square_root(&mut self, a: Extended) -> Answer {
        if let Some(answer) = self.screen(a) {
            return answer;
        }
        match a.class() {
            Class::Zero => Ok(a),
            _ if a.negative() => self.invalid(),
            Class::Infinity => Ok(a),
            _ => {
                self.check_denormal(&[a])?;
                Ok(self.round_controlled(a.number().sqrt()))
            }
        }
    }

    /// Rounds to a whole number in the register format.
    pub fn round_to_whole(&mut self, a: Extended) -> Answer {
        if let Some(answer) = self.screen(a) {
            return answer;
        }
        if matches!(a.class(), Class::Zero | Class::Infinity) {
            return Ok(a);
        }
        self.check_denormal(&[a])?;
        let number = a.number();
        match self.whole_of(number, false) {
            Some(whole) if number.exponent < 63 => {
                self.note_whole(whole);
                Ok(Extended::from_exact(Number::new(number.negative, 127, whole.magnitude.into())))
            }
            _ => Ok(a),
        }
    }

    /// Converts to a two's complement integer of `bits` bits. Out of range is an invalid operation.
    pub fn round_to_integer(&mut self, a: Extended, bits: u32, truncate: bool) -> Answer<i64> {
        let indefinite = i64::MIN >> (64 - bits);
        let limit = 1u64 << (bits - 1);
        if matches!(a.class(), Class::Zero | Class::Denormal | Class::Normal) {
            let number = a.number();
            if let Some(whole) = self.whole_of(number, truncate)
                && (whole.magnitude < limit || number.negative && whole.magnitude == limit)
            {
                self.note_whole(whole);
                let value = whole.magnitude as i64;
                return Ok(if number.negative { value.wrapping_neg() } else { value });
            }
        }
        self.raise(INVALID).map(|()| indefinite)
    }

    /// Rounds to a whole number of at most eighteen decimal digits. `Ok(None)` is the masked invalid response.
    pub fn round_to_decimal(&mut self, a: Extended) -> Answer<Option<u64>> {
        if matches!(a.class(), Class::Zero | Class::Denormal | Class::Normal)
            && let Some(whole) = self.whole_of(a.number(), false)
            && whole.magnitude < 1_000_000_000_000_000_000
        {
            self.note_whole(whole);
            return Ok(Some(whole.magnitude));
        }
        self.raise(INVALID).map(|()| None)
    }

    /// Compares; `Ok(None)` is unordered. A quiet comparison lets quiet NaNs pass.
    pub fn compare(&mut self, a: Extended, b: Extended, quiet: bool) -> Answer<Option<Ordering>> {
        let classes = [a.class(), b.class()];
        if classes.iter().any(|class| matches!(class, Class::Unsupported | Class::SignalingNan)) {
            return self.raise(INVALID).map(|()| None);
        }
        if classes.contains(&Class::QuietNan) {
            if !quiet {
                self.raise(INVALID)?;
            }
            return Ok(None);
        }
        self.check_denormal(&[a, b])?;
        Ok(Some(order(a).cmp(&order(b))))
    }

    /// FPREM, or FPREM1 with the quotient rounded to nearest.
    pub fn remainder(&mut self, a: Extended, b: Extended, nearest: bool) -> Answer<Remainder> {
        let none = |value| Remainder { value, reduction: Reduction::None };
        if let Some(answer) = self.screen_two(a, b) {
            return answer.map(none);
        }
        if a.class() == Class::Infinity || b.class() == Class::Zero {
            return self.invalid().map(none);
        }
        self.check_denormal(&[a, b])?;
        if a.class() == Class::Zero || b.class() == Class::Infinity {
            let value = if a.class() == Class::Denormal { self.round(a.number()) } else { a };
            return Ok(Remainder { value, reduction: Reduction::Complete(0) });
        }
        let (value, reduction) = remainder(a.number(), b.number(), nearest);
        Ok(Remainder { value: self.round(value), reduction })
    }

    /// FSCALE: `a * 2^truncate(b)`.
    pub fn scale(&mut self, a: Extended, b: Extended) -> Answer {
        if let Some(answer) = self.screen_two(a, b) {
            return answer;
        }
        match (a.class(), b.class(), b.negative()) {
            (Class::Zero, Class::Infinity, false) | (Class::Infinity, Class::Infinity, true) => {
                return self.invalid();
            }
            (_, Class::Infinity, negative) => {
                self.check_denormal(&[a])?;
                let sign = a.negative();
                return Ok(if negative { Extended::zero(sign) } else { Extended::infinity(sign) });
            }
            _ => {}
        }
        self.check_denormal(&[a, b])?;
        if matches!(a.class(), Class::Zero | Class::Infinity) {
            return Ok(a);
        }
        // Beyond any exponent's range, and far from overflowing an i32.
        const FAR: u64 = 1 << 17;
        let power = match self.whole_of(b.number(), true) {
            Some(whole) => whole.magnitude.min(FAR),
            None => FAR,
        } as i32;
        Ok(self.round(a.number().scale(if b.negative() { -power } else { power })))
    }

    /// FXTRACT: exponent and significand.
    pub fn extract(&mut self, a: Extended) -> Answer<(Extended, Extended)> {
        if let Some(answer) = self.screen(a) {
            return answer.map(|nan| (nan, nan));
        }
        match a.class() {
            Class::Infinity => Ok((Extended::infinity(false), a)),
            Class::Zero => self.raise(ZERO_DIVIDE).map(|()| (Extended::infinity(true), a)),
            _ => {
                self.check_denormal(&[a])?;
                let number = a.number();
                let exponent = Extended::from_integer(number.exponent.into());
                Ok((exponent, Extended::from_exact(Number { exponent: 0, ..number })))
            }
        }
    }

    /// A constant, by the rounding control, without raising anything.
    pub fn constant(&mut self, number: Number) -> Extended {
        let value = self.round(number);
        self.flags &= !PRECISION;
        self.rounded_up = false;
        value
    }
}

/// A key that orders numbers and infinities as their values: zeros are equal.
fn order(a: Extended) -> i128 {
    // A pseudo-denormal has the value of the normal number with exponent 1.
    let exponent = if a.class() == Class::Denormal { 1 } else { a.magnitude().sign_exponent };
    let magnitude = if a.class() == Class::Zero { 0 } else { i128::from(exponent) << 64 };
    let magnitude = magnitude | i128::from(a.significand);
    if a.negative() { -magnitude } else { magnitude }
}

/// `a` reduced modulo `b`, both finite and `b` not zero. The result needs no rounding.
fn remainder(a: Number, b: Number, nearest: bool) -> (Number, Reduction) {
    let difference = a.exponent - b.exponent;
    if difference < -1 || difference < 0 && !nearest {
        return (a, Reduction::Complete(0));
    }
    // With significands as 64-bit whole numbers, b's unit in the last place is 2^(b.exponent - 63).
    let (dividend, divisor) = (a.significand >> 64, b.significand >> 64);
    if difference >= 64 {
        // How much one execution reduces is up to the processor, between 32 and 63: SDM vol. 2A, FPREM.
        let step = difference & 31 | 32;
        let rest = (dividend << step) % divisor;
        let exponent = b.exponent + difference - step;
        return (Number::new(a.negative, exponent, rest << 64), Reduction::Partial);
    }
    // For a difference of -1 both are scaled up by one.
    let (dividend, divisor, exponent) = if difference < 0 {
        (dividend, divisor << 1, b.exponent - 1)
    } else {
        (dividend << difference, divisor, b.exponent)
    };
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    let away = nearest && (rest << 1 > divisor || rest << 1 == divisor && quotient & 1 != 0);
    let (quotient, rest) = if away { (quotient + 1, divisor - rest) } else { (quotient, rest) };
    let value = Number::new(a.negative != (away && rest != 0), exponent + 1, rest << 63);
    (value, Reduction::Complete(quotient as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustc_apfloat::ieee::X87DoubleExtended;
    use rustc_apfloat::{Float, Round, Status};

    use super::*;
    use crate::x87::rounding::{DENORMAL, OVERFLOW, UNDERFLOW};

    /// Control words with everything masked and 64 bits of precision, and what they are called elsewhere.
    const ROUNDINGS: [(u16, Round); 4] = [
        (0x37f, Round::NearestTiesToEven),
        (0x77f, Round::TowardNegative),
        (0xb7f, Round::TowardPositive),
        (0xf7f, Round::TowardZero),
    ];

    fn extended() -> impl Strategy<Value = Extended> {
        let exponent = prop_oneof![0x3fc0u16..0x4040, 0u16..80, 0x7fc0u16..0x7fff];
        let significand = prop_oneof![
            any::<u64>(),
            any::<u64>().prop_map(|s| s & 0xff << 56),
            any::<u64>().prop_map(|s| s & 0xff << 40)
        ];
        (any::<bool>(), exponent, significand).prop_map(|(negative, exponent, significand)| {
            let integer = u64::from(exponent != 0) << 63;
            let significand = if exponent == 0 { significand >> 1 } else { significand };
            Extended {
                sign_exponent: u16::from(negative) << 15 | exponent,
                significand: significand | integer,
            }
        })
    }

    fn expected(status: Status, denormal: bool) -> u16 {
        let pairs = [
            (Status::INVALID_OP, INVALID),
            (Status::DIV_BY_ZERO, ZERO_DIVIDE),
            (Status::OVERFLOW, OVERFLOW),
            (Status::UNDERFLOW, UNDERFLOW),
            (Status::INEXACT, PRECISION),
        ];
        let flags = pairs.iter().filter(|(s, _)| status.intersects(*s)).fold(0, |all, (_, flag)| all | flag);
        flags | if denormal && flags & (INVALID | ZERO_DIVIDE) == 0 { DENORMAL } else { 0 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn basic_operations_agree_with_another_implementation(
            a in extended(), b in extended(), operation in 0..4, rounding in 0..4usize
        ) {
            let (control, round) = ROUNDINGS[rounding];
            let (x, y) = (X87DoubleExtended::from_bits(a.bits()), X87DoubleExtended::from_bits(b.bits()));
            let (operation, other) = match operation {
                0 => (Arithmetic::Add, x.add_r(y, round)),
                1 => (Arithmetic::Subtract, x.sub_r(y, round)),
                2 => (Arithmetic::Multiply, x.mul_r(y, round)),
                _ => (Arithmetic::Divide, x.div_r(y, round)),
            };
            let mut context = Context::new(control);
            let value = context.arithmetic(operation, a, b).unwrap();
            if !other.value.is_nan() {
                prop_assert_eq!(value.bits(), other.value.to_bits());
            }
            let denormal = [a, b].iter().any(|operand| operand.class() == Class::Denormal);
            // Tininess is detected after rounding here and before it there; overflow to the largest number is only
            // inexact there.
            let ignored = match value.magnitude().sign_exponent {
                1 => UNDERFLOW,
                0x7ffe => OVERFLOW,
                _ => 0,
            };
            prop_assert_eq!(context.flags & !ignored, expected(other.status, denormal) & !ignored);
        }

        #[test]
        fn remainders_agree_with_another_implementation(a in extended(), b in extended(), nearest: bool) {
            let mut context = Context::new(0x37f);
            let Remainder { value, reduction } = context.remainder(a, b, nearest).unwrap();
            if reduction == Reduction::Partial {
                return Ok(());
            }
            let (x, y) = (X87DoubleExtended::from_bits(a.bits()), X87DoubleExtended::from_bits(b.bits()));
            let other = if nearest { x.ieee_rem(y) } else { x.c_fmod(y) };
            if !other.value.is_nan() {
                prop_assert_eq!(value.bits(), other.value.to_bits());
            }
        }

        #[test]
        fn root_is_the_largest_whose_square_fits(a in extended()) {
            let a = a.magnitude();
            let mut context = Context::new(0xf7f);
            let root = context.square_root(a).unwrap();
            let next = Extended { significand: root.significand | 1, ..root };
            let square = root.number().mul(root.number());
            prop_assert!(square.compare_magnitude(a.number()).is_le());
            if next != root {
                prop_assert!(next.number().mul(next.number()).compare_magnitude(a.number()).is_gt());
            }
            prop_assert_eq!(context.flags & PRECISION == 0, square.compare_magnitude(a.number()).is_eq());
        }

        #[test]
        fn values_are_ordered(a in extended(), b in extended()) {
            let mut context = Context::new(0x37f);
            let (x, y) = (X87DoubleExtended::from_bits(a.bits()), X87DoubleExtended::from_bits(b.bits()));
            prop_assert_eq!(context.compare(a, b, false).unwrap(), x.partial_cmp(&y));
        }
    }

    #[test]
    fn an_unmasked_exception_blocks_the_operation() {
        let zero = Extended::zero(false);
        let mut context = Context::new(0x37b);
        assert!(context.arithmetic(Arithmetic::Divide, Extended::ONE, zero).is_err());
        assert_eq!(context.flags, ZERO_DIVIDE);
    }

    #[test]
    fn unmasked_overflow_wraps_the_exponent() {
        let large = Extended { sign_exponent: 0x7ffe, significand: 1 << 63 };
        let mut context = Context::new(0x377);
        let value = context.arithmetic(Arithmetic::Multiply, large, large).unwrap();
        assert_eq!(context.flags, OVERFLOW);
        assert_eq!(value.number().exponent, 16383 * 2 - 24576);
    }

    #[test]
    fn precision_control_rounds_once() {
        let third = |control| {
            let three = Extended::from_integer(3);
            Context::new(control).arithmetic(Arithmetic::Divide, Extended::ONE, three).unwrap().significand
        };
        assert_eq!(third(0x37f), 0xaaaa_aaaa_aaaa_aaab);
        assert_eq!(third(0x27f), 0xaaaa_aaaa_aaaa_a800);
        assert_eq!(third(0x07f), 0xaaaa_ab00_0000_0000);
    }
}
