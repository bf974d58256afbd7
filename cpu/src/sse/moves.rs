//! Moves: between registers and memory, whole, low, high and between register files. The non-temporal ones differ
//! only in how the result leaves the processor, see [`is_non_temporal`].

use iced_x86::Code;

use super::{
    form::Form::{self, Lanes},
    lanes::lane,
};

const LOW_64: u128 = u64::MAX as u128;

/// What `code` moves, if it is one of this family. `from_memory` tells the two meanings of MOVSS and MOVSD apart: a
/// register source leaves the rest of the destination alone, memory clears it.
pub(super) fn form(code: Code, from_memory: bool) -> Option<Form> {
    let f: fn(u128, u128) -> u128 = match code {
        Code::Movups_xmm_xmmm128
        | Code::Movupd_xmm_xmmm128
        | Code::Movups_xmmm128_xmm
        | Code::Movupd_xmmm128_xmm
        | Code::Movaps_xmm_xmmm128
        | Code::Movapd_xmm_xmmm128
        | Code::Movaps_xmmm128_xmm
        | Code::Movapd_xmmm128_xmm
        | Code::Movdqa_xmm_xmmm128
        | Code::Movdqu_xmm_xmmm128
        | Code::Movdqa_xmmm128_xmm
        | Code::Movdqu_xmmm128_xmm
        | Code::Lddqu_xmm_m128
        | Code::Movntdqa_xmm_m128
        | Code::Movntps_m128_xmm
        | Code::Movntpd_m128_xmm
        | Code::Movntdq_m128_xmm
        | Code::Movntq_m64_mm
        | Code::Movnti_m32_r32
        | Code::Movnti_m64_r64
        | Code::Movd_mm_rm32
        | Code::Movd_xmm_rm32
        | Code::Movq_mm_rm64
        | Code::Movq_xmm_rm64
        | Code::Movd_rm32_mm
        | Code::Movd_rm32_xmm
        | Code::Movq_rm64_mm
        | Code::Movq_rm64_xmm
        | Code::Movq_mm_mmm64
        | Code::Movq_mmm64_mm
        | Code::Movq2dq_xmm_mm
        | Code::Movdq2q_mm_xmm => |_, b| b,
        Code::Movq_xmm_xmmm64 | Code::Movq_xmmm64_xmm => |_, b| b & LOW_64,
        Code::Movss_xmm_xmmm32 | Code::Movsd_xmm_xmmm64 if from_memory => |_, b| b,
        Code::Movss_xmm_xmmm32 | Code::Movss_xmmm32_xmm => |a, b| a >> 32 << 32 | lane::<u32>(b, 0) as u128,
        Code::Movsd_xmm_xmmm64 | Code::Movsd_xmmm64_xmm | Code::Movlps_xmm_m64 | Code::Movlpd_xmm_m64 => {
            |a, b| a >> 64 << 64 | b & LOW_64
        }
        Code::Movlps_m64_xmm | Code::Movlpd_m64_xmm => |_, b| b,
        Code::Movhps_xmm_m64 | Code::Movhpd_xmm_m64 | Code::Movlhps_xmm_xmm => |a, b| a & LOW_64 | b << 64,
        Code::Movhps_m64_xmm | Code::Movhpd_m64_xmm => |_, b| b >> 64,
        Code::Movhlps_xmm_xmm => |a, b| a >> 64 << 64 | b >> 64,
        _ => return None,
    };
    Some(Lanes(f))
}

/// Whether `code` stores past the caches.
pub(super) fn is_non_temporal(code: Code) -> bool {
    matches!(
        code,
        Code::Movntps_m128_xmm
            | Code::Movntpd_m128_xmm
            | Code::Movntdq_m128_xmm
            | Code::Movntq_m64_mm
            | Code::Movnti_m32_r32
            | Code::Movnti_m64_r64
    )
}

/// Whether `code` takes 16-byte memory operands at any address. All others need aligned ones. SDM vol. 1, section
/// 4.1.1, and the exception tables of vol. 2.
pub(super) fn allows_unaligned(code: Code) -> bool {
    matches!(
        code,
        Code::Movups_xmm_xmmm128
            | Code::Movupd_xmm_xmmm128
            | Code::Movups_xmmm128_xmm
            | Code::Movupd_xmmm128_xmm
            | Code::Movdqu_xmm_xmmm128
            | Code::Movdqu_xmmm128_xmm
            | Code::Lddqu_xmm_m128
            | Code::Pcmpestrm_xmm_xmmm128_imm8
            | Code::Pcmpestrm64_xmm_xmmm128_imm8
            | Code::Pcmpestri_xmm_xmmm128_imm8
            | Code::Pcmpestri64_xmm_xmmm128_imm8
            | Code::Pcmpistrm_xmm_xmmm128_imm8
            | Code::Pcmpistri_xmm_xmmm128_imm8
    )
}
