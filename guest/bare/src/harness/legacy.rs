//! Cases in 32-bit protected mode without paging, outside of long mode.

use core::arch::global_asm;

use super::entry::{Entry, OUTCOME, Outcome};
use super::tables::select;
use crate::memory;

/// Everything that cases see is at a fixed physical address behind the payload.
const PLACE: u64 = 0x20_0000;
/// The code of the case.
pub const CODE: u64 = PLACE;
/// Where cases go: two NOPs and INT DONE.
pub const TARGET: u64 = PLACE + 0x1000;
/// Top of the stack of cases.
pub const STACK: u64 = PLACE + 0x8000;
/// Top of the stacks of privilege 0 to 2, one behind the other.
const PRIVILEGED_STACK: u64 = PLACE + 0x9000;
/// Data for cases.
pub const DATA: u64 = PLACE + 0x1_0000;
const GDT: u64 = PLACE + 0x1_4000;
const IDT: u64 = PLACE + 0x1_5000;
const TSS: u64 = PLACE + 0x1_6000;
const LDT: u64 = PLACE + 0x1_7000;
/// The gates of the IDT as they are at the start of every case.
const GATES: u64 = PLACE + 0x1_8000;
/// Bytes of the TSS, without a map of ports.
const TSS_LIMIT: u64 = 0x67;

/// CR0 and CR4 at a case's start.
pub const CR0: u64 = 0x33;
pub const CR4: u64 = 0x600;

/// Selectors that only these tables have; all others are as in [`select`], as far as they make sense.
pub mod more {
    /// A call gate that copies two words.
    pub const GATE_COPIES: u16 = 0xc0;
    /// A 16-bit call gate.
    pub const GATE_16: u16 = 0xd0;
    /// 4 KiB of data at DATA, by bytes.
    pub const DATA_SMALL: u16 = 0x1d3;
    /// The same, growing down from 64 KiB.
    pub const DATA_SMALL_DOWN: u16 = 0x1db;
    /// The same, growing down from 4 GiB.
    pub const DATA_DOWN: u16 = 0x1e3;
    /// Code of 4 KiB at CODE.
    pub const CODE_SMALL: u16 = 0x1eb;
    /// A stack of 16 bits at the usual place.
    pub const STACK_16: u16 = 0x1f3;
}

unsafe extern "C" {
    fn enter_legacy(entry: *const Entry);
    static legacy_stubs: u8;
}

/// Top of the stack that the TSS names for privilege 0 to 2.
pub fn stack_of_privilege(privilege: usize) -> u64 {
    PRIVILEGED_STACK + 0x1000 * privilege as u64
}

fn put(at: u64, value: u64) {
    unsafe { (at as *mut u64).write_unaligned(value) };
}

/// A descriptor of the GDT.
pub fn set_descriptor(selector: u16, descriptor: u64) {
    put(GDT + u64::from(selector & !7), descriptor);
}

/// The GDT.
pub fn gdt() -> [u64; 64] {
    core::array::from_fn(|index| unsafe { ((GDT + 8 * index as u64) as *const u64).read_volatile() })
}

/// A gate of the IDT.
pub fn set_gate(vector: u64, target: u64, selector: u16, rights: u64) {
    put(IDT + 8 * vector, gate(target, selector, rights, 0));
}

/// Address of the usual handler.
pub fn handler(vector: u64) -> u64 {
    &raw const legacy_stubs as u64 + 16 * vector
}

/// A gate of 8 bytes, with its count of words to copy.
fn gate(target: u64, selector: u16, rights: u64, words: u64) -> u64 {
    (target & 0xffff) | u64::from(selector) << 16 | words << 32 | rights << 40 | (target >> 16) << 48
}

/// A descriptor of 8 bytes; `rights` are its bytes 5 and 6 without the limit.
fn segment(base: u64, limit: u64, rights: u64) -> u64 {
    let low = (limit & 0xffff) | (base & 0xff_ffff) << 16 | rights << 40;
    low | (limit >> 16 & 0xf) << 48 | (base >> 24) << 56
}

/// The tables, memory and code of a case, as they are at its start.
pub fn reset(case: &Entry) {
    for (table, words) in [(DATA, 512), (GDT, 64), (TSS, 16), (LDT, 8), (STACK - 512, 65)] {
        memory::clear(table, words);
    }
    memory::copy(CODE, case.code, 16);
    put(TARGET, 0x81cd_9090);
    for (selector, rights) in [
        (select::CODE, 0xc09b),
        (select::DATA, 0xc093),
        (select::USER_CODE_32, 0xc0fb),
        (select::USER_DATA, 0xc0f3),
        (select::USER_CODE, 0xc0fb),
        (select::CODE_16, 0x809b),
        (select::CONFORMING, 0xc09f),
        (select::CODE_1, 0xc0bb),
        (select::DATA_1, 0xc0b3),
        (select::CODE_2, 0xc0db),
        (select::DATA_2, 0xc0d3),
        (select::CODE_ABSENT, 0xc01b),
        (select::DATA_ABSENT, 0xc013),
        (select::CODE_NOT_READABLE, 0xc099),
        (select::DATA_READ_ONLY, 0xc091),
        (select::DATA_UNTOUCHED, 0xc092),
        (select::CONFORMING_3, 0xc0ff),
    ] {
        set_descriptor(selector, segment(0, 0xf_ffff, rights));
    }
    for (selector, base, limit, rights) in [
        (select::TSS, TSS, TSS_LIMIT, 0x89),
        (select::TSS_ABSENT, TSS, TSS_LIMIT, 0x09),
        (select::LDT, LDT, 0x3f, 0x82),
        (select::LDT_ABSENT, LDT, 0x3f, 0x02),
        (more::DATA_SMALL, DATA, 0xfff, 0x40f3),
        (more::DATA_SMALL_DOWN, DATA, 0xfff, 0x00f7),
        (more::DATA_DOWN, DATA, 0xfff, 0x40f7),
        (more::CODE_SMALL, CODE, 0xfff, 0x40fb),
        (more::STACK_16, STACK - 0x1000, 0xffff, 0x00f3),
    ] {
        set_descriptor(selector, segment(base, limit, rights));
    }
    for (selector, code, rights, words) in [
        (select::GATE, select::CODE, 0xec, 0),
        (more::GATE_COPIES, select::CODE, 0xec, 2),
        (select::GATE_DPL_0, select::CODE, 0x8c, 0),
        (more::GATE_16, select::CODE, 0xe4, 0),
        (select::GATE_ABSENT, select::CODE, 0x6c, 0),
        (select::GATE_CONFORMING, select::CONFORMING, 0xec, 0),
        (select::GATE_TO_DATA, select::DATA, 0xec, 0),
        (select::GATE_TO_NULL, 0, 0xec, 0),
        (select::GATE_TO_1, select::CODE_1, 0xec, 1),
        (select::GATE_TO_ABSENT, select::CODE_ABSENT, 0xec, 0),
    ] {
        set_descriptor(selector, gate(TARGET, code, rights, words));
    }
    put(LDT + 8, segment(0, 0xf_ffff, 0xc0f3));
    put(LDT + 16, segment(0, 0xf_ffff, 0xc0fb));
    reset_gates();
    for (privilege, data) in [select::DATA, select::DATA_1, select::DATA_2].into_iter().enumerate() {
        put(TSS + 4 + 8 * privilege as u64, stack_of_privilege(privilege) | u64::from(data) << 32);
    }
    put(TSS + 0x64, 0x68 << 16);
}

/// The usual handlers. They are made once, and copied from then on.
fn reset_gates() {
    let made = |vector: u64| unsafe { ((GATES + 8 * vector) as *const u64).read_volatile() };
    if made(0) == 0 {
        for vector in 0..256 {
            let rights = if [3, 4, 0x81].contains(&vector) { 0xee } else { 0x8e };
            put(GATES + 8 * vector, gate(handler(vector), select::CODE, rights, 0));
        }
    }
    memory::copy(IDT, GATES, 256);
}

/// A case of 32-bit code, which `code32!` made, at privilege `cpl`. Registers hold their own number.
pub fn entry(code: u64, cpl: u16) -> Entry {
    let mut entry = Entry::at(code, cpl);
    entry.regs.iter_mut().for_each(|value| *value &= 0xffff_ffff);
    entry.regs[8..].fill(0);
    entry.regs[super::RSP] = STACK;
    entry.rip = CODE;
    entry
}

/// Runs a case, on what [`reset`] and then the case itself set up.
pub fn run(case: &Entry) -> Outcome {
    unsafe {
        (&raw mut OUTCOME).write_volatile(core::mem::zeroed());
        enter_legacy(case);
        (&raw const OUTCOME).read_volatile()
    }
}

global_asm!(
    r#"
    .set LEGACY_GDT, 0x214000
    .set LEGACY_IDT, 0x215000
    .section .text.legacy, "ax"
    .global enter_legacy
enter_legacy:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, legacy_kernel_rsp(%rip)
    lgdt boot_gdt_pointer(%rip)
    pushq $0x18
    leaq 1f(%rip), %rax
    pushq %rax
    lretq

    .code32
1:  movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    movl $0xc0000080, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
    movl $0x33, %eax
    movl %eax, %cr0
    movl $0x600, %eax
    movl %eax, %cr4
    lgdt legacy_gdt_pointer
    lidt legacy_idt_pointer
    movl $0x10, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl $0x80, %eax
    lldt %ax
    movl $0x70, %eax
    ltr %ax
    // The case's stack, with a frame for IRET on it.
    movl 136(%edi), %eax
    testl $3, %eax
    jz 2f
    movl $legacy_frame_end, %esp
    pushl 152(%edi)
    pushl 32(%edi)
    jmp 3f
2:  movl 152(%edi), %eax
    movl %eax, %ss
    movl 32(%edi), %esp
3:  pushl 144(%edi)
    pushl 136(%edi)
    pushl 128(%edi)
    movl 168(%edi), %eax
    movl %eax, %es
    movl 176(%edi), %eax
    movl %eax, %fs
    movl 184(%edi), %eax
    movl %eax, %gs
    movl 0(%edi), %eax
    movl 8(%edi), %ecx
    movl 16(%edi), %edx
    movl 24(%edi), %ebx
    movl 40(%edi), %ebp
    movl 48(%edi), %esi
    pushl 160(%edi)
    movl 56(%edi), %edi
    popl %ds
    iretl

    .balign 16
    .global legacy_stubs
legacy_stubs:
    .set legacy_vector, 0
    .rept 256
    .balign 16
    .if !(legacy_vector == 8 || (legacy_vector >= 10 && legacy_vector <= 14) || legacy_vector == 17 || legacy_vector == 21)
    pushl $0
    .endif
    pushl $legacy_vector
    jmp leave_legacy
    .set legacy_vector, legacy_vector + 1
    .endr

leave_legacy:
    // A frame may lie anywhere: it is read by SS, everything else by a flat DS.
    pushl %ds
    pushl %eax
    cld
    movl $0x10, %eax
    movl %eax, %ds
    popl OUTCOME
    popl OUTCOME + 240
    // Some processors push 16 bits of a segment register and leave the others.
    andl $0xffff, OUTCOME + 240
    movl %ecx, OUTCOME + 8
    movl %edx, OUTCOME + 16
    movl %ebx, OUTCOME + 24
    movl %ebp, OUTCOME + 40
    movl %esi, OUTCOME + 48
    movl %edi, OUTCOME + 56
    xorl %eax, %eax
    movw %es, %ax
    movl %eax, OUTCOME + 248
    movw %fs, %ax
    movl %eax, OUTCOME + 256
    movw %gs, %ax
    movl %eax, OUTCOME + 264
    popl OUTCOME + 128
    popl OUTCOME + 136
    popl OUTCOME + 144
    popl OUTCOME + 152
    popl OUTCOME + 160
    testl $3, OUTCOME + 152
    jz 4f
    popl OUTCOME + 168
    popl OUTCOME + 176
    movl %esp, OUTCOME + 184
    jmp 5f
4:  movl %esp, OUTCOME + 168
    movl %esp, OUTCOME + 184
    xorl %eax, %eax
    movw %ss, %ax
    movl %eax, OUTCOME + 176
5:  movl %cr0, %eax
    movl %eax, OUTCOME + 192
    movl %cr2, %eax
    movl %eax, OUTCOME + 200
    movl %cr4, %eax
    movl %eax, OUTCOME + 216
    movl %dr6, %eax
    movl %eax, OUTCOME + 224
    movl %dr7, %eax
    movl %eax, OUTCOME + 232
    movl $0x400, %eax
    movl %eax, %dr7
    // Back to long mode.
    lgdt boot_gdt_pointer
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $legacy_frame_end, %esp
    movl $0x33, %eax
    movl %eax, %cr0
    movl $0x620, %eax
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    movl $0x901, %eax
    xorl %edx, %edx
    wrmsr
    movl $0x80010033, %eax
    movl %eax, %cr0
    ljmp $0x08, $6f

    .code64
6:  movq legacy_kernel_rsp(%rip), %rsp
    pushq $2
    popfq
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .section .data.legacy, "aw"
    .balign 8
legacy_gdt_pointer:
    .word 0x1ff
    .long LEGACY_GDT
legacy_idt_pointer:
    .word 0x7ff
    .long LEGACY_IDT

    .section .bss.legacy, "aw", @nobits
    .balign 8
legacy_kernel_rsp:
    .skip 8
    .skip 256
legacy_frame_end:
"#,
    options(att_syntax)
);
