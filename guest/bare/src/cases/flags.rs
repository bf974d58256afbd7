//! POPF, PUSHF, CLI, STI: which flags may change where.

use crate::harness::entry::Entry;
use crate::harness::report::Report;
use crate::harness::{RAX, code};

pub fn run(report: &Report) {
    let pops = [
        ("popfq", code!("push rax", "popfq", "pushfq", "pop rbx")),
        ("popfw", code!("push ax", "popfw", "pushfq", "pop rbx")),
    ];
    for (name, code) in pops {
        report.group(name, |group| {
            for cpl in 0..4 {
                for iopl in 0..4 {
                    // Each bit alone, but TF, and all of them.
                    for bit in (0..64).filter(|bit| *bit != 8) {
                        let entry = Entry::at(code, cpl).flags(iopl << 12).set(RAX, 1 << bit);
                        group.case(format_args!("bit {bit} cpl {cpl} iopl {iopl}"), entry);
                    }
                    let entry = Entry::at(code, cpl).flags(iopl << 12).set(RAX, !0x100);
                    group.case(format_args!("all cpl {cpl} iopl {iopl}"), entry);
                }
            }
        });
    }
    let changes = [("cli", code!("cli", "pushfq", "pop rbx")), ("sti", code!("sti", "pushfq", "pop rbx"))];
    for (name, code) in changes {
        report.group(name, |group| {
            for cpl in 0..4 {
                for flags in [0, 0x1000, 0x2000, 0x3000, 0x200, 0x1200, 0x2200, 0x3200] {
                    let entry = Entry::at(code, cpl).flags(flags);
                    group.case(format_args!("cpl {cpl} flags {flags:x}"), entry);
                }
            }
        });
    }
    report.group("hlt", |group| {
        let code = code!("hlt");
        for cpl in 1..4 {
            group.case(format_args!("cpl {cpl}"), Entry::at(code, cpl).flags(0x3000));
        }
    });
    report.group("alignment", |group| {
        let on = code!("mov rcx, cr0", "bts rcx, 18", "mov cr0, rcx", "mov rax, [rdi + 1]");
        group
            .case(format_args!("cpl 0"), Entry::at(on, 0).flags(1 << 18).set(7, crate::harness::arena::DATA));
    });
}
