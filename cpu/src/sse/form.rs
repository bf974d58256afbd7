//! What an instruction computes, apart from where its operands lie.

use super::mxcsr::Mxcsr;

/// The shape of an instruction's result. `a` is the first operand's old value (0 where it is memory that is only
/// written), `b` the second operand's; what is narrower than 128 bits is zero-extended, and the result is cut to the
/// size of the first operand.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// `f(a, b)`, the same for MMX and XMM: no element looks at one of another half.
    Lanes(fn(u128, u128) -> u128),
    /// `f(a, b, width of the register in bytes)`.
    Across(fn(u128, u128, usize) -> u128),
    /// `f(a, b, imm8)`.
    Immediate(fn(u128, u128, u8) -> u128),
    /// `f(a, b, XMM0)`.
    Masked(fn(u128, u128, u128) -> u128),
    /// `f(mxcsr, a, b)`: may raise floating-point exceptions.
    Float(fn(&mut Mxcsr, u128, u128) -> u128),
    /// `f(mxcsr, a, b, imm8)`: may raise floating-point exceptions.
    FloatImmediate(fn(&mut Mxcsr, u128, u128, u8) -> u128),
    /// Sets flags in RFLAGS only: `f(mxcsr, a, b)` gives ZF, PF, CF in place, the others are cleared.
    Flags(fn(&mut Mxcsr, u128, u128) -> u64),
}

/// Carry flag in RFLAGS.
pub(super) const CF: u64 = 1 << 0;
/// Parity flag in RFLAGS.
pub(super) const PF: u64 = 1 << 2;
/// Zero flag in RFLAGS.
pub(super) const ZF: u64 = 1 << 6;
/// Sign flag in RFLAGS.
pub(super) const SF: u64 = 1 << 7;
/// Overflow flag in RFLAGS.
pub(super) const OF: u64 = 1 << 11;
