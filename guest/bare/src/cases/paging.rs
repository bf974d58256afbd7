//! Page walks: rights, accessed and dirty marks, reserved bits.

use crate::harness::arena::{
    ACCESSED, DATA_PAGE, DIRTY, LARGE, NO_EXECUTE, PRESENT, SUPERVISOR_CODE, USER, WRITABLE, flush, frame,
    top_of,
};
use crate::harness::entry::Entry;
use crate::harness::report::{Group, Report};
use crate::harness::{RAX, RBX, RDI, code, write_msr};

/// Where the pages of these cases are: entry 1 of the PML4.
const PAGE: u64 = 1 << 39;
const ALL: u64 = PRESENT | WRITABLE | USER;

/// One table of each level, for one page.
#[repr(C, align(4096))]
struct Walk([[u64; 512]; 3]);
static mut WALK: Walk = Walk([[0; 512]; 3]);

/// The entries on the way to the page, from the PML4 down.
fn entries() -> [&'static mut u64; 4] {
    let walk = &raw mut WALK;
    let [pointers, directory, table] = unsafe { &mut (*walk).0 };
    [top_of(1), &mut pointers[0], &mut directory[0], &mut table[0]]
}

/// Maps the page with these bits at each level.
fn map(bits: [u64; 4]) {
    let tables: [u64; 3] = core::array::from_fn(|level| &raw const WALK as u64 + 4096 * level as u64);
    let next = [tables[0], tables[1], tables[2], frame(DATA_PAGE)];
    for (entry, (address, bits)) in entries().into_iter().zip(next.into_iter().zip(bits)) {
        *entry = address | bits;
    }
    flush();
}

pub fn run(report: &Report) {
    let accesses = [
        ("read", code!("mov cr0, rax", "mov cr4, rbx", "mov cl, [rdi]", "mov ecx, 0")),
        ("write", code!("mov cr0, rax", "mov cr4, rbx", "mov [rdi], cl", "mov ecx, 0")),
        ("execute", code!("mov cr0, rax", "mov cr4, rbx", "jmp rdi")),
    ];
    let user_accesses = [
        ("read", code!("mov cl, [rdi]", "mov ecx, 0")),
        ("write", code!("mov [rdi], cl", "mov ecx, 0")),
        ("execute", code!("jmp rdi")),
    ];
    report.group("page-rights", |group| {
        for level in 0..4 {
            for bits in 0..16u64 {
                let mut walk = [ALL; 4];
                walk[level] = (bits & ALL) | ((bits >> 3) * NO_EXECUTE);
                for (name, code) in accesses {
                    // Write protection, SMEP, SMAP, AC.
                    for mode in 0..16u64 {
                        let entry = supervisor(code, mode);
                        try_walk(
                            group,
                            format_args!("{name} level {level} {bits:x} mode {mode:x}"),
                            entry,
                            walk,
                        );
                    }
                }
                for (name, code) in user_accesses {
                    let entry = Entry::at(code, 3).set(RDI, PAGE);
                    try_walk(group, format_args!("{name} level {level} {bits:x} user"), entry, walk);
                }
            }
        }
    });
    report.group("page-reserved", |group| {
        for level in 0..4 {
            for bit in 28..64 {
                let mut walk = [ALL; 4];
                walk[level] |= 1 << bit;
                let entry = Entry::at(user_accesses[0].1, 3).set(RDI, PAGE);
                try_walk(group, format_args!("level {level} bit {bit}"), entry, walk);
            }
        }
    });
    report.group("page-large", large_pages);
    report.group("page-no-execute-off", |group| {
        for level in 0..4 {
            let mut walk = [ALL; 4];
            walk[level] |= NO_EXECUTE;
            let entry = Entry::at(user_accesses[0].1, 3).set(RDI, PAGE);
            let prepare = |_: &mut Entry| {
                map(walk);
                write_msr(0xc000_0080, 0x501);
            };
            group.with(format_args!("level {level}"), entry, prepare, |_| {});
        }
    });
    report.group("page-marks", marks);
    report.group("page-crossing", crossings);
    report.group("page-forgotten", forgotten);
}

/// A case at CPL 0 that sets CR0.WP, CR4.SMEP and CR4.SMAP as bits 0 to 2 of `mode`, with bit 3 as RFLAGS.AC.
fn supervisor(code: u64, mode: u64) -> Entry {
    let mut entry = Entry::at(code, 0).set(RDI, PAGE);
    // Supervisor code must not come from user pages.
    entry.rip = SUPERVISOR_CODE;
    entry
        .set(RAX, 0x8000_0033 | (mode & 1) << 16)
        .set(RBX, 0x620 | (mode >> 1 & 1) << 20 | (mode >> 2 & 1) << 21)
        .flags((mode >> 3) << 18)
}

/// Runs a case with the page mapped so, and tells the accessed and dirty marks.
fn try_walk(group: &mut Group, what: core::fmt::Arguments, entry: Entry, walk: [u64; 4]) {
    group.with(
        what,
        entry,
        |_| prepare_page(walk),
        |out| {
            let marks = entries().map(|entry| *entry & (ACCESSED | DIRTY));
            let _ = write!(out, " {marks:x?}");
        },
    );
}

/// INT DONE in the page, which is then mapped.
fn prepare_page(walk: [u64; 4]) {
    unsafe { (frame(DATA_PAGE) as *mut u16).write_volatile(0x81cd) };
    map(walk);
}

fn large_pages(group: &mut Group) {
    let read = code!("mov cl, [rdi]", "mov ecx, 0");
    for (level, first) in [(1, 12), (2, 12)] {
        for bit in first..64 {
            let prepare = |_: &mut Entry| {
                prepare_page([ALL; 4]);
                *entries()[level] = ALL | LARGE | 1 << bit;
                flush();
            };
            group.with(
                format_args!("level {level} bit {bit}"),
                Entry::at(read, 3).set(RDI, PAGE),
                prepare,
                |out| {
                    let _ = write!(out, " {:x}", *entries()[level] & (ACCESSED | DIRTY));
                },
            );
        }
    }
    let entry = Entry::at(read, 3).set(RDI, PAGE);
    let mut walk = [ALL; 4];
    walk[0] |= LARGE;
    try_walk(group, format_args!("level 0"), entry, walk);
}

/// Instructions that read and write, and those that fault in between.
fn marks(group: &mut Group) {
    for (name, code) in [
        ("read-modify-write", code!("add byte ptr [rdi], 1")),
        ("compare-exchange that fails", code!("mov al, 0x55", "cmpxchg [rdi], cl")),
        ("compare-exchange that succeeds", code!("mov al, 0xcd", "cmpxchg [rdi], cl")),
        ("bit test", code!("bt dword ptr [rdi], 3")),
        ("exchange", code!("xchg [rdi], cl")),
        ("push", code!("mov rsp, rdi", "push rcx", "mov rsp, rsi")),
        ("prefetch", code!("prefetcht0 [rdi]")),
        ("clflush", code!("clflush [rdi]")),
        ("invlpg", code!("nop dword ptr [rdi]")),
        ("lea", code!("lea rcx, [rdi]", "mov ecx, 0")),
        ("no bytes", code!("xor ecx, ecx", "rep stosb")),
        ("compare with rep", code!("mov ecx, 1", "mov rsi, rdi", "repe cmpsb", "mov rsi, rdi")),
        ("verr", code!("verr word ptr [rdi + 16]")),
        ("fxsave", code!("fxsave [rdi + 512]")),
    ] {
        let entry = Entry::at(code, 3).set(RDI, if name == "push" { PAGE + 8 } else { PAGE }).set(6, PAGE);
        try_walk(group, format_args!("{name}"), entry, [ALL; 4]);
        let mut walk = [ALL; 4];
        walk[3] = PRESENT | USER;
        try_walk(group, format_args!("{name}, read-only"), entry, walk);
    }
}

/// Accesses that begin in the page and end in the next, which is missing.
fn crossings(group: &mut Group) {
    for (name, code) in [
        ("read", code!("mov rcx, [rdi + 0xffc]")),
        ("write", code!("mov [rdi + 0xffc], rcx")),
        ("read-modify-write", code!("add [rdi + 0xffc], rcx")),
        ("sse", code!("movups [rdi + 0xff8], xmm0")),
        ("push", code!("lea rsp, [rdi + 0x1004]", "push rcx")),
        ("string", code!("mov ecx, 16", "add rdi, 0xff8", "rep stosb")),
    ] {
        let entry = Entry::at(code, 3).set(RDI, PAGE);
        group.with(
            format_args!("{name}"),
            entry,
            |_| prepare_page([ALL; 4]),
            |out| {
                let last = unsafe { ((frame(DATA_PAGE) + 0xff8) as *const u64).read_volatile() };
                let marks = entries().map(|entry| *entry & (ACCESSED | DIRTY));
                let _ = write!(out, " {marks:x?} {last:x}");
            },
        );
    }
}

/// What stays and what goes of translations that were used already.
fn forgotten(group: &mut Group) {
    let table = &raw const WALK as u64 + 2 * 4096;
    for (name, code) in [
        ("invlpg", code!("mov cl, [rdi]", "mov qword ptr [rbx], 0", "invlpg [rdi]", "mov cl, [rdi]")),
        (
            "invlpg in the page",
            code!("mov cl, [rdi]", "mov qword ptr [rbx], 0", "invlpg [rdi + 77]", "mov cl, [rdi]"),
        ),
        (
            "mov cr3",
            code!("mov cl, [rdi]", "mov qword ptr [rbx], 0", "mov rax, cr3", "mov cr3, rax", "mov cl, [rdi]"),
        ),
        (
            "cr4.pge",
            code!(
                "mov cl, [rdi]",
                "mov qword ptr [rbx], 0",
                "mov eax, 0x6a0",
                "mov cr4, rax",
                "mov cl, [rdi]"
            ),
        ),
        (
            "cr0.wp",
            code!(
                "mov cl, [rdi]",
                "mov qword ptr [rbx], 0",
                "mov eax, 0x80000033",
                "mov cr0, rax",
                "mov ecx, 0"
            ),
        ),
        (
            "more rights",
            code!("and qword ptr [rbx], -3", "invlpg [rdi]", "or qword ptr [rbx], 2", "mov [rdi], cl"),
        ),
    ] {
        let entry = Entry::at(code, 0).set(RDI, PAGE).set(RBX, table);
        group.with(format_args!("{name}"), entry, |_| prepare_page([ALL; 4]), |_| {});
    }
}
