//! What can go wrong when getting and making images.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate: what failed, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file system of the cache is full.
    #[error("no space left on device while writing {}; free some space, run `pmemsim images clean`, or set XDG_CACHE_HOME to another place", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// No directory for the cache is known.
    #[error("no cache directory: set XDG_CACHE_HOME or HOME")]
    NoCacheDirectory,
    /// The cache's directory cannot be made or written.
    #[error(
        "cannot use the cache directory {}: {source}; set XDG_CACHE_HOME to a directory that can be written",
        path.display()
    )]
    CacheDirectory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program of the host is missing.
    #[error("{tool} is not installed; {why}")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// What it is needed for.
        why: &'static str,
    },
    /// The keys that sign Debian's archive are missing.
    #[error("Debian's archive keys are not here ({}); install the package debian-archive-keyring", path.display())]
    MissingKeyring {
        /// Where they were looked for.
        path: PathBuf,
    },
    /// The Debian mirror could not be reached.
    #[error(
        "cannot reach the Debian mirror {mirror}: {detail}\nCheck the network, or set PMEMSIM_DEBIAN_MIRROR to a mirror that can be reached"
    )]
    Network {
        /// Its address.
        mirror: String,
        /// What apt said.
        detail: String,
    },
    /// apt or dpkg-deb failed in another way.
    #[error("{tool} failed: {detail}")]
    Tool {
        /// The program.
        tool: String,
        /// What it said.
        detail: String,
    },
    /// No such package or version.
    #[error("Debian has no {wanted}{}", listed(available))]
    NoSuchPackage {
        /// What was asked for.
        wanted: String,
        /// What there is instead.
        available: Vec<String>,
    },
    /// A downloaded package is not what Debian's index says.
    #[error(
        "{package} arrived damaged: its SHA-256 is {found}, Debian's index says {expected}; try again, or another mirror"
    )]
    Damaged {
        /// Name of the package.
        package: String,
        /// SHA-256 in the index.
        expected: String,
        /// SHA-256 of the file.
        found: String,
    },
    /// The name of a kernel makes no sense.
    #[error(
        "unknown kernel {name:?}: give debian-6.1, debian-6.12, debian-6.1@VERSION, small-6.1, small-6.12, mutants-6.1, mutants-6.12, or a path to a vmlinux or bzImage"
    )]
    UnknownKernel {
        /// The name.
        name: String,
    },
    /// The file is not a kernel that can be used.
    #[error("{what} is not a usable kernel: {why}")]
    BadKernel {
        /// Which file.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A module of the kernel cannot be used.
    #[error("module {module}: {why}")]
    BadModule {
        /// Name of the module.
        module: String,
        /// What is wrong with it.
        why: String,
    },
    /// A program cannot be put into the initramfs.
    #[error("program {program}: {why}")]
    BadProgram {
        /// Name of the program or package.
        program: String,
        /// What is wrong with it.
        why: String,
    },
    /// Programs that a kernel is built with are missing.
    #[error("building a kernel takes more than is installed here: apt-get install {packages}")]
    BuildTools {
        /// Debian packages.
        packages: String,
    },
    /// A patch for a kernel cannot be applied.
    #[error("patch {number} does not apply: {why}")]
    BadPatch {
        /// Which of those given, from 1.
        number: usize,
        /// What patch(1) said.
        why: String,
    },
    /// A kernel could not be built.
    #[error("{name} cannot be built:\n{why}")]
    Build {
        /// Its name.
        name: String,
        /// What the compiler said.
        why: String,
    },
    /// The image that was asked for makes no sense.
    #[error("pmem image: {why}")]
    BadImage {
        /// What is wrong with it.
        why: String,
    },
}

fn listed(versions: &[String]) -> String {
    if versions.is_empty() { String::new() } else { format!("; it has {}", versions.join(", ")) }
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path },
            _ => Error::Io { action, path, source },
        }
    }
}

impl Error {
    /// For the directory of the cache itself.
    pub(crate) fn cache(path: &Path) -> impl FnOnce(Error) -> Error {
        let path = path.to_path_buf();
        move |error| match error {
            Error::Io { source, .. } => Error::CacheDirectory { path, source },
            other => other,
        }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
