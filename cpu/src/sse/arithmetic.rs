//! Floating-point addition, subtraction, multiplication, division, square root, dot product and rounding to integers.

use iced_x86::Mnemonic as M;

use super::{
    compare::{packed, scalar},
    float::{
        Double, Format, Single, add, divide, element, multiply, square_root, subtract, to_integral, vector,
        with_low,
    },
    form::Form::{self, Float, FloatImmediate},
    mxcsr::{Mxcsr, Rounding},
};

/// What `mnemonic` computes, if it is one of this family.
pub(super) fn form(mnemonic: M) -> Option<Form> {
    binary(mnemonic)
        .or_else(|| horizontal(mnemonic))
        .map(Float)
        .or_else(|| immediate(mnemonic).map(FloatImmediate))
}

type Compute = fn(&mut Mxcsr, u128, u128) -> u128;

fn binary(mnemonic: M) -> Option<Compute> {
    let f: Compute = match mnemonic {
        M::Addps => |mxcsr, a, b| packed::<Single>(mxcsr, a, b, add::<Single>),
        M::Addpd => |mxcsr, a, b| packed::<Double>(mxcsr, a, b, add::<Double>),
        M::Addss => |mxcsr, a, b| scalar::<Single>(mxcsr, a, b, add::<Single>),
        M::Addsd => |mxcsr, a, b| scalar::<Double>(mxcsr, a, b, add::<Double>),
        M::Subps => |mxcsr, a, b| packed::<Single>(mxcsr, a, b, subtract::<Single>),
        M::Subpd => |mxcsr, a, b| packed::<Double>(mxcsr, a, b, subtract::<Double>),
        M::Subss => |mxcsr, a, b| scalar::<Single>(mxcsr, a, b, subtract::<Single>),
        M::Subsd => |mxcsr, a, b| scalar::<Double>(mxcsr, a, b, subtract::<Double>),
        M::Mulps => |mxcsr, a, b| packed::<Single>(mxcsr, a, b, multiply::<Single>),
        M::Mulpd => |mxcsr, a, b| packed::<Double>(mxcsr, a, b, multiply::<Double>),
        M::Mulss => |mxcsr, a, b| scalar::<Single>(mxcsr, a, b, multiply::<Single>),
        M::Mulsd => |mxcsr, a, b| scalar::<Double>(mxcsr, a, b, multiply::<Double>),
        M::Divps => |mxcsr, a, b| packed::<Single>(mxcsr, a, b, divide::<Single>),
        M::Divpd => |mxcsr, a, b| packed::<Double>(mxcsr, a, b, divide::<Double>),
        M::Divss => |mxcsr, a, b| scalar::<Single>(mxcsr, a, b, divide::<Single>),
        M::Divsd => |mxcsr, a, b| scalar::<Double>(mxcsr, a, b, divide::<Double>),
        M::Sqrtps => {
            |mxcsr, _, b| vector::<Single>(|n| square_root::<Single>(mxcsr, element::<Single>(b, n)))
        }
        M::Sqrtpd => {
            |mxcsr, _, b| vector::<Double>(|n| square_root::<Double>(mxcsr, element::<Double>(b, n)))
        }
        M::Sqrtss => {
            |mxcsr, a, b| with_low::<Single>(a, square_root::<Single>(mxcsr, element::<Single>(b, 0)))
        }
        M::Sqrtsd => {
            |mxcsr, a, b| with_low::<Double>(a, square_root::<Double>(mxcsr, element::<Double>(b, 0)))
        }
        _ => return None,
    };
    Some(f)
}

fn horizontal(mnemonic: M) -> Option<Compute> {
    let f: Compute = match mnemonic {
        M::Haddps => |mxcsr, a, b| neighbours::<Single>(mxcsr, a, b, add::<Single>),
        M::Haddpd => |mxcsr, a, b| neighbours::<Double>(mxcsr, a, b, add::<Double>),
        M::Hsubps => |mxcsr, a, b| neighbours::<Single>(mxcsr, a, b, subtract::<Single>),
        M::Hsubpd => |mxcsr, a, b| neighbours::<Double>(mxcsr, a, b, subtract::<Double>),
        M::Addsubps => alternate::<Single>,
        M::Addsubpd => alternate::<Double>,
        _ => return None,
    };
    Some(f)
}

type ComputeImmediate = fn(&mut Mxcsr, u128, u128, u8) -> u128;

fn immediate(mnemonic: M) -> Option<ComputeImmediate> {
    let f: ComputeImmediate = match mnemonic {
        M::Roundps => |mxcsr, _, b, imm| vector::<Single>(|n| round_element::<Single>(mxcsr, b, n, imm)),
        M::Roundpd => |mxcsr, _, b, imm| vector::<Double>(|n| round_element::<Double>(mxcsr, b, n, imm)),
        M::Roundss => |mxcsr, a, b, imm| with_low::<Single>(a, round_element::<Single>(mxcsr, b, 0, imm)),
        M::Roundsd => |mxcsr, a, b, imm| with_low::<Double>(a, round_element::<Double>(mxcsr, b, 0, imm)),
        M::Dpps => dot_product_single,
        M::Dppd => dot_product_double,
        _ => return None,
    };
    Some(f)
}

/// `f` of each pair of neighbours: those of `a`, then those of `b`.
fn neighbours<F: Format>(mxcsr: &mut Mxcsr, a: u128, b: u128, f: fn(&mut Mxcsr, u64, u64) -> u64) -> u128 {
    let half = 64 / F::BITS as usize;
    vector::<F>(|n| {
        let (from, n) = if n < half { (a, n) } else { (b, n - half) };
        f(mxcsr, element::<F>(from, 2 * n), element::<F>(from, 2 * n + 1))
    })
}

/// Subtracts even elements, adds odd ones.
fn alternate<F: Format>(mxcsr: &mut Mxcsr, a: u128, b: u128) -> u128 {
    vector::<F>(|n| {
        let f = if n % 2 == 0 { subtract::<F> } else { add::<F> };
        f(mxcsr, element::<F>(a, n), element::<F>(b, n))
    })
}

/// The immediate: bits 0-1 the rounding, bit 2 MXCSR's instead, bit 3 keep quiet about inexact results.
fn round_element<F: Format>(mxcsr: &mut Mxcsr, b: u128, n: usize, imm: u8) -> u64 {
    let rounding = if imm & 4 != 0 { mxcsr.rounding() } else { Rounding::from_bits(imm as u32) };
    to_integral::<F>(mxcsr, element::<F>(b, n), rounding, imm & 8 != 0)
}

/// Products of the elements chosen by the immediate's high half, the others +0.
fn products<F: Format>(mxcsr: &mut Mxcsr, a: u128, b: u128, imm: u8) -> u128 {
    let products = vector::<F>(|n| match imm >> (4 + n) & 1 {
        0 => 0,
        _ => multiply::<F>(mxcsr, element::<F>(a, n), element::<F>(b, n)),
    });
    mxcsr.end_step();
    products
}

/// `sum` in the elements chosen by the immediate's low half, +0 in the others.
fn broadcast<F: Format>(sum: u64, imm: u8) -> u128 {
    vector::<F>(|n| if imm >> n & 1 != 0 { sum } else { 0 })
}

fn dot_product_single(mxcsr: &mut Mxcsr, a: u128, b: u128, imm: u8) -> u128 {
    let products = products::<Single>(mxcsr, a, b, imm);
    let product = |n| element::<Single>(products, n);
    let low = add::<Single>(mxcsr, product(0), product(1));
    let high = add::<Single>(mxcsr, product(2), product(3));
    mxcsr.end_step();
    broadcast::<Single>(add::<Single>(mxcsr, low, high), imm)
}

fn dot_product_double(mxcsr: &mut Mxcsr, a: u128, b: u128, imm: u8) -> u128 {
    let products = products::<Double>(mxcsr, a, b, imm);
    let sum = add::<Double>(mxcsr, element::<Double>(products, 0), element::<Double>(products, 1));
    broadcast::<Double>(sum, imm)
}
