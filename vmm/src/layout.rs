//! Where memory and firmware tables go.

use std::ops::Range;

use devices::{acpi, map};

use crate::board::Wiring;
use crate::memory::{BankKind, Memory, Region, RegionKind};
use crate::{Error, MachineConfig};

/// Memory of the firmware and its tables: not for the kernel.
pub(crate) const FIRMWARE: Range<u64> = map::LOW_RAM_END..map::HIGH_RAM_START;

/// Every region starts on a sparse-memory section of its own.
const SECTION: u64 = 128 << 20;

/// Handles of the DIMMs of each region.
fn handles(nvdimms: &[crate::Nvdimm]) -> Vec<Vec<u32>> {
    let mut next = 0;
    let mut of_one = |nvdimm: &crate::Nvdimm| {
        let first = next;
        next += nvdimm.ways() as usize;
        (first..next).map(map::nvdimm_handle).collect()
    };
    nvdimms.iter().map(&mut of_one).collect()
}

/// The places of everything in one machine.
pub(crate) struct Plan {
    memory: u64,
    cpus: u8,
    nvdimms: Vec<acpi::Nvdimm>,
    media_errors: bool,
    /// All of persistent memory, in the order of [`MachineConfig`].
    regions: Vec<Region>,
}

impl Plan {
    pub(crate) fn new(config: &MachineConfig) -> Plan {
        let nvdimms = config.nvdimms.iter().map(|nvdimm| (nvdimm.size, RegionKind::Nvdimm));
        let devices = config.virtio_pmem.iter().map(|device| (device.size, RegionKind::VirtioPmem));
        let legacy = config.legacy_pmem.iter().map(|&size| (size, RegionKind::Legacy));
        let handles = handles(&config.nvdimms);
        let mut next = map::pmem_base(config.memory);
        let place = |(index, (size, kind)): (usize, (u64, RegionKind))| {
            let base = next;
            next = (base + size).next_multiple_of(SECTION);
            let dimm = if kind == RegionKind::Nvdimm { handles[index][0] } else { 0 };
            Region { base, size, kind, dimm }
        };
        let mut regions: Vec<Region> = nvdimms.chain(devices).chain(legacy).enumerate().map(place).collect();
        let nvdimm = |(index, (region, nvdimm)): (usize, (&Region, &crate::Nvdimm))| acpi::Nvdimm {
            base: region.base,
            size: region.size,
            handle: region.dimm,
            others: handles[index][1..].to_vec(),
            flush_hints: map::flush_hints(index, nvdimm.flush_hints),
            labels: nvdimm.labels,
            smart: nvdimm.smart,
            armed: !nvdimm.not_armed,
            proximity: nvdimm.proximity,
            capability: nvdimm.persistence,
        };
        let nvdimms = regions.iter().zip(&config.nvdimms).enumerate().map(nvdimm).collect();
        let labelled = handles.iter().zip(&config.nvdimms).filter(|(_, nvdimm)| nvdimm.labels);
        regions.extend(labelled.flat_map(|(handles, _)| handles).map(|&handle| Region {
            base: map::labels(map::nvdimm_index(handle)),
            size: map::LABELS_SIZE,
            kind: RegionKind::Labels,
            dimm: handle,
        }));
        let (memory, cpus, media_errors) = (config.memory, config.cpus, config.has_media_errors());
        Plan { memory, cpus, nvdimms, media_errors, regions }
    }

    /// Memory banks: RAM first, then one per region.
    pub(crate) fn banks(&self) -> Vec<(u64, u64, BankKind)> {
        let pmem = self.regions.iter().map(|region| (region.base, region.size, BankKind::Pmem));
        std::iter::once((0, self.memory, BankKind::Ram)).chain(pmem).collect()
    }

    /// What the board must know of it.
    pub(crate) fn wiring(&self) -> Wiring {
        Wiring {
            regions: self.regions.clone(),
            hints: devices::FlushHints::new(
                self.nvdimms.iter().map(|nvdimm| (nvdimm.handle, &nvdimm.flush_hints[..])),
            ),
            media_errors: self.media_errors,
            smart: self.nvdimms.iter().filter(|it| it.smart).flat_map(acpi::Nvdimm::handles).collect(),
        }
    }

    /// Start and size of what the memory map is to tell of as legacy persistent memory.
    pub(crate) fn legacy_pmem(&self) -> Vec<(u64, u64)> {
        let legacy = self.regions.iter().filter(|region| region.kind == RegionKind::Legacy);
        legacy.map(|region| (region.base, region.size)).collect()
    }

    /// Writes the ACPI tables. Returns the address of the RSDP.
    pub(crate) fn write_firmware(&self, memory: &mut Memory) -> Result<u64, Error> {
        let devices = self.regions.iter().filter(|region| region.kind == RegionKind::VirtioPmem);
        let config = acpi::Config {
            cpus: self.cpus,
            ram: map::ram(self.memory),
            nvdimms: self.nvdimms.clone(),
            media_errors: self.media_errors,
            virtio_devices: devices.count(),
        };
        let tables = acpi::build(&config).map_err(|error| Error::Acpi(error.to_string()))?;
        for (at, bytes) in &tables.blobs {
            if !memory.write(*at, bytes) {
                return Err(Error::Acpi(format!("no memory at {at:#x} for a table")));
            }
        }
        Ok(tables.rsdp)
    }
}
