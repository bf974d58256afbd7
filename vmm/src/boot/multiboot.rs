//! Multiboot specification 0.6.96: its header in the file, and the information that the payload gets.

use super::image::{Image, Segment};
use super::modules::Placed;
use super::{Boot, MIB, PayloadError, flat_segments, put};
use crate::Error;
use crate::layout::FIRMWARE;
use crate::memory::Memory;

/// First word of the header.
const HEADER_MAGIC: u32 = 0x1bad_b002;
/// The header lies in this many bytes of the file, at a multiple of 4 (section 3.1).
const HEADER_RANGE: usize = 8192;
/// Requirements in bits 0 to 15 that are met: page-aligned modules, sizes of memory; and the video mode, of which
/// there is none to tell.
const KNOWN_REQUIREMENTS: u32 = 0b111;
/// Header flag: the address fields count, not the ELF headers.
const HAS_ADDRESSES: u32 = 1 << 16;

/// EAX at the entry.
const ENTRY_MAGIC: u64 = 0x2bad_b002;
/// Flags of the information: sizes of memory, command line, modules, memory map, loader's name.
const MEMORY: u32 = 1 << 0;
const COMMAND_LINE: u32 = 1 << 2;
const MODULES: u32 = 1 << 3;
const MEMORY_MAP: u32 = 1 << 6;
const LOADER_NAME: u32 = 1 << 9;

/// Bytes of the fixed part of the information, up to the fields of VBE.
const INFORMATION: usize = 72;
const NAME: &[u8] = b"pmemsim\0";

/// A header whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Where it is in the file.
    offset: usize,
    flags: u32,
    addresses: Addresses,
}

/// The address fields: they only count with [`HAS_ADDRESSES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Addresses {
    header: u32,
    load: u32,
    load_end: u32,
    bss_end: u32,
    entry: u32,
}

impl Header {
    /// The header in `file`, if there is one.
    pub fn find(file: &[u8]) -> Option<Header> {
        let range = &file[..file.len().min(HEADER_RANGE)];
        (0..range.len()).step_by(4).find_map(|offset| {
            let word = |index: usize| {
                let at = offset + 4 * index;
                Some(u32::from_le_bytes(range.get(at..at + 4)?.try_into().ok()?))
            };
            let (magic, flags, checksum) = (word(0)?, word(1)?, word(2)?);
            if magic != HEADER_MAGIC || magic.wrapping_add(flags).wrapping_add(checksum) != 0 {
                return None;
            }
            let field = |index| word(index).unwrap_or(0);
            let addresses = Addresses {
                header: field(3),
                load: field(4),
                load_end: field(5),
                bss_end: field(6),
                entry: field(7),
            };
            Some(Header { offset, flags, addresses })
        })
    }

    /// What is to be loaded: as the address fields say if they count, else as the ELF headers say.
    pub fn image(&self, file: &[u8]) -> Result<Image, PayloadError> {
        let unknown = self.flags & 0xffff & !KNOWN_REQUIREMENTS;
        if unknown != 0 {
            return Err(PayloadError::Requirements { flags: unknown });
        }
        if self.flags & HAS_ADDRESSES == 0 {
            return Image::of_elf(file);
        }
        self.image_by_addresses(file.len())
    }

    fn image_by_addresses(&self, len: usize) -> Result<Image, PayloadError> {
        let Addresses { header, load, load_end, bss_end, entry } = self.addresses;
        let wrong = |what: &'static str| PayloadError::Addresses { what };
        let before = header.checked_sub(load).ok_or(wrong("load_addr is above header_addr"))? as usize;
        let start = self.offset.checked_sub(before).ok_or(wrong("load_addr is in front of the file"))?;
        let size = match load_end {
            0 => len - start,
            end => end.checked_sub(load).ok_or(wrong("load_end_addr is below load_addr"))? as usize,
        };
        if start + size > len {
            return Err(PayloadError::Truncated { at: load.into(), wanted: (start + size) as u64, len });
        }
        let loaded = u64::from(load) + size as u64;
        let end = if bss_end == 0 { loaded } else { u64::from(bss_end) };
        if end < loaded {
            return Err(wrong("bss_end_addr is below load_end_addr"));
        }
        let segment = Segment { at: load.into()..end, file: start..start + size };
        Ok(Image { segments: vec![segment], entry: entry.into(), pvh: None })
    }
}

/// Writes the information and returns the processor's state at the payload's entry.
pub(super) fn prepare(
    memory: &mut Memory,
    boot: &Boot,
    image: &Image,
    modules: &[Placed],
    mut state: cpu::State,
) -> Result<cpu::State, Error> {
    let entry = image.entry_at(image.entry)?;
    let size = information(boot, modules, 0).len() as u64;
    let at = place(image, size, modules.last().map_or(image.end(), |module| module.at.end).max(MIB));
    put(memory, at, &information(boot, modules, at as u32))?;
    flat_segments(&mut state, 0x08, 0x10);
    state.gdtr = cpu::TableRegister { base: at + INFORMATION as u64, limit: GDT.len() as u16 * 8 - 1 };
    state.regs[0] = ENTRY_MAGIC;
    state.regs[3] = at;
    state.regs[cpu::REG_RIP] = entry.into();
    Ok(state)
}

/// Flat 32-bit code and data: what the segment registers hold. A payload must load its own, but may be slow to.
const GDT: [u64; 3] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Where `size` bytes go: below the firmware's tables, where no payload starts, or else behind everything.
fn place(image: &Image, size: u64, behind: u64) -> u64 {
    let low = (FIRMWARE.start - size) & !0xf;
    if image.overlaps(&(low..FIRMWARE.start)) { behind.next_multiple_of(16) } else { low }
}

/// The information, and behind it in this order the GDT, the modules, the memory map and the texts that it points at.
fn information(boot: &Boot, modules: &[Placed], at: u32) -> Vec<u8> {
    let gdt: Vec<u8> = GDT.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    let modules_at = INFORMATION + gdt.len();
    let map = memory_map(boot);
    let map_at = modules_at + 16 * modules.len();
    let mut texts = NAME.to_vec();
    let mut text = |line: &str| {
        let address = at + (map_at + map.len() + texts.len()) as u32;
        texts.extend(line.as_bytes());
        texts.push(0);
        address
    };
    let command_line = text(boot.command_line);
    let list: Vec<u8> = modules
        .iter()
        .flat_map(|module| [module.at.start as u32, module.at.end as u32, text(module.command_line), 0])
        .flat_map(u32::to_le_bytes)
        .collect();
    let mut fields = [0u32; INFORMATION / 4];
    fields[0] = MEMORY | COMMAND_LINE | MODULES | MEMORY_MAP | LOADER_NAME;
    fields[1] = (FIRMWARE.start >> 10) as u32;
    fields[2] = ((boot.low_memory - MIB) >> 10) as u32;
    fields[4] = command_line;
    fields[5] = modules.len() as u32;
    fields[6] = at + modules_at as u32;
    fields[11] = map.len() as u32;
    fields[12] = at + map_at as u32;
    fields[16] = at + (map_at + map.len()) as u32;
    let fields: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
    [fields, gdt, list, map, texts].concat()
}

/// Entries of `size` (without itself), address, length and kind.
fn memory_map(boot: &Boot) -> Vec<u8> {
    let entry = |(address, length, kind): (u64, u64, u32)| {
        let size = 20u32;
        [&size.to_le_bytes()[..], &address.to_le_bytes(), &length.to_le_bytes(), &kind.to_le_bytes()].concat()
    };
    boot.memory_map().into_iter().flat_map(entry).collect()
}
