//! NFIT (ACPI 6.4 5.2.25): which address ranges are persistent memory, and of which NVDIMMs.
//!
//! Every range is all of one NVDIMM, or of several that it is interleaved over; no block windows.

use acpi_tables::sdt::Sdt;

use super::{INTERLEAVE, Nvdimm, OEM_ID, OEM_REVISION, OEM_TABLE_ID, PlatformCapability};

/// Structure types (table 5.132).
mod kind {
    pub const ADDRESS_RANGE: u16 = 0;
    pub const MEMORY_DEVICE: u16 = 1;
    pub const INTERLEAVE: u16 = 2;
    pub const CONTROL_REGION: u16 = 4;
    pub const FLUSH_HINTS: u16 = 6;
    pub const CAPABILITIES: u16 = 7;
}

/// Byte addressable persistent memory region, 66f0d379-b4f3-4074-ac43-0d3318b78cdb (table 5.133), as it lies in
/// memory: the first three groups little-endian.
const PERSISTENT_MEMORY: [u8; 16] =
    [0x79, 0xd3, 0xf0, 0x66, 0xf3, 0xb4, 0x74, 0x40, 0xac, 0x43, 0x0d, 0x33, 0x18, 0xb7, 0x8c, 0xdb];

/// Memory mapping attributes of the range, as in the UEFI memory map: write-back, non-volatile.
const WRITE_BACK: u64 = 1 << 3;
const NON_VOLATILE: u64 = 1 << 15;

/// Flag of a range: its proximity domain is valid.
const PROXIMITY_VALID: u16 = 1 << 1;
/// State of an NVDIMM: it will not save what is written to it.
const NOT_ARMED: u16 = 1 << 3;

/// Region format interface code (JEDEC SPD annex L): byte addressable, no energy backed.
const FORMAT_INTERFACE: u16 = 0x0301;

/// Bits of the platform capabilities (table 5.142) and the highest that is valid.
const CACHE_FLUSH: u32 = 1 << 0;
const MEMORY_FLUSH: u32 = 1 << 1;
const HIGHEST_CAPABILITY: u8 = 1;

pub(super) fn build(nvdimms: &[Nvdimm]) -> Vec<u8> {
    let mut table = Sdt::new(*b"NFIT", 40, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    // Indices of ranges, control regions and interleaves count from 1: zero is none.
    let mut dimm = 0;
    for (index, nvdimm) in (1..).zip(nvdimms) {
        table.append_slice(&address_range(index, nvdimm));
        let interleave = if nvdimm.others.is_empty() { 0 } else { index };
        for (way, handle) in (0..).zip(nvdimm.handles()) {
            dimm += 1;
            let place = Place { handle, dimm, range: index, interleave, way };
            table.append_slice(&memory_device(&place, nvdimm));
            table.append_slice(&control_region(&place));
        }
        if interleave != 0 {
            table.append_slice(&interleave_structure(index, nvdimm));
        }
        if !nvdimm.flush_hints.is_empty() {
            table.append_slice(&flush_hints(nvdimm));
        }
    }
    let weakest = nvdimms.iter().map(|nvdimm| nvdimm.capability).min().unwrap_or_default();
    if let Some(structure) = capabilities(weakest) {
        table.append_slice(&structure);
    }
    table.as_slice().to_vec()
}

/// System physical address range (5.2.25.2). Without the location cookie of ACPI 6.4, whose absence its flag tells:
/// Linux 6.1 takes exactly 56 bytes then.
fn address_range(index: u16, nvdimm: &Nvdimm) -> Vec<u8> {
    let structure = Structure::new(kind::ADDRESS_RANGE)
        .u16(index)
        .u16(nvdimm.proximity.map_or(0, |_| PROXIMITY_VALID)) // no cookie
        .u32(0)
        .u32(nvdimm.proximity.unwrap_or(0))
        .bytes(&PERSISTENT_MEMORY)
        .u64(nvdimm.base)
        .u64(nvdimm.size)
        .u64(WRITE_BACK | NON_VOLATILE);
    structure.finish(56)
}

/// An NVDIMM's place in the table.
struct Place {
    handle: u32,
    /// Number of the NVDIMM, and index of its control region.
    dimm: u16,
    /// Index of its address range.
    range: u16,
    /// Index of its interleave structure, 0 for none.
    interleave: u16,
    /// Which one of the interleave set it is.
    way: u64,
}

/// NVDIMM region mapping (5.2.25.3): the range is whole NVDIMMs from their first bytes on.
fn memory_device(place: &Place, nvdimm: &Nvdimm) -> Vec<u8> {
    let structure = Structure::new(kind::MEMORY_DEVICE)
        .u32(place.handle)
        .u16(place.dimm) // physical ID: handle of an SMBIOS type 17 structure
        .u16(0) // region ID within the NVDIMM
        .u16(place.range)
        .u16(place.dimm) // of the control region
        .u64(nvdimm.size / nvdimm.ways())
        .u64(place.way * INTERLEAVE) // offset of the region in the address range
        .u64(0) // address of the region in the NVDIMM
        .u16(place.interleave)
        .u16(nvdimm.ways() as u16)
        .u16(if nvdimm.armed { 0 } else { NOT_ARMED }) // state flags: nothing failed
        .u16(0);
    structure.finish(48)
}

/// Interleave (5.2.25.4), the same for all NVDIMMs of a set: each has every Nth piece, from its own offset on.
fn interleave_structure(index: u16, nvdimm: &Nvdimm) -> Vec<u8> {
    let structure = Structure::new(kind::INTERLEAVE)
        .u16(index)
        .u16(0)
        .u32(2) // lines described
        .u32(INTERLEAVE as u32)
        .u32(0) // offsets of the lines, in lines
        .u32(nvdimm.ways() as u32);
    structure.finish(24)
}

/// NVDIMM control region (5.2.25.6), without block windows. It could end behind their number; iasl reads that as a
/// table cut short.
fn control_region(place: &Place) -> Vec<u8> {
    let structure = Structure::new(kind::CONTROL_REGION)
        .u16(place.dimm)
        .u16(0) // vendor, device, revision
        .u16(0)
        .u16(1)
        .u16(0) // subsystem vendor, device, revision
        .u16(0)
        .u16(1)
        .u8(0) // manufacturing location and date are not valid
        .u8(0)
        .u16(0)
        .u16(0)
        .u32(serial_number(place.handle))
        .u16(FORMAT_INTERFACE)
        .u16(0) // number of block windows, then their size, registers and flags
        .bytes(&[0; 48]);
    structure.finish(80)
}

/// Flush hint addresses (5.2.25.7).
fn flush_hints(nvdimm: &Nvdimm) -> Vec<u8> {
    let hints = &nvdimm.flush_hints;
    let structure =
        Structure::new(kind::FLUSH_HINTS).u32(nvdimm.handle).u16(hints.len() as u16).u16(0).u32(0);
    hints.iter().fold(structure, |structure, &hint| structure.u64(hint)).finish(16 + 8 * hints.len())
}

/// Platform capabilities (5.2.25.9). Who flushes the caches flushes the memory controller too.
fn capabilities(capability: PlatformCapability) -> Option<Vec<u8>> {
    let bits = match capability {
        PlatformCapability::None => return None,
        PlatformCapability::MemoryController => MEMORY_FLUSH,
        PlatformCapability::CpuCache => CACHE_FLUSH | MEMORY_FLUSH,
    };
    let structure = Structure::new(kind::CAPABILITIES).u8(HIGHEST_CAPABILITY).u8(0).u16(0).u32(bits).u32(0);
    Some(structure.finish(16))
}

/// The kernel's interleave set cookie is made of serial numbers: they must differ and never change.
fn serial_number(handle: u32) -> u32 {
    0x5053_0000_u32.wrapping_add(handle)
}

/// A structure of the table under construction: type, length, then the fields in order.
struct Structure(Vec<u8>);

impl Structure {
    fn new(kind: u16) -> Structure {
        Structure(Vec::new()).u16(kind).u16(0)
    }

    fn bytes(mut self, bytes: &[u8]) -> Structure {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u8(self, value: u8) -> Structure {
        self.bytes(&[value])
    }

    fn u16(self, value: u16) -> Structure {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(self, value: u32) -> Structure {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Structure {
        self.bytes(&value.to_le_bytes())
    }

    /// Fills in the length, which the specification tells to be `length`.
    fn finish(mut self, length: usize) -> Vec<u8> {
        assert_eq!(self.0.len(), length, "NFIT structure of type {}", self.0[0]);
        self.0[2..4].copy_from_slice(&(length as u16).to_le_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::nvdimm;
    use super::*;

    /// (type, body) of every structure.
    fn structures(table: &[u8]) -> Vec<(u16, &[u8])> {
        let mut found = Vec::new();
        let mut rest = &table[40..];
        while !rest.is_empty() {
            let kind = u16::from_le_bytes([rest[0], rest[1]]);
            let (structure, behind) = rest.split_at(usize::from(u16::from_le_bytes([rest[2], rest[3]])));
            found.push((kind, structure));
            rest = behind;
        }
        found
    }

    fn kinds(nvdimms: &[Nvdimm]) -> Vec<u16> {
        structures(&build(nvdimms)).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn each_nvdimm_has_range_device_control_region_and_hints() {
        assert_eq!(kinds(&[nvdimm(0), nvdimm(1)]), [0, 1, 4, 6, 0, 1, 4, 6, 7]);
        let plain = Nvdimm { flush_hints: vec![], capability: PlatformCapability::None, ..nvdimm(0) };
        assert_eq!(kinds(&[plain]), [0, 1, 4]);
    }

    #[test]
    fn an_interleave_set_is_one_range_of_several_devices_with_offsets_of_their_own() {
        let two = Nvdimm { others: vec![7], armed: false, proximity: Some(3), ..nvdimm(0) };
        let table = build(&[two, nvdimm(1)]);
        let structures = structures(&table);
        let kinds: Vec<u16> = structures.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [0, 1, 4, 1, 4, 2, 6, 0, 1, 4, 6, 7]);
        let number = |index: usize, at: usize, len: usize| {
            structures[index].1[at..at + len].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))
        };
        assert_eq!((number(0, 6, 2), number(0, 12, 4)), (2, 3), "a valid proximity domain");
        for (device, handle, dimm, offset) in [(1, 1, 1, 0), (3, 7, 2, 4096)] {
            assert_eq!((number(device, 4, 4), number(device, 12, 2)), (handle, 1), "handle and range");
            assert_eq!(
                (number(device, 14, 2), number(device, 16, 8)),
                (dimm, 32 << 20),
                "control region, size"
            );
            assert_eq!((number(device, 24, 8), number(device, 40, 2)), (offset, 1), "offset and interleave");
            assert_eq!((number(device, 42, 2), number(device, 44, 2)), (2, 8), "ways, not armed");
        }
        assert_ne!(number(2, 24, 4), number(4, 24, 4), "serial numbers");
        assert_eq!((number(8, 14, 2), number(8, 40, 2), number(8, 44, 2)), (3, 0, 0), "the next one");
    }

    #[test]
    fn the_device_points_at_range_and_control_region() {
        let table = build(&[nvdimm(0), nvdimm(1)]);
        let structures = structures(&table);
        let u16_at = |index: usize, offset: usize| {
            u16::from_le_bytes(structures[index].1[offset..offset + 2].try_into().unwrap())
        };
        assert_eq!((u16_at(4, 4), u16_at(6, 4)), (2, 2), "indices of the second range and control region");
        assert_eq!((u16_at(5, 12), u16_at(5, 14)), (2, 2), "as its device names them");
    }

    #[test]
    fn the_weakest_capability_is_told() {
        let eadr = |index| Nvdimm { capability: PlatformCapability::CpuCache, ..nvdimm(index) };
        let bits = |nvdimms: &[Nvdimm]| structures(&build(nvdimms)).last().unwrap().1[8];
        assert_eq!(bits(&[eadr(0), eadr(1)]), 3);
        assert_eq!(bits(&[eadr(0), nvdimm(1)]), 2);
    }
}
