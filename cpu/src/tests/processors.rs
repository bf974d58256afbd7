//! Several processors on one bus.

use crate::{
    Cpu, Exit, REG_RIP, State,
    testing::{CODE, DATA, TestBus, machine},
};

/// Two processors in 64-bit mode, processor 1 about to execute at `second`.
fn pair(code: &[u8], second: u64) -> (Cpu<TestBus>, TestBus) {
    let (one, bus) = machine(code);
    let mut cpu = Cpu::new(2, 1);
    let state = one.state();
    let mut other = State { vcpu: 1, ..state.clone() };
    other.regs[REG_RIP] = second;
    cpu.set_states(vec![state, other], 0);
    (cpu, bus)
}

fn run(cpu: &mut Cpu<TestBus>, bus: &mut TestBus, count: u64) -> Exit {
    let until = cpu.retired() + count;
    cpu.run(bus, until)
}

#[test]
fn each_processor_has_its_own_registers_and_retired_count() {
    // inc eax; inc eax; inc eax
    let (mut cpu, mut bus) = pair(&[0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc0], CODE);
    run(&mut cpu, &mut bus, 2);
    cpu.select(1);
    run(&mut cpu, &mut bus, 3);
    assert_eq!((cpu.current(), cpu.retired(), cpu.retired_by_all()), (1, 3, 5));
    let seen: Vec<_> = cpu.states().iter().map(|state| (state.vcpu, state.retired, state.regs[0])).collect();
    assert_eq!(seen, [(0, 2, 2), (1, 3, 3)]);
}

#[test]
fn time_is_one_for_all_and_never_goes_back() {
    // rdtsc; rdtsc
    let (mut cpu, mut bus) = pair(&[0x0f, 0x31, 0x0f, 0x31], CODE);
    let mut seen = Vec::new();
    for vcpu in [0, 1, 1, 0] {
        cpu.select(vcpu);
        run(&mut cpu, &mut bus, 1);
        seen.push(cpu.state().regs[0]);
        cpu.advance_time(10);
    }
    assert_eq!(seen, [0, 11, 22, 33]);
}

#[test]
fn what_one_processor_writes_to_its_tsc_moves_no_other_clock() {
    // wrmsr; rdtsc
    let (mut cpu, mut bus) = pair(&[0x0f, 0x30, 0x0f, 0x31], CODE + 2);
    let mut state = cpu.state();
    (state.regs[0], state.regs[1], state.regs[2]) = (5000, 0x10, 0);
    cpu.set_state(state);
    run(&mut cpu, &mut bus, 2);
    assert_eq!((cpu.state().regs[0], cpu.time()), (5001, 2));
    cpu.select(1);
    run(&mut cpu, &mut bus, 1);
    assert_eq!(cpu.state().regs[0], 2);
}

#[test]
fn a_deadline_is_told_in_the_time_of_the_machine() {
    // wrmsr; rdmsr
    let (mut cpu, mut bus) = pair(&[0x0f, 0x30, 0x0f, 0x32], CODE);
    bus.msrs.push((0x6e0, 0));
    let mut state = cpu.state();
    (state.regs[0], state.regs[1], state.regs[2]) = (5000, 0x6e0, 0);
    state.tsc_adjust = 1000;
    cpu.set_state(state);
    run(&mut cpu, &mut bus, 2);
    assert_eq!((bus.msrs[0].1, cpu.state().regs[0]), (4000, 5000));
}

#[test]
fn code_that_another_processor_executes_is_dropped_when_it_is_written() {
    // Processor 1: mov byte [DATA], 0x40 (the low byte of the immediate); then it is done.
    // Processor 0 at DATA: mov eax, imm32; jmp DATA
    let store =
        [0xc6, 0x04, 0x25, (DATA + 1) as u8, ((DATA + 1) >> 8) as u8, ((DATA + 1) >> 16) as u8, 0, 0x40];
    let store_twice = [store, store].concat();
    let (mut cpu, mut bus) = pair(&store_twice, CODE);
    bus.poke(DATA, &[0xb8, 0x11, 0, 0, 0, 0xeb, 0xf9]);
    // The translation of processor 1 for the page exists before processor 0 decodes from it.
    cpu.select(1);
    run(&mut cpu, &mut bus, 1);
    bus.poke(DATA + 1, &[0x11]);
    cpu.select(0);
    let mut state = cpu.state();
    state.regs[REG_RIP] = DATA;
    cpu.set_state(state);
    run(&mut cpu, &mut bus, 4);
    assert_eq!(cpu.state().regs[0], 0x11);
    cpu.select(1);
    run(&mut cpu, &mut bus, 1);
    cpu.select(0);
    run(&mut cpu, &mut bus, 2);
    assert_eq!(cpu.state().regs[0], 0x40);
}

#[test]
fn changing_over_keeps_translations() {
    // mov [rbx], eax; jmp back
    let (mut cpu, mut bus) = pair(&[0x89, 0x03, 0xeb, 0xfc], CODE);
    for vcpu in [0, 1] {
        cpu.select(vcpu);
        let mut state = cpu.state();
        state.regs[3] = DATA;
        cpu.set_state(state);
        run(&mut cpu, &mut bus, 4);
    }
    // Without its tables a processor that remembers the translations still goes on.
    bus.poke64(crate::testing::TABLES, 0);
    cpu.select(0);
    assert_eq!(run(&mut cpu, &mut bus, 10), Exit::Limit);
}

#[test]
fn every_processor_tells_a_page_again_after_the_writable_ones_are_forgotten() {
    let (mut cpu, mut bus) = pair(&[0x89, 0x03, 0xeb, 0xfc], CODE);
    bus.record_dirtied = true;
    for vcpu in [0, 1] {
        cpu.select(vcpu);
        let mut state = cpu.state();
        state.regs[3] = DATA;
        cpu.set_state(state);
        run(&mut cpu, &mut bus, 2);
    }
    bus.told.clear();
    cpu.forget_writable();
    for vcpu in [0, 1] {
        cpu.select(vcpu);
        run(&mut cpu, &mut bus, 2);
    }
    let dirtied =
        bus.told().iter().filter(|told| **told == crate::testing::Told::Dirtied(DATA >> 12)).count();
    assert_eq!(dirtied, 1, "once for all of them");
}

#[test]
fn pause_ends_the_run_where_somebody_else_may_go_on() {
    // pause; inc eax
    let code = [0xf3, 0x90, 0xff, 0xc0];
    let (mut cpu, mut bus) = pair(&code, CODE);
    assert_eq!(run(&mut cpu, &mut bus, 2), Exit::Paused);
    assert_eq!((cpu.retired(), run(&mut cpu, &mut bus, 1)), (1, Exit::Limit));
    cpu.select(1);
    assert_eq!(run(&mut cpu, &mut bus, 1), Exit::Paused, "also as the last instruction allowed");
    let (mut alone, mut bus) = machine(&code);
    assert_eq!(alone.run(&mut bus, 2), Exit::Limit);
}

#[test]
fn processors_wait_to_be_started() {
    let mut cpu = Cpu::<TestBus>::new(3, 1);
    let can_run = |cpu: &Cpu<TestBus>| [0, 1, 2].map(|vcpu| cpu.can_run(vcpu, true));
    assert_eq!(can_run(&cpu), [true, false, false]);
    cpu.start_up(2, 0x9a);
    assert_eq!(can_run(&cpu), [true, false, true]);
    let state = cpu.states().remove(2);
    assert_eq!((state.rip(), state.segments[1].selector, state.segments[1].base), (0, 0x9a00, 0x9_a000));
    cpu.start_up(2, 0x55);
    assert_eq!(cpu.states()[2].segments[1].base, 0x9_a000, "it does not wait any more");
}

#[test]
fn init_keeps_what_the_table_says() {
    let (mut cpu, _) = pair(&[0x90], CODE);
    let mut state = cpu.state();
    state.xmm[3] = 7;
    state.kernel_gs_base = 8;
    state.cr0 |= 1 << 30;
    state.drain_pending = true;
    state.retired = 9;
    cpu.set_state(state);
    cpu.init(0, false);
    let state = cpu.state();
    assert_eq!((state.xmm[3], state.kernel_gs_base, state.retired), (7, 8, 9));
    assert_eq!((state.cr0, state.cr4, state.efer, state.rip()), (0x4000_0010, 0, 0, 0xfff0));
    assert!(state.drain_pending && state.waits_for_start_up && !cpu.can_run(0, true));
    cpu.init(1, true);
    assert!(cpu.can_run(1, false), "the bootstrap processor begins at the reset vector");
}

#[test]
fn a_halted_processor_can_run_when_an_interrupt_that_it_takes_waits() {
    let (mut cpu, _) = pair(&[0x90], CODE);
    let mut state = cpu.state();
    state.halted = true;
    cpu.set_state(state.clone());
    assert!(!cpu.can_run(0, true), "interrupts are off");
    state.rflags |= 1 << 9;
    cpu.set_state(state);
    assert!(cpu.can_run(0, true) && !cpu.can_run(0, false));
}

#[test]
fn an_nmi_wakes_a_halted_processor_but_none_that_waits_to_be_started() {
    let (mut cpu, _) = pair(&[0x90], CODE);
    let mut state = cpu.state();
    state.halted = true;
    cpu.set_state(state);
    cpu.select(1);
    cpu.init(1, false);
    cpu.request_nmi_at(0);
    cpu.request_nmi_at(1);
    assert!(cpu.can_run(0, false) && !cpu.can_run(1, false));
    cpu.start_up(1, 1);
    assert!(!cpu.state().nmi_pending);
}

#[test]
fn random_numbers_differ_between_processors() {
    let cpu = Cpu::<TestBus>::new(2, 5);
    let seeds: Vec<u64> = cpu.states().iter().map(|state| state.random).collect();
    assert_ne!(seeds[0], seeds[1]);
}

#[test]
fn cpuid_counts_the_processors() {
    // cpuid
    let leaf = |cpu: &mut Cpu<TestBus>, bus: &mut TestBus, leaf: u64, subleaf: u64| {
        let mut state = cpu.state();
        (state.regs[0], state.regs[1], state.regs[REG_RIP]) = (leaf, subleaf, CODE);
        cpu.set_state(state);
        run(cpu, bus, 1);
        let state = cpu.state();
        [0, 3, 1, 2].map(|register| state.regs[register] as u32)
    };
    let (mut cpu, mut bus) = pair(&[0x0f, 0xa2], CODE);
    cpu.select(1);
    let [_, ebx, _, edx] = leaf(&mut cpu, &mut bus, 1, 0);
    assert_eq!((ebx >> 16, edx >> 28 & 1), (0x102, 1));
    assert_eq!(leaf(&mut cpu, &mut bus, 0xb, 0), [0, 1, 0x100, 1]);
    assert_eq!(leaf(&mut cpu, &mut bus, 0xb, 1), [1, 2, 0x201, 1]);
    assert_eq!(leaf(&mut cpu, &mut bus, 0xb, 2), [0, 0, 2, 1]);
    let (mut alone, mut bus) = machine(&[0x0f, 0xa2]);
    let [_, ebx, _, edx] = leaf(&mut alone, &mut bus, 1, 0);
    assert_eq!((ebx >> 16, edx >> 28 & 1), (1, 0));
    assert_eq!(leaf(&mut alone, &mut bus, 0xb, 0), [0; 4]);
}
