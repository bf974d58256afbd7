//! The same in 32-bit protected mode. Task switches are not tried: the processor does not offer them.

use super::selectors;
use crate::harness::entry::Entry;
use crate::harness::legacy::{self, CODE, DATA, STACK, TARGET, entry, more, set_gate};
use crate::harness::report::{Group, Report};
use crate::harness::tables::select;
use crate::harness::{RAX, RBX, RCX, RDI, RDX, RSP, code32};

const STACKS: [u16; 4] = [select::DATA, select::DATA_1, select::DATA_2, select::USER_DATA];

pub fn run(report: &Report) {
    let on_selectors = [
        ("32-lar", code32!("lar eax, cx", "pushfd", "and eax, 0xfff0ffff", "popfd")),
        ("32-lsl", code32!("lsl eax, ecx")),
        ("32-verr", code32!("verr cx")),
        ("32-verw", code32!("verw cx")),
        ("32-mov-ds", code32!("mov ds, ecx")),
        ("32-mov-ss", code32!("mov ss, ecx")),
        ("32-pop-es", code32!("push ecx", "pop es")),
        ("32-pop-ss", code32!("push ecx", "pop ss")),
        ("32-lfs", code32!("push ecx", "push 5", "lfs eax, [esp]")),
        ("32-lldt", code32!("lldt cx", "sldt eax")),
    ];
    for (name, code) in on_selectors {
        report.group(name, |group| {
            for cpl in 0..4 {
                for selector in selectors() {
                    let entry = entry(code, cpl).set(RCX, selector.into());
                    group.legacy(format_args!("{selector:x} cpl {cpl}"), entry, || {});
                }
            }
        });
    }
    transfers(report);
    returns(report);
    flags(report);
    gates(report);
    report.group("32-limit", limits);
    report.group("32-privilege", privilege);
}

/// Selectors to go to. QEMU does not hold a target against a limit, and goes astray.
fn code_selectors(group: &Group) -> impl Iterator<Item = u16> + use<> {
    let all = group.all();
    selectors().filter(move |selector| all || selector & !3 != more::CODE_SMALL & !3)
}

/// Far JMP and CALL through every selector.
fn transfers(report: &Report) {
    let codes = [("32-jmp-far", code32!(".byte 0xff, 0x2f")), ("32-call-far", code32!(".byte 0xff, 0x1f"))];
    for (name, code) in codes {
        report.group(name, |group| {
            for cpl in 0..4 {
                for selector in code_selectors(group) {
                    let entry = entry(code, cpl).set(RDI, DATA);
                    group.legacy(format_args!("{selector:x} cpl {cpl}"), entry, || {
                        put(DATA, TARGET);
                        put(DATA + 4, selector.into());
                        put(STACK, 0x1234_5678_9abc_def0);
                    });
                }
            }
        });
    }
}

fn put(at: u64, value: u64) {
    unsafe { (at as *mut u64).write_unaligned(value) };
}

/// A case whose stack holds `frame`.
fn pushed(group: &mut Group, what: core::fmt::Arguments, entry: Entry, frame: &[u64]) {
    let start = STACK - 64;
    group.legacy(what, entry.set(RSP, start), || {
        for (at, value) in (start..).step_by(4).zip(frame) {
            unsafe { (at as *mut u32).write_volatile(*value as u32) };
        }
    });
}

fn returns(report: &Report) {
    let codes = [
        ("32-retf", code32!("retf"), 0),
        ("32-retf-release", code32!(".byte 0xca, 4, 0"), 1),
        ("32-iret", code32!("iretd"), 2),
    ];
    for (name, code, kind) in codes {
        report.group(name, |group| {
            for cpl in 0..4 {
                for selector in code_selectors(group) {
                    let stack = u64::from(STACKS[usize::from(selector & 3)]);
                    let frame = match kind {
                        0 => [TARGET, selector.into(), STACK, stack, 0],
                        1 => [TARGET, selector.into(), 0, STACK, stack],
                        _ => [TARGET, selector.into(), 2, STACK, stack],
                    };
                    pushed(group, format_args!("{selector:x} cpl {cpl}"), entry(code, cpl), &frame);
                }
            }
        });
    }
    let iret = codes[2].1;
    report.group("32-iret-stack", |group| {
        for cs in [select::USER_CODE, select::CODE_1, select::USER_CODE_32] {
            for selector in code_selectors(group) {
                let frame = [TARGET, cs.into(), 2, STACK, selector.into()];
                pushed(group, format_args!("{selector:x} of {cs:x}"), entry(iret, 0), &frame);
            }
        }
    });
    report.group("32-iret-flags", |group| {
        for (cpl, cs) in
            [(0u16, select::CODE), (0, select::USER_CODE), (3, select::USER_CODE), (1, select::CODE_1)]
        {
            for iopl in 0..4 {
                // Not TF, which steps, and not VM, which is another mode.
                for bit in (0..32).filter(|bit| ![8, 17].contains(bit)) {
                    let frame = [TARGET, cs.into(), 1 << bit, STACK, STACKS[usize::from(cs & 3)].into()];
                    let entry = entry(iret, cpl).flags(iopl << 12);
                    pushed(group, format_args!("bit {bit} cpl {cpl} to {cs:x} iopl {iopl}"), entry, &frame);
                }
            }
        }
    });
}

fn flags(report: &Report) {
    let codes = [
        ("32-popf", code32!("push eax", "popfd", "pushfd", "pop ebx")),
        ("32-popf-word", code32!("push ax", "popf", "pushfd", "pop ebx")),
    ];
    for (name, code) in codes {
        report.group(name, |group| {
            for cpl in 0..4 {
                for iopl in 0..4 {
                    for bit in (0..32).filter(|bit| *bit != 8) {
                        let entry = entry(code, cpl).flags(iopl << 12).set(RAX, 1 << bit);
                        group.legacy(format_args!("bit {bit} cpl {cpl} iopl {iopl}"), entry, || {});
                    }
                }
            }
        });
    }
}

/// Gates of the IDT: their types, selectors, and the stacks that they lead to.
fn gates(report: &Report) {
    let (int, ud) = (code32!("int 0x40"), code32!("ud2"));
    report.group("32-gate-type", |group| {
        // Task gates lead to a task switch.
        for rights in (0..=0xffu64).filter(|rights| rights & 0x1f != 5) {
            for cpl in [0, 3] {
                let set = |vector| set_gate(vector, legacy::handler(vector), select::CODE, rights);
                // A gate of 16 bits pushes half of what the handlers read.
                if rights & 0x1f != 6 && rights & 0x1f != 7 {
                    group.legacy(format_args!("{rights:x} int cpl {cpl}"), entry(int, cpl), || set(0x40));
                    group.legacy(format_args!("{rights:x} exception cpl {cpl}"), entry(ud, cpl), || set(6));
                }
            }
        }
    });
    report.group("32-gate-selector", |group| {
        for selector in code_selectors(group) {
            for cpl in [0, 1, 3] {
                let set = |vector| set_gate(vector, TARGET, selector, 0xee);
                group.legacy(format_args!("{selector:x} int cpl {cpl}"), entry(int, cpl), || set(0x40));
                group.legacy(format_args!("{selector:x} exception cpl {cpl}"), entry(ud, cpl), || set(6));
            }
        }
    });
}

/// Accesses around the limits of segments.
fn limits(group: &mut Group) {
    let accesses = [
        ("byte", code32!("mov es, ecx", "mov al, es:[edx]", "mov eax, 0")),
        ("word", code32!("mov es, ecx", "mov ax, es:[edx]", "mov eax, 0")),
        ("dword", code32!("mov es, ecx", "mov eax, es:[edx]", "mov eax, 0")),
        ("store", code32!("mov es, ecx", "mov es:[edx], ebx")),
        ("add", code32!("mov es, ecx", "add es:[edx], ebx", "cmp eax, eax")),
        ("sse", code32!("mov es, ecx", "movups es:[edx], xmm0")),
    ];
    for selector in
        [more::DATA_SMALL, more::DATA_SMALL_DOWN, more::DATA_DOWN, select::DATA_READ_ONLY, select::USER_CODE]
    {
        for offset in [0u64, 0xffc, 0xffd, 0xfff, 0x1000, 0x1001, 0xfffc, 0xfffd, 0xffff, 0x1_0000] {
            // Growing down ends above memory that both machines have.
            for (name, code) in accesses {
                let base = if selector & !3 == select::DATA_READ_ONLY || selector == select::USER_CODE {
                    DATA
                } else {
                    0
                };
                let entry =
                    entry(code, 0).set(RCX, u64::from(selector & !3)).set(RDX, base + offset).set(RBX, 0);
                group.legacy(format_args!("{name} {selector:x} at {offset:x}"), entry, || {});
            }
        }
    }
    for (name, code) in [
        ("push", code32!("mov ss, ecx", "mov esp, edx", "push ebx", "pop ebx")),
        ("pusha", code32!("mov ss, ecx", "mov esp, edx", "pusha", "popa")),
    ] {
        for esp in [0x1000u64, 0x1004, 0x1001, 4, 3, 0x20, 0x1c] {
            let entry = entry(code, 3).set(RCX, more::DATA_SMALL.into()).set(RDX, esp);
            group.legacy(format_args!("{name} at {esp:x}"), entry, || {});
        }
        for sp in [0u64, 2, 0x1_0000, 0x8000, 0x1234_0800] {
            let entry = entry(code, 3).set(RCX, more::STACK_16.into()).set(RDX, sp);
            group.legacy(format_args!("{name} 16 bits at {sp:x}"), entry, || {});
        }
    }
    let jump = code32!("jmp edx");
    for target in [0xffcu64, 0x1000, 0xffff_ffff] {
        let mut entry = entry(jump, 3).set(RDX, target);
        (entry.cs, entry.rip) = (more::CODE_SMALL.into(), 0);
        if target < 0x1000 || group.all() {
            group.legacy(format_args!("jump to {target:x}"), entry, || put(CODE + 0xffc, 0x81cd));
        }
    }
}

/// Instructions of CPL 0, and those that only exist here, at every CPL.
fn privilege(group: &mut Group) {
    for (name, code) in [
        ("mov-from-cr0", code32!("mov eax, cr0")),
        ("mov-to-cr0", code32!("mov eax, 0x33", "mov cr0, eax")),
        ("mov-from-cr3", code32!("mov eax, cr3", "mov eax, 0")),
        ("mov-from-cr4", code32!("mov eax, cr4")),
        ("mov-from-cr8", code32!(".byte 0xf0, 0x0f, 0x20, 0xc0")),
        ("mov-from-dr7", code32!("mov eax, dr7")),
        ("clts", code32!("clts")),
        ("lmsw", code32!("smsw ax", "lmsw ax")),
        ("invlpg", code32!("invlpg [edi]")),
        ("hlt-less", code32!("wbinvd")),
        ("cli", code32!("cli")),
        ("sgdt", code32!("sgdt [edi]", "mov eax, [edi]", "mov ebx, [edi + 4]")),
        ("sgdt-word", code32!(".byte 0x66, 0x0f, 0x01, 0x07", "mov eax, [edi]", "mov ebx, [edi + 4]")),
        ("sldt", code32!("sldt eax")),
        ("str", code32!("str eax")),
        ("swapgs", code32!(".byte 0x0f, 0x01, 0xf8")),
        ("syscall", code32!("syscall")),
        ("sysenter", code32!("sysenter")),
        ("sysexit", code32!("sysexit")),
        ("into-not", code32!("into")),
        ("into", code32!("mov eax, 0x7fffffff", "inc eax", "into")),
        ("bound", code32!("bound eax, [edi]")),
        ("arpl", code32!("mov eax, 8", "arpl ax, dx")),
        ("salc", code32!(".byte 0xd6")),
        ("aam 0", code32!(".byte 0xd4, 0")),
        ("mov-to-cs", code32!(".byte 0x8e, 0xc8")),
        ("lock-inc-eax", code32!(".byte 0xf0, 0x40")),
        ("rdfsbase", code32!(".byte 0xf3, 0x0f, 0xae, 0xc0")),
        ("int1", code32!(".byte 0xcd, 1")),
    ] {
        for cpl in 0..4 {
            group.legacy(format_args!("{name} cpl {cpl}"), entry(code, cpl).set(RDI, DATA), || {});
        }
    }
}
