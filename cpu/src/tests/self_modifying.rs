//! Stores into code take effect at the next instruction, whoever makes them.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    blocks::{BLOCK_OPS, OPS},
    testing::DATA,
};

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
fn a_guest_that_generates_code_for_ever_does_not_fill_the_host() {
    let rounds = 3 * OPS as u64;
    let code = assemble(|a| {
        let mut again = a.create_label();
        let mut constant = a.create_label();
        a.xor(esi, esi)?;
        a.mov(ecx, rounds as u32)?;
        a.lea(rbx, ptr(constant))?;
        a.set_label(&mut again)?;
        a.inc(dword_ptr(rbx + 1))?;
        a.set_label(&mut constant)?;
        a.mov(eax, 0)?;
        a.add(rsi, rax)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs[6], rounds * (rounds + 1) / 2);
    assert!(cpu.code.kept() <= OPS + BLOCK_OPS);
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

#[test]
fn a_store_across_pages_changes_both_pages_of_code() {
    // Two functions: one ends at the page's end, the other begins there. One store changes both.
    let border = DATA + 0x1000;
    let code = assemble(|a| {
        a.mov(rdi, border - 2)?;
        a.mov(rsi, border)?;
        a.call(rdi)?;
        a.call(rsi)?;
        a.mov(rbx, border - 2)?;
        a.mov(rcx, 0x90c3_c3ff_90c3_c8ffu64)?; // dec eax in the first, ret; nop in the second
        a.mov(dword_ptr(rbx), ecx)?;
        a.call(rdi)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    // inc eax falls through into the next page: inc eax, ret.
    bus.poke(border - 2, &[0xff, 0xc0, 0xff, 0xc0, 0xc3]);
    run_to_halt(&mut cpu, &mut bus);
    // 2 + 1, then DEC and RET.
    assert_eq!(cpu.state().regs[0], 2);
}

#[test]
fn repeated_moves_and_stores_over_code_are_seen() {
    let function = DATA + 0x10;
    for stores in [false, true] {
        let code = assemble(|a| {
            a.mov(rdx, function)?;
            a.call(rdx)?;
            a.mov(rdi, function)?;
            a.mov(rsi, DATA + 0x2000)?;
            a.mov(ecx, 6)?;
            if stores {
                a.mov(al, 0x90)?;
                a.mov(ecx, 2)?;
                a.rep().stosb()?;
            } else {
                a.rep().movsb()?;
            }
            a.xor(eax, eax)?;
            a.call(rdx)?;
            a.hlt()
        });
        let (mut cpu, mut bus) = machine_with_traps(&code);
        bus.poke(function, &[0xff, 0xc0, 0xb0, 7, 0xc3, 0x90]); // inc eax; mov al, 7; ret
        bus.poke(DATA + 0x2000, &[0x90, 0x90, 0xb0, 9, 0xc3, 0x90]);
        run_to_halt(&mut cpu, &mut bus);
        assert_eq!(cpu.state().regs[0], if stores { 7 } else { 9 });
    }
}

#[test]
fn a_repeated_store_over_itself_goes_on_with_the_new_instruction() {
    // REP STOSB walks over its own bytes; each iteration is an instruction boundary at which the new bytes count. What
    // stands there then is HLT.
    let code = assemble(|a| {
        let mut rep = a.create_label();
        a.lea(rdi, ptr(rep))?;
        a.sub(rdi, 3)?;
        a.mov(ecx, 64)?;
        a.mov(al, 0xf4)?;
        a.nop()?;
        a.nop()?;
        a.nop()?;
        a.set_label(&mut rep)?;
        a.rep().stosb()?;
        a.nop()
    });
    let rep = CODE + code.len() as u64 - 3;
    let (mut cpu, mut bus) = machine_with_traps(&code);
    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    // Three bytes before, and the prefix.
    assert_eq!((state.rip(), state.regs[7], state.regs[1]), (rep + 1, rep + 1, 60));
}

#[test]
fn an_instruction_may_change_itself_for_the_next_time() {
    let code = assemble(|a| {
        let mut again = a.create_label();
        a.mov(ecx, 3)?;
        a.lea(rbx, ptr(again))?;
        a.set_label(&mut again)?;
        // 80 43 03 ib: the immediate is the last of four bytes.
        a.add(byte_ptr(rbx + 3), 16)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let immediate = CODE + code.len() as u64 - 6;
    assert_eq!(bus.peek::<4>(immediate - 3), [0x80, 0x43, 3, 16]);
    run_to_halt(&mut cpu, &mut bus);
    // 16 doubles each time.
    assert_eq!(bus.peek::<1>(immediate), [128]);
}

#[test]
fn bits_that_the_page_walker_sets_in_code_are_seen() {
    // A page table whose entry is at the same time an instruction: MOV EAX, imm32 with the accessed bit in its
    // immediate. The function is called before and after the walk that sets it.
    const TABLE: u64 = 0xd000;
    const LINEAR: u64 = 0x800_0000_0000;
    let code = assemble(|a| {
        a.mov(rdi, TABLE - 1)?;
        a.call(rdi)?;
        a.mov(esi, eax)?;
        a.mov(rbx, LINEAR)?;
        a.mov(cl, byte_ptr(rbx))?;
        a.call(rdi)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke64(crate::testing::TABLES + (LINEAR >> 39) * 8, 0xe000 | 3);
    bus.poke64(0xe000, 0xf000 | 3);
    bus.poke64(0xf000, TABLE | 3);
    bus.poke(TABLE - 1, &[0xb8]);
    bus.poke64(TABLE, DATA | 3);
    bus.poke(TABLE + 8, &[0xc3]);
    // The entry's upper half is ADD [RAX], AL twice: what is read into EAX can be written to.
    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.regs[6], state.regs[0]), (DATA | 3, DATA | 3 | 0x20));
}

#[test]
fn a_page_that_is_mapped_elsewhere_is_other_code() {
    // The same linear address, first one physical page, then another.
    const LINEAR: u64 = 0x800_0000_0000;
    let code = assemble(|a| {
        a.mov(rdi, LINEAR)?;
        a.call(rdi)?;
        a.mov(esi, eax)?;
        a.mov(ecx, 0xf000)?;
        a.mov(qword_ptr(rcx), (DATA as i32 + 0x1000) | 3)?;
        a.invlpg(byte_ptr(rdi))?;
        a.call(rdi)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke64(crate::testing::TABLES + (LINEAR >> 39) * 8, 0xd000 | 3);
    bus.poke64(0xd000, 0xe000 | 3);
    bus.poke64(0xe000, 0xf000 | 3);
    bus.poke64(0xf000, DATA | 3);
    bus.poke(DATA, &[0xb8, 1, 0, 0, 0, 0xc3]);
    bus.poke(DATA + 0x1000, &[0xb8, 2, 0, 0, 0, 0xc3]);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((cpu.state().regs[6], cpu.state().regs[0]), (1, 2));
}
