//! Gates of the IDT, stacks, and exceptions on the way to a handler.

use crate::harness::arena::{self, STACK, TARGET};
use crate::harness::entry::{Entry, STUB, handler_stubs};
use crate::harness::report::{Group, Report};
use crate::harness::tables::{gate, select, tables};
use crate::harness::{RDI, RSI, code};

use super::selectors;

/// The vector whose gate cases change.
const VECTOR: usize = 0x40;

pub fn run(report: &Report) {
    report.group("int", software_interrupts);
    report.group("gate-type", |group| {
        let (int, ud) = (code!("int 0x40"), code!("ud2"));
        for rights in 0..=0xffu64 {
            for cpl in [0, 3] {
                let set = |vector| tables().idt[vector] = gate(handler(vector), select::CODE, rights, 1);
                let what = format_args!("{rights:x} int cpl {cpl}");
                group.with(what, Entry::at(int, cpl), |_| set(VECTOR), |_| {});
                let what = format_args!("{rights:x} exception cpl {cpl}");
                group.with(what, Entry::at(ud, cpl), |_| set(6), |_| {});
            }
        }
    });
    report.group("gate-selector", |group| {
        let (int, fault) = (code!("int 0x40"), code!("mov rax, [rdi]"));
        for selector in selectors() {
            for cpl in [0, 3] {
                let set = |vector| tables().idt[vector] = gate(TARGET, selector, 0xee, 1);
                let what = format_args!("{selector:x} int cpl {cpl}");
                group.with(what, Entry::at(int, cpl), |_| set(VECTOR), |_| {});
                let what = format_args!("{selector:x} page fault cpl {cpl}");
                let entry = Entry::at(fault, cpl).set(RDI, 0x5000_0000);
                group.with(what, entry, |_| set(14), |_| {});
            }
        }
    });
    report.group("gate-stack", stacks);
    report.group("idt-limit", |group| {
        for limit in [0x40 * 16 - 1, 0x40 * 16, 0x40 * 16 + 14, 0x40 * 16 + 15] {
            let code = code!("lidt [rdi]", "int 0x40");
            let prepare = |_: &mut Entry| arena::put(0, limit | (&raw const tables().idt as u64) << 16);
            let entry = Entry::at(code, 0).set(RDI, arena::DATA);
            group.with(format_args!("{limit:x}"), entry, prepare, |_| {});
        }
    });
    report.group("double-fault", double_faults);
}

fn handler(vector: usize) -> u64 {
    &raw const handler_stubs as u64 + STUB * vector as u64
}

fn software_interrupts(group: &mut Group) {
    let codes = [
        ("int 0x40", code!("int 0x40")),
        ("int3", code!("int3")),
        ("int 3", code!(".byte 0xcd, 3")),
        ("int1", code!(".byte 0xf1")),
        ("int 8", code!(".byte 0xcd, 8")),
        ("int 13", code!(".byte 0xcd, 13")),
        ("int 14", code!(".byte 0xcd, 14")),
        ("int 2", code!(".byte 0xcd, 2")),
    ];
    for (name, code) in codes {
        for cpl in 0..4 {
            // A vector whose exceptions have an error code gets none from INT: its handler would take RIP for it.
            if !["int 8", "int 13", "int 14"].contains(&name) || cpl > 0 {
                group.case(format_args!("{name} cpl {cpl}"), Entry::at(code, cpl));
            }
        }
    }
    for dpl in 0..4 {
        for cpl in 0..4 {
            let set = |_: &mut Entry| tables().set_handler(VECTOR, dpl, 1);
            let what = format_args!("dpl {dpl} cpl {cpl}");
            group.with(what, Entry::at(codes[0].1, cpl), set, |_| {});
        }
    }
}

/// Which stack a handler gets, and how it is aligned.
fn stacks(group: &mut Group) {
    let code = code!("mov rsp, rdi", "int 0x40");
    for offset in [0, 1, 8, 15] {
        let set = |_: &mut Entry| tables().set_handler(VECTOR, 3, 0);
        let entry = Entry::at(code, 0).set(RDI, STACK - offset);
        group.with(format_args!("same privilege, off by {offset}"), entry, set, |_| {});
    }
    for cpl in 1..4 {
        let set = |_: &mut Entry| tables().set_handler(VECTOR, 3, 0);
        group.with(format_args!("from cpl {cpl}"), Entry::at(code, cpl).set(RDI, STACK), set, |_| {});
    }
    for ist in 0..8 {
        for cpl in [0, 3] {
            let set = |_: &mut Entry| tables().set_handler(VECTOR, 3, ist);
            let entry = Entry::at(code, cpl).set(RDI, STACK);
            group.with(format_args!("ist {ist} cpl {cpl}"), entry, set, |_| {});
        }
    }
    for (name, address) in
        [("not canonical", 0x8000_0000_0000u64), ("absent", 0x5000_0000), ("odd", STACK - 3)]
    {
        for (ist, cpl) in [(0, 3), (2, 0), (2, 3)] {
            let set = |_: &mut Entry| {
                tables().set_handler(VECTOR, 3, ist);
                let word = if ist == 0 { 1 } else { 7 + 2 * ist as usize };
                tables().tss.words[word] = address as u32;
                tables().tss.words[word + 1] = (address >> 32) as u32;
            };
            let entry = Entry::at(code, cpl).set(RDI, STACK);
            group.with(format_args!("{name} ist {ist} cpl {cpl}"), entry, set, |_| {});
        }
    }
    for address in [0x8000_0000_0000u64, 0x5000_0000] {
        let set = |_: &mut Entry| tables().set_handler(VECTOR, 3, 0);
        let entry = Entry::at(code, 0).set(RDI, address);
        group.with(format_args!("own stack at {address:x}"), entry, set, |_| {});
    }
    // To code of privilege 1.
    for cpl in [1, 3] {
        let set = |_: &mut Entry| {
            tables().idt[VECTOR] = gate(TARGET, select::CODE_1, 0xee, 0);
            let top = STACK - 256;
            tables().tss.words[3] = top as u32;
            tables().tss.words[4] = (top >> 32) as u32;
        };
        group.with(
            format_args!("to privilege 1 from {cpl}"),
            Entry::at(code, cpl).set(RDI, STACK),
            set,
            |_| {},
        );
    }
}

/// Faults while faults are delivered: SDM vol. 3, table 6-5.
fn double_faults(group: &mut Group) {
    let fault = |vector: u8| match vector {
        0 => code!("xor ecx, ecx", "div ecx"),
        6 => code!("ud2"),
        13 => code!("mov rax, [rsi]"),
        14 => code!("mov rax, [rdi]"),
        _ => code!("int3"),
    };
    for first in [0u8, 3, 6, 13, 14] {
        let entry = Entry::at(fault(first), 0).set(RDI, 0x5000_0000).set(RSI, 1 << 63);
        let vector = usize::from(first);
        let absent = |_: &mut Entry| tables().idt[vector][0] &= !(1 << 47);
        group.with(format_args!("{first} then absent gate"), entry, absent, |_| {});
        let null = |_: &mut Entry| tables().idt[vector] = gate(handler(vector), 0, 0xee, 1);
        group.with(format_args!("{first} then null selector"), entry, null, |_| {});
        let unmapped = |_: &mut Entry| {
            tables().set_handler(vector, 3, 2);
            tables().tss.words[11] = 0x5000_0000;
            tables().tss.words[12] = 0;
        };
        group.with(format_args!("{first} then unmapped stack"), entry, unmapped, |_| {});
        let wild = |_: &mut Entry| {
            tables().set_handler(vector, 3, 2);
            tables().tss.words[12] = 0x8000;
        };
        group.with(format_args!("{first} then wild stack"), entry, wild, |_| {});
    }
}
