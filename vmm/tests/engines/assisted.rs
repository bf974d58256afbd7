//! What KVM may not be able to execute.

use iced_x86::code_asm::*;
use vmm::Stop;

use crate::guest::*;

/// Every KVM emulates accesses to devices, and none does so for all of SSE's.
#[test]
fn devices_are_reached_with_operands_of_sse() {
    let code = Guest::code(|g| {
        g.mov(rbx, 0xd000_0000u64)?;
        g.movups(xmm1, xmmword_ptr(rbx))?;
        g.movups(xmmword_ptr(rbp), xmm1)?;
        g.movups(xmmword_ptr(rbx), xmm1)?;
        g.movss(xmm2, dword_ptr(rbx + 4))?;
        g.movups(xmmword_ptr(rbp + 16), xmm2)?;
        g.paddd(xmm1, xmmword_ptr(rbx))?;
        g.movups(xmmword_ptr(rbp + 32), xmm1)
    });
    let Some(machine) = same(&code) else { return };
    assert_eq!((word(&machine, DATA), word(&machine, DATA + 24)), (u64::MAX, 0));
    assert_eq!(word(&machine, DATA + 32), 0xffff_fffe_ffff_fffe);
    assert!(counts(&machine).assists > 0, "PADDD of a device is in no emulator of KVM");
    assert!(counts(&machine).assisted_instructions >= counts(&machine).assists);
}

/// Those that emulate supervisor mode lack some of it.
#[test]
fn instructions_that_an_emulator_may_lack_do_what_they_should() {
    let code = Guest::code(|g| {
        let (mut handler, mut end) = (g.create_label(), g.create_label());
        g.handle(3, handler);
        g.int3()?;
        g.mov(qword_ptr(rbp + 16), 5)?;
        g.xor(eax, eax)?;
        g.xor(edx, edx)?;
        g.mov(ebx, 7)?;
        g.mov(ecx, 9)?;
        g.mov(qword_ptr(rbp + 0x40), 0)?;
        g.lock().cmpxchg16b(xmmword_ptr(rbp + 0x40))?;
        g.mov(rax, 0x1234_5678_9abc_def0u64)?;
        g.bswap(rax)?;
        g.mov(qword_ptr(rbp + 0x50), rax)?;
        g.mov(ecx, 77)?;
        g.movd(xmm0, ecx)?;
        g.pshufd(xmm0, xmm0, 0)?;
        g.movups(xmmword_ptr(rbp + 0x60), xmm0)?;
        g.fninit()?;
        g.fxsave(ptr(rbp + 0x200))?;
        g.jmp(end)?;
        g.set_label(&mut handler)?;
        g.inc(dword_ptr(rbp))?;
        g.iretq()?;
        g.set_label(&mut end)?;
        // The last instruction and data pointers, and which bits of MXCSR there are, are the processor's own business.
        g.mov(qword_ptr(rbp + 0x208), 0)?;
        g.mov(qword_ptr(rbp + 0x210), 0)?;
        g.mov(dword_ptr(rbp + 0x21c), 0)
    });
    let Some(machine) = same(&code) else { return };
    assert_eq!(word(&machine, DATA), 1);
    assert_eq!((word(&machine, DATA + 0x40), word(&machine, DATA + 0x48)), (7, 9));
    println!("{:?}", counts(&machine));
}

/// Goes to user mode, which is native on every KVM, and comes back by exceptions.
fn with_user_mode(system_calls: i32) -> Vec<u8> {
    Guest::code(|g| {
        let (mut user, mut handler, mut end) = (g.create_label(), g.create_label(), g.create_label());
        let (mut again, mut called, mut calls, mut busy) =
            (g.create_label(), g.create_label(), g.create_label(), g.create_label());
        g.handle(6, handler);
        g.handle(14, handler);
        g.prepare_user_mode()?;
        // SYSCALL goes to a handler of its own; SYSRET comes back to 0x2b and 0x23.
        g.mov(ecx, 0xc000_0080u32)?;
        g.rdmsr()?;
        g.or(eax, 1)?;
        g.wrmsr()?;
        g.mov(ecx, 0xc000_0082u32)?;
        // Kernels begin in pages that users have not: there is a jump to the handler.
        g.lea(rax, ptr(called))?;
        g.mov(edx, 0x1f_0005)?;
        g.sub(eax, edx)?;
        g.mov(byte_ptr(rdx - 5), 0xe9)?;
        g.mov(dword_ptr(rdx - 4), eax)?;
        g.lea(eax, ptr(rdx - 5))?;
        g.xor(edx, edx)?;
        g.wrmsr()?;
        g.mov(ecx, 0xc000_0081u32)?;
        g.xor(eax, eax)?;
        g.mov(edx, 0x1b_0010)?;
        g.wrmsr()?;
        g.enter_user_mode(user)?;
        g.set_label(&mut user)?;
        g.mov(ecx, 100_000)?;
        g.xor(ebx, ebx)?;
        g.set_label(&mut again)?;
        g.lea(rbx, qword_ptr(rbx + rbx * 2 + 7))?;
        g.mov(qword_ptr(rbp + 0x80), rbx)?;
        g.dec(ecx)?;
        g.jne(again)?;
        if system_calls > 0 {
            g.mov(r8d, system_calls)?;
            g.set_label(&mut calls)?;
            g.syscall()?;
            g.dec(r8d)?;
            g.jne(calls)?;
        }
        g.cmp(ecx, ecx)?;
        g.ud2()?;
        // Takes a while, so that the kernel is found at it.
        g.set_label(&mut called)?;
        g.mov(r9d, 500)?;
        g.set_label(&mut busy)?;
        g.dec(r9d)?;
        g.jne(busy)?;
        g.inc(dword_ptr(rbp + 0x94))?;
        g.mov(eax, cs)?;
        g.add(qword_ptr(rbp + 0x98), rax)?;
        g.sysretq()?;
        g.set_label(&mut handler)?;
        g.mov(rax, qword_ptr(rsp + 8))?;
        g.mov(qword_ptr(rbp + 0x88), rax)?;
        g.inc(dword_ptr(rbp + 0x90))?;
        g.cmp(dword_ptr(rbp + 0x90), 3)?;
        g.je(end)?;
        // Once more.
        g.lea(rax, ptr(user))?;
        g.mov(qword_ptr(rsp), rax)?;
        g.iretq()?;
        g.set_label(&mut end)?;
        g.cmp(eax, eax)
    })
}

#[test]
fn user_mode_is_executed_by_kvm() {
    // Not every KVM executes SYSCALL of a guest that does not know it.
    let Some(machine) = same(&with_user_mode(0)) else { return };
    assert_eq!((word(&machine, DATA + 0x88), word(&machine, DATA + 0x90) as u32), (0x2b, 3));
}

#[test]
fn user_mode_is_executed_by_kvm_whoever_executes_the_kernel() {
    let code = with_user_mode(50);
    let (Some(mut machine), Some([_, mut software])) = (as_is(&config(&code)), on_both(&config(&code)))
    else {
        return;
    };
    assert_eq!(software.run(BUDGET), Stop::DebugExit(21));
    assert_eq!((word(&software, DATA + 0x90) >> 32, word(&software, DATA + 0x98)), (150, 150 * 0x10));
    loop {
        // Goes out of KVM and back in all the time.
        match machine.run(1_000_000) {
            Stop::Budget => {}
            stop => break assert_eq!(stop, Stop::DebugExit(21), "{:?}", machine.cpu_state()),
        }
    }
    // The kernel's stack may tell of page faults that were none.
    for at in [0x80, 0x88, 0x90, 0x98] {
        assert_eq!(word(&machine, DATA + at), word(&software, DATA + at), "{at:#x}");
    }
    // 1.2 million instructions are in user mode, 150,000 in the kernel.
    assert!(counts(&machine).assisted_instructions < 400_000, "{:?}", counts(&machine));
}

/// As every other test here, with the help that suits the host.
#[test]
fn a_machine_with_the_usual_help_does_the_same() {
    let code = Guest::code(|g| {
        g.movd(xmm0, esp)?;
        g.pshufd(xmm0, xmm0, 0)?;
        g.movups(xmmword_ptr(rbp), xmm0)?;
        g.mov(rbx, 0xd000_0000u64)?;
        g.mov(rax, qword_ptr(rbx))?;
        g.mov(qword_ptr(rbp + 0x20), rax)?;
        g.mov(dx, 0x3f8)?;
        g.mov(al, i32::from(b'x'))?;
        g.out(dx, al)
    });
    let (Some(mut machine), Some([_, mut software])) = (as_is(&config(&code)), on_both(&config(&code)))
    else {
        return;
    };
    for machine in [&mut machine, &mut software] {
        assert_eq!(machine.run(BUDGET), Stop::DebugExit(21));
        assert_eq!(machine.take_console(), b"x");
    }
    assert!(memory(&machine) == memory(&software));
}
