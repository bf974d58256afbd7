//! What can go wrong outside the guest.

use std::path::PathBuf;

/// An error of the host's side of the machine: configuration, kernel image, memory, snapshot file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration asks for something this machine cannot be.
    #[error("machine configuration: {what}; {hint}")]
    Config {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// The kernel image cannot be loaded.
    #[error("kernel image: {0}; give an x86-64 ELF vmlinux (a bzImage is unpacked by `images`)")]
    Kernel(String),
    /// The payload of PVH or multiboot cannot be loaded.
    #[error("payload: {0}")]
    Payload(#[from] crate::PayloadError),
    /// The host has no memory for the guest.
    #[error("cannot map {size} bytes of host memory for the guest: {source}")]
    HostMemory {
        /// Bytes asked for.
        size: u64,
        /// Why not.
        source: std::io::Error,
    },
    /// A snapshot file cannot be written or read.
    #[error("snapshot {path}: {source}")]
    SnapshotFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A snapshot file is damaged or of another version.
    #[error("snapshot {path}: {what}; delete it, it is made anew")]
    SnapshotFormat {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// KVM cannot be used.
    #[error("KVM: {0}")]
    Kvm(#[from] crate::KvmError),
    /// Something cannot be done with a machine that has undecided bytes.
    #[error(
        "{0} cannot be had for a machine with undecided bytes: decide them first, or use the software engine"
    )]
    Undecided(&'static str),
    /// A range cannot be poisoned.
    #[error(
        "{len} bytes at {address:#x} cannot be poisoned: give a range in a region of an NVDIMM with media errors"
    )]
    NoMedia {
        /// Where it begins.
        address: u64,
        /// Its length.
        len: u64,
    },
    /// An address is not that of a line of persistent memory.
    #[error(
        "{address:#x} is not the address of a line of persistent memory: give a multiple of 64 in a region"
    )]
    NoLine {
        /// The address.
        address: u64,
    },
    /// ACPI tables could not be built from the configuration.
    #[error("ACPI tables: {0}")]
    Acpi(String),
}

/// A guest-virtual address that the guest's page tables do not map, or map to something else than memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest-virtual address {address:#x} is not mapped to memory")]
pub struct Unmapped {
    /// The address.
    pub address: u64,
}
