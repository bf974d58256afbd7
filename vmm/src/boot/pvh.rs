//! The PVH boot protocol (Xen: docs/misc/pvh.pandoc; Linux: arch/x86/platform/pvh/head.S): flat 32-bit protected mode
//! without paging, EBX = `struct hvm_start_info`.

use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_start_info};

use super::image::Image;
use super::modules::{MAX_MODULES, MAX_TEXT, Placed};
use super::{Boot, PayloadError, flat_segments, put};
use crate::Error;
use crate::memory::Memory;

/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with the top bit of the E set.
const MAGIC: u32 = 0x336e_c578;
/// Version 1 has the memory map.
const VERSION: u32 = 1;

/// Where things stand (guest-physical): the start info, the list of modules, the memory map, the texts.
const START_INFO: u64 = 0x8000;
const MODULES: u64 = 0x9000;
const MEMORY_MAP: u64 = MODULES + 32 * MAX_MODULES as u64;
const TEXTS: u64 = 0x10000;
/// All of that.
const TABLES: std::ops::Range<u64> = START_INFO..TEXTS + MAX_TEXT as u64;

/// Writes the start info and returns the processor's state at the payload's entry.
pub(super) fn prepare(
    memory: &mut Memory,
    boot: &Boot,
    image: &Image,
    modules: &[Placed],
    mut state: cpu::State,
) -> Result<cpu::State, Error> {
    let entry = image.entry_at(image.pvh.ok_or(PayloadError::NoPvhEntry)?)?;
    if let Some(segment) =
        image.segments.iter().find(|segment| segment.at.start < TABLES.end && TABLES.start < segment.at.end)
    {
        let (start, end) = (segment.at.start, segment.at.end);
        return Err(PayloadError::OverTables { start, end, tables: TABLES }.into());
    }
    let map = boot.memory_map();
    put(
        memory,
        START_INFO,
        &words(&hvm_start_info {
            magic: MAGIC,
            version: VERSION,
            nr_modules: modules.len() as u32,
            modlist_paddr: MODULES,
            cmdline_paddr: TEXTS,
            rsdp_paddr: boot.rsdp,
            memmap_paddr: MEMORY_MAP,
            memmap_entries: map.len() as u32,
            ..hvm_start_info::default()
        }),
    )?;
    let (list, texts) = lists(boot, modules);
    put(memory, MODULES, &list)?;
    put(memory, TEXTS, &texts)?;
    for (index, (addr, size, kind)) in (0..).zip(map) {
        let entry = hvm_memmap_table_entry { addr, size, type_: kind, reserved: 0 };
        let bytes = [entry.addr, entry.size, u64::from(entry.type_)].map(u64::to_le_bytes).concat();
        put(memory, MEMORY_MAP + index * bytes.len() as u64, &bytes)?;
    }
    flat_segments(&mut state, 0x10, 0x18);
    state.regs[3] = START_INFO;
    state.regs[cpu::REG_RIP] = entry.into();
    Ok(state)
}

/// The list of modules (address, size, address of the command line, reserved), and the texts: the payload's command
/// line, then those of the modules.
fn lists(boot: &Boot, modules: &[Placed]) -> (Vec<u8>, Vec<u8>) {
    let mut texts = boot.command_line.as_bytes().to_vec();
    texts.push(0);
    let mut list = Vec::new();
    for module in modules {
        let line = TEXTS + texts.len() as u64;
        let entry = [module.at.start, module.at.end - module.at.start, line, 0];
        list.extend(entry.map(u64::to_le_bytes).concat());
        texts.extend(module.command_line.as_bytes());
        texts.push(0);
    }
    (list, texts)
}

/// The start info's fields in order, little-endian.
fn words(info: &hvm_start_info) -> Vec<u8> {
    let small = [info.magic, info.version, info.flags, info.nr_modules].map(u32::to_le_bytes).concat();
    let large = [info.modlist_paddr, info.cmdline_paddr, info.rsdp_paddr, info.memmap_paddr];
    let last = [info.memmap_entries, info.reserved].map(u32::to_le_bytes).concat();
    [small, large.map(u64::to_le_bytes).concat(), last].concat()
}
