//! Interrupts and time.

use iced_x86::code_asm::*;
use vmm::{Machine, Stop};

use crate::guest::*;

const LAPIC: u32 = 0xfee0_0000;
const VECTOR: u8 = 0x40;

/// Enables the local APIC, with its registers at RDI, and counts interrupts with [`VECTOR`] at RBP.
fn counting(g: &mut Guest) -> Result<CodeLabel, iced_x86::IcedError> {
    let handler = g.create_label();
    g.handle(VECTOR, handler);
    g.mov(edi, LAPIC)?;
    g.mov(dword_ptr(rdi + 0xf0), 0x1ff)?;
    Ok(handler)
}

/// The handler itself, jumped over.
fn handler(g: &mut Guest, mut label: CodeLabel) -> Result<(), iced_x86::IcedError> {
    let mut over = g.create_label();
    g.jmp(over)?;
    g.set_label(&mut label)?;
    g.inc(dword_ptr(rbp))?;
    g.mov(dword_ptr(rdi + 0xb0), 0)?;
    g.iretq()?;
    g.set_label(&mut over)?;
    g.nop()
}

/// Waits for an interrupt, then lets none in. A KVM that emulates looks for interrupts now and then only.
fn until_one(g: &mut Guest) -> Result<(), iced_x86::IcedError> {
    let mut wait = g.create_label();
    g.set_label(&mut wait)?;
    g.cmp(dword_ptr(rbp), 0)?;
    g.je(wait)?;
    g.cli()
}

/// Runs on both engines.
fn interrupts(code: &[u8]) -> Option<[Machine; 2]> {
    let mut machines = on_both(&config(code))?;
    for machine in &mut machines {
        let stop = machine.run(BUDGET);
        assert_eq!(stop, Stop::DebugExit(21), "{:?} at {:#x}", machine.engine(), machine.cpu_state().rip());
    }
    Some(machines)
}

/// How many interrupts each had.
fn counts(machines: &[Machine; 2]) -> [u32; 2] {
    machines.each_ref().map(|machine| word(machine, DATA) as u32)
}

#[test]
fn an_interrupt_to_oneself_waits_until_it_is_let_in() {
    let code = Guest::code(|g| {
        let label = counting(g)?;
        g.mov(dword_ptr(rdi + 0x300), 0x4_0040)?;
        g.mov(eax, dword_ptr(rbp))?;
        g.mov(dword_ptr(rbp + 8), eax)?;
        g.sti()?;
        until_one(g)?;
        handler(g, label)
    });
    let Some(machines) = interrupts(&code) else { return };
    assert!(machines.iter().all(|machine| word(machine, DATA + 8) as u32 == 0));
}

#[test]
fn task_priority_holds_an_interrupt_off() {
    let code = Guest::code(|g| {
        let label = counting(g)?;
        g.mov(eax, 5)?;
        g.mov(cr8, rax)?;
        g.sti()?;
        g.mov(dword_ptr(rdi + 0x300), 0x4_0040)?;
        g.nop()?;
        g.mov(eax, dword_ptr(rbp))?;
        g.mov(dword_ptr(rbp + 8), eax)?;
        g.xor(eax, eax)?;
        g.mov(cr8, rax)?;
        until_one(g)?;
        handler(g, label)
    });
    let Some(machines) = interrupts(&code) else { return };
    assert!(machines.iter().all(|machine| word(machine, DATA + 8) as u32 == 0));
}

#[test]
fn the_timer_of_the_local_apic_wakes_a_halted_processor() {
    let code = Guest::code(|g| {
        let label = counting(g)?;
        // One-shot, divided by 1, then periodic.
        g.mov(dword_ptr(rdi + 0x3e0), 0xb)?;
        g.mov(dword_ptr(rdi + 0x320), i32::from(VECTOR))?;
        g.mov(dword_ptr(rdi + 0x380), 300_000)?;
        g.sti()?;
        g.hlt()?;
        g.cli()?;
        g.mov(dword_ptr(rdi + 0x320), 0x2_0000 | i32::from(VECTOR))?;
        g.mov(dword_ptr(rdi + 0x380), 300_000)?;
        for _ in 0..3 {
            g.sti()?;
            g.hlt()?;
            g.cli()?;
        }
        handler(g, label)
    });
    let Some(machines) = interrupts(&code) else { return };
    let [kvm, software] = counts(&machines);
    // On a busy host another period may be over between a wakeup and CLI.
    assert!(kvm >= 4 && software == 4, "{kvm} {software}");
}

#[test]
fn a_deadline_of_the_time_stamp_counter_interrupts_a_busy_processor_not_too_early() {
    let code = Guest::code(|g| {
        let label = counting(g)?;
        g.mov(dword_ptr(rdi + 0x320), 0x4_0000 | i32::from(VECTOR))?;
        g.rdtsc()?;
        g.shl(rdx, 32)?;
        g.lea(rsi, qword_ptr(rax + rdx + 1_000_000))?;
        g.mov(eax, esi)?;
        g.mov(rdx, rsi)?;
        g.shr(rdx, 32)?;
        g.mov(ecx, 0x6e0)?;
        g.wrmsr()?;
        g.rdmsr()?;
        g.sti()?;
        until_one(g)?;
        g.rdtsc()?;
        g.shl(rdx, 32)?;
        g.add(rax, rdx)?;
        g.sub(rax, rsi)?;
        g.sets(byte_ptr(rbp + 3))?;
        handler(g, label)
    });
    let Some(machines) = interrupts(&code) else { return };
    assert_eq!(counts(&machines), [1, 1]);
}

#[test]
fn the_interval_timer_interrupts_through_the_ioapic() {
    let code = Guest::code(|g| {
        let label = counting(g)?;
        // Pin 0, edge-triggered, to processor 0.
        g.mov(esi, 0xfec0_0000u32)?;
        g.mov(dword_ptr(rsi), 0x11)?;
        g.mov(dword_ptr(rsi + 0x10), 0)?;
        g.mov(dword_ptr(rsi), 0x10)?;
        g.mov(dword_ptr(rsi + 0x10), i32::from(VECTOR))?;
        // Channel 0, mode 2, every 1193 ticks: a millisecond.
        g.mov(al, 0x34)?;
        g.out(0x43, al)?;
        g.mov(al, 0xa9)?;
        g.out(0x40, al)?;
        g.mov(al, 4)?;
        g.out(0x40, al)?;
        for _ in 0..3 {
            g.sti()?;
            g.hlt()?;
            g.cli()?;
        }
        handler(g, label)
    });
    let Some(machines) = interrupts(&code) else { return };
    assert_eq!(counts(&machines), [3, 3]);
}

#[test]
fn time_passes_while_the_machine_runs_and_not_between_two_runs() {
    let Some(mut machine) = on_kvm(&config(&Guest::code(|g| {
        g.cli()?;
        let mut forever = g.create_label();
        g.set_label(&mut forever)?;
        g.jmp(forever)
    }))) else {
        return;
    };
    assert_eq!(machine.run(2_000_000), Stop::Budget);
    let before = machine.time();
    assert!(before >= 2_000_000, "{before}");
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(machine.time(), before);
    assert_eq!(machine.run(0), Stop::Budget);
}
