//! The LOCK prefix, interrupt shadows, and the clock.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    DrainKind, Exit,
    testing::{DATA, PMEM, Told},
};

#[test]
fn lock_is_undefined_where_it_is_not_allowed() {
    let forms: [(&str, &[u8]); 12] = [
        ("add to a register", b"\xf0\x01\xc8"),
        ("load", b"\xf0\x48\x8b\x03"),
        ("add from memory", b"\xf0\x48\x03\x03"),
        ("mov to memory", b"\xf0\x48\x89\x03"),
        ("cmp", b"\xf0\x48\x39\x03"),
        ("test", b"\xf0\x48\x85\x03"),
        ("nop", b"\xf0\x90"),
        ("bt", b"\xf0\x0f\xa3\x03"),
        ("push", b"\xf0\x50"),
        ("imul", b"\xf0\x0f\xaf\x03"),
        ("shl", b"\xf0\xd1\x23"),
        ("movs", b"\xf0\xa4"),
    ];
    for (name, code) in forms {
        let (mut cpu, mut bus) = machine_with_traps(code);
        cpu.set_register(3, DATA);
        let frame = run_to_handler(&mut cpu, &mut bus);
        assert_eq!((frame.vector, frame.rip), (6, CODE), "{name}");
    }
}

#[test]
fn every_form_that_may_be_locked_does_what_it_does_without() {
    type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let programs: [Program; 17] = [
        |a| a.add(qword_ptr(rbx), rcx),
        |a| a.adc(qword_ptr(rbx), rcx),
        |a| a.and(qword_ptr(rbx), rcx),
        |a| a.or(dword_ptr(rbx), 0x55),
        |a| a.sub(word_ptr(rbx), cx),
        |a| a.sbb(byte_ptr(rbx), cl),
        |a| a.xor(qword_ptr(rbx), rcx),
        |a| a.inc(dword_ptr(rbx)),
        |a| a.dec(qword_ptr(rbx)),
        |a| a.neg(qword_ptr(rbx)),
        |a| a.not(qword_ptr(rbx)),
        |a| a.xadd(qword_ptr(rbx), rcx),
        |a| a.xchg(qword_ptr(rbx), rcx),
        |a| a.cmpxchg(qword_ptr(rbx), rcx),
        |a| a.cmpxchg8b(qword_ptr(rbx)),
        |a| a.bts(qword_ptr(rbx), rcx),
        |a| a.btc(dword_ptr(rbx), 7),
    ];
    for (n, program) in programs.into_iter().enumerate() {
        let plain = assemble(program);
        let results = [plain.clone(), [&[0xf0], &plain[..]].concat()].map(|code| {
            let (mut cpu, mut bus) = machine_with_traps(&[&code[..], &[0xf4]].concat());
            for (register, value) in [(0, 0x77), (1, 0x1234_5678_9abc_def1), (2, 0), (3, DATA)] {
                cpu.set_register(register, value);
            }
            bus.poke64(DATA, 0x77);
            run_to_halt(&mut cpu, &mut bus);
            let state = cpu.state();
            (state.regs[..16].to_vec(), state.rflags, bus.peek64(DATA))
        });
        assert_eq!(results[0], results[1], "program {n}");
    }
}

#[test]
fn a_locked_access_to_a_device_reads_and_writes_it_once() {
    let code = assemble(|a| {
        a.mov(rbx, 0xf000_0000u64)?;
        a.lock().add(dword_ptr(rbx), 5)?;
        a.xchg(dword_ptr(rbx + 4), ecx)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.device_value = 100;
    run_to_halt(&mut cpu, &mut bus);
    let expected = [
        Told::MmioRead(0xf000_0000, 4),
        Told::MmioWrite(0xf000_0000, 4, 105),
        Told::MmioRead(0xf000_0004, 4),
        Told::MmioWrite(0xf000_0004, 4, 0),
    ];
    assert_eq!((bus.told(), cpu.state().regs[1]), (expected.to_vec(), 100));
}

#[test]
fn a_locked_access_across_pages_and_lines_is_whole_and_drains_first() {
    let at = PMEM + 0xffc;
    let code = assemble(|a| {
        a.mov(rbx, at)?;
        a.clwb(byte_ptr(rbx))?;
        a.lock().add(qword_ptr(rbx), rcx)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    cpu.set_register(1, 0x1_0000_0001);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(bus.peek64(at), 0x1_0000_0001);
    assert!(matches!(
        bus.told()[..],
        [Told::Flush(..), Told::Drain(DrainKind::Locked), Told::Store(..), Told::Store(..)]
    ));
}

#[test]
fn a_locked_access_that_faults_leaves_everything() {
    let code = assemble(|a| {
        a.mov(rbx, (4u64 << 30) - 4)?;
        a.lock().xadd(qword_ptr(rbx), rcx)
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    cpu.set_register(1, 7);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code, cpu.state().regs[1]), (14, Some(2), 7));
    assert_eq!((cpu.state().cr2, bus.told()), (4 << 30, vec![]));
}

#[test]
fn only_an_sti_that_changes_the_flag_has_a_shadow() {
    // With the flag set already, a waiting interrupt is taken at once.
    let code = assemble(|a| {
        a.sti()?;
        a.inc(eax)?;
        a.inc(eax)
    });
    for (flags, executed) in [(2, 1), (0x202, 0)] {
        let (mut cpu, mut bus) = machine_with_traps(&code);
        let mut state = cpu.state();
        state.rflags = flags;
        cpu.set_state(state);
        assert_eq!(cpu.run(&mut bus, 1), Exit::Limit);
        bus.interrupts.push(0x40);
        let frame = run_to_handler(&mut cpu, &mut bus);
        assert_eq!((frame.vector, cpu.state().regs[0]), (0x40, executed), "flags {flags:#x}");
    }
}

#[test]
fn sti_cli_never_lets_an_interrupt_in() {
    let code = assemble(|a| {
        let mut again = a.create_label();
        a.mov(ecx, 20)?;
        a.set_label(&mut again)?;
        a.sti()?;
        a.cli()?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.interrupts.push(0x40);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((cpu.state().rip(), &bus.interrupts[..]), (CODE + code.len() as u64, &[0x40][..]));
}

#[test]
fn a_shadow_outlives_the_end_of_a_run_but_not_its_instruction() {
    let code = assemble(|a| {
        a.sti()?;
        a.inc(eax)?;
        a.inc(eax)
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.interrupts.push(0x40);
    assert_eq!(cpu.run(&mut bus, 1), Exit::Limit);
    let state = cpu.state();
    assert!(state.interrupt_shadow && !state.stack_shadow);
    let mut other: Cpu<TestBus> = Cpu::new(1, 0);
    other.set_state(state);
    assert_eq!(other.run(&mut bus, 2), Exit::Limit);
    assert!(!other.state().interrupt_shadow);
    assert_eq!(run_to_handler(&mut other, &mut bus).rip, CODE + 3);
}

#[test]
fn user_mode_may_use_sti_with_the_io_privilege() {
    let code = assemble(|a| {
        a.sti()?;
        a.inc(eax)?;
        a.inc(eax)
    });
    let (mut cpu, mut bus) = user_machine(&code);
    let mut state = cpu.state();
    state.rflags |= 0x3000;
    cpu.set_state(state);
    bus.interrupts.push(0x40);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.cs, frame.rip), (0x40, USER_CODE.into(), CODE + 3));
}

#[test]
fn the_clock_never_goes_back_and_counts_every_instruction() {
    // Reads the clock around an interrupt, a HLT and a REP; compares neighbours.
    let code = assemble(|a| {
        let mut again = a.create_label();
        a.mov(rbx, DATA)?;
        a.set_label(&mut again)?;
        a.rdtsc()?;
        a.shl(rdx, 32)?;
        a.or(rax, rdx)?;
        a.mov(qword_ptr(rbx), rax)?;
        a.add(rbx, 8)?;
        a.rdtscp()?;
        a.shl(rdx, 32)?;
        a.or(rax, rdx)?;
        a.mov(qword_ptr(rbx), rax)?;
        a.add(rbx, 8)?;
        a.mov(rdi, DATA + 0x4000)?;
        a.mov(ecx, 33)?;
        a.rep().stosb()?;
        a.sti()?;
        a.hlt()?;
        a.jmp(again)
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let at = HANDLERS + 0x40 * 16;
    bus.poke(at, &assemble_at(at, |a| a.iretq()));
    for round in 0..20 {
        assert_eq!(cpu.run(&mut bus, u64::MAX), Exit::Halted);
        let before = cpu.time();
        cpu.advance_time(1000 * round);
        assert_eq!(cpu.time(), before + 1000 * round);
        bus.interrupts.push(0x40);
    }
    let reads: Vec<u64> = (0..40).map(|n| bus.peek64(DATA + 8 * n)).collect();
    for pair in reads.chunks(2) {
        assert_eq!(pair[1] - pair[0], 5);
    }
    // From RDTSCP to the next RDTSC: 6, 33 iterations, STI, HLT, IRET, JMP, and what was slept.
    for (round, pair) in reads[1..].chunks_exact(2).enumerate() {
        assert_eq!(pair[1] - pair[0], 5 + 2 + 33 + 4 + 1000 * round as u64, "round {round}");
    }
}

#[test]
fn the_clock_may_be_for_the_kernel_only() {
    for (code, who) in [(assemble(|a| a.rdtsc()), "RDTSC"), (assemble(|a| a.rdtscp()), "RDTSCP")] {
        let (mut cpu, mut bus) = user_machine(&code);
        let mut state = cpu.state();
        state.cr4 |= 4;
        cpu.set_state(state);
        let frame = run_to_handler(&mut cpu, &mut bus);
        assert_eq!((frame.vector, frame.code, frame.rip), (13, Some(0), CODE), "{who}");
        let (mut cpu, mut bus) = machine_with_traps(&[&code[..], &[0xf4]].concat());
        let mut state = cpu.state();
        state.cr4 |= 4;
        cpu.set_state(state);
        run_to_halt(&mut cpu, &mut bus);
        assert!(cpu.state().rip() < HANDLERS, "{who}");
    }
}
