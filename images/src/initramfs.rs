//! The initramfs: the agent as /init, modules with the order to load them in, programs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::apt::Package;
use crate::cache::Cache;
use crate::compile::compile;
use crate::cpio::Archive;
use crate::deb::{Content, Member};
use crate::error::{Error, Result};
use crate::executable;
use crate::modules::Module;
use crate::programs::{Programs, merged};

/// The guest agent, a static x86-64 program.
pub const AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest-agent"));

/// Modules that make pmem accessible once a region is there: loaded after all regions are unbound.
const LATE: [&str; 5] = ["nd_btt", "nd_pmem", "device_dax", "dax_pmem", "kmem"];

/// What an initramfs holds besides the agent.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    archive: Archive,
    modules: Vec<Module>,
}

impl Initramfs {
    /// One with the agent and nothing else.
    pub fn new() -> Initramfs {
        let mut archive = Archive::default();
        archive.file("init", 0o755, AGENT.to_vec());
        // /init has no input and output without it: devtmpfs is mounted by /init itself.
        archive.character_device("dev/console", 5, 1);
        archive.character_device("dev/null", 1, 3);
        for path in ["proc", "sys", "tmp", "mnt/pmem", "modules"] {
            archive.directory(path);
        }
        // One place for all programs and libraries, as installed systems have it.
        for directory in ["bin", "sbin", "lib", "lib64"] {
            archive.symlink(directory, &format!("usr/{directory}"));
            archive.directory(&format!("usr/{directory}"));
        }
        Initramfs { archive, modules: Vec::new() }
    }

    /// Adds Debian programs with the libraries they need: `PACKAGE`, `PACKAGE/PROGRAM` for one of the package's
    /// programs, `PACKAGE/usr/PATH` for a file of it or all below a directory. `PACKAGE:i386` is the package for
    /// 32-bit processors. Returns the package. Scripts bring no interpreter along.
    ///
    /// # Errors
    /// [`Error::BadProgram`], [`Error::NoSuchPackage`], and all that fetching can meet.
    pub fn program(&mut self, cache: &Cache, name: &str) -> Result<Package> {
        let programs = Programs::get(cache, name)?;
        for member in programs.members()? {
            let path = format!("/{}", member.path.display());
            match member.content {
                Content::File(bytes) => self.file(&path, member.mode, bytes)?,
                Content::Symlink(target) => self.symlink(&path, &target.to_string_lossy())?,
            };
        }
        Ok(programs.package)
    }

    /// Adds modules; they are loaded in this order, but those that would touch pmem are loaded last (see
    /// `manifest`).
    pub fn modules(&mut self, modules: Vec<Module>) -> &mut Self {
        self.modules.extend(modules);
        self
    }

    /// Adds a file. `path` is absolute; `permissions` are mode bits.
    ///
    /// # Errors
    /// [`Error::BadProgram`] when the path is relative, climbs up or is taken by the agent.
    pub fn file(&mut self, path: &str, permissions: u32, data: Vec<u8>) -> Result<&mut Self> {
        let inner = self.free(path)?;
        self.archive.file(&inner, permissions, data);
        Ok(self)
    }

    /// Adds a symbolic link, with the same rules as for a file.
    ///
    /// # Errors
    /// As [`Initramfs::file`].
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<&mut Self> {
        let inner = self.free(path)?;
        self.archive.symlink(&inner, target);
        Ok(self)
    }

    /// Compiles a C source file of the host and adds the program, with the shared libraries that it needs. `packages` are
    /// those of Debian with the headers and libraries that it needs beside C's own; `flags` are for the compiler.
    /// `#include <pmemsim.h>` talks to the simulator. Returns the packages.
    ///
    /// # Errors
    /// [`Error::BadProgram`] with what the compiler says, and all that fetching can meet.
    pub fn compiled(
        &mut self,
        cache: &Cache,
        path: &str,
        source: &Path,
        packages: &[String],
        flags: &[String],
    ) -> Result<Vec<Package>> {
        let compiled = compile(cache, source, packages, flags)?;
        self.file(path, 0o755, compiled.program)?;
        for Member { path, mode, content } in compiled.libraries {
            let inner = path.to_string_lossy();
            match content {
                // What a package has brought is the same, or fits to the others of its package.
                _ if self.archive.has(&inner) => (),
                Content::File(bytes) => self.archive.file(&inner, mode, bytes),
                Content::Symlink(target) => self.archive.symlink(&inner, &target.to_string_lossy()),
            }
        }
        Ok(compiled.packages)
    }

    /// Whether a program of this name would be found, in a directory of PATH if it has no slash.
    pub fn has_program(&self, name: &str) -> bool {
        let at = |path: &str| self.archive.has(&merged(Path::new(path)).to_string_lossy());
        match name.strip_prefix('/') {
            Some(path) => at(path),
            // Relative to the file system on persistent memory.
            None if name.contains('/') => true,
            None => ["usr/bin", "usr/sbin"].iter().any(|directory| at(&format!("{directory}/{name}"))),
        }
    }

    /// Looks at the programs at these paths: whether a guest of this processor executes them, and whether it has the
    /// interpreter and the shared libraries that they need, in full.
    ///
    /// # Errors
    /// [`Error::BadProgram`]
    pub fn check_programs(&self, paths: &[&str]) -> Result<()> {
        let files: BTreeMap<&str, &[u8]> = self.archive.files().collect();
        // Libraries are often links.
        let names: BTreeSet<&str> =
            self.archive.paths().map(|path| path.rsplit('/').next().unwrap_or(path)).collect();
        for path in paths {
            let inner = merged(Path::new(path.trim_start_matches('/'))).to_string_lossy().into_owned();
            let Some(bytes) = files.get(inner.as_str()) else { continue };
            executable::check(path, bytes, &|name| names.contains(name) || self.archive.has(name))?;
        }
        Ok(())
    }

    /// Every file: its path without a leading slash, and its content.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.archive.files()
    }

    fn free(&self, path: &str) -> Result<String> {
        let bad = |why: &str| Error::BadProgram { program: path.into(), why: why.into() };
        let inner = path.strip_prefix('/').ok_or_else(|| bad("its path in the guest must be absolute"))?;
        let inner = merged(Path::new(inner)).to_string_lossy().into_owned();
        if inner.split('/').any(|part| ["", ".", ".."].contains(&part)) {
            return Err(bad("its path in the guest must not have empty parts, . or .."));
        }
        if ["init", "dev/console", "dev/null"].contains(&&*inner) || inner.starts_with("modules/") {
            return Err(bad("its path in the guest is taken"));
        }
        Ok(inner)
    }

    /// Writes files, links and directories below `root`, which must exist: what the guest sees, for comparing with
    /// the host. Devices and modules are left out.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn unpack(&self, root: &Path) -> Result<()> {
        self.archive.unpack(root)
    }

    /// The newc archive. The same contents give the same bytes.
    pub fn finish(&self) -> Vec<u8> {
        let mut archive = self.archive.clone();
        for (number, module) in self.modules.iter().enumerate() {
            archive.file(&file_name(number, module), 0o644, module.ko.clone());
        }
        archive.file("modules/manifest", 0o644, manifest(&self.modules).into_bytes());
        archive.finish()
    }
}

fn file_name(number: usize, module: &Module) -> String {
    format!("modules/{number:03}-{}.ko", module.name)
}

/// What the agent does with the modules, a line each: `load PATH`, and once `unbind`.
///
/// libnvdimm binds a region as soon as nfit, virtio_pmem or nd_e820 finds it, and a namespace as soon as a driver for it is there. So the
/// drivers come after the regions are unbound: nothing reads pmem before the base snapshot.
fn manifest(modules: &[Module]) -> String {
    let (mut early, mut late) = (String::new(), String::new());
    for (number, module) in modules.iter().enumerate() {
        let part = if LATE.contains(&module.name.as_str()) { &mut late } else { &mut early };
        *part += &format!("load /{}\n", file_name(number, module));
    }
    early + "unbind\n" + &late
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str) -> Module {
        Module { name: name.into(), ko: vec![1, 2, 3] }
    }

    #[test]
    fn drivers_of_namespaces_are_loaded_after_unbinding() {
        let text = manifest(&["libnvdimm", "nd_btt", "nd_pmem", "nfit", "virtio_pmem"].map(module));
        let expected = "load /modules/000-libnvdimm.ko\nload /modules/003-nfit.ko\n\
                        load /modules/004-virtio_pmem.ko\nunbind\n\
                        load /modules/001-nd_btt.ko\nload /modules/002-nd_pmem.ko\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_same_contents_give_the_same_bytes() {
        let make = || {
            let mut initramfs = Initramfs::new();
            initramfs.modules(vec![module("nfit")]).file("/bin/true", 0o755, vec![0]).unwrap();
            initramfs.finish()
        };
        assert!(make() == make());
    }

    #[test]
    fn paths_that_would_break_the_agent_are_refused() {
        for path in ["bin/sh", "/init", "/../x", "/modules/manifest", "//x"] {
            assert!(Initramfs::new().file(path, 0o644, Vec::new()).is_err(), "{path}");
        }
    }

    #[test]
    fn the_agent_is_a_static_program() {
        use object::{Object, ObjectSection};
        let file = object::File::parse(AGENT).unwrap();
        assert_eq!(file.architecture(), object::Architecture::X86_64);
        assert!(file.sections().all(|section| section.name() != Ok(".interp")));
    }
}
