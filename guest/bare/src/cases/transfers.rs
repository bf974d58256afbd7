//! Far JMP, CALL and RET, call gates, IRET.

use super::selectors;
use crate::harness::arena::{DATA, STACK, TARGET};
use crate::harness::entry::Entry;
use crate::harness::report::{Group, Report};
use crate::harness::tables::{select, tables};
use crate::harness::{RDI, arena, code, code32};

/// A stack segment of every privilege.
const STACKS: [u16; 4] = [select::DATA, select::DATA_1, select::DATA_2, select::USER_DATA];

pub fn run(report: &Report) {
    let jumps = [
        ("jmp-far", code!(".byte 0xff, 0x2f")),
        ("jmp-far-quad", code!(".byte 0x48, 0xff, 0x2f")),
        ("call-far", code!(".byte 0xff, 0x1f")),
        ("call-far-quad", code!(".byte 0x48, 0xff, 0x1f")),
        ("call-far-word", code!(".byte 0x66, 0xff, 0x1f")),
    ];
    for (name, code) in jumps {
        report.group(name, |group| {
            for cpl in 0..4 {
                for selector in selectors() {
                    far(group, format_args!("{selector:x} cpl {cpl}"), code, cpl, selector, TARGET);
                }
            }
        });
    }
    report.group("call-gate", call_gates);
    report.group("far-address", far_addresses);
    let returns = [
        ("retf", 4, code!("retf")),
        ("retf-quad", 8, code!(".byte 0x48, 0xcb")),
        ("retf-release", 8, code!(".byte 0x48, 0xca, 0x10, 0")),
    ];
    for (name, size, code) in returns {
        report.group(name, |group| {
            for cpl in 0..4 {
                for selector in selectors() {
                    let frame = [TARGET, selector.into(), STACK, STACKS[usize::from(selector & 3)].into()];
                    pushed(group, format_args!("{selector:x} cpl {cpl}"), Entry::at(code, cpl), size, &frame);
                }
            }
        });
    }
    report.group("retf-stack", |group| {
        for (cs, stack_cpl) in [(select::USER_CODE, 3u16), (select::CODE_1, 1), (select::USER_CODE_32, 3)] {
            for selector in selectors() {
                let frame = [TARGET, cs.into(), STACK, selector.into()];
                let entry = Entry::at(returns[1].2, 0);
                pushed(group, format_args!("{selector:x} for cpl {stack_cpl} of {cs:x}"), entry, 8, &frame);
            }
        }
    });
    interrupt_returns(report);
}

fn far(group: &mut Group, what: core::fmt::Arguments, code: u64, cpl: u16, selector: u16, target: u64) {
    // Offset and selector for each size of the operand.
    let size = match unsafe { ((code) as *const u8).read() } {
        0x48 => 8,
        0x66 => 2,
        _ => 4,
    };
    let prepare = |_: &mut Entry| {
        arena::put(0, target);
        arena::put(size, selector.into());
    };
    group.with(what, Entry::at(code, cpl).set(RDI, DATA), prepare, |out| {
        // What was pushed.
        let _ = write!(out, " [{:x} {:x}]", arena::peek(STACK - 16), arena::peek(STACK - 8));
    });
}

/// What a gate pushes, on which stack, and what may be wrong with its target.
fn call_gates(group: &mut Group) {
    let code = code!(".byte 0x48, 0xff, 0x1f");
    for selector in [
        select::GATE,
        select::GATE | 3,
        select::GATE_DPL_0,
        select::GATE_DPL_0 | 3,
        select::GATE_ABSENT,
        select::GATE_CONFORMING,
        select::GATE_TO_DATA,
        select::GATE_TO_32,
        select::GATE_NOT_CANONICAL,
        select::GATE_TO_NULL,
        select::GATE_BAD_TYPE,
        select::GATE_TO_1,
        select::GATE_TO_ABSENT,
    ] {
        for cpl in 0..4 {
            far(group, format_args!("{selector:x} cpl {cpl}"), code, cpl, selector, TARGET);
        }
    }
    for (name, stack) in [("not canonical", 1 << 63), ("absent", 0x5000_0000), ("unaligned", STACK - 5)] {
        let entry = Entry::at(code, 3).set(RDI, DATA);
        let prepare = |_: &mut Entry| {
            arena::put(8, select::GATE.into());
            tables().tss.words[1] = stack as u32;
            tables().tss.words[2] = (stack >> 32) as u32;
        };
        group.with(format_args!("stack {name}"), entry, prepare, |_| {});
    }
}

fn far_addresses(group: &mut Group) {
    for (name, code) in [("jmp", code!(".byte 0x48, 0xff, 0x2f")), ("call", code!(".byte 0x48, 0xff, 0x1f"))]
    {
        for target in [0x8000_0000_0000u64, u64::MAX, 0xffff_7fff_ffff_ffff] {
            far(group, format_args!("{name} {target:x}"), code, 0, select::CODE, target);
        }
        // Limits count in compatibility mode.
        far(group, format_args!("{name} above a limit"), code, 0, select::CODE_16, TARGET);
    }
    let code = code!(".byte 0x48, 0xcb");
    for target in [0x8000_0000_0000u64, u64::MAX] {
        for cs in [select::CODE, select::USER_CODE] {
            let frame = [target, cs.into(), STACK, STACKS[usize::from(cs & 3)].into()];
            pushed(group, format_args!("retf to {cs:x}:{target:x}"), Entry::at(code, 0), 8, &frame);
        }
    }
    let back = code32!(".byte 0xff, 0x2f");
    let entry = Entry::at_32(back, 0).set(RDI, DATA);
    let prepare = |_: &mut Entry| {
        arena::put(0, TARGET);
        arena::put(4, select::CODE.into());
    };
    group.with(format_args!("jmp from 32 to 64 bits"), entry, prepare, |_| {});
}

/// A case whose stack holds `frame`, in slots of `size` bytes.
fn pushed(group: &mut Group, what: core::fmt::Arguments, entry: Entry, size: u64, frame: &[u64]) {
    let start = STACK - 64;
    let prepare = |entry: &mut Entry| {
        entry.regs[crate::harness::RSP] = start;
        for (at, value) in (start..).step_by(size as usize).zip(frame) {
            unsafe {
                match size {
                    2 => (at as *mut u16).write_unaligned(*value as u16),
                    4 => (at as *mut u32).write_unaligned(*value as u32),
                    _ => (at as *mut u64).write_unaligned(*value),
                }
            }
        }
    };
    group.with(what, entry, prepare, |_| {});
}

fn interrupt_returns(report: &Report) {
    let quad = code!("iretq");
    let codes = [("iretq", 8, quad), ("iretd", 4, code!("iretd")), ("iretw", 2, code!(".byte 0x66, 0xcf"))];
    for (name, size, code) in codes {
        report.group(name, |group| {
            for cpl in 0..4 {
                for selector in selectors() {
                    let stack = STACKS[usize::from(selector & 3)];
                    let frame = [TARGET, selector.into(), 2, STACK, stack.into()];
                    pushed(group, format_args!("{selector:x} cpl {cpl}"), Entry::at(code, cpl), size, &frame);
                }
            }
        });
    }
    report.group("iretq-stack", |group| {
        for cs in [select::USER_CODE, select::CODE, select::CODE_1, select::USER_CODE_32, select::CODE_32] {
            for selector in selectors() {
                let frame = [TARGET, cs.into(), 2, STACK, selector.into()];
                pushed(group, format_args!("{selector:x} of {cs:x}"), Entry::at(quad, 0), 8, &frame);
            }
        }
    });
    report.group("iretq-flags", |group| {
        for (cpl, cs) in
            [(0u16, select::CODE), (0, select::USER_CODE), (3, select::USER_CODE), (1, select::CODE_1)]
        {
            for iopl in 0..4 {
                // Not TF, which steps, and not VM, which long mode refuses in its own way.
                for bit in (0..64).filter(|bit| ![8, 17].contains(bit)) {
                    let frame = [TARGET, cs.into(), 1 << bit, STACK, STACKS[usize::from(cs & 3)].into()];
                    let entry = Entry::at(quad, cpl).flags(iopl << 12);
                    pushed(
                        group,
                        format_args!("bit {bit} cpl {cpl} to {cs:x} iopl {iopl}"),
                        entry,
                        8,
                        &frame,
                    );
                }
            }
        }
    });
    report.group("iretq-address", |group| {
        for cs in [select::CODE, select::USER_CODE, select::USER_CODE_32, select::CODE_16] {
            for address in [0x8000_0000_0000u64, u64::MAX, 0xffff_7fff_ffff_ffff, 0x1_0000_0000 | TARGET] {
                let frame = [address, cs.into(), 2, STACK, STACKS[usize::from(cs & 3)].into()];
                pushed(group, format_args!("to {cs:x}:{address:x}"), Entry::at(quad, 0), 8, &frame);
            }
        }
        let frame = [TARGET, select::CODE.into(), 2, STACK, select::DATA.into()];
        let entry = Entry::at(quad, 0).flags(1 << 14);
        pushed(group, format_args!("nested task"), entry, 8, &frame);
        for stack in [0x8000_0000_0000u64, 0x5000_0000] {
            let entry = Entry::at(code!("mov rsp, rdi", "iretq"), 0).set(RDI, stack);
            group.case(format_args!("stack at {stack:x}"), entry);
        }
        // Data segments of the inner privilege do not stay.
        let keep = code!("mov fs, ecx", "mov gs, ecx", "iretq");
        for selector in [select::DATA, select::CONFORMING, select::USER_DATA, select::DATA_1, select::CODE] {
            let frame = [TARGET, select::USER_CODE.into(), 2, STACK, select::USER_DATA.into()];
            let entry = Entry::at(keep, 0).set(1, selector.into());
            pushed(group, format_args!("with fs {selector:x}"), entry, 8, &frame);
        }
    });
}
