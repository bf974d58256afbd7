//! What KVM may not be able to execute.

use iced_x86::code_asm::*;

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
