//! How a namespace makes a device of a region: where the device's bytes are.

use std::borrow::Cow;
use std::ops::Range;

use crate::btt::{Layout, Map, Media};
use crate::error::Result;
use crate::namespace::{self, DATA_OFFSET};

/// How a region is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// A block device over the whole region, without DAX when the region comes from NFIT.
    Raw,
    /// A block device with DAX; the first 2 MiB hold the info block.
    Fsdax,
    /// A block translation table: a block device without DAX whose sectors are never torn. Mode `sector` of ndctl.
    Btt {
        /// Bytes of a sector: 512 or 4096.
        sector: u32,
    },
    /// A character device that programs map; the first 2 MiB hold the info block.
    Devdax,
}

/// The device of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// First byte in the region, and the one behind the last.
    extent: (u64, u64),
    btt: Option<Layout>,
}

/// The bytes of a device that may differ from what it was made with: offset in the device, and content.
pub(crate) type Changed<'a> = Vec<(u64, Cow<'a, [u8]>)>;

/// What a device holds.
pub(crate) struct View<'a> {
    pub changed: Changed<'a>,
    map: Option<Map>,
}

impl Device {
    /// Of a region of `size` bytes.
    ///
    /// # Errors
    /// [`crate::Error::BadImage`] when the region is too small for the namespace, or not aligned as it needs to be.
    pub fn of(namespace: Namespace, size: u64) -> Result<Device> {
        let btt = match namespace {
            Namespace::Btt { sector } => Some(Layout::new(size, sector)?),
            _ => None,
        };
        let extent = match namespace {
            Namespace::Raw => 0..size,
            Namespace::Fsdax | Namespace::Devdax => {
                namespace::check_size(size)?;
                DATA_OFFSET..size
            }
            Namespace::Btt { .. } => btt.as_ref().map_or(0..0, Layout::extent),
        };
        Ok(Device { extent: (extent.start, extent.end), btt })
    }

    /// Where the device's bytes are in the region as it is made. They stay there, except those of a BTT.
    pub fn extent(&self) -> Range<u64> {
        self.extent.0..self.extent.1
    }

    /// Bytes that the device writes as one.
    pub(crate) fn sector(&self) -> u32 {
        self.btt.map_or(512, |layout| layout.sector())
    }

    /// Writes what makes the kernel find the namespace in a region without labels.
    pub(crate) fn write_info(&self, namespace: Namespace, region: &mut [u8]) -> Result<()> {
        match (namespace, &self.btt) {
            (Namespace::Raw, _) => (),
            (Namespace::Fsdax, _) => namespace::write_info_block(region, namespace::FSDAX)?,
            (Namespace::Devdax, _) => {
                namespace::write_info_block(region, namespace::DEVDAX)?;
                // Nobody zeroes a device, and programs that use one zero it first.
                region[self.extent.0 as usize..].fill(0);
            }
            (Namespace::Btt { .. }, layout) => layout.iter().for_each(|layout| layout.write(region)),
        }
        Ok(())
    }

    /// What the device holds when this is in the region. `Err` says why it cannot be read.
    pub(crate) fn view<'a>(&self, media: &Media<'a>) -> std::result::Result<View<'a>, String> {
        if let Some(layout) = &self.btt {
            let map = Map::read(layout, media)?;
            return Ok(View { changed: map.changed(media), map: Some(map) });
        }
        let extent = self.extent();
        let inside = |(at, bytes): &(u64, &'a [u8])| {
            let (start, end) = (extent.start.max(*at), extent.end.min(at + bytes.len() as u64));
            (start < end).then(|| {
                let bytes = &bytes[(start - at) as usize..(end - at) as usize];
                (start - extent.start, Cow::Borrowed(bytes))
            })
        };
        Ok(View { changed: media.changes.iter().filter_map(inside).collect(), map: None })
    }

    /// Where these bytes of the device are in the region, and what else of it says so.
    pub(crate) fn places(&self, view: &View, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let start = self.extent.0;
        let shifted = |range: &Range<u64>| range.start.saturating_add(start)..range.end.saturating_add(start);
        match &view.map {
            Some(map) => map.places(ranges),
            None => ranges.iter().map(shifted).collect(),
        }
    }

    /// What [`Device::view`] reads of the region, the device's own bytes aside.
    pub(crate) fn read_for_view(&self) -> Vec<Range<u64>> {
        self.btt.iter().flat_map(Map::read_for).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_in_front_of_a_device_is_not_in_it() {
        let device = Device::of(Namespace::Fsdax, 64 << 20).unwrap();
        let base = vec![0; 64 << 20];
        let changes = [(DATA_OFFSET - 2, &[1, 2, 3, 4][..]), (0, &[9][..])];
        let view = device.view(&Media { base: &base, changes: &changes }).unwrap();
        assert_eq!(view.changed, [(0, Cow::from(&[3_u8, 4][..]))]);
        let places = device.places(&view, std::slice::from_ref(&(0..1)));
        assert_eq!((places.len(), &places[0]), (1, &(DATA_OFFSET..DATA_OFFSET + 1)));
    }
}
