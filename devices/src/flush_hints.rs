//! Flush hint addresses (ACPI 6.4 5.2.25.7): a write drains the write-pending queue of an NVDIMM.

use serde::{Deserialize, Serialize};

/// Decodes writes to flush hint addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushHints {
    /// (address, NFIT device handle), ascending.
    hints: Vec<(u64, u32)>,
}

impl FlushHints {
    /// From (NFIT device handle, its flush hint addresses) of every NVDIMM.
    pub fn new<'a>(nvdimms: impl IntoIterator<Item = (u32, &'a [u64])>) -> FlushHints {
        let of_one = |(handle, addresses): (u32, &'a [u64])| addresses.iter().map(move |&at| (at, handle));
        let mut hints: Vec<_> = nvdimms.into_iter().flat_map(of_one).collect();
        hints.sort_unstable();
        FlushHints { hints }
    }

    /// Device handle of the NVDIMM that a write of `size` bytes at `addr` drains. Linux writes 8 bytes
    /// (generic_nvdimm_flush); the specification asks for no width, so only that one counts.
    pub fn decode(&self, addr: u64, size: usize) -> Option<u32> {
        if size != 8 {
            return None;
        }
        let found = self.hints.binary_search_by_key(&addr, |&(at, _)| at).ok()?;
        Some(self.hints[found].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eight_byte_write_to_a_hint_names_its_nvdimm() {
        let hints = FlushHints::new([(2, &[0x2000u64, 0x2040][..]), (1, &[0x1000][..])]);
        assert_eq!(hints.decode(0x2040, 8), Some(2));
        assert_eq!(hints.decode(0x1000, 8), Some(1));
        assert_eq!(hints.decode(0x1000, 4), None);
        assert_eq!(hints.decode(0x1008, 8), None);
        assert_eq!(FlushHints::default().decode(0x1000, 8), None);
    }
}
