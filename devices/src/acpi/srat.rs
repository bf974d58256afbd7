//! SRAT (ACPI 6.4 5.2.16): which memory is near which. RAM and processors are proximity domain 0.
//!
//! Linux takes the table only if it tells of all RAM (numa_meminfo_cover_memory). Processors that it does not tell of are
//! on the first node.

use acpi_tables::srat::{MemoryAffinity, SRAT};

use super::{Config, OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes};

/// `None` where no NVDIMM has a proximity domain.
pub(super) fn build(config: &Config) -> Option<Vec<u8>> {
    let told = config.nvdimms.iter().filter_map(|nvdimm| Some((nvdimm.proximity?, nvdimm)));
    let told: Vec<_> = told.collect();
    if told.is_empty() {
        return None;
    }
    let mut table = SRAT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for &(base, size) in &config.ram {
        table.add_memory_affinity(MemoryAffinity::new(0, base, size).enabled());
    }
    for (domain, nvdimm) in told {
        table.add_memory_affinity(
            MemoryAffinity::new(domain, nvdimm.base, nvdimm.size).enabled().nonvolatile(),
        );
    }
    Some(bytes(&table))
}
