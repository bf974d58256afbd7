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
mod bzimage;
mod cache;
mod cpio;
mod deb;
mod error;
mod initramfs;
mod kernel;
mod modules;
mod version;

pub use apt::Package;
pub use cache::Cache;
pub use error::{Error, Result};
pub use initramfs::{AGENT, Initramfs};
pub use kernel::Kernel;
pub use modules::Module;

/// The modules that an NVDIMM described by ACPI needs.
pub const PMEM_MODULES: [&str; 4] = ["libnvdimm", "nfit", "nd_btt", "nd_pmem"];

/// Forgets which versions names stood for and gets Debian's index anew: the next use takes the newest.
///
/// # Errors
/// [`Error::Network`] and what else fetching can meet.
pub fn refresh(cache: &Cache) -> Result<()> {
    apt::Apt::new(cache).refresh()
}
