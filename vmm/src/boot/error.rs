//! What can be wrong with a payload.

use std::ops::Range;

/// Why a payload cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It is in none of the known formats.
    #[error(
        "it is no ELF file, and has no multiboot header with addresses; link it as an ELF executable for x86"
    )]
    NoFormat,
    /// The ELF file is for another processor.
    #[error("it is an ELF file for machine {machine}; build it for i386 (3) or x86-64 (62), little-endian")]
    Machine {
        /// `e_machine`
        machine: u16,
    },
    /// The ELF headers contradict themselves.
    #[error("it is damaged: {0}; build or copy it anew")]
    Damaged(String),
    /// The file ends before what is to be loaded from it.
    #[error(
        "it is truncated: what is loaded at {at:#x} ends at byte {wanted}, the file at {len}; build or copy it anew"
    )]
    Truncated {
        /// Guest-physical address.
        at: u64,
        /// Bytes that the file must have.
        wanted: u64,
        /// Bytes that it has.
        len: usize,
    },
    /// Nothing is to be loaded.
    #[error("it has nothing to load; link it with a loadable segment")]
    Empty,
    /// Two segments share addresses.
    #[error("its segments at {first:#x?} and {second:#x?} overlap; link them apart")]
    Overlap {
        /// Guest-physical addresses of one.
        first: Range<u64>,
        /// Guest-physical addresses of the other.
        second: Range<u64>,
    },
    /// A segment does not lie in RAM.
    #[error(
        "its segment from {start:#x} to {end:#x} is not in memory, which ends at {memory:#x}; link it lower, or give the machine more memory"
    )]
    OutsideMemory {
        /// First guest-physical address.
        start: u64,
        /// Address behind the last.
        end: u64,
        /// End of memory.
        memory: u64,
    },
    /// A segment lies where the machine keeps tables.
    #[error(
        "its segment from {start:#x} to {end:#x} lies over tables of the machine from {:#x} to {:#x}; link it to 1 MiB or above",
        tables.start, tables.end
    )]
    OverTables {
        /// First guest-physical address.
        start: u64,
        /// Address behind the last.
        end: u64,
        /// Guest-physical addresses of the tables.
        tables: Range<u64>,
    },
    /// The entry is not in any segment.
    #[error("its entry {entry:#x} is not in what is loaded; link it with an entry in its code")]
    Entry {
        /// Guest-physical address.
        entry: u64,
    },
    /// The file names no entry for PVH.
    #[error(
        "it has no PVH entry; link it with an ELF note XEN_ELFNOTE_PHYS32_ENTRY (Linux: CONFIG_PVH), or with a multiboot header"
    )]
    NoPvhEntry,
    /// The file has no multiboot header.
    #[error("it has no multiboot header in its first 8 KiB whose checksum is right")]
    NoMultibootHeader,
    /// The multiboot header requires something that is not offered.
    #[error(
        "its multiboot header requires what this machine does not know: flags {flags:#x}; only bits 0 to 2 and 16 may be set"
    )]
    Requirements {
        /// The bits of the header's flags.
        flags: u32,
    },
    /// The addresses in the multiboot header contradict themselves.
    #[error(
        "the addresses in its multiboot header make no sense: {what}; see section 3.1.3 of the specification"
    )]
    Addresses {
        /// What contradicts what.
        what: &'static str,
    },
}
