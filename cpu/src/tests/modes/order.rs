//! Which of several faults comes first outside of 64-bit mode, and what has been done by then.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    State,
    testing::{DATA, STACK},
    tests::{Frame, GDT, run_to_handler, user_machine},
};

const CODE32: u16 = 0x53;
/// Code that ends at 0xfff.
const SHORT_CODE: u16 = 0x5b;
/// Nothing is mapped here.
const ABSENT: u64 = 0x40_0000;
const ES: usize = 0;
const SS: usize = 2;
const DS: usize = 3;
const AC: u64 = 1 << 18;

/// A writable segment of 4 KiB.
const SHORT: Segment = Segment { selector: 0x23, base: DATA, limit: 0xfff, access: 0x40f3 };
/// An offset behind its end.
const OUTSIDE: i32 = 0x2000;

/// How 32-bit code at CPL 3 ends, and what it leaves.
fn fault(prepare: impl FnOnce(&mut State), program: Program) -> (Frame, State) {
    let (mut cpu, mut bus) = user_machine(&[]);
    bus.poke(DATA + 0x8000, &assemble(32, DATA + 0x8000, program));
    bus.poke64(GDT + 0x50, 0x00cf_fb00_0000_ffff);
    bus.poke64(GDT + 0x58, 0x0040_fb00_0000_0fff);
    bus.poke64(0x3000 + (ABSENT >> 21) * 8, 0);
    let mut state = cpu.state();
    state.gdtr.limit = 0xff;
    state.cr0 |= 1 << 18;
    state.segments[1] = Segment { selector: CODE32, base: 0, limit: u32::MAX, access: 0xc0fb };
    state.regs[REG_RIP] = DATA + 0x8000;
    state.regs[SP] = STACK;
    prepare(&mut state);
    cpu.set_state(state);
    let frame = run_to_handler(&mut cpu, &mut bus);
    (frame, cpu.state())
}

#[test]
fn movs_reads_before_it_looks_at_its_destination() {
    for (from, vector) in [(ABSENT, 14), (DATA, 13)] {
        let prepare = |state: &mut State| {
            state.segments[ES] = SHORT;
            (state.regs[6], state.regs[7]) = (from, OUTSIDE as u64);
        };
        let (frame, state) = fault(prepare, |a| a.movsd());
        assert_eq!(frame.vector, vector);
        assert_eq!((state.regs[6], state.regs[7]), (from, OUTSIDE as u64));
    }
}

#[test]
fn cmps_reads_its_second_operand_first() {
    let prepare = |state: &mut State| {
        state.segments[DS] = SHORT;
        (state.regs[6], state.regs[7]) = (OUTSIDE as u64, ABSENT);
    };
    let (frame, state) = fault(prepare, |a| a.cmpsb());
    assert_eq!((frame.vector, state.cr2), (14, ABSENT));
}

#[test]
fn pop_reads_the_stack_before_it_looks_at_its_destination() {
    let program: Program = |a| a.pop(dword_ptr(OUTSIDE).es());
    for (pointer, vector) in [(OUTSIDE as u64, 12), (0x800, 13)] {
        let prepare = |state: &mut State| {
            (state.segments[ES], state.segments[SS]) = (SHORT, SHORT);
            state.regs[SP] = pointer;
        };
        let (frame, _) = fault(prepare, program);
        assert_eq!((frame.vector, frame.code, frame.rsp), (vector, Some(0), pointer));
    }
}

#[test]
fn privileged_instructions_are_refused_whatever_their_operand() {
    let programs: [Program; 5] = [
        |a| a.lgdt(ptr(ebp)),
        |a| a.lidt(ptr(ebp)),
        |a| a.lldt(word_ptr(ebp)),
        |a| a.ltr(word_ptr(ebp)),
        |a| a.lmsw(word_ptr(ebp)),
    ];
    for program in programs {
        let prepare = |state: &mut State| {
            state.segments[SS] = SHORT;
            state.regs[5] = OUTSIDE as u64;
        };
        let (frame, _) = fault(prepare, program);
        assert_eq!((frame.vector, frame.code), (13, Some(0)));
    }
}

#[test]
fn x87_exceptions_that_wait_come_before_the_limit() {
    let programs: [Program; 3] = [
        |a| a.fld(dword_ptr(OUTSIDE).es()),
        |a| a.paddb(mm0, qword_ptr(OUTSIDE).es()),
        |a| a.fnstcw(word_ptr(OUTSIDE).es()), // does not wait
    ];
    for (program, vector) in programs.into_iter().zip([16, 16, 13]) {
        let prepare = |state: &mut State| {
            state.segments[ES] = SHORT;
            (state.x87.control, state.x87.status) = (0x37e, 0x8081);
        };
        assert_eq!(fault(prepare, program).0.vector, vector);
    }
}

#[test]
fn maskmovq_has_entered_mmx_state_when_it_is_refused() {
    let prepare = |state: &mut State| {
        state.segments[DS] = SHORT;
        state.regs[7] = OUTSIDE as u64;
        (state.x87.status, state.x87.tags) = (5 << 11, 0);
    };
    let (frame, state) = fault(prepare, |a| a.maskmovq(mm0, mm1));
    assert_eq!((frame.vector, state.x87.status, state.x87.tags), (13, 0, 0xff));
}

#[test]
fn far_calls_look_for_room_before_they_look_at_the_target() {
    for (pointer, vector) in [(4, 12), (0x800, 13)] {
        let prepare = |state: &mut State| {
            state.segments[SS] = SHORT;
            state.regs[SP] = pointer;
        };
        let program: Program = |a| a.db(&[0x9a, 0x00, 0x20, 0, 0, SHORT_CODE as u8, 0]);
        let (frame, _) = fault(prepare, program);
        assert_eq!((frame.vector, frame.code, frame.rsp), (vector, Some(0), pointer));
    }
}

#[test]
fn each_limit_of_bound_is_aligned_on_its_own() {
    // The index lies outside.
    for (at, vector) in [(DATA + 4, 5), (DATA + 6, 17)] {
        let prepare = |state: &mut State| {
            state.rflags |= AC;
            (state.regs[AX], state.regs[BX]) = (1, at);
        };
        assert_eq!(fault(prepare, |a| a.bound(eax, dword_ptr(ebx))).0.vector, vector);
    }
}

#[test]
fn enter_keeps_all_of_esp_as_the_frame_of_a_16_bit_stack() {
    let prepare = |state: &mut State| {
        state.segments[SS] = Segment { limit: 0xffff, access: 0x00f3, ..SHORT };
        state.regs[SP] = 0x1234_7000;
    };
    let (frame, state) = fault(prepare, |a| {
        a.enter(0x10, 0)?;
        a.ud2()
    });
    assert_eq!((frame.vector, state.regs[5], frame.rsp), (6, 0x1234_6ffc, 0x1234_6fec));
}
