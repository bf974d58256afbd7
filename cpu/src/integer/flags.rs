//! The six arithmetic flags, kept as what they are computed from until somebody asks.

use serde::{Deserialize, Serialize};

/// Carry flag in RFLAGS.
pub const CF: u64 = 1 << 0;
/// Parity flag in RFLAGS.
pub const PF: u64 = 1 << 2;
/// Auxiliary carry flag in RFLAGS.
pub const AF: u64 = 1 << 4;
/// Zero flag in RFLAGS.
pub const ZF: u64 = 1 << 6;
/// Sign flag in RFLAGS.
pub const SF: u64 = 1 << 7;
/// Direction flag in RFLAGS. Not lazy: it always stands in `State::rflags`.
pub const DF: u64 = 1 << 10;
/// Overflow flag in RFLAGS.
pub const OF: u64 = 1 << 11;
/// The flags that [`LazyFlags`] holds.
pub const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;

/// The last result and the carries out of each of its bits: any flag follows from these two words without a switch
/// over the operation (the idea is Bochs's).
///
/// Every operation leaves its result sign-extended to 64 bits, and its carries moved up so that the carry out of the
/// top bit is bit 63 whatever the operand size was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LazyFlags {
    /// ZF: this is 0. SF: bit 63, flipped by `SIGN_FLIP`. PF: parity of the low byte, flipped by `PARITY_FLIP`.
    result: u64,
    /// CF: bit 63. OF: bit 63 differs from bit 62. AF: bit 3. And the two flips, for flags that no result has
    /// (SAHF, POPF, COMISS and so on).
    carries: u64,
}

const SIGN_FLIP: u64 = 1;
const AUXILIARY: u64 = 1 << 3;
const PARITY_FLIP: u64 = 1 << 8;
const CARRY_INTO_TOP: u64 = 1 << 62;
const CARRY: u64 = 1 << 63;

/// For each condition, with which of OF, CF, ZF and SF - bits 0 to 3 of a bit's number - it holds. None of parity.
const HOLDS: [u16; 16] = {
    let mut holds = [0; 16];
    let mut at = 0;
    while at < 256 {
        let (code, flags) = (at >> 4, at & 15);
        let [of, cf, zf, sf] = [flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 8 != 0];
        let positive = match code >> 1 {
            0 => of,
            1 => cf,
            2 => zf,
            3 => cf | zf,
            4 => sf,
            5 => code & 1 != 0,
            6 => sf != of,
            _ => zf | (sf != of),
        };
        if positive != (code & 1 != 0) {
            holds[code] |= 1 << flags;
        }
        at += 1;
    }
    holds
};

impl Default for LazyFlags {
    fn default() -> Self {
        LazyFlags::load(0)
    }
}

impl LazyFlags {
    /// The arithmetic flags of `rflags`; its other bits are ignored.
    pub fn load(rflags: u64) -> LazyFlags {
        let bit = |flag: u64| (rflags & flag != 0) as u64;
        LazyFlags {
            result: (1 - bit(ZF)) << 8,
            carries: bit(CF) << 63 | (bit(CF) ^ bit(OF)) << 62 | (1 - bit(PF)) << 8 | bit(AF) << 3 | bit(SF),
        }
    }

    /// `rflags` with its arithmetic flags replaced by these.
    pub fn fold(&self, rflags: u64) -> u64 {
        (rflags & !ARITHMETIC)
            | (self.cf() as u64)
            | (self.pf() as u64) << 2
            | (self.af() as u64) << 4
            | (self.zf() as u64) << 6
            | (self.sf() as u64) << 7
            | (self.of() as u64) << 11
    }

    /// Carry flag.
    #[inline(always)]
    pub fn cf(&self) -> bool {
        self.carries >> 63 != 0
    }

    /// Parity flag: the low byte has an even number of ones.
    #[inline(always)]
    pub fn pf(&self) -> bool {
        (self.result as u8).count_ones() & 1 == (self.carries / PARITY_FLIP) as u32 & 1
    }

    /// Auxiliary carry flag.
    #[inline(always)]
    pub fn af(&self) -> bool {
        self.carries & AUXILIARY != 0
    }

    /// Zero flag.
    #[inline(always)]
    pub fn zf(&self) -> bool {
        self.result == 0
    }

    /// Sign flag.
    #[inline(always)]
    pub fn sf(&self) -> bool {
        self.result >> 63 != self.carries & SIGN_FLIP
    }

    /// Overflow flag.
    #[inline(always)]
    pub fn of(&self) -> bool {
        (self.carries ^ self.carries << 1) >> 63 != 0
    }

    /// The condition with the low four bits `code` of a Jcc, SETcc or CMOVcc opcode. SDM vol. 1, appendix B.
    #[inline(always)]
    pub fn condition(&self, code: u8) -> bool {
        let holds = match code >> 1 & 7 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() | self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => self.zf() | (self.sf() != self.of()),
        };
        holds != (code & 1 != 0)
    }

    /// As [`LazyFlags::condition`] without a switch over the condition, except for those of parity, which it takes for
    /// something else. Only the low four bits of `code` count.
    #[inline(always)]
    pub(crate) fn holds(&self, code: u8) -> bool {
        let flags =
            self.of() as u32 | (self.cf() as u32) << 1 | (self.zf() as u32) << 2 | (self.sf() as u32) << 3;
        HOLDS[(code & 15) as usize] >> flags & 1 != 0
    }

    /// Flags of `sum = a + b (+ carry)` in the low `bits` bits.
    #[inline(always)]
    pub(crate) fn set_add(&mut self, bits: u32, a: u64, b: u64, sum: u64) {
        self.set(bits, sum, (a & b) | ((a | b) & !sum));
    }

    /// Flags of `difference = a - b (- borrow)` in the low `bits` bits.
    #[inline(always)]
    pub(crate) fn set_sub(&mut self, bits: u32, a: u64, b: u64, difference: u64) {
        self.set(bits, difference, (!a & b) | ((!a | b) & difference));
    }

    /// Flags of a logical operation: CF, OF and AF become 0.
    #[inline(always)]
    pub(crate) fn set_logic(&mut self, bits: u32, result: u64) {
        self.result = sign_extend(bits, result);
        self.carries = 0;
    }

    /// ZF, SF and PF of `result`; CF and OF as given, AF 0.
    #[inline(always)]
    pub(crate) fn set_result(&mut self, bits: u32, result: u64, cf: bool, of: bool) {
        self.result = sign_extend(bits, result);
        self.carries = carry_bits(cf, of);
    }

    /// Changes CF and nothing else.
    #[inline(always)]
    pub(crate) fn set_cf(&mut self, cf: bool) {
        self.set_cf_of(cf, self.of());
    }

    /// Changes CF and OF and nothing else.
    #[inline(always)]
    pub(crate) fn set_cf_of(&mut self, cf: bool, of: bool) {
        self.carries = self.carries & !(CARRY | CARRY_INTO_TOP) | carry_bits(cf, of);
    }

    /// Changes ZF and nothing else.
    pub(crate) fn set_zf(&mut self, zf: bool) {
        *self = LazyFlags::load(self.fold(0) & !ZF | if zf { ZF } else { 0 });
    }

    #[inline(always)]
    fn set(&mut self, bits: u32, result: u64, carries: u64) {
        self.result = sign_extend(bits, result);
        self.carries = (carries << (64 - bits)) & (CARRY | CARRY_INTO_TOP) | carries & AUXILIARY;
    }
}

#[inline(always)]
fn carry_bits(cf: bool, of: bool) -> u64 {
    (cf as u64) << 63 | ((cf ^ of) as u64) << 62
}

/// The low `bits` (1 to 64) bits of `value`, sign-extended.
#[inline(always)]
pub(crate) fn sign_extend(bits: u32, value: u64) -> u64 {
    ((value << (64 - bits)) as i64 >> (64 - bits)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arithmetic flags chosen by the six bits of `n`.
    fn subset(n: u64) -> u64 {
        let flags = [CF, PF, AF, ZF, SF, OF];
        flags.iter().enumerate().map(|(i, flag)| if n >> i & 1 != 0 { *flag } else { 0 }).sum()
    }

    #[test]
    fn every_combination_survives_load_and_fold() {
        for n in 0..64u64 {
            let rflags = subset(n);
            assert_eq!(LazyFlags::load(rflags).fold(0x202), rflags | 0x202);
        }
    }

    #[test]
    fn conditions_without_a_switch_are_the_same_but_for_parity() {
        for n in 0..64u64 {
            let flags = LazyFlags::load(subset(n));
            for code in (0..16).filter(|code| code >> 1 != 5) {
                assert_eq!(flags.holds(code), flags.condition(code), "condition {code} of {flags:?}");
            }
        }
    }

    #[test]
    fn byte_additions_and_subtractions_agree_with_wide_arithmetic() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let mut flags = LazyFlags::default();
                flags.set_add(8, a as u64, b as u64, a as u64 + b as u64);
                let (sum, carry) = a.overflowing_add(b);
                expect(flags, sum, carry, (a as i8).overflowing_add(b as i8).1, (a & 15) + (b & 15) > 15);
                flags.set_sub(8, a as u64, b as u64, (a as u64).wrapping_sub(b as u64));
                let (difference, borrow) = a.overflowing_sub(b);
                expect(flags, difference, borrow, (a as i8).overflowing_sub(b as i8).1, a & 15 < b & 15);
            }
        }
    }

    fn expect(flags: LazyFlags, result: u8, cf: bool, of: bool, af: bool) {
        assert_eq!((flags.cf(), flags.of(), flags.af()), (cf, of, af));
        assert_eq!(flags.zf(), result == 0);
        assert_eq!(flags.sf(), result >> 7 != 0);
        assert_eq!(flags.pf(), result.count_ones().is_multiple_of(2));
    }

    #[test]
    fn single_flags_change_alone() {
        for n in 0..64u64 {
            let rflags = subset(n);
            for on in [false, true] {
                let mut lazy = LazyFlags::load(rflags);
                lazy.set_cf(on);
                assert_eq!(lazy.fold(0), rflags & !CF | if on { CF } else { 0 });
                let mut lazy = LazyFlags::load(rflags);
                lazy.set_zf(on);
                assert_eq!(lazy.fold(0), rflags & !ZF | if on { ZF } else { 0 });
            }
        }
    }
}
