//! Limits and rights of segments: the right vector, and nothing done.

use iced_x86::code_asm::*;

use super::{
    protected::{FREE, GDT, machine, run_to_handler},
    *,
};
use crate::testing::{CODE, DATA, STACK};

/// Where the segment under test is based.
const BASE: u64 = DATA;

fn descriptor(limit: u64, rights: u64, flags: u64) -> u64 {
    limit & 0xffff
        | (BASE & 0xff_ffff) << 16
        | rights << 40
        | (limit >> 16 & 0xf) << 48
        | flags << 52
        | (BASE >> 24) << 56
}

const WRITABLE: u64 = 0x93;
const READ_ONLY: u64 = 0x91;
const EXPAND_DOWN: u64 = 0x97;
const EXECUTE_ONLY: u64 = 0x99;
const READABLE_CODE: u64 = 0x9b;
const WIDE: u64 = 4;
const NARROW: u64 = 0;

/// Loads `FREE` into ES, then runs `program`: which exception ends it, with its error code; `None` for HLT.
fn outcome(
    raw: u64,
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> (Option<(u64, u32)>, Cpu<TestBus>, TestBus) {
    let (mut cpu, mut bus) = machine(|a| {
        a.mov(ecx, u32::from(FREE))?;
        a.mov(es, ecx)?;
        program(a)?;
        a.hlt()
    });
    bus.poke64(GDT + u64::from(FREE), raw);
    run_to_halt(&mut cpu, &mut bus);
    if (CODE..CODE + 0x100).contains(&cpu.state().rip()) {
        return (None, cpu, bus);
    }
    let (vector, [code]) = run_to_handler(&mut cpu, &mut bus);
    (Some((vector, code)), cpu, bus)
}

const GP: Option<(u64, u32)> = Some((13, 0));

#[test]
fn stores_stay_within_the_limit() {
    for (offset, expected) in [(0xffc, None), (0xffd, GP), (0x1000, GP), (0xffff_fffe_u32, GP)] {
        let (fault, _, mut bus) = outcome(descriptor(0xfff, WRITABLE, WIDE), |a| {
            a.mov(ebx, offset)?;
            a.mov(dword_ptr(ebx).es(), 0x5555_5555u32)
        });
        assert_eq!(fault, expected, "{offset:#x}");
        let written = bus.peek::<8>(BASE + 0xff8) != [0; 8];
        assert_eq!(written, expected.is_none(), "{offset:#x}");
    }
}

#[test]
fn granular_limits_count_pages() {
    for (offset, expected) in [(0x2fff, None), (0x3000, GP)] {
        let (fault, ..) = outcome(descriptor(2, WRITABLE, WIDE | 8), |a| {
            a.mov(ebx, offset)?;
            a.inc(byte_ptr(ebx).es())
        });
        assert_eq!(fault, expected);
    }
}

#[test]
fn expand_down_segments_are_valid_above_their_limit() {
    let cases = [
        (WIDE, 0xfff, GP),
        (WIDE, 0x1000, None),
        (WIDE, 0x1_0000, None),
        (NARROW, 0x1000, None),
        (NARROW, 0xffff, None),
        (NARROW, 0x1_0000, GP),
    ];
    for (size, offset, expected) in cases {
        let (fault, ..) = outcome(descriptor(0xfff, EXPAND_DOWN, size), |a| {
            a.mov(ebx, offset)?;
            a.mov(byte_ptr(ebx).es(), 1)
        });
        assert_eq!(fault, expected, "{offset:#x}");
    }
}

#[test]
fn types_give_rights() {
    let cases = [
        (WRITABLE, None, None),
        (READ_ONLY, None, GP),
        (READABLE_CODE, None, GP),
        (EXECUTE_ONLY, Some((13, 0x38)), Some((13, 0x38))),
    ];
    for (rights, read, write) in cases {
        let (fault, ..) = outcome(descriptor(0xfff, rights, WIDE), |a| a.mov(eax, dword_ptr(8).es()));
        assert_eq!(fault, read, "{rights:#x}");
        let (fault, _, mut bus) = outcome(descriptor(0xfff, rights, WIDE), |a| a.mov(dword_ptr(8).es(), eax));
        assert_eq!(fault, write, "{rights:#x}");
        if write.is_some() {
            assert_eq!(bus.peek::<4>(BASE + 8), [0; 4]);
        }
        // Comparing is not writing, exchanging is.
        let (fault, ..) = outcome(descriptor(0xfff, rights, WIDE), |a| a.cmp(dword_ptr(8).es(), eax));
        assert_eq!(fault, read, "{rights:#x}");
        let (fault, ..) = outcome(descriptor(0xfff, rights, WIDE), |a| a.xchg(dword_ptr(8).es(), eax));
        assert_eq!(fault, write, "{rights:#x}");
    }
}

#[test]
fn null_selectors_give_nothing() {
    let (fault, ..) = outcome(0, |a| {
        a.xor(eax, eax)?;
        a.mov(es, eax)?;
        a.mov(al, byte_ptr(0).es())
    });
    // The descriptor under test is itself empty: not one for data.
    assert_eq!(fault, Some((13, u32::from(FREE))));
    let (fault, cpu, _) = outcome(descriptor(0xfff, WRITABLE, WIDE), |a| {
        a.xor(eax, eax)?;
        a.mov(es, eax)?;
        a.mov(al, byte_ptr(0).es())
    });
    assert_eq!(fault, GP);
    assert_eq!(cpu.state().segments[0].selector, 0);
}

#[test]
fn pushes_calls_and_enter_stay_within_the_stack() {
    let stack = descriptor(0xfff, WRITABLE, WIDE);
    let programs: [Program; 7] = [
        |a| a.mov(eax, dword_ptr(ebp)),
        |a| a.push(eax),
        |a| a.pushad(),
        |a| a.pushfd(),
        |a| a.push(es),
        |a| a.enter(16, 3),
        |a| a.call(CODE),
    ];
    for program in programs {
        let (mut cpu, mut bus) = machine(|a| {
            program(a)?;
            a.hlt()
        });
        // At CPL 3, so that the handler has a stack of its own.
        bus.poke64(GDT + u64::from(FREE), stack | 0x60 << 40);
        let mut state = cpu.state();
        let data = Segment { selector: 0x23, base: 0, limit: u32::MAX, access: 0xc0f3 };
        state.segments = [data; 6];
        state.segments[1] = Segment { selector: 0x1b, access: 0xc0fb, ..data };
        state.segments[2] = Segment { selector: FREE | 3, base: BASE, limit: 0xfff, access: 0x40f3 };
        state.regs[SP] = 0x1010;
        state.regs[5] = 0x1010;
        cpu.set_state(state);
        let (vector, frame) = run_to_handler::<5>(&mut cpu, &mut bus);
        assert_eq!((vector, frame[0], frame[1], frame[4]), (12, 0, CODE as u32, 0x1010));
        assert_eq!(bus.peek::<64>(BASE + 0xfe0), [0; 64]);
    }
}

#[test]
fn repeated_stores_end_at_the_limit_with_what_was_done() {
    let (fault, cpu, mut bus) = outcome(descriptor(0x1fff, WRITABLE, WIDE), |a| {
        a.mov(edi, 0x1ff8)?;
        a.mov(ecx, 10)?;
        a.mov(eax, 0x77)?;
        a.rep().stosb()
    });
    assert_eq!(fault, GP);
    assert_eq!(registers(&cpu, [CX, 7]), [2, 0x2000]);
    assert_eq!(bus.peek::<10>(BASE + 0x1ff8), [0x77, 0x77, 0x77, 0x77, 0x77, 0x77, 0x77, 0x77, 0, 0]);
}

#[test]
fn bit_strings_are_checked_where_the_bit_is() {
    for (bit, expected) in [(0xff8 * 8, None), (0x1000 * 8, GP), (-1, GP)] {
        let (fault, ..) = outcome(descriptor(0xfff, WRITABLE, WIDE), |a| {
            a.mov(eax, bit)?;
            a.bts(dword_ptr(0).es(), eax)
        });
        assert_eq!(fault, expected, "{bit}");
    }
}

#[test]
fn addresses_only_computed_are_not_checked() {
    let (fault, cpu, _) = outcome(descriptor(0xfff, WRITABLE, WIDE), |a| {
        a.lea(eax, dword_ptr(0x5000).es())?;
        a.nop_1(dword_ptr(0x5000).es())
    });
    assert_eq!((fault, cpu.state().regs[AX]), (None, 0x5000));
}

#[test]
fn jumps_and_calls_beyond_the_code_segment_do_nothing() {
    let programs: [Program; 3] = [
        |a| a.jmp(eax),
        |a| a.call(eax),
        |a| {
            a.push(eax)?;
            a.ret()
        },
    ];
    for (n, program) in programs.into_iter().enumerate() {
        let (mut cpu, mut bus) = machine(|a| {
            program(a)?;
            a.hlt()
        });
        let mut state = cpu.state();
        state.segments[1].limit = CODE as u32 + 0xfff;
        state.regs[AX] = CODE + 0x1000;
        cpu.set_state(state);
        let (vector, frame) = run_to_handler::<2>(&mut cpu, &mut bus);
        let (pushed, before) = if n == 2 { (4, 1) } else { (0, 0) };
        assert_eq!((vector, frame), (13, [0, (CODE + before) as u32]));
        assert_eq!(cpu.state().regs[SP], STACK - 16 - pushed);
    }
}
