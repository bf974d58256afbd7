//! Stores into code take effect at the next instruction, whoever makes them.

use iced_x86::code_asm::*;

use super::*;
use crate::testing::DATA;

#[test]
fn a_store_changes_the_next_instruction_of_the_running_block() {
    let code = assemble(|a| {
        let mut next = a.create_label();
        a.lea(rbx, ptr(next))?;
        a.mov(byte_ptr(rbx + 1), 7)?;
        a.set_label(&mut next)?;
        a.mov(eax, 1)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs[0], 7);
}

#[test]
fn a_loop_that_rewrites_its_own_constant_sees_every_value() {
    let code = assemble(|a| {
        let mut again = a.create_label();
        let mut constant = a.create_label();
        a.xor(esi, esi)?;
        a.mov(ecx, 5)?;
        a.lea(rbx, ptr(constant))?;
        a.set_label(&mut again)?;
        a.inc(byte_ptr(rbx + 1))?;
        a.set_label(&mut constant)?;
        a.mov(eax, 0)?;
        a.add(esi, eax)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs[6], 1 + 2 + 3 + 4 + 5);
}

#[test]
fn code_patched_through_another_mapping_is_seen() {
    // The first GiB is mapped a second time at 1 GiB by a huge page.
    let alias = 1u64 << 30;
    let code = assemble(|a| {
        a.mov(rdi, DATA)?;
        a.call(rdi)?;
        a.mov(esi, eax)?;
        a.mov(rbx, alias + DATA + 1)?;
        a.mov(dword_ptr(rbx), 42)?;
        a.call(rdi)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke64(0x2008, 0x83);
    bus.poke(DATA, &[0xb8, 1, 0, 0, 0, 0xc3]); // mov eax, 1; ret
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((cpu.state().regs[6], cpu.state().regs[0]), (1, 42));
}

#[test]
fn an_int3_patched_in_is_hit() {
    let code = assemble(|a| {
        a.mov(rdi, DATA)?;
        a.call(rdi)?;
        a.mov(byte_ptr(rdi), 0xcc)?;
        a.call(rdi)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke(DATA, &[0x90, 0xc3]);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip), (3, DATA + 1));
}

#[test]
fn memory_changed_behind_the_processor_is_seen_once_told() {
    let code = assemble(|a| {
        a.mov(rdi, DATA)?;
        a.call(rdi)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let start = cpu.state();
    for value in [1u8, 2] {
        bus.poke(DATA, &[0xb8, value, 0, 0, 0, 0xc3]);
        cpu.memory_changed(DATA >> 12);
        let mut state = start.clone();
        state.retired = cpu.state().retired;
        cpu.set_state(state);
        run_to_halt(&mut cpu, &mut bus);
        assert_eq!(cpu.state().regs[0], u64::from(value));
    }
}

#[test]
fn an_instruction_across_pages_follows_changes_of_both() {
    // mov eax, imm32 with its opcode at the end of one page.
    let at = DATA + 0xffe;
    for changed in [at + 1, at + 3] {
        let code = assemble(|a| {
            a.mov(rdi, at)?;
            a.call(rdi)?;
            a.mov(esi, eax)?;
            a.mov(rbx, changed)?;
            a.inc(byte_ptr(rbx))?;
            a.call(rdi)?;
            a.hlt()
        });
        let (mut cpu, mut bus) = machine_with_traps(&code);
        bus.poke(at, &[0xb8, 1, 0, 0, 0, 0xc3]);
        run_to_halt(&mut cpu, &mut bus);
        let step = 1 << (8 * (changed - at - 1));
        assert_eq!((cpu.state().regs[6], cpu.state().regs[0]), (1, 1 + step));
    }
}

#[test]
fn a_store_next_to_code_in_its_page_changes_nothing() {
    let code = assemble(|a| {
        let mut again = a.create_label();
        a.mov(rbx, CODE + 0x800)?;
        a.mov(ecx, 100)?;
        a.set_label(&mut again)?;
        a.inc(qword_ptr(rbx))?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(bus.peek64(CODE + 0x800), 100);
}

#[test]
fn a_repeated_store_that_overwrites_itself_ends_with_the_iteration_that_does() {
    // The second iteration writes over REP STOSQ and what follows: sixteen bytes of NOP, then HLT.
    let code = assemble(|a| {
        let mut store = a.create_label();
        a.lea(rdi, ptr(store))?;
        a.sub(rdi, 8)?;
        a.mov(rax, 0x9090_9090_9090_9090u64)?;
        a.mov(ecx, 100)?;
        a.nops_with_size(8)?;
        a.set_label(&mut store)?;
        a.rep().stosq()?;
        a.nops_with_size(5)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs[1], 98);
    assert_eq!(bus.peek(CODE + code.len() as u64 - 1), [0xf4]);
}
