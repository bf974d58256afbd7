//! Into a case and out of it: what only assembly can do.

use core::arch::global_asm;

/// The processor's state at a case's first instruction. The assembly knows the offsets.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Entry {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub regs: [u64; 16],
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub ss: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
    /// Where the code is that is put at RIP.
    pub code: u64,
}

/// What an exception or interrupt found when it ended a case. The assembly knows the offsets.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Outcome {
    /// As in [`Entry`]; RSP is not that of the case.
    pub regs: [u64; 16],
    pub vector: u64,
    /// Error code, 0 where there is none.
    pub code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
    /// Address behind the frame that was pushed.
    pub frame_end: u64,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub dr6: u64,
    pub dr7: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

unsafe extern "C" {
    /// Goes to a case and returns when a handler of [`handler_stubs`] was called.
    pub fn enter_case(entry: *const Entry);
    /// The handlers: 256, [`STUB`] bytes apart.
    pub static handler_stubs: u8;
    pub static boot_pml4: u8;
}

/// Bytes between two handlers.
pub const STUB: u64 = 16;

#[unsafe(no_mangle)]
pub static mut OUTCOME: Outcome = unsafe { core::mem::zeroed() };

global_asm!(
    r#"
    .section .text.harness, "ax"
    .global enter_case
enter_case:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, kernel_rsp(%rip)
    movl 160(%rdi), %eax
    movl %eax, %ds
    movl 168(%rdi), %eax
    movl %eax, %es
    movl 176(%rdi), %eax
    movl %eax, %fs
    movl 184(%rdi), %eax
    movl %eax, %gs
    pushq 152(%rdi)
    pushq 32(%rdi)
    pushq 144(%rdi)
    pushq 136(%rdi)
    pushq 128(%rdi)
    movq 0(%rdi), %rax
    movq 8(%rdi), %rcx
    movq 16(%rdi), %rdx
    movq 24(%rdi), %rbx
    movq 40(%rdi), %rbp
    movq 48(%rdi), %rsi
    movq 64(%rdi), %r8
    movq 72(%rdi), %r9
    movq 80(%rdi), %r10
    movq 88(%rdi), %r11
    movq 96(%rdi), %r12
    movq 104(%rdi), %r13
    movq 112(%rdi), %r14
    movq 120(%rdi), %r15
    movq 56(%rdi), %rdi
    iretq

    .balign 16
    .global handler_stubs
handler_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    // 8, 10 to 14, 17 and 21 push an error code of their own.
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
    pushq $0
    .endif
    pushq $vector
    jmp leave_case
    .set vector, vector + 1
    .endr

leave_case:
    movq %rax, OUTCOME + 0(%rip)
    movq %rcx, OUTCOME + 8(%rip)
    movq %rdx, OUTCOME + 16(%rip)
    movq %rbx, OUTCOME + 24(%rip)
    movq %rsp, OUTCOME + 32(%rip)
    movq %rbp, OUTCOME + 40(%rip)
    movq %rsi, OUTCOME + 48(%rip)
    movq %rdi, OUTCOME + 56(%rip)
    movq %r8, OUTCOME + 64(%rip)
    movq %r9, OUTCOME + 72(%rip)
    movq %r10, OUTCOME + 80(%rip)
    movq %r11, OUTCOME + 88(%rip)
    movq %r12, OUTCOME + 96(%rip)
    movq %r13, OUTCOME + 104(%rip)
    movq %r14, OUTCOME + 112(%rip)
    movq %r15, OUTCOME + 120(%rip)
    cld
    popq OUTCOME + 128(%rip)
    popq OUTCOME + 136(%rip)
    popq OUTCOME + 144(%rip)
    popq OUTCOME + 152(%rip)
    popq OUTCOME + 160(%rip)
    popq OUTCOME + 168(%rip)
    popq OUTCOME + 176(%rip)
    movq %rsp, OUTCOME + 184(%rip)
    movq %cr0, %rax
    movq %rax, OUTCOME + 192(%rip)
    movq %cr2, %rax
    movq %rax, OUTCOME + 200(%rip)
    movq %cr3, %rax
    movq %rax, OUTCOME + 208(%rip)
    movq %cr4, %rax
    movq %rax, OUTCOME + 216(%rip)
    movq %dr6, %rax
    movq %rax, OUTCOME + 224(%rip)
    movq %dr7, %rax
    movq %rax, OUTCOME + 232(%rip)
    xorl %eax, %eax
    movl %ds, %eax
    movq %rax, OUTCOME + 240(%rip)
    movl %es, %eax
    movq %rax, OUTCOME + 248(%rip)
    movl %fs, %eax
    movq %rax, OUTCOME + 256(%rip)
    movl %gs, %eax
    movq %rax, OUTCOME + 264(%rip)
    // Back to what start set up.
    movl $0x400, %eax
    movq %rax, %dr7
    movl $0x80010033, %eax
    movq %rax, %cr0
    movl $0x620, %eax
    movq %rax, %cr4
    movl $boot_pml4, %eax
    movq %rax, %cr3
    lgdt boot_gdt_pointer(%rip)
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq kernel_rsp(%rip), %rsp
    pushq $2
    popfq
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .section .bss.harness, "aw", @nobits
    .balign 8
kernel_rsp:
    .skip 8
"#,
    options(att_syntax)
);
