//! Programs of Debian with the libraries they need, unpacked in the cache.
//!
//! `PACKAGE` means every file of the package and of the packages it depends on; `PACKAGE/PROGRAM` only that program,
//! `PACKAGE/usr/DIRECTORY` only what lies there. `PACKAGE:i386` is the package for 32-bit processors. Of packages that bring shared libraries only the libraries that are needed (DT_NEEDED, in full) come along.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, elf};

use crate::apt::{Apt, Architecture, Package};
use crate::cache::{Cache, Tree, create_dir, entries};
use crate::deb::{self, Content, Member};
use crate::error::{Error, Result};

/// Dependencies for installing and configuring, not for running.
pub(crate) const NOT_NEEDED: [&str; 9] = [
    "dpkg",
    "debconf",
    "debianutils",
    "install-info",
    "init-system-helpers",
    "perl-base",
    "tar",
    "media-types",
    "mailcap",
];

/// Parts of a package that no program needs to run.
const LEFT_OUT: [&str; 9] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "usr/share/info",
    "usr/share/bug",
    "usr/lib/systemd",
    "var",
];

/// Programs with all they need, as a tree with a merged /usr.
#[derive(Debug)]
pub(crate) struct Programs {
    pub tree: Tree,
    pub package: Package,
}

impl Programs {
    /// `name` is `PACKAGE`, `PACKAGE/PROGRAM` or `PACKAGE/usr/PATH`; `PACKAGE:i386` instead of `PACKAGE`.
    pub(crate) fn get(cache: &Cache, name: &str) -> Result<Programs> {
        let (package, part) =
            name.split_once('/').map_or((name, None), |(package, part)| (package, Some(part)));
        let (package, architecture) = match package.split_once(':') {
            None | Some((_, "amd64")) => (package.trim_end_matches(":amd64"), Architecture::Amd64),
            Some((package, "i386")) => (package, Architecture::I386),
            Some(_) => return Err(bad(name, "the architectures are amd64 and i386")),
        };
        let tame = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-._[".contains(c))
        };
        let tame_part = |part: &str| tame(part) || part.starts_with("usr/") && part.split('/').all(tame);
        if !tame(package) || !part.is_none_or(tame_part) {
            return Err(bad(name, "give the name of a Debian package, PACKAGE/PROGRAM or PACKAGE/usr/PATH"));
        }
        let apt = Apt::of(cache, architecture);
        let package = apt.resolve(package)?;
        let key = format!("{}-{}", name.replace('/', "-"), &package.sha256[..16]);
        let tree = cache.tree("programs", &key, |dir| {
            let mut closure = Closure::new(&apt, architecture);
            closure.collect(&package, part)?;
            closure.files.iter().try_for_each(|(path, member)| put(&dir.join(path), member))
        })?;
        Ok(Programs { tree, package })
    }

    /// Every file and symbolic link: path in the guest, without a leading slash.
    pub(crate) fn members(&self) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        for path in self.tree.files() {
            let place = self.tree.root().join(path);
            let mode = place.metadata().map_err(Error::io("look at", &place))?.permissions().mode() & 0o7777;
            members.push(Member {
                path: path.to_path_buf(),
                mode,
                content: Content::File(self.tree.read(path)?),
            });
        }
        for path in links_below(self.tree.root())? {
            let place = self.tree.root().join(&path);
            let target = fs::read_link(&place).map_err(Error::io("read", &place))?;
            members.push(Member { path, mode: 0o777, content: Content::Symlink(target) });
        }
        Ok(members)
    }
}

/// A program of a tree, to be run on the host by the tree's own dynamic loader and libraries.
pub(crate) fn command(root: &Path, program: &str) -> Command {
    let libraries = root.join(Architecture::Amd64.libraries());
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries).arg(root.join("usr/sbin").join(program));
    // Nothing of the host's environment changes what they do.
    command.env_clear().env("LC_ALL", "C").env("PATH", "/nonexistent").stdin(Stdio::null());
    // Ctrl-C is for us, and we end when they have: what they say must not depend on it.
    command.process_group(0);
    command
}

fn bad(program: &str, why: impl Into<String>) -> Error {
    Error::BadProgram { program: program.into(), why: why.into() }
}

pub(crate) fn put(place: &Path, member: &Member) -> Result<()> {
    create_dir(place.parent().expect("it lies below the tree's root"))?;
    let fail = || Error::io("write", place);
    match &member.content {
        Content::File(bytes) => {
            fs::write(place, bytes).map_err(fail())?;
            fs::set_permissions(place, fs::Permissions::from_mode(member.mode & 0o755 | 0o400))
                .map_err(fail())
        }
        Content::Symlink(target) => symlink(target, place).map_err(fail()),
    }
}

fn links_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(next) = left.pop() {
        for path in entries(&next)? {
            if path.is_symlink() {
                found.push(path.strip_prefix(dir).expect("it lies below").to_path_buf());
            } else if path.is_dir() {
                left.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What is taken, and where more can come from.
struct Closure<'a> {
    apt: &'a Apt<'a>,
    architecture: Architecture,
    files: BTreeMap<PathBuf, Member>,
    /// Files of packages that bring libraries.
    libraries: BTreeMap<PathBuf, Member>,
    /// Names of packages that were looked at.
    seen: BTreeSet<String>,
    /// Packages to take whole, unless they bring libraries.
    wanted: VecDeque<String>,
    /// Packages that libraries depend on.
    further: VecDeque<String>,
}

impl<'a> Closure<'a> {
    fn new(apt: &'a Apt<'a>, architecture: Architecture) -> Closure<'a> {
        let (files, libraries) = (BTreeMap::new(), BTreeMap::new());
        Closure {
            apt,
            architecture,
            files,
            libraries,
            seen: BTreeSet::new(),
            wanted: VecDeque::new(),
            further: VecDeque::new(),
        }
    }

    fn collect(&mut self, package: &Package, part: Option<&str>) -> Result<()> {
        self.seen.insert(package.name.clone());
        let deb = self.apt.fetch(package)?;
        self.files = unpack(&deb)?;
        match part {
            // Not a program: of what its package depends on only libraries can be needed.
            Some(path) if path.contains('/') => {
                self.keep_below(&package.name, path)?;
                self.further.extend(depends(&deb)?);
            }
            Some(program) => {
                self.keep_only(&package.name, program)?;
                self.wanted.extend(depends(&deb)?);
            }
            None => self.wanted.extend(depends(&deb)?),
        }
        while let Some(name) = self.wanted.pop_front() {
            self.look_at(&name, true)?;
        }
        loop {
            let missing = self.take_libraries();
            let Some(first) = missing.first() else { return Ok(()) };
            let Some(name) = self.further.pop_front() else {
                return Err(bad(&package.name, format!("no package it depends on brings {first}")));
            };
            self.look_at(&name, false)?;
        }
    }

    /// Unpacks another package: a library waits until it is needed, anything else is taken when `whole`. What a
    /// compiler needs of a library (`-dev`) is no library.
    fn look_at(&mut self, name: &str, whole: bool) -> Result<()> {
        if NOT_NEEDED.contains(&name) || !self.seen.insert(name.into()) {
            return Ok(());
        }
        let deb = self.apt.fetch(&self.apt.resolve(name)?)?;
        let files = unpack(&deb)?;
        if !name.ends_with("-dev") && files.keys().any(|path| is_library(path, self.architecture)) {
            self.libraries.extend(files);
            self.further.extend(depends(&deb)?);
        } else if whole {
            self.files.extend(files);
            self.wanted.extend(depends(&deb)?);
        }
        Ok(())
    }

    /// Drops everything but the file or directory at `path`.
    fn keep_below(&mut self, package: &str, path: &str) -> Result<()> {
        self.files.retain(|file, _| file.starts_with(path));
        if self.files.is_empty() {
            return Err(bad(package, format!("the package has nothing at {path}")));
        }
        Ok(())
    }

    /// Drops all programs of the package but one; a link's target stays, too.
    fn keep_only(&mut self, package: &str, program: &str) -> Result<()> {
        let places = ["usr/bin", "usr/sbin"].map(|dir| Path::new(dir).join(program));
        let place = places.into_iter().find(|path| self.files.contains_key(path));
        let mut next = place.ok_or_else(|| bad(package, format!("the package has no program {program}")))?;
        let mut kept = BTreeMap::new();
        while let Some(member) = self.files.remove(&next) {
            let target = match &member.content {
                Content::Symlink(target) => Some(followed(&next, target)),
                Content::File(_) => None,
            };
            kept.insert(next, member);
            match target {
                Some(target) => next = target,
                None => break,
            }
        }
        self.files = kept;
        Ok(())
    }

    /// Moves needed libraries to the files until nothing changes; returns the names that are still missing.
    fn take_libraries(&mut self) -> BTreeSet<String> {
        loop {
            let here: BTreeSet<_> = self.files.keys().filter_map(|path| path.file_name()).collect();
            let needed: BTreeSet<String> = self.files.values().flat_map(needed).collect();
            let mut missing: BTreeSet<String> =
                needed.into_iter().filter(|name| !here.contains(std::ffi::OsStr::new(name))).collect();
            let found: Vec<PathBuf> =
                self.libraries.keys().filter(|path| names(path, &missing)).cloned().collect();
            for path in &found {
                self.take(path.clone());
            }
            if found.is_empty() {
                return std::mem::take(&mut missing);
            }
        }
    }

    /// Takes a library, and what it is a link to.
    fn take(&mut self, mut path: PathBuf) {
        while let Some(member) = self.libraries.remove(&path) {
            let target = match &member.content {
                Content::Symlink(target) => followed(&path, target),
                Content::File(_) => PathBuf::new(),
            };
            self.files.insert(std::mem::replace(&mut path, target), member);
        }
    }
}

fn names(path: &Path, wanted: &BTreeSet<String>) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| wanted.contains(name))
}

fn is_library(path: &Path, architecture: Architecture) -> bool {
    let shared = |name: &std::ffi::OsStr| name.to_string_lossy().contains(".so");
    path.parent() == Some(Path::new(architecture.libraries())) && path.file_name().is_some_and(shared)
}

/// Where a symbolic link at `path` leads: without a leading slash, with a merged /usr.
fn followed(path: &Path, target: &Path) -> PathBuf {
    let base = path.parent().unwrap_or(Path::new(""));
    let mut parts = Vec::new();
    for part in base.join(target).components() {
        match part {
            std::path::Component::RootDir => parts.clear(),
            std::path::Component::ParentDir => drop(parts.pop()),
            std::path::Component::Normal(part) => parts.push(part.to_os_string()),
            _ => {}
        }
    }
    merged(&parts.iter().collect::<PathBuf>())
}

/// The path with /bin, /sbin, /lib and /lib64 moved below /usr, as installed systems have it.
pub(crate) fn merged(path: &Path) -> PathBuf {
    let moved = ["bin", "sbin", "lib", "lib64"].iter().any(|dir| path.starts_with(dir));
    if moved { Path::new("usr").join(path) } else { path.to_path_buf() }
}

/// The package's files, those that no program needs aside.
pub(crate) fn unpack(deb: &Path) -> Result<BTreeMap<PathBuf, Member>> {
    let mut files = BTreeMap::new();
    let wanted = |path: &Path| !LEFT_OUT.iter().any(|dir| path.starts_with(dir));
    deb::read(deb, wanted, |member| {
        files.insert(merged(&member.path), member);
        Ok(())
    })?;
    Ok(files)
}

/// Names of the packages it depends on; of alternatives the first.
pub(crate) fn depends(deb: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for field in ["Pre-Depends", "Depends"] {
        names.extend(first_alternatives(&deb::field(deb, field)?));
    }
    Ok(names)
}

pub(crate) fn first_alternatives(field: &str) -> Vec<String> {
    let name = |term: &str| term.trim().split([' ', '(', '|', ':']).next().unwrap_or_default().to_string();
    field.split(',').map(name).filter(|name| !name.is_empty()).collect()
}

/// Names of the libraries that an ELF file needs, its interpreter among them; none for other files.
pub(crate) fn needed(member: &Member) -> Vec<String> {
    let Content::File(bytes) = &member.content else { return Vec::new() };
    libraries_of(bytes).unwrap_or_default()
}

fn libraries_of(data: &[u8]) -> object::read::Result<Vec<String>> {
    match object::FileKind::parse(data)? {
        object::FileKind::Elf32 => libraries_of_class::<FileHeader32<Endianness>>(data),
        _ => libraries_of_class::<FileHeader64<Endianness>>(data),
    }
}

fn libraries_of_class<Header: FileHeader<Endian = Endianness>>(
    data: &[u8],
) -> object::read::Result<Vec<String>> {
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    let mut names = Vec::new();
    for segment in header.program_headers(endian, data)? {
        if let Some(path) = segment.interpreter(endian, data)? {
            names.extend(String::from_utf8_lossy(path).rsplit('/').next().map(String::from));
        }
    }
    let sections = header.sections(endian, data)?;
    if let Some((entries, link)) = sections.dynamic(endian, data)? {
        let strings = sections.strings(endian, data, link)?;
        for entry in entries.iter().filter(|entry| entry.d_tag(endian) == elf::DT_NEEDED) {
            names.push(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_alternative_counts() {
        let field = "libc6 (>= 2.34), a | b (= 1), python3:any, ";
        assert_eq!(first_alternatives(field), ["libc6", "a", "python3"]);
        assert!(first_alternatives("").is_empty());
    }

    #[test]
    fn links_are_followed_in_a_merged_usr() {
        let loader = followed(Path::new("usr/lib64/ld.so"), Path::new("/lib/x86_64-linux-gnu/ld.so"));
        assert_eq!(loader, Path::new("usr/lib/x86_64-linux-gnu/ld.so"));
        assert_eq!(followed(Path::new("usr/bin/sh"), Path::new("dash")), Path::new("usr/bin/dash"));
        assert_eq!(followed(Path::new("usr/bin/sh"), Path::new("../../../../x")), Path::new("x"));
    }

    #[test]
    fn names_that_are_no_packages_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        for name in
            ["", "../x", "a b", "-o", "dash/../x", "dash/", "dash:arm64", "dash/usr/../x", "dash/etc/x"]
        {
            assert!(matches!(Programs::get(&cache, name), Err(Error::BadProgram { .. })), "{name}");
        }
    }

    #[test]
    fn the_libraries_of_a_program_are_read() {
        // This test itself is a dynamic program.
        let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        let names = libraries_of(&bytes).unwrap();
        assert!(
            names.contains(&"libc.so.6".to_string()) && names.contains(&"ld-linux-x86-64.so.2".to_string())
        );
        assert!(libraries_of(b"#!/bin/sh").is_err());
    }
}
