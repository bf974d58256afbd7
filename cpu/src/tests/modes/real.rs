//! Real mode: segments, the vector table, limits.

use iced_x86::code_asm::*;

use super::*;
use crate::Exit;

const IF: u64 = 1 << 9;
const TF: u64 = 1 << 8;

#[test]
fn a_segment_begins_at_sixteen_times_its_selector() {
    let (cpu, mut bus) = run_real(|a| {
        a.mov(ax, 0x2345)?;
        a.mov(ds, ax)?;
        a.mov(word_ptr(0x10), 0xbeefu32)?;
        a.mov(bx, word_ptr(0x10))?;
        a.hlt()
    });
    assert_eq!(bus.peek::<2>(0x2_3460), [0xef, 0xbe]);
    assert_eq!(registers(&cpu, [BX]), [0xbeef]);
    let data = cpu.state().segments[3];
    assert_eq!((data.selector, data.base, data.limit), (0x2345, 0x2_3450, 0xffff));
}

#[test]
fn writes_through_cs_are_allowed() {
    let (_, mut bus) = run_real(|a| {
        a.mov(byte_ptr(0x200).cs(), 7)?;
        a.hlt()
    });
    assert_eq!(bus.peek::<1>(REAL_CODE + 0x200), [7]);
}

#[test]
fn a_high_selector_reaches_above_1_mib() {
    let (_, mut bus) = run_real(|a| {
        a.mov(ax, 0xffff)?;
        a.mov(ds, ax)?;
        a.mov(byte_ptr(0x1000), 9)?;
        a.hlt()
    });
    assert_eq!(bus.peek::<1>(0x10_0ff0), [9], "A20 is not masked");
}

#[test]
fn a_software_interrupt_goes_through_the_vector_table_and_iret_comes_back() {
    let (mut cpu, mut bus) = real_machine(&assemble(16, 0, |a| {
        a.sti()?;
        a.mov(ax, 1)?;
        a.int(0x21)?;
        a.add(ax, 0x100)?;
        a.hlt()
    }));
    set_vector(&mut bus, 0x21, 0x400);
    bus.poke(
        REAL_CODE + 0x400,
        &assemble(16, 0x400, |a| {
            a.pushf()?;
            a.pop(bx)?;
            a.inc(ax)?;
            a.iret()
        }),
    );
    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.regs[AX], state.regs[SP]), (0x102, REAL_STACK));
    assert_eq!(state.regs[BX] & IF, 0, "the handler runs with interrupts off");
    assert_eq!(state.rflags & IF, IF, "IRET restores the flag");
    assert_eq!(state.segments[1].selector, REAL_SEGMENT);
    let [offset, selector] = [REAL_STACK - 6, REAL_STACK - 4].map(|at| u16::from_le_bytes(bus.peek(at)));
    assert_eq!((offset, selector), (6, REAL_SEGMENT));
}

#[test]
fn external_interrupts_and_single_steps_come_in_real_mode_too() {
    let (mut cpu, mut bus) = real_machine(&assemble(16, 0, |a| {
        a.sti()?;
        a.nop()?;
        a.nop()?;
        // A HLT that is stepped does not sleep.
        a.push(0x202)?;
        a.popf()?;
        a.hlt()
    }));
    set_vector(&mut bus, 0x40, 0x400);
    set_vector(&mut bus, 1, 0x500);
    bus.poke(REAL_CODE + 0x400, &[0x43, 0xcf]); // inc bx; iret
    bus.poke(REAL_CODE + 0x500, &[0x41, 0xcf]); // inc cx; iret
    bus.interrupts = vec![0x40];
    let mut state = cpu.state();
    state.rflags |= TF;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(registers(&cpu, [BX]), [1]);
    assert!(cpu.state().regs[CX] >= 3);
}

#[test]
fn exceptions_push_no_error_code() {
    // A word at the last byte of the segment does not fit.
    let (mut cpu, mut bus) = real_machine(&assemble(16, 0, |a| {
        a.mov(word_ptr(0xffff), 0x1234u32)?;
        a.hlt()
    }));
    set_vector(&mut bus, 13, 0x400);
    bus.poke(REAL_CODE + 0x400, &[0xf4]);
    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.rip(), state.regs[SP]), (0x401, REAL_STACK - 6));
    assert_eq!(bus.peek::<2>(REAL_STACK - 6), [0, 0], "the instruction that faulted");
    assert_eq!(bus.peek::<2>(0x2_ffff), [0, 0], "nothing was written");
}

#[test]
fn the_stack_pointer_wraps_at_64_kib_and_the_rest_of_esp_stays() {
    let (mut cpu, mut bus) = real_machine(&assemble(16, 0, |a| {
        a.push(ax)?;
        a.pop(bx)?;
        a.hlt()
    }));
    let mut state = cpu.state();
    state.regs[SP] = 0x5555_0000;
    state.regs[AX] = 0x1234;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(registers(&cpu, [BX, SP]), [0x1234, 0x5555_0000]);
    assert_eq!(bus.peek::<2>(0xfffe), [0x34, 0x12]);
}

#[test]
fn a_push_that_reaches_over_the_end_of_the_segment_is_a_stack_fault() {
    let (mut cpu, mut bus) = real_machine(&[0x66, 0x50, 0xf4]); // push eax
    set_vector(&mut bus, 12, 0x400);
    // The handler's frame would not fit either: shutdown.
    let mut state = cpu.state();
    state.regs[SP] = 1;
    cpu.set_state(state);
    assert_eq!(cpu.run(&mut bus, 100), Exit::Shutdown);
    assert_eq!(cpu.state().regs[SP], 1);
}

#[test]
fn execution_beyond_the_limit_of_the_code_segment_faults() {
    let (mut cpu, mut bus) = real_machine(&[]);
    bus.poke(REAL_CODE + 0xfffd, &[0x40, 0x40, 0x40, 0x40]); // inc ax
    set_vector(&mut bus, 13, 0x400);
    bus.poke(REAL_CODE + 0x400, &[0xf4]);
    let mut state = cpu.state();
    state.regs[REG_RIP] = 0xfffd;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(registers(&cpu, [AX]), [3]);
    assert_eq!(cpu.state().rip(), 0x401);
}

#[test]
fn far_calls_and_returns_change_the_segment() {
    let (cpu, _) = run_real(|a| {
        let mut over = a.create_label();
        a.jmp(over)?; // 2 bytes
        a.inc(cx)?; // at 2, also at 0x0ff0:0x102
        a.mov(dx, cs)?;
        a.retf_1(4)?;
        a.set_label(&mut over)?;
        a.push(5)?;
        a.push(6)?;
        a.db(&[0x9a, 0x02, 0x01, 0xf0, 0x0f])?; // call 0x0ff0:0x102
        a.mov(bx, cs)?;
        a.hlt()
    });
    assert_eq!(registers(&cpu, [CX, DX, BX, SP]), [1, 0x5_0ff0, u64::from(REAL_SEGMENT), REAL_STACK]);
}

#[test]
fn repeated_strings_wrap_their_offsets() {
    let (mut cpu, mut bus) = real_machine(&[0xf3, 0xaa, 0xf4]); // rep stosb
    let mut state = cpu.state();
    state.regs[7] = 0xffff_fffe;
    state.regs[CX] = 0x7777_0004;
    state.regs[AX] = 0x5a;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((bus.peek::<2>(0x2_fffe), bus.peek::<3>(0x2_0000)), ([0x5a; 2], [0x5a, 0x5a, 0]));
    assert_eq!(registers(&cpu, [7, CX]), [0xffff_0002, 0x7777_0000]);
}

#[test]
fn descriptors_do_not_exist_in_real_mode() {
    for code in [&[0x0f, 0x00, 0xc0][..], &[0x0f, 0x02, 0xc0], &[0x0f, 0x00, 0xd8]] {
        let (mut cpu, mut bus) = real_machine(code); // sldt, lar, ltr
        set_vector(&mut bus, 6, 0x400);
        bus.poke(REAL_CODE + 0x400, &[0xf4]);
        run_to_halt(&mut cpu, &mut bus);
        assert_eq!(cpu.state().rip(), 0x401);
    }
}
