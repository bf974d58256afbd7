//! The block translation table: a namespace whose sectors are old or new, never torn (drivers/nvdimm/btt.h and btt.c,
//! version 1.1; UEFI 2.10, chapter 6).
//!
//! A sector that is written goes into a free block first. Then the log of a lane says which block took whose place, then
//! the map of sectors to blocks does. Regions here are small enough to be one arena: info block, data, map, log, and the
//! info block once more.

mod read;

use std::ops::Range;

use crate::error::{Error, Result};
use crate::namespace::fletcher64;

pub(crate) use self::read::{Map, Media};

/// Bytes in front of the arena in a namespace without labels: nd_btt_version, `initial_offset`.
const ARENA: u64 = 4096;
/// BTT_PG_SIZE: the info block's size, and what map and log are rounded up to.
const PAGE: u64 = 4096;
/// ARENA_MIN_SIZE.
const SMALLEST_ARENA: u64 = 16 << 20;
/// BTT_DEFAULT_NFREE, which is ND_MAX_LANES: free blocks, and as many groups of the log.
const FREE: u32 = 256;
/// Bytes of `struct log_group`: four entries of 16, the last two of which are padding.
const LOG_GROUP: u64 = 64;
/// Bytes of an entry of the map: MAP_ENT_SIZE.
const MAP_ENTRY: u64 = 4;
/// Bytes of sectors that a BTT can have without metadata beside them: `btt_lbasize_supported`.
pub(crate) const SECTORS: [u32; 2] = [512, 4096];

const SIGNATURE: &[u8; 16] = b"BTT_ARENA_INFO\0\0";
/// Any but zero.
const UUID: &[u8; 16] = b"pmemsim btt   ns";

/// Where everything is in a region that is one BTT. Offsets are bytes from the region's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bytes of a sector, and of a block of the data area.
    sector: u32,
    /// Sectors that the block device has.
    sectors: u32,
    data: u64,
    map: u64,
    log: u64,
    second_info: u64,
}

impl Layout {
    /// As `alloc_arena` divides a region of `size` bytes.
    ///
    /// # Errors
    /// [`Error::BadImage`] when the region is too small, or a sector has a size that no BTT has.
    pub(crate) fn new(size: u64, sector: u32) -> Result<Layout> {
        if !SECTORS.contains(&sector) {
            let why = format!("a BTT has sectors of 512 or 4096 bytes, not {sector}");
            return Err(Error::BadImage { why });
        }
        let arena = size.saturating_sub(ARENA) / PAGE * PAGE;
        if arena < SMALLEST_ARENA {
            let least = SMALLEST_ARENA + ARENA;
            let why = format!("a BTT namespace has at least {least} bytes (16 MiB and 4 KiB), not {size}");
            return Err(Error::BadImage { why });
        }
        let log_size = (u64::from(FREE) * LOG_GROUP).next_multiple_of(PAGE);
        let available = arena - 2 * PAGE - log_size;
        let blocks = (available - PAGE) / (u64::from(sector) + MAP_ENTRY);
        let sectors = u32::try_from(blocks).ok().and_then(|blocks| blocks.checked_sub(FREE));
        let sectors = sectors.ok_or_else(|| Error::BadImage { why: "too many blocks for a BTT".into() })?;
        let map_size = (u64::from(sectors) * MAP_ENTRY).next_multiple_of(PAGE);
        let data = ARENA + PAGE;
        let map = data + available - map_size;
        let log = map + map_size;
        Ok(Layout { sector, sectors, data, map, log, second_info: log + log_size })
    }

    /// Where the block device's content lies while nothing was written to it: the map of a new BTT is the identity.
    pub(crate) fn extent(&self) -> Range<u64> {
        self.data..self.data + u64::from(self.sectors) * u64::from(self.sector)
    }

    /// Bytes of a sector.
    pub(crate) fn sector(&self) -> u32 {
        self.sector
    }

    fn map_range(&self) -> Range<u64> {
        self.map..self.map + u64::from(self.sectors) * MAP_ENTRY
    }

    fn log_range(&self) -> Range<u64> {
        self.log..self.log + u64::from(FREE) * LOG_GROUP
    }

    /// Writes everything but the data, as `btt_arena_write_layout` does.
    pub(crate) fn write(&self, region: &mut [u8]) {
        region[self.map as usize..self.second_info as usize].fill(0);
        for lane in 0..FREE {
            let free = (self.sectors + lane).to_le_bytes();
            let at = (self.log + u64::from(lane) * LOG_GROUP) as usize;
            let entry = [lane.to_le_bytes(), free, free, 1_u32.to_le_bytes()].concat();
            region[at..at + entry.len()].copy_from_slice(&entry);
        }
        let info = self.info();
        for at in [ARENA as usize, self.second_info as usize] {
            region[at..at + info.len()].copy_from_slice(&info);
        }
    }

    /// `struct btt_sb`. Its offsets count from the arena's start.
    fn info(&self) -> Vec<u8> {
        let mut block = vec![0; PAGE as usize];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, SIGNATURE);
        put(16, UUID);
        put(52, &1u16.to_le_bytes()); // version_major
        put(54, &1u16.to_le_bytes()); // version_minor
        put(56, &self.sector.to_le_bytes()); // external_lbasize
        put(60, &self.sectors.to_le_bytes()); // external_nlba
        put(64, &self.sector.to_le_bytes()); // internal_lbasize
        put(68, &(self.sectors + FREE).to_le_bytes()); // internal_nlba
        put(72, &FREE.to_le_bytes()); // nfree
        put(76, &(PAGE as u32).to_le_bytes()); // infosize
        put(88, &(self.data - ARENA).to_le_bytes()); // dataoff
        put(96, &(self.map - ARENA).to_le_bytes()); // mapoff
        put(104, &(self.log - ARENA).to_le_bytes()); // logoff
        put(112, &(self.second_info - ARENA).to_le_bytes()); // info2off
        let checksum = fletcher64(&block);
        block[4088..].copy_from_slice(&checksum.to_le_bytes());
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arena_is_divided_as_the_kernel_divides_it() {
        let layout = Layout::new(32 << 20, 4096).unwrap();
        let offsets = [layout.data, layout.map, layout.log, layout.second_info];
        assert_eq!(offsets, [8192, (32 << 20) - 4096 * 13, (32 << 20) - 4096 * 5, (32 << 20) - 4096]);
        assert_eq!(layout.sectors, 7920);
        for sector in SECTORS {
            for size in [(16 << 20) + 4096, 18 << 20, 64 << 20, 1 << 30] {
                let layout = Layout::new(size, sector).unwrap();
                let blocks = layout.data + u64::from(layout.sectors + FREE) * u64::from(sector);
                assert!(blocks <= layout.map, "{size} {sector}");
                assert!(layout.map_range().end <= layout.log && layout.log_range().end <= layout.second_info);
                assert_eq!(layout.second_info + PAGE, size);
            }
        }
    }

    #[test]
    fn what_no_btt_has_is_refused() {
        for (size, sector) in [(0, 4096), (16 << 20, 4096), (64 << 20, 1024), (64 << 20, 0)] {
            let error = Layout::new(size, sector).unwrap_err().to_string();
            assert!(error.contains("BTT"), "{error}");
        }
    }
}
