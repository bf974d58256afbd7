//! Every form of every user-mode instruction that CPUID offers, as iced knows them.

use iced_x86::{Code, CpuidFeature, FlowControl, Instruction, Mnemonic, OpCodeOperandKind};

use super::skips;

/// The forms to run that `filter` names: those that can be executed here, see [`skips`]. The filter is a list of words
/// separated by commas; a form is named by a part of its iced name (case ignored) or by its set: `integer`, `x87`,
/// `sse` (all of MMX to SSE4.2). Nothing names everything.
pub fn forms(filter: &str) -> Vec<Code> {
    let words: Vec<String> = filter.to_lowercase().split(',').map(str::to_owned).collect();
    Code::values()
        .filter(|code| {
            is_offered(*code) && host_has(*code) && skips::form(*code).is_none() && is_encodable(*code)
        })
        .filter(|code| {
            let name = format!("{code:?}").to_lowercase();
            words.iter().any(|word| set(*code) == word || !SETS.contains(&&**word) && name.contains(word))
        })
        .collect()
}

const SETS: [&str; 3] = ["integer", "x87", "sse"];

fn set(code: Code) -> &'static str {
    let features = code.cpuid_features();
    let any = |wanted: &[CpuidFeature]| features.iter().any(|feature| wanted.contains(feature));
    use CpuidFeature as F;
    if any(&[F::FPU, F::FPU287, F::FPU387, F::FXSR]) {
        "x87"
    } else if any(&[F::MMX, F::SSE, F::SSE2, F::SSE3, F::SSSE3, F::SSE4_1, F::SSE4_2])
        && code.mnemonic() != Mnemonic::Crc32
    {
        "sse"
    } else {
        "integer"
    }
}

fn is_offered(code: Code) -> bool {
    let info = code.op_code();
    let general = info.is_instruction() && info.mode64() && !info.is_privileged() && !info.is_input_output();
    general
        && code.cpuid_features().iter().all(|feature| {
            use CpuidFeature as F;
            matches!(
                feature,
                F::INTEL8086
                    | F::INTEL186
                    | F::INTEL286
                    | F::INTEL386
                    | F::INTEL486
                    | F::X64
                    | F::FPU
                    | F::FPU287
                    | F::FPU387
                    | F::CMOV
                    | F::CMPXCHG16B
                    | F::CX8
                    | F::FXSR
                    | F::MMX
                    | F::MULTIBYTENOP
                    | F::POPCNT
                    | F::SSE
                    | F::SSE2
                    | F::SSE3
                    | F::SSSE3
                    | F::SSE4_1
                    | F::SSE4_2
            )
        })
}

/// Only features that a processor of this architecture might lack.
fn host_has(code: Code) -> bool {
    code.cpuid_features().iter().all(|feature| match feature {
        CpuidFeature::SSE3 => is_x86_feature_detected!("sse3"),
        CpuidFeature::SSSE3 => is_x86_feature_detected!("ssse3"),
        CpuidFeature::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        CpuidFeature::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        CpuidFeature::POPCNT => is_x86_feature_detected!("popcnt"),
        CpuidFeature::CMPXCHG16B => is_x86_feature_detected!("cmpxchg16b"),
        _ => true,
    })
}

/// Whether `cases` knows how to make operands of these kinds.
fn is_encodable(code: Code) -> bool {
    let info = code.op_code();
    info.op_kinds().iter().all(|kind| {
        use OpCodeOperandKind as K;
        matches!(
            kind,
            K::mem_offs
                | K::mem
                | K::r8_or_mem
                | K::r16_or_mem
                | K::r32_or_mem
                | K::r64_or_mem
                | K::mm_or_mem
                | K::xmm_or_mem
                | K::r8_reg
                | K::r8_opcode
                | K::r16_reg
                | K::r16_rm
                | K::r16_opcode
                | K::r32_reg
                | K::r32_rm
                | K::r32_opcode
                | K::r64_reg
                | K::r64_rm
                | K::r64_opcode
                | K::mm_reg
                | K::mm_rm
                | K::xmm_reg
                | K::xmm_rm
                | K::al
                | K::cl
                | K::ax
                | K::dx
                | K::eax
                | K::rax
                | K::st0
                | K::sti_opcode
                | K::imm8
                | K::imm8_const_1
                | K::imm8sex16
                | K::imm8sex32
                | K::imm8sex64
                | K::imm16
                | K::imm32
                | K::imm32sex64
                | K::imm64
                | K::seg_rSI
                | K::es_rDI
                | K::seg_rDI
                | K::seg_rBX_al
                | K::br64_1
                | K::br64_4
        )
    })
}

/// Whether the instruction takes the place of its return from the top of the stack.
pub fn is_return(i: &Instruction) -> bool {
    i.flow_control() == FlowControl::Return
}

/// Whether the instruction branches to where its operand says.
pub fn is_indirect_branch(i: &Instruction) -> bool {
    matches!(i.flow_control(), FlowControl::IndirectBranch | FlowControl::IndirectCall)
}

/// Whether the second operand of this instruction selects a bit in a string of any length when it is a register.
pub fn indexes_bits(mnemonic: Mnemonic) -> bool {
    matches!(mnemonic, Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
}
