//! What is in the cache, and getting things into it ahead of time.

use std::path::PathBuf;

use crate::apt::Apt;
use crate::cache::{Cache, entries, size_of};
use crate::error::Result;
use crate::kernel::Kernel;
use crate::programs::Programs;

/// Something in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `kernel`, `programs`, `region` (a pmem image), `index` (of Debian's packages), `downloads`, `snapshots` (of booted machines), `own kernel` (built here), `sources` (of those).
    pub kind: &'static str,
    /// Name to ask for it by, or what it was made of.
    pub name: String,
    /// Debian version, empty when it has none.
    pub version: String,
    /// Bytes on disk.
    pub size: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// Everything in the cache, in a fixed order.
///
/// # Errors
/// [`crate::Error::Io`].
pub fn list(cache: &Cache) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let resolved = Apt::new(cache).resolved()?;
    for (name, package) in &resolved {
        let path = cache.root().join("kernels").join(&package.sha256);
        if name.starts_with("debian-") && path.exists() {
            let (name, version) = (name.clone(), package.version.clone());
            found.push(Entry { kind: "kernel", name, version, size: size_of(&path)?, path });
        }
    }
    for (kind, part) in [("programs", "programs"), ("region", "regions"), ("own kernel", "own-kernels")] {
        let dir = cache.root().join(part);
        for path in if dir.exists() { entries(&dir)? } else { Vec::new() } {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Trees of programs are called NAME-SHA256.
            let (name, package) = match name.rsplit_once('-') {
                Some((name, hash)) => {
                    (name.to_string(), resolved.iter().find(|(_, package)| package.sha256.starts_with(hash)))
                }
                None => (name, None),
            };
            let version = package.map(|(_, package)| package.version.clone()).unwrap_or_default();
            found.push(Entry { kind, name, version, size: size_of(&path)?, path });
        }
    }
    for (kind, part) in
        [("downloads", "debs"), ("index", "apt"), ("snapshots", "snapshots"), ("sources", "source")]
    {
        let path = cache.root().join(part);
        if path.exists() {
            found.push(Entry {
                kind,
                name: part.into(),
                version: String::new(),
                size: size_of(&path)?,
                path,
            });
        }
    }
    Ok(found)
}

/// Sees to it that a kernel (`debian-6.1`, `debian-6.1@VERSION`) or a program (`dash`, `coreutils/ls`) is in the cache;
/// returns its package's name and version.
///
/// # Errors
/// Those of [`Kernel::get`] and [`crate::Initramfs::program`].
pub fn fetch(cache: &Cache, name: &str) -> Result<(String, String)> {
    let is_kernel = ["debian-", "small-", "mutants-"].iter().any(|kind| name.starts_with(kind));
    let package =
        if is_kernel { Kernel::get(cache, name)?.package } else { Some(Programs::get(cache, name)?.package) };
    Ok(package.map(|package| (package.name, package.version)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_cache_has_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(list(&Cache::at(dir.path()).unwrap()).unwrap(), []);
    }
}
