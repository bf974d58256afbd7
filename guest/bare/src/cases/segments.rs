//! Segment registers, descriptor tables, and the instructions that look at descriptors.

use super::selectors;
use crate::harness::entry::Entry;
use crate::harness::report::{Group, Report};
use crate::harness::tables::{GDT, select, tables};
use crate::harness::{RAX, RBX, RCX, RDI, arena, code};

pub fn run(report: &Report) {
    let looks = [
        // What stands in the place of the limit is undefined.
        ("lar", code!("lar eax, cx", "pushfq", "and eax, 0xfff0ffff", "popfq")),
        ("lar-word", code!("lar ax, cx")),
        ("lsl", code!("lsl eax, ecx")),
        ("lsl-quad", code!("lsl rax, rcx")),
        ("verr", code!("verr cx")),
        ("verw", code!("verw cx")),
    ];
    let loads = [
        ("mov-ds", code!("mov ds, ecx")),
        ("mov-es", code!("mov es, ecx")),
        ("mov-ss", code!("mov ss, ecx")),
        ("mov-fs", code!("mov fs, ecx")),
        ("pop-gs", code!("push rcx", "pop gs")),
        ("lss", code!("mov [rdi + 4], cx", "lss eax, [rdi]")),
        ("lgs", code!("mov [rdi + 4], cx", "lgs eax, [rdi]")),
    ];
    for (name, code) in looks.into_iter().chain(loads) {
        report.group(name, |group| {
            for cpl in 0..4 {
                for selector in selectors() {
                    let entry = Entry::at(code, cpl).set(RCX, selector.into()).set(RDI, arena::DATA);
                    group.case(format_args!("{selector:x} cpl {cpl}"), entry);
                }
            }
        });
    }
    let systems = [("lldt", code!("lldt cx", "sldt eax")), ("ltr", code!("ltr cx", "str eax"))];
    for (name, code) in systems {
        report.group(name, |group| {
            for cpl in 0..4 {
                for selector in selectors() {
                    let entry = Entry::at(code, cpl).set(RCX, selector.into());
                    // QEMU loads a null TSS and one of 16 bits, and does not survive it.
                    if name == "ltr" && (selector < 4 || selector & !3 == select::TSS_16) {
                        group.hard(format_args!("{selector:x} cpl {cpl}"), entry);
                    } else {
                        group.case(format_args!("{selector:x} cpl {cpl}"), entry);
                    }
                }
            }
        });
    }
    report.group("lgs-quad", |group| {
        let code = code!("mov [rdi + 8], cx", ".byte 0x48, 0x0f, 0xb5, 0x07");
        for selector in [0, select::DATA, select::USER_DATA, select::DATA_ABSENT] {
            let entry = Entry::at(code, 0).set(RCX, selector.into()).set(RDI, arena::DATA);
            group.case(format_args!("{selector:x}"), entry);
        }
    });
    report.group("descriptor-tables", descriptor_tables);
    report.group("segment-use", segment_use);
}

/// LGDT and LIDT with good and bad bases, and where the tables end.
fn descriptor_tables(group: &mut Group) {
    let gdt = code!("lgdt [rdi]", "sgdt [rdi + 16]", "lgdt [rbx]");
    let idt = code!("lidt [rdi]", "sidt [rdi + 16]", "lidt [rbx + 16]");
    for (name, code) in [("lgdt", gdt), ("lidt", idt)] {
        for (base, limit) in [
            (0u64, 0u64),
            (0x1234_5678_9abc, 0xffff),
            (0x7fff_ffff_ffff, 0),
            (0xffff_8000_0000_0000, 7),
            (0x8000_0000_0000, 7),
            (0xffff_7fff_ffff_ffff, 7),
        ] {
            with_table(group, format_args!("{name} {base:x} {limit:x}"), code, base, limit, 0);
        }
        with_table(group, format_args!("{name} cpl 3"), code, 0, 0, 3);
    }
    let code = code!("lgdt [rdi]", "mov ds, ecx", "lgdt [rbx]");
    for limit in [0x0f, 0x10, 0x16, 0x17, 0x18] {
        let base = &raw const tables().gdt as u64;
        let entry = Entry::at(code, 0).set(RDI, arena::DATA).set(RCX, select::DATA.into());
        group.with(
            format_args!("end of gdt {limit:x}"),
            entry,
            |entry| {
                arena::put(0, limit | base << 16);
                arena::put(32, (8 * GDT as u64 - 1) | base << 16);
                entry.regs[RBX] = arena::DATA + 32;
            },
            |_| {},
        );
    }
    let far = code!("lgdt [rdi]");
    for address in [0x8000_0000_0000u64, 0x7fff_ffff_fff8] {
        group.case(format_args!("lgdt at {address:x}"), Entry::at(far, 0).set(RDI, address));
    }
}

/// A case that loads a table of this base and limit from RDI, stores it 16 bytes on, and loads the right one from RBX.
fn with_table(group: &mut Group, what: core::fmt::Arguments, code: u64, base: u64, limit: u64, cpl: u16) {
    let entry = Entry::at(code, cpl).set(RDI, arena::DATA);
    group.with(
        what,
        entry,
        |entry| {
            arena::put(0, limit | base << 16);
            arena::put(8, base >> 48);
            // The way back.
            arena::put(32, (8 * GDT as u64 - 1) | (&raw const tables().gdt as u64) << 16);
            arena::put(48, 4095 | (&raw const tables().idt as u64) << 16);
            entry.regs[RBX] = arena::DATA + 32;
        },
        |out| {
            let _ = write!(out, " [{:x} {:x}]", arena::peek(arena::DATA + 16), arena::peek(arena::DATA + 24));
        },
    );
}

/// Accesses through segments that were loaded null, and bases of FS and GS.
fn segment_use(group: &mut Group) {
    let null = code!("xor eax, eax", "mov ds, eax", "mov es, eax", "mov rax, [rdi]");
    for cpl in [0, 3] {
        group.case(format_args!("null ds cpl {cpl}"), Entry::at(null, cpl).set(RDI, arena::DATA));
    }
    let null = code!("mov ss, ecx", "push rax", "pop rbx");
    group.case(format_args!("null ss cpl 0"), Entry::at(null, 0).set(RCX, 0));
    let limit = code!("mov fs, ecx", "mov rax, fs:[rdi]");
    for selector in [select::DATA_16, select::DATA_EXPAND_DOWN, 0] {
        let entry = Entry::at(limit, 0).set(RDI, arena::DATA).set(RCX, selector.into());
        group.case(format_args!("limit {selector:x}"), entry);
    }
    for address in [0x8000_0000_0000u64, 0x7fff_ffff_fffc, u64::MAX, 0xffff_7fff_ffff_ffff] {
        let entry = |code| Entry::at(code, 0).set(RDI, address);
        group.case(format_args!("data at {address:x}"), entry(code!("mov rax, [rdi]")));
        group.case(format_args!("stack at {address:x}"), entry(code!("mov rsp, rdi", "pop rax")));
        group.case(format_args!("push at {address:x}"), entry(code!("mov rsp, rdi", "push rax")));
        group.case(format_args!("by rbp at {address:x}"), entry(code!("mov rbp, rdi", "mov rax, [rbp]")));
        group.case(format_args!("by ss at {address:x}"), entry(code!("mov rax, ss:[rdi]")));
        group.case(format_args!("jump to {address:x}"), entry(code!("jmp rdi")));
        group.case(format_args!("call of {address:x}"), entry(code!("call rdi")));
        group.case(format_args!("return to {address:x}"), entry(code!("push rdi", "ret")));
        group.case(format_args!("invlpg {address:x}"), entry(code!("invlpg [rdi]")));
        group.case(format_args!("clflush {address:x}"), entry(code!("clflush [rdi]")));
    }
    let base = code!("mov fs, ecx", "mov rax, [rdi]");
    group.case(format_args!("fs not used"), Entry::at(base, 3).set(RDI, arena::DATA).set(RCX, 0).set(RAX, 1));
}
