//! The PVH boot protocol (Xen: docs/misc/pvh.pandoc; Linux: arch/x86/platform/pvh/head.S): flat 32-bit protected mode
//! without paging, EBX = `struct hvm_start_info`.

use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};

use super::{Boot, Loaded, place, put};
use crate::Error;
use crate::memory::Memory;

/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with the top bit of the E set.
const MAGIC: u32 = 0x336e_c578;
/// Version 1 has the memory map.
const VERSION: u32 = 1;
/// CR0: extension type and protection.
const CR0: u64 = 1 << 4 | 1;
/// Where the memory map stands behind the list of modules.
const MEMORY_MAP: u64 = place::SETUP_DATA + 0x100;

/// Writes the start info and returns the processor's state at the kernel's entry.
pub(super) fn prepare(
    memory: &mut Memory,
    boot: &Boot,
    loaded: &Loaded,
    mut state: cpu::State,
) -> Result<cpu::State, Error> {
    let entry = loaded.pvh.ok_or_else(|| Error::Kernel("it has no PVH entry (CONFIG_PVH)".to_owned()))?;
    let modules = u32::from(!boot.initrd.is_empty());
    let map = boot.memory_map();
    put(
        memory,
        place::ZERO_PAGE,
        &words(&hvm_start_info {
            magic: MAGIC,
            version: VERSION,
            nr_modules: modules,
            modlist_paddr: place::SETUP_DATA,
            cmdline_paddr: place::COMMAND_LINE,
            rsdp_paddr: boot.rsdp,
            memmap_paddr: MEMORY_MAP,
            memmap_entries: map.len() as u32,
            ..hvm_start_info::default()
        }),
    )?;
    let initrd = hvm_modlist_entry {
        paddr: loaded.initrd,
        size: boot.initrd.len() as u64,
        ..hvm_modlist_entry::default()
    };
    put(memory, place::SETUP_DATA, &[initrd.paddr, initrd.size, 0, 0].map(u64::to_le_bytes).concat())?;
    for (index, (addr, size, kind)) in (0..).zip(map) {
        let entry = hvm_memmap_table_entry { addr, size, type_: kind, reserved: 0 };
        let bytes = [entry.addr, entry.size, u64::from(entry.type_)].map(u64::to_le_bytes).concat();
        put(memory, MEMORY_MAP + index * bytes.len() as u64, &bytes)?;
    }
    enter(&mut state, entry);
    Ok(state)
}

/// The start info's fields in order, little-endian.
fn words(info: &hvm_start_info) -> Vec<u8> {
    let small = [info.magic, info.version, info.flags, info.nr_modules].map(u32::to_le_bytes).concat();
    let large = [info.modlist_paddr, info.cmdline_paddr, info.rsdp_paddr, info.memmap_paddr];
    let last = [info.memmap_entries, info.reserved].map(u32::to_le_bytes).concat();
    [small, large.map(u64::to_le_bytes).concat(), last].concat()
}

/// Flat segments; only the hidden parts count until the kernel loads its own GDT.
fn enter(state: &mut cpu::State, entry: u64) {
    let data = cpu::Segment { selector: 0x18, base: 0, limit: u32::MAX, access: 0xc093 };
    state.segments = [data; 6];
    state.segments[1] = cpu::Segment { selector: 0x10, base: 0, limit: u32::MAX, access: 0xc09b };
    state.cr0 = CR0;
    state.cr3 = 0;
    state.cr4 = 0;
    state.efer = 0;
    state.rflags = 2;
    state.regs = [0; 18];
    state.regs[3] = place::ZERO_PAGE;
    state.regs[cpu::REG_RIP] = entry;
}
