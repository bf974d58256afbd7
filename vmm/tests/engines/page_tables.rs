//! A kernel that changes page tables under its programs: whoever executes it, user mode must find them changed.

use iced_x86::code_asm::*;
use vmm::{Engine, Machine, Stop};

use crate::guest::*;

/// The program's page, its page table, the pages that it can stand for, and what is told.
const PAGE: u64 = 0x40_0000;
const TABLE: i32 = 0x8000;
const FIRST: i32 = 0x9000;
const SECOND: i32 = 0xa000;
const THIRD: i32 = 0xb000;
const TOLD: i32 = 0xc000;
/// How often the kernel changes the table.
const CHANGES: i32 = 60;

/// How the kernel makes a change known to the processor.
#[derive(Clone, Copy)]
enum Flush {
    Page,
    Everything,
}

/// A program that loads or stores as the kernel says (R13), and a kernel that in turns puts another page there, forbids to
/// write, copies on the write, and takes the page away. Whatever the program finds is told.
fn changing(flush: Flush) -> Vec<u8> {
    Guest::code(|g| {
        let (mut user, mut store, mut done, mut fault) =
            (g.create_label(), g.create_label(), g.create_label(), g.create_label());
        let (mut next, mut set, mut end) = (g.create_label(), g.create_label(), g.create_label());
        let mut busy = g.create_label();
        g.handle(6, done);
        g.handle(14, fault);
        g.prepare_user_mode()?;
        // The page directory.
        g.mov(rax, cr3)?;
        for _ in 0..2 {
            g.mov(rax, qword_ptr(rax))?;
            g.and(rax, -4096)?;
        }
        g.lea(rcx, qword_ptr(rbp + TABLE + 7))?;
        g.mov(qword_ptr(rax + 16), rcx)?;
        g.lea(rcx, qword_ptr(rbp + FIRST + 7))?;
        g.mov(qword_ptr(rbp + TABLE), rcx)?;
        for (page, value) in [(FIRST, 0x111), (SECOND, 0x222), (THIRD, 0x333)] {
            g.mov(qword_ptr(rbp + page), value)?;
        }
        g.mov(rax, cr3)?;
        g.mov(cr3, rax)?;
        g.mov(ebx, PAGE as u32)?;
        g.xor(r13d, r13d)?;
        g.xor(r14d, r14d)?;
        g.xor(r15d, r15d)?;
        g.enter_user_mode(user)?;

        g.set_label(&mut user)?;
        g.test(r13d, r13d)?;
        g.jne(store)?;
        g.mov(rax, qword_ptr(rbx))?;
        g.ud2()?;
        g.set_label(&mut store)?;
        g.mov(qword_ptr(rbx), r13)?;
        g.mov(rax, r13)?;
        g.ud2()?;

        g.set_label(&mut done)?;
        g.jmp(next)?;
        g.set_label(&mut fault)?;
        g.pop(rax)?;
        g.or(eax, 0x1000)?;
        g.set_label(&mut next)?;
        // Takes a while, so that it is not KVM that executes the rest where it is not to execute the kernel.
        g.mov(ecx, 1000)?;
        g.set_label(&mut busy)?;
        g.dec(ecx)?;
        g.jne(busy)?;
        g.mov(qword_ptr(rbp + r14 * 8 + TOLD), rax)?;
        g.inc(r14d)?;
        g.cmp(r14d, CHANGES)?;
        g.je(end)?;
        g.lea(rax, ptr(user))?;
        g.mov(qword_ptr(rsp), rax)?;
        g.inc(r15d)?;
        g.and(r15d, 3)?;
        let turns = [(SECOND + 7, 0), (FIRST + 5, 0x444), (THIRD + 7, 0x555)];
        for (turn, (entry, what)) in (1..).zip(turns) {
            let mut other = g.create_label();
            g.cmp(r15d, turn)?;
            g.jne(other)?;
            g.lea(rcx, qword_ptr(rbp + entry))?;
            g.mov(r13d, what)?;
            g.jmp(set)?;
            g.set_label(&mut other)?;
        }
        g.xor(ecx, ecx)?;
        g.xor(r13d, r13d)?;
        g.set_label(&mut set)?;
        g.mov(qword_ptr(rbp + TABLE), rcx)?;
        match flush {
            Flush::Page => g.invlpg(byte_ptr(rbx))?,
            Flush::Everything => {
                g.mov(rax, cr3)?;
                g.mov(cr3, rax)?;
            }
        }
        g.iretq()?;
        g.set_label(&mut end)?;
        g.cmp(eax, eax)
    })
}

fn told(machine: &Machine) -> Vec<u64> {
    (0..CHANGES as u64).map(|at| word(machine, DATA + TOLD as u64 + 8 * at)).collect()
}

/// What the program finds: the first page; then, in turns, the second, that it may not write, what it stored, nothing.
fn expected() -> Vec<u64> {
    let turns = [0x222, 0x1007, 0x555, 0x1004];
    [0x111].into_iter().chain(turns.into_iter().cycle()).take(CHANGES as usize).collect()
}

#[test]
fn user_mode_finds_page_tables_as_the_kernel_left_them_whoever_executes_it() {
    for flush in [Flush::Page, Flush::Everything] {
        let config = config(&changing(flush));
        let (Some(usual), Some([alone, software])) = (as_is(&config), on_both(&config)) else { return };
        for mut machine in [software, usual, alone] {
            assert_eq!(machine.run(BUDGET), Stop::DebugExit(21), "{:?}", machine.cpu_state());
            assert_eq!(told(&machine), expected(), "{:?}", machine.engine());
        }
    }
}

#[test]
fn a_level_takes_page_tables_back_for_user_mode_too() {
    let Some(mut machine) = as_is(&config(&changing(Flush::Page))) else { return };
    for _ in 0..5 {
        machine.push();
        for _ in 0..3 {
            machine.run(300_000);
        }
        machine.pop();
    }
    assert_eq!(machine.run(BUDGET), Stop::DebugExit(21));
    assert_eq!((told(&machine), machine.engine()), (expected(), Engine::Kvm));
}
