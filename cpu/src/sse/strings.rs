//! The comparison behind PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM. SDM vol. 2, section 4.1.

use super::{
    form::{CF, OF, SF, ZF},
    lanes::{Lane, lane},
};

/// Result of a comparison, before it becomes an index or a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// One bit per element of the second operand: IntRes2.
    bits: u32,
    /// Elements in an operand: 8 or 16.
    elements: usize,
    /// CF, ZF, SF and OF in place.
    pub flags: u64,
}

/// How many elements an operand has under `imm`.
pub(super) fn elements(imm: u8) -> usize {
    if imm & 1 != 0 { 8 } else { 16 }
}

/// Length that a register gives: its absolute value, at most all elements.
pub(super) fn explicit_length(register: i64, imm: u8) -> usize {
    register.unsigned_abs().min(elements(imm) as u64) as usize
}

/// Length up to the first element that is 0.
pub(super) fn implicit_length(x: u128, imm: u8) -> usize {
    let elements = elements(imm);
    (0..elements).find(|&n| value(x, n, imm) == 0).unwrap_or(elements)
}

/// Element `n` as the format bits of `imm` read it: words or bytes, signed or not.
fn value(x: u128, n: usize, imm: u8) -> i32 {
    match imm & 3 {
        0 => lane::<u8>(x, n) as i32,
        1 => lane::<u16>(x, n) as i32,
        2 => lane::<i8>(x, n) as i32,
        _ => lane::<i16>(x, n) as i32,
    }
}

/// Compares `a`, of which `a_length` elements are valid, with `b`.
pub(super) fn compare(a: u128, a_length: usize, b: u128, b_length: usize, imm: u8) -> Outcome {
    let elements = elements(imm);
    let x = |n| value(a, n, imm);
    let y = |n| value(b, n, imm);
    let holds = |n: usize| match imm >> 2 & 3 {
        // Equal any: `a` is a set.
        0 => n < b_length && (0..a_length).any(|k| x(k) == y(n)),
        // Ranges: `a` is pairs of bounds.
        1 => n < b_length && (0..a_length / 2).any(|k| (x(2 * k)..=x(2 * k + 1)).contains(&y(n))),
        // Equal each: beyond both ends counts as equal.
        2 => match (n < a_length, n < b_length) {
            (true, true) => x(n) == y(n),
            (a_valid, b_valid) => a_valid == b_valid,
        },
        // Equal ordered: `a` begins here, as far as `b`'s register reaches.
        _ => (0..a_length.min(elements - n)).all(|k| n + k < b_length && x(k) == y(n + k)),
    };
    let result = (0..elements).fold(0, |bits, n| bits | (holds(n) as u32) << n);
    let all = (1u32 << elements) - 1;
    let bits = match imm >> 4 & 3 {
        1 => result ^ all,
        3 => result ^ ((1 << b_length) - 1),
        _ => result,
    };
    let flags = (bits != 0) as u64 * CF
        | (b_length < elements) as u64 * ZF
        | (a_length < elements) as u64 * SF
        | (bits & 1) as u64 * OF;
    Outcome { bits, elements, flags }
}

impl Outcome {
    /// The lowest or, with bit 6 of `imm`, the highest element that is set; one past the last if there is none.
    pub fn index(&self, imm: u8) -> u64 {
        match (self.bits, imm & 0x40) {
            (0, _) => self.elements as u64,
            (bits, 0) => bits.trailing_zeros() as u64,
            (bits, _) => 31 - bits.leading_zeros() as u64,
        }
    }

    /// The bits as they are or, with bit 6 of `imm`, widened to elements.
    pub fn mask(&self, imm: u8) -> u128 {
        if imm & 0x40 == 0 {
            return self.bits as u128;
        }
        let ones = if self.elements == 8 { u16::MAX.widen() } else { u8::MAX.widen() };
        let width = 128 / self.elements;
        (0..self.elements).filter(|n| self.bits >> n & 1 != 0).fold(0, |mask, n| mask | ones << (n * width))
    }
}
