//! Registers as vectors: the elements of a 128-bit value, lowest first. An MMX register is the low half of one.

/// An integer element of a vector register.
pub(super) trait Lane: Copy {
    const BITS: u32;
    /// The low `BITS` of `x`.
    fn low(x: u128) -> Self;
    /// Zero-extended, whatever the sign.
    fn widen(self) -> u128;
}

macro_rules! lane {
    ($($signed:ty, $unsigned:ty;)*) => {$(
        impl Lane for $signed {
            const BITS: u32 = <$signed>::BITS;
            #[inline(always)]
            fn low(x: u128) -> Self {
                x as $signed
            }
            #[inline(always)]
            fn widen(self) -> u128 {
                self as $unsigned as u128
            }
        }
        impl Lane for $unsigned {
            const BITS: u32 = <$unsigned>::BITS;
            #[inline(always)]
            fn low(x: u128) -> Self {
                x as $unsigned
            }
            #[inline(always)]
            fn widen(self) -> u128 {
                self as u128
            }
        }
    )*};
}
lane! { i8, u8; i16, u16; i32, u32; i64, u64; }

/// Element `n` of `x`.
#[inline(always)]
pub(super) fn lane<T: Lane>(x: u128, n: usize) -> T {
    T::low(x >> (n as u32 * T::BITS))
}

/// `x` with element `n` replaced.
#[inline(always)]
pub(super) fn with_lane<T: Lane>(x: u128, n: usize, value: T) -> u128 {
    let shift = n as u32 * T::BITS;
    let mask = (u128::MAX >> (128 - T::BITS)) << shift;
    x & !mask | value.widen() << shift
}

/// The vector whose element `n` is `f(n)`, for the first `count` elements; 0 above.
#[inline(always)]
pub(super) fn collect<T: Lane>(count: usize, f: impl Fn(usize) -> T) -> u128 {
    (0..count).fold(0, |vector, n| vector | f(n).widen() << (n as u32 * T::BITS))
}

/// Each element of `a` with the same element of `b`.
#[inline(always)]
pub(super) fn zip<T: Lane>(a: u128, b: u128, f: impl Fn(T, T) -> T) -> u128 {
    collect((128 / T::BITS) as usize, |n| f(lane(a, n), lane(b, n)))
}

/// Each element of `a` alone.
#[inline(always)]
pub(super) fn map<T: Lane>(a: u128, f: impl Fn(T) -> T) -> u128 {
    collect((128 / T::BITS) as usize, |n| f(lane(a, n)))
}

/// All ones where `f` holds, as PCMPEQ and PCMPGT leave it.
#[inline(always)]
pub(super) fn select<T: Lane>(a: u128, b: u128, f: impl Fn(T, T) -> bool) -> u128 {
    zip(a, b, |x: T, y: T| T::low(if f(x, y) { u128::MAX } else { 0 }))
}

/// How many elements a register of `width` bytes holds.
#[inline(always)]
pub(super) fn count<T: Lane>(width: usize) -> usize {
    width * 8 / T::BITS as usize
}

/// The most significant bit of each of the first `count` elements, element 0 in bit 0.
#[inline(always)]
pub(super) fn sign_mask<T: Lane>(x: u128, count: usize) -> u128 {
    (0..count as u32).fold(0, |mask, n| mask | (x >> ((n + 1) * T::BITS - 1) & 1) << n)
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: u128 = 0x8f0e0d0c_8b0a0908_87060504_83020100;

    #[test]
    fn elements_count_from_the_low_end() {
        assert_eq!(lane::<u8>(X, 3), 0x83);
        assert_eq!(lane::<i8>(X, 15), 0x8fu8 as i8);
        assert_eq!(lane::<u32>(X, 2), 0x8b0a0908);
        assert_eq!(with_lane::<i16>(X, 1, -2), 0x8f0e0d0c_8b0a0908_87060504_fffe0100);
        assert_eq!(with_lane::<u64>(X, 1, 7), 0x7_87060504_83020100);
    }

    #[test]
    fn sign_masks_gather_the_top_bits() {
        assert_eq!(sign_mask::<u8>(X, 16), 0b1000_1000_1000_1000);
        assert_eq!(sign_mask::<u32>(X, 4), 0b1111);
        assert_eq!(sign_mask::<u64>(X, 2), 0b11);
        assert_eq!(sign_mask::<u8>(X, 8), 0b1000_1000);
    }

    #[test]
    fn elements_do_not_spill_into_their_neighbours() {
        assert_eq!(zip(u128::MAX, u128::MAX, u16::wrapping_add), 0xfffe_fffe_fffe_fffe_fffe_fffe_fffe_fffe);
        assert_eq!(map(u128::MAX, |x: i8| x.wrapping_neg()), 0x01010101_01010101_01010101_01010101);
        assert_eq!(select(X, X, |a: u32, b: u32| a == b), u128::MAX);
        assert_eq!(collect::<u8>(2, |n| n as u8 + 1), 0x0201);
    }
}
