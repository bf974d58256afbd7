//! Telling the simulator what is at a path, with the file's contents mapped for it to read.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use guest_protocol::{Attributes, Found, MOUNT, Observation};

use crate::files::full;
use crate::host::Host;
use crate::{signals, straight, sys};

const PAGE: u64 = 4096;
/// Ranges that are told one by one: a message has room for so many.
const MOST_UNREADABLE: usize = 10_000;

/// Observes one path.
pub fn one(host: &mut Host, path: &str) {
    observe(host, path, &full(path));
}

/// Observes everything below the mount point.
pub fn tree(host: &mut Host) {
    let mut paths = Vec::new();
    let mut left = vec![PathBuf::from(MOUNT)];
    while let Some(directory) = left.pop() {
        match list(&directory) {
            Ok(entries) => {
                let entries = entries
                    .into_iter()
                    .filter(|path| path.strip_prefix(MOUNT) != Ok(Path::new("lost+found")));
                for path in entries {
                    if path.symlink_metadata().is_ok_and(|data| data.is_dir()) {
                        left.push(path.clone());
                    }
                    paths.push(path);
                }
            }
            Err(error) => report(host, &name(&directory), failed("readdir", &error)),
        }
    }
    paths.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    for path in paths {
        observe(host, &name(&path), &path);
    }
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// Path relative to the mount point.
fn name(path: &Path) -> String {
    path.strip_prefix(MOUNT).unwrap_or(path).to_string_lossy().into_owned()
}

fn failed(call: &str, error: &io::Error) -> Found {
    Found::Errno { call: call.into(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

fn report(host: &mut Host, path: &str, found: Found) {
    report_with(host, path, found, Attributes::default());
}

fn report_with(host: &mut Host, path: &str, found: Found, attributes: Attributes) {
    host.observe(&Observation { path: path.into(), found, attributes });
}

/// Links and extended attributes. A file system without the latter has none.
fn attributes(place: &Path, data: &fs::Metadata) -> io::Result<Attributes> {
    let mut names = match sys::list_xattrs(place) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Vec::new(),
        names => names?,
    };
    names.sort_unstable();
    let with_value = |name: String| sys::get_xattr(place, &name).map(|value| (name, value));
    let xattrs = names.into_iter().map(with_value).collect::<io::Result<_>>()?;
    Ok(Attributes { links: data.nlink(), xattrs })
}

fn observe(host: &mut Host, path: &str, place: &Path) {
    let data = match fs::symlink_metadata(place) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            return report(host, path, Found::Nothing);
        }
        Err(error) => return report(host, path, failed("lstat", &error)),
        Ok(data) => data,
    };
    let attributes = match attributes(place, &data) {
        Ok(attributes) => attributes,
        Err(error) => return report(host, path, failed("getxattr", &error)),
    };
    let found = if data.is_dir() {
        Found::Directory
    } else if data.is_symlink() {
        match fs::read_link(place) {
            Ok(target) => Found::Symlink { target: target.to_string_lossy().into_owned() },
            Err(error) => failed("readlink", &error),
        }
    } else if data.is_file() {
        return observe_file(host, path, place, (data.len(), data.blocks() * 512), attributes);
    } else if let Some(size) = dax_size(&data) {
        return observe_file(host, path, place, (size, size), attributes);
    } else {
        Found::Other
    };
    report_with(host, path, found, attributes);
}

/// Bytes of a device-dax device; `None` of anything else.
fn dax_size(data: &fs::Metadata) -> Option<u64> {
    let (major, minor) = (libc::major(data.rdev()), libc::minor(data.rdev()));
    let size = fs::read_to_string(format!("/sys/dev/char/{major}:{minor}/size"));
    size.ok().filter(|_| data.file_type().is_char_device())?.trim().parse().ok()
}

/// Of a file, or of what is mapped as one: its size and what is allocated of it, in bytes.
fn observe_file(
    host: &mut Host,
    path: &str,
    place: &Path,
    (size, allocated): (u64, u64),
    attributes: Attributes,
) {
    // Looking must not change what is looked at: no access time.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOATIME).open(place) {
        Ok(file) => file,
        Err(error) => return report(host, path, failed("open", &error)),
    };
    if size == 0 {
        let found = Found::File { size, allocated, address: 0, unreadable: Vec::new() };
        return report_with(host, path, found, attributes);
    }
    match map(&file, size) {
        Ok((address, unreadable)) => {
            let whole = unreadable.is_empty();
            report_with(host, path, Found::File { size, allocated, address, unreadable }, attributes);
            if whole {
                host.print_digest(address, size);
            }
            let _ = sys::unmap(address as usize, size as usize);
        }
        Err(found) => report(host, path, found),
    }
}

/// Address of the mapped file, every page present but for those of which nothing can be loaded: offset and length of these.
fn map(file: &File, size: u64) -> Result<(u64, Vec<(u64, u64)>), Found> {
    let length =
        usize::try_from(size).map_err(|_| Found::Errno { call: "mmap".into(), errno: libc::ENOMEM })?;
    let address = sys::map_to_read(file, length).map_err(|error| failed("mmap", &error))? as u64;
    // MAP_POPULATE says nothing when a page could not be had.
    if signals::guarded(|| straight::touch(address, size)).is_ok() {
        return Ok((address, Vec::new()));
    }
    let mut unreadable: Vec<(u64, u64)> = Vec::new();
    for at in (0..size).step_by(PAGE as usize) {
        let len = PAGE.min(size - at);
        if signals::guarded(|| straight::touch(address + at, len)).is_ok() {
            continue;
        }
        match unreadable.last_mut() {
            Some((start, before)) if *start + *before == at => *before += len,
            _ => unreadable.push((at, len)),
        }
        if unreadable.len() > MOST_UNREADABLE {
            let _ = sys::unmap(address as usize, length);
            return Err(Found::Errno { call: "load".into(), errno: libc::EIO });
        }
    }
    Ok((address, unreadable))
}
