//! What a machine is made of.

pub use devices::acpi::PlatformCapability;

use crate::boot::Module;
use crate::{Error, FlushFault};

const MIB: u64 = 1 << 20;
/// Regions with struct pages must start and end on this (linux-dax: memremap_compat_align).
const PMEM_ALIGNMENT: u64 = 2 * MIB;
/// RAM ends below the hole for devices.
const MAX_MEMORY: u64 = 3 << 30;
/// Processors that a machine has at most.
pub(crate) const MAX_CPUS: u8 = 8;
/// Regions of each kind: the firmware tables have room for so many DIMMs, the IOAPIC lines for so many devices.
const MAX_REGIONS: usize = 8;

/// NVDIMMs of one interleave set.
const MAX_WAYS: u64 = 8;

/// How a kernel is entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootProtocol {
    /// The 64-bit boot protocol of Linux: long mode, `struct boot_params`.
    #[default]
    Linux64,
    /// PVH: 32-bit protected mode without paging, `struct hvm_start_info`. Takes 32-bit and 64-bit ELF files.
    Pvh,
    /// Multiboot 1: 32-bit protected mode without paging, the information of section 3.3 of its specification. Takes
    /// 32-bit and 64-bit ELF files, and any file whose header has addresses.
    Multiboot,
}

/// One region, on one NVDIMM that it spans or interleaved over several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nvdimm {
    /// Bytes, a multiple of 2 MiB, on every NVDIMM.
    pub size: u64,
    /// NVDIMMs that it is interleaved over, at most 8; 0 means 1.
    pub dimms: u32,
    /// Number of flush hint addresses, 0 for none. Only of a single NVDIMM.
    pub flush_hints: u32,
    /// Whether each tells of its health by functions of Intel's family, and of its label area, too.
    pub smart: bool,
    /// Whether it would not save what is written to it, and tells so: a read-only region.
    pub not_armed: bool,
    /// Proximity domain, 1 to 7. RAM and processors are 0.
    pub proximity: Option<u32>,
    /// Whether each has a label area, 128 KiB, which begins empty.
    pub labels: bool,
    /// What the platform says it saves.
    pub persistence: PlatformCapability,
    /// Whether its media can lose lines ([`crate::Machine::poison`]). Where that is so of one, firmware scrubs all NVDIMMs,
    /// and processors have machine checks, which the software engine alone offers.
    pub media_errors: bool,
}

/// A virtio-pmem device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtioPmem {
    /// Bytes, a multiple of 2 MiB.
    pub size: u64,
    /// What goes wrong with its flushes.
    pub faults: Vec<FlushFault>,
}

/// What a machine is made of.
///
/// Linux numbers regions in the order in which it finds them. With its modules loaded in the order of
/// `images::pmem_modules` these are the NVDIMMs, then the virtio-pmem devices, then legacy persistent memory, each in the
/// order given here: [`crate::Machine::regions`] has the same order, and then the label areas of the NVDIMMs that have one.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// ELF vmlinux, or another payload that `protocol` enters.
    pub kernel: Vec<u8>,
    /// Initramfs, may be empty. The first module under PVH and multiboot.
    pub initrd: Vec<u8>,
    /// More modules under PVH and multiboot, at most 64 together with the initramfs. Linux takes none.
    pub modules: Vec<Module>,
    /// Kernel command line, up to 2047 bytes; under PVH and multiboot 65536 with those of the modules.
    pub command_line: String,
    /// Bytes of RAM, a multiple of 1 MiB, at most 3 GiB.
    pub memory: u64,
    /// Processors, 1 to 8. One executes at a time, in an order that follows from the seed.
    pub cpus: u8,
    /// NVDIMMs: what the tables of ACPI tell of. At most 8.
    pub nvdimms: Vec<Nvdimm>,
    /// virtio-pmem devices, at most 8.
    pub virtio_pmem: Vec<VirtioPmem>,
    /// Bytes of each range of legacy persistent memory, which the memory map tells of as e820 type 12: multiples of
    /// 2 MiB, at most 8 of them.
    pub legacy_pmem: Vec<u64>,
    /// Everything random comes from here: in the guest, and whose turn it is of several processors.
    pub seed: u64,
    /// How the kernel is entered.
    pub protocol: BootProtocol,
}

impl MachineConfig {
    /// Whether NVDIMMs can lose lines.
    pub(crate) fn has_media_errors(&self) -> bool {
        self.nvdimms.iter().any(|nvdimm| nvdimm.media_errors)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.memory.is_multiple_of(MIB) || !(32 * MIB..=MAX_MEMORY).contains(&self.memory) {
            return Err(Error::Config {
                what: format!("memory of {} bytes", self.memory),
                hint: "give a multiple of 1 MiB from 32 MiB to 3 GiB",
            });
        }
        if self.protocol == BootProtocol::Linux64 && !self.modules.is_empty() {
            return Err(Error::Config {
                what: format!("{} modules for a Linux kernel", self.modules.len()),
                hint: "it takes an initrd only; PVH and multiboot have modules",
            });
        }
        if !(1..=MAX_CPUS).contains(&self.cpus) {
            return Err(Error::Config { what: format!("{} processors", self.cpus), hint: "give 1 to 8" });
        }
        let nvdimms = self.nvdimms.iter().map(|nvdimm| nvdimm.size);
        check_regions("NVDIMM", nvdimms)?;
        self.nvdimms.iter().enumerate().try_for_each(|(index, nvdimm)| nvdimm.check(index))?;
        check_regions("virtio-pmem device", self.virtio_pmem.iter().map(|device| device.size))?;
        check_regions("legacy persistent memory", self.legacy_pmem.iter().copied())?;
        Ok(())
    }
}

impl Nvdimm {
    /// How many it is interleaved over.
    pub(crate) fn ways(&self) -> u64 {
        u64::from(self.dimms.max(1))
    }

    fn check(&self, index: usize) -> Result<(), Error> {
        let wrong = |what: String, hint| Err(Error::Config { what: format!("NVDIMM {index} {what}"), hint });
        let ways = self.ways();
        if ways > MAX_WAYS {
            return wrong(format!("on {ways} DIMMs"), "at most 8");
        }
        if !self.size.is_multiple_of(PMEM_ALIGNMENT * ways) {
            let what = format!("of {} bytes on {ways} DIMMs", self.size);
            return wrong(what, "give each DIMM a multiple of 2 MiB");
        }
        if self.flush_hints > 16 {
            return wrong(format!("with {} flush hints", self.flush_hints), "at most 16");
        }
        if self.flush_hints > 0 && ways > 1 {
            return wrong(
                format!("with flush hints on {ways} DIMMs"),
                "give flush hints to single DIMMs only",
            );
        }
        match self.proximity {
            Some(domain) if !(1..=7).contains(&domain) => {
                wrong(format!("in proximity domain {domain}"), "give 1 to 7: 0 is that of RAM")
            }
            _ => Ok(()),
        }
    }
}

fn check_regions(what: &str, sizes: impl ExactSizeIterator<Item = u64>) -> Result<(), Error> {
    if sizes.len() > MAX_REGIONS {
        return Err(Error::Config {
            what: format!("{} times {what}", sizes.len()),
            hint: "at most 8 of a kind",
        });
    }
    for (index, size) in sizes.enumerate() {
        if size == 0 || !size.is_multiple_of(PMEM_ALIGNMENT) || size > 1 << 40 {
            return Err(Error::Config {
                what: format!("{what} {index} of {size} bytes"),
                hint: "give a multiple of 2 MiB, at most 1 TiB",
            });
        }
    }
    Ok(())
}
