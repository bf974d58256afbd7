//! Every form of every instruction, as iced knows them.

use iced_x86::{Code, CpuidFeature, FlowControl, Instruction, Mnemonic};

use super::{features::Offered, operands::Form};

/// Sets of instructions as the filter and the list in the docs name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    Integer,
    System,
    X87,
    Mmx,
    Sse,
    Sse2,
    Sse3,
    Ssse3,
    Sse41,
    Sse42,
}

impl Set {
    pub const ALL: [Set; 10] = [
        Set::Integer,
        Set::System,
        Set::X87,
        Set::Mmx,
        Set::Sse,
        Set::Sse2,
        Set::Sse3,
        Set::Ssse3,
        Set::Sse41,
        Set::Sse42,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Set::Integer => "integer",
            Set::System => "system",
            Set::X87 => "x87",
            Set::Mmx => "MMX",
            Set::Sse => "SSE",
            Set::Sse2 => "SSE2",
            Set::Sse3 => "SSE3",
            Set::Ssse3 => "SSSE3",
            Set::Sse41 => "SSE4.1",
            Set::Sse42 => "SSE4.2",
        }
    }

    pub fn of(code: Code) -> Set {
        use CpuidFeature as F;
        let info = code.op_code();
        let has = |feature: F| code.cpuid_features().contains(&feature);
        if has(F::FPU) || has(F::FPU287) || has(F::FPU387) || has(F::FXSR) {
            return Set::X87;
        }
        let by_feature = [
            (F::SSE4_2, Set::Sse42),
            (F::SSE4_1, Set::Sse41),
            (F::SSSE3, Set::Ssse3),
            (F::SSE3, Set::Sse3),
            (F::SSE2, Set::Sse2),
            (F::SSE, Set::Sse),
            (F::MMX, Set::Mmx),
        ];
        if let Some((_, set)) = by_feature.iter().find(|(feature, _)| has(*feature)) {
            return *set;
        }
        if info.is_privileged() || info.is_input_output() || is_system(code.mnemonic()) {
            return Set::System;
        }
        Set::Integer
    }
}

/// Instructions of user mode that show or change the state of the system rather than of the program.
fn is_system(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Sgdt
            | M::Sidt
            | M::Sldt
            | M::Smsw
            | M::Str
            | M::Lar
            | M::Lsl
            | M::Verr
            | M::Verw
            | M::Arpl
            | M::Syscall
            | M::Sysenter
            | M::Sysexit
            | M::Sysret
            | M::Int
            | M::Int1
            | M::Int3
            | M::Into
            | M::Ud0
            | M::Ud1
            | M::Ud2
            | M::Iret
            | M::Iretd
            | M::Iretq
            | M::Cpuid
            | M::Rdtsc
            | M::Rdtscp
            | M::Rdpmc
            | M::Rdrand
            | M::Rdseed
            | M::Rdfsbase
            | M::Rdgsbase
            | M::Wrfsbase
            | M::Wrgsbase
            | M::Clflush
            | M::Clflushopt
            | M::Clwb
            | M::Stac
            | M::Clac
    )
}

/// The forms in code of `bits` that CPUID offers.
pub fn offered(offered: &Offered, bits: u32) -> Vec<Form> {
    let all = Code::values().filter(|code| is_valid(*code, bits) && offered.has(*code));
    all.map(|code| Form { code, bits }).collect()
}

/// Whether there is such a form in code of `bits`.
pub fn is_valid(code: Code, bits: u32) -> bool {
    let info = code.op_code();
    let valid = match bits {
        64 => info.mode64(),
        32 => info.mode32(),
        _ => info.mode16(),
    };
    info.is_instruction() && valid
}

/// The forms that `filter` names. It is a list of words separated by commas; a form is named by a part of its iced
/// name (case ignored), by its set, or by `sse` (all of MMX to SSE4.2). Nothing names everything.
pub fn named(forms: Vec<Form>, filter: &str) -> Vec<Form> {
    let words: Vec<String> = filter.to_lowercase().split(',').map(str::to_owned).collect();
    let is_set = |word: &str| word == "sse" || Set::ALL.iter().any(|set| set.name().to_lowercase() == word);
    let names = |word: &str, form: &Form| {
        let set = Set::of(form.code);
        if is_set(word) {
            return set.name().to_lowercase() == word || word == "sse" && set >= Set::Mmx;
        }
        format!("{:?}", form.code).to_lowercase().contains(word)
    };
    forms.into_iter().filter(|form| words.iter().any(|word| names(word, form))).collect()
}

/// Whether the instruction takes the place of its return from the top of the stack.
pub fn is_return(i: &Instruction) -> bool {
    i.flow_control() == FlowControl::Return
}

/// Whether the instruction also takes a code segment from there.
pub fn is_far_return(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(i.mnemonic(), M::Retf | M::Iret | M::Iretd | M::Iretq)
}

/// Whether the instruction branches to where its operand says.
pub fn is_indirect_branch(i: &Instruction) -> bool {
    let far = i.is_jmp_far_indirect() || i.is_call_far_indirect();
    !far && matches!(i.flow_control(), FlowControl::IndirectBranch | FlowControl::IndirectCall)
}

/// Whether the second operand of this instruction selects a bit in a string of any length when it is a register.
pub fn indexes_bits(mnemonic: Mnemonic) -> bool {
    matches!(mnemonic, Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
}
