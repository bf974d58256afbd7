//! What the arithmetic, logic and bit instructions compute, in any operand size.
//!
//! `bits` is the operand size: 8, 16, 32 or 64; where it is a constant the compiler leaves only that case. Operands are
//! zero-extended; results are right in their low `bits` bits and arbitrary above. SDM vol. 2, each instruction's page.

use super::flags::{LazyFlags, ZF, sign_extend};

/// The low `bits` bits set.
#[inline(always)]
pub(super) fn mask(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

/// The eight instructions of the classic arithmetic group, in the encoding's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
}

/// `a op b` with its flags. CMP computes the difference; not storing it is the caller's business.
#[inline(always)]
pub(super) fn binary(op: Binary, flags: &mut LazyFlags, bits: u32, a: u64, b: u64) -> u64 {
    match op {
        Binary::Add => add(flags, bits, a, b, 0),
        Binary::Adc => add(flags, bits, a, b, flags.cf() as u64),
        Binary::Sub | Binary::Cmp => sub(flags, bits, a, b, 0),
        Binary::Sbb => sub(flags, bits, a, b, flags.cf() as u64),
        Binary::Or => logic(flags, bits, a | b),
        Binary::And => logic(flags, bits, a & b),
        Binary::Xor => logic(flags, bits, a ^ b),
    }
}

#[inline(always)]
fn add(flags: &mut LazyFlags, bits: u32, a: u64, b: u64, carry: u64) -> u64 {
    let sum = a.wrapping_add(b).wrapping_add(carry);
    flags.set_add(bits, a, b, sum);
    sum
}

#[inline(always)]
fn sub(flags: &mut LazyFlags, bits: u32, a: u64, b: u64, borrow: u64) -> u64 {
    let difference = a.wrapping_sub(b).wrapping_sub(borrow);
    flags.set_sub(bits, a, b, difference);
    difference
}

#[inline(always)]
fn logic(flags: &mut LazyFlags, bits: u32, result: u64) -> u64 {
    flags.set_logic(bits, result);
    result
}

/// The instructions with one operand that is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Inc,
    Dec,
    Neg,
    Not,
}

/// `op a` with its flags: INC and DEC keep CF, NOT keeps all.
#[inline(always)]
pub(super) fn unary(op: Unary, flags: &mut LazyFlags, bits: u32, a: u64) -> u64 {
    match op {
        Unary::Inc => {
            let cf = flags.cf();
            let sum = add(flags, bits, a, 1, 0);
            flags.set_cf(cf);
            sum
        }
        Unary::Dec => {
            let cf = flags.cf();
            let difference = sub(flags, bits, a, 1, 0);
            flags.set_cf(cf);
            difference
        }
        Unary::Neg => sub(flags, bits, 0, a, 0),
        Unary::Not => !a,
    }
}

/// MUL: low and high half of the product.
#[inline(always)]
pub(super) fn mul(flags: &mut LazyFlags, bits: u32, a: u64, b: u64) -> (u64, u64) {
    let product = a as u128 * b as u128;
    let (low, high) = (product as u64 & mask(bits), (product >> bits) as u64);
    flags.set_result(bits, low, high != 0, high != 0);
    (low, high)
}

/// IMUL: low and high half of the signed product.
#[inline(always)]
pub(super) fn imul(flags: &mut LazyFlags, bits: u32, a: u64, b: u64) -> (u64, u64) {
    let product = sign_extend(bits, a) as i64 as i128 * sign_extend(bits, b) as i64 as i128;
    let (low, high) = (product as u64 & mask(bits), (product >> bits) as u64);
    let overflow = sign_extend(bits, low) as i64 as i128 != product;
    flags.set_result(bits, low, overflow, overflow);
    (low, high)
}

/// DIV of `high:low`: quotient and remainder; `None` raises #DE. The flags stay as they are (they are undefined).
#[inline(always)]
pub(super) fn div(bits: u32, high: u64, low: u64, divisor: u64) -> Option<(u64, u64)> {
    if high == 0 {
        // The common case needs no 128-bit division.
        return Some((low.checked_div(divisor)?, low % divisor));
    }
    let dividend = (high as u128) << bits | low as u128;
    let quotient = dividend.checked_div(divisor as u128)?;
    (quotient <= mask(bits) as u128).then(|| (quotient as u64, (dividend % divisor as u128) as u64))
}

/// IDIV of `high:low`: quotient and remainder; `None` raises #DE. The flags stay as they are (they are undefined).
#[inline(always)]
pub(super) fn idiv(bits: u32, high: u64, low: u64, divisor: u64) -> Option<(u64, u64)> {
    let dividend = (sign_extend(bits, high) as i64 as i128) << bits | low as i128;
    let divisor = sign_extend(bits, divisor) as i64 as i128;
    let quotient = dividend.checked_div(divisor)?;
    let fits = sign_extend(bits, quotient as u64) as i64 as i128 == quotient;
    fits.then(|| (quotient as u64, (dividend % divisor) as u64))
}

/// What BT, BTS, BTR and BTC do to the bit they have copied to CF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BitChange {
    None,
    Set,
    Reset,
    Complement,
}

/// Copies bit `index` (modulo `bits`) of `a` to CF, then changes it. No other flag changes.
#[inline(always)]
pub(super) fn bit_test(change: BitChange, flags: &mut LazyFlags, bits: u32, a: u64, index: u64) -> u64 {
    let bit = 1 << (index & (bits as u64 - 1));
    flags.set_cf(a & bit != 0);
    match change {
        BitChange::None => a,
        BitChange::Set => a | bit,
        BitChange::Reset => a & !bit,
        BitChange::Complement => a ^ bit,
    }
}

/// POPCNT.
#[inline(always)]
pub(super) fn popcnt(flags: &mut LazyFlags, a: u64) -> u64 {
    *flags = LazyFlags::load(if a == 0 { ZF } else { 0 });
    a.count_ones() as u64
}

/// CRC32: the CRC-32C of `seed`'s register extended by the low `bits` bits of `data`, low byte first.
pub(super) fn crc32(seed: u32, bits: u32, data: u64) -> u32 {
    let bytes = data.to_le_bytes();
    bytes[..bits as usize / 8].iter().fold(seed, |crc, byte| CRC32C[(crc as u8 ^ byte) as usize] ^ crc >> 8)
}

/// One step of CRC-32C (polynomial 0x11EDC6F41, bits reflected) for each value of a byte.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_is_castagnolis() {
        // The check value of CRC-32C: of the digits 1 to 9, with inverted seed and result.
        let crc = b"123456789".iter().fold(!0, |crc, byte| crc32(crc, 8, *byte as u64));
        assert_eq!(!crc, 0xe306_9283);
        assert_eq!(crc32(crc32(!0, 32, 0x3433_3231), 32, 0x3837_3635), crc32(!0, 64, 0x3837_3635_3433_3231));
    }

    #[test]
    fn division_raises_de_exactly_when_the_quotient_does_not_fit() {
        for dividend in (0..=u16::MAX).step_by(7) {
            for divisor in 0..=255u8 {
                let (high, low) = ((dividend >> 8) as u64, dividend as u8 as u64);
                let wanted = (divisor != 0 && dividend / divisor as u16 <= 255)
                    .then(|| ((dividend / divisor as u16) as u64, (dividend % divisor as u16) as u64));
                assert_eq!(div(8, high, low, divisor as u64), wanted);
                let (a, b) = (dividend as i16 as i32, divisor as i8 as i32);
                let wanted = (b != 0 && (-128..128).contains(&(a / b))).then(|| (a / b, a % b));
                let got = idiv(8, high, low, divisor as u64).map(|(q, r)| (q as i8 as i32, r as i8 as i32));
                assert_eq!(got, wanted);
            }
        }
        assert_eq!(idiv(64, 1 << 63, 0, u64::MAX), None);
    }

    #[test]
    fn increment_and_decrement_keep_the_carry() {
        let mut flags = LazyFlags::load(super::super::flags::CF);
        assert_eq!(unary(Unary::Inc, &mut flags, 8, 0xff) & 0xff, 0);
        assert!(flags.cf() && flags.zf() && !flags.of());
        assert_eq!(unary(Unary::Dec, &mut flags, 8, 0x80) & 0xff, 0x7f);
        assert!(flags.cf() && flags.of());
    }
}
