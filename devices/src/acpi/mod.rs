//! ACPI tables: RSDP, XSDT, FADT, MADT, DSDT and NFIT.

/// What the platform saves when power fails (ACPI 6.4 5.2.25.9). NFIT says it once for all NVDIMMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum PlatformCapability {
    /// Nothing is said.
    None,
    /// What reached the memory controller: ADR.
    #[default]
    MemoryController,
    /// What is in the processor caches too: eADR.
    CpuCache,
}

/// One NVDIMM with one range of persistent memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nvdimm {
    /// Guest-physical address, page aligned.
    pub base: u64,
    /// Size in bytes, a multiple of the page size.
    pub size: u64,
    /// NFIT device handle, see [`crate::map::nvdimm_handle`].
    pub handle: u32,
    /// Flush hint addresses, see [`crate::map::flush_hints`].
    pub flush_hints: Vec<u64>,
    /// What its platform saves when power fails.
    pub capability: PlatformCapability,
}

/// The machine as the tables describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of processors, APIC IDs 0 to `cpus` - 1.
    pub cpus: u8,
    /// NVDIMMs in the order of the kernel's regions.
    pub nvdimms: Vec<Nvdimm>,
}

/// Tables with their place in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Guest-physical address of the RSDP, for boot_params.acpi_rsdp_addr.
    pub rsdp: u64,
    /// (guest-physical address, bytes) of every table, the RSDP included.
    pub blobs: Vec<(u64, Vec<u8>)>,
}

/// Why there are no tables.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// More than fits into the area.
    #[error("ACPI tables need {needed} bytes, the area at {area:#x} has {size}: use fewer NVDIMMs or flush hints")]
    AreaFull {
        /// Bytes needed.
        needed: u64,
        /// Start of the area.
        area: u64,
        /// Size of the area in bytes.
        size: u64,
    },
}

/// Builds all tables into [`crate::map::ACPI_AREA`].
pub fn build(_config: &Config) -> Result<Tables, Error> {
    todo!()
}
