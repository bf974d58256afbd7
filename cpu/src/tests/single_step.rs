//! RFLAGS.TF: where #DB comes, and where it does not.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    Exit,
    testing::{DATA, STACK},
};

const TF: u64 = 0x100;
const RF: u64 = 1 << 16;
const BS: u64 = 1 << 14;

fn stepping(code: &[u8]) -> (Cpu<TestBus>, TestBus) {
    let (mut cpu, bus) = machine_with_traps(code);
    let mut state = cpu.state();
    state.rflags |= TF;
    cpu.set_state(state);
    (cpu, bus)
}

/// Handler of #DB that writes the RIP it finds to the list at RDX and returns.
fn listing_handler(bus: &mut TestBus) {
    let at = HANDLERS + 0x3000;
    let handler = assemble_at(at, |a| {
        a.push(rax)?;
        a.mov(rax, qword_ptr(rsp + 8))?;
        a.mov(qword_ptr(rdx), rax)?;
        a.add(rdx, 8)?;
        a.pop(rax)?;
        a.iretq()
    });
    bus.poke(at, &handler);
    let low = bus.peek64(IDT + 16);
    bus.poke64(IDT + 16, low & !0xffff | 0x3000);
}

/// Offsets from [`CODE`] at which #DB was raised up to the end of the code.
fn steps(code: &[u8], prepare: impl FnOnce(&mut Cpu<TestBus>, &mut TestBus)) -> Vec<u64> {
    let list = DATA + 0x8000;
    let (mut cpu, mut bus) = machine_with_traps(&[code, &[0xf4]].concat());
    listing_handler(&mut bus);
    prepare(&mut cpu, &mut bus);
    let mut state = cpu.state();
    state.regs[2] = list;
    cpu.set_state(state);
    let end = CODE + code.len() as u64;
    for until in 1..10_000 {
        let exit = cpu.run(&mut bus, until);
        let state = cpu.state();
        if exit == Exit::Halted || state.rip() == end && state.debug_traps == 0 {
            break;
        }
    }
    let state = cpu.state();
    (list..state.regs[2]).step_by(8).map(|at| bus.peek64(at).wrapping_sub(CODE)).collect()
}

fn with_tf(cpu: &mut Cpu<TestBus>, _: &mut TestBus) {
    let mut state = cpu.state();
    state.rflags |= TF;
    cpu.set_state(state);
}

#[test]
fn each_instruction_is_followed_by_one_trap() {
    let code = assemble(|a| {
        a.nop()?;
        a.mov(eax, 1)?;
        a.nop()
    });
    assert_eq!(steps(&code, with_tf), [1, 6, 7]);
}

#[test]
fn popf_that_sets_the_flag_is_not_stepped_and_one_that_clears_it_is() {
    let code = assemble(|a| {
        a.push(0x102)?;
        a.popfq()?; // at 5
        a.nop()?; // at 6
        a.push(2)?; // at 7
        a.popfq()?; // at 9
        a.nop()
    });
    assert_eq!(steps(&code, |_, _| {}), [7, 9, 10]);
}

#[test]
fn iret_that_sets_the_flag_lets_one_instruction_execute() {
    let code = assemble(|a| {
        let mut next = a.create_label();
        a.mov(rax, rsp)?;
        a.push(i32::from(KERNEL_DATA))?;
        a.push(rax)?;
        a.push(0x102)?;
        a.push(i32::from(KERNEL_CODE))?;
        a.lea(rcx, ptr(next))?;
        a.push(rcx)?;
        a.iretq()?;
        a.set_label(&mut next)?;
        a.nop()?;
        a.nop()
    });
    let nop = code.len() as u64 - 2;
    assert_eq!(steps(&code, |_, _| {}), [nop + 1, nop + 2]);
}

#[test]
fn iret_that_clears_the_flag_is_still_stepped() {
    let code = assemble(|a| {
        let mut next = a.create_label();
        a.mov(rax, rsp)?;
        a.push(i32::from(KERNEL_DATA))?;
        a.push(rax)?;
        a.push(2)?;
        a.push(i32::from(KERNEL_CODE))?;
        a.lea(rcx, ptr(next))?;
        a.push(rcx)?;
        a.iretq()?;
        a.set_label(&mut next)?;
        a.nop()
    });
    let next = code.len() as u64 - 1;
    assert_eq!(steps(&code, with_tf).last(), Some(&next));
}

#[test]
fn mov_ss_is_stepped_together_with_what_follows() {
    let code = assemble(|a| {
        a.mov(ecx, u32::from(KERNEL_DATA))?; // 5 bytes
        a.mov(ss, ecx)?; // at 5
        a.inc(eax)?; // at 7
        a.nop()
    });
    assert_eq!(steps(&code, with_tf), [5, 9, 10]);
}

#[test]
fn of_two_loads_of_ss_only_the_first_is_not_stepped() {
    let code = assemble(|a| {
        a.mov(ecx, u32::from(KERNEL_DATA))?; // 5 bytes
        a.mov(ss, ecx)?;
        a.mov(ss, ecx)?;
        a.nop()
    });
    assert_eq!(steps(&code, with_tf), [5, 9, 10]);
}

#[test]
fn sti_is_stepped() {
    let code = assemble(|a| {
        a.sti()?;
        a.nop()
    });
    assert_eq!(steps(&code, with_tf), [1, 2]);
}

#[test]
fn each_iteration_of_a_repeated_instruction_is_stepped() {
    let code = assemble(|a| {
        a.mov(ecx, 3)?;
        a.mov(edi, DATA as u32)?;
        a.rep().stosb()
    });
    assert_eq!(steps(&code, with_tf), [5, 10, 10, 10, 12]);
    // RF is pushed while more iterations follow.
    let (mut cpu, mut bus) = stepping(&assemble(|a| a.rep().stosb()));
    cpu.set_register(1, 2);
    cpu.set_register(7, DATA);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip, frame.rflags), (1, CODE, 2 | TF | RF));
}

#[test]
fn software_interrupts_are_not_stepped() {
    for code in [&[0xcd, 0x60][..], &[0xcc], &[0xf1]] {
        let (mut cpu, mut bus) = stepping(code);
        let frame = run_to_handler(&mut cpu, &mut bus);
        assert_eq!((frame.rip, frame.rflags & TF), (CODE + code.len() as u64, TF), "{code:x?}");
        assert_eq!((cpu.state().rflags & TF, cpu.state().dr[6] & BS), (0, 0), "{code:x?}");
    }
}

#[test]
fn an_instruction_that_faults_is_not_stepped() {
    let (mut cpu, mut bus) = stepping(&assemble(|a| a.ud2()));
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip, frame.rflags), (6, CODE, 2 | TF | RF));
    assert_eq!(cpu.state().dr[6] & BS, 0);
}

#[test]
fn hlt_is_stepped_and_does_not_sleep() {
    let (mut cpu, mut bus) = stepping(&[0xf4, 0x90]);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip, cpu.state().dr[6] & BS), (1, CODE + 1, BS));
}

#[test]
fn syscall_is_stepped_unless_its_mask_clears_the_flag() {
    for (mask, vector) in [(0, 1), (TF, 0x20)] {
        let (mut cpu, mut bus) = user_machine(&assemble(|a| a.syscall()));
        let mut state = cpu.state();
        state.rflags |= TF;
        state.lstar = HANDLERS + 0x20 * 16;
        state.fmask = mask;
        cpu.set_state(state);
        run_to_halt(&mut cpu, &mut bus);
        assert_eq!(cpu.state().rip(), HANDLERS + vector * 16 + 1, "mask {mask:#x}");
        assert_eq!(cpu.state().regs[11], 2 | TF);
        if vector == 1 {
            assert_eq!(bus.peek64(cpu.state().regs[4]), HANDLERS + 0x20 * 16);
        }
    }
}

#[test]
fn sysret_that_sets_the_flag_traps_before_the_program() {
    let (mut cpu, mut bus) = machine_with_traps(&assemble(|a| a.sysretq()));
    cpu.set_register(1, DATA);
    cpu.set_register(11, 0x302);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip, frame.cs), (1, DATA, USER_CODE.into()));
}

#[test]
fn a_data_breakpoint_and_the_step_are_one_exception() {
    let (mut cpu, mut bus) = stepping(&assemble(|a| a.mov(byte_ptr(rbx), al)));
    let mut state = cpu.state();
    state.regs[3] = DATA;
    state.dr[1] = DATA;
    state.dr[7] |= 0x10_0004;
    cpu.set_state(state);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rsp), (1, STACK));
    assert_eq!(cpu.state().dr[6] & 0x600f, BS | 2);
}

#[test]
fn the_step_comes_before_an_nmi_and_an_interrupt_that_wait() {
    let (mut cpu, mut bus) = stepping(&[0x90, 0x90]);
    let mut state = cpu.state();
    state.rflags |= 0x200;
    cpu.set_state(state);
    assert_eq!(cpu.run(&mut bus, 1), Exit::Limit);
    cpu.request_nmi();
    bus.interrupts.push(0x70);
    // #DB first; the NMI before its handler's first instruction, the interrupt not with IF clear.
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip), (2, HANDLERS + 16));
    assert_eq!(bus.interrupts, [0x70]);
}
