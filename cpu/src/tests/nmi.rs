//! Non-maskable interrupts: when they are taken, what holds them off, what lets them in again.

use iced_x86::code_asm::*;

use super::*;
use crate::{Exit, testing::STACK};

/// Handler of vector 2: counts in R15 and returns.
fn counting_handler(bus: &mut TestBus) {
    let at = HANDLERS + 2 * 16;
    let handler = assemble_at(at, |a| {
        a.inc(r15)?;
        a.iretq()
    });
    bus.poke(at, &handler);
}

fn nops_and_halt(count: usize) -> Vec<u8> {
    [vec![0x90; count], vec![0xf4]].concat()
}

#[test]
fn an_nmi_is_taken_before_the_next_instruction_with_interrupts_off() {
    let (mut cpu, mut bus) = machine_with_traps(&nops_and_halt(4));
    assert_eq!(cpu.run(&mut bus, 2), Exit::Limit);
    cpu.request_nmi();
    let frame = run_to_handler(&mut cpu, &mut bus);
    let expected = Frame {
        vector: 2,
        code: None,
        rip: CODE + 2,
        cs: KERNEL_CODE.into(),
        rflags: 2,
        rsp: STACK,
        ss: KERNEL_DATA.into(),
    };
    assert_eq!(frame, expected);
    assert!(cpu.state().nmi_blocked && !cpu.state().nmi_pending);
}

#[test]
fn an_nmi_wakes_a_halted_processor_that_has_interrupts_off() {
    let (mut cpu, mut bus) = machine_with_traps(&[0xf4, 0xf4]);
    counting_handler(&mut bus);
    assert_eq!(cpu.run(&mut bus, 100), Exit::Halted);
    assert_eq!((cpu.run(&mut bus, 100), cpu.state().rip()), (Exit::Halted, CODE + 1));
    cpu.request_nmi();
    assert_eq!((cpu.run(&mut bus, 100), cpu.state().rip()), (Exit::Halted, CODE + 2));
    assert_eq!(cpu.state().regs[15], 1);
}

#[test]
fn one_nmi_waits_while_another_is_handled_and_more_are_lost() {
    let (mut cpu, mut bus) = machine_with_traps(&nops_and_halt(4));
    counting_handler(&mut bus);
    cpu.request_nmi();
    assert_eq!(cpu.run(&mut bus, 1), Exit::Limit);
    assert_eq!(cpu.state().rip(), HANDLERS + 2 * 16 + 3, "in the handler");
    for _ in 0..3 {
        cpu.request_nmi();
    }
    assert_eq!(cpu.run(&mut bus, 2), Exit::Limit);
    let state = cpu.state();
    assert_eq!((state.rip(), state.nmi_pending, state.nmi_blocked), (CODE, true, false), "behind IRET");
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((cpu.state().regs[15], cpu.state().rip()), (2, CODE + 5));
}

#[test]
fn an_iret_that_faults_lets_nmis_in_again() {
    let (mut cpu, mut bus) = machine_with_traps(&nops_and_halt(1));
    // The handler makes its own frame unusable.
    let at = HANDLERS + 2 * 16;
    let handler = assemble_at(at, |a| {
        a.inc(r15)?;
        a.mov(qword_ptr(rsp + 8), 0)?;
        a.iretq()
    });
    bus.poke(at, &handler);
    cpu.request_nmi();
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, cpu.state().regs[15]), (13, 1));
    assert!(!cpu.state().nmi_blocked);
}

#[test]
fn the_shadows_of_sti_and_of_mov_ss_hold_an_nmi_off_for_one_instruction() {
    let sti = assemble(|a| {
        a.sti()?;
        a.inc(eax)?;
        a.inc(eax)
    });
    let mov_ss = assemble(|a| {
        a.mov(ss, ecx)?;
        a.inc(eax)?;
        a.inc(eax)
    });
    for (what, code) in [("STI", sti), ("MOV SS", mov_ss)] {
        let (mut cpu, mut bus) = machine_with_traps(&code);
        cpu.set_register(1, KERNEL_DATA.into());
        assert_eq!(cpu.run(&mut bus, 1), Exit::Limit);
        cpu.request_nmi();
        let frame = run_to_handler(&mut cpu, &mut bus);
        assert_eq!((frame.vector, cpu.state().regs[0]), (2, 1), "{what}");
    }
}

#[test]
fn an_nmi_comes_before_an_external_interrupt_which_then_waits_for_the_flag() {
    let code = assemble(|a| {
        a.sti()?;
        a.nop()?;
        a.nop()?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    counting_handler(&mut bus);
    assert_eq!(cpu.run(&mut bus, 2), Exit::Limit);
    bus.interrupts.push(0x40);
    cpu.request_nmi();
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip, cpu.state().regs[15]), (0x40, CODE + 2, 1));
}

#[test]
fn an_nmi_whose_delivery_faults_stays_blocked() {
    let (mut cpu, mut bus) = machine_with_traps(&nops_and_halt(1));
    bus.poke(IDT + 2 * 16, &gate(2, 0, 0x0e).to_le_bytes());
    cpu.request_nmi();
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code), (11, Some(2 * 8 + 3)));
    assert!(cpu.state().nmi_blocked && !cpu.state().nmi_pending);
}
