//! Binary floating point as SSE has it: exact in value, rounding and exception flags. SDM vol. 1, sections 4.8, 4.9,
//! 11.5 and appendix E.
//!
//! Every operation takes its finite operands apart, computes in 128-bit integers something that has the exact result
//! above its lowest bit and in that bit whether anything is left, and rounds once.

use super::mxcsr::{DE, IE, Mxcsr, OE, PE, Rounding, UE, ZE};

/// A format of IEEE 754, its values being the low `BITS` of a `u64`.
pub(super) trait Format {
    const BITS: u32;
    /// Bits of the fraction, without the implied one.
    const FRACTION: u32;

    const BIAS: i32 = (1 << (Self::BITS - Self::FRACTION - 2)) - 1;
    const SIGN: u64 = 1 << (Self::BITS - 1);
    const QUIET: u64 = 1 << (Self::FRACTION - 1);
    const FRACTION_MASK: u64 = (1 << Self::FRACTION) - 1;
    const INFINITY: u64 = (Self::SIGN - 1) & !Self::FRACTION_MASK;
    const LARGEST: u64 = Self::INFINITY - 1;
    /// QNaN floating-point indefinite: what an invalid operation gives.
    const INDEFINITE: u64 = Self::SIGN | Self::INFINITY | Self::QUIET;

    /// What the host's own arithmetic makes of `a` and `b`, rounding to nearest.
    fn on_host(operation: Operation, a: u64, b: u64) -> u64;
}

/// Operations that the host may do, see [`quick`].
#[derive(Clone, Copy)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

macro_rules! on_host {
    ($native:ty, $bits:ty) => {
        #[inline(always)]
        fn on_host(operation: Operation, a: u64, b: u64) -> u64 {
            let (a, b) = (<$native>::from_bits(a as $bits), <$native>::from_bits(b as $bits));
            let result = match operation {
                Operation::Add => a + b,
                Operation::Subtract => a - b,
                Operation::Multiply => a * b,
                Operation::Divide => a / b,
            };
            result.to_bits() as u64
        }
    };
}

/// Single precision.
pub(super) struct Single;
impl Format for Single {
    const BITS: u32 = 32;
    const FRACTION: u32 = 23;
    on_host!(f32, u32);
}

/// Double precision.
pub(super) struct Double;
impl Format for Double {
    const BITS: u32 = 64;
    const FRACTION: u32 = 52;
    on_host!(f64, u64);
}

/// Element `n` of a vector.
pub(super) fn element<F: Format>(x: u128, n: usize) -> u64 {
    (x >> (n as u32 * F::BITS)) as u64 & (u64::MAX >> (64 - F::BITS))
}

/// The vector whose every element is `f` of its number.
pub(super) fn vector<F: Format>(mut f: impl FnMut(usize) -> u64) -> u128 {
    (0..128 / F::BITS as usize).fold(0, |vector, n| vector | (f(n) as u128) << (n as u32 * F::BITS))
}

/// `x` with its lowest element replaced: what scalar instructions do.
pub(super) fn with_low<F: Format>(x: u128, value: u64) -> u128 {
    x >> F::BITS << F::BITS | value as u128
}

pub(super) fn is_nan<F: Format>(x: u64) -> bool {
    x & !F::SIGN > F::INFINITY
}

pub(super) fn is_signaling<F: Format>(x: u64) -> bool {
    is_nan::<F>(x) && x & F::QUIET == 0
}

pub(super) fn is_denormal<F: Format>(x: u64) -> bool {
    x & F::INFINITY == 0 && x & F::FRACTION_MASK != 0
}

fn is_infinite<F: Format>(x: u64) -> bool {
    x & !F::SIGN == F::INFINITY
}

fn is_zero<F: Format>(x: u64) -> bool {
    x & !F::SIGN == 0
}

fn is_negative<F: Format>(x: u64) -> bool {
    x & F::SIGN != 0
}

fn signed<F: Format>(negative: bool, magnitude: u64) -> u64 {
    if negative { magnitude | F::SIGN } else { magnitude }
}

/// `x`, or the zero of its sign if denormals are to be taken as zeros.
pub(super) fn operand<F: Format>(mxcsr: &Mxcsr, x: u64) -> u64 {
    if mxcsr.denormals_are_zeros() && is_denormal::<F>(x) { x & F::SIGN } else { x }
}

/// A finite value other than 0: `significand * 2^exponent`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finite {
    pub negative: bool,
    pub significand: u128,
    pub exponent: i32,
}

impl Finite {
    /// Takes `x` apart, which must be finite and not 0. The significand has exactly `FRACTION + 1` bits.
    fn unpack<F: Format>(x: u64) -> Finite {
        let (biased, fraction) = ((x & F::INFINITY) >> F::FRACTION, x & F::FRACTION_MASK);
        let negative = is_negative::<F>(x);
        let least = 1 - F::BIAS - F::FRACTION as i32;
        if biased != 0 {
            let significand = (fraction | 1 << F::FRACTION) as u128;
            return Finite { negative, significand, exponent: least + biased as i32 - 1 };
        }
        let shift = fraction.leading_zeros() - (63 - F::FRACTION);
        Finite { negative, significand: (fraction as u128) << shift, exponent: least - shift as i32 }
    }
}

/// `x >> shift` with the lowest bit set if a one was shifted out; a negative shift goes left.
fn shift_sticky(x: u128, shift: i32) -> u128 {
    match shift {
        ..=0 => x << -shift,
        1..128 => x >> shift | (x << (128 - shift) != 0) as u128,
        _ => (x != 0) as u128,
    }
}

/// `x / 2^shift` rounded to an integer, and whether that changed it. A negative shift goes left.
fn round_shift(x: u128, shift: i32, negative: bool, rounding: Rounding) -> (u128, bool) {
    // Two bits below the integer: the half, and whether there is more.
    let scaled = shift_sticky(x, shift - 2);
    let (integer, rest) = (scaled >> 2, scaled & 3);
    let up = match rounding {
        Rounding::NearestEven => rest == 3 || rest == 2 && integer & 1 != 0,
        Rounding::Down => negative && rest != 0,
        Rounding::Up => !negative && rest != 0,
        Rounding::TowardZero => false,
    };
    (integer + up as u128, rest != 0)
}

/// Rounds an exact result, whose lowest bit may stand for all that lies below it, into the format. SDM vol. 1,
/// sections 4.9.1.4 to 4.9.1.6: tininess is detected after rounding.
pub(super) fn round<F: Format>(mxcsr: &mut Mxcsr, x: Finite) -> u64 {
    let rounding = mxcsr.rounding();
    let top = 127 - x.significand.leading_zeros() as i32;
    // As if exponents had no bounds: the weight of the lowest bit that is kept.
    let excess = top - F::FRACTION as i32;
    let (significand, inexact) = round_shift(x.significand, excess, x.negative, rounding);
    let carried = (significand >> (F::FRACTION + 1)) as i32;
    let biased = x.exponent + top + carried + F::BIAS;
    if biased < 1 {
        return round_tiny::<F>(mxcsr, x, inexact);
    }
    if biased as u64 >= F::INFINITY >> F::FRACTION {
        mxcsr.raise(if inexact || mxcsr.masks(OE) { OE | PE } else { OE });
        return signed::<F>(x.negative, overflowed::<F>(x.negative, rounding));
    }
    if inexact {
        mxcsr.raise(PE);
    }
    let fraction = (significand >> carried) as u64 & F::FRACTION_MASK;
    signed::<F>(x.negative, (biased as u64) << F::FRACTION | fraction)
}

/// `inexact` says whether rounding would lose anything if exponents had no bounds.
fn round_tiny<F: Format>(mxcsr: &mut Mxcsr, x: Finite, inexact: bool) -> u64 {
    if !mxcsr.masks(UE) {
        mxcsr.raise(if inexact { UE | PE } else { UE });
        // Never seen: the exception keeps it from being written.
        return 0;
    }
    if mxcsr.flushes_to_zero() {
        mxcsr.raise(UE | PE);
        return signed::<F>(x.negative, 0);
    }
    let least = 1 - F::BIAS - F::FRACTION as i32;
    let (fraction, inexact) = round_shift(x.significand, least - x.exponent, x.negative, mxcsr.rounding());
    if inexact {
        mxcsr.raise(UE | PE);
    }
    // A fraction that rounded up to the least normal value has the bit in the exponent already.
    signed::<F>(x.negative, fraction as u64)
}

fn overflowed<F: Format>(negative: bool, rounding: Rounding) -> u64 {
    match rounding {
        Rounding::NearestEven => F::INFINITY,
        Rounding::Up if !negative => F::INFINITY,
        Rounding::Down if negative => F::INFINITY,
        _ => F::LARGEST,
    }
}

/// Raises the exceptions of operands and gives the result if one of them is a NaN: the first operand's if that is one.
/// SDM vol. 1, table 4-7.
fn from_operands<F: Format>(mxcsr: &mut Mxcsr, a: u64, b: u64) -> Option<u64> {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        if is_signaling::<F>(a) || is_signaling::<F>(b) {
            mxcsr.raise(IE);
        }
        return Some(F::QUIET | if is_nan::<F>(a) { a } else { b });
    }
    None
}

/// Denormal operands are reported after invalid operations and divisions by zero, which keep them from being seen.
fn note_denormals<F: Format>(mxcsr: &mut Mxcsr, a: u64, b: u64) {
    if is_denormal::<F>(a) || is_denormal::<F>(b) {
        mxcsr.raise(DE);
    }
}

fn invalid<F: Format>(mxcsr: &mut Mxcsr) -> u64 {
    mxcsr.raise(IE);
    F::INDEFINITE
}

/// The result where it is the same on every IEEE host and raises nothing new: operands and result well inside the
/// normal numbers, and inexact results wanted no more than rounded to nearest.
#[inline(always)]
fn quick<F: Format>(mxcsr: &Mxcsr, operation: Operation, a: u64, b: u64) -> Option<u64> {
    let exponent = |x: u64| (x & F::INFINITY) >> F::FRACTION;
    let largest = F::INFINITY >> F::FRACTION;
    let normal = |x: u64| (1..largest).contains(&exponent(x));
    if !mxcsr.rounds_to_nearest_unseen() || !normal(a) || !normal(b) {
        return None;
    }
    let result = F::on_host(operation, a, b);
    // The least exponent may be due to rounding up from below, which counts as underflow.
    (2..largest).contains(&exponent(result)).then_some(result)
}

/// `a + b`
pub(super) fn add<F: Format>(mxcsr: &mut Mxcsr, a: u64, b: u64) -> u64 {
    if let Some(result) = quick::<F>(mxcsr, Operation::Add, a, b) {
        return result;
    }
    let (a, b) = (operand::<F>(mxcsr, a), operand::<F>(mxcsr, b));
    match from_operands::<F>(mxcsr, a, b) {
        Some(nan) => nan,
        None => add_numbers::<F>(mxcsr, a, b),
    }
}

/// `a - b`
pub(super) fn subtract<F: Format>(mxcsr: &mut Mxcsr, a: u64, b: u64) -> u64 {
    if let Some(result) = quick::<F>(mxcsr, Operation::Subtract, a, b) {
        return result;
    }
    let (a, b) = (operand::<F>(mxcsr, a), operand::<F>(mxcsr, b));
    match from_operands::<F>(mxcsr, a, b) {
        Some(nan) => nan,
        None => add_numbers::<F>(mxcsr, a, b ^ F::SIGN),
    }
}

fn add_numbers<F: Format>(mxcsr: &mut Mxcsr, a: u64, b: u64) -> u64 {
    if is_infinite::<F>(a) && is_infinite::<F>(b) && a != b {
        return invalid::<F>(mxcsr);
    }
    note_denormals::<F>(mxcsr, a, b);
    if is_infinite::<F>(a) {
        return a;
    }
    if is_infinite::<F>(b) {
        return b;
    }
    let down = mxcsr.rounding() == Rounding::Down;
    match (is_zero::<F>(a), is_zero::<F>(b)) {
        (true, true) if a == b => a,
        (true, true) => signed::<F>(down, 0),
        (true, false) => round::<F>(mxcsr, Finite::unpack::<F>(b)),
        (false, true) => round::<F>(mxcsr, Finite::unpack::<F>(a)),
        (false, false) => match sum(Finite::unpack::<F>(a), Finite::unpack::<F>(b)) {
            Some(sum) => round::<F>(mxcsr, sum),
            None => signed::<F>(down, 0),
        },
    }
}

/// `None` if it is exactly 0.
fn sum(a: Finite, b: Finite) -> Option<Finite> {
    /// Room to move the smaller value down without losing more than what one sticky bit says.
    const ROOM: i32 = 64;
    let (large, small) = if a.exponent >= b.exponent { (a, b) } else { (b, a) };
    let exponent = large.exponent - ROOM;
    let x = large.significand << ROOM;
    let y = shift_sticky(small.significand, exponent - small.exponent);
    if large.negative == small.negative {
        return Some(Finite { negative: large.negative, significand: x + y, exponent });
    }
    let negative = large.negative ^ (x < y);
    (x != y).then(|| Finite { negative, significand: x.abs_diff(y), exponent })
}

/// `a * b`
pub(super) fn multiply<F: Format>(mxcsr: &mut Mxcsr, a: u64, b: u64) -> u64 {
    if let Some(result) = quick::<F>(mxcsr, Operation::Multiply, a, b) {
        return result;
    }
    let (a, b) = (operand::<F>(mxcsr, a), operand::<F>(mxcsr, b));
    if let Some(nan) = from_operands::<F>(mxcsr, a, b) {
        return nan;
    }
    let (infinite, zero) = (is_infinite::<F>(a) || is_infinite::<F>(b), is_zero::<F>(a) || is_zero::<F>(b));
    if infinite && zero {
        return invalid::<F>(mxcsr);
    }
    note_denormals::<F>(mxcsr, a, b);
    let negative = is_negative::<F>(a) != is_negative::<F>(b);
    if infinite || zero {
        return signed::<F>(negative, if infinite { F::INFINITY } else { 0 });
    }
    let (a, b) = (Finite::unpack::<F>(a), Finite::unpack::<F>(b));
    let product =
        Finite { negative, significand: a.significand * b.significand, exponent: a.exponent + b.exponent };
    round::<F>(mxcsr, product)
}

/// `a / b`
pub(super) fn divide<F: Format>(mxcsr: &mut Mxcsr, a: u64, b: u64) -> u64 {
    if let Some(result) = quick::<F>(mxcsr, Operation::Divide, a, b) {
        return result;
    }
    let (a, b) = (operand::<F>(mxcsr, a), operand::<F>(mxcsr, b));
    if let Some(nan) = from_operands::<F>(mxcsr, a, b) {
        return nan;
    }
    if is_infinite::<F>(a) && is_infinite::<F>(b) || is_zero::<F>(a) && is_zero::<F>(b) {
        return invalid::<F>(mxcsr);
    }
    let negative = is_negative::<F>(a) != is_negative::<F>(b);
    if is_zero::<F>(b) && !is_infinite::<F>(a) {
        mxcsr.raise(ZE);
        return signed::<F>(negative, F::INFINITY);
    }
    note_denormals::<F>(mxcsr, a, b);
    if is_infinite::<F>(a) {
        return signed::<F>(negative, F::INFINITY);
    }
    if is_zero::<F>(a) || is_infinite::<F>(b) {
        return signed::<F>(negative, 0);
    }
    let (a, b) = (Finite::unpack::<F>(a), Finite::unpack::<F>(b));
    // Both significands have the same length, so the quotient has at least this many bits.
    const QUOTIENT: i32 = 66;
    let dividend = a.significand << QUOTIENT;
    let significand = (dividend / b.significand) | !dividend.is_multiple_of(b.significand) as u128;
    round::<F>(mxcsr, Finite { negative, significand, exponent: a.exponent - b.exponent - QUOTIENT })
}

/// Square root.
pub(super) fn square_root<F: Format>(mxcsr: &mut Mxcsr, x: u64) -> u64 {
    let x = operand::<F>(mxcsr, x);
    if let Some(nan) = from_operands::<F>(mxcsr, x, x) {
        return nan;
    }
    if is_zero::<F>(x) {
        return x;
    }
    if is_negative::<F>(x) {
        return invalid::<F>(mxcsr);
    }
    if is_infinite::<F>(x) {
        return x;
    }
    note_denormals::<F>(mxcsr, x, x);
    let x = Finite::unpack::<F>(x);
    // An even exponent, and a radicand long enough for a root of more than 60 bits.
    let shift = 70 + (x.exponent & 1);
    let radicand = x.significand << shift;
    let root = radicand.isqrt();
    let significand = root << 1 | (root * root != radicand) as u128;
    round::<F>(mxcsr, Finite { negative: false, significand, exponent: (x.exponent - shift) / 2 - 1 })
}

/// To another format: CVTSS2SD and CVTSD2SS. A NaN keeps the top of its payload.
pub(super) fn convert<From: Format, To: Format>(mxcsr: &mut Mxcsr, x: u64) -> u64 {
    let x = operand::<From>(mxcsr, x);
    let negative = is_negative::<From>(x);
    if let Some(nan) = from_operands::<From>(mxcsr, x, x) {
        let fraction = nan & From::FRACTION_MASK;
        let fraction = match To::FRACTION > From::FRACTION {
            true => fraction << (To::FRACTION - From::FRACTION),
            false => fraction >> (From::FRACTION - To::FRACTION),
        };
        return signed::<To>(negative, To::INFINITY | fraction);
    }
    if is_infinite::<From>(x) || is_zero::<From>(x) {
        return signed::<To>(negative, if is_zero::<From>(x) { 0 } else { To::INFINITY });
    }
    note_denormals::<From>(mxcsr, x, x);
    round::<To>(mxcsr, Finite::unpack::<From>(x))
}

/// A signed integer as floating point.
pub(super) fn from_integer<F: Format>(mxcsr: &mut Mxcsr, x: i64) -> u64 {
    match x {
        0 => 0,
        _ => {
            round::<F>(mxcsr, Finite { negative: x < 0, significand: x.unsigned_abs() as u128, exponent: 0 })
        }
    }
}

/// To a signed integer of `bits`, in the low `bits` of the result. What does not fit, infinities and NaNs give the
/// integer indefinite: the sign bit alone. Denormals raise nothing of their own.
pub(super) fn to_integer<F: Format>(mxcsr: &mut Mxcsr, x: u64, bits: u32, rounding: Rounding) -> u64 {
    let x = operand::<F>(mxcsr, x);
    let mask = u64::MAX >> (64 - bits);
    let sign = 1u64 << (bits - 1);
    if is_zero::<F>(x) {
        return 0;
    }
    let (magnitude, inexact) = match is_nan::<F>(x) || is_infinite::<F>(x) {
        true => (u128::MAX, false),
        false => integral(Finite::unpack::<F>(x), rounding),
    };
    let negative = is_negative::<F>(x);
    if magnitude > sign as u128 - !negative as u128 {
        mxcsr.raise(IE);
        return sign;
    }
    if inexact {
        mxcsr.raise(PE);
    }
    (if negative { (magnitude as u64).wrapping_neg() } else { magnitude as u64 }) & mask
}

/// The magnitude rounded to an integer, and whether that changed it. What no integer register holds may come out as
/// any other such value.
fn integral(x: Finite, rounding: Rounding) -> (u128, bool) {
    round_shift(x.significand, -x.exponent.min(64), x.negative, rounding)
}

/// ROUNDSS and its like: to an integer in the same format. `quiet` keeps an inexact result unreported.
pub(super) fn to_integral<F: Format>(mxcsr: &mut Mxcsr, x: u64, rounding: Rounding, quiet: bool) -> u64 {
    let x = operand::<F>(mxcsr, x);
    if let Some(nan) = from_operands::<F>(mxcsr, x, x) {
        return nan;
    }
    if is_zero::<F>(x) || is_infinite::<F>(x) {
        return x;
    }
    let finite = Finite::unpack::<F>(x);
    if finite.exponent >= 0 {
        return x;
    }
    let (magnitude, inexact) = integral(finite, rounding);
    if inexact && !quiet {
        mxcsr.raise(PE);
    }
    match magnitude {
        0 => signed::<F>(finite.negative, 0),
        // Exact: it has no more bits than the significand had.
        _ => round::<F>(mxcsr, Finite { significand: magnitude, exponent: 0, ..finite }),
    }
}
