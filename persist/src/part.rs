//! Cutting stores into the parts that persist as one.

use smallvec::SmallVec;

use crate::{LINE, Origin, SECTOR, StorePath};

/// The piece of a store that persists as one: a piece of one line, or a whole sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Guest-physical address of the first byte.
    pub addr: u64,
    /// The bytes; never more than one line, except when the part is a whole sector.
    pub bytes: SmallVec<[u8; 16]>,
    /// `seq` of the store event; of the last one for a whole sector.
    pub event: u64,
    /// Origin of that event.
    pub origin: Origin,
    /// By which path it left the processor.
    pub path: StorePath,
    /// How often something had become durable when it was stored: parts of one epoch have equal numbers.
    pub epoch: u64,
    /// `seq` of the first flush that asked for it to be written back, for cached parts.
    pub flushed_by: Option<u64>,
    /// `seq` of the drain that made it durable, had that been a fence: under [`Settings::strict_fences`] only.
    ///
    /// [`Settings::strict_fences`]: crate::Settings::strict_fences
    pub handed_over_by: Option<u64>,
    /// `seq` of what drained it, where that does not make it durable: under `adr-lost`, and under `virtio-pmem` for
    /// non-temporal parts, which are visible from then on.
    pub drained_by: Option<u64>,
    /// `seq` of the event that told of a device flush that covered it and failed: under
    /// [`Settings::failed_flush_loses`] only.
    ///
    /// [`Settings::failed_flush_loses`]: crate::Settings::failed_flush_loses
    pub failed_by: Option<u64>,
    /// Position among the parts of one event.
    pub(crate) cut: u32,
}

impl Part {
    /// Address behind the last byte.
    pub fn end(&self) -> u64 {
        self.addr + self.bytes.len() as u64
    }

    /// Address of its line, of its first line for a whole sector.
    pub fn line(&self) -> u64 {
        line_of(self.addr)
    }

    /// Whether it is a whole sector, written by one call of a kernel flushcache copy.
    pub fn is_sector(&self) -> bool {
        self.bytes.len() as u64 == SECTOR
    }

    /// Whether it went through a cache: flushes reach it, and it keeps the order of its line.
    pub fn is_cached(&self) -> bool {
        self.path != StorePath::NonTemporal
    }

    /// Which bytes of the line at `line` it covers, bit 0 for the first.
    pub(crate) fn mask(&self, line: u64) -> u64 {
        let start = self.addr.max(line) - line;
        let end = self.end().min(line + LINE) - line;
        (u64::MAX >> (LINE - (end - start))) << start
    }

    /// Writes its bytes into `content` of the line at `line`.
    pub(crate) fn write_to(&self, line: u64, content: &mut [u8; 64]) {
        let start = self.addr.max(line);
        let end = self.end().min(line + LINE);
        let source = &self.bytes[(start - self.addr) as usize..(end - self.addr) as usize];
        content[(start - line) as usize..(end - line) as usize].copy_from_slice(source);
    }
}

/// Address of the line that holds `addr`.
pub(crate) fn line_of(addr: u64) -> u64 {
    addr & !(LINE - 1)
}

/// The lines that `len` bytes at `addr` lie in.
pub(crate) fn lines_of(addr: u64, len: u64) -> impl Iterator<Item = u64> {
    (line_of(addr)..addr.saturating_add(len)).step_by(LINE as usize)
}

/// Address of the sector that holds `addr`.
pub(crate) fn sector_of(addr: u64) -> u64 {
    addr & !(SECTOR - 1)
}

/// The lines of the sector that holds `addr`.
pub(crate) fn lines_of_sector(addr: u64) -> impl Iterator<Item = u64> {
    (sector_of(addr)..).step_by(LINE as usize).take((SECTOR / LINE) as usize)
}

/// Cuts `len` bytes at `addr` at every multiple of `unit`: (address, offset, length) of each piece.
pub(crate) fn cut(addr: u64, len: usize, unit: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let start = addr + offset as u64;
        let piece = ((unit - start % unit) as usize).min(len - offset);
        let item = (piece > 0).then_some((start, offset, piece));
        offset += piece;
        item
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_cut_at_every_multiple_of_the_unit() {
        let pieces: Vec<_> = cut(0x1005, 14, 8).collect();
        assert_eq!(pieces, [(0x1005, 0, 3), (0x1008, 3, 8), (0x1010, 11, 3)]);
        assert_eq!(cut(0x1000, 0, 8).count(), 0);
        assert_eq!(cut(0x103c, 8, 64).collect::<Vec<_>>(), [(0x103c, 0, 4), (0x1040, 4, 4)]);
    }
}
