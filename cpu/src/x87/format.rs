//! The register format: double extended precision, and the formats it is converted from. SDM vol. 1, 4.2 and 8.2.

use super::number::Number;

/// Exponent bias of the register format.
pub(super) const BIAS: i32 = 16383;

/// One register's content: 80 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extended {
    /// Sign in bit 15, biased exponent below.
    pub sign_exponent: u16,
    /// Significand with its explicit integer bit.
    pub significand: u64,
}

/// What a register's content stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Zero,
    /// Denormals and pseudo-denormals.
    Denormal,
    Normal,
    Infinity,
    QuietNan,
    SignalingNan,
    /// Pseudo-NaN, pseudo-infinity and unnormal: not accepted since the 387. SDM vol. 1, 8.2.2.
    Unsupported,
}

impl Extended {
    /// QNaN floating-point indefinite.
    pub const INDEFINITE: Extended = Extended { sign_exponent: 0xffff, significand: 0xc000_0000_0000_0000 };
    pub const ONE: Extended = Extended { sign_exponent: BIAS as u16, significand: 1 << 63 };

    pub fn from_bits(bits: u128) -> Extended {
        Extended { sign_exponent: (bits >> 64) as u16, significand: bits as u64 }
    }

    pub fn bits(self) -> u128 {
        u128::from(self.sign_exponent) << 64 | u128::from(self.significand)
    }

    pub fn zero(negative: bool) -> Extended {
        Extended { sign_exponent: u16::from(negative) << 15, significand: 0 }
    }

    pub fn infinity(negative: bool) -> Extended {
        Extended { sign_exponent: u16::from(negative) << 15 | 0x7fff, significand: 1 << 63 }
    }

    pub fn negative(self) -> bool {
        self.sign_exponent & 0x8000 != 0
    }

    pub fn negate(self) -> Extended {
        Extended { sign_exponent: self.sign_exponent ^ 0x8000, ..self }
    }

    pub fn magnitude(self) -> Extended {
        Extended { sign_exponent: self.sign_exponent & 0x7fff, ..self }
    }

    /// A NaN made quiet.
    pub fn quiet(self) -> Extended {
        Extended { significand: self.significand | 1 << 62, ..self }
    }

    pub fn class(self) -> Class {
        let integer = self.significand >> 63 != 0;
        match (self.sign_exponent & 0x7fff, integer) {
            (0, _) if self.significand == 0 => Class::Zero,
            (0, _) => Class::Denormal,
            (_, false) => Class::Unsupported,
            (0x7fff, true) if self.significand << 1 == 0 => Class::Infinity,
            (0x7fff, true) if self.significand >> 62 & 1 != 0 => Class::QuietNan,
            (0x7fff, true) => Class::SignalingNan,
            (_, true) => Class::Normal,
        }
    }

    /// The value of a zero, denormal or normal number.
    pub fn number(self) -> Number {
        let exponent = i32::from(self.sign_exponent & 0x7fff).max(1) - BIAS;
        Number::new(self.negative(), exponent, u128::from(self.significand) << 64)
    }

    /// A number that is exactly representable as a normal one or zero.
    pub fn from_exact(number: Number) -> Extended {
        if number.is_zero() {
            return Extended::zero(number.negative);
        }
        Extended {
            sign_exponent: u16::from(number.negative) << 15 | (number.exponent + BIAS) as u16,
            significand: (number.significand >> 64) as u64,
        }
    }

    pub fn from_integer(value: i64) -> Extended {
        Extended::from_exact(Number::integer(value))
    }

    /// Widens single precision. A signaling NaN stays one. The flag tells a denormal.
    pub fn from_single(bits: u32) -> (Extended, bool) {
        widen(bits.into(), 8, 23)
    }

    /// Widens double precision. A signaling NaN stays one. The flag tells a denormal.
    pub fn from_double(bits: u64) -> (Extended, bool) {
        widen(bits, 11, 52)
    }

    /// Eighteen decimal digits, two a byte, and a sign. Digits above 9 are undefined in the SDM and count as they
    /// stand.
    pub fn from_bcd(bytes: [u8; 10]) -> Extended {
        let value = bytes[..9]
            .iter()
            .rev()
            .fold(0i64, |sum, byte| sum * 100 + i64::from(byte >> 4) * 10 + i64::from(byte & 15));
        let number = Number::integer(value);
        Extended::from_exact(Number { negative: bytes[9] & 0x80 != 0, ..number })
    }
}

/// Widens an interchange format of `exponent_bits` and `fraction_bits`.
fn widen(bits: u64, exponent_bits: u32, fraction_bits: u32) -> (Extended, bool) {
    let negative = bits >> (exponent_bits + fraction_bits) != 0;
    let special = (1 << exponent_bits) - 1;
    let exponent = (bits >> fraction_bits) as i32 & special;
    let fraction = bits & ((1 << fraction_bits) - 1);
    let aligned = fraction << (63 - fraction_bits);
    if exponent == special {
        return (Extended { significand: 1 << 63 | aligned, ..Extended::infinity(negative) }, false);
    }
    let integer = u64::from(exponent != 0) << 63;
    let value = Number::new(negative, exponent.max(1) - special / 2, u128::from(integer | aligned) << 64);
    (Extended::from_exact(value), exponent == 0 && fraction != 0)
}

/// The packed decimal indefinite. SDM vol. 1, 4.2.2 and table 4-4.
pub(super) const BCD_INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];

/// Packs a whole number below 10^18.
pub(super) fn to_bcd(negative: bool, mut magnitude: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    for byte in &mut bytes[..9] {
        let pair = (magnitude % 100) as u8;
        *byte = (pair / 10) << 4 | (pair % 10);
        magnitude /= 100;
    }
    bytes[9] = u8::from(negative) << 7;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_exponent_and_integer_bit() {
        let class = |sign_exponent, significand| Extended { sign_exponent, significand }.class();
        assert_eq!(class(0x8000, 0), Class::Zero);
        assert_eq!(class(0, 1), Class::Denormal);
        assert_eq!(class(0, 1 << 63), Class::Denormal);
        assert_eq!(class(1, 1 << 63), Class::Normal);
        assert_eq!(class(1, 1), Class::Unsupported);
        assert_eq!(class(0x7fff, 1 << 63), Class::Infinity);
        assert_eq!(class(0xffff, 3 << 62), Class::QuietNan);
        assert_eq!(class(0x7fff, 1 << 63 | 1), Class::SignalingNan);
        assert_eq!(class(0x7fff, 0), Class::Unsupported);
    }

    #[test]
    fn widening_keeps_values_and_tells_denormals() {
        assert_eq!(Extended::from_single(1f32.to_bits()), (Extended::ONE, false));
        assert_eq!(Extended::from_double((-2f64).to_bits()).0, Extended::from_integer(-2));
        let (tiny, denormal) = Extended::from_single(1);
        assert!(denormal);
        assert_eq!(tiny.number(), Number::ONE.scale(-149));
        assert_eq!(Extended::from_double(f64::NEG_INFINITY.to_bits()).0, Extended::infinity(true));
        assert_eq!(Extended::from_single(0x7f80_0001).0.class(), Class::SignalingNan);
    }

    #[test]
    fn decimal_packs_and_unpacks() {
        let bytes = to_bcd(true, 123_456_789_012_345_678);
        assert_eq!(bytes, [0x78, 0x56, 0x34, 0x12, 0x90, 0x78, 0x56, 0x34, 0x12, 0x80]);
        assert_eq!(Extended::from_bcd(bytes), Extended::from_integer(-123_456_789_012_345_678));
    }
}
