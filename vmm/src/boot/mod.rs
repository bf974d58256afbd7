//! Puts a kernel into memory and the processor at its first instruction.

mod linux64;
mod pvh;

use std::io::Cursor;

use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::{KernelLoader, KernelLoaderResult};
use vm_memory::GuestAddress;

use crate::memory::{Memory, PAGE};
use crate::{BootProtocol, Error};

const MIB: u64 = 1 << 20;
/// Kinds of ranges in the e820 map, which PVH shares.
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// Where things stand at the kernel's first instruction (guest-physical).
mod place {
    /// GDT.
    pub const GDT: u64 = 0x1000;
    /// PML4; the PDPT and four page directories follow.
    pub const PAGE_TABLES: u64 = 0x2000;
    /// `struct boot_params`, the zero page; `struct hvm_start_info` for PVH.
    pub const ZERO_PAGE: u64 = 0x8000;
    /// `struct setup_data` with the seed of the kernel's random numbers; lists of modules and memory for PVH.
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
    pub command_line: &'a str,
    /// Bytes of RAM below the hole for devices.
    pub low_memory: u64,
    /// Range of firmware tables that the kernel must not use as memory.
    pub firmware: std::ops::Range<u64>,
    /// Guest-physical address of the RSDP.
    pub rsdp: u64,
    pub seed: u64,
    pub protocol: BootProtocol,
}

impl Boot<'_> {
    /// Memory as the kernel is told of it: address, size, kind.
    fn memory_map(&self) -> [(u64, u64, u32); 3] {
        [
            (0, self.firmware.start, E820_RAM),
            (self.firmware.start, MIB - self.firmware.start, E820_RESERVED),
            (MIB, self.low_memory - MIB, E820_RAM),
        ]
    }
}

/// What stands in memory.
struct Loaded {
    /// Entry of the 64-bit boot protocol.
    entry: u64,
    /// Entry of PVH, if the kernel has one.
    pvh: Option<u64>,
    /// Address of the initrd.
    initrd: u64,
}

/// Loads kernel, initrd and parameters and returns the processor's state at the kernel's entry.
pub(crate) fn load(memory: &mut Memory, boot: &Boot, state: cpu::State) -> Result<cpu::State, Error> {
    let kernel = load_elf(memory, boot)?;
    let command_line = boot.command_line.as_bytes();
    if command_line.len() >= place::COMMAND_LINE_SIZE || command_line.contains(&0) {
        return Err(Error::Config {
            what: format!("the kernel command line has {} bytes", command_line.len()),
            hint: "it may have 2047, none of them zero",
        });
    }
    put(memory, place::COMMAND_LINE, command_line)?;
    let loaded = Loaded {
        entry: kernel.kernel_load.0,
        pvh: match kernel.pvh_boot_cap {
            PvhBootCapability::PvhEntryPresent(entry) => Some(entry.0),
            _ => None,
        },
        initrd: place_initrd(memory, boot, kernel.kernel_end)?,
    };
    match boot.protocol {
        BootProtocol::Linux64 => linux64::prepare(memory, boot, &loaded, state),
        BootProtocol::Pvh => pvh::prepare(memory, boot, &loaded, state),
    }
}

fn load_elf(memory: &Memory, boot: &Boot) -> Result<KernelLoaderResult, Error> {
    if boot.kernel.get(0x202..0x206) == Some(b"HdrS") && boot.kernel.get(..4) != Some(b"\x7fELF") {
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
