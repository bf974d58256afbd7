//! Reading the block device through map and log, as the kernel does when the BTT is attached.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use super::{ARENA, FREE, LOG_GROUP, Layout, MAP_ENTRY, PAGE};

/// MAP_LBA_MASK.
const BLOCK: u32 = !(3 << 30);
/// MAP_TRIM_MASK and MAP_ERR_MASK: what an entry of the map is. Both: it names a block. None: the sector is where it was
/// at first.
const TRIMMED: u32 = 1 << 31;
const BAD: u32 = 1 << 30;

/// The region as it is: its image with what has changed.
pub(crate) struct Media<'a> {
    pub base: &'a [u8],
    /// Offset in the region, bytes; all inside, later ones on top.
    pub changes: &'a [(u64, &'a [u8])],
}

impl<'a> Media<'a> {
    fn read(&self, range: Range<u64>) -> Cow<'a, [u8]> {
        let mut bytes = Cow::Borrowed(&self.base[range.start as usize..range.end as usize]);
        for (at, change) in self.changes {
            let (start, end) = (range.start.max(*at), range.end.min(at + change.len() as u64));
            if start < end {
                let there = (start - range.start) as usize..(end - range.start) as usize;
                bytes.to_mut()[there].copy_from_slice(&change[(start - at) as usize..(end - at) as usize]);
            }
        }
        bytes
    }
}

/// Where each sector of the block device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Map {
    layout: Layout,
    /// The block of every sector.
    blocks: Vec<u32>,
}

/// The newest entry of a lane's log.
struct LogEntry {
    sector: u32,
    old: u32,
    new: u32,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

impl Map {
    /// Reads the map, and does to it what `btt_freelist_init` does: a write that got as far as the log has happened.
    /// What cannot be read is told in words.
    pub fn read(layout: &Layout, media: &Media) -> Result<Map, String> {
        if *media.read(ARENA..ARENA + PAGE) != *layout.info() {
            return Err("the BTT's info block is not the one that was there at first".into());
        }
        let raw = media.read(layout.map_range());
        let entries = raw.chunks_exact(MAP_ENTRY as usize).map(|entry| word(entry, 0));
        let mut blocks = (0..).zip(entries).map(|(sector, entry)| match entry & (TRIMMED | BAD) {
            0 => Ok(sector),
            TRIMMED => Err(format!("sector {sector:#x} of the BTT is trimmed, which Linux never does")),
            BAD => Err(format!("sector {sector:#x} of the BTT is marked as bad")),
            _ => Ok(entry & BLOCK),
        });
        let mut blocks = blocks.by_ref().collect::<Result<Vec<u32>, String>>()?;
        let log = media.read(layout.log_range());
        for (lane, group) in log.chunks_exact(LOG_GROUP as usize).enumerate() {
            let entry = newest(group).map_err(|why| format!("lane {lane} of the BTT's log {why}"))?;
            if entry.old == entry.new {
                continue;
            }
            let place = blocks.get_mut(entry.sector as usize);
            let place = place
                .ok_or_else(|| format!("lane {lane} of the BTT's log names a sector that is not there"))?;
            if *place == entry.old {
                *place = entry.new;
            }
        }
        let last = layout.sectors + FREE;
        match blocks.iter().position(|block| *block >= last) {
            Some(sector) => Err(format!("sector {sector:#x} of the BTT is in a block that is not there")),
            None => Ok(Map { layout: *layout, blocks }),
        }
    }

    fn block(&self, sector: usize) -> Range<u64> {
        let size = u64::from(self.layout.sector);
        let start = self.layout.data + u64::from(self.blocks[sector]) * size;
        start..start + size
    }

    /// What the block device holds where that may be another thing than it was at first: offset in the device, and content.
    pub fn changed<'a>(&self, media: &Media<'a>) -> Vec<(u64, Cow<'a, [u8]>)> {
        let size = u64::from(self.layout.sector);
        let data = self.layout.data..self.layout.map;
        let mut touched = BTreeSet::new();
        for (at, change) in media.changes {
            let (start, end) = (data.start.max(*at), data.end.min(at + change.len() as u64));
            if start < end {
                touched.extend((start - data.start) / size..(end - data.start).div_ceil(size));
            }
        }
        let there = |(sector, block): &(usize, &u32)| {
            *sector != **block as usize || touched.contains(&u64::from(**block))
        };
        let sectors = self.blocks.iter().enumerate().filter(there);
        sectors.map(|(sector, _)| (sector as u64 * size, media.read(self.block(sector)))).collect()
    }

    /// Where these bytes of the block device are in the region, and what it takes to know that.
    pub fn places(&self, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let size = u64::from(self.layout.sector);
        let sectors: BTreeSet<u64> =
            ranges.iter().flat_map(|range| range.start / size..range.end.div_ceil(size)).collect();
        let there = sectors.into_iter().filter(|sector| (*sector as usize) < self.blocks.len());
        Map::read_for(&self.layout)
            .into_iter()
            .chain(there.map(|sector| self.block(sector as usize)))
            .collect()
    }

    /// What [`Map::read`] reads of the region.
    pub fn read_for(layout: &Layout) -> [Range<u64>; 3] {
        [ARENA..ARENA + PAGE, layout.map_range(), layout.log_range()]
    }
}

/// The entry of a lane that was written last: `btt_log_get_old`, with entries in the first two slots (`log_set_indices`).
fn newest(group: &[u8]) -> Result<LogEntry, &'static str> {
    let (entries, padding) = group.split_at(32);
    if padding.iter().any(|byte| *byte != 0) {
        return Err("has entries where Linux before 4.15 had them");
    }
    let (first, second) = (word(entries, 12), word(entries, 28));
    if first == second || first.saturating_add(second) > 5 || first == 0 {
        return Err("has sequence numbers that do not follow one another");
    }
    // 1, 2, 3, 1 and so on: the one behind the other is newer.
    let second_is_newer = if first < second { second - first == 1 } else { first - second != 1 };
    let entry = &entries[if second_is_newer { 16 } else { 0 }..];
    Ok(LogEntry { sector: word(entry, 0), old: word(entry, 4) & BLOCK, new: word(entry, 8) & BLOCK })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 18 << 20;

    /// A BTT that writes as `btt_write_pg` does, and may be cut in the middle.
    struct Writer {
        layout: Layout,
        region: Vec<u8>,
        /// Of every lane the free block, the slot of the log that is next, and its number.
        lanes: Vec<(u32, usize, u32)>,
        /// The block of every sector.
        blocks: Vec<u32>,
    }

    /// Stores that are made durable one after the other.
    const STEPS: usize = 4;

    impl Writer {
        fn new() -> Writer {
            let layout = Layout::new(SIZE, 4096).unwrap();
            let mut region = crate::namespace::untouched(SIZE);
            layout.write(&mut region);
            let lanes = (0..FREE).map(|lane| (layout.sectors + lane, 1, 2)).collect();
            Writer { layout, region, lanes, blocks: (0..layout.sectors).collect() }
        }

        fn put(&mut self, at: u64, bytes: &[u8]) {
            self.region[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        }

        /// Does as many of the steps as are given. True when the sector is new then.
        fn write(&mut self, lane: usize, sector: u32, byte: u8, steps: usize) -> bool {
            let (free, slot, number) = self.lanes[lane];
            let old = self.blocks[sector as usize];
            let data = self.layout.data + u64::from(free) * 4096;
            let log = self.layout.log + lane as u64 * LOG_GROUP + slot as u64 * 16;
            let map = self.layout.map + u64::from(sector) * MAP_ENTRY;
            let writes: [(u64, Vec<u8>); STEPS] = [
                (data, vec![byte; 4096]),
                (log, [sector.to_le_bytes(), old.to_le_bytes()].concat()),
                (log + 8, [free.to_le_bytes(), number.to_le_bytes()].concat()),
                (map, (free | TRIMMED | BAD).to_le_bytes().to_vec()),
            ];
            for (at, bytes) in writes.iter().take(steps) {
                self.put(*at, bytes);
            }
            if steps < 3 {
                return false;
            }
            self.blocks[sector as usize] = free;
            self.lanes[lane] = (old, 1 - slot, number % 3 + 1);
            true
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_sector_is_old_or_new_wherever_its_write_ends(
            writes in prop::collection::vec((0..4_usize, 0..6_u32, 1..=255_u8), 1..30),
            cut in 0..=STEPS,
        ) {
            let mut writer = Writer::new();
            let base = writer.region.clone();
            let mut expected: Vec<Option<u8>> = vec![None; 6];
            for (index, (lane, sector, byte)) in writes.iter().enumerate() {
                let steps = if index + 1 == writes.len() { cut } else { STEPS };
                if writer.write(*lane, *sector, *byte, steps) {
                    expected[*sector as usize] = Some(*byte);
                }
            }
            let pages: Vec<(u64, &[u8])> = (0..).step_by(4096).zip(writer.region.chunks(4096)).collect();
            let changes: Vec<_> =
                pages.into_iter().filter(|(at, page)| base[*at as usize..][..4096] != **page).collect();
            let media = Media { base: &base, changes: &changes };
            let map = Map::read(&writer.layout, &media).unwrap();
            let changed = map.changed(&media);
            for (sector, byte) in expected.iter().enumerate() {
                let at = sector as u64 * 4096;
                let found = changed.iter().find(|(offset, _)| *offset == at).map(|(_, content)| &content[..]);
                let first = writer.layout.data + at;
                let content = found.unwrap_or(&base[first as usize..][..4096]);
                match byte {
                    Some(byte) => prop_assert!(content.iter().all(|it| it == byte), "{sector}"),
                    None => prop_assert_eq!(content, &base[first as usize..][..4096]),
                }
                let place = &map.places(std::slice::from_ref(&(at..at + 1)))[3];
                prop_assert_eq!(content, &writer.region[place.start as usize..place.end as usize]);
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let writer = Writer::new();
        let layout = writer.layout;
        let wrong = |at: u64, bytes: &[u8]| {
            let changes = [(at, bytes)];
            Map::read(&layout, &Media { base: &writer.region, changes: &changes }).unwrap_err()
        };
        assert!(wrong(ARENA + 60, &[0; 4]).contains("info block"));
        assert!(
            wrong(layout.map + 4, &(BAD | 1).to_le_bytes())
                .contains("sector 0x1 of the BTT is marked as bad")
        );
        assert!(wrong(layout.map, &TRIMMED.to_le_bytes()).contains("trimmed"));
        assert!(wrong(layout.map, &u32::MAX.to_le_bytes()).contains("not there"));
        assert!(wrong(layout.log + 12, &0_u32.to_le_bytes()).contains("lane 0"));
        assert!(wrong(layout.log + 64 + 12, &9_u32.to_le_bytes()).contains("lane 1"));
        assert!(wrong(layout.log + 32, &[1]).contains("4.15"));
        assert!(
            wrong(layout.log, &[[0xff; 4], [1, 0, 0, 0]].concat()).contains("a sector that is not there")
        );
    }
}
