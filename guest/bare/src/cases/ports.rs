//! IN and OUT: IOPL, and the map of ports in the TSS.

use core::arch::asm;

use crate::harness::entry::Entry;
use crate::harness::report::Report;
use crate::harness::tables::{TSS_LIMIT, select, tables};
use crate::harness::{RDI, RDX, RSI, arena, code};

/// Nobody is there.
const PORT: u64 = 0x1c0;

pub fn run(report: &Report) {
    // What ports that nobody has read as is not the same everywhere.
    let codes = [
        ("in-byte", 1, code!("in al, dx", "mov eax, 0")),
        ("in-word", 2, code!("in ax, dx", "mov eax, 0")),
        ("in-dword", 4, code!("in eax, dx", "mov eax, 0")),
        ("out-byte", 1, code!("out dx, al")),
        ("out-word", 2, code!("out dx, ax")),
        ("out-dword", 4, code!("out dx, eax")),
        ("insb", 1, code!("insb")),
        ("outsw", 2, code!("outsw")),
    ];
    report.group("io-privilege", |group| {
        for (name, _, code) in codes {
            for cpl in 0..4 {
                for iopl in 0..4 {
                    let entry = Entry::at(code, cpl).flags(iopl << 12).set(RDX, PORT);
                    let entry = entry.set(RDI, arena::DATA).set(RSI, arena::DATA);
                    group.case(format_args!("{name} cpl {cpl} iopl {iopl}"), entry);
                }
            }
        }
    });
    report.group("io-map", |group| {
        for (name, size, code) in codes {
            for first in 0..16u64 {
                for allowed in [0u64, 1, 3, 7, 0xf, 0xe, 0xd, 0xb] {
                    let entry = Entry::at(code, 3).set(RDX, PORT + first);
                    let entry = entry.set(RDI, arena::DATA).set(RSI, arena::DATA);
                    group.with(
                        format_args!("{name} of {size} at {first} allowed {allowed:x}"),
                        entry,
                        |_| {
                            let bits = !(allowed << first);
                            for (byte, at) in (PORT as usize / 8..).zip(0..4).map(|(at, byte)| (byte, at)) {
                                tables().tss.ports[at] = (bits >> (8 * byte)) as u8;
                            }
                        },
                        |_| {},
                    );
                }
            }
        }
    });
    report.group("io-map-end", |group| {
        let code = code!("in ax, dx");
        for limit in [0x66, 0x67, 0x68, 0x9f, 0xa0, 0xa1, 0xa2, TSS_LIMIT] {
            let entry = Entry::at(code, 3).set(RDX, PORT);
            group.with(format_args!("limit {limit:x}"), entry, |_| all_allowed(limit), |_| {});
        }
        for offset in [0u32, 0x60, 0x68, 0x71, 0x72, 0x8000, 0xffff] {
            let entry = Entry::at(code, 3).set(RDX, PORT);
            group.with(
                format_args!("map at {offset:x}"),
                entry,
                |_| {
                    all_allowed(TSS_LIMIT);
                    tables().tss.words[25] = offset << 16;
                },
                |_| {},
            );
        }
    });
}

/// A TSS of that limit which allows all ports that its map names.
fn all_allowed(limit: u64) {
    let tables = tables();
    tables.tss.ports.fill(0);
    tables.tss.behind.fill(0);
    let descriptor = &mut tables.gdt[usize::from(select::TSS >> 3)];
    // Not busy.
    *descriptor = *descriptor & !(0xffff | 2 << 40) | limit;
    unsafe { asm!("ltr {:x}", in(reg) select::TSS) };
}
