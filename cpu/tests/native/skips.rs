//! What is not run or not compared, and why. The one place for such exceptions.

use iced_x86::{Code, Instruction, Mnemonic, OpCodeOperandKind, OpKind, RflagsBits};

use super::case::{Case, Outcome};
use super::x87;

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const DF: u64 = 1 << 10;
const OF: u64 = 1 << 11;
/// Flags that user-mode instructions compute; of the others the host's kernel has its own.
const COMPARED: u64 = CF | PF | AF | ZF | SF | DF | OF;

/// Why this form is not run at all.
pub fn form(code: Code) -> Option<&'static str> {
    use Mnemonic::*;
    let why = match code.mnemonic() {
        Syscall | Sysenter | Sysexit | Sysret | Int | Int1 | Int3 | Into | Ud0 | Ud1 | Ud2 => {
            "leaves the program, or is an exception by definition"
        }
        Iret | Iretd | Iretq | Retf | Lfs | Lgs | Lss => "the host's selectors are its own",
        _ if has_far_operand(code) || has_segment_register(code) => "the host's selectors are its own",
        Sgdt | Sidt | Sldt | Smsw | Str | Lar | Lsl | Verr | Verw => {
            "shows the kernel's tables, or what Linux puts in their place under UMIP"
        }
        Popf | Popfd | Popfq => "may set TF or AC, which the host's signal handler would run with",
        Pushf | Pushfd | Pushfq => "shows IF and RF as the host's kernel sets them",
        Rdfsbase | Rdgsbase | Wrfsbase | Wrgsbase => "FS is the host's thread pointer",
        Cpuid | Rdtsc | Rdtscp | Rdpmc | Rdrand | Rdseed | Rdpid => "depends on the machine",
        Fxsave | Fxsave64 | Fxrstor | Fxrstor64 | Fnsave | Fsave | Fnstenv | Fstenv | Frstor | Fldenv => {
            "shows instruction and data pointers, which AMD keeps only while an exception is pending"
        }
        Rcpps | Rcpss | Rsqrtps | Rsqrtss => "an approximation: its bits differ by vendor",
        Reservednop => "#UD on AMD where it was 3DNow!, NOP on Intel",
        Umov | Xbts | Ibts | Loadall => "not of this architecture",
        _ if format!("{code:?}").starts_with("Cmpxchg486") => "not of this architecture",
        _ => return None,
    };
    Some(why)
}

/// Why this instance of a form is not run.
pub fn case(i: &Instruction, case: &Case) -> Option<&'static str> {
    match i.code() {
        Code::Shld_rm16_r16_imm8
        | Code::Shrd_rm16_r16_imm8
        | Code::Shld_rm16_r16_CL
        | Code::Shrd_rm16_r16_CL => {
            let count = i.try_immediate(2).unwrap_or(case.regs[1]) & 31;
            (count > 16).then_some("a word shifted by more than its length is undefined: vendors differ")
        }
        Code::Movsxd_r16_rm16 if i.op1_kind() == OpKind::Memory => Some("reads 4 bytes on AMD, 2 on Intel"),
        _ => x87::case(i, case),
    }
}

fn has_far_operand(code: Code) -> bool {
    let name = format!("{code:?}");
    ["_m1616", "_m1632", "_m1664"].iter().any(|far| name.ends_with(far))
}

fn has_segment_register(code: Code) -> bool {
    use OpCodeOperandKind as K;
    let kinds = code.op_code().op_kinds();
    kinds.iter().any(|kind| matches!(kind, K::seg_reg | K::es | K::cs | K::ss | K::ds | K::fs | K::gs))
}

/// Makes equal in both outcomes what need not be equal.
pub fn forgive(i: &Instruction, host: &mut Outcome, guest: &mut Outcome) {
    let completed = host.vector == 3;
    let undefined = if completed { undefined_flags(i) } else { 0 };
    for outcome in [&mut *host, &mut *guest] {
        outcome.rflags &= COMPARED & !undefined;
        if outcome.vector == 14 && outcome.cr2 >> 47 != 0 {
            // Linux shows all of its own half of the addresses as present.
            outcome.error |= 1;
        }
        if outcome.vector != 14 {
            // Only a page fault sets CR2, and the signal frame keeps an old one.
            outcome.cr2 = 0;
        }
        if outcome.vector == 16 || outcome.vector == 19 || outcome.vector == 3 {
            outcome.error = 0;
        }
    }
    x87::forgive(i, host, guest);
    if !completed && i.is_string_instruction() {
        // SDM: a fault restores the flags from before the instruction. AMD leaves those of the last iteration.
        guest.rflags = host.rflags;
    }
}

/// Flags that the SDM calls undefined after `i`.
fn undefined_flags(i: &Instruction) -> u64 {
    let bits = i.rflags_undefined();
    let flag = |bit: u32, flag: u64| if bits & bit != 0 { flag } else { 0 };
    let of_iced = flag(RflagsBits::CF, CF)
        | flag(RflagsBits::PF, PF)
        | flag(RflagsBits::AF, AF)
        | flag(RflagsBits::ZF, ZF)
        | flag(RflagsBits::SF, SF)
        | flag(RflagsBits::OF, OF);
    match i.mnemonic() {
        // The count decides, and iced does not know it when it is in CL.
        Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar | Mnemonic::Shld | Mnemonic::Shrd => {
            of_iced | AF | if counts_one(i) { 0 } else { OF | CF }
        }
        Mnemonic::Rol | Mnemonic::Ror | Mnemonic::Rcl | Mnemonic::Rcr if !counts_one(i) => of_iced | OF,
        _ => of_iced,
    }
}

fn counts_one(i: &Instruction) -> bool {
    matches!(i.try_immediate(i.op_count() - 1), Ok(1))
}
