//! Guests that want the engine to hang or to end.

use iced_x86::code_asm::*;
use vmm::Stop;

use crate::guest::*;

/// Nanoseconds that a guest without an end gets.
const SHORT: u64 = 50_000_000;

fn stop_of(code: &[u8]) -> Option<Stop> {
    Some(on_kvm(&config(code))?.run(SHORT))
}

/// Anything but a guest that goes on after what it did.
#[track_caller]
fn survives(code: &[u8]) {
    let Some(stop) = stop_of(code) else { return };
    assert!(!matches!(stop, Stop::DebugExit(_) | Stop::Engine(_)), "{stop:?}");
}

#[test]
fn an_endless_loop_ends_with_the_budget() {
    let code = Guest::code(|g| {
        let mut forever = g.create_label();
        g.cli()?;
        g.set_label(&mut forever)?;
        g.jmp(forever)
    });
    assert!(stop_of(&code).is_none_or(|stop| stop == Stop::Budget));
}

#[test]
fn a_processor_halted_for_good_is_idle() {
    let code = Guest::code(|g| {
        g.cli()?;
        g.hlt()
    });
    assert!(stop_of(&code).is_none_or(|stop| stop == Stop::Idle));
}

#[test]
fn exceptions_without_an_end_end_with_the_budget() {
    // The handler's first instruction raises the exception again, and the stack begins anew each time.
    let code = Guest::code(|g| {
        let mut handler = g.create_label();
        g.handle(6, handler);
        g.set_label(&mut handler)?;
        g.mov(esp, 0x33_0000u32)?;
        g.ud2()
    });
    survives(&code);
}

#[test]
fn an_interrupt_table_and_a_stack_in_a_device_hang_nothing() {
    for address in [0xfee0_0000u64, 0xfec0_0000, 0xd000_0000, 0x1_0000_0000_0000] {
        survives(&Guest::code(|g| {
            g.mov(rax, address)?;
            g.mov(qword_ptr(rbp + 2), rax)?;
            g.mov(word_ptr(rbp), 0xfff)?;
            g.lidt(ptr(rbp))?;
            g.ud2()
        }));
        survives(&Guest::code(|g| {
            let mut handler = g.create_label();
            g.handle(6, handler);
            g.mov(rsp, address + 0x800)?;
            g.ud2()?;
            g.set_label(&mut handler)?;
            g.jmp(handler)
        }));
    }
}

#[test]
fn code_and_page_tables_in_a_device_or_in_nothing_hang_nothing() {
    for address in [0xfee0_0000u64, 0xd000_0000, 0x7f_ffff_f000] {
        survives(&Guest::code(|g| {
            g.mov(rax, address)?;
            g.jmp(rax)
        }));
        survives(&Guest::code(|g| {
            g.mov(rax, address)?;
            g.mov(cr3, rax)?;
            g.nop()
        }));
    }
}

#[test]
fn control_registers_full_of_ones_hang_nothing() {
    survives(&Guest::code(|g| {
        g.mov(rax, u64::MAX)?;
        g.mov(cr4, rax)
    }));
    survives(&Guest::code(|g| {
        g.mov(ecx, 0xc000_0080u32)?;
        g.mov(eax, u32::MAX)?;
        g.mov(edx, u32::MAX)?;
        g.wrmsr()
    }));
}
