//! DR0 to DR3: what triggers them, when #DB comes, what DR6 and RF say.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    Exit,
    testing::{DATA, PMEM, STACK},
};

const RF: u64 = 1 << 16;
const DE: u64 = 1 << 3;
const DR6_CLEAR: u64 = 0xffff_0ff0;
const BD: u64 = 1 << 13;
const GD: u64 = 1 << 13;

const EXECUTE: u64 = 0;
const WRITE: u64 = 1;
const PORT: u64 = 2;
const READ_WRITE: u64 = 3;

/// Lets breakpoint `n` be enabled for its task.
fn set_breakpoint(cpu: &mut Cpu<TestBus>, n: usize, address: u64, condition: u64, len: u64) {
    let len = [0, 0, 1, 0, 3, 0, 0, 0, 2][len as usize];
    let mut state = cpu.state();
    state.dr[n] = address;
    state.dr[7] |= 1 << (2 * n) | condition << (16 + 4 * n) | len << (18 + 4 * n);
    cpu.set_state(state);
}

/// Handler of #DB that counts in R15, keeps DR6 in R14 and returns with RF set.
fn resuming_handler(bus: &mut TestBus) {
    let at = HANDLERS + 0x3000;
    let handler = assemble_at(at, |a| {
        a.inc(r15)?;
        a.mov(r14, dr6)?;
        a.or(dword_ptr(rsp + 16), 0x1_0000)?;
        a.iretq()
    });
    bus.poke(at, &handler);
    let low = bus.peek64(IDT + 16);
    bus.poke64(IDT + 16, low & !0xffff | 0x3000);
}

fn debug_frame(cpu: &mut Cpu<TestBus>, bus: &mut TestBus) -> Frame {
    let frame = run_to_handler(cpu, bus);
    assert_eq!(frame.vector, 1, "{frame:x?}");
    frame
}

fn triggered(cpu: &Cpu<TestBus>) -> u64 {
    cpu.state().dr[6] ^ DR6_CLEAR
}

#[test]
fn an_instruction_breakpoint_faults_before_its_instruction() {
    let code = assemble(|a| {
        a.inc(eax)?;
        a.inc(eax)?;
        a.inc(eax)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    set_breakpoint(&mut cpu, 2, CODE + 2, EXECUTE, 1);
    let frame = debug_frame(&mut cpu, &mut bus);
    assert_eq!((frame.rip, frame.rflags & RF), (CODE + 2, 0));
    assert_eq!((cpu.state().regs[0], triggered(&cpu)), (1, 4));
}

#[test]
fn rf_in_the_returned_flags_lets_the_instruction_execute_once() {
    let code = assemble(|a| {
        let mut again = a.create_label();
        a.mov(ecx, 5)?;
        a.set_label(&mut again)?;
        a.inc(eax)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    resuming_handler(&mut bus);
    // The block is known when the breakpoint comes.
    assert_eq!(cpu.run(&mut bus, 7), Exit::Limit);
    set_breakpoint(&mut cpu, 0, CODE + 5, EXECUTE, 1);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((cpu.state().regs[0], cpu.state().regs[15], cpu.state().rflags & RF), (5, 3, 0));
}

#[test]
fn a_breakpoint_behind_a_probe_and_at_the_target_of_a_jump_counts_once() {
    let code = assemble(|a| {
        let mut target = a.create_label();
        a.jmp(target)?;
        a.nop()?;
        a.set_label(&mut target)?;
        a.inc(eax)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    resuming_handler(&mut bus);
    set_breakpoint(&mut cpu, 0, CODE + 3, EXECUTE, 1);
    cpu.set_probes(&[CODE + 3]);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((cpu.state().regs[15], bus.told.len()), (1, 1));
}

#[test]
fn the_program_itself_sets_a_breakpoint_on_what_follows() {
    let code = assemble(|a| {
        let mut next = a.create_label();
        a.lea(rax, ptr(next))?;
        a.mov(dr1, rax)?;
        a.mov(eax, 0x404)?;
        a.mov(dr7, rax)?;
        a.set_label(&mut next)?;
        a.nop()?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let frame = debug_frame(&mut cpu, &mut bus);
    assert_eq!((frame.rip, triggered(&cpu)), (CODE + code.len() as u64 - 2, 2));
}

#[test]
fn disabled_and_reserved_breakpoints_trigger_nothing() {
    let code = assemble(|a| {
        a.mov(rbx, DATA)?;
        a.mov(qword_ptr(rbx), rax)?;
        a.mov(rax, qword_ptr(rbx))?;
        a.out(0x30, al)?;
        a.hlt()
    });
    // LEN 4, every condition, but not enabled; then enabled for ports without CR4.DE.
    for control in [0xcccc_0400, 0xdddd_0400, 0xeeee_0400, 0xffff_0400, 0xeeee_04ff] {
        let (mut cpu, mut bus) = machine_with_traps(&code);
        let mut state = cpu.state();
        state.dr = [DATA, CODE + 10, 0x30, DATA, 0, 0, DR6_CLEAR, control];
        cpu.set_state(state);
        run_to_halt(&mut cpu, &mut bus);
        assert_eq!(cpu.state().rip(), CODE + code.len() as u64, "{control:#x}");
    }
}

#[test]
fn data_breakpoints_trap_behind_the_access() {
    type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let load: Program = |a| a.mov(eax, dword_ptr(rbx));
    let store: Program = |a| a.mov(dword_ptr(rbx), eax);
    let add: Program = |a| a.add(dword_ptr(rbx), ecx);
    let cases: [(Program, u64, bool); 6] = [
        (load, WRITE, false),
        (load, READ_WRITE, true),
        (store, WRITE, true),
        (store, READ_WRITE, true),
        (add, WRITE, true),
        // A comparison that fails stores what was there.
        (|a| a.lock().cmpxchg(dword_ptr(rbx), ecx), WRITE, true),
    ];
    for (n, (access, condition, hits)) in cases.into_iter().enumerate() {
        let code = assemble(|a| {
            a.mov(rbx, DATA)?;
            a.mov(eax, 7)?;
            a.nop()?;
            access(a)?;
            a.nop()?;
            a.hlt()
        });
        let end = CODE + code.len() as u64;
        for memory in [DATA, PMEM] {
            let (mut cpu, mut bus) = machine_with_traps(&code);
            let at = CODE + 2;
            bus.poke64(at, memory);
            set_breakpoint(&mut cpu, 3, memory, condition, 4);
            run_to_halt(&mut cpu, &mut bus);
            let expected = if hits { HANDLERS + 17 } else { end };
            assert_eq!(cpu.state().rip(), expected, "case {n}");
            if hits {
                assert_eq!((bus.peek64(cpu.state().regs[4]), triggered(&cpu)), (end - 2, 8));
            }
        }
    }
}

#[test]
fn lengths_and_overlaps_decide() {
    let store = assemble(|a| {
        a.mov(word_ptr(rbx), ax)?;
        a.hlt()
    });
    // (address, length) of the breakpoint, address of two bytes stored, whether that triggers.
    let cases = [
        (DATA, 1, DATA, true),
        (DATA, 1, DATA - 1, true),
        (DATA, 1, DATA + 1, false),
        (DATA, 1, DATA - 2, false),
        (DATA, 2, DATA + 1, true),
        (DATA, 2, DATA + 2, false),
        (DATA + 1, 2, DATA - 1, true), // low bits of the address do not count
        (DATA, 4, DATA + 3, true),
        (DATA, 4, DATA + 4, false),
        (DATA, 8, DATA + 7, true),
        (DATA, 8, DATA + 8, false),
        (DATA, 8, DATA - 2, false),
        (DATA + 0x1000, 1, DATA + 0xfff, true), // across pages
        (DATA + 0xff8, 8, DATA + 0xfff, true),
    ];
    for (at, len, stored, hits) in cases {
        let (mut cpu, mut bus) = machine_with_traps(&store);
        cpu.set_register(3, stored);
        set_breakpoint(&mut cpu, 0, at, WRITE, len);
        run_to_halt(&mut cpu, &mut bus);
        assert_eq!(cpu.state().rip() > HANDLERS, hits, "{at:#x} {len} {stored:#x}");
    }
}

#[test]
fn other_data_of_a_watched_page_and_the_page_after_disabling_are_left_alone() {
    let code = assemble(|a| {
        let mut again = a.create_label();
        a.mov(rbx, DATA)?;
        a.mov(ecx, 50)?;
        a.set_label(&mut again)?;
        a.inc(qword_ptr(rbx + 8))?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.mov(eax, 0x400)?;
        a.mov(dr7, rax)?;
        a.inc(qword_ptr(rbx))?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    set_breakpoint(&mut cpu, 0, DATA, READ_WRITE, 8);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((bus.peek64(DATA + 8), bus.peek64(DATA), cpu.state().rip() < HANDLERS), (50, 1, true));
}

#[test]
fn a_repeated_store_traps_between_iterations_with_rf_pushed() {
    let code = assemble(|a| {
        a.mov(rdi, DATA)?;
        a.mov(ecx, 10)?;
        a.rep().stosb()?;
        a.hlt()
    });
    let rep = CODE + code.len() as u64 - 3;
    let (mut cpu, mut bus) = machine_with_traps(&code);
    set_breakpoint(&mut cpu, 0, DATA + 4, WRITE, 1);
    let frame = debug_frame(&mut cpu, &mut bus);
    assert_eq!((frame.rip, frame.rflags & RF, cpu.state().regs[1]), (rep, RF, 5));
    // Behind the last iteration it is a trap as any other.
    let (mut cpu, mut bus) = machine_with_traps(&code);
    set_breakpoint(&mut cpu, 0, DATA + 9, WRITE, 1);
    let frame = debug_frame(&mut cpu, &mut bus);
    assert_eq!((frame.rip, frame.rflags & RF, cpu.state().regs[1]), (rep + 2, 0, 0));
}

#[test]
fn an_instruction_breakpoint_on_a_repeated_instruction_counts_once() {
    let code = assemble(|a| {
        a.mov(rdi, DATA)?;
        a.mov(ecx, 3000)?;
        a.rep().stosb()?;
        a.hlt()
    });
    let rep = CODE + code.len() as u64 - 3;
    let (mut cpu, mut bus) = machine_with_traps(&code);
    resuming_handler(&mut bus);
    set_breakpoint(&mut cpu, 0, rep, EXECUTE, 1);
    for until in (0..4000).step_by(100) {
        cpu.run(&mut bus, until);
    }
    let state = cpu.state();
    assert_eq!((state.regs[1], state.regs[15], state.rip()), (0, 1, rep + 3));
    assert_eq!(state.retired, 2 + 4 + 3000 + 1);
}

#[test]
fn an_access_that_faults_triggers_nothing() {
    // Reads what is watched, then faults on the store.
    let code = assemble(|a| {
        a.mov(rsi, DATA)?;
        a.mov(rdi, 0x20_0000_0000u64)?;
        a.movsb()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    set_breakpoint(&mut cpu, 0, DATA, READ_WRITE, 1);
    assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 14);
    assert_eq!(triggered(&cpu), 0);
}

#[test]
fn port_breakpoints_trap_with_debug_extensions() {
    let code = assemble(|a| {
        a.out(0x31, al)?;
        a.in_(ax, 0x2f)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let mut state = cpu.state();
    state.cr4 |= DE;
    cpu.set_state(state);
    set_breakpoint(&mut cpu, 1, 0x30, PORT, 1);
    let frame = debug_frame(&mut cpu, &mut bus);
    assert_eq!((frame.rip, triggered(&cpu)), (CODE + 5, 2));

    let code = assemble(|a| {
        a.mov(edi, DATA as u32)?;
        a.mov(ecx, 3)?;
        a.mov(edx, 0x30)?;
        a.rep().insb()?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let mut state = cpu.state();
    state.cr4 |= DE;
    cpu.set_state(state);
    resuming_handler(&mut bus);
    set_breakpoint(&mut cpu, 1, 0x30, PORT, 4);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((cpu.state().regs[15], cpu.state().regs[1]), (3, 0));
}

#[test]
fn stack_pushes_of_a_delivered_exception_are_watched_but_not_those_of_db_itself() {
    let code = assemble(|a| a.ud2());
    let (mut cpu, mut bus) = machine_with_traps(&code);
    // RIP of the frame; #DB pushes its own frame below.
    set_breakpoint(&mut cpu, 0, STACK - 40, WRITE, 8);
    let frame = debug_frame(&mut cpu, &mut bus);
    assert_eq!((frame.rip, triggered(&cpu)), (HANDLERS + 6 * 16, 1));

    let code = assemble(|a| a.int1());
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke(IDT + 16, &gate(1, 1, 0x8e).to_le_bytes());
    set_breakpoint(&mut cpu, 0, IST1 - 40, WRITE, 8);
    let frame = debug_frame(&mut cpu, &mut bus);
    assert_eq!((frame.rip, triggered(&cpu)), (HANDLERS + 16, 1));
}

#[test]
fn dr6_collects_and_is_never_cleared_by_the_processor() {
    let code = assemble(|a| {
        a.mov(rbx, DATA)?;
        a.mov(byte_ptr(rbx), al)?;
        a.mov(byte_ptr(rbx + 1), al)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    resuming_handler(&mut bus);
    set_breakpoint(&mut cpu, 0, DATA, WRITE, 1);
    set_breakpoint(&mut cpu, 1, DATA + 1, WRITE, 1);
    set_breakpoint(&mut cpu, 2, DATA, WRITE, 2);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((triggered(&cpu), cpu.state().regs[15]), (7, 2));
}

#[test]
fn general_detect_faults_once_and_lets_the_handler_in() {
    for write in [false, true] {
        let code = assemble(|a| {
            a.nop()?;
            if write { a.mov(dr0, rax) } else { a.mov(rax, dr0) }
        });
        let (mut cpu, mut bus) = machine_with_traps(&code);
        let mut state = cpu.state();
        state.dr[7] |= GD;
        cpu.set_state(state);
        let frame = debug_frame(&mut cpu, &mut bus);
        assert_eq!((frame.rip, frame.rflags & RF), (CODE + 1, RF));
        assert_eq!((triggered(&cpu), cpu.state().dr[7]), (BD, 0x400));
    }
}

#[test]
fn debug_registers_alias_check_and_fix_their_bits() {
    let code = assemble(|a| {
        a.mov(rax, 0xffff_ffffu64)?;
        a.mov(dr6, rax)?;
        a.mov(rbx, dr6)?;
        a.xor(eax, eax)?;
        a.mov(dr4, rax)?;
        a.mov(rcx, dr6)?;
        a.mov(rax, 0xffff_df00u64)?;
        a.mov(dr7, rax)?;
        a.mov(rdx, dr5)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    run_to_halt(&mut cpu, &mut bus);
    let regs = cpu.state().regs;
    assert_eq!((regs[3], regs[1], regs[2]), (0xffff_efff, 0xffff_0ff0, 0xffff_0700));

    let aliased = assemble(|a| a.mov(rax, dr4));
    let (mut cpu, mut bus) = machine_with_traps(&aliased);
    let mut state = cpu.state();
    state.cr4 |= DE;
    cpu.set_state(state);
    assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 6);

    let too_wide = assemble(|a| a.mov(dr7, rax));
    let (mut cpu, mut bus) = machine_with_traps(&too_wide);
    cpu.set_register(0, 1 << 32);
    assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 13);

    let (mut cpu, mut bus) = user_machine(&assemble(|a| a.mov(rax, dr7)));
    assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 13);
}

#[test]
fn int3_is_a_trap_int1_needs_no_rights_and_both_leave_dr6() {
    for (code, vector, len) in [(&[0xcc][..], 3, 1), (&[0xcd, 3], 3, 2), (&[0xf1], 1, 1)] {
        let (mut cpu, mut bus) = user_machine(code);
        if vector == 3 {
            bus.poke(IDT + 3 * 16, &gate(3, 0, 0xee).to_le_bytes());
        }
        let frame = run_to_handler(&mut cpu, &mut bus);
        assert_eq!((frame.vector, frame.rip, frame.cs), (vector, CODE + len, USER_CODE.into()));
        assert_eq!(triggered(&cpu), 0);
    }
    // Without DPL 3 in the gate INT3 is not for everybody.
    let (mut cpu, mut bus) = user_machine(&[0xcc]);
    assert_eq!(run_to_handler(&mut cpu, &mut bus).code, Some(3 * 8 + 2));
}

#[test]
fn mov_ss_holds_a_data_breakpoint_back_and_hides_the_next_instruction_from_breakpoints() {
    let code = assemble(|a| {
        a.mov(rbx, DATA)?;
        a.mov(ss, word_ptr(rbx))?;
        a.inc(eax)?;
        a.inc(eax)?;
        a.hlt()
    });
    let shadowed = CODE + code.len() as u64 - 5;
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke64(DATA, KERNEL_DATA.into());
    set_breakpoint(&mut cpu, 0, DATA, READ_WRITE, 1);
    set_breakpoint(&mut cpu, 1, shadowed, EXECUTE, 1);
    let frame = debug_frame(&mut cpu, &mut bus);
    assert_eq!((frame.rip, cpu.state().regs[0], triggered(&cpu)), (shadowed + 2, 1, 1));

    // INT n is an instruction, too: #DB comes at its handler's first instruction.
    let code = assemble(|a| {
        a.mov(rbx, DATA)?;
        a.mov(ss, word_ptr(rbx))?;
        a.int(0x55)
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke64(DATA, KERNEL_DATA.into());
    set_breakpoint(&mut cpu, 0, DATA, READ_WRITE, 1);
    let frame = debug_frame(&mut cpu, &mut bus);
    assert_eq!((frame.rip, triggered(&cpu)), (HANDLERS + 0x55 * 16, 1));

    // INT1 raises #DB itself: only one comes.
    let code = assemble(|a| {
        a.mov(rbx, DATA)?;
        a.mov(ss, word_ptr(rbx))?;
        a.db(&[0xf1])
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke64(DATA, KERNEL_DATA.into());
    set_breakpoint(&mut cpu, 0, DATA, READ_WRITE, 1);
    let frame = debug_frame(&mut cpu, &mut bus);
    assert_eq!((frame.rip, cpu.state().debug_traps), (CODE + code.len() as u64, 0));

    // What faults discards it.
    let code = assemble(|a| {
        a.mov(rbx, DATA)?;
        a.mov(ss, word_ptr(rbx))?;
        a.ud2()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke64(DATA, KERNEL_DATA.into());
    set_breakpoint(&mut cpu, 0, DATA, READ_WRITE, 1);
    assert_eq!((run_to_handler(&mut cpu, &mut bus).vector, triggered(&cpu)), (6, 0));
}

#[test]
fn a_breakpoint_on_the_handler_of_db_does_not_hang_the_host() {
    let (mut cpu, mut bus) = machine_with_traps(&[0xf1]);
    bus.poke(IDT + 16, &gate(1, 1, 0x8e).to_le_bytes());
    set_breakpoint(&mut cpu, 0, HANDLERS + 16, EXECUTE, 1);
    let exit = cpu.run(&mut bus, 1000);
    assert_eq!(exit, Exit::Unsupported { rip: HANDLERS + 16, what: "exceptions without an end" });
}

#[test]
fn breakpoints_come_and_go_with_the_state() {
    let code = assemble(|a| {
        let mut again = a.create_label();
        a.mov(rbx, DATA)?;
        a.set_label(&mut again)?;
        a.inc(rax)?;
        a.mov(qword_ptr(rbx), rax)?;
        a.jmp(again)
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    cpu.run(&mut bus, 301);
    let without = cpu.state();
    set_breakpoint(&mut cpu, 0, DATA, WRITE, 8);
    let watching = cpu.state();
    set_breakpoint(&mut cpu, 1, CODE + 13, EXECUTE, 1);
    let stopping = cpu.state();
    for _ in 0..2 {
        cpu.set_state(without.clone());
        assert_eq!(cpu.run(&mut bus, 601), Exit::Limit);
        cpu.set_state(watching.clone());
        assert_eq!(debug_frame(&mut cpu, &mut bus).rip, CODE + 16);
        cpu.set_state(stopping.clone());
        assert_eq!(debug_frame(&mut cpu, &mut bus).rip, CODE + 13);
    }
}

#[test]
fn a_trap_waits_in_the_state_when_the_run_ends_behind_the_access() {
    let code = assemble(|a| {
        a.mov(byte_ptr(rbx), al)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    cpu.set_register(3, DATA);
    set_breakpoint(&mut cpu, 0, DATA, WRITE, 1);
    assert_eq!(cpu.run(&mut bus, 1), Exit::Limit);
    let stopped = cpu.state();
    assert_eq!((stopped.debug_traps, triggered(&cpu)), (1, 0));
    let mut other: Cpu<TestBus> = Cpu::new(1, 1);
    other.set_state(stopped);
    assert_eq!(debug_frame(&mut other, &mut bus).rip, CODE + 2);
}
