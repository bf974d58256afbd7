//! From the boot loader to 64-bit code: multiboot header, PVH note, page tables, long mode.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .multiboot, "a"
    .balign 4
multiboot_header:
    .long 0x1badb002
    // Page-aligned modules, sizes of memory, addresses.
    .long 0x00010003
    .long -(0x1badb002 + 0x00010003)
    .long multiboot_header
    .long image_start
    .long image_load_end
    .long image_end
    .long start_multiboot

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long start_pvh

    .section .text.start, "ax"
    .code32
    .global start_multiboot
start_pvh:
    movl $0x336ec578, %eax
start_multiboot:
    cli
    cld
    movl $boot_stack_end, %esp
    movl %eax, %edi
    movl %ebx, %esi

    // The first 4 GiB, identity-mapped by 2 MiB pages.
    movl $boot_directory_pointers + 3, boot_pml4
    movl $boot_directories + 3, %eax
    xorl %ecx, %ecx
1:  movl %eax, boot_directory_pointers(, %ecx, 8)
    addl $4096, %eax
    incl %ecx
    cmpl $4, %ecx
    jne 1b
    movl $0x83, %eax
    xorl %ecx, %ecx
2:  movl %eax, boot_directories(, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jne 2b

    // Physical address extension, FXSAVE, SIMD exceptions: the compiler uses SSE.
    movl $0x620, %eax
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    // System calls, long mode, no-execute.
    movl $0xc0000080, %ecx
    movl $0x901, %eax
    xorl %edx, %edx
    wrmsr
    // Paging, write protection, numeric errors, extension type, monitor coprocessor, protection.
    movl $0x80010033, %eax
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $0x08, $3f

    .code64
3:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    call bare_main
    ud2

    .section .data.start, "aw"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00cf9b000000ffff
    .global boot_gdt_pointer
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .quad boot_gdt

    .section .bss.start, "aw", @nobits
    .balign 4096
    .global boot_pml4
boot_pml4:
    .skip 4096
boot_directory_pointers:
    .skip 4096
boot_directories:
    .skip 4 * 4096
boot_stack:
    .skip 64 * 1024
boot_stack_end:
"#,
    options(att_syntax)
);
