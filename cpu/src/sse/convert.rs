//! Conversions between integers, single and double precision. SDM vol. 1, section 11.4.1.6 and 10.4.3.

use iced_x86::Code;

use super::{
    float::{Double, Format, Single, convert, element, from_integer, to_integer, vector, with_low},
    form::Form::{self, Float},
    lanes::lane,
    mxcsr::{Mxcsr, Rounding},
};

type Compute = fn(&mut Mxcsr, u128, u128) -> u128;

/// What `code` computes, if it is one of this family.
pub(super) fn form(code: Code) -> Option<Form> {
    to_float(code).or_else(|| rounded(code)).or_else(|| truncated(code)).map(Float)
}

fn to_float(code: Code) -> Option<Compute> {
    let f: Compute = match code {
        Code::Cvtpi2ps_xmm_mmm64 => |mxcsr, a, b| a >> 64 << 64 | singles(mxcsr, b, 2),
        Code::Cvtdq2ps_xmm_xmmm128 => |mxcsr, _, b| singles(mxcsr, b, 4),
        Code::Cvtpi2pd_xmm_mmm64 | Code::Cvtdq2pd_xmm_xmmm64 => {
            |mxcsr, _, b| vector::<Double>(|n| from_integer::<Double>(mxcsr, lane::<i32>(b, n) as i64))
        }
        Code::Cvtsi2ss_xmm_rm32 => {
            |mxcsr, a, b| with_low::<Single>(a, from_integer::<Single>(mxcsr, b as i32 as i64))
        }
        Code::Cvtsi2ss_xmm_rm64 => {
            |mxcsr, a, b| with_low::<Single>(a, from_integer::<Single>(mxcsr, b as i64))
        }
        Code::Cvtsi2sd_xmm_rm32 => {
            |mxcsr, a, b| with_low::<Double>(a, from_integer::<Double>(mxcsr, b as i32 as i64))
        }
        Code::Cvtsi2sd_xmm_rm64 => {
            |mxcsr, a, b| with_low::<Double>(a, from_integer::<Double>(mxcsr, b as i64))
        }
        Code::Cvtps2pd_xmm_xmmm64 => {
            |mxcsr, _, b| vector::<Double>(|n| convert::<Single, Double>(mxcsr, element::<Single>(b, n)))
        }
        Code::Cvtpd2ps_xmm_xmmm128 => {
            |mxcsr, _, b| doublewords(2, |n| convert::<Double, Single>(mxcsr, element::<Double>(b, n)))
        }
        Code::Cvtss2sd_xmm_xmmm32 => {
            |mxcsr, a, b| with_low::<Double>(a, convert::<Single, Double>(mxcsr, element::<Single>(b, 0)))
        }
        Code::Cvtsd2ss_xmm_xmmm64 => {
            |mxcsr, a, b| with_low::<Single>(a, convert::<Double, Single>(mxcsr, element::<Double>(b, 0)))
        }
        _ => return None,
    };
    Some(f)
}

/// To integers as MXCSR rounds.
fn rounded(code: Code) -> Option<Compute> {
    let f: Compute = match code {
        Code::Cvtps2pi_mm_xmmm64 => |mxcsr, _, b| integers::<Single>(mxcsr, b, 2, None),
        Code::Cvtps2dq_xmm_xmmm128 => |mxcsr, _, b| integers::<Single>(mxcsr, b, 4, None),
        Code::Cvtpd2pi_mm_xmmm128 | Code::Cvtpd2dq_xmm_xmmm128 => {
            |mxcsr, _, b| integers::<Double>(mxcsr, b, 2, None)
        }
        Code::Cvtss2si_r32_xmmm32 => |mxcsr, _, b| integer::<Single>(mxcsr, b, 32, None),
        Code::Cvtss2si_r64_xmmm32 => |mxcsr, _, b| integer::<Single>(mxcsr, b, 64, None),
        Code::Cvtsd2si_r32_xmmm64 => |mxcsr, _, b| integer::<Double>(mxcsr, b, 32, None),
        Code::Cvtsd2si_r64_xmmm64 => |mxcsr, _, b| integer::<Double>(mxcsr, b, 64, None),
        _ => return None,
    };
    Some(f)
}

/// To integers towards 0.
fn truncated(code: Code) -> Option<Compute> {
    let f: Compute = match code {
        Code::Cvttps2pi_mm_xmmm64 => {
            |mxcsr, _, b| integers::<Single>(mxcsr, b, 2, Some(Rounding::TowardZero))
        }
        Code::Cvttps2dq_xmm_xmmm128 => {
            |mxcsr, _, b| integers::<Single>(mxcsr, b, 4, Some(Rounding::TowardZero))
        }
        Code::Cvttpd2pi_mm_xmmm128 | Code::Cvttpd2dq_xmm_xmmm128 => {
            |mxcsr, _, b| integers::<Double>(mxcsr, b, 2, Some(Rounding::TowardZero))
        }
        Code::Cvttss2si_r32_xmmm32 => {
            |mxcsr, _, b| integer::<Single>(mxcsr, b, 32, Some(Rounding::TowardZero))
        }
        Code::Cvttss2si_r64_xmmm32 => {
            |mxcsr, _, b| integer::<Single>(mxcsr, b, 64, Some(Rounding::TowardZero))
        }
        Code::Cvttsd2si_r32_xmmm64 => {
            |mxcsr, _, b| integer::<Double>(mxcsr, b, 32, Some(Rounding::TowardZero))
        }
        Code::Cvttsd2si_r64_xmmm64 => {
            |mxcsr, _, b| integer::<Double>(mxcsr, b, 64, Some(Rounding::TowardZero))
        }
        _ => return None,
    };
    Some(f)
}

/// `count` doublewords, each `f` of its number; 0 above.
fn doublewords(count: usize, mut f: impl FnMut(usize) -> u64) -> u128 {
    (0..count).fold(0, |vector, n| vector | (f(n) as u128) << (32 * n))
}

fn singles(mxcsr: &mut Mxcsr, b: u128, count: usize) -> u128 {
    doublewords(count, |n| from_integer::<Single>(mxcsr, lane::<i32>(b, n) as i64))
}

/// Rounded as MXCSR says unless told otherwise.
fn integers<F: Format>(mxcsr: &mut Mxcsr, b: u128, count: usize, rounding: Option<Rounding>) -> u128 {
    let rounding = rounding.unwrap_or(mxcsr.rounding());
    doublewords(count, |n| to_integer::<F>(mxcsr, element::<F>(b, n), 32, rounding))
}

fn integer<F: Format>(mxcsr: &mut Mxcsr, b: u128, bits: u32, rounding: Option<Rounding>) -> u128 {
    let rounding = rounding.unwrap_or(mxcsr.rounding());
    to_integer::<F>(mxcsr, element::<F>(b, 0), bits, rounding) as u128
}
