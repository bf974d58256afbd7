//! Puts a kernel into memory and the processor at its first instruction.

mod linux64;

pub(crate) use linux64::{Boot, load};

/// Where things stand at the kernel's first instruction (guest-physical).
pub(crate) mod place {
    /// GDT.
    pub const GDT: u64 = 0x1000;
    /// PML4; the PDPT and four page directories follow.
    pub const PAGE_TABLES: u64 = 0x2000;
    /// `struct boot_params`, the zero page.
    pub const ZERO_PAGE: u64 = 0x8000;
    /// `struct setup_data` with the seed of the kernel's random numbers.
    pub const SETUP_DATA: u64 = 0x9000;
    /// Stack of nobody: the kernel sets its own before it pushes.
    pub const STACK: u64 = 0xf000;
    /// Command line.
    pub const COMMAND_LINE: u64 = 0x10000;
    /// Longest command line with its final zero: COMMAND_LINE_SIZE of x86.
    pub const COMMAND_LINE_SIZE: usize = 2048;
}
