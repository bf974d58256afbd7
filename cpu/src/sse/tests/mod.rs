//! Every form is there, and computes what the host's processor computes.

mod machine;
#[cfg(target_arch = "x86_64")]
mod native;
mod rounding;

use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, Mnemonic};

use super::*;
use crate::{bus::NoBus, op::Based};

/// What other modules execute.
fn belongs_elsewhere(code: Code) -> bool {
    use Mnemonic::*;
    matches!(
        code.mnemonic(),
        Fisttp | Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 | Lfence | Mfence | Sfence | Crc32
    )
}

/// Whether `code` is of an extension that CPUID offers, in its legacy encoding.
fn is_offered(code: Code) -> bool {
    use CpuidFeature::*;
    let legacy = code.encoding() == iced_x86::EncodingKind::Legacy;
    legacy
        && code
            .cpuid_features()
            .iter()
            .any(|f| matches!(f, MMX | SSE | SSE2 | SSE3 | SSSE3 | SSE4_1 | SSE4_2))
}

#[test]
fn no_form_that_cpuid_offers_is_missing() {
    let missing: Vec<Code> = Code::values()
        .filter(|&code| is_offered(code) && !belongs_elsewhere(code))
        .filter(|&code| {
            !special::handles(code) && (form_of(code, false).is_none() || form_of(code, true).is_none())
        })
        .collect();
    assert_eq!(missing, []);
}

#[test]
fn nothing_else_is_claimed() {
    let claimed: Vec<Code> = Code::values()
        .filter(|&code| !is_offered(code) || belongs_elsewhere(code))
        .filter(|&code| special::handles(code) || form_of(code, false).is_some())
        .collect();
    assert_eq!(claimed, []);
}

fn decode(bytes: &[u8]) -> Instruction {
    Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).decode()
}

#[test]
fn string_instructions_named_like_sse_are_left_alone() {
    assert!(general::<NoBus>(&decode(&[0xa5])).is_none());
    assert!(general::<NoBus>(&decode(&[0xa7])).is_none());
    assert!(general::<NoBus>(&decode(&[0xf2, 0x0f, 0x10, 0xc1])).is_some());
}

#[test]
fn hot_forms_resolve_their_operands() {
    // movnti [rip+0x10], r9
    let op = specialise::<NoBus>(&decode(&[0x4c, 0x0f, 0xc3, 0x0d, 0x10, 0, 0, 0])).unwrap();
    assert_eq!((op.mem.base as usize, op.mem.disp, op.src, op.len), (crate::state::REG_RIP, 0x10, 9, 8));
    // movups xmm12, gs:[r13+rcx*8-4]
    let op = specialise::<NoBus>(&decode(&[0x65, 0x45, 0x0f, 0x10, 0x64, 0xcd, 0xfc])).unwrap();
    let mem = op.mem;
    assert_eq!(
        (mem.base, mem.index, mem.scale, mem.segment, mem.disp, op.dst),
        (13, 1, 3, Some(Based::Gs), -4, 12)
    );
    // pshufd xmm1, xmm2, 0x1b
    let op = specialise::<NoBus>(&decode(&[0x66, 0x0f, 0x70, 0xca, 0x1b])).unwrap();
    assert_eq!((op.dst, op.src, op.imm()), (1, 2, 0x1b));
    // movups xmm0, [eax]: an address of 32 bits goes the general way.
    assert!(specialise::<NoBus>(&decode(&[0x67, 0x0f, 0x10, 0x00])).is_none());
}
