//! C programs for the guest: compiled by the host's compiler against Debian's headers and libraries, so that what they
//! are linked with is what the guest has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{Apt, Architecture, Package};
use crate::cache::{Cache, Tree};
use crate::deb::{Content, Member};
use crate::error::{Error, Result};
use crate::programs::{NOT_NEEDED, depends, needed, put, unpack};

/// `#include <pmemsim.h>`
const HEADER: &str = include_str!("../../guest/workloads/pmemsim.h");
/// What every C program is compiled against.
const C: &str = "libc6-dev";
/// Call stacks of findings tell functions and lines.
const FLAGS: [&str; 4] = ["-O1", "-g", "-fno-omit-frame-pointer", "-Wall"];

/// A program, the shared libraries that it needs, and the packages that these are from.
pub(crate) struct Compiled {
    pub program: Vec<u8>,
    pub libraries: Vec<Member>,
    pub packages: Vec<Package>,
}

/// Compiles one source file. `packages` are those with the headers and libraries that it needs beside C's own.
pub(crate) fn compile(
    cache: &Cache,
    source: &Path,
    packages: &[String],
    flags: &[String],
) -> Result<Compiled> {
    let name = source.display().to_string();
    let bad = |why: String| Error::BadProgram { program: name.clone(), why };
    if !source.is_file() {
        return Err(bad("there is no such file; paths are relative to the current directory".into()));
    }
    let (root, packages) = sysroot(cache, packages)?;
    let scratch = tempfile::tempdir().map_err(Error::io("make a directory below", &std::env::temp_dir()))?;
    let header = scratch.path().join("pmemsim.h");
    fs::write(&header, HEADER).map_err(Error::io("write", &header))?;
    let program = scratch.path().join("program");
    let mut command = Command::new("cc");
    command.args(FLAGS).arg("-I").arg(scratch.path());
    // Neither where the source lies nor where the headers do may be in the program: it is the same for everybody.
    for path in [scratch.path(), root.root(), &std::env::current_dir().unwrap_or_default()] {
        command.arg(format!("-ffile-prefix-map={}=.", path.display()));
    }
    command.arg(format!("--sysroot={}", root.root().display()));
    command.arg("-o").arg(&program).arg(source).args(flags).env("LC_ALL", "C");
    let output = command
        .output()
        .map_err(|why| bad(format!("cc cannot be started: {why}; install a C compiler (Debian: gcc)")))?;
    if !output.status.success() {
        return Err(bad(format!(
            "cc cannot compile it:\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        )));
    }
    let program = fs::read(&program).map_err(Error::io("read", &program))?;
    let libraries = libraries(&root, &program)?;
    Ok(Compiled { program, libraries, packages })
}

/// Headers and libraries of the packages, and of all that they depend on.
fn sysroot(cache: &Cache, packages: &[String]) -> Result<(Tree, Vec<Package>)> {
    let apt = Apt::of(cache, Architecture::Amd64);
    let names = packages.iter().map(String::as_str).chain([C]).collect::<BTreeSet<_>>();
    let packages: Vec<Package> = names.iter().map(|name| apt.resolve(name)).collect::<Result<_>>()?;
    let mut hash = blake3::Hasher::new();
    for package in &packages {
        hash.update(package.sha256.as_bytes());
    }
    let key = hash.finalize().to_hex();
    let tree = cache.tree("sysroots", &key[..32], |dir| {
        let mut left: VecDeque<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = left.pop_front() {
            if NOT_NEEDED.contains(&name.as_str()) || !seen.insert(name.clone()) {
                continue;
            }
            let deb = apt.fetch(&apt.resolve(&name)?)?;
            let files: BTreeMap<PathBuf, Member> = unpack(&deb)?;
            // Of programs a compiler needs nothing.
            let wanted = |path: &Path| path.starts_with("usr/include") || path.starts_with("usr/lib");
            for (path, member) in files.iter().filter(|(path, _)| wanted(path)) {
                if !dir.join(path).exists() {
                    put(&dir.join(path), member)?;
                }
            }
            left.extend(depends(&deb)?);
        }
        // Linker scripts name these.
        for directory in ["lib", "lib64"] {
            let place = dir.join(directory);
            symlink(format!("usr/{directory}"), &place).map_err(Error::io("write", &place))?;
        }
        Ok(())
    })?;
    Ok((tree, packages))
}

/// The libraries that a program needs, in full; that which is nowhere is not among them.
fn libraries(root: &Tree, program: &[u8]) -> Result<Vec<Member>> {
    let file = |path: PathBuf, bytes: Vec<u8>| Member { path, mode: 0o755, content: Content::File(bytes) };
    let mut found: BTreeMap<String, Member> = BTreeMap::new();
    let mut left: Vec<String> = needed(&file(PathBuf::new(), program.to_vec()));
    while let Some(name) = left.pop() {
        let path = Path::new(Architecture::Amd64.libraries()).join(&name);
        if found.contains_key(&name) || !root.root().join(&path).exists() {
            continue;
        }
        // A link's target under the name that is asked for.
        let member = file(path.clone(), root.read(&path)?);
        left.extend(needed(&member));
        found.insert(name, member);
    }
    let mut members: Vec<Member> = found.into_values().collect();
    // The kernel looks for the loader here (System V ABI, x86-64 supplement).
    const LOADER: &str = "ld-linux-x86-64.so.2";
    if members.iter().any(|member| member.path.file_name() == Some(OsStr::new(LOADER))) {
        let target = Path::new("/").join(Architecture::Amd64.libraries()).join(LOADER);
        let path = Path::new("usr/lib64").join(LOADER);
        members.push(Member { path, mode: 0o777, content: Content::Symlink(target) });
    }
    Ok(members)
}
