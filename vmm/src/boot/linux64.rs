//! The 64-bit boot protocol of Linux (Documentation/arch/x86/boot.rst, "64-bit boot protocol") for an ELF vmlinux.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::ByteValued;

use super::{Boot, place, put};
use crate::Error;
use crate::memory::{Memory, PAGE};

/// `type_of_loader`: no number assigned.
const LOADER_UNDEFINED: u8 = 0xff;
/// `loadflags`: the kernel is at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// `header`: "HdrS".
const HEADER_MAGIC: u32 = 0x5372_6448;
/// `boot_flag`.
const BOOT_FLAG: u16 = 0xaa55;
/// `setup_data` type: seed of the random number generator.
const SETUP_RNG_SEED: u32 = 9;
/// Bytes of that seed.
const SEED: usize = 32;
/// CR0: paging, write protection, numeric error, extension type, protection.
const CR0: u64 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1;
/// CR4: physical address extension, as long mode needs it.
const CR4: u64 = 1 << 5;
/// EFER: long mode active and enabled.
const EFER: u64 = 1 << 10 | 1 << 8;

/// Writes the parameters and returns the processor's state at the kernel's entry.
pub(super) fn prepare(
    memory: &mut Memory,
    boot: &Boot,
    entry: u64,
    initrd: u64,
    mut state: cpu::State,
) -> Result<cpu::State, Error> {
    put(memory, place::SETUP_DATA, &setup_data(boot.seed))?;
    put(memory, place::ZERO_PAGE, parameters(boot, initrd, boot.command_line.len()).as_slice())?;
    build_page_tables(memory)?;
    enter(memory, &mut state, entry)?;
    Ok(state)
}

/// One `struct setup_data`: next, type, length, data.
fn setup_data(seed: u64) -> Vec<u8> {
    let mut bytes = 0u64.to_le_bytes().to_vec();
    bytes.extend(SETUP_RNG_SEED.to_le_bytes());
    bytes.extend((SEED as u32).to_le_bytes());
    for index in 0..SEED as u64 / 8 {
        // Any function of the seed does: the kernel hashes it.
        bytes.extend((seed ^ index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    }
    bytes
}

fn parameters(boot: &Boot, initrd: u64, command_line: usize) -> boot_params {
    let mut params = boot_params { acpi_rsdp_addr: boot.rsdp, ..boot_params::default() };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.version = 0x20f;
    params.hdr.loadflags = LOADED_HIGH;
    params.hdr.kernel_alignment = 0x0020_0000;
    params.hdr.cmd_line_ptr = place::COMMAND_LINE as u32;
    params.hdr.cmdline_size = command_line as u32;
    params.hdr.setup_data = place::SETUP_DATA;
    if !boot.initrd.is_empty() {
        params.hdr.ramdisk_image = initrd as u32;
        params.hdr.ramdisk_size = boot.initrd.len() as u32;
    }
    for (entry, (addr, size, kind)) in params.e820_table.iter_mut().zip(boot.memory_map()) {
        *entry = boot_e820_entry { addr, size, r#type: kind };
        params.e820_entries += 1;
    }
    params
}

/// Identity mapping of the first 4 GiB by 2 MiB pages.
fn build_page_tables(memory: &mut Memory) -> Result<(), Error> {
    const PRESENT_WRITABLE: u64 = 3;
    const HUGE: u64 = 1 << 7;
    let directories = place::PAGE_TABLES + 2 * PAGE;
    let mut tables = vec![0u64; 6 * 512];
    tables[0] = (place::PAGE_TABLES + PAGE) | PRESENT_WRITABLE;
    for gib in 0..4 {
        tables[512 + gib] = (directories + gib as u64 * PAGE) | PRESENT_WRITABLE;
    }
    for (index, entry) in tables[1024..].iter_mut().enumerate() {
        *entry = (index as u64) << 21 | HUGE | PRESENT_WRITABLE;
    }
    let bytes: Vec<u8> = tables.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    put(memory, place::PAGE_TABLES, &bytes)
}

/// The state that the protocol asks for: long mode, identity paging, selectors 0x10 and 0x18 as __BOOT_CS and
/// __BOOT_DS, interrupts off, RSI = zero page.
fn enter(memory: &mut Memory, state: &mut cpu::State, entry: u64) -> Result<(), Error> {
    const CODE: u64 = 0x00af_9b00_0000_ffff;
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    let table = [0, 0, CODE, DATA];
    let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    put(memory, place::GDT, &bytes)?;
    state.gdtr = cpu::TableRegister { base: place::GDT, limit: bytes.len() as u16 - 1 };
    let data = cpu::Segment { selector: 0x18, base: 0, limit: u32::MAX, access: 0xc093 };
    state.segments = [data; 6];
    state.segments[1] = cpu::Segment { selector: 0x10, base: 0, limit: u32::MAX, access: 0xa09b };
    state.cr0 = CR0;
    state.cr3 = place::PAGE_TABLES;
    state.cr4 = CR4;
    state.efer = EFER;
    state.rflags = 2;
    state.regs = [0; 18];
    state.regs[4] = place::STACK;
    state.regs[6] = place::ZERO_PAGE;
    state.regs[cpu::REG_RIP] = entry;
    Ok(())
}
