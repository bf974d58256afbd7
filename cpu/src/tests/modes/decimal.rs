//! Decimal arithmetic against decimal arithmetic.

use super::*;
use crate::testing::CODE;

const CF: u64 = 1;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const PF: u64 = 1 << 2;

/// Executes one instruction with AX and flags; what they are afterwards.
struct Machine(Cpu<TestBus>, TestBus);

impl Machine {
    fn new(code: &[u8]) -> Machine {
        let (cpu, mut bus) = super::protected::machine(|a| a.nop());
        bus.poke(CODE, code);
        Machine(cpu, bus)
    }

    fn run(&mut self, ax: u64, flags: u64) -> (u64, u64) {
        let mut state = self.0.state();
        state.regs[AX] = ax;
        state.rflags = flags | 2;
        state.regs[REG_RIP] = CODE;
        let until = state.retired + 1;
        self.0.set_state(state);
        self.0.run(&mut self.1, until);
        assert_eq!(self.0.state().retired, until);
        (self.0.state().regs[AX], self.0.state().rflags & (CF | AF | ZF | SF | PF))
    }
}

fn packed(n: u64) -> u64 {
    (n / 10 % 10) << 4 | (n % 10)
}

fn of_result(al: u64) -> u64 {
    let parity = if (al as u8).count_ones().is_multiple_of(2) { PF } else { 0 };
    let zero = if al == 0 { ZF } else { 0 };
    parity | zero | al & SF
}

#[test]
fn daa_and_das_make_sums_and_differences_decimal() {
    let (mut daa, mut das) = (Machine::new(&[0x27]), Machine::new(&[0x2f]));
    for a in 0..100 {
        for b in 0..100 {
            let sum = packed(a) + packed(b);
            let half = if (packed(a) & 15) + (packed(b) & 15) > 15 { AF } else { 0 };
            let (al, flags) = daa.run(sum & 0xff, half | sum >> 8);
            assert_eq!((al, flags & CF), (packed(a + b), u64::from(a + b > 99)), "{a} + {b}");
            assert_eq!(flags & (ZF | SF | PF), of_result(al));

            let difference = packed(a).wrapping_sub(packed(b));
            let half = if packed(a) & 15 < packed(b) & 15 { AF } else { 0 };
            let (al, flags) = das.run(difference & 0xff, half | u64::from(a < b));
            assert_eq!((al, flags & CF), (packed(100 + a - b), u64::from(a < b)), "{a} - {b}");
            assert_eq!(flags & (ZF | SF | PF), of_result(al));
        }
    }
}

#[test]
fn aaa_and_aas_carry_into_ah() {
    let (mut aaa, mut aas) = (Machine::new(&[0x37]), Machine::new(&[0x3f]));
    for a in 0..10 {
        for b in 0..10 {
            let sum: u64 = a + b;
            let half = if sum > 15 { AF } else { 0 };
            let carry = sum > 9;
            let (ax, flags) = aaa.run(0x300 | sum, half);
            assert_eq!(ax, (3 + u64::from(carry)) << 8 | (sum % 10));
            assert_eq!(flags & (CF | AF), if carry { CF | AF } else { 0 });

            let borrow = a < b;
            let half = if borrow { AF } else { 0 };
            // The borrow of the subtraction of bytes stays in AL.
            let (ax, flags) = aas.run(0x300 | a.wrapping_sub(b) & 0xff, half);
            let digit = if borrow { a + 10 - b } else { a - b };
            assert_eq!(ax & 0xff, digit);
            assert_eq!(flags & (CF | AF), if borrow { CF | AF } else { 0 });
        }
    }
    // AAS subtracts 6 from all of AX and 1 more from AH: SDM vol. 2.
    assert_eq!(aas.run(0x3ff, AF).0, 0x209);
    assert_eq!(aas.run(0x302, AF).0, 0x10c);
}

#[test]
fn aam_and_aad_are_division_and_multiplication() {
    for base in [10, 7, 16, 255] {
        let (mut aam, mut aad) = (Machine::new(&[0xd4, base]), Machine::new(&[0xd5, base]));
        let base = u64::from(base);
        for al in 0..256 {
            let (ax, flags) = aam.run(0x5500 | al, 0);
            assert_eq!(ax, (al / base) << 8 | (al % base));
            assert_eq!(flags & (ZF | SF | PF), of_result(al % base));
            let (ax, flags) = aad.run(0x300 | al, 0);
            assert_eq!(ax, (al + 3 * base) & 0xff);
            assert_eq!(flags & (ZF | SF | PF), of_result(ax));
        }
    }
}

#[test]
fn aam_by_0_is_a_division_error() {
    let (mut cpu, mut bus) = super::protected::machine(|a| a.nop());
    bus.poke(CODE, &[0xd4, 0]);
    let (vector, _) = super::protected::run_to_handler::<1>(&mut cpu, &mut bus);
    assert_eq!(vector, 0);
}
