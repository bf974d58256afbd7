//! Runs a case - a few instructions at some privilege, in some mode - and tells how it ended.

pub mod arena;
pub mod entry;
pub mod legacy;
pub mod report;
pub mod tables;

use core::arch::asm;

use arena::{CODE, STACK};
use entry::{Entry, OUTCOME, Outcome, enter_case};
use tables::{select, tables};

pub const RAX: usize = 0;
pub const RCX: usize = 1;
pub const RDX: usize = 2;
pub const RBX: usize = 3;
pub const RSP: usize = 4;
pub const RSI: usize = 6;
pub const RDI: usize = 7;

/// RFLAGS at a case's start unless it says otherwise.
pub const FLAGS: u64 = 2;

/// Machine code that ends in `INT DONE`, at its address.
macro_rules! code {
    ($($line:literal),+ $(,)?) => {{
        #[unsafe(naked)]
        unsafe extern "C" fn code() {
            core::arch::naked_asm!($($line),+, "int 0x81")
        }
        code as *const () as u64
    }};
}
/// The same for 32-bit code segments.
macro_rules! code32 {
    ($($line:literal),+ $(,)?) => {{
        #[unsafe(naked)]
        unsafe extern "C" fn code() {
            core::arch::naked_asm!(".code32", $($line),+, "int 0x81", ".code64")
        }
        code as *const () as u64
    }};
}
pub(crate) use {code, code32};

/// Sets up the model-specific registers that cases may change.
fn reset_registers() {
    for (msr, value) in [
        // SYSCALL, long mode, no-execute.
        (0xc000_0080, 0xd01),
        (0xc000_0081, 0x0018_0008 << 32),
        (0xc000_0082, 0),
        (0xc000_0083, 0),
        (0xc000_0084, 0),
        (0xc000_0100, 0),
        (0xc000_0101, 0),
        (0xc000_0102, 0),
        (0xc000_0103, 0),
        (0x174, 0),
        (0x175, 0),
        (0x176, 0),
    ] {
        write_msr(msr, value);
    }
    let zero = 0u64;
    unsafe {
        asm!(
            "mov dr0, {0}", "mov dr1, {0}", "mov dr2, {0}", "mov dr3, {0}", "mov cr2, {0}",
            "mov dr6, {1}", "mov cr8, {0}",
            in(reg) zero, in(reg) 0xffff_0ff0u64
        );
    }
}

/// WRMSR
pub fn write_msr(msr: u32, value: u64) {
    unsafe { asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32) };
}

/// RDMSR
pub fn read_msr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    unsafe { asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high) };
    u64::from(low) | u64::from(high) << 32
}

impl Entry {
    /// A case of 64-bit code at `code`, which `code!` made, at privilege `cpl`. Registers hold their own number.
    pub fn at(code: u64, cpl: u16) -> Entry {
        let (cs, ss, ds) = match cpl {
            0 => (select::CODE, select::DATA, select::DATA),
            1 => (select::CODE_1, select::DATA_1, select::USER_DATA),
            2 => (select::CODE_2, select::DATA_2, select::USER_DATA),
            _ => (select::USER_CODE, select::USER_DATA, select::USER_DATA),
        };
        let mut regs = core::array::from_fn(|index| 0x1111_1111_1111_1111 * index as u64);
        regs[RAX] = 0xabab_abab_abab_abab;
        regs[RSP] = STACK;
        let [cs, ss, ds] = [cs, ss, ds].map(u64::from);
        Entry { regs, rip: CODE, cs, rflags: FLAGS, ss, ds, es: ds, fs: ds, gs: ds, code }
    }

    /// A case of 32-bit code, at privilege 0 or 3.
    pub fn at_32(code: u64, cpl: u16) -> Entry {
        let mut entry = Entry::at(code, cpl);
        entry.cs = u64::from(if cpl == 0 { select::CODE_32 } else { select::USER_CODE_32 });
        for value in &mut entry.regs {
            *value &= 0xffff_ffff;
        }
        entry
    }

    /// The same with another register.
    pub fn set(mut self, register: usize, value: u64) -> Entry {
        self.regs[register] = value;
        self
    }

    /// The same with more flags.
    pub fn flags(mut self, flags: u64) -> Entry {
        self.rflags |= flags;
        self
    }
}

/// Puts everything back to where cases start, and the case's code in place.
pub fn reset(case: &Entry) {
    reset_registers();
    arena::reset();
    arena::fill(case.code);
    tables().reset();
}

/// Runs a case, on what [`reset`] and then the case itself set up.
pub fn run(case: &Entry) -> Outcome {
    unsafe {
        enter_case(case);
        (&raw const OUTCOME).read_volatile()
    }
}
