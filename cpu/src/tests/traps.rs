//! Exceptions, interrupts, and the ways back.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    Exit,
    testing::{DATA, STACK},
};

const UNMAPPED: u64 = 0x20_0000_0000;

#[test]
fn a_fault_saves_the_instruction_that_raised_it() {
    let code = assemble(|a| {
        a.nop()?;
        a.ud2()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let frame = run_to_handler(&mut cpu, &mut bus);
    let expected = Frame {
        vector: 6,
        code: None,
        rip: CODE + 1,
        cs: KERNEL_CODE.into(),
        rflags: 0x1_0002,
        rsp: STACK,
        ss: KERNEL_DATA.into(),
    };
    assert_eq!(frame, expected);
    // NOP and the handler's HLT; what faults does not retire.
    assert_eq!(cpu.state().retired, 2);
}

#[test]
fn a_fault_in_user_mode_switches_to_the_stack_of_the_tss() {
    let code = assemble(|a| {
        a.mov(rbx, UNMAPPED)?;
        a.mov(dword_ptr(rbx), eax)
    });
    let (mut cpu, mut bus) = user_machine(&code);
    let mut state = cpu.state();
    state.rflags |= 0x200;
    cpu.set_state(state);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code), (14, Some(0b110)));
    assert_eq!((frame.cs, frame.ss, frame.rsp), (USER_CODE.into(), USER_DATA.into(), STACK));
    assert_eq!(frame.rflags & 0x1_0200, 0x1_0200);
    let state = cpu.state();
    assert_eq!(state.cr2, UNMAPPED);
    assert_eq!(state.regs[4], KERNEL_STACK - 48);
    assert_eq!((state.cpl(), state.segments[2].selector, state.rflags & 0x200), (0, 0, 0));
}

#[test]
fn an_interrupt_stack_replaces_the_current_one() {
    let code = assemble(|a| a.ud2());
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke(IDT + 6 * 16, &gate(6, 1, 0x8e).to_le_bytes());
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs[4], IST1 - 40);
}

#[test]
fn the_stack_is_aligned_before_the_frame() {
    let code = assemble(|a| a.ud2());
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let mut state = cpu.state();
    state.regs[4] = STACK - 3;
    cpu.set_state(state);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!(frame.rsp, STACK - 3);
    assert_eq!(cpu.state().regs[4], STACK - 16 - 40);
}

#[test]
fn trap_gates_leave_interrupts_enabled() {
    let code = assemble(|a| {
        a.sti()?;
        a.nop()?;
        a.ud2()
    });
    for (kind, enabled) in [(0x8e, 0), (0x8f, 0x200)] {
        let (mut cpu, mut bus) = machine_with_traps(&code);
        bus.poke(IDT + 6 * 16, &gate(6, 0, kind).to_le_bytes());
        run_to_halt(&mut cpu, &mut bus);
        assert_eq!(cpu.state().rflags & 0x200, enabled);
    }
}

#[test]
fn a_gate_that_is_not_there_raises_np_and_says_which() {
    let code = assemble(|a| a.ud2());
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke(IDT + 6 * 16, &gate(6, 0, 0x0e).to_le_bytes());
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code, frame.rip), (11, Some(6 * 8 + 3), CODE));
}

#[test]
fn a_software_interrupt_returns_behind_itself_and_heeds_the_gate() {
    let code = assemble(|a| a.int(0x80));
    let (mut cpu, mut bus) = user_machine(&code);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code, frame.rip), (13, Some(0x80 * 8 + 2), CODE));

    let (mut cpu, mut bus) = user_machine(&code);
    bus.poke(IDT + 0x80 * 16, &gate(0x80, 0, 0xee).to_le_bytes());
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip, frame.rflags), (0x80, CODE + 2, 2));
}

#[test]
fn a_fault_while_delivering_a_page_fault_is_a_double_fault() {
    let code = assemble(|a| {
        a.mov(rsp, UNMAPPED)?;
        a.mov(rax, qword_ptr(rsp))
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke(IDT + 8 * 16, &gate(8, 1, 0x8e).to_le_bytes());
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code, frame.rsp), (8, Some(0), UNMAPPED));
}

#[test]
fn a_fault_while_delivering_a_double_fault_shuts_down() {
    let code = assemble(|a| {
        a.mov(rsp, UNMAPPED)?;
        a.push(rax)
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    assert_eq!(cpu.run(&mut bus, 100), Exit::Shutdown);
    assert_eq!(cpu.state().rip(), CODE + 10);
}

#[test]
fn a_page_fault_while_delivering_a_benign_exception_is_itself() {
    let code = assemble(|a| {
        a.mov(rsp, UNMAPPED)?;
        a.ud2()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke(IDT + 14 * 16, &gate(14, 1, 0x8e).to_le_bytes());
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code), (14, Some(2)));
}

#[test]
fn loading_a_missing_segment_says_which() {
    let code = assemble(|a| {
        a.mov(eax, u32::from(MISSING_DATA))?;
        a.mov(ds, eax)
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code), (11, Some(MISSING_DATA.into())));
}

#[test]
fn iretq_goes_to_user_mode_and_back_by_syscall() {
    let user = DATA;
    let kernel_entry = DATA + 0x1000;
    let code = assemble(|a| {
        a.push(i32::from(USER_DATA))?;
        a.mov(rax, DATA + 0x8000)?;
        a.push(rax)?;
        a.push(0x246)?;
        a.push(i32::from(USER_CODE))?;
        a.mov(rax, user)?;
        a.push(rax)?;
        a.iretq()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke(user, &assemble_at(user, |a| a.syscall()));
    bus.poke(kernel_entry, &assemble_at(kernel_entry, |a| a.hlt()));
    let mut state = cpu.state();
    state.lstar = kernel_entry;
    state.fmask = 0x200;
    cpu.set_state(state);

    let before = cpu.state().retired;
    assert_eq!(cpu.run(&mut bus, before + 8), Exit::Limit);
    let state = cpu.state();
    assert_eq!((state.cpl(), state.rip(), state.regs[4], state.rflags), (3, user, DATA + 0x8000, 0x246));

    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.cpl(), state.rip()), (0, kernel_entry + 1));
    assert_eq!((state.regs[1], state.regs[11], state.rflags), (user + 2, 0x246, 0x46));
    assert_eq!((state.segments[1].selector, state.segments[2].selector), (0x10, 0x18));
    assert_eq!(state.regs[4], DATA + 0x8000, "SYSCALL leaves RSP");
}

#[test]
fn sysret_goes_to_user_mode() {
    let code = assemble(|a| {
        a.mov(rcx, DATA)?;
        a.mov(r11d, 0x202)?;
        a.sysretq()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let before = cpu.state().retired;
    assert_eq!(cpu.run(&mut bus, before + 3), Exit::Limit);
    let state = cpu.state();
    assert_eq!((state.cpl(), state.rip(), state.rflags), (3, DATA, 0x202));
    assert_eq!((state.segments[1].selector, state.segments[2].selector), (USER_CODE, USER_DATA));
}

#[test]
fn sysret_to_an_address_that_is_not_canonical_faults_in_the_kernel() {
    let code = assemble(|a| {
        a.mov(rcx, 1u64 << 47)?;
        a.sysretq()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code, frame.cs), (13, Some(0), KERNEL_CODE.into()));
}

#[test]
fn iretq_to_the_same_privilege_restores_everything() {
    let target = DATA;
    let code = assemble(|a| {
        a.push(i32::from(KERNEL_DATA))?;
        a.mov(rax, DATA + 0x123)?;
        a.push(rax)?;
        a.push(0x4_0ad7)?;
        a.push(i32::from(KERNEL_CODE))?;
        a.mov(rax, target)?;
        a.push(rax)?;
        a.iretq()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke(target, &[0xf4]);
    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.rip(), state.regs[4], state.rflags), (target + 1, DATA + 0x123, 0x4_0ad7));
}

#[test]
fn interrupts_are_taken_when_enabled_and_not_in_the_shadow() {
    let code = assemble(|a| {
        a.nop()?;
        a.sti()?;
        a.inc(eax)?;
        a.inc(eax)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.interrupts.push(0x41);
    let frame = run_to_handler(&mut cpu, &mut bus);
    // Behind the first INC: the shadow of STI covers one instruction.
    assert_eq!((frame.vector, frame.code, frame.rip, frame.rflags), (0x41, None, CODE + 4, 0x202));
    assert_eq!(cpu.state().regs[0], 1);
}

#[test]
fn sti_hlt_wakes() {
    let code = assemble(|a| {
        a.sti()?;
        a.hlt()?;
        a.ud2()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    assert_eq!(cpu.run(&mut bus, 100), Exit::Halted);
    assert_eq!(cpu.state().retired, 2);
    assert_eq!(cpu.run(&mut bus, 100), Exit::Halted);
    bus.interrupts.push(0x30);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip), (0x30, CODE + 2));
}

#[test]
fn hlt_with_interrupts_off_sleeps_on() {
    let code = assemble(|a| a.hlt());
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.interrupts.push(0x30);
    assert_eq!(cpu.run(&mut bus, 100), Exit::Halted);
    assert_eq!(bus.interrupts, [0x30]);
}

#[test]
fn mov_ss_holds_interrupts_off_for_one_instruction() {
    let code = assemble(|a| {
        a.mov(ecx, 0x202)?;
        a.push(rcx)?;
        a.mov(eax, u32::from(KERNEL_DATA))?;
        a.popfq()?;
        a.mov(ss, eax)?;
        a.inc(ebx)?;
        a.inc(ebx)
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    // Stop behind MOV SS, where the interrupt becomes ready.
    assert_eq!(cpu.run(&mut bus, 5), Exit::Limit);
    assert!(cpu.state().interrupt_shadow);
    bus.interrupts.push(0x50);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, cpu.state().regs[3]), (0x50, 1));
}

#[test]
fn the_trap_flag_raises_db_behind_each_instruction() {
    let code = assemble(|a| {
        a.push(0x102)?;
        a.popfq()?;
        a.nop()?;
        a.nop()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let frame = run_to_handler(&mut cpu, &mut bus);
    let nop = CODE + code.len() as u64 - 2;
    assert_eq!((frame.vector, frame.rip, frame.rflags), (1, nop + 1, 0x102));
    assert_eq!(cpu.state().dr[6] & 1 << 14, 1 << 14);
    assert_eq!(cpu.state().rflags & 0x100, 0);
}

#[test]
fn execution_of_a_page_that_is_not_there_faults_on_the_target() {
    let code = assemble(|a| {
        a.mov(rax, UNMAPPED)?;
        a.jmp(rax)
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code, frame.rip), (14, Some(0b1_0000), UNMAPPED));
    assert_eq!(cpu.state().cr2, UNMAPPED);
}
