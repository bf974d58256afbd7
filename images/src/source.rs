//! The source of a kernel, unpacked once for each series, with patches that come and go.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::apt::{Apt, Package};
use crate::cache::{Cache, create_dir};
use crate::error::{Error, Result};

/// Holds the SHA-256 of the package that the source is from. It is there when the source is whole.
const ORIGIN: &str = "origin";
/// Patches that are applied: 000, 001 and so on, in their order.
const APPLIED: &str = "applied";

/// A tree in which kernels are built. One process has it at a time.
pub(crate) struct WorkingTree {
    root: PathBuf,
    _lock: File,
}

impl WorkingTree {
    /// The tree of a series, with this package's source in it.
    pub(crate) fn open(cache: &Cache, series: &str, package: &Package) -> Result<WorkingTree> {
        let lock = cache.lock(&format!("source-{series}"))?;
        let tree = WorkingTree { root: cache.root().join("source").join(series), _lock: lock };
        let origin = tree.root.join(ORIGIN);
        if fs::read_to_string(&origin).ok().as_deref() != Some(&package.sha256) {
            tree.unpack(cache, package)?;
            cache.write(&origin, package.sha256.as_bytes())?;
        }
        Ok(tree)
    }

    /// The source.
    pub(crate) fn source(&self) -> PathBuf {
        self.root.join("linux")
    }

    /// Where objects and the configuration are.
    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    fn unpack(&self, cache: &Cache, package: &Package) -> Result<()> {
        let deb = Apt::new(cache).fetch(package)?;
        if self.root.exists() {
            fs::remove_dir_all(&self.root).map_err(Error::io("remove", &self.root))?;
        }
        create_dir(&self.root.join(APPLIED))?;
        create_dir(&self.source())?;
        cache.say(&format!("unpacking {} {}", package.name, package.version));
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("--fsys-tarfile").arg(&deb).stdin(Stdio::null()).stdout(Stdio::piped());
        let tool = |error: std::io::Error| Error::Tool { tool: "dpkg-deb".into(), detail: error.to_string() };
        let mut child = dpkg.spawn().map_err(tool)?;
        let stdout = child.stdout.take().expect("it is piped");
        let found = self.unpack_inner(&mut tar::Archive::new(BufReader::new(stdout)));
        // What follows the source in the package is of no interest.
        let _ = child.kill();
        child.wait().map_err(tool)?;
        match found {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Tool {
                tool: package.name.clone(),
                detail: "it has no usr/src/linux-source-*.tar.xz".into(),
            }),
            Err(error) => Err(Error::io("unpack", &deb)(error)),
        }
    }

    /// Unpacks the archive in the archive, as far as an x86-64 kernel needs it. False if there is none.
    fn unpack_inner(&self, package: &mut tar::Archive<impl Read>) -> std::io::Result<bool> {
        for entry in package.entries()? {
            let entry = entry?;
            if !entry.path()?.to_string_lossy().ends_with(".tar.xz") {
                continue;
            }
            let mut source = tar::Archive::new(liblzma::read::XzDecoder::new(entry));
            for entry in source.entries()? {
                let mut entry = entry?;
                // The archive has one directory at its top.
                let path: PathBuf = entry.path()?.components().skip_while(is_dot).skip(1).collect();
                if path.as_os_str().is_empty() || !is_needed(&path) {
                    continue;
                }
                let place = self.source().join(&path);
                if let Some(parent) = place.parent() {
                    fs::create_dir_all(parent)?;
                }
                entry.unpack(&place)?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Takes back the patches that are applied, and applies these. Those that both have in front stay.
    pub(crate) fn set_patches(&self, patches: &[Vec<u8>]) -> Result<()> {
        let mut applied = self.applied()?;
        let same = applied.iter().zip(patches).take_while(|((_, old), new)| old == *new).count();
        for (path, text) in applied.drain(same..).rev() {
            self.patch(&["--reverse"], &text).map_err(|why| Error::BadPatch {
                number: same,
                why: format!("an earlier one cannot be taken back; remove {}: {why}", self.root.display()),
            })?;
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        for (number, text) in patches.iter().enumerate().skip(same) {
            self.patch(&["--dry-run"], text)
                .and_then(|()| self.patch(&[], text))
                .map_err(|why| Error::BadPatch { number: number + 1, why })?;
            let path = self.root.join(APPLIED).join(format!("{number:03}"));
            fs::write(&path, text).map_err(Error::io("write", &path))?;
        }
        Ok(())
    }

    fn applied(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut found = Vec::new();
        for path in crate::cache::entries(&self.root.join(APPLIED))? {
            let text = fs::read(&path).map_err(Error::io("read", &path))?;
            found.push((path, text));
        }
        found.sort();
        Ok(found)
    }

    /// Runs patch(1) with a patch on its standard input. What it says is the error.
    fn patch(&self, options: &[&str], text: &[u8]) -> Result<(), String> {
        let mut patch = Command::new("patch");
        patch.args(["-p1", "--forward", "--batch", "--no-backup-if-mismatch", "--reject-file=-"]);
        patch.args(options).arg("-d").arg(self.source()).env("LC_ALL", "C");
        patch.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = patch.spawn().map_err(|error| error.to_string())?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let text = text.to_vec();
        // From a thread of its own: patch may fill its output before it has read all.
        let writer = std::thread::spawn(move || stdin.write_all(&text));
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        // When it did not want all, its exit status says why.
        let _ = writer.join();
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(String::from_utf8_lossy(&said).trim().to_owned())
    }
}

fn is_dot(part: &std::path::Component) -> bool {
    *part == std::path::Component::CurDir
}

/// Other architectures and the register headers of one graphics driver are half of the source. What Kconfig wants to see
/// of the architectures stays, and a file that fs/hostfs of 6.12 includes.
fn is_needed(path: &Path) -> bool {
    if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("Kconfig")) {
        return true;
    }
    let parts: Vec<_> = path.iter().take(4).map(|part| part.to_string_lossy()).collect();
    match &parts[..] {
        [arch, other, ..] if arch == "arch" && parts.len() > 2 => {
            other == "x86" || path.starts_with("arch/um/scripts")
        }
        [drivers, gpu, drm, amd] if drivers == "drivers" && gpu == "gpu" && drm == "drm" && amd == "amd" => {
            !path.starts_with("drivers/gpu/drm/amd/include")
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n one\n-two\n+zwei\n three\n";
    const SECOND: &str = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n-one\n+eins\n zwei\n three\n";

    fn tree(dir: &Path) -> WorkingTree {
        let cache = Cache::at(dir).unwrap();
        let root = cache.root().join("source/test");
        create_dir(&root.join(APPLIED)).unwrap();
        create_dir(&root.join("linux")).unwrap();
        fs::write(root.join("linux/f"), "one\ntwo\nthree\n").unwrap();
        WorkingTree { root, _lock: cache.lock("source-test").unwrap() }
    }

    fn content(tree: &WorkingTree) -> String {
        fs::read_to_string(tree.source().join("f")).unwrap()
    }

    fn texts(patches: &[&str]) -> Vec<Vec<u8>> {
        patches.iter().map(|patch| patch.as_bytes().to_vec()).collect()
    }

    #[test]
    fn patches_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree(dir.path());
        tree.set_patches(&texts(&[FIRST, SECOND])).unwrap();
        assert_eq!(content(&tree), "eins\nzwei\nthree\n");
        tree.set_patches(&texts(&[FIRST])).unwrap();
        assert_eq!(content(&tree), "one\nzwei\nthree\n");
        tree.set_patches(&[]).unwrap();
        assert_eq!(content(&tree), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_patch_that_does_not_apply_changes_nothing_and_is_named_by_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree(dir.path());
        let error = tree.set_patches(&texts(&[FIRST, "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-nine\n+ten\n"]));
        assert!(matches!(error, Err(Error::BadPatch { number: 2, .. })), "{error:?}");
        assert_eq!(content(&tree), "one\nzwei\nthree\n");
        tree.set_patches(&texts(&[FIRST, SECOND])).unwrap();
        assert_eq!(content(&tree), "eins\nzwei\nthree\n");
    }

    #[test]
    fn what_other_architectures_have_is_left_out_but_not_where_they_are_named() {
        assert!(is_needed(Path::new("arch/x86/Makefile")));
        assert!(is_needed(Path::new("arch/Kconfig")));
        assert!(is_needed(Path::new("arch/arm/crypto/Kconfig")));
        assert!(is_needed(Path::new("arch/um/scripts/Makefile.rules")));
        assert!(!is_needed(Path::new("arch/um/Makefile")));
        assert!(!is_needed(Path::new("arch/arm64/Makefile")));
        assert!(!is_needed(Path::new("drivers/gpu/drm/amd/include/a.h")));
        assert!(is_needed(Path::new("drivers/gpu/drm/amd/Kconfig")));
    }
}
