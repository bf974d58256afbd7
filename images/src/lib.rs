//! Getting kernels and programs from Debian, building initramfs and pmem images, and caching them.
//!
//! ```no_run
//! # fn main() -> images::Result<()> {
//! let cache = images::Cache::open()?;
//! let kernel = images::Kernel::get(&cache, "debian-6.1")?;
//! let mut initramfs = images::Initramfs::new();
//! initramfs.modules(kernel.modules(&images::PMEM_MODULES)?);
//! let initrd = initramfs.finish();
//! # Ok(())
//! # }
//! ```

mod apt;
mod btt;
mod bzimage;
mod cache;
mod catalog;
mod check;
mod compile;
mod cpio;
mod deb;
mod device;
mod error;
mod executable;
mod ext4;
mod filesystem;
#[doc(hidden)]
pub mod fuzzing;
mod initramfs;
mod kernel;
mod modules;
mod namespace;
mod own_kernel;
mod pmem;
mod programs;
mod source;
mod traced;
mod version;
mod watched;
mod xfs;

pub use apt::Package;
pub use cache::Cache;
pub use catalog::{Entry, fetch, list};
pub use check::{Checker, Fsck};
pub use device::{Device, Namespace};
pub use error::{Error, Result};
pub use filesystem::{Filesystem, FilesystemKind};
pub use initramfs::{AGENT, Initramfs};
pub use kernel::Kernel;
pub use modules::Module;
pub use namespace::{DATA_OFFSET, untouched_word};
pub use own_kernel::build_kernel;
pub use pmem::{ImageSpec, PmemImage, pmem_image};

/// The modules that an NVDIMM described by ACPI needs.
pub const PMEM_MODULES: [&str; 4] = ["libnvdimm", "nfit", "nd_btt", "nd_pmem"];

/// The modules that device-dax namespaces need besides.
pub const DEVDAX_MODULES: [&str; 2] = ["device_dax", "dax_pmem"];

/// The modules that the ways to find persistent memory need: NVDIMMs always, `virtio` for virtio-pmem devices, `legacy` for
/// what the memory map tells of. Loaded in this order, the kernel numbers regions in the order in which the ways stand
/// here.
pub fn pmem_modules(virtio: bool, legacy: bool) -> Vec<&'static str> {
    let mut modules = PMEM_MODULES.to_vec();
    if virtio {
        modules.extend(["virtio_mmio", "virtio_pmem"]);
    }
    if legacy {
        modules.push("nd_e820");
    }
    modules
}

/// Forgets which versions names stood for and gets Debian's index anew: the next use takes the newest.
///
/// # Errors
/// [`Error::Network`] and what else fetching can meet.
pub fn refresh(cache: &Cache) -> Result<()> {
    // Made of packages as they were.
    cache.remove("programs")?;
    apt::Apt::new(cache).refresh()
}
