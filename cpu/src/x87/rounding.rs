//! Rounding, the exception flags it raises, and the answer to exceptions that no rounding is needed for.
//! SDM vol. 1, 4.8.4 and 8.5.

use std::cmp::Ordering;

use super::format::{BIAS, Class, Extended};
use super::number::{Number, shift_right_jam};

/// Exception flags of the status word, and masks of the control word.
pub(super) const INVALID: u16 = 1;
pub(super) const DENORMAL: u16 = 2;
pub(super) const ZERO_DIVIDE: u16 = 4;
pub(super) const OVERFLOW: u16 = 8;
pub(super) const UNDERFLOW: u16 = 16;
pub(super) const PRECISION: u16 = 32;

/// An unmasked exception keeps the operation from delivering anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocked;

/// Result of an operation, unless an unmasked exception blocks it.
pub(super) type Answer<T = Extended> = Result<T, Blocked>;

/// One instruction's view of the control word, and the flags it has raised so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    control: u16,
    /// The source operand was a denormal in memory; in the register format it no longer is.
    pub source_denormal: bool,
    /// Raised exceptions.
    pub flags: u16,
    /// The last rounding increased the magnitude (C1).
    pub rounded_up: bool,
}

/// A destination's precision and range; exponents unbiased.
struct Target {
    bits: u32,
    smallest: i32,
    largest: i32,
}

/// A rounded number: `significand * 2^(exponent - 127)`; a denormal one keeps the smallest exponent and has bit 127
/// clear. `None` stands for infinity.
type Rounded = Option<(i32, u128)>;

impl Context {
    pub fn new(control: u16) -> Context {
        Context { control, source_denormal: false, flags: 0, rounded_up: false }
    }

    pub fn masked(&self, exceptions: u16) -> bool {
        self.control & exceptions == exceptions
    }

    /// Raises an exception that is found before the operation is carried out.
    pub fn raise(&mut self, exception: u16) -> Answer<()> {
        self.flags |= exception;
        if self.masked(exception) { Ok(()) } else { Err(Blocked) }
    }

    /// Invalid operation whose masked response is the indefinite.
    pub fn invalid(&mut self) -> Answer {
        self.raise(INVALID).map(|()| Extended::INDEFINITE)
    }

    /// Raises the denormal exception if an operand is one, or was one in memory.
    pub fn check_denormal(&mut self, operands: &[Extended]) -> Answer<()> {
        if self.source_denormal || operands.iter().any(|operand| operand.class() == Class::Denormal) {
            self.raise(DENORMAL)?;
        }
        Ok(())
    }

    /// Answers for a NaN or unsupported operand; `None` for a proper number.
    pub fn screen(&mut self, a: Extended) -> Option<Answer> {
        match a.class() {
            Class::Unsupported => Some(self.invalid()),
            Class::QuietNan => Some(Ok(a)),
            Class::SignalingNan => Some(self.raise(INVALID).map(|()| a.quiet())),
            _ => None,
        }
    }

    /// As [`Context::screen`] for two operands. Which of two NaNs is delivered: SDM vol. 1, table 4-7.
    pub fn screen_two(&mut self, a: Extended, b: Extended) -> Option<Answer> {
        use Class::{QuietNan, SignalingNan, Unsupported};
        let answer = match (a.class(), b.class()) {
            (Unsupported, _) | (_, Unsupported) => return Some(self.invalid()),
            (SignalingNan, QuietNan) => b,
            (QuietNan, SignalingNan) => a,
            (SignalingNan, SignalingNan) | (QuietNan, QuietNan) => larger_nan(a.quiet(), b.quiet()),
            (SignalingNan | QuietNan, _) => a.quiet(),
            (_, SignalingNan | QuietNan) => b.quiet(),
            _ => return None,
        };
        if a.class() == SignalingNan || b.class() == SignalingNan {
            return Some(self.raise(INVALID).map(|()| answer));
        }
        Some(Ok(answer))
    }

    /// Whether rounding is directed towards negative infinity: the sign of an exact zero difference.
    pub fn rounds_down(&self) -> bool {
        self.control >> 10 & 3 == 1
    }

    /// Rounds as the precision control tells, into a register.
    pub fn round_controlled(&mut self, number: Number) -> Extended {
        let bits = match self.control >> 8 & 3 {
            0 => 24,
            2 => 53,
            _ => 64,
        };
        self.round_to_register(number, bits)
    }

    /// Rounds to 64 bits, into a register.
    pub fn round(&mut self, number: Number) -> Extended {
        self.round_to_register(number, 64)
    }

    fn round_to_register(&mut self, number: Number, bits: u32) -> Extended {
        if number.is_zero() {
            return Extended::zero(number.negative);
        }
        let target = Target { bits, smallest: 1 - BIAS, largest: BIAS };
        // Unmasked overflow and underflow deliver a result whose exponent is brought back into range.
        const ADJUST: i32 = 24576;
        match self.round_to(number, &target) {
            Ok(rounded) => pack(number.negative, rounded),
            Err((exponent, significand)) => {
                let exponent = exponent + if exponent > 0 { -ADJUST } else { ADJUST };
                if (1 - BIAS..=BIAS).contains(&exponent) {
                    return pack(number.negative, Some((exponent, significand)));
                }
                // FSCALE can exceed even that.
                self.flags |= PRECISION;
                self.rounded_up = exponent > 0;
                match self.rounded_up {
                    true => Extended::infinity(number.negative),
                    false => Extended::zero(number.negative),
                }
            }
        }
    }

    /// Narrows to an interchange format for a store: its bits.
    fn narrow(&mut self, value: Extended, exponent_bits: u32, fraction_bits: u32) -> Answer<u64> {
        let largest = (1 << (exponent_bits - 1)) - 1;
        let signed =
            |negative: bool, bits: u64| u64::from(negative) << (exponent_bits + fraction_bits) | bits;
        let sign = signed(value.negative(), 0);
        let infinity = ((1 << exponent_bits) - 1) << fraction_bits;
        let fraction = (1u64 << fraction_bits) - 1;
        if let Some(nan) = self.screen(value) {
            let nan = nan?;
            return Ok(signed(nan.negative(), infinity | nan.significand >> (63 - fraction_bits) & fraction));
        }
        match value.class() {
            Class::Infinity => return Ok(sign | infinity),
            Class::Zero => return Ok(sign),
            _ => {}
        }
        let target = Target { bits: fraction_bits + 1, smallest: 1 - largest, largest };
        match self.round_to(value.number(), &target) {
            Err(_) => {
                // Nothing is stored, so that nothing was rounded.
                self.flags &= !PRECISION;
                self.rounded_up = false;
                Err(Blocked)
            }
            Ok(None) => Ok(sign | infinity),
            Ok(Some((exponent, significand))) => {
                let biased = if significand >> 127 == 0 { 0 } else { (exponent + largest) as u64 };
                Ok(sign | biased << fraction_bits | (significand >> (127 - fraction_bits)) as u64 & fraction)
            }
        }
    }

    /// Rounds to single precision for a store.
    pub fn round_to_single(&mut self, value: Extended) -> Answer<u32> {
        self.narrow(value, 8, 23).map(|bits| bits as u32)
    }

    /// Rounds to double precision for a store.
    pub fn round_to_double(&mut self, value: Extended) -> Answer<u64> {
        self.narrow(value, 11, 52)
    }

    /// Rounds a number that is not zero. `Err` is the number rounded without bounds on its exponent, when it
    /// overflows or underflows and that is unmasked.
    fn round_to(&mut self, number: Number, target: &Target) -> Result<Rounded, (i32, u128)> {
        let negative = number.negative;
        let unbounded = self.round_significand(negative, number.significand, target.bits);
        let exponent = number.exponent + unbounded.carry;
        let significand = unbounded.significand;
        if exponent > target.largest {
            return self.overflow(negative, exponent, unbounded, target);
        }
        if exponent >= target.smallest {
            self.note(&unbounded);
            return Ok(Some((exponent, significand)));
        }
        if !self.masked(UNDERFLOW) {
            self.flags |= UNDERFLOW;
            self.note(&unbounded);
            return Err((exponent, significand));
        }
        let shift = (target.smallest - number.exponent) as u32;
        let denormal =
            self.round_significand(negative, shift_right_jam(number.significand, shift), target.bits);
        self.note(&denormal);
        if denormal.inexact {
            self.flags |= UNDERFLOW;
        }
        Ok(Some((target.smallest, denormal.significand)))
    }

    fn overflow(
        &mut self,
        negative: bool,
        exponent: i32,
        unbounded: RoundedSignificand,
        target: &Target,
    ) -> Result<Rounded, (i32, u128)> {
        self.flags |= OVERFLOW;
        if !self.masked(OVERFLOW) {
            self.note(&unbounded);
            return Err((exponent, unbounded.significand));
        }
        self.flags |= PRECISION;
        let to_infinity = match self.control >> 10 & 3 {
            0 => true,
            1 => negative,
            2 => !negative,
            _ => false,
        };
        self.rounded_up = to_infinity;
        let largest = !0 << (128 - target.bits);
        Ok(if to_infinity { None } else { Some((target.largest, largest)) })
    }

    fn note(&mut self, rounded: &RoundedSignificand) {
        self.rounded_up = rounded.up;
        if rounded.inexact {
            self.flags |= PRECISION;
        }
    }

    /// Rounds a significand to its `bits` top bits (at least one, less than 128).
    fn round_significand(&self, negative: bool, significand: u128, bits: u32) -> RoundedSignificand {
        let unit = 1u128 << (128 - bits);
        let rest = significand & (unit - 1);
        let kept = significand - rest;
        if !self.rounds_away(negative, kept & unit != 0, rest.cmp(&(unit / 2)), rest != 0) {
            return RoundedSignificand { significand: kept, carry: 0, up: false, inexact: rest != 0 };
        }
        match kept.checked_add(unit) {
            Some(significand) => RoundedSignificand { significand, carry: 0, up: true, inexact: true },
            None => RoundedSignificand { significand: 1 << 127, carry: 1, up: true, inexact: true },
        }
    }

    /// Whether the magnitude grows: `rest` is the lost part compared with half a unit.
    fn rounds_away(&self, negative: bool, odd: bool, rest: Ordering, inexact: bool) -> bool {
        match self.control >> 10 & 3 {
            0 => rest.is_gt() || rest.is_eq() && odd,
            1 => inexact && negative,
            2 => inexact && !negative,
            _ => false,
        }
    }

    /// Rounds a number below 2^64 to a whole one, by the rounding control or towards zero. `None` when the result
    /// needs more than 64 bits. Raises nothing; tells whether it is inexact.
    pub fn whole_of(&self, number: Number, truncate: bool) -> Option<Whole> {
        if number.is_zero() {
            return Some(Whole::default());
        }
        if number.exponent >= 64 {
            return None;
        }
        // The binary point stands below bit 64.
        let fixed = shift_right_jam(number.significand, (63 - number.exponent) as u32);
        let (whole, rest) = (fixed >> 64, fixed << 64);
        let away =
            !truncate && self.rounds_away(number.negative, whole & 1 != 0, rest.cmp(&(1 << 127)), rest != 0);
        let magnitude = u64::try_from(whole + u128::from(away)).ok()?;
        Some(Whole { magnitude, up: away, inexact: rest != 0 })
    }

    /// Raises what a rounding to a whole number found.
    pub fn note_whole(&mut self, whole: Whole) {
        self.rounded_up = whole.up;
        if whole.inexact {
            self.flags |= PRECISION;
        }
    }
}

/// A number rounded to a whole one, without its sign.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Whole {
    pub magnitude: u64,
    pub up: bool,
    pub inexact: bool,
}

struct RoundedSignificand {
    significand: u128,
    /// 1 if rounding carried into the next binade.
    carry: i32,
    up: bool,
    inexact: bool,
}

/// The NaN with the larger significand; of equal ones the positive.
fn larger_nan(a: Extended, b: Extended) -> Extended {
    match a.significand.cmp(&b.significand) {
        Ordering::Greater => a,
        Ordering::Less => b,
        Ordering::Equal if a.negative() => b,
        Ordering::Equal => a,
    }
}

fn pack(negative: bool, rounded: Rounded) -> Extended {
    let Some((exponent, significand)) = rounded else {
        return Extended::infinity(negative);
    };
    let biased = if significand >> 127 == 0 { 0 } else { (exponent + BIAS) as u16 };
    Extended { sign_exponent: u16::from(negative) << 15 | biased, significand: (significand >> 64) as u64 }
}
