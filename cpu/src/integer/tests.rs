//! What the comparison with hardware cannot see: retired counts, stops inside of REP, and what the bus is told.

use proptest::prelude::*;

use crate::{
    Cpu, DrainKind, Exit, REG_RIP, StoreKind,
    testing::{CODE, DATA, PMEM, RAM, STACK, TestBus, Told, machine, run_to_halt},
};

const HLT: u8 = 0xf4;
const RAX: usize = 0;
const RCX: usize = 1;
const RBX: usize = 3;
const RSI: usize = 6;
const RDI: usize = 7;
const REP_MOVSB: [u8; 2] = [0xf3, 0xa4];
const REP_MOVSQ: [u8; 3] = [0xf3, 0x48, 0xa5];
const REP_STOSB: [u8; 2] = [0xf3, 0xaa];
const CLWB_RDI: [u8; 4] = [0x66, 0x0f, 0xae, 0x37];

fn set(cpu: &mut Cpu<TestBus>, registers: &[(usize, u64)]) {
    let mut state = cpu.state();
    for (register, value) in registers {
        state.regs[*register] = *value;
    }
    cpu.set_state(state);
}

fn with_registers(code: &[u8], registers: &[(usize, u64)]) -> (Cpu<TestBus>, TestBus) {
    let mut code = code.to_vec();
    code.push(HLT);
    let (mut cpu, bus) = machine(&code);
    set(&mut cpu, registers);
    (cpu, bus)
}

#[test]
fn each_iteration_of_rep_retires_as_one_instruction() {
    let (mut cpu, mut bus) = with_registers(&REP_MOVSB, &[(RCX, 10_000), (RSI, DATA), (RDI, DATA + 0x8000)]);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().retired, 10_000 + 1);
}

#[test]
fn rep_with_a_count_of_0_retires_once_and_touches_nothing() {
    let (mut cpu, mut bus) = with_registers(&REP_MOVSB, &[(RCX, 0), (RSI, 0xffff_0000), (RDI, 0xffff_0000)]);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().retired, 1 + 1);
    assert!(bus.told.is_empty());
}

#[test]
fn a_limit_stops_inside_of_rep_exactly_and_rip_stays() {
    let (mut cpu, mut bus) = with_registers(&REP_MOVSQ, &[(RCX, 5000), (RSI, DATA), (RDI, DATA + 0x10000)]);
    for (until, left) in [(1, 4999), (2, 4998), (700, 4300), (4999, 1)] {
        assert_eq!(cpu.run(&mut bus, until), Exit::Limit);
        let state = cpu.state();
        assert_eq!((state.retired, state.regs[RCX], state.rip()), (until, left, CODE));
        assert_eq!(state.regs[RDI], DATA + 0x10000 + until * 8);
    }
    assert_eq!(cpu.run(&mut bus, 5000), Exit::Limit);
    assert_eq!((cpu.state().regs[RCX], cpu.state().rip()), (0, CODE + 3));
}

#[test]
fn rep_stores_to_pmem_are_told_line_by_line_and_only_the_first_as_first() {
    let (mut cpu, mut bus) = with_registers(&REP_STOSB, &[(RCX, 100), (RAX, 0xab), (RDI, PMEM + 50)]);
    run_to_halt(&mut cpu, &mut bus);
    let store = |at, len, first| Told::Store(PMEM + at, vec![0xab; len], StoreKind::CachedRep { first });
    assert_eq!(bus.told(), [store(50, 14, true), store(64, 64, false), store(128, 22, false)]);
    // Each was executed when the iterations before it had retired.
    let retired: Vec<u64> = bus.told.iter().map(|(_, view)| view.retired).collect();
    assert_eq!(retired, [0, 14, 78]);
}

#[test]
fn a_rep_goes_on_as_the_same_execution_when_the_run_ended_in_it() {
    let (mut cpu, mut bus) = with_registers(&REP_MOVSB, &[(RCX, 20), (RSI, DATA), (RDI, PMEM)]);
    cpu.run(&mut bus, 5);
    run_to_halt(&mut cpu, &mut bus);
    let store = |at, len, first| Told::Store(PMEM + at, vec![0; len], StoreKind::CachedRep { first });
    assert_eq!(bus.told(), [store(0, 5, true), store(5, 15, false)]);
}

#[test]
fn attention_at_a_store_ends_rep_between_iterations() {
    let (mut cpu, mut bus) = with_registers(&REP_STOSB, &[(RCX, 100), (RDI, PMEM)]);
    bus.attention_at_event = true;
    assert_eq!(cpu.run(&mut bus, 1000), Exit::Attention);
    let state = cpu.state();
    assert_eq!((state.retired, state.regs[RCX], state.rip()), (64, 36, CODE));
}

#[test]
fn a_fault_in_rep_leaves_what_was_done_before_it() {
    // The IDT is empty: the fault becomes a shutdown, with the registers as the fault left them.
    let end = RAM - 16;
    let (mut cpu, mut bus) = with_registers(&REP_MOVSB, &[(RCX, 64), (RSI, DATA), (RDI, 0xffff_fff0)]);
    bus.poke(DATA, &[7; 64]);
    // The last of the mapped 4 GiB is a device; behind it nothing is mapped.
    assert_eq!(cpu.run(&mut bus, 1000), Exit::Shutdown);
    let state = cpu.state();
    assert_eq!((state.regs[RCX], state.regs[RSI], state.regs[RDI]), (48, DATA + 16, 1 << 32));
    assert_eq!((state.retired, state.cr2, state.rip()), (16, 1 << 32, CODE));
    let each_element: Vec<Told> = (0..16).map(|n| Told::MmioWrite(0xffff_fff0 + n, 1, 7)).collect();
    assert_eq!(bus.told(), each_element, "a device sees each element as one access");
    assert_eq!(bus.peek::<1>(end), [0]);
}

#[test]
fn comparisons_end_rep_after_the_element_that_differs() {
    let repe_cmpsb = [0xf3, 0xa6];
    let (mut cpu, mut bus) = with_registers(&repe_cmpsb, &[(RCX, 100), (RSI, DATA), (RDI, DATA + 0x1000)]);
    bus.poke(DATA + 9, &[1]);
    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.regs[RCX], state.regs[RSI], state.retired), (90, DATA + 10, 10 + 1));
    assert_eq!(state.rflags & 0x40, 0);
}

#[test]
fn locked_instructions_and_xchg_drain_before_their_store() {
    locked_drain_before_their_store(false);
    locked_drain_before_their_store(true);
}

fn locked_drain_before_their_store(general: bool) {
    for code in
        [&[0xf0, 0xff, 0x03][..], &[0x87, 0x03], &[0xf0, 0x0f, 0xc1, 0x0b], &[0xf0, 0x0f, 0xba, 0x2b, 0x03]]
    {
        let code = [&CLWB_RDI, code].concat();
        let (mut cpu, mut bus) = with_registers(&code, &[(RAX, 1), (RCX, 1), (RBX, PMEM), (RDI, PMEM + 64)]);
        if general {
            cpu.use_general_handlers();
        }
        run_to_halt(&mut cpu, &mut bus);
        let told = bus.told();
        assert_eq!(told[1], Told::Drain(DrainKind::Locked), "{code:x?}");
        assert!(matches!(told[2], Told::Store(PMEM, _, StoreKind::Cached)), "{code:x?}");
        assert_eq!(told.len(), 3);
    }
}

#[test]
fn after_a_plain_store_drains_are_told_only_to_who_follows_the_store_buffer() {
    let (store, lock) = ([0xc6, 0x03, 1], [0xf0, 0xff, 0x07]);
    for follows in [false, true] {
        let code = [&store[..], &lock, &lock].concat();
        let (mut cpu, mut bus) = with_registers(&code, &[(RBX, PMEM), (RDI, DATA)]);
        cpu.tell_store_buffer(follows);
        run_to_halt(&mut cpu, &mut bus);
        let expected = if follows { vec![Told::Drain(DrainKind::Locked)] } else { Vec::new() };
        assert_eq!(bus.told()[1..], expected);
    }
}

#[test]
fn unlocked_read_modify_writes_drain_nothing() {
    let code = [&CLWB_RDI[..], &[0xff, 0x03]].concat();
    let (mut cpu, mut bus) = with_registers(&code, &[(RBX, PMEM), (RDI, PMEM + 64)]);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(bus.told().len(), 2);
}

#[test]
fn a_failed_cmpxchg_drains_and_stores_nothing() {
    let cmpxchg = [0xf0, 0x48, 0x0f, 0xb1, 0x0b];
    let cmpxchg16b = [0xf0, 0x48, 0x0f, 0xc7, 0x0b];
    for (code, general) in [(cmpxchg, false), (cmpxchg, true), (cmpxchg16b, false)] {
        let code = [&CLWB_RDI[..], &code].concat();
        let (mut cpu, mut bus) = with_registers(&code, &[(RAX, 5), (RBX, PMEM), (RDI, PMEM + 64)]);
        if general {
            cpu.use_general_handlers();
        }
        run_to_halt(&mut cpu, &mut bus);
        assert_eq!(bus.told()[1..], [Told::Drain(DrainKind::Locked)]);
        assert_eq!(cpu.state().regs[RAX], 0, "the memory's value");
    }
}

#[test]
fn protected_mode_branches_and_stack_are_32_bits_wide() {
    // call +1; hlt; pop ebx; push 7; jmp -4 (to the hlt)
    let (mut cpu, mut bus) = machine(&[0xe8, 1, 0, 0, 0, HLT, 0x5b, 0x6a, 7, 0xeb, 0xfa]);
    let mut state = cpu.state();
    state.segments[1].access = 0xc09b;
    state.regs[4] = STACK | 1 << 40;
    state.regs[RBX] = u64::MAX;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.regs[RBX], state.regs[4]), (CODE + 5, STACK - 4));
    assert_eq!(bus.peek64(STACK - 4) as u32, 7);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is done in one go is what single steps do, also where source and destination overlap.
    #[test]
    fn iterations_at_once_are_the_same_as_one_by_one(
        element in 0..4usize,
        stos in any::<bool>(),
        down in any::<bool>(),
        from in 0..0x2000u64,
        distance in -80..80i64,
        to_pmem in any::<bool>(),
        count in 0..600u64,
        limits in proptest::collection::vec(1..600u64, 0..4),
    ) {
        let opcode = if stos { 0xaa } else { 0xa4 };
        let code: &[u8] = match element {
            0 => &[0xf3, opcode],
            1 => &[0x66, 0xf3, opcode + 1],
            2 => &[0xf3, opcode + 1],
            _ => &[0xf3, 0x48, opcode + 1],
        };
        let base = if to_pmem { PMEM + 0x8000 } else { DATA + 0x8000 };
        let (from, to) = (base + from, (base + from).wrapping_add_signed(distance));
        let run = |limits: &mut dyn Iterator<Item = u64>| {
            let (mut cpu, mut bus) = with_registers(code, &[(RCX, count), (RSI, from), (RDI, to), (RAX, 0x0123_4567_89ab_cdef)]);
            let mut state = cpu.state();
            state.rflags |= if down { 1 << 10 } else { 0 };
            cpu.set_state(state);
            let pattern: Vec<u8> = (0..0x10000u32).map(|n| (n ^ n >> 7) as u8).collect();
            bus.poke(base - 0x8000, &pattern);
            for limit in limits {
                cpu.run(&mut bus, limit);
            }
            run_to_halt(&mut cpu, &mut bus);
            let memory = bus.peek::<0x10000>(base - 0x8000);
            (cpu.state(), memory)
        };
        let mut sorted = limits.clone();
        sorted.sort_unstable();
        let (state, memory) = run(&mut sorted.into_iter());
        let (stepped, stepped_memory) = run(&mut (1..=count));
        prop_assert_eq!(state.regs[REG_RIP], CODE + code.len() as u64 + 1);
        prop_assert_eq!(state, stepped);
        prop_assert!(memory == stepped_memory);
    }
}
