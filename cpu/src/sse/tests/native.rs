//! The pure functions against the host's instructions, on random and on special operands.
#![allow(unsafe_code)] // Inline assembly is the only way to one chosen instruction.

use std::arch::{asm, x86_64::__m128i};

use iced_x86::Code;

use super::super::{float, form::Form, form_of, mxcsr::Mxcsr, strings};
use float::{Double, Format, Single};

fn vector(x: u128) -> __m128i {
    // SAFETY: both types are 16 bytes without invalid values.
    unsafe { std::mem::transmute(x) }
}

fn scalar(x: __m128i) -> u128 {
    // SAFETY: both types are 16 bytes without invalid values.
    unsafe { std::mem::transmute(x) }
}

/// 1.0
fn one<F: Format>() -> u64 {
    (F::BIAS as u64) << F::FRACTION
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next() as usize % from.len()]
    }

    /// Bytes that are often at a border of some element type.
    fn bytes(&mut self) -> u128 {
        const BORDERS: [u8; 6] = [0, 1, 0x7f, 0x80, 0xff, 0x55];
        let mode = self.next() % 4;
        let byte = |random: &mut Random| match mode {
            0 => random.choose(&BORDERS),
            1 => random.next() as u8 & 3,
            _ => random.next() as u8,
        };
        u128::from_le_bytes(std::array::from_fn(|_| byte(self)))
    }

    /// A value of the format, often a special one or near one.
    fn float<F: Format>(&mut self) -> u64 {
        let all = u64::MAX >> (64 - F::BITS);
        let tiny = 1 << F::FRACTION;
        let exponent_of = |power: u64| (F::BIAS as u64 + power) << F::FRACTION;
        let special = [
            0,
            1,
            2,
            tiny - 1,
            tiny,
            tiny + 1,
            tiny << 1,
            one::<F>(),
            one::<F>() - 1,
            one::<F>() + 1,
            one::<F>() | F::QUIET,
            F::LARGEST,
            F::INFINITY,
            F::INFINITY + 1,
            F::INFINITY | F::QUIET,
            F::INFINITY | F::QUIET | 5,
            exponent_of(31),
            exponent_of(31) - 1,
            exponent_of(63),
            exponent_of(63) - 1,
            exponent_of(1) | F::QUIET >> 1,
        ];
        let sign = self.next() & F::SIGN;
        let magnitude = match self.next() % 8 {
            0..4 => self.choose(&special),
            // Exponents near 0, so that sums and products are interesting and integers fit.
            4 => {
                exponent_of(self.next() % 70).wrapping_sub(20 << F::FRACTION) | self.next() & F::FRACTION_MASK
            }
            // Round fractions, so that ties and exact results happen.
            5 => exponent_of(self.next() % 8) | (self.next() & 15) << (F::FRACTION - 4),
            6 => self.next() & F::FRACTION_MASK,
            _ => self.next(),
        };
        (magnitude & (F::SIGN - 1) | sign) & all
    }

    /// Four singles or two doubles.
    fn floats(&mut self, single: bool) -> u128 {
        match single {
            true => (0..4).fold(0, |v, _| v << 32 | self.float::<Single>() as u128),
            false => (0..2).fold(0, |v, _| v << 64 | self.float::<Double>() as u128),
        }
    }

    /// All exceptions masked; rounding, FTZ, DAZ and sticky flags at random.
    fn mxcsr(&mut self) -> u32 {
        0x1f80
            | self.next() as u32 & 0xe040
            | if self.next().is_multiple_of(2) { self.next() as u32 & 0x3f } else { 0 }
    }
}

fn supported() -> bool {
    std::is_x86_feature_detected!("sse4.2")
}

/// What the form computes, and MXCSR after it.
fn ours(form: Form, mxcsr: u32, a: u128, b: u128, imm: u8, width: usize) -> (u128, u32) {
    let mut state = Mxcsr::new(mxcsr);
    let result = match form {
        Form::Lanes(f) => f(a, b),
        Form::Across(f) => f(a, b, width),
        Form::Immediate(f) => f(a, b, imm),
        Form::Masked(_) => unreachable!("needs a third operand"),
        Form::Float(f) => f(&mut state, a, b),
        Form::FloatImmediate(f) => f(&mut state, a, b, imm),
        Form::Flags(f) => f(&mut state, a, b) as u128,
    };
    (result, state.finish().0)
}

fn check(code: Code, mxcsr: u32, a: u128, b: u128, imm: u8, native: (u128, u32)) {
    let ours = ours(form_of(code, false).unwrap(), mxcsr, a, b, imm, 16);
    assert!(
        ours == native,
        "{code:?} imm {imm:#x} mxcsr {mxcsr:#x}\n a    {a:032x}\n b    {b:032x}\n ours {:032x} {:#x}\n host {:032x} {:#x}",
        ours.0,
        ours.1,
        native.0,
        native.1,
    );
}

/// Runs one instruction of the form `op xmm, xmm` under `mxcsr`.
macro_rules! on_host {
    ($name:literal, $mxcsr:expr, $a:expr, $b:expr $(, $imm:tt = const $value:expr)?) => {{
        let (mut mxcsr, host, mut result) = ($mxcsr, 0x1f80u32, vector($a));
        // SAFETY: the instruction reads and writes its registers only, and the host's MXCSR is put back.
        unsafe {
            asm!(
                "ldmxcsr [{mxcsr}]",
                concat!($name, " {a}, {b}" $(, ", {", stringify!($imm), "}")?),
                "stmxcsr [{mxcsr}]",
                "ldmxcsr [{host}]",
                mxcsr = in(reg) &mut mxcsr,
                host = in(reg) &host,
                a = inout(xmm_reg) result,
                b = in(xmm_reg) vector($b),
                $($imm = const $value,)?
            );
        }
        (scalar(result), mxcsr)
    }};
}

/// Compares instructions of two XMM registers with the host.
macro_rules! compare_with_host {
    ($rounds:literal, $operands:expr; $($name:literal $code:ident,)*) => {
        let mut random = Random(1);
        $(for _ in 0..$rounds {
            let (a, b, mxcsr) = $operands(&mut random);
            check(Code::$code, mxcsr, a, b, 0, on_host!($name, mxcsr, a, b));
        })*
    };
}

fn integers(random: &mut Random) -> (u128, u128, u32) {
    let (a, b) = (random.bytes(), random.bytes());
    (a, if random.next().is_multiple_of(8) { b & 0x3f } else { b }, 0x1f80)
}

fn singles(random: &mut Random) -> (u128, u128, u32) {
    (random.floats(true), random.floats(true), random.mxcsr())
}

fn doubles(random: &mut Random) -> (u128, u128, u32) {
    (random.floats(false), random.floats(false), random.mxcsr())
}

#[test]
fn integer_instructions_agree_with_the_host() {
    if !supported() {
        return;
    }
    compare_with_host! { 500, integers;
        "unpcklps" Unpcklps_xmm_xmmm128,
        "unpcklpd" Unpcklpd_xmm_xmmm128,
        "unpckhps" Unpckhps_xmm_xmmm128,
        "unpckhpd" Unpckhpd_xmm_xmmm128,
        "andps" Andps_xmm_xmmm128,
        "andpd" Andpd_xmm_xmmm128,
        "andnps" Andnps_xmm_xmmm128,
        "andnpd" Andnpd_xmm_xmmm128,
        "orps" Orps_xmm_xmmm128,
        "orpd" Orpd_xmm_xmmm128,
        "xorps" Xorps_xmm_xmmm128,
        "xorpd" Xorpd_xmm_xmmm128,
        "punpcklbw" Punpcklbw_xmm_xmmm128,
        "punpcklwd" Punpcklwd_xmm_xmmm128,
        "punpckldq" Punpckldq_xmm_xmmm128,
        "packsswb" Packsswb_xmm_xmmm128,
        "pcmpgtb" Pcmpgtb_xmm_xmmm128,
        "pcmpgtw" Pcmpgtw_xmm_xmmm128,
        "pcmpgtd" Pcmpgtd_xmm_xmmm128,
        "packuswb" Packuswb_xmm_xmmm128,
        "punpckhbw" Punpckhbw_xmm_xmmm128,
        "punpckhwd" Punpckhwd_xmm_xmmm128,
        "punpckhdq" Punpckhdq_xmm_xmmm128,
        "packssdw" Packssdw_xmm_xmmm128,
        "punpcklqdq" Punpcklqdq_xmm_xmmm128,
        "punpckhqdq" Punpckhqdq_xmm_xmmm128,
        "pcmpeqb" Pcmpeqb_xmm_xmmm128,
        "pcmpeqw" Pcmpeqw_xmm_xmmm128,
        "pcmpeqd" Pcmpeqd_xmm_xmmm128,
        "psrlw" Psrlw_xmm_xmmm128,
        "psrld" Psrld_xmm_xmmm128,
        "psrlq" Psrlq_xmm_xmmm128,
        "paddq" Paddq_xmm_xmmm128,
        "pmullw" Pmullw_xmm_xmmm128,
        "psubusb" Psubusb_xmm_xmmm128,
        "psubusw" Psubusw_xmm_xmmm128,
        "pminub" Pminub_xmm_xmmm128,
        "pand" Pand_xmm_xmmm128,
        "paddusb" Paddusb_xmm_xmmm128,
        "paddusw" Paddusw_xmm_xmmm128,
        "pmaxub" Pmaxub_xmm_xmmm128,
        "pandn" Pandn_xmm_xmmm128,
        "pavgb" Pavgb_xmm_xmmm128,
        "psraw" Psraw_xmm_xmmm128,
        "psrad" Psrad_xmm_xmmm128,
        "pavgw" Pavgw_xmm_xmmm128,
        "pmulhuw" Pmulhuw_xmm_xmmm128,
        "pmulhw" Pmulhw_xmm_xmmm128,
        "psubsb" Psubsb_xmm_xmmm128,
        "psubsw" Psubsw_xmm_xmmm128,
        "pminsw" Pminsw_xmm_xmmm128,
        "por" Por_xmm_xmmm128,
        "paddsb" Paddsb_xmm_xmmm128,
        "paddsw" Paddsw_xmm_xmmm128,
        "pmaxsw" Pmaxsw_xmm_xmmm128,
        "pxor" Pxor_xmm_xmmm128,
        "psllw" Psllw_xmm_xmmm128,
        "pslld" Pslld_xmm_xmmm128,
        "psllq" Psllq_xmm_xmmm128,
        "pmuludq" Pmuludq_xmm_xmmm128,
        "pmaddwd" Pmaddwd_xmm_xmmm128,
        "psadbw" Psadbw_xmm_xmmm128,
        "psubb" Psubb_xmm_xmmm128,
        "psubw" Psubw_xmm_xmmm128,
        "psubd" Psubd_xmm_xmmm128,
        "psubq" Psubq_xmm_xmmm128,
        "paddb" Paddb_xmm_xmmm128,
        "paddw" Paddw_xmm_xmmm128,
        "paddd" Paddd_xmm_xmmm128,
        "pshufb" Pshufb_xmm_xmmm128,
        "phaddw" Phaddw_xmm_xmmm128,
        "phaddd" Phaddd_xmm_xmmm128,
        "phaddsw" Phaddsw_xmm_xmmm128,
        "pmaddubsw" Pmaddubsw_xmm_xmmm128,
        "phsubw" Phsubw_xmm_xmmm128,
        "phsubd" Phsubd_xmm_xmmm128,
        "phsubsw" Phsubsw_xmm_xmmm128,
        "psignb" Psignb_xmm_xmmm128,
        "psignw" Psignw_xmm_xmmm128,
        "psignd" Psignd_xmm_xmmm128,
        "pmulhrsw" Pmulhrsw_xmm_xmmm128,
        "pabsb" Pabsb_xmm_xmmm128,
        "pabsw" Pabsw_xmm_xmmm128,
        "pabsd" Pabsd_xmm_xmmm128,
        "pmovsxbw" Pmovsxbw_xmm_xmmm64,
        "pmovsxbd" Pmovsxbd_xmm_xmmm32,
        "pmovsxbq" Pmovsxbq_xmm_xmmm16,
        "pmovsxwd" Pmovsxwd_xmm_xmmm64,
        "pmovsxwq" Pmovsxwq_xmm_xmmm32,
        "pmovsxdq" Pmovsxdq_xmm_xmmm64,
        "pmuldq" Pmuldq_xmm_xmmm128,
        "pcmpeqq" Pcmpeqq_xmm_xmmm128,
        "packusdw" Packusdw_xmm_xmmm128,
        "pmovzxbw" Pmovzxbw_xmm_xmmm64,
        "pmovzxbd" Pmovzxbd_xmm_xmmm32,
        "pmovzxbq" Pmovzxbq_xmm_xmmm16,
        "pmovzxwd" Pmovzxwd_xmm_xmmm64,
        "pmovzxwq" Pmovzxwq_xmm_xmmm32,
        "pmovzxdq" Pmovzxdq_xmm_xmmm64,
        "pcmpgtq" Pcmpgtq_xmm_xmmm128,
        "pminsb" Pminsb_xmm_xmmm128,
        "pminsd" Pminsd_xmm_xmmm128,
        "pminuw" Pminuw_xmm_xmmm128,
        "pminud" Pminud_xmm_xmmm128,
        "pmaxsb" Pmaxsb_xmm_xmmm128,
        "pmaxsd" Pmaxsd_xmm_xmmm128,
        "pmaxuw" Pmaxuw_xmm_xmmm128,
        "pmaxud" Pmaxud_xmm_xmmm128,
        "pmulld" Pmulld_xmm_xmmm128,
        "phminposuw" Phminposuw_xmm_xmmm128,
        "movhlps" Movhlps_xmm_xmm,
        "movlhps" Movlhps_xmm_xmm,
        "movsldup" Movsldup_xmm_xmmm128,
        "movshdup" Movshdup_xmm_xmmm128,
        "movddup" Movddup_xmm_xmmm64,
        "movss" Movss_xmm_xmmm32,
        "movsd" Movsd_xmm_xmmm64,
        "movq" Movq_xmm_xmmm64,
    }
}

#[test]
fn single_precision_agrees_with_the_host() {
    if !supported() {
        return;
    }
    compare_with_host! { 20_000, singles;
        "addps" Addps_xmm_xmmm128, "subps" Subps_xmm_xmmm128, "mulps" Mulps_xmm_xmmm128, "divps" Divps_xmm_xmmm128,
        "sqrtps" Sqrtps_xmm_xmmm128, "minps" Minps_xmm_xmmm128, "maxps" Maxps_xmm_xmmm128,
        "addss" Addss_xmm_xmmm32, "subss" Subss_xmm_xmmm32, "mulss" Mulss_xmm_xmmm32, "divss" Divss_xmm_xmmm32,
        "sqrtss" Sqrtss_xmm_xmmm32, "minss" Minss_xmm_xmmm32, "maxss" Maxss_xmm_xmmm32,
        "haddps" Haddps_xmm_xmmm128, "hsubps" Hsubps_xmm_xmmm128, "addsubps" Addsubps_xmm_xmmm128,
        "cvtps2pd" Cvtps2pd_xmm_xmmm64, "cvtss2sd" Cvtss2sd_xmm_xmmm32,
        "cvtps2dq" Cvtps2dq_xmm_xmmm128, "cvttps2dq" Cvttps2dq_xmm_xmmm128,
    }
}

#[test]
fn double_precision_agrees_with_the_host() {
    if !supported() {
        return;
    }
    compare_with_host! { 20_000, doubles;
        "addpd" Addpd_xmm_xmmm128, "subpd" Subpd_xmm_xmmm128, "mulpd" Mulpd_xmm_xmmm128, "divpd" Divpd_xmm_xmmm128,
        "sqrtpd" Sqrtpd_xmm_xmmm128, "minpd" Minpd_xmm_xmmm128, "maxpd" Maxpd_xmm_xmmm128,
        "addsd" Addsd_xmm_xmmm64, "subsd" Subsd_xmm_xmmm64, "mulsd" Mulsd_xmm_xmmm64, "divsd" Divsd_xmm_xmmm64,
        "sqrtsd" Sqrtsd_xmm_xmmm64, "minsd" Minsd_xmm_xmmm64, "maxsd" Maxsd_xmm_xmmm64,
        "haddpd" Haddpd_xmm_xmmm128, "hsubpd" Hsubpd_xmm_xmmm128, "addsubpd" Addsubpd_xmm_xmmm128,
        "cvtpd2ps" Cvtpd2ps_xmm_xmmm128, "cvtsd2ss" Cvtsd2ss_xmm_xmmm64,
        "cvtpd2dq" Cvtpd2dq_xmm_xmmm128, "cvttpd2dq" Cvttpd2dq_xmm_xmmm128,
    }
}

#[test]
fn integers_become_floating_point_as_on_the_host() {
    if !supported() {
        return;
    }
    compare_with_host! { 20_000, |random: &mut Random| (random.bytes(), random.bytes(), random.mxcsr());
        "cvtdq2ps" Cvtdq2ps_xmm_xmmm128, "cvtdq2pd" Cvtdq2pd_xmm_xmmm64,
    }
}

/// `$f` for each of the immediates, as an array.
macro_rules! for_immediates {
    ($f:ident; $($imm:literal)*) => {
        [$(($imm, $f::<$imm> as _)),*]
    };
}

/// Bits of every field that a shuffle, blend, rounding or dot product has, alone and mixed.
macro_rules! some_immediates {
    ($f:ident) => {
        for_immediates!($f; 0x00 0x01 0x02 0x03 0x04 0x05 0x06 0x07 0x08 0x0b 0x0c 0x10 0x1b 0x31 0x4e 0x72 0x8d 0xb4
            0xd8 0xe4 0xf1 0xff)
    };
}

/// All immediates that mean something to PCMPxSTRx.
macro_rules! string_immediates {
    ($f:ident) => {
        for_immediates!($f;
            0x00 0x01 0x02 0x03 0x04 0x05 0x06 0x07 0x08 0x09 0x0a 0x0b 0x0c 0x0d 0x0e 0x0f
            0x10 0x11 0x12 0x13 0x14 0x15 0x16 0x17 0x18 0x19 0x1a 0x1b 0x1c 0x1d 0x1e 0x1f
            0x20 0x21 0x22 0x23 0x24 0x25 0x26 0x27 0x28 0x29 0x2a 0x2b 0x2c 0x2d 0x2e 0x2f
            0x30 0x31 0x32 0x33 0x34 0x35 0x36 0x37 0x38 0x39 0x3a 0x3b 0x3c 0x3d 0x3e 0x3f
            0x40 0x41 0x42 0x43 0x44 0x45 0x46 0x47 0x48 0x49 0x4a 0x4b 0x4c 0x4d 0x4e 0x4f
            0x50 0x51 0x52 0x53 0x54 0x55 0x56 0x57 0x58 0x59 0x5a 0x5b 0x5c 0x5d 0x5e 0x5f
            0x60 0x61 0x62 0x63 0x64 0x65 0x66 0x67 0x68 0x69 0x6a 0x6b 0x6c 0x6d 0x6e 0x6f
            0x70 0x71 0x72 0x73 0x74 0x75 0x76 0x77 0x78 0x79 0x7a 0x7b 0x7c 0x7d 0x7e 0x7f)
    };
}

/// Compares an instruction with an immediate with the host.
macro_rules! compare_immediates {
    ($rounds:literal, $operands:expr; $($name:literal $code:ident,)*) => {
        $({
            fn native<const IMM: u8>(mxcsr: u32, a: u128, b: u128) -> (u128, u32) {
                on_host!($name, mxcsr, a, b, imm = const IMM)
            }
            type Native = fn(u32, u128, u128) -> (u128, u32);
            let natives: [(u8, Native); 22] = some_immediates!(native);
            let mut random = Random(2);
            for (imm, native) in natives {
                for _ in 0..$rounds {
                    let (a, b, mxcsr) = $operands(&mut random);
                    check(Code::$code, mxcsr, a, b, imm, native(mxcsr, a, b));
                }
            }
        })*
    };
}

#[test]
fn immediates_choose_as_on_the_host() {
    if !supported() {
        return;
    }
    compare_immediates! { 20, integers;
        "pshufd" Pshufd_xmm_xmmm128_imm8, "pshuflw" Pshuflw_xmm_xmmm128_imm8, "pshufhw" Pshufhw_xmm_xmmm128_imm8,
        "shufps" Shufps_xmm_xmmm128_imm8, "shufpd" Shufpd_xmm_xmmm128_imm8, "palignr" Palignr_xmm_xmmm128_imm8,
        "blendps" Blendps_xmm_xmmm128_imm8, "blendpd" Blendpd_xmm_xmmm128_imm8, "pblendw" Pblendw_xmm_xmmm128_imm8,
        "mpsadbw" Mpsadbw_xmm_xmmm128_imm8, "insertps" Insertps_xmm_xmmm32_imm8,
    }
}

#[test]
fn single_precision_immediates_agree_with_the_host() {
    if !supported() {
        return;
    }
    compare_immediates! { 200, singles;
        "cmpps" Cmpps_xmm_xmmm128_imm8, "cmpss" Cmpss_xmm_xmmm32_imm8, "roundps" Roundps_xmm_xmmm128_imm8,
        "roundss" Roundss_xmm_xmmm32_imm8, "dpps" Dpps_xmm_xmmm128_imm8,
    }
}

#[test]
fn double_precision_immediates_agree_with_the_host() {
    if !supported() {
        return;
    }
    compare_immediates! { 200, doubles;
        "cmppd" Cmppd_xmm_xmmm128_imm8, "cmpsd" Cmpsd_xmm_xmmm64_imm8, "roundpd" Roundpd_xmm_xmmm128_imm8,
        "roundsd" Roundsd_xmm_xmmm64_imm8, "dppd" Dppd_xmm_xmmm128_imm8,
    }
}

/// `op r64, xmm`.
macro_rules! to_register {
    ($random:ident; $($name:literal $code:ident $single:literal,)*) => {
        $(for _ in 0..20_000 {
            let (b, before) = ($random.floats($single), $random.mxcsr());
            let (mut mxcsr, host) = (before, 0x1f80u32);
            let result: u64;
            // SAFETY: the instruction reads and writes its registers only, and the host's MXCSR is put back.
            unsafe {
                asm!("ldmxcsr [{mxcsr}]", $name, "stmxcsr [{mxcsr}]", "ldmxcsr [{host}]",
                    mxcsr = in(reg) &mut mxcsr, host = in(reg) &host, out("rax") result, in("xmm0") vector(b));
            }
            check(Code::$code, before, 0, b, 0, (result as u128, mxcsr));
        })*
    };
}

#[test]
fn conversions_to_registers_agree_with_the_host() {
    if !supported() {
        return;
    }
    let mut random = Random(3);
    to_register! { random;
        "cvtss2si eax, xmm0" Cvtss2si_r32_xmmm32 true, "cvtss2si rax, xmm0" Cvtss2si_r64_xmmm32 true,
        "cvttss2si eax, xmm0" Cvttss2si_r32_xmmm32 true, "cvttss2si rax, xmm0" Cvttss2si_r64_xmmm32 true,
        "cvtsd2si eax, xmm0" Cvtsd2si_r32_xmmm64 false, "cvtsd2si rax, xmm0" Cvtsd2si_r64_xmmm64 false,
        "cvttsd2si eax, xmm0" Cvttsd2si_r32_xmmm64 false, "cvttsd2si rax, xmm0" Cvttsd2si_r64_xmmm64 false,
    }
}

/// `op xmm, r64`.
macro_rules! from_register {
    ($random:ident; $($name:literal $code:ident,)*) => {
        $(for _ in 0..20_000 {
            let (a, before) = ($random.bytes(), $random.mxcsr());
            let b = ($random.next() as i64 >> ($random.next() % 64)) as u64;
            let (mut mxcsr, host, mut result) = (before, 0x1f80u32, vector(a));
            // SAFETY: the instruction reads and writes its registers only, and the host's MXCSR is put back.
            unsafe {
                asm!("ldmxcsr [{mxcsr}]", $name, "stmxcsr [{mxcsr}]", "ldmxcsr [{host}]",
                    mxcsr = in(reg) &mut mxcsr, host = in(reg) &host, in("rax") b, inout("xmm0") result);
            }
            check(Code::$code, before, a, b as u128, 0, (scalar(result), mxcsr));
        })*
    };
}

#[test]
fn conversions_from_registers_agree_with_the_host() {
    if !supported() {
        return;
    }
    let mut random = Random(4);
    from_register! { random;
        "cvtsi2ss xmm0, eax" Cvtsi2ss_xmm_rm32, "cvtsi2ss xmm0, rax" Cvtsi2ss_xmm_rm64,
        "cvtsi2sd xmm0, eax" Cvtsi2sd_xmm_rm32, "cvtsi2sd xmm0, rax" Cvtsi2sd_xmm_rm64,
    }
}

/// `op xmm, xmm` that sets flags.
macro_rules! to_flags {
    ($random:ident; $($name:literal $code:ident $operands:expr,)*) => {
        $(for _ in 0..20_000 {
            let (a, b, before): (u128, u128, u32) = $operands(&mut $random);
            let b = if $random.next().is_multiple_of(4) { a } else { b };
            let (mut mxcsr, host) = (before, 0x1f80u32);
            let flags: u64;
            // SAFETY: the instruction reads its registers and writes flags only, and the host's MXCSR is put back.
            unsafe {
                asm!("ldmxcsr [{mxcsr}]", $name, "pushfq", "pop {flags}", "stmxcsr [{mxcsr}]", "ldmxcsr [{host}]",
                    mxcsr = in(reg) &mut mxcsr, host = in(reg) &host, flags = out(reg) flags,
                    in("xmm0") vector(a), in("xmm1") vector(b));
            }
            check(Code::$code, before, a, b, 0, ((flags & 0x8d5) as u128, mxcsr));
        })*
    };
}

#[test]
fn flags_agree_with_the_host() {
    if !supported() {
        return;
    }
    let mut random = Random(5);
    to_flags! { random;
        "comiss xmm0, xmm1" Comiss_xmm_xmmm32 singles, "ucomiss xmm0, xmm1" Ucomiss_xmm_xmmm32 singles,
        "comisd xmm0, xmm1" Comisd_xmm_xmmm64 doubles, "ucomisd xmm0, xmm1" Ucomisd_xmm_xmmm64 doubles,
        "ptest xmm0, xmm1" Ptest_xmm_xmmm128 integers,
    }
}

/// PCMPESTRI and PCMPESTRM: index, mask and flags.
fn compare_strings<const IMM: u8>(a: u128, b: u128, lengths: (i64, i64)) -> (u64, u128, u64) {
    let (index, mask, flags): (u64, __m128i, u64);
    // SAFETY: the instructions read and write their registers only.
    unsafe {
        asm!("pcmpestrm xmm1, xmm2, {imm}", "pcmpestri xmm1, xmm2, {imm}", "pushfq", "pop {flags}",
            imm = const IMM, flags = out(reg) flags, in("rax") lengths.0, in("rdx") lengths.1,
            out("rcx") index, out("xmm0") mask, in("xmm1") vector(a), in("xmm2") vector(b));
    }
    (index, scalar(mask), flags & 0x8d5)
}

/// PCMPISTRI and PCMPISTRM: index, mask and flags.
fn compare_terminated_strings<const IMM: u8>(a: u128, b: u128, _: (i64, i64)) -> (u64, u128, u64) {
    let (index, mask, flags): (u64, __m128i, u64);
    // SAFETY: the instructions read and write their registers only.
    unsafe {
        asm!("pcmpistrm xmm1, xmm2, {imm}", "pcmpistri xmm1, xmm2, {imm}", "pushfq", "pop {flags}",
            imm = const IMM, flags = out(reg) flags, out("rcx") index, out("xmm0") mask,
            in("xmm1") vector(a), in("xmm2") vector(b));
    }
    (index, scalar(mask), flags & 0x8d5)
}

#[test]
fn string_comparisons_agree_with_the_host() {
    if !supported() {
        return;
    }
    type Native = fn(u128, u128, (i64, i64)) -> (u64, u128, u64);
    let explicit: [(u8, Native); 128] = string_immediates!(compare_strings);
    let implicit: [(u8, Native); 128] = string_immediates!(compare_terminated_strings);
    let mut random = Random(6);
    for (round, ((imm, explicit), (_, implicit))) in
        (0..200).flat_map(|round| explicit.into_iter().zip(implicit).map(move |both| (round, both)))
    {
        let (a, mut b) = (random.bytes(), random.bytes());
        if round % 3 == 1 {
            b = a >> (8 * (random.next() % 4)) | random.bytes() & 0xff;
        }
        let lengths = (random.next() as i8 as i64 >> 2, random.next() as i8 as i64 >> 2);
        let length = |register: i64| strings::explicit_length(register as i32 as i64, imm);
        let ours = strings::compare(a, length(lengths.0), b, length(lengths.1), imm);
        let host = explicit(a, b, lengths);
        assert_eq!(
            (ours.index(imm), ours.mask(imm), ours.flags),
            host,
            "explicit {imm:#x} {a:x} {b:x} {lengths:?}"
        );
        let (a_length, b_length) = (strings::implicit_length(a, imm), strings::implicit_length(b, imm));
        let ours = strings::compare(a, a_length, b, b_length, imm);
        let host = implicit(a, b, lengths);
        assert_eq!((ours.index(imm), ours.mask(imm), ours.flags), host, "implicit {imm:#x} {a:x} {b:x}");
    }
}
