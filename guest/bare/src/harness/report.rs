//! Tells the outcomes of cases, a line each.

use core::fmt::{self, Write};

use super::entry::{Entry, Outcome};
use super::tables::{DONE, GDT, select, stack_of_ist, tables};
use super::{arena, legacy, reset, run};
use crate::ports::{Serial, print};

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];
const RSP: usize = 4;

/// Which groups run.
pub struct Report<'a> {
    /// Only those whose name begins with this.
    pub only: &'a str,
    /// Also what QEMU 7.2 does not survive, because it checks less than the SDM says.
    pub all: bool,
}

impl Report<'_> {
    /// A group of cases, a line each.
    pub fn group(&self, name: &str, cases: impl FnOnce(&mut Group)) {
        if name.starts_with(self.only) {
            cases(&mut Group { name, all: self.all });
        }
    }
}

/// The cases of a group.
pub struct Group<'a> {
    name: &'a str,
    all: bool,
}

impl Group<'_> {
    /// Runs a case on freshly made tables and memory.
    pub fn case(&mut self, what: fmt::Arguments, entry: Entry) {
        self.with(what, entry, |_| {}, |_| {});
    }

    /// Whether cases are wanted that QEMU does not survive.
    pub fn all(&self) -> bool {
        self.all
    }

    /// A case that QEMU does not survive.
    pub fn hard(&mut self, what: fmt::Arguments, entry: Entry) {
        if self.all {
            self.case(what, entry);
        }
    }

    /// A case with something set up before and something more told after.
    pub fn with(
        &mut self,
        what: fmt::Arguments,
        entry: Entry,
        before: impl FnOnce(&mut Entry),
        after: impl FnOnce(&mut dyn Write),
    ) {
        reset(&entry);
        let mut entry = entry;
        before(&mut entry);
        let gdt = tables().gdt;
        arena::flush();
        let outcome = run(&entry);
        let start = Start { stack: stack_of_ist(1), cr0: 0x8001_0033, cr4: 0x620, gdt };
        let told = Told { entry: &entry, outcome: &outcome, start, gdt: tables().gdt };
        print!("{} {what}: {told}", self.name);
        after(&mut Serial);
        print!("\n");
    }
}

impl Group<'_> {
    /// A case outside of long mode: see [`legacy`].
    pub fn legacy(&mut self, what: fmt::Arguments, entry: Entry, before: impl FnOnce()) {
        legacy::reset(&entry);
        before();
        let gdt = legacy::gdt();
        let outcome = legacy::run(&entry);
        // The stack of the same privilege is that of the case.
        let inner = outcome.cs & 3 != 0;
        let stack = if inner { legacy::stack_of_privilege(0) } else { outcome.rsp };
        let start = Start { stack, cr0: legacy::CR0, cr4: legacy::CR4, gdt };
        let told = Told { entry: &entry, outcome: &outcome, start, gdt: legacy::gdt() };
        print!("{} {what}: {told}\n", self.name);
    }
}

/// What stood in the processor at the start, and on which stack the handler was to be called.
struct Start {
    stack: u64,
    cr0: u64,
    cr4: u64,
    gdt: [u64; GDT],
}

/// How a case ended, and what it changed.
struct Told<'a> {
    entry: &'a Entry,
    outcome: &'a Outcome,
    start: Start,
    gdt: [u64; GDT],
}

/// RF: cases that are about it tell it themselves.
const RESUME: u64 = 1 << 16;

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Told { entry, outcome, start, .. } = self;
        let at = outcome.rip.wrapping_sub(entry.rip) as i64;
        if outcome.vector == DONE as u64 {
            write!(f, "done")?;
        } else {
            write!(f, "#{}({:x})", outcome.vector, outcome.code)?;
        }
        if (0..4096).contains(&at) {
            write!(f, " at {at}")?
        } else {
            write!(f, " at {:x}", outcome.rip)?
        };
        for (index, name) in NAMES.iter().enumerate().filter(|(index, _)| *index != RSP) {
            if outcome.regs[index] != entry.regs[index] {
                write!(f, " {name}={:x}", outcome.regs[index])?;
            }
        }
        let flags = outcome.rflags & !RESUME;
        let page_fault = outcome.vector == 14;
        for (name, now, before) in [
            ("rsp", outcome.rsp, entry.regs[RSP]),
            ("flags", flags, entry.rflags & !RESUME),
            ("cs", outcome.cs, entry.cs),
            ("ss", outcome.ss, entry.ss),
            ("ds", outcome.ds, entry.ds),
            ("es", outcome.es, entry.es),
            ("fs", outcome.fs, entry.fs),
            ("gs", outcome.gs, entry.gs),
            ("stack", outcome.frame_end, start.stack),
            ("cr0", outcome.cr0, start.cr0),
            ("cr2", if page_fault { outcome.cr2 } else { 0 }, 0),
            ("cr4", outcome.cr4, start.cr4),
            ("dr6", outcome.dr6, 0xffff_0ff0),
            ("dr7", outcome.dr7, 0x400),
        ] {
            if now != before {
                write!(f, " {name}={now:x}")?;
            }
        }
        self.tell_descriptors(f)
    }
}

impl Told<'_> {
    /// Descriptors that changed, but for the busy mark that loading the tables leaves.
    fn tell_descriptors(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, (now, before)) in self.gdt.iter().zip(&self.start.gdt).enumerate() {
            if now != before && index != usize::from(select::TSS >> 3) {
                write!(f, " gdt[{:x}]={now:x}", index * 8)?;
            }
        }
        Ok(())
    }
}
