//! Which operation an instruction is.

use iced_x86::{Code, Instruction, Register};

use super::arithmetic::Arithmetic;

/// A format in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Single,
    Double,
    Extended,
    Word,
    Doubleword,
    Quadword,
    Decimal,
}

impl Format {
    /// Length in bytes.
    pub fn size(self) -> usize {
        match self {
            Format::Word => 2,
            Format::Single | Format::Doubleword => 4,
            Format::Double | Format::Quadword => 8,
            Format::Extended | Format::Decimal => 10,
        }
    }
}

/// Where the second operand comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Memory(Format),
    /// ST(i)
    Register,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    One,
    Log2Of10,
    Log2OfE,
    Pi,
    Log10Of2,
    LnOf2,
    Zero,
}

/// Functions of ST(0) that replace it and move nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    ChangeSign,
    Absolute,
    SquareRoot,
    Round,
    Exponential,
    Sine,
    Cosine,
}

/// Functions of ST(0) and ST(1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function2 {
    Remainder,
    RemainderNearest,
    Scale,
    /// These three pop.
    Arctangent,
    Logarithm,
    LogarithmPlusOne,
}

/// What an instruction does. `pop` counts registers popped after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// ST(0) = ST(0) op source
    Arithmetic(Arithmetic, Source),
    /// ST(i) = ST(i) op ST(0)
    ArithmeticInto(Arithmetic, u8),
    Compare {
        source: Source,
        quiet: bool,
        pop: u8,
    },
    CompareFlags {
        quiet: bool,
        pop: u8,
    },
    /// FUCOMPP and FCOMPP compare with ST(1).
    CompareNext {
        quiet: bool,
    },
    Test,
    Examine,
    Load(Source),
    LoadConstant(Constant),
    Store(Format, u8),
    StoreTruncated(Format),
    StoreRegister(u8),
    /// FSTPNCE: as FSTP ST(i), without an exception for an empty register.
    StoreRegisterQuietly,
    Exchange,
    /// FCMOVcc with the low four bits of the condition.
    Move(u8),
    Apply(Function),
    Apply2(Function2),
    Tangent,
    SineCosine,
    Extract,
    Free(u8),
    Rotate(i8),
    Nop,
    Wait,
    LoadControl,
    StoreControl,
    StoreStatus,
    StoreStatusAx,
    ClearExceptions,
    Initialise,
    /// FENI, FDISI and FSETPM mean nothing since the 387.
    Ignored,
    /// Environment and state images of 14, 28, 94 or 108 bytes.
    LoadEnvironment(usize),
    StoreEnvironment(usize),
    Restore {
        wide: bool,
    },
    Save {
        wide: bool,
    },
}

impl Operation {
    /// The operation of a form that is valid in 64-bit mode, `None` for anything else.
    pub fn of(code: Code) -> Option<Operation> {
        arithmetic(code).or_else(|| compare(code)).or_else(|| transfer(code)).or_else(|| other(code))
    }

    /// Whether pending unmasked exceptions are reported before it: all but the control instructions with an N.
    /// SDM vol. 1, 8.3.11.
    pub fn waits(self) -> bool {
        use Operation::*;
        !matches!(
            self,
            StoreControl
                | StoreStatus
                | StoreStatusAx
                | ClearExceptions
                | Initialise
                | Ignored
                | StoreEnvironment(_)
                | Restore { .. }
                | Save { .. }
        )
    }

    /// Whether it is a control instruction, which leaves the last instruction's pointers alone.
    pub fn is_control(self) -> bool {
        !self.waits()
            || matches!(self, Operation::LoadControl | Operation::LoadEnvironment(_) | Operation::Wait)
    }
}

/// The number of the register ST(i) that an instruction names; 0 if it names none.
pub(super) fn register_index(instruction: &Instruction) -> usize {
    (0..instruction.op_count())
        .map(|operand| instruction.op_register(operand))
        .filter(|register| register.is_st())
        .map(|register| register as usize - Register::ST0 as usize)
        .max()
        .unwrap_or(0)
}

fn arithmetic(code: Code) -> Option<Operation> {
    use Arithmetic::*;
    use Code::*;
    let (operation, source) = match code {
        Fadd_m32fp | Fadd_m64fp | Fiadd_m16int | Fiadd_m32int | Fadd_st0_sti => (Add, memory(code)),
        Fmul_m32fp | Fmul_m64fp | Fimul_m16int | Fimul_m32int | Fmul_st0_sti => (Multiply, memory(code)),
        Fsub_m32fp | Fsub_m64fp | Fisub_m16int | Fisub_m32int | Fsub_st0_sti => (Subtract, memory(code)),
        Fsubr_m32fp | Fsubr_m64fp | Fisubr_m16int | Fisubr_m32int | Fsubr_st0_sti => {
            (SubtractReversed, memory(code))
        }
        Fdiv_m32fp | Fdiv_m64fp | Fidiv_m16int | Fidiv_m32int | Fdiv_st0_sti => (Divide, memory(code)),
        Fdivr_m32fp | Fdivr_m64fp | Fidivr_m16int | Fidivr_m32int | Fdivr_st0_sti => {
            (DivideReversed, memory(code))
        }
        Fadd_sti_st0 => return Some(Operation::ArithmeticInto(Add, 0)),
        Fmul_sti_st0 => return Some(Operation::ArithmeticInto(Multiply, 0)),
        Fsub_sti_st0 => return Some(Operation::ArithmeticInto(Subtract, 0)),
        Fsubr_sti_st0 => return Some(Operation::ArithmeticInto(SubtractReversed, 0)),
        Fdiv_sti_st0 => return Some(Operation::ArithmeticInto(Divide, 0)),
        Fdivr_sti_st0 => return Some(Operation::ArithmeticInto(DivideReversed, 0)),
        Faddp_sti_st0 => return Some(Operation::ArithmeticInto(Add, 1)),
        Fmulp_sti_st0 => return Some(Operation::ArithmeticInto(Multiply, 1)),
        Fsubp_sti_st0 => return Some(Operation::ArithmeticInto(Subtract, 1)),
        Fsubrp_sti_st0 => return Some(Operation::ArithmeticInto(SubtractReversed, 1)),
        Fdivp_sti_st0 => return Some(Operation::ArithmeticInto(Divide, 1)),
        Fdivrp_sti_st0 => return Some(Operation::ArithmeticInto(DivideReversed, 1)),
        _ => return None,
    };
    Some(Operation::Arithmetic(operation, source))
}

/// The source of an arithmetic or comparing instruction.
fn memory(code: Code) -> Source {
    use Code::*;
    match code {
        Fadd_m32fp | Fmul_m32fp | Fsub_m32fp | Fsubr_m32fp | Fdiv_m32fp | Fdivr_m32fp | Fcom_m32fp
        | Fcomp_m32fp => Source::Memory(Format::Single),
        Fadd_m64fp | Fmul_m64fp | Fsub_m64fp | Fsubr_m64fp | Fdiv_m64fp | Fdivr_m64fp | Fcom_m64fp
        | Fcomp_m64fp => Source::Memory(Format::Double),
        Fiadd_m16int | Fimul_m16int | Fisub_m16int | Fisubr_m16int | Fidiv_m16int | Fidivr_m16int
        | Ficom_m16int | Ficomp_m16int => Source::Memory(Format::Word),
        Fiadd_m32int | Fimul_m32int | Fisub_m32int | Fisubr_m32int | Fidiv_m32int | Fidivr_m32int
        | Ficom_m32int | Ficomp_m32int => Source::Memory(Format::Doubleword),
        _ => Source::Register,
    }
}

fn compare(code: Code) -> Option<Operation> {
    use Code::*;
    let source = memory(code);
    Some(match code {
        Fcom_m32fp | Fcom_m64fp | Ficom_m16int | Ficom_m32int | Fcom_st0_sti | Fcom_st0_sti_DCD0 => {
            Operation::Compare { source, quiet: false, pop: 0 }
        }
        Fcomp_m32fp | Fcomp_m64fp | Ficomp_m16int | Ficomp_m32int | Fcomp_st0_sti | Fcomp_st0_sti_DCD8
        | Fcomp_st0_sti_DED0 => Operation::Compare { source, quiet: false, pop: 1 },
        Fucom_st0_sti => Operation::Compare { source, quiet: true, pop: 0 },
        Fucomp_st0_sti => Operation::Compare { source, quiet: true, pop: 1 },
        Fcompp => Operation::CompareNext { quiet: false },
        Fucompp => Operation::CompareNext { quiet: true },
        Fcomi_st0_sti => Operation::CompareFlags { quiet: false, pop: 0 },
        Fcomip_st0_sti => Operation::CompareFlags { quiet: false, pop: 1 },
        Fucomi_st0_sti => Operation::CompareFlags { quiet: true, pop: 0 },
        Fucomip_st0_sti => Operation::CompareFlags { quiet: true, pop: 1 },
        Ftst => Operation::Test,
        Fxam => Operation::Examine,
        _ => return None,
    })
}

fn transfer(code: Code) -> Option<Operation> {
    use Code::*;
    use Operation::{Load, LoadConstant, Store, StoreRegister, StoreTruncated};
    Some(match code {
        Fld_sti => Load(Source::Register),
        Fld_m32fp => Load(Source::Memory(Format::Single)),
        Fld_m64fp => Load(Source::Memory(Format::Double)),
        Fld_m80fp => Load(Source::Memory(Format::Extended)),
        Fild_m16int => Load(Source::Memory(Format::Word)),
        Fild_m32int => Load(Source::Memory(Format::Doubleword)),
        Fild_m64int => Load(Source::Memory(Format::Quadword)),
        Fbld_m80bcd => Load(Source::Memory(Format::Decimal)),
        Fld1 => LoadConstant(Constant::One),
        Fldl2t => LoadConstant(Constant::Log2Of10),
        Fldl2e => LoadConstant(Constant::Log2OfE),
        Fldpi => LoadConstant(Constant::Pi),
        Fldlg2 => LoadConstant(Constant::Log10Of2),
        Fldln2 => LoadConstant(Constant::LnOf2),
        Fldz => LoadConstant(Constant::Zero),
        Fst_m32fp => Store(Format::Single, 0),
        Fstp_m32fp => Store(Format::Single, 1),
        Fst_m64fp => Store(Format::Double, 0),
        Fstp_m64fp => Store(Format::Double, 1),
        Fstp_m80fp => Store(Format::Extended, 1),
        Fist_m16int => Store(Format::Word, 0),
        Fistp_m16int => Store(Format::Word, 1),
        Fist_m32int => Store(Format::Doubleword, 0),
        Fistp_m32int => Store(Format::Doubleword, 1),
        Fistp_m64int => Store(Format::Quadword, 1),
        Fbstp_m80bcd => Store(Format::Decimal, 1),
        Fisttp_m16int => StoreTruncated(Format::Word),
        Fisttp_m32int => StoreTruncated(Format::Doubleword),
        Fisttp_m64int => StoreTruncated(Format::Quadword),
        Fst_sti => StoreRegister(0),
        Fstp_sti | Fstp_sti_DFD0 | Fstp_sti_DFD8 => StoreRegister(1),
        Fstpnce_sti => Operation::StoreRegisterQuietly,
        Fxch_st0_sti | Fxch_st0_sti_DDC8 | Fxch_st0_sti_DFC8 => Operation::Exchange,
        Fcmovb_st0_sti => Operation::Move(0x2),
        Fcmovnb_st0_sti => Operation::Move(0x3),
        Fcmove_st0_sti => Operation::Move(0x4),
        Fcmovne_st0_sti => Operation::Move(0x5),
        Fcmovbe_st0_sti => Operation::Move(0x6),
        Fcmovnbe_st0_sti => Operation::Move(0x7),
        Fcmovu_st0_sti => Operation::Move(0xa),
        Fcmovnu_st0_sti => Operation::Move(0xb),
        Ffree_sti => Operation::Free(0),
        Ffreep_sti => Operation::Free(1),
        Fincstp => Operation::Rotate(1),
        Fdecstp => Operation::Rotate(-1),
        _ => return None,
    })
}

fn other(code: Code) -> Option<Operation> {
    use Code::*;
    use Operation::{Apply, Apply2};
    Some(match code {
        Fchs => Apply(Function::ChangeSign),
        Fabs => Apply(Function::Absolute),
        Fsqrt => Apply(Function::SquareRoot),
        Frndint => Apply(Function::Round),
        F2xm1 => Apply(Function::Exponential),
        Fsin => Apply(Function::Sine),
        Fcos => Apply(Function::Cosine),
        Fprem => Apply2(Function2::Remainder),
        Fprem1 => Apply2(Function2::RemainderNearest),
        Fscale => Apply2(Function2::Scale),
        Fpatan => Apply2(Function2::Arctangent),
        Fyl2x => Apply2(Function2::Logarithm),
        Fyl2xp1 => Apply2(Function2::LogarithmPlusOne),
        Fptan => Operation::Tangent,
        Fsincos => Operation::SineCosine,
        Fxtract => Operation::Extract,
        Fnop => Operation::Nop,
        Wait => Operation::Wait,
        Fldcw_m2byte => Operation::LoadControl,
        Fnstcw_m2byte => Operation::StoreControl,
        Fnstsw_m2byte => Operation::StoreStatus,
        Fnstsw_AX => Operation::StoreStatusAx,
        Fnclex => Operation::ClearExceptions,
        Fninit => Operation::Initialise,
        Fneni | Fndisi | Fnsetpm => Operation::Ignored,
        Fldenv_m14byte => Operation::LoadEnvironment(14),
        Fldenv_m28byte => Operation::LoadEnvironment(28),
        Frstor_m94byte => Operation::LoadEnvironment(94),
        Frstor_m108byte => Operation::LoadEnvironment(108),
        Fnstenv_m14byte => Operation::StoreEnvironment(14),
        Fnstenv_m28byte => Operation::StoreEnvironment(28),
        Fnsave_m94byte => Operation::StoreEnvironment(94),
        Fnsave_m108byte => Operation::StoreEnvironment(108),
        Fxrstor_m512byte => Operation::Restore { wide: false },
        Fxrstor64_m512byte => Operation::Restore { wide: true },
        Fxsave_m512byte => Operation::Save { wide: false },
        Fxsave64_m512byte => Operation::Save { wide: true },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use iced_x86::{CpuidFeature, Decoder, DecoderOptions};

    use super::*;

    /// Every instruction of the x87 opcode space that the decoder accepts in 64-bit mode.
    fn decodable() -> Vec<Instruction> {
        let prefixes: [&[u8]; 3] = [&[], &[0x66], &[0x48]];
        let mut found = Vec::new();
        for prefix in prefixes {
            for opcode in 0xd8..=0xdf {
                for modrm in 0..=255 {
                    let bytes = [prefix, &[opcode, modrm], &[0; 8]].concat();
                    found.push(Decoder::new(64, &bytes, DecoderOptions::NONE).decode());
                }
            }
            for modrm in [0x00, 0x08] {
                let bytes = [prefix, &[0x0f, 0xae, modrm], &[0; 8]].concat();
                found.push(Decoder::new(64, &bytes, DecoderOptions::NONE).decode());
            }
        }
        found.retain(|instruction| instruction.code() != Code::INVALID);
        found
    }

    #[test]
    fn every_decodable_form_has_an_operation() {
        for instruction in decodable() {
            let code = instruction.code();
            assert!(Operation::of(code).is_some(), "{code:?} is not known");
        }
    }

    #[test]
    fn every_form_of_the_features_is_known_or_cannot_be_decoded() {
        let features = [CpuidFeature::FPU, CpuidFeature::FPU287, CpuidFeature::FPU387, CpuidFeature::FXSR];
        let decodable: Vec<Code> = decodable().iter().map(Instruction::code).collect();
        for code in Code::values() {
            if code.cpuid_features().iter().any(|feature| features.contains(feature)) {
                assert_eq!(
                    Operation::of(code).is_some(),
                    decodable.contains(&code) || code == Code::Wait,
                    "{code:?}"
                );
            }
        }
    }

    #[test]
    fn the_named_register_is_found_on_either_side() {
        let decode = |bytes: &[u8]| Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        assert_eq!(register_index(&decode(&[0xd8, 0xc3])), 3);
        assert_eq!(register_index(&decode(&[0xdc, 0xc5])), 5);
        assert_eq!(register_index(&decode(&[0xd9, 0xfe])), 0);
    }
}
