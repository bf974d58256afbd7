//! The specialised handlers of 32-bit code do what the general ones do.

use super::{protected::machine, *};
use crate::testing::{CODE, DATA, STACK};

/// `[ebx + ecx * 4 + 0x10]` with register field `register`.
fn memory(register: u8) -> [u8; 3] {
    [0x44 | register << 3, 0x8b, 0x10]
}

/// Bytes of every specialised form, and of some forms beside them.
fn forms() -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = Vec::new();
    for opcode in (0..0x40).filter(|opcode| opcode & 7 < 4).chain([0x84, 0x85, 0x88, 0x89, 0x8a, 0x8b, 0x8d])
    {
        forms.push([&[opcode][..], &memory(opcode >> 3 & 7)].concat());
        forms.push([&[0x66, opcode][..], &memory(2)].concat());
    }
    for group in 0..8 {
        forms.push([&[0x80][..], &memory(group), &[0x85]].concat());
        forms.push([&[0x81][..], &memory(group), &[0x85, 2, 3, 0x84]].concat());
        forms.push([&[0x83][..], &memory(group), &[0x85]].concat());
        forms.push([&[0x66, 0x81][..], &memory(group), &[0x85, 0x92]].concat());
        forms.push(vec![0x50 | group]);
        forms.push(vec![0x58 | group]);
        forms.push(vec![0x66, 0x50 | group]);
        forms.push([&[0x0f, 0xb6][..], &memory(group)].concat());
        forms.push([&[0x0f, 0xb7][..], &memory(group)].concat());
        forms.push([&[0x0f, 0xbe][..], &memory(group)].concat());
        forms.push([&[0x66, 0x0f, 0xbe][..], &memory(group)].concat());
        forms.push([&[0x0f, 0xbf][..], &memory(group)].concat());
    }
    for group in 0..2 {
        forms.push([&[0xfe][..], &memory(group)].concat());
        forms.push([&[0xff][..], &memory(group)].concat());
        forms.push([&[0x66, 0xff][..], &memory(group)].concat());
        forms.push([&[0xf0, 0xff][..], &memory(group)].concat());
    }
    forms.push([&[0xf6][..], &memory(0), &[0x81]].concat());
    forms.push([&[0xf7][..], &memory(0), &[0x81, 0x80, 0x70, 0x60]].concat());
    forms.push([&[0xc6][..], &memory(0), &[0x81]].concat());
    forms.push([&[0xc7][..], &memory(0), &[0x81, 0x80, 0x70, 0xe0]].concat());
    forms.push([&[0x67, 0x8b][..], &[0x07]].concat());
    forms.push(vec![0xa1, 0x10, 0, 0x30, 0]);
    forms.push(vec![0xa2, 0x10, 0, 0x30, 0]);
    forms.push(vec![0x68, 1, 2, 3, 0x84]);
    forms.push(vec![0x6a, 0x85]);
    forms.push(vec![0xe8, 0xfb, 0xff, 0xff, 0xff]);
    forms.push(vec![0xeb, 0x7f]);
    forms.push(vec![0xe9, 0, 0, 0, 0x80]);
    forms.push(vec![0xc3]);
    for condition in 0..16 {
        forms.push(vec![0x70 | condition, 0x80]);
        forms.push(vec![0x0f, 0x80 | condition, 0, 0, 1, 0]);
    }
    forms
}

/// A sequence of numbers that look random (xorshift, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn specialised_and_general_handlers_agree() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut fast, mut fast_bus) = machine(|a| a.nop());
    let (mut general, mut general_bus) = machine(|a| a.nop());
    general.use_general_handlers();
    for form in forms() {
        for round in 0..40 {
            let mut state = fast.state();
            for number in 0..8 {
                state.regs[number] = numbers.next() & 0xffff_ffff;
            }
            state.regs[BX] = DATA + (numbers.next() & 0x1fff);
            state.regs[CX] = numbers.next() & 0x3ff | if round % 8 == 0 { 1 << 40 } else { 0 };
            state.regs[SP] = STACK + (numbers.next() & 0xfff);
            state.rflags = numbers.next() & 0x8d5 | 2;
            state.regs[REG_RIP] = CODE;
            // Flat with a base, and every now and then not flat at all.
            for segment in [0, 2, 3, 4, 5] {
                state.segments[segment].base = [0, 0x1000, 0xffff_f000][round % 3];
                state.segments[segment].limit = if round % 5 == 0 { 0x31_0000 } else { u32::MAX };
            }
            let contents = numbers.next().to_le_bytes().repeat(0x1000);
            let until = state.retired + 1;
            let outcome = [(&mut fast, &mut fast_bus), (&mut general, &mut general_bus)].map(|(cpu, bus)| {
                bus.poke(CODE, &form);
                cpu.memory_changed(CODE >> 12);
                bus.poke(DATA - 0x1000, &contents);
                bus.poke(STACK - 0x1000, &contents[..0x4000]);
                cpu.set_state(state.clone());
                let exit = cpu.run(bus, until);
                (exit, cpu.state(), bus.peek::<0x8000>(DATA - 0x1000), bus.peek::<0x4000>(STACK - 0x1000))
            });
            let [a, b] = outcome;
            assert_eq!((a.0, &a.1), (b.0, &b.1), "{form:x?}");
            assert!(a.2 == b.2 && a.3 == b.3, "{form:x?}");
        }
    }
}
