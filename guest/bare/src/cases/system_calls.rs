//! SYSCALL, SYSRET, SYSENTER and SYSEXIT.

use crate::harness::arena::{STACK, TARGET};
use crate::harness::entry::Entry;
use crate::harness::report::{Group, Report};
use crate::harness::{RBX, RCX, RDX, code, code32, write_msr};

const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const FMASK: u32 = 0xc000_0084;
const R11: usize = 11;

pub fn run(report: &Report) {
    report.group("syscall", syscall);
    report.group("sysret", sysret);
    report.group("sysenter", |group| {
        let code = code!("sysenter");
        for cpl in [0, 3] {
            group.case(format_args!("sysenter cpl {cpl}"), Entry::at(code, cpl));
        }
    });
}

fn syscall(group: &mut Group) {
    let (code, target) = (code!("syscall"), TARGET);
    for cpl in 0..4 {
        for (flags, mask) in
            [(0u64, 0u64), (0xcd5, 0), (0x4_0cd5, 0x4_0600), (0xcd5, 0xffff_ffff), (0x3000, 0x1000)]
        {
            group.with(
                format_args!("cpl {cpl} flags {flags:x} mask {mask:x}"),
                Entry::at(code, cpl).flags(flags),
                |_| {
                    write_msr(LSTAR, target);
                    write_msr(FMASK, mask);
                },
                |_| {},
            );
        }
    }
    for star in [0u64, 0x0b, 0x0008, 0x000b, 0x0050] {
        group.with(
            format_args!("star {star:x}"),
            Entry::at(code, 3),
            |_| {
                write_msr(LSTAR, target);
                write_msr(STAR, star << 32);
            },
            |_| {},
        );
    }
    group.with(format_args!("disabled"), Entry::at(code, 3), |_| write_msr(EFER, 0xd00), |_| {});
    let code = code32!("syscall");
    group.with(format_args!("from 32 bits"), Entry::at_32(code, 3), |_| write_msr(CSTAR, target), |_| {});
}

fn sysret(group: &mut Group) {
    let target = TARGET;
    let (long, short) = (code!(".byte 0x48, 0x0f, 0x07"), code!(".byte 0x0f, 0x07"));
    for cpl in 0..4 {
        for (name, code) in [("64", long), ("32", short)] {
            group.case(format_args!("{name} cpl {cpl}"), Entry::at(code, cpl).set(RCX, target).set(R11, 2));
        }
    }
    for flags in [0u64, 0xcd7, 0x3002, !0x100, 0x3_0002, 0x4002] {
        let entry = Entry::at(long, 0).set(RCX, target).set(R11, flags);
        group.case(format_args!("flags {flags:x}"), entry);
    }
    for star in [0u64, 0x1b, 0x18, 0x08] {
        let entry = Entry::at(long, 0).set(RCX, target).set(R11, 2);
        group.with(format_args!("star {star:x}"), entry, |_| write_msr(STAR, star << 48), |_| {});
    }
    for address in [0x8000_0000_0000u64, u64::MAX, 0xffff_7fff_ffff_ffff] {
        let entry = Entry::at(long, 0).set(RCX, address).set(R11, 2);
        group.case(format_args!("to {address:x}"), entry);
        let entry = Entry::at(short, 0).set(RCX, address & !0xffff_ffff | target).set(R11, 2);
        group.case(format_args!("to 32 bits of {address:x}"), entry);
    }
    let entry = Entry::at(long, 0).set(RCX, target).set(R11, 2);
    group.with(format_args!("disabled"), entry, |_| write_msr(EFER, 0xd00), |_| {});
    let exit = code!(".byte 0x48, 0x0f, 0x35");
    group.case(format_args!("sysexit"), Entry::at(exit, 3).set(RDX, target).set(RCX, STACK).set(RBX, 0));
}
