//! Undecided bytes: where a run stops for them, and that it goes on as if it had not.

use std::ops::Range;

use iced_x86::code_asm::*;

use super::*;
use crate::{
    Exit,
    testing::{DATA, PMEM, STACK, TABLES, Told},
};

/// Runs a machine whose bytes in `undecided` are, and decides them all when it stops: as the machine does to which they
/// were known from the beginning, and at the same point of time. `stops_at`: where RIP stands then.
fn goes_on(
    new: impl Fn() -> (Cpu<TestBus>, TestBus),
    undecided: Range<u64>,
    stops_at: u64,
) -> (Cpu<TestBus>, TestBus) {
    let (mut known_cpu, mut known_bus) = new();
    run_to_halt(&mut known_cpu, &mut known_bus);
    let (mut cpu, mut bus) = new();
    bus.undecided = undecided.map(|at| (at, at)).collect();
    cpu.forget_translations();
    for _ in 0..3 {
        assert_eq!((cpu.run(&mut bus, 1_000_000), cpu.rip()), (Exit::Undecided, stops_at));
    }
    bus.undecided.clear();
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs, known_cpu.state().regs);
    assert_eq!((cpu.state().rflags, cpu.retired()), (known_cpu.state().rflags, known_cpu.retired()));
    assert_eq!(cpu.state().cr2, known_cpu.state().cr2);
    assert_eq!(bus.told, known_bus.told);
    assert!((DATA..DATA + 0x100).all(|at| bus.peek::<1>(at) == known_bus.peek::<1>(at)));
    assert!((STACK - 0x100..STACK).all(|at| bus.peek::<1>(at) == known_bus.peek::<1>(at)));
    (cpu, bus)
}

#[test]
fn a_load_stops_in_front_of_it_and_its_neighbour_does_not() {
    let code = assemble(|a| {
        a.mov(rbx, DATA)?;
        a.inc(qword_ptr(rbx))?;
        a.mov(rax, qword_ptr(rbx + 8))?;
        a.mov(rcx, qword_ptr(rbx + 9))?;
        a.hlt()
    });
    let at = CODE + code.len() as u64 - 5;
    goes_on(|| machine_with_traps(&code), DATA + 16..DATA + 17, at);
}

#[test]
fn a_page_walk_stops_in_front_of_the_instruction() {
    let code = assemble(|a| {
        a.inc(rcx)?;
        a.mov(rbx, 0x4000_0000u64)?;
        a.mov(byte_ptr(rbx), 1)?;
        a.hlt()
    });
    let at = CODE + code.len() as u64 - 4;
    // The entry of the third level for the second GiB.
    goes_on(|| machine_with_traps(&code), TABLES + 0x1000 + 8..TABLES + 0x1000 + 9, at);
}

#[test]
fn an_exception_is_raised_again_by_its_instruction() {
    let gate = |vector: u64| IDT + 16 * vector..IDT + 16 * vector + 16;
    let ud2 = assemble(|a| {
        a.inc(rcx)?;
        a.ud2()
    });
    goes_on(|| machine_with_traps(&ud2), gate(6), CODE + 3);
    let int3 = assemble(|a| {
        a.inc(rcx)?;
        a.int3()
    });
    goes_on(|| machine_with_traps(&int3), gate(3), CODE + 3);
    let int = assemble(|a| {
        a.inc(rcx)?;
        a.int(0x80)
    });
    goes_on(|| machine_with_traps(&int), gate(0x80), CODE + 3);
    let miss = assemble(|a| {
        a.mov(rbx, 1u64 << 40)?;
        a.inc(dword_ptr(rbx))
    });
    goes_on(|| machine_with_traps(&miss), gate(14), CODE + 10);
}

#[test]
fn an_interrupt_waits_again() {
    let code = assemble(|a| {
        a.sti()?;
        a.inc(rcx)?;
        a.inc(rcx)?;
        a.hlt()
    });
    let new = || {
        let (cpu, mut bus) = machine_with_traps(&code);
        bus.interrupts.push(0x40);
        (cpu, bus)
    };
    let (_, bus) = goes_on(new, IDT + 16 * 0x40..IDT + 16 * 0x41, CODE + 4);
    assert_eq!(bus.interrupts, []);
}

#[test]
fn a_non_maskable_interrupt_waits_again_and_its_return_unblocks_once() {
    let code = assemble(|a| {
        a.inc(rcx)?;
        a.hlt()
    });
    let new = || {
        let (mut cpu, mut bus) = machine_with_traps(&code);
        let handler = assemble_at(HANDLERS + 2 * 16, |a| {
            a.inc(r15)?;
            a.iretq()
        });
        bus.poke(HANDLERS + 2 * 16, &handler);
        cpu.request_nmi();
        (cpu, bus)
    };
    goes_on(new, IDT + 32..IDT + 48, CODE);
    // The handler's frame: RIP lies at its top.
    let new_in_handler = || {
        let (mut cpu, mut bus) = new();
        assert_eq!(cpu.run(&mut bus, 1), Exit::Limit);
        assert!(cpu.state().nmi_blocked);
        (cpu, bus)
    };
    let (cpu, _) = goes_on(new_in_handler, STACK - 40..STACK - 39, HANDLERS + 2 * 16 + 3);
    assert!(!cpu.state().nmi_blocked);
}

#[test]
fn a_single_step_trap_is_raised_again() {
    let code = assemble(|a| {
        a.inc(rcx)?;
        a.inc(rcx)?;
        a.hlt()
    });
    let new = || {
        let (mut cpu, bus) = machine_with_traps(&code);
        let mut state = cpu.state();
        state.rflags |= 0x100;
        cpu.set_state(state);
        (cpu, bus)
    };
    goes_on(new, IDT + 16..IDT + 32, CODE + 3);
}

#[test]
fn probes_are_told_once_although_the_instruction_begins_twice() {
    let code = assemble(|a| {
        a.mov(rbx, DATA)?;
        a.mov(rax, qword_ptr(rbx))?;
        a.hlt()
    });
    let at = CODE + code.len() as u64 - 4;
    let new = || {
        let (mut cpu, bus) = machine_with_traps(&code);
        cpu.set_probes(&[at]);
        (cpu, bus)
    };
    let (_, bus) = goes_on(new, DATA..DATA + 1, at);
    assert_eq!(bus.told(), [Told::Probe(at)]);
    // Not even decoded yet.
    let (_, bus) = goes_on(new, at..at + 1, CODE);
    assert_eq!(bus.told(), [Told::Probe(at)]);
}

#[test]
fn a_repeated_copy_into_persistent_memory_is_one_execution_although_it_stops() {
    let code = assemble(|a| {
        a.mov(rsi, DATA)?;
        a.mov(rdi, PMEM)?;
        a.mov(ecx, 256)?;
        a.rep().movsb()?;
        a.hlt()
    });
    let at = CODE + code.len() as u64 - 3;
    goes_on(|| machine_with_traps(&code), DATA + 150..DATA + 151, at);
}

#[test]
fn an_instruction_across_pages_is_decoded_anew_after_its_second_page_was_missing() {
    // mov eax, 0x11223344 whose immediate lies in the next page; executed, then with that page missing, then with other
    // bytes there.
    let start = 0x40_0000u64 - 1;
    let (mut cpu, mut bus) = machine_with_traps(&[]);
    bus.poke(start, &[0xb8, 0x44, 0x33, 0x22, 0x11, 0xf4]);
    let again = |cpu: &mut Cpu<TestBus>| {
        let mut state = cpu.state();
        state.halted = false;
        state.regs[REG_RIP] = start;
        state.regs[4] = STACK;
        cpu.set_state(state);
    };
    again(&mut cpu);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs[0], 0x1122_3344);
    let entry = 0x3000 + (0x40_0000 >> 21) * 8;
    let present = bus.peek64(entry);
    bus.poke64(entry, 0);
    again(&mut cpu);
    assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 14);
    bus.poke64(entry, present);
    bus.poke(start + 1, &[0x88]);
    again(&mut cpu);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs[0], 0x1122_3388);
}
