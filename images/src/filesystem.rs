//! File systems that regions are made with: which there are, and the programs that make and check them.

use std::fs::File;
use std::path::Path;

use crate::apt::Package;
use crate::cache::Cache;
use crate::check::Fsck;
use crate::device::Device;
use crate::error::Result;
use crate::ext4;
use crate::traced::Reads;
use crate::xfs;

/// Which file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FilesystemKind {
    /// ext4, by e2fsprogs.
    #[default]
    Ext4,
    /// XFS, by xfsprogs. Its block device has 16 MiB or more.
    Xfs,
}

impl FilesystemKind {
    /// As mount(8) calls it; `None` for what is not known.
    pub fn from_name(name: &str) -> Option<FilesystemKind> {
        match name {
            "ext4" => Some(FilesystemKind::Ext4),
            "xfs" => Some(FilesystemKind::Xfs),
            _ => None,
        }
    }

    /// Debian's package with the programs that make and check it.
    pub fn package(self) -> &'static str {
        match self {
            FilesystemKind::Ext4 => "e2fsprogs",
            FilesystemKind::Xfs => "xfsprogs",
        }
    }

    /// The kernel's module, where it is one.
    pub fn module(self) -> &'static str {
        match self {
            FilesystemKind::Ext4 => "ext4",
            FilesystemKind::Xfs => "xfs",
        }
    }
}

/// A file system to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filesystem {
    /// Which.
    pub kind: FilesystemKind,
    /// Options of mke2fs(8) or mkfs.xfs(8), after our own (4 KiB blocks, fixed UUID, everything initialised at once).
    pub mkfs: Vec<String>,
}

impl Filesystem {
    /// Refuses options that would undo what the image depends on.
    pub(crate) fn check_options(&self) -> Result<()> {
        match self.kind {
            FilesystemKind::Ext4 => ext4::check_options(&self.mkfs),
            FilesystemKind::Xfs => xfs::check_options(&self.mkfs),
        }
    }
}

/// The programs that make and check one kind, from the cache.
#[derive(Debug)]
pub(crate) enum Tools {
    Ext4(ext4::Tools),
    Xfs(xfs::Tools),
}

impl Tools {
    pub(crate) fn get(cache: &Cache, kind: FilesystemKind) -> Result<Tools> {
        Ok(match kind {
            FilesystemKind::Ext4 => Tools::Ext4(ext4::Tools::get(cache)?),
            FilesystemKind::Xfs => Tools::Xfs(xfs::Tools::get(cache)?),
        })
    }

    pub(crate) fn package(&self) -> &Package {
        match self {
            Tools::Ext4(tools) => &tools.package,
            Tools::Xfs(tools) => &tools.package,
        }
    }

    /// Makes a file system in a region, which `file` holds, where the device lies in it.
    pub(crate) fn make(&self, file: &Path, device: &Device, arguments: &[String]) -> Result<()> {
        match self {
            Tools::Ext4(tools) => tools.make(file, device.extent(), arguments),
            Tools::Xfs(tools) => tools.make(file, device.extent(), device.sector(), arguments),
        }
    }

    /// Looks at the file system in `file`, and repairs nothing. What e2fsck reads it also writes to `log`; xfs_repair
    /// cannot, and is followed ([`Tools::check_traced`]).
    pub(crate) fn check(&self, file: &File, log: Option<&File>) -> Result<Fsck> {
        match self {
            Tools::Ext4(tools) => tools.check(file, log),
            Tools::Xfs(tools) => Ok(tools.check(file, false)?.0),
        }
    }

    /// The same, and what the checker has read: from outside, as ptrace(2) shows it.
    pub(crate) fn check_traced(&self, file: &File) -> Result<(Fsck, Reads)> {
        match self {
            Tools::Ext4(tools) => Ok((tools.check(file, None)?, None)),
            Tools::Xfs(tools) => tools.check(file, true),
        }
    }
}
