//! Reading .deb files: dpkg-deb undoes the outer layers, what comes out is a tar archive.

use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// One regular file or link of a package.
pub(crate) struct Member {
    /// Path without a leading slash, no `..` in it.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    pub content: Content,
}

pub(crate) enum Content {
    File(Vec<u8>),
    Symlink(PathBuf),
}

/// Calls `take` for every file and link of the package that `wanted` wants. Directories are not told.
pub(crate) fn read(
    deb: &Path,
    wanted: impl Fn(&Path) -> bool,
    mut take: impl FnMut(Member) -> Result<()>,
) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--fsys-tarfile").arg(deb).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = dpkg.spawn().map_err(missing)?;
    let mut archive = tar::Archive::new(child.stdout.take().expect("it is piped"));
    let result = members(deb, &mut archive, wanted, &mut take);
    // dpkg-deb must not die of a closed pipe when all went well.
    let rest = std::io::copy(&mut archive.into_inner(), &mut std::io::sink());
    let output = child.wait_with_output().map_err(missing)?;
    if !output.status.success() && result.is_ok() {
        let detail = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(Error::Tool { tool: "dpkg-deb".into(), detail });
    }
    rest.map_err(Error::io("read", deb))?;
    result
}

pub(crate) fn members(
    deb: &Path,
    archive: &mut tar::Archive<impl Read>,
    wanted: impl Fn(&Path) -> bool,
    take: &mut impl FnMut(Member) -> Result<()>,
) -> Result<()> {
    let fail = || Error::io("read", deb);
    for entry in archive.entries().map_err(fail())? {
        let mut entry = entry.map_err(fail())?;
        let path: PathBuf =
            entry.path().map_err(fail())?.components().filter(|part| *part != Component::CurDir).collect();
        let tame = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !tame || !wanted(&path) {
            continue;
        }
        let mode = entry.header().mode().map_err(fail())? & 0o7777;
        let content = match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(fail())?;
                Content::File(bytes)
            }
            tar::EntryType::Symlink => match entry.link_name().map_err(fail())? {
                Some(target) => Content::Symlink(target.into_owned()),
                None => continue,
            },
            // A hard link's target stands earlier in the archive under its full name: say it as a symbolic link.
            tar::EntryType::Link => match entry.link_name().map_err(fail())? {
                Some(target) => {
                    Content::Symlink(Path::new("/").join(target.strip_prefix("./").unwrap_or(&target)))
                }
                None => continue,
            },
            _ => continue,
        };
        take(Member { path, mode, content })?;
    }
    Ok(())
}

/// A field of the package's control file, empty when it has none.
pub(crate) fn field(deb: &Path, name: &str) -> Result<String> {
    let output = Command::new("dpkg-deb")
        .arg("--field")
        .arg(deb)
        .arg(name)
        .stdin(Stdio::null())
        .output()
        .map_err(missing)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn missing(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::MissingTool {
            tool: "dpkg-deb",
            why: "Debian packages are unpacked with it; install the package dpkg",
        },
        _ => Error::Tool { tool: "dpkg-deb".into(), detail: error.to_string() },
    }
}
