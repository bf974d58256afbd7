//! The memory image of an ELF file, 32-bit or 64-bit, by physical addresses. System V ABI, chapters 4 and 5.

use std::ops::Range;

use object::Endianness;
use object::elf::{EM_386, EM_X86_64, FileHeader32, FileHeader64, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};

use super::{PayloadError, put};
use crate::Error;
use crate::layout::FIRMWARE;
use crate::memory::Memory;

/// `XEN_ELFNOTE_PHYS32_ENTRY` (Xen: xen/include/public/elfnote.h): physical address of the 32-bit entry.
const PHYS32_ENTRY: u32 = 18;

/// One piece of the file and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Guest-physical addresses; what the file does not fill is zero.
    pub at: Range<u64>,
    /// Bytes of the file, at most as many as there are addresses.
    pub file: Range<usize>,
}

/// What is loaded of a file, and where it is entered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    pub segments: Vec<Segment>,
    /// Physical entry of the file's header.
    pub entry: u64,
    /// Physical entry of PVH, if the file names one.
    pub pvh: Option<u64>,
}

impl Image {
    /// The image of an ELF file for a processor of this family.
    pub fn of_elf(file: &[u8]) -> Result<Image, PayloadError> {
        match file.get(..5) {
            Some(b"\x7fELF\x01") => read::<FileHeader32<Endianness>>(file),
            Some(b"\x7fELF\x02") => read::<FileHeader64<Endianness>>(file),
            _ => Err(PayloadError::NoFormat),
        }
    }

    /// Address behind the last segment.
    pub fn end(&self) -> u64 {
        self.segments.iter().map(|segment| segment.at.end).max().unwrap_or(0)
    }

    /// Whether any segment has an address in `range`.
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        self.segments.iter().any(|segment| overlap(&segment.at, range))
    }

    /// Whether the segments are in memory, apart from each other and from the firmware's tables.
    pub fn check(&self, low_memory: u64) -> Result<(), PayloadError> {
        if self.segments.is_empty() {
            return Err(PayloadError::Empty);
        }
        for (index, segment) in self.segments.iter().enumerate() {
            let at = segment.at.clone();
            if at.end > low_memory {
                return Err(PayloadError::OutsideMemory { start: at.start, end: at.end, memory: low_memory });
            }
            if overlap(&at, &FIRMWARE) {
                return Err(PayloadError::OverTables { start: at.start, end: at.end, tables: FIRMWARE });
            }
            if let Some(other) = self.segments[..index].iter().find(|other| overlap(&other.at, &at)) {
                let first = other.at.clone();
                return Err(PayloadError::Overlap { first, second: at });
            }
        }
        Ok(())
    }

    /// `entry` as the 32-bit address of something loaded.
    pub fn entry_at(&self, entry: u64) -> Result<u32, PayloadError> {
        if self.segments.iter().any(|segment| segment.at.contains(&entry)) {
            // Memory ends below 4 GiB.
            return Ok(entry as u32);
        }
        Err(PayloadError::Entry { entry })
    }

    /// Copies the segments into memory, which is zero.
    pub fn place(&self, memory: &mut Memory, file: &[u8]) -> Result<(), Error> {
        self.segments
            .iter()
            .try_for_each(|segment| put(memory, segment.at.start, &file[segment.file.clone()]))
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

fn read<H: FileHeader<Endian = Endianness>>(file: &[u8]) -> Result<Image, PayloadError> {
    let damaged = |error: object::Error| PayloadError::Damaged(error.to_string());
    let header = H::parse(file).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    let machine = header.e_machine(endian);
    if endian != Endianness::Little || ![EM_386, EM_X86_64].contains(&machine) {
        return Err(PayloadError::Machine { machine: machine.0 });
    }
    let mut image = Image { entry: header.e_entry(endian).into(), ..Image::default() };
    let mut virtual_entry = None;
    for program in header.program_headers(endian, file).map_err(damaged)? {
        match program.p_type(endian) {
            PT_LOAD => {
                let Some(segment) = load_segment::<H>(program, endian, file.len())? else { continue };
                let offset = image.entry.wrapping_sub(program.p_vaddr(endian).into());
                if offset < segment.at.end - segment.at.start {
                    virtual_entry.get_or_insert(segment.at.start + offset);
                }
                image.segments.push(segment);
            }
            PT_NOTE => image.pvh = image.pvh.or(pvh_entry::<H>(program, endian, file)),
            _ => {}
        }
    }
    // The header's entry is a virtual address where the two differ.
    image.entry = virtual_entry.unwrap_or(image.entry);
    Ok(image)
}

/// The segment of a program header; `None` if it takes no memory.
fn load_segment<H: FileHeader<Endian = Endianness>>(
    program: &H::ProgramHeader,
    endian: Endianness,
    len: usize,
) -> Result<Option<Segment>, PayloadError> {
    let [start, memory, offset, size]: [u64; 4] = [
        program.p_paddr(endian).into(),
        program.p_memsz(endian).into(),
        program.p_offset(endian).into(),
        program.p_filesz(endian).into(),
    ];
    if memory == 0 {
        return Ok(None);
    }
    let damaged = |what: &str| PayloadError::Damaged(format!("the segment at {start:#x} {what}"));
    let end = start.checked_add(memory).ok_or_else(|| damaged("goes around the end of the addresses"))?;
    if size > memory {
        return Err(damaged("has more bytes in the file than in memory"));
    }
    let file_end = offset.checked_add(size).filter(|&end| end <= len as u64);
    let file_end =
        file_end.ok_or(PayloadError::Truncated { at: start, wanted: offset.saturating_add(size), len })?;
    Ok(Some(Segment { at: start..end, file: offset as usize..file_end as usize }))
}

/// The entry that a note names. Notes that make no sense name none.
fn pvh_entry<H: FileHeader<Endian = Endianness>>(
    program: &H::ProgramHeader,
    endian: Endianness,
    file: &[u8],
) -> Option<u64> {
    let mut notes = program.notes(endian, file).ok()??;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == b"Xen" && note.n_type(endian).0 == PHYS32_ENTRY {
            return match note.desc() {
                desc if desc.len() == 4 => Some(u64::from(u32::from_le_bytes(desc.try_into().ok()?))),
                desc => Some(u64::from_le_bytes(desc.try_into().ok()?)),
            };
        }
    }
    None
}
