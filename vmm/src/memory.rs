//! The guest's memory: RAM and persistent memory, and what it takes to go back in time.
//!
//! There is one write path for everybody but the processor's own fast path: [`Memory::write`]. The processor asks
//! [`Memory::dirtied`] before it makes a page writable for itself, so both leave their mark in the same undo log.

#![allow(unsafe_code)] // Guest memory is a host mapping that the processor writes, too: no slice may stand for it.

use std::fs::File;
use std::sync::Arc;

use devices::map;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::Error;
use crate::shadow::Shadow;
use crate::undecided::Undecided;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
const PAGE_BYTES: usize = PAGE as usize;

/// A range of persistent memory. Region N of the guest's kernel is index N; label areas, which are no regions of a kernel's,
/// come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Region {
    /// Guest-physical address of the first byte, 2 MiB aligned unless it is a label area.
    pub base: u64,
    /// Bytes, a multiple of 2 MiB, or 128 KiB for a label area.
    pub size: u64,
    /// How the guest finds it.
    pub kind: RegionKind,
    /// NFIT device handle of its DIMM, 0 if it has none.
    pub dimm: u32,
}

/// How a guest finds a region of persistent memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum RegionKind {
    /// NFIT tells of it.
    Nvdimm,
    /// A virtio-pmem device tells of it.
    VirtioPmem,
    /// The memory map tells of it, as e820 type 12.
    Legacy,
    /// It is the label area of an NVDIMM: only the methods _LSI, _LSR and _LSW reach it, and what one of them has written is
    /// durable when it returns. Its addresses are a way to speak of it: neither processors nor devices see it there.
    Labels,
}

/// Whether a bank forgets when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BankKind {
    Ram,
    Pmem,
}

/// One contiguous piece of guest-physical memory.
struct Bank {
    base: u64,
    size: u64,
    kind: BankKind,
    /// Index of the first page in `Memory::stamps`.
    first: usize,
    host: Arc<MmapRegion>,
}

/// A page's content before the level that saved it, and the level that had saved it before.
struct Saved {
    page: u64,
    previous: u32,
}

/// Undo log of one snapshot level.
#[derive(Default)]
struct Level {
    stamp: u32,
    saved: Vec<Saved>,
    contents: Vec<u8>,
    undecided: Undecided,
}

/// RAM and persistent memory of one machine.
pub(crate) struct Memory {
    banks: Vec<Bank>,
    /// For every page, the stamp of the innermost level that has saved it, 0 for none.
    stamps: Vec<u32>,
    levels: Vec<Level>,
    next_stamp: u32,
    /// Pages written by somebody else than the processor since the last [`Memory::take_written`].
    written: Vec<u64>,
    /// While an engine writes pages that it names only later.
    shadow: Option<Shadow>,
    /// Which bytes are undecided. The processor's stores are told by it: see `cpu::Bus::put_origins`.
    pub(crate) undecided: Undecided,
    /// Where a device would have read undecided bytes.
    undecided_for_device: Option<u64>,
    /// Pages that somebody else wrote, while an engine wants to know.
    touched: Option<Vec<u64>>,
}

impl Memory {
    /// Maps zeroed memory, or with `file` a private copy of its content: bank after bank from `offset` on.
    pub(crate) fn new(
        layout: &[(u64, u64, BankKind)],
        file: Option<(&Arc<File>, u64)>,
    ) -> Result<Memory, Error> {
        let mut banks = Vec::new();
        let (mut first, mut at) = (0, file.map_or(0, |(_, offset)| offset));
        for &(base, size, kind) in layout {
            let mapping = match file {
                Some((file, _)) => MmapRegion::build(
                    Some(FileOffset::from_arc(file.clone(), at)),
                    size as usize,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_NORESERVE,
                ),
                None => MmapRegion::new(size as usize),
            };
            let host = mapping.map_err(|error| Error::HostMemory {
                size,
                source: std::io::Error::other(error.to_string()),
            })?;
            banks.push(Bank { base, size, kind, first, host: Arc::new(host) });
            first += (size / PAGE) as usize;
            at += size;
        }
        Ok(Memory {
            banks,
            stamps: vec![0; first],
            levels: Vec::new(),
            next_stamp: 1,
            written: Vec::new(),
            shadow: None,
            undecided: Undecided::default(),
            undecided_for_device: None,
            touched: None,
        })
    }

    /// The same memory as the rust-vmm crates take it, for loaders.
    pub(crate) fn as_guest_memory(&self) -> Result<GuestMemoryMmap<()>, Error> {
        let regions = self.mappings().filter_map(|(base, _, host)| {
            GuestRegionMmap::with_arc(host.clone(), GuestAddress(base)).map(Arc::new)
        });
        GuestMemoryMmap::from_arc_regions(regions.collect())
            .map_err(|error| Error::Config { what: error.to_string(), hint: "memory banks must not overlap" })
    }

    /// Base, kind and mapping of every bank that processors and devices reach, in order: of all but label areas
    /// ([`RegionKind::Labels`]).
    pub(crate) fn mappings(&self) -> impl Iterator<Item = (u64, BankKind, &Arc<MmapRegion>)> {
        let banks = self.banks.iter().map(|bank| (bank.base, bank.kind, &bank.host));
        banks.filter(|(base, ..)| !(map::LABELS..map::FLUSH_HINTS).contains(base))
    }

    /// Bytes of RAM.
    pub(crate) fn ram(&self) -> u64 {
        self.banks.iter().filter(|bank| bank.kind == BankKind::Ram).map(|bank| bank.size).sum()
    }

    fn bank(&self, addr: u64) -> Option<&Bank> {
        self.banks.iter().find(|bank| addr >= bank.base && addr - bank.base < bank.size)
    }

    /// Kind and host address of a page, `None` where there is no memory.
    pub(crate) fn page(&self, page: u64) -> Option<(BankKind, *mut u8)> {
        let addr = page.checked_mul(PAGE)?;
        let bank = self.bank(addr)?;
        // SAFETY: `bank` holds `addr`, so the offset lies inside of its mapping, which is a multiple of the page
        // size long.
        Some((bank.kind, unsafe { bank.host.as_ptr().add((addr - bank.base) as usize) }))
    }

    /// Whether `addr` lies in persistent memory.
    pub(crate) fn is_pmem(&self, addr: u64) -> bool {
        self.bank(addr).is_some_and(|bank| bank.kind == BankKind::Pmem)
    }

    /// Whether `len` bytes at `addr` all lie in RAM.
    pub(crate) fn is_ram(&self, addr: u64, len: u64) -> bool {
        let holds = |bank: &Bank| {
            addr.checked_sub(bank.base).and_then(|at| at.checked_add(len)).is_some_and(|end| end <= bank.size)
        };
        self.banks.iter().any(|bank| bank.kind == BankKind::Ram && holds(bank))
    }

    /// A device would read undecided bytes at `addr`: it cannot be stopped in front of that.
    pub(crate) fn read_by_device(&mut self, addr: u64) {
        self.undecided_for_device.get_or_insert(addr);
    }

    /// Where a device would have read undecided bytes. Forgets it.
    pub(crate) fn take_read_by_device(&mut self) -> Option<u64> {
        self.undecided_for_device.take()
    }

    /// Pages within `len` bytes at `addr` are about to be written by a device: keeps their content for the undo log, and
    /// tells the processor later.
    pub(crate) fn device_writes(&mut self, addr: u64, len: usize) {
        self.undecided.overwrite(addr, len);
        for piece in split(addr, len) {
            let page = (addr + piece.start as u64) / PAGE;
            self.dirtied(page);
            self.written.push(page);
        }
    }

    /// Reads as much as lies in one page at `addr`; false where there is no memory.
    fn read_in_page(&self, addr: u64, buffer: &mut [u8]) -> bool {
        let Some((_, host)) = self.page(addr / PAGE) else { return false };
        let offset = (addr % PAGE) as usize;
        assert!(offset + buffer.len() <= PAGE_BYTES, "split at page borders by the callers");
        // SAFETY: `host` points at a whole page of a mapping that `self` keeps alive; the range lies in it. The
        // machine is stopped: nothing writes guest memory while `self` is borrowed.
        unsafe { std::ptr::copy_nonoverlapping(host.add(offset), buffer.as_mut_ptr(), buffer.len()) };
        true
    }

    /// Reads guest-physical memory; false (and an undefined rest of the buffer) where there is none.
    pub(crate) fn read(&self, addr: u64, buffer: &mut [u8]) -> bool {
        let mut at = addr;
        for piece in split(addr, buffer.len()) {
            if !self.read_in_page(at, &mut buffer[piece.clone()]) {
                return false;
            }
            at += piece.len() as u64;
        }
        true
    }

    /// Writes guest-physical memory on behalf of a device or the host; false (and part of it written) where there
    /// is none. The bytes are decided then. Telling the persistence domain is the caller's.
    pub(crate) fn write(&mut self, addr: u64, bytes: &[u8]) -> bool {
        let mut at = addr;
        for piece in split(addr, bytes.len()) {
            let page = at / PAGE;
            let Some((_, host)) = self.page(page) else { return false };
            self.dirtied(page);
            // SAFETY: as in `read_in_page`; `split` cuts at page borders.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    bytes[piece.clone()].as_ptr(),
                    host.add((at % PAGE) as usize),
                    piece.len(),
                )
            };
            self.undecided.overwrite(at, piece.len());
            self.written.push(page);
            at += piece.len() as u64;
        }
        true
    }

    /// The bytes in `mask` of a line of persistent memory hold this, and so do their copies: they are decided.
    pub(crate) fn decide(&mut self, line: u64, mask: u64, content: &[u8; 64]) {
        for (addr, byte) in self.undecided.places(line, mask) {
            self.write(addr, &content[byte..=byte]);
        }
    }

    /// Pages written by [`Memory::write`] or put back by [`Memory::rewind`] since the last call.
    pub(crate) fn take_written(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.written)
    }

    /// `page` is about to change: keeps its content if the innermost level has not kept it yet.
    pub(crate) fn dirtied(&mut self, page: u64) {
        if let Some(shadow) = &mut self.shadow {
            shadow.mark(page);
        }
        self.touch(page);
        self.keep(page);
    }

    fn touch(&mut self, page: u64) {
        self.touched.iter_mut().for_each(|pages| pages.push(page));
    }

    /// From now on pages are noted that anybody writes who says so, or no longer.
    pub(crate) fn note_touched(&mut self, on: bool) {
        self.touched = on.then(|| self.touched.take().unwrap_or_default());
    }

    /// The pages noted since the last call of [`Memory::take_touched`].
    pub(crate) fn touched(&self) -> &[u64] {
        self.touched.as_deref().unwrap_or_default()
    }

    /// The pages noted since the last call. The processor must forget which pages it may write.
    pub(crate) fn take_touched(&mut self) -> Vec<u64> {
        self.touched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// An engine that names pages late is about to write, or does so no more. While it does, snapshot levels take from a
    /// copy of memory what pages held before.
    pub(crate) fn expect_late_names(&mut self, on: bool) -> Result<(), Error> {
        match (on && !self.levels.is_empty(), &mut self.shadow) {
            (false, _) => self.shadow = None,
            (true, Some(shadow)) => shadow.follow(&[]),
            (true, None) => {
                self.shadow = Some(Shadow::new(self.banks.iter().map(|bank| (bank.base, &bank.host)))?);
            }
        }
        Ok(())
    }

    /// Whether there are snapshot levels, so that pages have to be named at all.
    pub(crate) fn has_levels(&self) -> bool {
        !self.levels.is_empty()
    }

    /// These pages were written since [`Memory::expect_late_names`] or the last call.
    pub(crate) fn named_late(&mut self, pages: &[u64]) {
        if self.shadow.is_some() {
            pages.iter().for_each(|&page| self.keep(page));
        }
        if let Some(shadow) = &mut self.shadow {
            shadow.follow(pages);
        }
    }

    fn keep(&mut self, page: u64) {
        let Some(level) = self.levels.last_mut() else { return };
        let addr = page * PAGE;
        let Some(bank) = self.banks.iter().find(|bank| addr >= bank.base && addr - bank.base < bank.size)
        else {
            return;
        };
        let stamp = &mut self.stamps[bank.first + ((addr - bank.base) / PAGE) as usize];
        if *stamp == level.stamp {
            return;
        }
        level.saved.push(Saved { page, previous: *stamp });
        *stamp = level.stamp;
        if let Some(before) = self.shadow.as_ref().and_then(|shadow| shadow.page(page)) {
            return level.contents.extend_from_slice(before);
        }
        // SAFETY: the whole page lies in the bank's mapping; the processor is not running.
        let content = unsafe {
            std::slice::from_raw_parts(bank.host.as_ptr().add((addr - bank.base) as usize), PAGE_BYTES)
        };
        level.contents.extend_from_slice(content);
    }

    /// Opens a snapshot level. The processor must forget which pages it may write.
    pub(crate) fn push(&mut self) {
        if let Some(shadow) = &mut self.shadow {
            shadow.follow(&[]);
        }
        let undecided = self.undecided.clone();
        self.levels.push(Level { stamp: self.next_stamp, undecided, ..Level::default() });
        self.next_stamp += 1;
    }

    /// Puts back every page that changed since the innermost level was opened. The level stays open. Returns how
    /// many pages that were.
    pub(crate) fn rewind(&mut self) -> usize {
        let Some(mut level) = self.levels.pop() else { return 0 };
        for (saved, content) in level.saved.iter().zip(level.contents.chunks_exact(PAGE_BYTES)) {
            let Some((_, host)) = self.page(saved.page) else { continue };
            // SAFETY: `host` is a whole page of our own mapping, `content` a whole page of the log.
            unsafe { std::ptr::copy_nonoverlapping(content.as_ptr(), host, PAGE_BYTES) };
            self.written.push(saved.page);
            self.touch(saved.page);
            if let Some(shadow) = &mut self.shadow {
                shadow.mark(saved.page);
            }
            let addr = saved.page * PAGE;
            if let Some(bank) =
                self.banks.iter().find(|bank| addr >= bank.base && addr - bank.base < bank.size)
            {
                self.stamps[bank.first + ((addr - bank.base) / PAGE) as usize] = saved.previous;
            }
        }
        self.undecided.clone_from(&level.undecided);
        self.undecided_for_device = None;
        let pages = level.saved.len();
        level.saved.clear();
        level.contents.clear();
        self.levels.push(level);
        pages
    }

    /// As [`Memory::rewind`], and closes the level.
    pub(crate) fn pop(&mut self) -> usize {
        let pages = self.rewind();
        self.levels.pop();
        pages
    }

    /// Addresses of the pages of persistent memory that the innermost level has saved, ascending.
    pub(crate) fn changed_pmem(&self) -> Vec<u64> {
        let saved = self.levels.last().map_or(&[][..], |level| &level.saved);
        let mut pages: Vec<u64> =
            saved.iter().map(|saved| saved.page * PAGE).filter(|&addr| self.is_pmem(addr)).collect();
        pages.sort_unstable();
        pages
    }

    /// Pages saved by the innermost level so far.
    pub(crate) fn dirty_pages(&self) -> usize {
        self.levels.last().map_or(0, |level| level.saved.len())
    }

    /// Banks in order: base, size and kind.
    pub(crate) fn layout(&self) -> Vec<(u64, u64, BankKind)> {
        self.banks.iter().map(|bank| (bank.base, bank.size, bank.kind)).collect()
    }
}

/// Cuts `len` bytes at guest-physical `addr` at page borders: ranges into the buffer.
pub(crate) fn split(addr: u64, len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        let in_page = PAGE_BYTES - (addr.wrapping_add(at as u64) % PAGE) as usize;
        let piece = at..len.min(at + in_page);
        at = piece.end;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory::new(&[(0, 4 * PAGE, BankKind::Ram), (1 << 32, 2 * PAGE, BankKind::Pmem)], None).unwrap()
    }

    fn byte(memory: &Memory, addr: u64) -> u8 {
        let mut buffer = [0];
        assert!(memory.read(addr, &mut buffer));
        buffer[0]
    }

    #[test]
    fn a_write_across_pages_is_read_back_and_reported() {
        let mut memory = memory();
        assert!(memory.write(PAGE - 2, &[1, 2, 3, 4]));
        let mut buffer = [0; 4];
        assert!(memory.read(PAGE - 2, &mut buffer));
        assert_eq!(buffer, [1, 2, 3, 4]);
        assert_eq!(memory.take_written(), [0, 1]);
    }

    #[test]
    fn holes_are_refused() {
        let mut memory = memory();
        assert!(!memory.write(4 * PAGE, &[1]));
        assert!(!memory.read(u64::MAX, &mut [0]));
        assert!(!memory.write(4 * PAGE - 1, &[1, 2]));
    }

    #[test]
    fn levels_nest_and_each_goes_back_to_its_own_start() {
        let mut memory = memory();
        memory.write(0, &[1]);
        memory.push();
        memory.write(0, &[2]);
        memory.push();
        memory.write(0, &[3]);
        memory.write(1 << 32, &[9]);
        assert_eq!(memory.changed_pmem(), [1 << 32]);
        assert_eq!(memory.rewind(), 2);
        assert_eq!(byte(&memory, 0), 2);
        assert_eq!(byte(&memory, 1 << 32), 0);
        memory.write(0, &[4]);
        assert_eq!(memory.pop(), 1);
        assert_eq!(byte(&memory, 0), 2);
        // The outer level has saved the page already and need not do so again.
        memory.write(0, &[5]);
        assert_eq!(memory.dirty_pages(), 1);
        assert_eq!(memory.pop(), 1);
        assert_eq!(byte(&memory, 0), 1);
        assert_eq!(memory.pop(), 0);
    }

    /// Writes as an engine does that names the page later.
    fn write_silently(memory: &Memory, addr: u64, byte: u8) {
        let (_, host) = memory.page(addr / PAGE).unwrap();
        // SAFETY: the page is ours, and nobody else has it.
        unsafe { host.add((addr % PAGE) as usize).write(byte) };
    }

    #[test]
    fn pages_named_late_go_back_like_others() {
        let mut memory = memory();
        memory.write(0, &[1]);
        memory.push();
        memory.expect_late_names(true).unwrap();
        write_silently(&memory, 0, 2);
        write_silently(&memory, 1 << 32, 2);
        // A device writes a page that the engine has written already and not named yet.
        memory.write(1, &[7]);
        memory.named_late(&[0, (1 << 32) / PAGE]);
        assert_eq!(memory.dirty_pages(), 2);
        memory.push();
        write_silently(&memory, 0, 3);
        memory.write(PAGE, &[5]);
        memory.named_late(&[0]);
        memory.write(PAGE, &[6]);
        memory.push();
        write_silently(&memory, PAGE, 9);
        memory.named_late(&[1]);
        assert_eq!((byte(&memory, PAGE), memory.pop(), byte(&memory, PAGE)), (9, 1, 6));
        assert_eq!((memory.pop(), byte(&memory, 0), byte(&memory, 1), byte(&memory, PAGE)), (2, 2, 7, 0));
        // Again, from what was put back.
        write_silently(&memory, 0, 4);
        memory.named_late(&[0]);
        assert_eq!((memory.pop(), byte(&memory, 0), byte(&memory, 1), byte(&memory, 1 << 32)), (2, 1, 0, 0));
        memory.expect_late_names(true).unwrap();
        assert!(memory.shadow.is_none(), "there is no level left");
    }

    #[test]
    fn rewinding_without_a_level_changes_nothing() {
        let mut memory = memory();
        memory.write(0, &[1]);
        assert_eq!(memory.rewind(), 0);
        assert_eq!(byte(&memory, 0), 1);
    }
}
