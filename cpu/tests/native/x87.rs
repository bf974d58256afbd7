//! Where x87 results may differ between processors.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::case::{Case, Outcome};

const PRECISION: u16 = 1 << 5;
const PENDING: u16 = 1 << 7;
const SUMMARY: u16 = PENDING | 1 << 15;
const C1: u16 = 1 << 9;
/// C0, C2 and C3.
const CONDITIONS: u16 = 1 << 8 | 1 << 10 | 1 << 14;

/// Why this instance of an x87 instruction is not run.
pub fn instance(i: &Instruction, case: &Case) -> Option<&'static str> {
    let exponent = case.fx.st(0) >> 64 & 0x7fff;
    let undefined = match i.mnemonic() {
        Mnemonic::F2xm1 => exponent >= 0x3fff,
        // Short of 1 - sqrt(1/2), the documented limit below zero.
        Mnemonic::Fyl2xp1 => exponent >= 0x3ffd,
        _ => false,
    };
    undefined.then_some("the result is undefined outside of the instruction's range")
}

/// Makes equal in both outcomes what need not be equal.
pub fn forgive(i: &Instruction, case: &Case, host: &mut Outcome, guest: &mut Outcome) {
    use Mnemonic::*;
    let unmasked = host.fx.status() & SUMMARY != 0;
    if unmasked && matches!(i.mnemonic(), Fcomi | Fcomip | Fucomi | Fucomip) {
        // SDM: not set. AMD sets them.
        guest.rflags = host.rflags;
    }
    let ignored = match i.mnemonic() {
        // SDM: cleared. AMD leaves it.
        Fcomi | Fcomip | Fucomi | Fucomip => C1,
        // SDM: not set. AMD sets them.
        Fcom | Fcomp | Fcompp | Fucom | Fucomp | Fucompp | Ficom | Ficomp | Ftst if unmasked => CONDITIONS,
        // Which way an inexact result was rounded, and whether it happens to be exact, follows from its last place.
        Fsin | Fcos | Fsincos | Fptan | Fpatan | F2xm1 | Fyl2x | Fyl2xp1 => {
            forgive_last_place(host, guest);
            forgive_exact(host, guest);
            C1
        }
        _ => 0,
    };
    forgive_pointers(i, case, host, guest);
    for outcome in [host, guest] {
        outcome.fx.set_status(outcome.fx.status() & !ignored);
    }
}

/// AMD keeps the opcode and the pointers of the last instruction only while an exception is pending.
fn forgive_pointers(i: &Instruction, case: &Case, host: &mut Outcome, guest: &mut Outcome) {
    if host.fx.status() & PENDING == 0 {
        for outcome in [&mut *host, &mut *guest] {
            outcome.fx.set_opcode(0);
            outcome.fx.set_pointers(0, 0);
        }
    }
    use Mnemonic as M;
    let fields = match i.mnemonic() {
        M::Fxsave | M::Fxsave64 => 6..24,
        M::Fnstenv | M::Fstenv | M::Fnsave | M::Fsave => match i.memory_size().size() {
            14 | 94 => 6..14,
            _ => 12..28,
        },
        _ => return,
    };
    let Some(address) = address(i, case) else { return };
    let before = case.fx.status() & PENDING != 0;
    let mut ignored: Vec<u64> = if before { Vec::new() } else { fields.collect() };
    if matches!(i.mnemonic(), M::Fxsave | M::Fxsave64) {
        // MXCSR_MASK: AMD has a mode for unaligned operands, bit 17.
        ignored.extend(28..32);
    }
    for n in ignored {
        for outcome in [&mut *host, &mut *guest] {
            if let Some(byte) = outcome.byte(address.wrapping_add(n)) {
                *byte = 0;
            }
        }
    }
}

/// Linear address of the memory operand. Outside of 64-bit mode its low 32 bits count.
pub fn address(i: &Instruction, case: &Case) -> Option<u64> {
    let operand = (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory)?;
    i.virtual_address(operand, 0, |register, _, _| {
        let number = register.number();
        Some(match register {
            _ if register.is_segment_register() => {
                let selector = case.selectors[number];
                match number {
                    4.. if selector == 0 => case.bases[number - 4],
                    _ => super::descriptors::base(selector),
                }
            }
            _ => case.regs[register.full_register().number()],
        })
    })
}

/// Offset of the memory operand in its segment.
pub fn offset(i: &Instruction, case: &Case) -> Option<u64> {
    let operand = (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory)?;
    i.virtual_address(operand, 0, |register, _, _| {
        let is_segment = register.is_segment_register();
        Some(if is_segment { 0 } else { case.regs[register.full_register().number()] })
    })
}

/// Hardware promises transcendental results to one unit in the last place: SDM vol. 1, 8.3.10.
fn forgive_last_place(host: &Outcome, guest: &mut Outcome) {
    for n in 0..2 {
        let (theirs, ours) = (host.fx.st(n), guest.fx.st(n));
        if order(theirs).abs_diff(order(ours)) == 1 {
            guest.fx.set_st(n, theirs);
        }
    }
}

/// The precision exception of a result that is exact: AMD raises it for any logarithm, and for 2 to the power of 1.
fn forgive_exact(host: &Outcome, guest: &mut Outcome) {
    let missing = host.fx.status() & !guest.fx.status();
    if missing & PRECISION != 0 && host.fx.st(0) == guest.fx.st(0) {
        guest.fx.set_status(guest.fx.status() | PRECISION | missing & SUMMARY);
    }
}

/// Magnitude and sign as a number in which neighbours differ by one: the integer bit carries no information.
pub fn order(register: u128) -> u128 {
    let fraction = register & ((1 << 63) - 1);
    register >> 64 << 63 | fraction
}
