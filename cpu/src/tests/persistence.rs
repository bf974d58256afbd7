//! What the bus hears of persistent memory, and in which order.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    DrainKind, FlushKind, StoreKind,
    testing::{DATA, PMEM, Told},
};

fn told_by(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<Told> {
    let code = assemble(|a| {
        a.mov(rbx, PMEM)?;
        program(a)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().rip(), CODE + code.len() as u64);
    bus.told()
}

fn store(offset: u64, bytes: &[u8]) -> Told {
    Told::Store(PMEM + offset, bytes.to_vec(), StoreKind::Cached)
}

#[test]
fn store_flush_fence_are_told_in_order() {
    let told = told_by(|a| {
        a.mov(dword_ptr(rbx + 4), 0x0403_0201)?;
        a.clwb(byte_ptr(rbx + 5))?;
        a.sfence()?;
        a.mov(byte_ptr(rbx + 64), 9)?;
        a.clflushopt(byte_ptr(rbx + 64))?;
        a.clflush(byte_ptr(rbx + 127))?;
        a.mfence()?;
        a.lfence()
    });
    let expected = [
        store(4, &[1, 2, 3, 4]),
        Told::Flush(PMEM, FlushKind::Clwb),
        Told::Drain(DrainKind::Sfence),
        store(64, &[9]),
        Told::Flush(PMEM + 64, FlushKind::Clflushopt),
        Told::Flush(PMEM + 64, FlushKind::Clflush),
        Told::Drain(DrainKind::Mfence),
    ];
    assert_eq!(told, expected);
}

#[test]
fn fences_are_told_always_and_other_drains_only_with_something_pending() {
    let told = told_by(|a| {
        a.mov(ecx, DATA as u32)?;
        a.sfence()?;
        a.lock().inc(dword_ptr(rcx))?;
        a.mov(dword_ptr(rbx), 1)?;
        a.lock().inc(dword_ptr(rcx))?;
        a.movnti(dword_ptr(rbx), eax)?;
        a.lock().inc(dword_ptr(rcx))?;
        a.lock().inc(dword_ptr(rcx))?;
        a.clwb(byte_ptr(rbx))?;
        a.mov(rax, cr3)?;
        a.mov(cr3, rax)?;
        a.mov(cr3, rax)
    });
    let expected = [
        Told::Drain(DrainKind::Sfence),
        store(0, &[1, 0, 0, 0]),
        Told::Store(PMEM, vec![0; 4], StoreKind::NonTemporal),
        Told::Drain(DrainKind::Locked),
        Told::Flush(PMEM, FlushKind::Clwb),
        Told::Drain(DrainKind::Serialising),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_locked_store_is_told_behind_its_drain() {
    let told = told_by(|a| {
        a.clwb(byte_ptr(rbx))?;
        a.mov(eax, 5)?;
        a.xchg(dword_ptr(rbx), eax)
    });
    let expected =
        [Told::Flush(PMEM, FlushKind::Clwb), Told::Drain(DrainKind::Locked), store(0, &[5, 0, 0, 0])];
    assert_eq!(told, expected);
}

#[test]
fn flushes_of_ordinary_memory_are_not_told() {
    let told = told_by(|a| {
        a.mov(ecx, DATA as u32)?;
        a.clwb(byte_ptr(rcx))?;
        a.wbinvd()
    });
    assert_eq!(told, [Told::Drain(DrainKind::WriteBackAll)]);
}

#[test]
fn devices_and_ports_drain_what_is_pending() {
    let told = told_by(|a| {
        a.clwb(byte_ptr(rbx))?;
        a.mov(ecx, 0xf000_0000u32)?;
        a.mov(eax, dword_ptr(rcx))?;
        a.clwb(byte_ptr(rbx))?;
        a.out(0x80, al)?;
        a.out(0x80, al)
    });
    let expected = [
        Told::Flush(PMEM, FlushKind::Clwb),
        Told::Drain(DrainKind::Uncached),
        Told::MmioRead(0xf000_0000, 4),
        Told::Flush(PMEM, FlushKind::Clwb),
        Told::Drain(DrainKind::Uncached),
        Told::PortWrite(0x80, 1, 0),
        Told::PortWrite(0x80, 1, 0),
    ];
    assert_eq!(told, expected);
}

#[test]
fn control_ports_drain_nothing() {
    let told = told_by(|a| {
        a.clwb(byte_ptr(rbx))?;
        a.mov(dx, u32::from(crate::testing::CONTROL_PORT))?;
        a.out(dx, al)?;
        a.sfence()
    });
    let expected = [
        Told::Flush(PMEM, FlushKind::Clwb),
        Told::PortWrite(crate::testing::CONTROL_PORT, 1, 0),
        Told::Drain(DrainKind::Sfence),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_store_across_pages_arrives_as_two() {
    let told = told_by(|a| {
        a.mov(rax, 0x0807_0605_0403_0201u64)?;
        a.mov(qword_ptr(rbx + 0xffd), rax)
    });
    assert_eq!(told, [store(0xffd, &[1, 2, 3]), store(0x1000, &[4, 5, 6, 7, 8])]);
}

#[test]
fn interrupts_drain_nothing_and_iret_does() {
    let code = assemble(|a| {
        a.mov(rbx, PMEM)?;
        a.clwb(byte_ptr(rbx))?;
        a.int(0x40)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke(HANDLERS + 0x40 * 16, &assemble_at(HANDLERS + 0x40 * 16, |a| a.iretq()));
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(bus.told(), [Told::Flush(PMEM, FlushKind::Clwb), Told::Drain(DrainKind::Serialising)]);
    assert_eq!(bus.told[1].1.rip, HANDLERS + 0x40 * 16);
}

#[test]
fn views_say_who_and_where() {
    let code = assemble(|a| {
        a.mov(rbx, PMEM)?;
        a.nop()?;
        a.mov(dword_ptr(rbx), eax)
    });
    let (mut cpu, mut bus) = user_machine(&code);
    let stack = cpu.state().regs[4];
    cpu.run(&mut bus, 3);
    let view = bus.told[0].1;
    assert_eq!((view.vcpu, view.cpl, view.rip, view.rsp, view.retired), (0, 3, CODE + 11, stack, 2));
}

#[test]
fn rep_stores_tell_each_line_and_the_first_iteration() {
    let told = told_by(|a| {
        a.mov(rdi, PMEM + 62)?;
        a.mov(ecx, 5)?;
        a.mov(eax, 7)?;
        a.rep().stosb()
    });
    let rep =
        |offset: u64, len, first| Told::Store(PMEM + offset, vec![7; len], StoreKind::CachedRep { first });
    assert_eq!(told, [rep(62, 2, true), rep(64, 3, false)]);
}

/// Line by line, what REP STOSB of 128 bytes tells when the run ends wherever `limits` say, and whether `meanwhile`
/// something is delivered.
fn rep_in_parts(limits: &[u64], interrupted: bool) -> Vec<bool> {
    let code = assemble(|a| {
        a.mov(rdi, PMEM)?;
        a.mov(ecx, 128)?;
        a.rep().stosb()?;
        a.mov(ecx, 1)?;
        a.rep().stosb()?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let handler = HANDLERS + 0x40 * 16;
    bus.poke(handler, &assemble_at(handler, |a| a.iretq()));
    let mut state = cpu.state();
    state.rflags |= 0x200;
    cpu.set_state(state);
    for limit in limits {
        assert_eq!(cpu.run(&mut bus, *limit), crate::Exit::Limit);
        // What a snapshot keeps is enough.
        let kept = cpu.state();
        cpu.set_state(kept);
        if interrupted {
            bus.interrupts.push(0x40);
        }
    }
    run_to_halt(&mut cpu, &mut bus);
    let first = |told: &Told| match told {
        Told::Store(_, _, StoreKind::CachedRep { first }) => Some(*first),
        _ => None,
    };
    bus.told().iter().filter_map(first).collect()
}

#[test]
fn a_rep_that_the_end_of_a_run_divides_stays_one_execution() {
    assert_eq!(rep_in_parts(&[], false), [true, false, true]);
    assert_eq!(rep_in_parts(&[10, 11, 12], false), [true, false, false, false, false, true]);
    // Ends between the two instructions.
    assert_eq!(rep_in_parts(&[130], false), [true, false, true]);
}

#[test]
fn a_rep_that_an_interrupt_divides_is_executed_twice() {
    assert_eq!(rep_in_parts(&[10], true), [true, true, false, true]);
}
