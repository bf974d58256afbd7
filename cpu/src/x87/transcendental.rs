//! Functions whose results are not exact. They are computed to about 120 bits and rounded once, so that the result is
//! the correctly rounded one in nearly all cases; hardware promises an error below one unit in the last place
//! (SDM vol. 1, 8.3.10) and may differ in that place.

use super::format::{Class, Extended};
use super::number::Number;
use super::rounding::{Answer, Context, PRECISION, ZERO_DIVIDE};

/// pi/4 to 128 bits.
const QUARTER_PI: Number =
    Number { negative: false, exponent: -1, significand: 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1 };
/// ln 2 to 128 bits.
pub(super) const LN_2: Number =
    Number { negative: false, exponent: -1, significand: 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af };
/// A series ends with its first term below `2^-FAR` of the leading one.
const FAR: i32 = 132;

/// The constants that instructions load.
pub(super) const PI: Number = Number { exponent: 1, ..QUARTER_PI };
pub(super) const LOG2_E: Number =
    Number { negative: false, exponent: 0, significand: 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88 };
pub(super) const LOG2_10: Number =
    Number { negative: false, exponent: 1, significand: 0xd49a_784b_cd1b_8afe_492b_f6ff_4daf_db4c };
pub(super) const LOG10_2: Number =
    Number { negative: false, exponent: -2, significand: 0x9a20_9a84_fbcf_f798_8f89_59ac_0b7c_9178 };

/// Sine and cosine of one argument; `None` if it is out of range.
type SineCosine = Option<(Extended, Extended)>;

impl Context {
    /// FSIN, FCOS, FSINCOS. The flags are those of the results that are asked for.
    pub fn sine_cosine(&mut self, a: Extended, sine: bool, cosine: bool) -> Answer<SineCosine> {
        if let Some(answer) = self.screen(a) {
            return answer.map(|nan| Some((nan, nan)));
        }
        match a.class() {
            Class::Infinity => return self.invalid().map(|nan| Some((nan, nan))),
            Class::Zero => return Ok(Some((a, Extended::ONE))),
            _ => {}
        }
        let number = a.number();
        if number.exponent >= 63 {
            return Ok(None);
        }
        self.check_denormal(&[a])?;
        let (s, c) = sine_and_cosine(number);
        let cosine = if cosine { self.round(c.jam()) } else { a };
        let sine = if sine { self.round(s.jam()) } else { a };
        Ok(Some((sine, cosine)))
    }

    /// FPTAN; `None` if the argument is out of range.
    pub fn tangent(&mut self, a: Extended) -> Answer<Option<Extended>> {
        if let Some(answer) = self.screen(a) {
            return answer.map(Some);
        }
        match a.class() {
            Class::Infinity => return self.invalid().map(Some),
            Class::Zero => return Ok(Some(a)),
            _ => {}
        }
        let number = a.number();
        if number.exponent >= 63 {
            return Ok(None);
        }
        self.check_denormal(&[a])?;
        let (s, c) = sine_and_cosine(number);
        Ok(Some(self.round(s.div(c).jam())))
    }

    /// FPATAN: the angle of the point (x, y).
    pub fn arctangent(&mut self, y: Extended, x: Extended) -> Answer {
        if let Some(answer) = self.screen_two(y, x) {
            return answer;
        }
        self.check_denormal(&[y, x])?;
        let angle = match (y.class(), x.class()) {
            (Class::Zero, _) | (_, Class::Infinity) if y.class() != Class::Infinity => {
                if !x.negative() {
                    return Ok(Extended::zero(y.negative()));
                }
                PI
            }
            (Class::Infinity, Class::Infinity) if x.negative() => Number::integer(3).mul(QUARTER_PI),
            (Class::Infinity, Class::Infinity) => QUARTER_PI,
            (Class::Infinity, _) | (_, Class::Zero) => QUARTER_PI.scale(1),
            _ => angle(y.number().magnitude(), x.number()),
        };
        Ok(self.round(Number { negative: y.negative(), ..angle.jam() }))
    }

    /// F2XM1: 2^a - 1 for a from -1 to 1. The result is undefined outside of that: the argument is delivered.
    pub fn exponential(&mut self, a: Extended) -> Answer {
        if let Some(answer) = self.screen(a) {
            return answer;
        }
        match a.class() {
            Class::Zero => return Ok(a),
            Class::Infinity if a.negative() => return Ok(Extended::ONE.negate()),
            Class::Infinity => return Ok(a),
            _ => {}
        }
        self.check_denormal(&[a])?;
        let number = a.number();
        if number.magnitude() == Number::ONE {
            return Ok(if a.negative() { Extended::from_exact(number.scale(-1)) } else { a });
        }
        if number.exponent >= 0 {
            self.flags |= PRECISION;
            return Ok(a);
        }
        Ok(self.round(exponential_minus_one(number.mul(LN_2)).jam()))
    }

    /// FYL2X: y * log2(x).
    pub fn logarithm(&mut self, y: Extended, x: Extended) -> Answer {
        if let Some(answer) = self.screen_two(y, x) {
            return answer;
        }
        let negative = y.negative();
        match (y.class(), x.class()) {
            (Class::Zero, Class::Zero) => return self.invalid(),
            (Class::Infinity, Class::Zero) => return Ok(Extended::infinity(!negative)),
            (_, Class::Zero) => {
                return self.raise(ZERO_DIVIDE).map(|()| Extended::infinity(!negative));
            }
            _ if x.negative() => return self.invalid(),
            (Class::Zero, Class::Infinity) => return self.invalid(),
            (_, Class::Infinity) => {
                return self.check_denormal(&[y]).map(|()| Extended::infinity(negative));
            }
            _ => {}
        }
        let logarithm = log2(x.number());
        self.times_logarithm(y, x, logarithm)
    }

    /// FYL2XP1: y * log2(x + 1). Undefined in the SDM unless x is near zero; carried through as long as x exceeds
    /// -1, and x otherwise.
    pub fn logarithm_plus_one(&mut self, y: Extended, x: Extended) -> Answer {
        if let Some(answer) = self.screen_two(y, x) {
            return answer;
        }
        match (y.class(), x.class()) {
            (_, Class::Infinity) if x.negative() => return self.invalid(),
            (Class::Zero, Class::Infinity) => return self.invalid(),
            (_, Class::Infinity) => {
                return self.check_denormal(&[y]).map(|()| Extended::infinity(y.negative()));
            }
            _ => {}
        }
        let number = x.number();
        if number.negative && !number.is_zero() && number.exponent >= 0 {
            self.flags |= PRECISION;
            return Ok(x);
        }
        let logarithm =
            if number.exponent < -2 { log2_near_one(number) } else { log2(Number::ONE.add(number)) };
        let logarithm = if number.is_zero() { number } else { logarithm };
        self.times_logarithm(y, x, logarithm)
    }

    fn times_logarithm(&mut self, y: Extended, x: Extended, logarithm: Number) -> Answer {
        let negative = y.negative() != logarithm.negative;
        if y.class() == Class::Infinity {
            if logarithm.is_zero() {
                return self.invalid();
            }
            return self.check_denormal(&[x]).map(|()| Extended::infinity(negative));
        }
        self.check_denormal(&[y, x])?;
        if y.class() == Class::Zero || logarithm.is_zero() {
            return Ok(Extended::zero(negative));
        }
        Ok(self.round(y.number().mul(logarithm)))
    }
}

/// Sine and cosine of a number below 2^63.
fn sine_and_cosine(number: Number) -> (Number, Number) {
    let (quadrant, rest) = reduce(number.magnitude());
    let (s, c) = (sine_series(rest), cosine_series(rest));
    let (s, c) = match quadrant & 3 {
        0 => (s, c),
        1 => (c, s.negate()),
        2 => (s.negate(), c.negate()),
        _ => (c.negate(), s),
    };
    (if number.negative { s.negate() } else { s }, c)
}

/// `number = quadrant * pi/2 + rest` with the rest between -pi/4 and pi/4, and pi being the 66-bit value that
/// SDM vol. 1, 8.3.8 gives for this reduction.
fn reduce(number: Number) -> (u32, Number) {
    /// pi/2 in units of 2^-67.
    const HALF_PI: u128 = 0xc_90fd_aa22_168c_234c;
    const UNIT: i32 = -67;
    if number.exponent < -1 {
        return (0, number);
    }
    let mut quadrant = 0u32;
    let mut rest = number.significand >> 64;
    for _ in 0..number.exponent - 63 - UNIT {
        rest <<= 1;
        quadrant <<= 1;
        if rest >= HALF_PI {
            rest -= HALF_PI;
            quadrant |= 1;
        }
    }
    if rest > HALF_PI / 2 {
        return (quadrant.wrapping_add(1), Number::new(true, 127 + UNIT, HALF_PI - rest));
    }
    (quadrant, Number::new(false, 127 + UNIT, rest))
}

/// Adds up terms until they no longer matter; `next` makes term n from term n - 1.
fn series(first: Number, next: impl Fn(Number, u64) -> Number) -> Number {
    let (mut sum, mut term) = (first, first);
    for n in 1.. {
        term = next(term, n);
        // Even a term that is too small to matter tells on which side of the sum the result lies.
        sum = sum.add(term);
        if term.is_zero() || term.exponent < first.exponent - FAR {
            break;
        }
    }
    sum
}

fn sine_series(x: Number) -> Number {
    let square = x.mul(x).negate();
    series(x, |term, n| term.mul(square).div_integer(2 * n * (2 * n + 1)))
}

fn cosine_series(x: Number) -> Number {
    let square = x.mul(x).negate();
    series(Number::ONE, |term, n| term.mul(square).div_integer(2 * n * (2 * n - 1)))
}

/// e^x - 1 for |x| < 1.
fn exponential_minus_one(x: Number) -> Number {
    series(x, |term, n| term.mul(x).div_integer(n + 1))
}

/// Sum of `x^(2n+1) / (2n+1)`, the signs alternating or not: arctangent or its hyperbolic counterpart.
fn odd_series(x: Number, alternating: bool) -> Number {
    let square = x.mul(x);
    let square = if alternating { square.negate() } else { square };
    let (mut sum, mut power) = (x, x);
    for n in 1.. {
        power = power.mul(square);
        let term = power.div_integer(2 * n + 1);
        sum = sum.add(term);
        if term.is_zero() || term.exponent < x.exponent - FAR {
            break;
        }
    }
    sum
}

/// log2(x) for x > 0. Exact for powers of two; otherwise jammed.
fn log2(x: Number) -> Number {
    // sqrt(2), below which the significand stays as it is.
    const ROOT_2: u128 = 0xb504_f333_f9de_6484_597d_89b3_754a_be9f;
    let power = if x.significand > ROOT_2 { x.exponent + 1 } else { x.exponent };
    let fraction = x.scale(-power).sub(Number::ONE);
    if fraction.is_zero() {
        return Number::integer(power.into());
    }
    Number::integer(power.into()).add(log2_near_one(fraction)).jam()
}

/// log2(1 + x) for x not zero, between sqrt(1/2) - 1 and sqrt(2) - 1.
fn log2_near_one(x: Number) -> Number {
    let argument = x.div(x.add(Number::integer(2)));
    odd_series(argument, false).scale(1).div(LN_2).jam()
}

/// The angle of (x, y) for finite x and y, y > 0 and x not zero.
fn angle(y: Number, x: Number) -> Number {
    let length = x.magnitude();
    let angle = if y.compare_magnitude(length).is_gt() {
        QUARTER_PI.scale(1).sub(arctangent(length.div(y)))
    } else {
        arctangent(y.div(length))
    };
    if x.negative { PI.sub(angle) } else { angle }
}

/// Arctangent of a number from 0 to 1.
fn arctangent(x: Number) -> Number {
    // Around tan(pi/8) the arguments of both ways are equally far from zero.
    let eighth = Number::new(false, 0, 0x3504_f333_f9de_6484_597d_89b3_754a_be9f);
    if x.compare_magnitude(eighth).is_le() {
        return odd_series(x, true);
    }
    let argument = x.sub(Number::ONE).div(x.add(Number::ONE));
    if argument.is_zero() {
        return QUARTER_PI;
    }
    QUARTER_PI.add(odd_series(argument, true))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(value: Extended, expected: f64) -> bool {
        let mut context = Context::new(0x37f);
        let value = f64::from_bits(context.round_to_double(value).unwrap());
        (value - expected).abs() <= expected.abs() * 1e-14 + f64::MIN_POSITIVE
    }

    fn double(value: f64) -> Extended {
        Extended::from_double(value.to_bits()).0
    }

    proptest! {
        #[test]
        fn functions_agree_with_double_precision(x in -3.0..3.0f64, y in -50.0..50.0f64) {
            let mut context = Context::new(0x37f);
            let (sine, cosine) = context.sine_cosine(double(x), true, true).unwrap().unwrap();
            prop_assert!(close(sine, x.sin()) && close(cosine, x.cos()));
            prop_assert!(close(context.tangent(double(x)).unwrap().unwrap(), x.tan()));
            prop_assert!(close(context.arctangent(double(y), double(x)).unwrap(), y.atan2(x)));
            let power = x / 3.0;
            let expected = (power * std::f64::consts::LN_2).exp_m1();
            prop_assert!(close(context.exponential(double(power)).unwrap(), expected));
            let logarithm = context.logarithm(double(y), double(x.abs())).unwrap();
            prop_assert!(close(logarithm, y * (x.abs().ln() / std::f64::consts::LN_2)));
            let near = x / 11.0;
            let logarithm = context.logarithm_plus_one(double(y), double(near)).unwrap();
            prop_assert!(close(logarithm, y * (near.ln_1p() / std::f64::consts::LN_2)));
        }

        #[test]
        fn tiny_arguments_keep_their_precision(exponent in -16000..-70i32, significand: u64) {
            let x = Number::new(false, exponent, u128::from(significand | 1 << 63) << 64);
            let mut context = Context::new(0x37f);
            let argument = context.round(x);
            let (sine, _) = context.sine_cosine(argument, true, true).unwrap().unwrap();
            prop_assert_eq!(sine, argument);
            prop_assert_eq!(context.arctangent(argument, Extended::ONE).unwrap(), argument);
            let logarithm = context.logarithm_plus_one(Extended::ONE, argument).unwrap();
            prop_assert_eq!(logarithm, context.round(x.mul(LOG2_E)));
        }
    }

    #[test]
    fn constants_are_what_instructions_load() {
        // SDM vol. 2A gives the values only by name; these are pi and its companions to nearest.
        let significand = |number| Context::new(0x37f).constant(number).significand;
        assert_eq!(significand(PI), 0xc90f_daa2_2168_c235);
        assert_eq!(significand(LOG2_E), 0xb8aa_3b29_5c17_f0bc);
        assert_eq!(significand(LOG2_10), 0xd49a_784b_cd1b_8afe);
        assert_eq!(significand(LOG10_2), 0x9a20_9a84_fbcf_f799);
        assert_eq!(significand(LN_2), 0xb172_17f7_d1cf_79ac);
    }

    #[test]
    fn exact_results_raise_nothing() {
        let mut context = Context::new(0x37f);
        assert_eq!(context.logarithm(double(3.0), double(8.0)).unwrap(), double(9.0));
        assert_eq!(context.exponential(double(-1.0)).unwrap(), double(-0.5));
        assert_eq!(context.logarithm(double(-3.0), double(1.0)).unwrap(), double(-0.0));
        assert_eq!(context.flags, 0);
    }

    #[test]
    fn arguments_out_of_range_are_told() {
        let mut context = Context::new(0x37f);
        assert!(context.sine_cosine(double(2f64.powi(63)), true, true).unwrap().is_none());
        assert!(context.tangent(double(-(2f64.powi(64)))).unwrap().is_none());
    }
}
