//! Alignment checks: CR0.AM and RFLAGS.AC at CPL 3.

use iced_x86::code_asm::*;

use super::*;
use crate::testing::{DATA, STACK};

const AM: u64 = 1 << 18;
const AC: u64 = 1 << 18;

/// Vector raised by `code` with RBX at `address`, `None` if it reaches its INT 0x77 at the end.
fn raised(code: &[u8], address: u64) -> Option<u64> {
    let (mut cpu, mut bus) = user_machine(&[code, &[0xcd, 0x77]].concat());
    bus.poke(IDT + 0x77 * 16, &gate(0x77, 0, 0xee).to_le_bytes());
    let mut state = cpu.state();
    state.cr0 |= AM;
    state.rflags |= AC;
    for register in [3, 6, 7] {
        state.regs[register] = address;
    }
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    let vector = (cpu.state().rip() - 1 - HANDLERS) / 16;
    if vector == 17 {
        assert_eq!(bus.peek64(cpu.state().regs[4]), 0, "error code");
    }
    (vector != 0x77).then_some(vector)
}

#[test]
fn every_kind_of_operand_has_its_alignment() {
    type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let cases: [(&str, u64, Program); 31] = [
        ("load 1", 1, |a| a.mov(al, byte_ptr(rbx))),
        ("load 2", 2, |a| a.mov(ax, word_ptr(rbx))),
        ("load 4", 4, |a| a.mov(eax, dword_ptr(rbx))),
        ("load 8", 8, |a| a.mov(rax, qword_ptr(rbx))),
        ("store 2", 2, |a| a.mov(word_ptr(rbx), ax)),
        ("store 4", 4, |a| a.mov(dword_ptr(rbx), eax)),
        ("store 8", 8, |a| a.mov(qword_ptr(rbx), rax)),
        ("add 4", 4, |a| a.add(dword_ptr(rbx), eax)),
        ("lock add 8", 8, |a| a.lock().add(qword_ptr(rbx), rax)),
        ("cmpxchg 4", 4, |a| a.cmpxchg(dword_ptr(rbx), ecx)),
        ("cmpxchg8b", 8, |a| a.cmpxchg8b(qword_ptr(rbx))),
        ("movups load", 16, |a| a.movups(xmm0, xmmword_ptr(rbx))),
        ("movdqu store", 16, |a| a.movdqu(xmmword_ptr(rbx), xmm0)),
        ("lddqu", 16, |a| a.lddqu(xmm0, xmmword_ptr(rbx))),
        ("pcmpistri", 16, |a| a.pcmpistri(xmm0, xmmword_ptr(rbx), 0)),
        ("movsd", 8, |a| a.movsd_2(xmm0, qword_ptr(rbx))),
        ("movss", 4, |a| a.movss(xmm0, dword_ptr(rbx))),
        ("movhps", 8, |a| a.movhps(xmm0, qword_ptr(rbx))),
        ("pmovzxbw", 8, |a| a.pmovzxbw(xmm0, qword_ptr(rbx))),
        ("movnti", 8, |a| a.movnti(qword_ptr(rbx), rax)),
        ("stmxcsr", 4, |a| a.stmxcsr(dword_ptr(rbx))),
        ("fld single", 4, |a| a.fld(dword_ptr(rbx))),
        ("fld double", 8, |a| a.fld(qword_ptr(rbx))),
        ("fld extended", 8, |a| a.fld(tword_ptr(rbx))),
        ("fnstenv", 4, |a| a.fnstenv(fword_ptr(rbx))),
        ("fbld", 8, |a| a.fbld(tword_ptr(rbx))),
        ("movsq", 8, |a| a.movsq()),
        ("rep movsd", 4, |a| {
            a.mov(ecx, 5)?;
            a.rep().movsd()
        }),
        ("rep stosw", 2, |a| {
            a.mov(ecx, 5)?;
            a.rep().stosw()
        }),
        ("clflush", 1, |a| a.clflush(byte_ptr(rbx))),
        ("maskmovdqu", 8, |a| {
            a.pcmpeqb(xmm0, xmm0)?;
            a.maskmovdqu(xmm0, xmm0)
        }),
    ];
    for (name, alignment, program) in cases {
        let code = assemble(program);
        for offset in 1..=16 {
            let expected = (offset % alignment != 0).then_some(17);
            assert_eq!(raised(&code, DATA + offset), expected, "{name} at offset {offset}");
        }
    }
}

#[test]
fn the_stack_is_checked_but_not_the_processors_own_pushes() {
    let push = assemble(|a| {
        a.mov(rsp, STACK - 4)?;
        a.push(rax)
    });
    assert_eq!(raised(&push, DATA), Some(17));
    // Delivery reads the TSS at an odd place: implicit accesses are the supervisor's.
    let (mut cpu, mut bus) = user_machine(&[0x0f, 0x0b]);
    let tss = bus.peek64(TSS + 4);
    bus.poke64(TSS + 1 + 4, tss);
    let mut state = cpu.state();
    state.tr.base = TSS + 1;
    state.cr0 |= AM;
    state.rflags |= AC;
    cpu.set_state(state);
    assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 6);
}

#[test]
fn operands_that_must_be_aligned_anyway_raise_gp() {
    let code = assemble(|a| a.movaps(xmm0, xmmword_ptr(rbx)));
    assert_eq!(raised(&code, DATA + 8), Some(13));
}

#[test]
fn page_faults_and_addresses_that_are_not_canonical_come_first() {
    let load = assemble(|a| a.mov(rax, qword_ptr(rbx)));
    let store = assemble(|a| a.mov(qword_ptr(rbx), rax));
    for code in [&load, &store] {
        assert_eq!(raised(code, 0x20_0000_0001), Some(14));
        // The second of two pages.
        assert_eq!(raised(code, (4 << 30) - 4), Some(14));
        assert_eq!(raised(code, (1 << 47) + 1), Some(13));
    }
}

#[test]
fn it_takes_both_bits_and_user_mode() {
    let code = assemble(|a| {
        a.mov(rbx, DATA + 1)?;
        a.mov(rax, qword_ptr(rbx))?;
        a.int3()
    });
    for (user, am, ac) in [(true, 0, AC), (true, AM, 0), (false, AM, AC)] {
        let (mut cpu, mut bus) = if user { user_machine(&code) } else { machine_with_traps(&code) };
        bus.poke(IDT + 3 * 16, &gate(3, 0, 0xee).to_le_bytes());
        let mut state = cpu.state();
        state.cr0 |= am;
        state.rflags |= ac;
        cpu.set_state(state);
        assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 3);
    }
}

#[test]
fn popf_switches_the_checks_on_and_off_within_a_program() {
    let code = assemble(|a| {
        a.mov(rbx, DATA + 1)?;
        a.mov(rax, qword_ptr(rbx))?;
        a.push(0x4_0002)?;
        a.popfq()?;
        a.mov(rcx, qword_ptr(rbx + 7))?;
        a.push(2)?;
        a.popfq()?;
        a.mov(qword_ptr(rbx), rax)?;
        a.push(0x4_0002)?;
        a.popfq()?;
        a.mov(qword_ptr(rbx), rax)
    });
    let (mut cpu, mut bus) = user_machine(&code);
    let mut state = cpu.state();
    state.cr0 |= AM;
    cpu.set_state(state);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip), (17, CODE + code.len() as u64 - 3));
}
