//! The general handlers by mnemonic.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::{arithmetic, bits, branch, data, decimal, legacy, stack, string};
use crate::{Bus, op::Handler};

/// The general handler of `i`, if `i` is an instruction of this module. The handler wants `op.full`.
pub(crate) fn general<B: Bus>(i: &Instruction) -> Option<Handler<B>> {
    use Mnemonic::*;
    let handler: Handler<B> = match i.mnemonic() {
        Mov | Movsx | Movsxd | Movzx | Push | Pop if touches_system_register(i) => return None,

        Add | Or | Adc | Sbb | And | Sub | Xor | Cmp => arithmetic::binary,
        Test => arithmetic::test,
        Inc | Dec | Neg | Not => arithmetic::unary,
        Rol | Ror | Rcl | Rcr | Shl | Sal | Shr | Sar => arithmetic::shift,
        Shld | Shrd => arithmetic::double_shift,
        Mul | Imul if i.op_count() == 1 => arithmetic::multiply_accumulator,
        Imul => arithmetic::imul,
        Div | Idiv => arithmetic::divide,
        Xadd => arithmetic::xadd,
        Cmpxchg => arithmetic::cmpxchg,
        Cmpxchg8b => arithmetic::cmpxchg8b,
        Cmpxchg16b => arithmetic::cmpxchg16b,

        Bt | Bts | Btr | Btc => bits::bit_test,
        Bsf | Bsr | Tzcnt | Lzcnt => bits::scan,
        Popcnt => bits::popcnt,
        Bswap => bits::bswap,
        Crc32 => bits::crc32,

        Mov | Movzx => data::mov,
        Movsx | Movsxd => data::movsx,
        Lea => data::lea,
        Xchg => data::xchg,
        Xlatb => data::xlat,
        Cbw | Cwde | Cdqe => data::extend_accumulator,
        Cwd | Cdq | Cqo => data::extend_into_rdx,
        Lahf => data::lahf,
        Sahf => data::sahf,
        Clc | Stc | Cmc | Cld | Std => data::change_flag,
        Seta | Setae | Setb | Setbe | Sete | Setg | Setge | Setl | Setle | Setne | Setno | Setnp | Setns
        | Seto | Setp | Sets => data::setcc,
        Cmova | Cmovae | Cmovb | Cmovbe | Cmove | Cmovg | Cmovge | Cmovl | Cmovle | Cmovne | Cmovno
        | Cmovnp | Cmovns | Cmovo | Cmovp | Cmovs => data::cmovcc,

        Push => stack::push,
        Pop => stack::pop,
        Enter => stack::enter,
        Leave => stack::leave,
        Pusha | Pushad => legacy::push_all,
        Popa | Popad => legacy::pop_all,
        Bound => legacy::bound,
        Arpl => legacy::adjust_privilege,

        Aaa | Aas => decimal::adjust_unpacked,
        Aam => decimal::split,
        Aad => decimal::join,
        Daa | Das => decimal::adjust_packed,
        Salc => decimal::set_al_to_carry,

        Ja | Jae | Jb | Jbe | Je | Jg | Jge | Jl | Jle | Jne | Jno | Jnp | Jns | Jo | Jp | Js => branch::jcc,
        Jcxz | Jecxz | Jrcxz => branch::jump_if_counter_is_0,
        Loop | Loope | Loopne => branch::r#loop,
        Jmp if !is_far(i) => branch::jmp,
        Call if !is_far(i) => branch::call,
        Ret => branch::ret,

        // The mnemonics of two SSE2 instructions are also MOVSD and CMPSD.
        Movsb | Movsw | Movsd | Movsq if i.is_string_instruction() => string::movs,
        Cmpsb | Cmpsw | Cmpsd | Cmpsq if i.is_string_instruction() => string::cmps,
        Stosb | Stosw | Stosd | Stosq => string::stos,
        Lodsb | Lodsw | Lodsd | Lodsq => string::lods,
        Scasb | Scasw | Scasd | Scasq => string::scas,
        _ => return None,
    };
    Some(handler)
}

fn touches_system_register(i: &Instruction) -> bool {
    let special = |r: Register| r.is_segment_register() || r.is_cr() || r.is_dr() || r.is_tr();
    (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && special(i.op_register(n)))
}

fn is_far(i: &Instruction) -> bool {
    i.is_jmp_far() || i.is_jmp_far_indirect() || i.is_call_far() || i.is_call_far_indirect()
}
