//! Values and exception flags of floating-point arithmetic, known from the SDM and IEEE 754: what holds on any host.

use super::super::{
    float::*,
    mxcsr::{DE, IE, Mxcsr, OE, PE, Rounding, UE, ZE},
};

const MASKED: u32 = 0x1f80;
const DOWN: u32 = MASKED | 1 << 13;
const UP: u32 = MASKED | 2 << 13;
const TO_ZERO: u32 = MASKED | 3 << 13;
const FLUSH: u32 = MASKED | 1 << 15;
const DENORMALS_ARE_ZEROS: u32 = MASKED | 1 << 6;

type Binary = fn(&mut Mxcsr, u64, u64) -> u64;

/// The result and the flags of `f` under `mxcsr`.
fn run(f: Binary, mxcsr: u32, a: f64, b: f64) -> (f64, u32) {
    let mut state = Mxcsr::new(mxcsr);
    let result = f64::from_bits(f(&mut state, a.to_bits(), b.to_bits()));
    (result, state.finish().0 & 0x3f)
}

#[test]
fn inexact_sums_follow_the_rounding_mode() {
    let least = f64::EPSILON / 4.0;
    let sum = |mxcsr| run(add::<Double>, mxcsr, 1.0, least);
    assert_eq!(sum(MASKED), (1.0, PE));
    assert_eq!(sum(DOWN), (1.0, PE));
    assert_eq!(sum(UP), (1.0 + f64::EPSILON, PE));
    assert_eq!(run(subtract::<Double>, TO_ZERO, -1.0, -least), (-1.0 + f64::EPSILON / 2.0, PE));
    assert_eq!(run(add::<Double>, MASKED, 1.5, 2.25), (3.75, 0));
}

#[test]
fn opposite_numbers_give_the_zero_of_the_rounding_mode() {
    let sign = |mxcsr| run(subtract::<Double>, mxcsr, 3.0, 3.0).0.is_sign_negative();
    assert!(sign(DOWN) && !sign(MASKED) && !sign(UP));
}

#[test]
fn overflow_gives_infinity_or_the_largest_number() {
    let twice = |mxcsr, x| run(multiply::<Double>, mxcsr, x, 2.0);
    assert_eq!(twice(MASKED, f64::MAX), (f64::INFINITY, OE | PE));
    assert_eq!(twice(DOWN, f64::MAX), (f64::MAX, OE | PE));
    assert_eq!(twice(DOWN, f64::MIN), (f64::NEG_INFINITY, OE | PE));
    assert_eq!(twice(TO_ZERO, f64::MIN), (f64::MIN, OE | PE));
}

#[test]
fn tiny_results_underflow_only_when_inexact_unless_unmasked() {
    let half = |mxcsr, x| run(multiply::<Double>, mxcsr, x, 0.5);
    let (least, denormal) = (f64::from_bits(1), f64::MIN_POSITIVE / 2.0);
    assert_eq!(half(MASKED, f64::MIN_POSITIVE), (denormal, 0));
    assert_eq!(half(MASKED & !(UE << 7), f64::MIN_POSITIVE).1, UE);
    assert_eq!(half(MASKED, least), (0.0, DE | UE | PE));
    assert_eq!(half(UP, least), (least, DE | UE | PE));
    assert_eq!(half(FLUSH, f64::MIN_POSITIVE), (0.0, UE | PE));
    assert_eq!(half(DENORMALS_ARE_ZEROS, least), (0.0, 0));
}

#[test]
fn a_result_that_rounds_up_to_the_least_normal_number_is_still_tiny() {
    // Representable if exponents had no bounds, so it is tiny; with the bits that a denormal has it rounds up.
    let below = 1.0 - f64::EPSILON / 2.0;
    assert_eq!(run(multiply::<Double>, MASKED, f64::MIN_POSITIVE, below), (f64::MIN_POSITIVE, UE | PE));
}

#[test]
fn the_first_operand_gives_the_nan() {
    let quiet = |payload: u64| f64::from_bits(0x7ff8_0000_0000_0000 | payload);
    let signaling = f64::from_bits(0x7ff0_0000_0000_0003);
    let nan = |a, b| {
        let (result, flags) = run(add::<Double>, MASKED, a, b);
        (result.to_bits(), flags)
    };
    assert_eq!(nan(quiet(1), quiet(2)), (quiet(1).to_bits(), 0));
    assert_eq!(nan(1.0, quiet(2)), (quiet(2).to_bits(), 0));
    assert_eq!(nan(signaling, quiet(2)), (quiet(3).to_bits(), IE));
    assert_eq!(nan(quiet(1), signaling), (quiet(1).to_bits(), IE));
}

#[test]
fn invalid_operations_give_the_indefinite_nan() {
    let operations: [(Binary, f64, f64); 5] = [
        (add::<Double>, f64::INFINITY, f64::NEG_INFINITY),
        (subtract::<Double>, f64::INFINITY, f64::INFINITY),
        (multiply::<Double>, 0.0, f64::INFINITY),
        (divide::<Double>, 0.0, -0.0),
        (|mxcsr, a, _| square_root::<Double>(mxcsr, a), -1.0, 0.0),
    ];
    for (f, a, b) in operations {
        let (result, flags) = run(f, MASKED, a, b);
        assert_eq!((result.to_bits(), flags), (Double::INDEFINITE, IE), "{a} {b}");
    }
}

#[test]
fn division_by_zero_is_not_an_invalid_operation() {
    assert_eq!(run(divide::<Double>, MASKED, -1.0, 0.0), (f64::NEG_INFINITY, ZE));
    assert_eq!(run(divide::<Double>, MASKED, f64::INFINITY, 0.0), (f64::INFINITY, 0));
    // A denormal dividend is not reported beside it.
    assert_eq!(run(divide::<Double>, MASKED, f64::from_bits(1), 0.0), (f64::INFINITY, ZE));
}

#[test]
fn roots_are_correctly_rounded() {
    let root = |mxcsr, x| run(|mxcsr, x, _| square_root::<Double>(mxcsr, x), mxcsr, x, 0.0);
    assert_eq!(root(MASKED, 2.25), (1.5, 0));
    assert_eq!(root(MASKED, 2.0), (std::f64::consts::SQRT_2, PE));
    assert_eq!(root(MASKED, -0.0).0.to_bits(), (-0.0f64).to_bits());
    assert_eq!(root(MASKED, f64::from_bits(1)), (f64::from_bits(0x1e60_0000_0000_0000), DE));
}

#[test]
fn integers_that_do_not_fit_are_indefinite() {
    let to = |x: f64, bits, rounding| {
        let mut mxcsr = Mxcsr::new(MASKED);
        let result = to_integer::<Double>(&mut mxcsr, x.to_bits(), bits, rounding);
        (result, mxcsr.finish().0 & 0x3f)
    };
    assert_eq!(to(2147483647.0, 32, Rounding::NearestEven), (0x7fff_ffff, 0));
    assert_eq!(to(2147483648.0, 32, Rounding::NearestEven), (0x8000_0000, IE));
    assert_eq!(to(-2147483648.0, 32, Rounding::NearestEven), (0x8000_0000, 0));
    assert_eq!(to(2147483647.5, 32, Rounding::TowardZero), (0x7fff_ffff, PE));
    assert_eq!(to(2147483647.5, 32, Rounding::NearestEven), (0x8000_0000, IE));
    assert_eq!(to(-9.3e18, 64, Rounding::NearestEven), (1 << 63, IE));
    assert_eq!(to(f64::NAN, 64, Rounding::NearestEven), (1 << 63, IE));
    assert_eq!(to(-2.5, 64, Rounding::NearestEven), (-2i64 as u64, PE));
    assert_eq!(to(-2.5, 64, Rounding::Down), (-3i64 as u64, PE));
}

#[test]
fn integral_values_keep_sign_and_may_keep_quiet() {
    let round = |x: f64, rounding, quiet| {
        let mut mxcsr = Mxcsr::new(MASKED);
        let result = f64::from_bits(to_integral::<Double>(&mut mxcsr, x.to_bits(), rounding, quiet));
        (result, result.is_sign_negative(), mxcsr.finish().0 & 0x3f)
    };
    assert_eq!(round(-0.25, Rounding::Up, false), (0.0, true, PE));
    assert_eq!(round(3.5, Rounding::NearestEven, true), (4.0, false, 0));
    assert_eq!(round(1e300, Rounding::Down, false), (1e300, false, 0));
}

#[test]
fn a_nan_keeps_the_top_of_its_payload_in_another_format() {
    let mut mxcsr = Mxcsr::new(MASKED);
    assert_eq!(convert::<Single, Double>(&mut mxcsr, 0xffc0_0001), 0xfff8_0000_2000_0000);
    assert_eq!(convert::<Double, Single>(&mut mxcsr, 0x7ff0_0000_2000_0001), 0x7fc0_0001);
    assert_eq!(mxcsr.finish().0 & 0x3f, IE);
}

#[test]
fn the_host_is_asked_only_where_it_must_agree() {
    // PE stands, so the quick way is open; the same sums without it must be the same, or go the exact way.
    for (a, b) in
        [(1.0, 1e-30), (1e308, 1e308), (f64::MIN_POSITIVE, 0.75), (0.1, 0.2), (1.0, -1.0), (3.0, f64::NAN)]
    {
        for f in [add::<Double>, subtract::<Double>, multiply::<Double>, divide::<Double>] {
            let (exact, flags) = run(f, MASKED, a, b);
            let (quick, quick_flags) = run(f, MASKED | PE, a, b);
            assert_eq!((quick.to_bits(), quick_flags), (exact.to_bits(), flags | PE), "{a} {b}");
        }
    }
}
