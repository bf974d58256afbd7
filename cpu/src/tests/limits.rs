//! Where a run stops: exact counts, attention, probes, REP between iterations.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    Exit,
    testing::{DATA, PMEM, Told},
};

fn counting_loop() -> Vec<u8> {
    assemble(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.inc(rax)?;
        a.add(rbx, 2)?;
        a.jmp(again)
    })
}

#[test]
fn a_run_stops_at_the_exact_count_wherever_it_lies() {
    let (mut cpu, mut bus) = machine_with_traps(&counting_loop());
    for until in [1, 2, 3, 4, 5, 100, 101, 1000] {
        assert_eq!(cpu.run(&mut bus, until), Exit::Limit);
        let state = cpu.state();
        assert_eq!((state.retired, state.regs[0]), (until, until.div_ceil(3)));
        assert_eq!(state.regs[3], until / 3 * 2 + if until % 3 == 2 { 2 } else { 0 });
    }
    assert_eq!(cpu.run(&mut bus, 1000), Exit::Limit);
    assert_eq!(cpu.state().retired, 1000);
}

#[test]
fn rdtsc_counts_what_retired_before_it() {
    let code = assemble(|a| {
        a.nop()?;
        a.nop()?;
        a.rdtsc()?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let mut state = cpu.state();
    state.tsc_offset = 1 << 32;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((cpu.state().regs[0], cpu.state().regs[2]), (2, 1));
}

#[test]
fn each_iteration_of_rep_counts_one_and_the_stop_may_lie_between() {
    let code = assemble(|a| {
        a.mov(edi, DATA as u32)?;
        a.mov(ecx, 100)?;
        a.mov(eax, 0x5a)?;
        a.rep().stosb()?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    assert_eq!(cpu.run(&mut bus, 3 + 40), Exit::Limit);
    let state = cpu.state();
    assert_eq!((state.retired, state.regs[1], state.regs[7]), (43, 60, DATA + 40));
    assert_eq!(state.rip(), CODE + code.len() as u64 - 3);
    assert_eq!(bus.peek::<2>(DATA + 39), [0x5a, 0]);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().retired, 3 + 100 + 1);
    assert_eq!(bus.peek::<2>(DATA + 99), [0x5a, 0]);
}

#[test]
fn a_rep_with_nothing_to_do_counts_one() {
    let code = assemble(|a| {
        a.rep().movsb()?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().retired, 2);
}

#[test]
fn a_rep_that_faults_keeps_its_progress() {
    let code = assemble(|a| {
        a.mov(rdi, DATA + 0x1ff0)?;
        a.mov(ecx, 100)?;
        a.rep().stosb()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let base = DATA & !0x1f_ffff;
    for n in 0..512 {
        bus.poke64(0x7000 + n * 8, (base + n * 0x1000) | 3);
    }
    bus.poke64(0x7000 + ((DATA >> 12 & 0x1ff) + 2) * 8, 0);
    bus.poke64(0x3000 + (DATA >> 21) * 8, 0x7003);
    let frame = run_to_handler(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((frame.vector, state.cr2, state.regs[1]), (14, DATA + 0x2000, 100 - 16));
    assert_eq!(state.retired, 2 + 16 + 1, "MOVs, iterations, the handler's HLT");
}

#[test]
fn attention_ends_the_run_behind_the_instruction_that_caused_it() {
    let code = assemble(|a| {
        a.mov(rbx, PMEM)?;
        a.mov(dword_ptr(rbx), 1)?;
        a.inc(eax)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.attention_at_event = true;
    assert_eq!(cpu.run(&mut bus, 100), Exit::Attention);
    assert_eq!((cpu.state().retired, cpu.state().regs[0]), (2, 0));
    bus.attention = false;
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs[0], 1);
}

#[test]
fn attention_ends_a_rep_between_iterations() {
    let code = assemble(|a| {
        a.mov(rdi, PMEM)?;
        a.mov(ecx, 10)?;
        a.rep().stosq()?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.attention_at_event = true;
    assert_eq!(cpu.run(&mut bus, 100), Exit::Attention);
    // The first line is told as one.
    assert_eq!((cpu.state().retired, cpu.state().regs[1]), (2 + 8, 2));
}

#[test]
fn probes_are_told_once_before_the_instruction() {
    let code = assemble(|a| {
        a.nop()?;
        a.nop()?;
        a.inc(eax)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    cpu.set_probes(&[CODE + 2]);
    bus.attention_at_event = true;
    assert_eq!(cpu.run(&mut bus, 100), Exit::Attention);
    assert_eq!((cpu.state().retired, cpu.state().rip(), cpu.state().regs[0]), (2, CODE + 2, 0));
    assert_eq!(bus.told[0].1.retired, 2);
    // Also after going back to the state at the stop.
    for _ in 0..2 {
        let stopped = cpu.state();
        bus.attention = false;
        cpu.set_state(stopped);
        let exit = cpu.run(&mut bus, 100);
        assert_eq!((exit, cpu.state().regs[0]), (Exit::Halted, 1));
    }
    assert_eq!(bus.told(), [Told::Probe(CODE + 2)]);
}

#[test]
fn probes_in_the_middle_of_known_code_and_in_loops_are_all_told() {
    let (mut cpu, mut bus) = machine_with_traps(&counting_loop());
    assert_eq!(cpu.run(&mut bus, 300), Exit::Limit);
    cpu.set_probes(&[CODE + 3]);
    assert_eq!(cpu.run(&mut bus, 600), Exit::Limit);
    let retired: Vec<u64> = bus.told.iter().map(|(_, view)| view.retired).collect();
    assert_eq!(retired, (0..100).map(|n| 301 + 3 * n).collect::<Vec<_>>());
    cpu.set_probes(&[]);
    assert_eq!(cpu.run(&mut bus, 900), Exit::Limit);
    assert_eq!(bus.told.len(), 100);
}

#[test]
fn slices_of_any_length_lead_to_the_same_state() {
    let code = assemble(|a| {
        let mut again = a.create_label();
        a.mov(rdi, DATA)?;
        a.set_label(&mut again)?;
        a.inc(rax)?;
        a.mov(ecx, 7)?;
        a.rep().stosb()?;
        a.imul_3(rbx, rax, 77)?;
        a.xor(rsi, rbx)?;
        a.jmp(again)
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    cpu.run(&mut bus, 5000);
    let whole = cpu.state();
    for slice in [1, 2, 3, 7, 64] {
        let (mut cpu, mut bus) = machine_with_traps(&code);
        let mut until = 0;
        while until < 5000 {
            until = (until + slice).min(5000);
            assert_eq!(cpu.run(&mut bus, until), Exit::Limit);
            assert_eq!(cpu.state().retired, until);
        }
        assert_eq!(cpu.state(), whole);
    }
}

/// Each string instruction over two pages: wherever the run stops, registers, memory and count say the same.
#[test]
fn every_repeated_instruction_stops_and_resumes_exactly() {
    type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let programs: [(Program, u64, bool); 9] = [
        (|a| a.rep().movsb(), 1, true),
        (|a| a.rep().movsq(), 8, true),
        (|a| a.rep().stosb(), 1, false),
        (|a| a.rep().stosd(), 4, false),
        (|a| a.rep().lodsw(), 2, true),
        (|a| a.repe().cmpsb(), 1, true),
        (|a| a.repne().scasb(), 1, false),
        (|a| a.repne().scasq(), 8, false),
        (|a| a.repe().cmpsw(), 2, true),
    ];
    const COUNT: u64 = 700;
    for (n, (program, size, uses_source)) in programs.into_iter().enumerate() {
        let code = assemble(|a| {
            program(a)?;
            a.hlt()
        });
        for down in [false, true] {
            let start = DATA + if down { 0x3000 } else { 0xf80 };
            for stop in [1, 2, 63, 64, 65, 127, 128, 129, 300, 512, 699, 700] {
                let (mut cpu, mut bus) = machine_with_traps(&code);
                let mut state = cpu.state();
                state.regs[0] = u64::MAX;
                state.regs[1] = COUNT;
                state.regs[6] = start + 0x8000;
                state.regs[7] = start;
                state.rflags |= if down { 0x400 } else { 0 };
                cpu.set_state(state);
                assert_eq!(cpu.run(&mut bus, stop), Exit::Limit);
                let moved = (stop * size).wrapping_mul(if down { u64::MAX } else { 1 });
                let state = cpu.state();
                assert_eq!(state.regs[1], COUNT - stop, "program {n} stop {stop}");
                // SCAS and CMPS find nothing different in zeros, STOS and SCAS use RDI only, LODS RSI only.
                let source = if uses_source { moved } else { 0 };
                assert_eq!(state.regs[6], (start + 0x8000).wrapping_add(source), "program {n}");
                run_to_halt(&mut cpu, &mut bus);
                assert_eq!((cpu.state().regs[1], cpu.state().retired), (0, COUNT + 1), "program {n}");
            }
        }
    }
}

#[test]
fn interrupts_between_iterations_resume_the_instruction() {
    let code = assemble(|a| {
        a.sti()?;
        a.mov(rdi, DATA)?;
        a.mov(ecx, 1000)?;
        a.mov(al, 0x5a)?;
        a.rep().stosb()?;
        a.hlt()
    });
    let rep = CODE + code.len() as u64 - 3;
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let at = HANDLERS + 0x40 * 16;
    let handler = assemble_at(at, |a| {
        a.inc(r15)?;
        a.mov(r14, qword_ptr(rsp))?;
        a.mov(r13, qword_ptr(rsp + 16))?;
        a.iretq()
    });
    bus.poke(at, &handler);
    for stop in [100, 105, 350, 700] {
        assert_eq!(cpu.run(&mut bus, stop), Exit::Limit);
        let left = cpu.state().regs[1];
        bus.interrupts.push(0x40);
        cpu.run(&mut bus, stop + 4);
        let state = cpu.state();
        assert_eq!((state.rip(), state.regs[1]), (rep, left));
        // RF is in the saved flags: the instruction is not done.
        assert_eq!((state.regs[14], state.regs[13] & 0x1_0200), (rep, 0x1_0200));
    }
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((cpu.state().regs[15], cpu.state().retired), (4, 4 + 1000 + 4 * 4 + 1));
    assert_eq!((bus.peek::<1>(DATA + 999), bus.peek::<1>(DATA + 1000)), ([0x5a], [0]));
}

#[test]
fn the_store_buffer_is_empty_when_an_interrupt_is_delivered() {
    let code = assemble(|a| {
        a.sti()?;
        a.mov(rbx, PMEM)?;
        a.mov(byte_ptr(rbx), 1)?;
        a.nop()?;
        a.nop()?;
        a.hlt()
    });
    for follows in [false, true] {
        let (mut cpu, mut bus) = machine_with_traps(&code);
        cpu.tell_store_buffer(follows);
        assert_eq!(cpu.run(&mut bus, 3), Exit::Limit);
        bus.interrupts.push(0x40);
        let stored = bus.told().len();
        run_to_halt(&mut cpu, &mut bus);
        assert_eq!(bus.told()[stored..], [Told::Visible][..usize::from(follows)]);
    }
}

#[test]
fn a_page_fault_in_the_middle_of_a_copy_is_resumed_by_its_handler() {
    // The destination's second page is mapped by the handler of #PF.
    let code = assemble(|a| {
        a.mov(rsi, DATA + 0x10_0000 - 0x8000)?;
        a.mov(rdi, DATA + 0xf00)?;
        a.mov(ecx, 0x400)?;
        a.rep().movsb()?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let base = DATA & !0x1f_ffff;
    for n in 0..512 {
        bus.poke64(0x7000 + n * 8, (base + n * 0x1000) | 3);
    }
    let entry = 0x7000 + ((DATA >> 12 & 0x1ff) + 1) * 8;
    bus.poke64(entry, (DATA + 0x1000) | 2);
    bus.poke64(0x3000 + (DATA >> 21) * 8, 0x7003);
    let at = HANDLERS + 14 * 16;
    let handler = assemble_at(at, |a| {
        a.or(dword_ptr(entry), 1)?;
        a.mov(r14, rcx)?;
        a.add(rsp, 8)?;
        a.iretq()
    });
    bus.poke(at, &handler);
    bus.poke(DATA + 0x10_0000 - 0x8000, &(0..=255).cycle().take(0x400).collect::<Vec<u8>>());
    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.regs[14], state.regs[1], state.regs[7]), (0x300, 0, DATA + 0x1300));
    assert_eq!(state.retired, 3 + 0x400 + 4 + 1);
    assert_eq!(bus.peek::<2>(DATA + 0xfff), [0xff, 0]);
    assert_eq!(bus.peek::<1>(DATA + 0x12ff), [0xff]);
}
