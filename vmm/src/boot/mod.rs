//! Puts a kernel or another payload into memory and the processor at its first instruction.

mod error;
mod image;
mod linux64;
mod modules;
mod multiboot;
mod pvh;

use std::io::Cursor;

pub use error::PayloadError;
use linux_loader::loader::elf::Elf;
use linux_loader::loader::{KernelLoader, KernelLoaderResult};
pub use modules::Module;
use vm_memory::GuestAddress;

use crate::memory::{Memory, PAGE};
use crate::{BootProtocol, Error};

const MIB: u64 = 1 << 20;
/// Kinds of ranges in the e820 map, which PVH shares.
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// Persistent memory of before ACPI 6: Linux takes it, no standard has it.
const E820_PRAM: u32 = 12;

/// Where things stand at the kernel's first instruction (guest-physical).
mod place {
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

/// What to boot, and on how much memory.
pub(crate) struct Boot<'a> {
    pub kernel: &'a [u8],
    pub initrd: &'a [u8],
    pub modules: &'a [Module],
    pub command_line: &'a str,
    /// Bytes of RAM below the hole for devices.
    pub low_memory: u64,
    /// Range of firmware tables that the kernel must not use as memory.
    pub firmware: std::ops::Range<u64>,
    /// Legacy persistent memory: start and size.
    pub legacy_pmem: &'a [(u64, u64)],
    /// Guest-physical address of the RSDP.
    pub rsdp: u64,
    pub seed: u64,
    pub protocol: BootProtocol,
}

impl Boot<'_> {
    /// Memory as the kernel is told of it: address, size, kind.
    fn memory_map(&self) -> Vec<(u64, u64, u32)> {
        let mut map = vec![
            (0, self.firmware.start, E820_RAM),
            (self.firmware.start, MIB - self.firmware.start, E820_RESERVED),
            (MIB, self.low_memory - MIB, E820_RAM),
        ];
        map.extend(self.legacy_pmem.iter().map(|&(start, size)| (start, size, E820_PRAM)));
        map
    }
}

/// How to enter a file that is no Linux kernel: what has a multiboot header by that, other ELF files that name a PVH
/// entry, or are 32-bit, by PVH. `None` for what may be a Linux kernel, and for what cannot be loaded at all.
///
/// QEMU's `-kernel` decides in the same order (x86_load_linux in hw/i386/x86.c).
pub fn bare_protocol(file: &[u8]) -> Option<BootProtocol> {
    let has = |text: &[u8]| file.windows(text.len()).any(|window| window == text);
    if is_bzimage(file) {
        None
    } else if multiboot::Header::find(file).is_some() {
        Some(BootProtocol::Multiboot)
    } else if file.starts_with(b"\x7fELF\x01") {
        Some(BootProtocol::Pvh)
    } else {
        let entry = image::Image::of_elf(file).ok().and_then(|image| image.pvh);
        // The banner of Linux (init/version-timestamp.c).
        (entry.is_some() && !has(b"Linux version ")).then_some(BootProtocol::Pvh)
    }
}

/// Loads the payload and what it is given, and returns the processor's state at its entry.
pub(crate) fn load(memory: &mut Memory, boot: &Boot, state: cpu::State) -> Result<cpu::State, Error> {
    match boot.protocol {
        BootProtocol::Linux64 => load_linux(memory, boot, state),
        BootProtocol::Pvh => {
            let image = image::Image::of_elf(boot.kernel)?;
            let modules = load_image(memory, boot, &image)?;
            pvh::prepare(memory, boot, &image, &modules, state)
        }
        BootProtocol::Multiboot => {
            let header = multiboot::Header::find(boot.kernel).ok_or(PayloadError::NoMultibootHeader)?;
            let image = header.image(boot.kernel)?;
            let modules = load_image(memory, boot, &image)?;
            multiboot::prepare(memory, boot, &image, &modules, state)
        }
    }
}

fn load_image<'a>(
    memory: &mut Memory,
    boot: &Boot<'a>,
    image: &image::Image,
) -> Result<Vec<modules::Placed<'a>>, Error> {
    image.check(boot.low_memory)?;
    image.place(memory, boot.kernel)?;
    modules::place(memory, boot, image.end())
}

/// Loads kernel, initrd and parameters as the 64-bit boot protocol of Linux wants them.
fn load_linux(memory: &mut Memory, boot: &Boot, state: cpu::State) -> Result<cpu::State, Error> {
    let kernel = load_elf(memory, boot)?;
    let command_line = boot.command_line.as_bytes();
    if command_line.len() >= place::COMMAND_LINE_SIZE || command_line.contains(&0) {
        return Err(Error::Config {
            what: format!("the kernel command line has {} bytes", command_line.len()),
            hint: "it may have 2047, none of them zero",
        });
    }
    put(memory, place::COMMAND_LINE, command_line)?;
    let initrd = place_initrd(memory, boot, kernel.kernel_end)?;
    linux64::prepare(memory, boot, kernel.kernel_load.0, initrd, state)
}

fn is_bzimage(file: &[u8]) -> bool {
    file.get(0x202..0x206) == Some(b"HdrS") && !file.starts_with(b"\x7fELF")
}

fn load_elf(memory: &Memory, boot: &Boot) -> Result<KernelLoaderResult, Error> {
    if is_bzimage(boot.kernel) {
        return Err(Error::Kernel("this is a bzImage".to_owned()));
    }
    let guest = memory.as_guest_memory()?;
    let loaded = Elf::load(&guest, None, &mut Cursor::new(boot.kernel), Some(GuestAddress(MIB)))
        .map_err(|error| Error::Kernel(error.to_string()))?;
    if loaded.kernel_end > boot.low_memory {
        return Err(Error::Config {
            what: format!("the kernel ends at {:#x}, memory at {:#x}", loaded.kernel_end, boot.low_memory),
            hint: "give the machine more memory",
        });
    }
    Ok(loaded)
}

/// Flat 32-bit segments, everything else zero: how payloads are entered. Only the hidden parts of the segment
/// registers count until the payload loads its own GDT.
fn flat_segments(state: &mut cpu::State, code: u16, data: u16) {
    let flat = |selector, access| cpu::Segment { selector, base: 0, limit: u32::MAX, access };
    state.segments = [flat(data, 0xc093); 6];
    state.segments[1] = flat(code, 0xc09b);
    // Extension type and protection.
    state.cr0 = 1 << 4 | 1;
    state.cr3 = 0;
    state.cr4 = 0;
    state.efer = 0;
    state.rflags = 2;
    state.regs = [0; 18];
}

/// Puts the initrd at the end of memory. Returns its address.
fn place_initrd(memory: &mut Memory, boot: &Boot, kernel_end: u64) -> Result<u64, Error> {
    let len = boot.initrd.len() as u64;
    let at = boot.low_memory.checked_sub(len).map(|at| at & !(PAGE - 1)).filter(|&at| at >= kernel_end);
    let at = at.ok_or_else(|| Error::Config {
        what: format!("an initramfs of {len} bytes does not fit behind the kernel"),
        hint: "give the machine more memory",
    })?;
    put(memory, at, boot.initrd)?;
    Ok(at)
}

fn put(memory: &mut Memory, at: u64, bytes: &[u8]) -> Result<(), Error> {
    if memory.write(at, bytes) {
        return Ok(());
    }
    Err(Error::Config {
        what: format!("no memory at {at:#x} for {} bytes of boot data", bytes.len()),
        hint: "give the machine at least 64 MiB",
    })
}
