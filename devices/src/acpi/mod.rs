//! ACPI tables: RSDP, XSDT, FADT, MADT, DSDT and, with NVDIMMs, NFIT.
//!
//! The machine is *hardware-reduced* (ACPI 6.4 4.1): no SCI, no PM timer, no fixed registers but those for sleep and
//! reset. Linux then sets up neither 8259 nor PIT (acpi_generic_reduced_hw_init) and has nothing to calibrate or to
//! check with them, which shortens the boot.

mod dsdt;
mod fadt;
mod functions;
mod labels;
mod madt;
mod nfit;
mod srat;

use acpi_tables::{Aml, rsdp::Rsdp, xsdt::XSDT};
use serde::{Deserialize, Serialize};

use crate::map;

/// Names of the maker in every table header.
const OEM_ID: [u8; 6] = *b"PMEMSM";
const OEM_TABLE_ID: [u8; 8] = *b"PMEMSIM ";
const OEM_REVISION: u32 = 1;

/// What the platform saves when power fails (ACPI 6.4 5.2.25.9). The order is that of strength.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PlatformCapability {
    /// Nothing is said.
    None,
    /// What reached the memory controller: ADR.
    #[default]
    MemoryController,
    /// What is in the processor caches too: eADR.
    CpuCache,
}

/// A range of persistent memory, on one NVDIMM or interleaved over several that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nvdimm {
    /// Guest-physical address, page aligned.
    pub base: u64,
    /// Size in bytes, a multiple of the page size.
    pub size: u64,
    /// NFIT device handle, see [`crate::map::nvdimm_handle`].
    pub handle: u32,
    /// Handles of the other NVDIMMs of its interleave set: piece N of [`INTERLEAVE`] bytes is on NVDIMM N, modulo their
    /// number.
    pub others: Vec<u32>,
    /// Flush hint addresses, see [`crate::map::flush_hints`].
    pub flush_hints: Vec<u64>,
    /// Whether each has a label area, which its methods _LSI, _LSR and _LSW reach, or with `smart` functions of its _DSM.
    pub labels: bool,
    /// Whether each tells of its health, by functions of Intel's family.
    pub smart: bool,
    /// Whether it will save what is written to it: regions of what is not armed are read-only.
    pub armed: bool,
    /// Proximity domain, if one is told.
    pub proximity: Option<u32>,
    /// What its platform saves when power fails. NFIT has one answer for the whole platform: the weakest is told.
    pub capability: PlatformCapability,
}

/// Bytes that lie next to each other on one NVDIMM of an interleave set.
pub const INTERLEAVE: u64 = 4096;

impl Nvdimm {
    /// The handles of all its NVDIMMs.
    pub fn handles(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.handle).chain(self.others.iter().copied())
    }

    /// How many NVDIMMs it is on.
    fn ways(&self) -> u64 {
        1 + self.others.len() as u64
    }
}

/// The machine as the tables describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of processors, APIC IDs 0 to `cpus` - 1.
    pub cpus: u8,
    /// Start and size of RAM. Told, as proximity domain 0, where NVDIMMs have proximity domains.
    pub ram: Vec<(u64, u64)>,
    /// NVDIMMs in the order of the kernel's regions.
    pub nvdimms: Vec<Nvdimm>,
    /// Whether firmware knows of media errors: the _DSM of the NVDIMM root device scrubs and clears.
    pub media_errors: bool,
    /// Number of virtio devices, at [`map::virtio`].
    pub virtio_devices: usize,
}

/// Tables with their place in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Guest-physical address of the RSDP, for boot_params.acpi_rsdp_addr.
    pub rsdp: u64,
    /// (guest-physical address, bytes) of every table, ascending, the RSDP first.
    pub blobs: Vec<(u64, Vec<u8>)>,
}

/// Why there are no tables.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The kernel refuses ranges that do not begin and end on a page.
    #[error("NVDIMM {index}: {size:#x} bytes at {base:#x} are not whole 4096-byte pages")]
    Misaligned {
        /// Index in [`Config::nvdimms`].
        index: usize,
        /// Its base.
        base: u64,
        /// Its size.
        size: u64,
    },
    /// The kernel tells NVDIMMs apart by their handles.
    #[error("NVDIMMs {first} and {second} have the same NFIT device handle {handle:#x}")]
    SameHandle {
        /// Index in [`Config::nvdimms`].
        first: usize,
        /// Index in [`Config::nvdimms`].
        second: usize,
        /// Their handle.
        handle: u32,
    },
    /// More than can be described.
    #[error("{0} NVDIMMs, but the machine has places for {max}", max = map::MAX_NVDIMMS)]
    TooManyNvdimms(usize),
    /// More than have an interrupt line.
    #[error("{0} virtio devices, but the machine has places for {max}", max = map::MAX_VIRTIO)]
    TooManyVirtioDevices(usize),
    /// More than share the NVDIMM's page.
    #[error("NVDIMM {index}: {count} flush hints, but one has at most {max}", max = map::MAX_FLUSH_HINTS)]
    TooManyFlushHints {
        /// Index in [`Config::nvdimms`].
        index: usize,
        /// How many it was to have.
        count: usize,
    },
    /// More than fits into the area.
    #[error(
        "ACPI tables need {needed} bytes, the area for them has {size}: use fewer NVDIMMs or flush hints"
    )]
    AreaFull {
        /// Bytes needed.
        needed: u64,
        /// Size of the area in bytes.
        size: u64,
    },
}

/// Builds all tables into [`map::ACPI_AREA`].
pub fn build(config: &Config) -> Result<Tables, Error> {
    check(&config.nvdimms)?;
    if config.virtio_devices > map::MAX_VIRTIO {
        return Err(Error::TooManyVirtioDevices(config.virtio_devices));
    }
    let mut area = Area { next: map::ACPI_AREA, blobs: Vec::new() };
    area.place(vec![0; Rsdp::len()]);
    let dsdt = area.place(dsdt::build(config));
    let mut listed = vec![area.place(fadt::build(dsdt)), area.place(madt::build(config.cpus))];
    if !config.nvdimms.is_empty() {
        listed.push(area.place(nfit::build(&config.nvdimms)));
    }
    if let Some(table) = srat::build(config) {
        listed.push(area.place(table));
    }

    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    listed.into_iter().for_each(|table| xsdt.add_entry(table));
    let xsdt = area.place(bytes(&xsdt));
    area.blobs[0].1 = bytes(&Rsdp::new(OEM_ID, xsdt));

    let needed = area.next - map::ACPI_AREA;
    if needed > map::ACPI_AREA_SIZE {
        return Err(Error::AreaFull { needed, size: map::ACPI_AREA_SIZE });
    }
    Ok(Tables { rsdp: map::ACPI_AREA, blobs: area.blobs })
}

fn check(nvdimms: &[Nvdimm]) -> Result<(), Error> {
    if nvdimms.len() > map::MAX_NVDIMMS {
        return Err(Error::TooManyNvdimms(nvdimms.len()));
    }
    for (index, nvdimm) in nvdimms.iter().enumerate() {
        let Nvdimm { base, size, .. } = *nvdimm;
        if size == 0 || (base | size) & 0xfff != 0 || !size.is_multiple_of(INTERLEAVE * nvdimm.ways()) {
            return Err(Error::Misaligned { index, base, size });
        }
        let count = nvdimm.flush_hints.len();
        if count > map::MAX_FLUSH_HINTS as usize {
            return Err(Error::TooManyFlushHints { index, count });
        }
        for handle in nvdimm.handles() {
            if let Some(first) = nvdimms[..index].iter().position(|it| it.handles().any(|it| it == handle)) {
                return Err(Error::SameHandle { first, second: index, handle });
            }
        }
    }
    Ok(())
}

/// Tables one after the other.
struct Area {
    next: u64,
    blobs: Vec<(u64, Vec<u8>)>,
}

impl Area {
    /// Puts a table at the next free 64-byte boundary and tells where.
    fn place(&mut self, table: Vec<u8>) -> u64 {
        let at = self.next;
        self.next = (at + table.len() as u64).next_multiple_of(64);
        self.blobs.push((at, table));
        at
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn nvdimm(index: usize) -> Nvdimm {
        Nvdimm {
            base: (4 + index as u64) << 30,
            size: 64 << 20,
            handle: map::nvdimm_handle(index),
            others: Vec::new(),
            flush_hints: map::flush_hints(index, 2),
            labels: false,
            smart: false,
            armed: true,
            proximity: None,
            capability: PlatformCapability::MemoryController,
        }
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    #[test]
    fn every_table_is_reached_from_the_rsdp_and_sums_to_zero() {
        let tables = build(&Config {
            cpus: 2,
            ram: vec![],
            nvdimms: vec![nvdimm(0), nvdimm(1)],
            media_errors: false,
            virtio_devices: 1,
        })
        .unwrap();
        let find = |at| &tables.blobs.iter().find(|blob| blob.0 == at).expect("a table").1;
        for (at, blob) in &tables.blobs {
            assert_eq!(blob.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0, "at {at:#x}");
        }
        let rsdp = find(tables.rsdp);
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        let xsdt = find(u64_at(rsdp, 24));
        let listed: Vec<&[u8]> = xsdt[36..].chunks(8).map(|entry| &find(u64_at(entry, 0))[..4]).collect();
        assert_eq!(listed, [b"FACP", b"APIC", b"NFIT"]);
        let fadt = find(u64_at(xsdt, 36));
        assert_eq!(&find(u64_at(fadt, 140))[..4], b"DSDT");
        let ends = tables.blobs.iter().map(|(at, blob)| at + blob.len() as u64);
        assert!(ends.max().unwrap() <= map::ACPI_AREA + map::ACPI_AREA_SIZE);
    }

    #[test]
    fn without_nvdimms_there_is_no_nfit() {
        let tables =
            build(&Config { cpus: 1, ram: vec![], nvdimms: vec![], media_errors: false, virtio_devices: 0 })
                .unwrap();
        assert!(tables.blobs.iter().all(|(_, blob)| &blob[..4] != b"NFIT"));
    }

    #[test]
    fn virtio_devices_without_an_interrupt_line_are_refused() {
        let build = |virtio_devices| {
            build(&Config { cpus: 1, ram: vec![], nvdimms: vec![], media_errors: false, virtio_devices })
        };
        assert!(build(8).is_ok());
        assert_eq!(build(9), Err(Error::TooManyVirtioDevices(9)));
    }

    #[test]
    fn what_cannot_be_described_is_refused() {
        let build = |nvdimms| {
            build(&Config { cpus: 1, ram: vec![], nvdimms, media_errors: false, virtio_devices: 0 })
        };
        let misaligned = Nvdimm { size: 4095, ..nvdimm(0) };
        assert!(matches!(build(vec![misaligned]), Err(Error::Misaligned { index: 0, .. })));
        assert_eq!(
            build(vec![nvdimm(0), nvdimm(1), nvdimm(0)]),
            Err(Error::SameHandle { first: 0, second: 2, handle: 1 })
        );
        assert_eq!(build((0..257).map(nvdimm).collect()), Err(Error::TooManyNvdimms(257)));
        let hints = Nvdimm { flush_hints: vec![0; 65], ..nvdimm(0) };
        assert_eq!(build(vec![hints]), Err(Error::TooManyFlushHints { index: 0, count: 65 }));
        let greedy = |index| Nvdimm { flush_hints: map::flush_hints(index, 64), ..nvdimm(index) };
        assert!(matches!(build((0..256).map(greedy).collect()), Err(Error::AreaFull { .. })));
        assert!(build((0..256).map(nvdimm).collect()).is_ok());
    }
}
