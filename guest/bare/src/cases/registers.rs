//! Model-specific registers, and the bases of FS and GS.

use crate::harness::entry::Entry;
use crate::harness::report::{Group, Report};
use crate::harness::{RAX, RCX, RDX, code, read_msr, write_msr};

/// Registers that both machines have and that keep what is written, or refuse it.
const KEPT: [(&str, u32); 13] = [
    ("sysenter-cs", 0x174),
    ("sysenter-esp", 0x175),
    ("sysenter-eip", 0x176),
    ("pat", 0x277),
    ("star", 0xc000_0081),
    ("lstar", 0xc000_0082),
    ("cstar", 0xc000_0083),
    ("fmask", 0xc000_0084),
    ("fs-base", 0xc000_0100),
    ("gs-base", 0xc000_0101),
    ("kernel-gs-base", 0xc000_0102),
    ("tsc-aux", 0xc000_0103),
    ("mtrr-physbase0", 0x200),
];

pub fn run(report: &Report) {
    let code = code!("wrmsr", "xor eax, eax", "xor edx, edx", "rdmsr");
    report.group("msr", |group| {
        for (name, msr) in KEPT {
            for value in [
                0,
                6,
                0x0007_0406_0007_0406,
                0xffff_ffff,
                0x1_0000_0000,
                0x7fff_ffff_ffff,
                0x8000_0000_0000,
                0xffff_8000_0000_0000,
                u64::MAX,
            ] {
                let before = read_msr(msr);
                group.case(format_args!("{name} {value:x}"), write(code, 0, msr, value));
                write_msr(msr, before);
            }
        }
    });
    report.group("msr-efer", |group| {
        for value in [0xd01u64, 0xd00, 0x501, 0xc01, 0x901, 0xd03, 0x1d01, 0x1_0000_0d01, 0x4d01, 0xd05] {
            group.case(format_args!("{value:x}"), write(code, 0, 0xc000_0080, value));
        }
    });
    report.group("msr-privilege", |group| {
        let read = code!("rdmsr");
        for cpl in 0..4 {
            group.case(format_args!("rdmsr cpl {cpl}"), Entry::at(read, cpl).set(RCX, 0xc000_0082));
            group.case(format_args!("wrmsr cpl {cpl}"), write(code, cpl, 0xc000_0082, 0));
        }
        for msr in [0x1u32, 0x3f0, 0x4000_0000, 0xc000_0085, 0xc001_1000, 0xffff_ffff] {
            group.case(format_args!("rdmsr of {msr:x}"), Entry::at(read, 0).set(RCX, msr.into()));
            group.case(format_args!("wrmsr of {msr:x}"), write(code, 0, msr, 0));
        }
        let high = code!("rdmsr");
        group.case(format_args!("upper half of rcx"), Entry::at(high, 0).set(RCX, 0xffff_ffff_c000_0082));
    });
    report.group("bases", bases);
}

fn write(code: u64, cpl: u16, msr: u32, value: u64) -> Entry {
    Entry::at(code, cpl).set(RCX, msr.into()).set(RAX, value & 0xffff_ffff).set(RDX, value >> 32)
}

/// FSGSBASE and SWAPGS.
fn bases(group: &mut Group) {
    let enabled = code!("mov ecx, 0x10620", "mov cr4, rcx", "wrfsbase rax", "rdfsbase rbx", "rdgsbase rcx");
    for value in [0, 0x7fff_ffff_ffff, 0x8000_0000_0000, u64::MAX, 0xffff_7fff_ffff_ffff] {
        group.case(format_args!("wrfsbase {value:x}"), Entry::at(enabled, 0).set(RAX, value));
    }
    let short = code!("mov ecx, 0x10620", "mov cr4, rcx", "wrgsbase eax", "rdgsbase rbx", "rdgsbase ecx");
    group.case(format_args!("wrgsbase 32 bits"), Entry::at(short, 0).set(RAX, u64::MAX));
    let disabled = code!("rdfsbase rbx");
    for cpl in [0, 3] {
        group.case(format_args!("disabled cpl {cpl}"), Entry::at(disabled, cpl));
    }
    let swap = code!("mov ecx, 0xc0000101", "rdmsr", "swapgs", "mov ebx, eax", "rdmsr");
    group.with(
        format_args!("swapgs"),
        Entry::at(swap, 0),
        |_| {
            write_msr(0xc000_0102, 0x1234_5678_9abc);
        },
        |out| {
            let _ = write!(out, " [{:x} {:x}]", read_msr(0xc000_0101), read_msr(0xc000_0102));
        },
    );
    let load = code!("mov ecx, 0xc0000100", "mov fs, ebx", "rdmsr");
    for selector in [0u64, 0x10] {
        group.with(
            format_args!("loading {selector:x} replaces the base"),
            Entry::at(load, 0).set(crate::harness::RBX, selector),
            |_| write_msr(0xc000_0100, 0x1234_5678),
            |_| {},
        );
    }
}
