//! Kernels by name (from Debian) or by path.

use std::fs;
use std::path::{Path, PathBuf};

use crate::apt::{Apt, Package};
use crate::cache::{Cache, Tree, create_dir, files_below};
use crate::deb::{self, Content};
use crate::error::{Error, Result};
use crate::modules::{self, Module};
use crate::own_kernel::{self, Own};
use crate::{bzimage, version};

/// A kernel and where its modules are.
#[derive(Debug)]
pub struct Kernel {
    /// The ELF kernel.
    pub vmlinux: Vec<u8>,
    /// Its release, as `uname -r` would say: `6.1.0-56-cloud-amd64`. Empty when the file does not say.
    pub release: String,
    /// GNU build id, hexadecimal. Empty when the file has none.
    pub build_id: String,
    /// The Debian package it comes from.
    pub package: Option<Package>,
    modules: Modules,
}

#[derive(Debug)]
enum Modules {
    Cached(Tree),
    Directory(PathBuf),
    None,
}

impl Kernel {
    /// The kernel `name`: `debian-6.1` or `debian-6.12` (the newest of that series when it was first used; then that
    /// one until [`crate::refresh`]), `debian-6.1@VERSION` (a Debian version, `6.1.192-2`, or a release,
    /// `6.1.0-56`), `small-6.1`, `small-6.12`, `mutants-6.1` or `mutants-6.12` (built here: [`crate::build_kernel`]), or a
    /// path (with a slash in it, or of a file that exists) to a vmlinux or bzImage without modules, or to the directory in
    /// which a kernel was built: its vmlinux and the modules below it.
    ///
    /// # Errors
    /// [`Error::UnknownKernel`], [`Error::NoSuchPackage`], [`Error::BadKernel`], and all that fetching can meet.
    pub fn get(cache: &Cache, name: &str) -> Result<Kernel> {
        if name.contains('/') || Path::new(name).is_file() {
            return Kernel::from_file(Path::new(name), None);
        }
        if let Some(own) = Own::named(name) {
            let built = own_kernel::built(cache, own, Vec::new())?;
            let vmlinux = built.tree.read(Path::new("vmlinux"))?;
            return Ok(Kernel::new(vmlinux, Some(built.package), Modules::None));
        }
        let package = resolve(&Apt::new(cache), name)?;
        let tree = unpacked(cache, &package)?;
        let vmlinux = tree.read(Path::new("vmlinux"))?;
        Ok(Kernel::new(vmlinux, Some(package), Modules::Cached(tree)))
    }

    /// The kernel in a file, and a directory below which its modules (.ko, .ko.xz, .ko.gz, .ko.zst) are.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::BadKernel`] when it is no kernel.
    pub fn from_file(path: &Path, modules: Option<&Path>) -> Result<Kernel> {
        if path.is_dir() {
            let vmlinux = path.join("vmlinux");
            if !vmlinux.is_file() {
                let why = "a directory, but no kernel was built in it: there is no vmlinux".to_owned();
                return Err(Error::BadKernel { what: path.display().to_string(), why });
            }
            return Kernel::from_file(&vmlinux, Some(modules.unwrap_or(path)));
        }
        let file = fs::read(path).map_err(Error::io("read", path))?;
        let vmlinux = bzimage::vmlinux(&path.display().to_string(), file)?;
        let modules = modules.map_or(Modules::None, |path| Modules::Directory(path.to_path_buf()));
        Ok(Kernel::new(vmlinux, None, modules))
    }

    fn new(vmlinux: Vec<u8>, package: Option<Package>, modules: Modules) -> Kernel {
        let (release, build_id) = (version::release(&vmlinux), version::build_id(&vmlinux));
        Kernel { vmlinux, release, build_id, package, modules }
    }

    /// The modules `names` and all that they depend on, each after what it depends on. Names that are no modules of
    /// this kernel are left out: they are built in, or the kernel does not have them.
    ///
    /// # Errors
    /// [`Error::BadModule`], [`Error::Io`].
    pub fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let paths: Vec<PathBuf> = match &self.modules {
            Modules::Cached(tree) => tree.files().map(Path::to_path_buf).collect(),
            Modules::Directory(dir) => files_below(dir)?,
            Modules::None => Vec::new(),
        };
        let mut index = std::collections::BTreeMap::new();
        for path in paths {
            let text = path.to_string_lossy();
            if modules::is_module(&text) {
                index.insert(modules::canonical(&text), path);
            }
        }
        modules::closure(names, |name| {
            let Some(path) = index.get(name) else { return Ok(None) };
            let file = match &self.modules {
                Modules::Cached(tree) => tree.read(path)?,
                Modules::Directory(dir) => fs::read(dir.join(path)).map_err(Error::io("read", path))?,
                Modules::None => return Ok(None),
            };
            modules::plain(name, file).map(Some)
        })
    }
}

/// The package that `name` means.
pub(crate) fn resolve(apt: &Apt, name: &str) -> Result<Package> {
    let unknown = || Error::UnknownKernel { name: name.into() };
    let rest = name.strip_prefix("debian-").ok_or_else(unknown)?;
    let (series, wanted) =
        rest.split_once('@').map_or((rest, None), |(series, version)| (series, Some(version)));
    let tame = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".+~-".contains(c))
    };
    if !["6.1", "6.12"].contains(&series) || !wanted.is_none_or(tame) {
        return Err(unknown());
    }
    apt.resolve_with(name, || {
        let mut found = apt.packages(&format!("linux-image-{series}."))?;
        found.retain(|package| package.name.ends_with("-cloud-amd64"));
        found.sort_by(|a, b| version::compare(&a.version, &b.version));
        let matches = |package: &&Package| match wanted {
            None => true,
            Some(wanted) => {
                package.version == wanted || release_of(package).starts_with(&format!("{wanted}-"))
            }
        };
        found.iter().rev().find(matches).cloned().ok_or_else(|| Error::NoSuchPackage {
            wanted: format!("kernel {name}"),
            available: found.iter().map(|package| package.version.clone()).collect(),
        })
    })
}

fn release_of(package: &Package) -> &str {
    package.name.trim_start_matches("linux-image-")
}

/// The package's kernel and modules, unpacked in the cache.
fn unpacked(cache: &Cache, package: &Package) -> Result<Tree> {
    cache.tree("kernels", &package.sha256, |dir| {
        let deb = Apt::new(cache).fetch(package)?;
        cache.say(&format!("unpacking {}", package.name));
        let wanted = |path: &Path| {
            path.starts_with("boot") || path.components().any(|part| part.as_os_str() == "modules")
        };
        let mut kernel = None;
        deb::read(&deb, wanted, |member| {
            let text = member.path.to_string_lossy().into_owned();
            let Content::File(bytes) = member.content else { return Ok(()) };
            if text.starts_with("boot/vmlinuz-") {
                kernel = Some(bytes);
            } else if modules::is_module(&text) {
                let dir = dir.join("modules");
                create_dir(&dir)?;
                let path = dir.join(member.path.file_name().expect("a module has a name"));
                fs::write(&path, bytes).map_err(Error::io("write", &path))?;
            }
            Ok(())
        })?;
        let missing =
            || Error::BadKernel { what: package.name.clone(), why: "it has no boot/vmlinuz-*".into() };
        let vmlinux = bzimage::vmlinux(&package.name, kernel.ok_or_else(missing)?)?;
        let path = dir.join("vmlinux");
        fs::write(&path, vmlinux).map_err(Error::io("write", &path))
    })
}
