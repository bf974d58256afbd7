//! Control and debug registers, and the instructions that change bits of them.

use crate::harness::entry::Entry;
use crate::harness::report::{Group, Report};
use crate::harness::{RAX, RDI, arena, code};

pub fn run(report: &Report) {
    report.group("privilege", privilege);
    report.group("mov-cr0", |group| {
        let code = code!("mov cr0, rax", "mov rax, cr0");
        for value in [
            0x8001_0033,
            0x8001_0013,
            0x8001_003b,
            0x8000_0033,
            0x8005_0033,
            0xe001_0033,
            0xa001_0033,
            0x1_8001_0033,
            0x8001_0037,
            0xffff_ffff,
            0x8001_0023,
            0xc001_0033,
        ] {
            group.case(format_args!("{value:x}"), Entry::at(code, 0).set(RAX, value));
        }
        for value in [0x8001_0032, 0x0001_0033] {
            group.hard(format_args!("{value:x}"), Entry::at(code, 0).set(RAX, value));
        }
    });
    report.group("mov-cr3", |group| {
        let code = code!("mov cr3, rax", "mov rbx, cr3");
        for value in [1u64 << 63, 1 << 52, 1 << 46] {
            group.hard(format_args!("{value:x}"), Entry::at(code, 0).set(RAX, value));
        }
        let code = code!(
            "mov rax, cr3",
            "or rax, 0x18",
            "mov cr3, rax",
            "mov rbx, cr3",
            "sub rax, rbx",
            "mov rbx, rax"
        );
        group.case(format_args!("write-through"), Entry::at(code, 0).set(RAX, 0));
    });
    report.group("mov-cr4", |group| {
        let code = code!("mov cr4, rax", "mov rax, cr4");
        for bit in 0..64 {
            let entry = Entry::at(code, 0).set(RAX, 0x620 ^ 1 << bit);
            match bit {
                0..=4 | 6..=10 | 16 | 20 | 21 => group.case(format_args!("bit {bit}"), entry),
                _ => group.hard(format_args!("bit {bit}"), entry),
            }
        }
    });
    report.group("mov-cr8", |group| {
        let code = code!("mov cr8, rax", "mov rbx, cr8");
        for value in [0, 1, 15, 16, 0x100, 1 << 63] {
            group.case(format_args!("{value:x}"), Entry::at(code, 0).set(RAX, value));
        }
    });
    report.group("mov-cr2", |group| {
        let code = code!("mov cr2, rax", "mov rbx, cr2");
        for value in [0, 0xdead_beef_dead_beef, u64::MAX] {
            group.case(format_args!("{value:x}"), Entry::at(code, 0).set(RAX, value));
        }
    });
    report.group("machine-status", machine_status);
    report.group("debug-registers", debug_registers);
}

/// Every instruction of CPL 0, at every CPL. What they do is another group's.
fn privilege(group: &mut Group) {
    let codes = [
        ("mov-from-cr0", code!("mov rax, cr0")),
        ("mov-from-cr2", code!("mov rax, cr2")),
        ("mov-from-cr4", code!("mov rax, cr4")),
        ("mov-from-cr8", code!("mov rax, cr8")),
        ("mov-to-cr2", code!("mov cr2, rax")),
        ("mov-to-cr8", code!("xor eax, eax", "mov cr8, rax")),
        ("mov-from-dr0", code!("mov rax, dr0")),
        ("mov-from-dr7", code!("mov rax, dr7")),
        ("mov-to-dr0", code!("mov dr0, rax")),
        ("clts", code!("clts")),
        ("smsw", code!("smsw rax")),
        ("invlpg", code!("invlpg [rdi]")),
        ("invd", code!("invd")),
        ("wbinvd", code!("wbinvd")),
        ("cli", code!("cli")),
        ("rdtsc", code!("rdtsc", "xor eax, eax", "xor edx, edx")),
        ("swapgs", code!("swapgs")),
        ("stac", code!("stac")),
        ("clac", code!("clac")),
        ("sgdt", code!("sgdt [rdi]")),
        ("sidt", code!("sidt [rdi]")),
        ("sldt", code!("sldt eax")),
        ("sldt-word", code!("sldt ax")),
        ("sldt-quad", code!("sldt rax")),
        ("str", code!("str eax")),
        ("str-word", code!("str ax")),
        ("str-quad", code!("str rax")),
        ("sldt-memory", code!("sldt [rdi]")),
        ("mov-from-cr1", code!(".byte 0x0f, 0x20, 0xc8")),
        ("mov-from-cr5", code!(".byte 0x0f, 0x20, 0xe8")),
        ("mov-from-cr9", code!(".byte 0x44, 0x0f, 0x20, 0xc8")),
        ("mov-to-cr1", code!(".byte 0x0f, 0x22, 0xc8")),
        ("mov-from-tr", code!(".byte 0x0f, 0x24, 0xc0")),
        ("lock-mov-from-cr0", code!(".byte 0xf0, 0x0f, 0x20, 0xc0")),
        ("lock-mov-from-dr0", code!(".byte 0xf0, 0x0f, 0x21, 0xc0")),
        ("ud2", code!("ud2")),
        ("push-es", code!(".byte 0x06")),
        ("into", code!(".byte 0xce")),
        ("far-call-immediate", code!(".byte 0x9a, 0, 0, 0, 0, 8, 0")),
        ("mov-to-cs", code!(".byte 0x8e, 0xc8")),
        ("mov-to-seg-6", code!(".byte 0x8e, 0xf0")),
        ("rsm", code!(".byte 0x0f, 0xaa")),
        ("monitor", code!("monitor")),
        ("mwait", code!("mwait")),
        ("xgetbv", code!("xgetbv")),
        ("vmcall", code!("vmcall")),
        ("rdpmc", code!("rdpmc")),
        ("getsec", code!(".byte 0x0f, 0x37")),
    ];
    for (name, code) in codes {
        for cpl in 0..4 {
            let entry = Entry::at(code, cpl).set(RDI, arena::DATA);
            group.with(
                format_args!("{name} cpl {cpl}"),
                entry,
                |_| {},
                |out| {
                    let _ =
                        write!(out, " [{:x} {:x}]", arena::peek(arena::DATA), arena::peek(arena::DATA + 8));
                },
            );
        }
    }
}

fn machine_status(group: &mut Group) {
    let code = code!("lmsw ax", "smsw ebx", "mov rcx, cr0");
    for value in 0..16u64 {
        group.case(format_args!("lmsw {value:x}"), Entry::at(code, 0).set(RAX, 0xfff0 | value));
    }
    let code = code!("smsw ax", "smsw [rdi]", "mov rbx, [rdi]");
    group.case(format_args!("smsw"), Entry::at(code, 3).set(RDI, arena::DATA));
    let code = code!("mov rax, cr0", "or rax, 8", "mov cr0, rax", "clts", "mov rax, cr0");
    group.case(format_args!("clts"), Entry::at(code, 0));
    let code = code!("mov rax, cr0", "or rax, 8", "mov cr0, rax", "movaps xmm0, xmm1");
    group.case(format_args!("task-switched sse"), Entry::at(code, 0));
    let code = code!("mov rax, cr0", "or rax, 8", "mov cr0, rax", "fwait");
    group.case(format_args!("task-switched fwait"), Entry::at(code, 0));
    let code = code!("mov rax, cr0", "or rax, 4", "mov cr0, rax", "movaps xmm0, xmm1");
    group.case(format_args!("emulated sse"), Entry::at(code, 0));
    let code = code!("mov rax, cr0", "or rax, 4", "mov cr0, rax", "fld1");
    group.case(format_args!("emulated x87"), Entry::at(code, 0));
    let code = code!("mov eax, 0x20", "mov cr4, rax", "movaps xmm0, xmm1");
    group.case(format_args!("sse without osfxsr"), Entry::at(code, 0));
    let code = code!("mov eax, 0x624", "mov cr4, rax", "rdtsc", "xor eax, eax", "xor edx, edx");
    group.case(format_args!("rdtsc disabled cpl 0"), Entry::at(code, 0));
}

fn debug_registers(group: &mut Group) {
    for (name, code) in [
        ("dr0", code!("mov dr0, rax", "mov rbx, dr0")),
        ("dr3", code!("mov dr3, rax", "mov rbx, dr3")),
        ("dr4", code!("mov dr4, rax", "mov rbx, dr4")),
        ("dr5", code!("mov dr5, rax", "mov rbx, dr5")),
        ("dr6", code!("mov dr6, rax", "mov rbx, dr6")),
        ("dr7", code!("mov dr7, rax", "mov rbx, dr7")),
        ("dr8", code!(".byte 0x44, 0x0f, 0x23, 0xc0")),
    ] {
        for value in [0, 0x55aa, 0xffff_0ff0, 0x400, 0xffff_d3ff & !0x2000 & !0xff, 1 << 32, 1 << 63] {
            group.case(format_args!("{name} {value:x}"), Entry::at(code, 0).set(RAX, value));
        }
    }
    let code = code!("mov eax, 0x628", "mov cr4, rax", "mov rbx, dr4");
    group.case(format_args!("dr4 with debugging extensions"), Entry::at(code, 0));
}
