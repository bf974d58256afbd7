//! Where memory and firmware tables go.

use std::ops::Range;

use devices::{acpi, map};

use crate::board::Wiring;
use crate::memory::{BankKind, Memory, Region};
use crate::{Error, MachineConfig};

/// Memory of the firmware and its tables: not for the kernel.
pub(crate) const FIRMWARE: Range<u64> = map::LOW_RAM_END..map::HIGH_RAM_START;

/// Every region starts on a sparse-memory section of its own.
const SECTION: u64 = 128 << 20;

/// The places of everything in one machine.
pub(crate) struct Plan {
    memory: u64,
    cpus: u8,
    nvdimms: Vec<acpi::Nvdimm>,
}

impl Plan {
    pub(crate) fn new(config: &MachineConfig) -> Plan {
        let mut next = map::pmem_base(config.memory);
        let nvdimms = config.nvdimms.iter().enumerate().map(|(index, nvdimm)| {
            let base = next;
            next = (base + nvdimm.size).next_multiple_of(SECTION);
            acpi::Nvdimm {
                base,
                size: nvdimm.size,
                handle: map::nvdimm_handle(index),
                flush_hints: map::flush_hints(index, nvdimm.flush_hints),
                capability: nvdimm.persistence,
            }
        });
        Plan { memory: config.memory, cpus: config.cpus, nvdimms: nvdimms.collect() }
    }

    /// Memory banks: RAM first, then one per NVDIMM.
    pub(crate) fn banks(&self) -> Vec<(u64, u64, BankKind)> {
        let pmem = self.nvdimms.iter().map(|nvdimm| (nvdimm.base, nvdimm.size, BankKind::Pmem));
        std::iter::once((0, self.memory, BankKind::Ram)).chain(pmem).collect()
    }

    /// What the board must know of it.
    pub(crate) fn wiring(&self) -> Wiring {
        Wiring {
            regions: self
                .nvdimms
                .iter()
                .map(|nvdimm| Region { base: nvdimm.base, size: nvdimm.size, dimm: nvdimm.handle })
                .collect(),
            hints: devices::FlushHints::new(
                self.nvdimms.iter().map(|nvdimm| (nvdimm.handle, &nvdimm.flush_hints[..])),
            ),
        }
    }

    /// Writes the ACPI tables. Returns the address of the RSDP.
    pub(crate) fn write_firmware(&self, memory: &mut Memory) -> Result<u64, Error> {
        let config = acpi::Config { cpus: self.cpus, nvdimms: self.nvdimms.clone() };
        let tables = acpi::build(&config).map_err(|error| Error::Acpi(error.to_string()))?;
        for (at, bytes) in &tables.blobs {
            if !memory.write(*at, bytes) {
                return Err(Error::Acpi(format!("no memory at {at:#x} for a table")));
            }
        }
        Ok(tables.rsdp)
    }
}
