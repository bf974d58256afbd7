//! Comparison, minimum and maximum. SDM vol. 2, CMPPS, COMISS, UCOMISS, MINPS, MAXPS, PTEST.

use std::cmp::Ordering;

use iced_x86::Mnemonic as M;

use super::{
    float::{Double, Format, Single, element, is_denormal, is_nan, is_signaling, operand, vector, with_low},
    form::{
        CF,
        Form::{self, Flags, Float, FloatImmediate},
        PF, ZF,
    },
    mxcsr::{DE, IE, Mxcsr},
};

/// What `mnemonic` computes, if it is one of this family.
pub(super) fn form(mnemonic: M) -> Option<Form> {
    Some(match mnemonic {
        M::Cmpps => FloatImmediate(compare_packed::<Single>),
        M::Cmppd => FloatImmediate(compare_packed::<Double>),
        M::Cmpss => FloatImmediate(compare_scalar::<Single>),
        M::Cmpsd => FloatImmediate(compare_scalar::<Double>),
        M::Minps => Float(|mxcsr, a, b| packed::<Single>(mxcsr, a, b, minimum::<Single>)),
        M::Minpd => Float(|mxcsr, a, b| packed::<Double>(mxcsr, a, b, minimum::<Double>)),
        M::Minss => Float(|mxcsr, a, b| scalar::<Single>(mxcsr, a, b, minimum::<Single>)),
        M::Minsd => Float(|mxcsr, a, b| scalar::<Double>(mxcsr, a, b, minimum::<Double>)),
        M::Maxps => Float(|mxcsr, a, b| packed::<Single>(mxcsr, a, b, maximum::<Single>)),
        M::Maxpd => Float(|mxcsr, a, b| packed::<Double>(mxcsr, a, b, maximum::<Double>)),
        M::Maxss => Float(|mxcsr, a, b| scalar::<Single>(mxcsr, a, b, maximum::<Single>)),
        M::Maxsd => Float(|mxcsr, a, b| scalar::<Double>(mxcsr, a, b, maximum::<Double>)),
        M::Ucomiss => Flags(|mxcsr, a, b| flags::<Single>(mxcsr, a, b, false)),
        M::Ucomisd => Flags(|mxcsr, a, b| flags::<Double>(mxcsr, a, b, false)),
        M::Comiss => Flags(|mxcsr, a, b| flags::<Single>(mxcsr, a, b, true)),
        M::Comisd => Flags(|mxcsr, a, b| flags::<Double>(mxcsr, a, b, true)),
        M::Ptest => Flags(|_, a, b| if a & b == 0 { ZF } else { 0 } | if !a & b == 0 { CF } else { 0 }),
        _ => return None,
    })
}

type Binary = fn(&mut Mxcsr, u64, u64) -> u64;

/// `f` of each pair of elements.
pub(super) fn packed<F: Format>(mxcsr: &mut Mxcsr, a: u128, b: u128, f: Binary) -> u128 {
    vector::<F>(|n| f(mxcsr, element::<F>(a, n), element::<F>(b, n)))
}

/// `f` of the lowest elements, under the rest of `a`.
pub(super) fn scalar<F: Format>(mxcsr: &mut Mxcsr, a: u128, b: u128, f: Binary) -> u128 {
    let low = f(mxcsr, element::<F>(a, 0), element::<F>(b, 0));
    with_low::<F>(a, low)
}

fn compare_packed<F: Format>(mxcsr: &mut Mxcsr, a: u128, b: u128, predicate: u8) -> u128 {
    vector::<F>(|n| compare::<F>(mxcsr, element::<F>(a, n), element::<F>(b, n), predicate))
}

fn compare_scalar<F: Format>(mxcsr: &mut Mxcsr, a: u128, b: u128, predicate: u8) -> u128 {
    let low = compare::<F>(mxcsr, element::<F>(a, 0), element::<F>(b, 0), predicate);
    with_low::<F>(a, low)
}

/// How `a` stands to `b`, `None` if one is a NaN. Raises IE for a signaling NaN, for any NaN if `quiet_too`, and DE.
fn order<F: Format>(mxcsr: &mut Mxcsr, a: u64, b: u64, quiet_too: bool) -> Option<Ordering> {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        if quiet_too || is_signaling::<F>(a) || is_signaling::<F>(b) {
            mxcsr.raise(IE);
        }
        return None;
    }
    if is_denormal::<F>(a) || is_denormal::<F>(b) {
        mxcsr.raise(DE);
    }
    // Sign and magnitude order like the integers of that sign and magnitude.
    let key = |x: u64| if x & F::SIGN != 0 { -((x & !F::SIGN) as i64) } else { x as i64 };
    Some(key(a).cmp(&key(b)))
}

/// All ones or 0. Predicates: EQ, LT, LE, UNORD and, with bit 2, their opposites.
fn compare<F: Format>(mxcsr: &mut Mxcsr, a: u64, b: u64, predicate: u8) -> u64 {
    let (a, b) = (operand::<F>(mxcsr, a), operand::<F>(mxcsr, b));
    let relation = predicate & 3;
    let order = order::<F>(mxcsr, a, b, relation == 1 || relation == 2);
    let holds = match relation {
        0 => order == Some(Ordering::Equal),
        1 => order == Some(Ordering::Less),
        2 => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        _ => order.is_none(),
    };
    if holds != (predicate & 4 != 0) { u64::MAX >> (64 - F::BITS) } else { 0 }
}

/// COMISS and UCOMISS: ZF, PF and CF.
pub(super) fn flags<F: Format>(mxcsr: &mut Mxcsr, a: u128, b: u128, quiet_too: bool) -> u64 {
    let (a, b) = (element::<F>(a, 0), element::<F>(b, 0));
    let (a, b) = (operand::<F>(mxcsr, a), operand::<F>(mxcsr, b));
    match order::<F>(mxcsr, a, b, quiet_too) {
        None => ZF | PF | CF,
        Some(Ordering::Less) => CF,
        Some(Ordering::Equal) => ZF,
        Some(Ordering::Greater) => 0,
    }
}

/// The second operand, unless the first is smaller: so also for NaNs and for zeros of either sign.
fn minimum<F: Format>(mxcsr: &mut Mxcsr, a: u64, b: u64) -> u64 {
    let (a, b) = (operand::<F>(mxcsr, a), operand::<F>(mxcsr, b));
    if order::<F>(mxcsr, a, b, true) == Some(Ordering::Less) { a } else { b }
}

/// The second operand, unless the first is greater.
fn maximum<F: Format>(mxcsr: &mut Mxcsr, a: u64, b: u64) -> u64 {
    let (a, b) = (operand::<F>(mxcsr, a), operand::<F>(mxcsr, b));
    if order::<F>(mxcsr, a, b, true) == Some(Ordering::Greater) { a } else { b }
}
