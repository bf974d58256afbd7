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
    let flag = |set: bool, flag: u64| if set { flag } else { 0 };
    let flags = flag(bits != 0, CF)
        | flag(b_length < elements, ZF)
        | flag(a_length < elements, SF)
        | flag(bits & 1 != 0, OF);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &[u8]) -> u128 {
        (0..s.len()).fold(0, |v, n| v | (s[n] as u128) << (8 * n))
    }

    fn outcome(a: &[u8], b: &[u8], imm: u8) -> Outcome {
        compare(text(a), a.len(), text(b), b.len(), imm)
    }

    #[test]
    fn equal_any_finds_members_of_a_set() {
        let found = outcome(b"aeiou", b"rhythm of it", 0);
        assert_eq!((found.index(0), found.index(0x40), found.mask(0)), (7, 10, 1 << 7 | 1 << 10));
        assert_eq!(found.flags, CF | ZF | SF);
    }

    #[test]
    fn ranges_are_pairs_of_bounds() {
        assert_eq!(outcome(b"azAZ", b"09_bX", 0b0100).mask(0), 0b11000);
        // The third bound has no partner.
        assert_eq!(outcome(b"azA", b"09_bX", 0b0100).mask(0), 0b01000);
    }

    #[test]
    fn equal_each_with_negation_finds_the_first_difference() {
        let differing = outcome(b"persist", b"perfect", 0b1_1000);
        assert_eq!(differing.index(0), 3);
        let same = outcome(b"same", b"same", 0b1_1000);
        assert_eq!((same.index(0), same.flags & CF), (16, 0));
    }

    #[test]
    fn equal_ordered_finds_substrings_and_beginnings_at_the_end() {
        assert_eq!(outcome(b"lin", b"a line of lint", 0b1100).index(0), 2);
        assert_eq!(outcome(b"xyz", b"0123456789abcdxy", 0b1100).index(0), 14);
        assert_eq!(outcome(b"", b"abc", 0b1100).flags & (CF | OF), CF | OF);
    }

    #[test]
    fn words_halve_the_elements() {
        let a = 0x0002_0001;
        let found = compare(a, 2, a, 2, 1);
        assert_eq!((found.mask(0x40), found.index(0x40)), (0xffff_ffff, 1));
        assert_eq!(compare(0, 0, 0, 0, 1).index(0), 8);
    }

    #[test]
    fn lengths_saturate_and_end_at_zero() {
        assert_eq!((explicit_length(-3, 0), explicit_length(i64::MIN, 0), explicit_length(9, 1)), (3, 16, 8));
        assert_eq!((implicit_length(0x0041_4243, 0), implicit_length(u128::MAX, 0)), (3, 16));
        assert_eq!(implicit_length(0x0000_0041_4243, 1), 2);
    }
}
