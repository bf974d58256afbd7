//! Telling the simulator what is at a path, with the file's contents mapped for it to read.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use guest_protocol::{Found, MOUNT, Observation};

use crate::files::full;
use crate::host::Host;
use crate::{signals, straight, sys};

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
    host.observe(&Observation { path: path.into(), found });
}

fn observe(host: &mut Host, path: &str, place: &Path) {
    let found = match fs::symlink_metadata(place) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Found::Nothing,
        Err(error) => failed("lstat", &error),
        Ok(data) if data.is_dir() => Found::Directory,
        Ok(data) if data.is_symlink() => match fs::read_link(place) {
            Ok(target) => Found::Symlink { target: target.to_string_lossy().into_owned() },
            Err(error) => failed("readlink", &error),
        },
        Ok(data) if data.is_file() => return observe_file(host, path, place, &data),
        Ok(_) => Found::Other,
    };
    report(host, path, found);
}

fn observe_file(host: &mut Host, path: &str, place: &Path, data: &fs::Metadata) {
    let (size, links, allocated) = (data.len(), data.nlink(), data.blocks() * 512);
    // Looking must not change what is looked at: no access time.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOATIME).open(place) {
        Ok(file) => file,
        Err(error) => return report(host, path, failed("open", &error)),
    };
    if size == 0 {
        return report(host, path, Found::File { size, links, allocated, address: 0 });
    }
    match map(&file, size) {
        Ok(address) => {
            report(host, path, Found::File { size, links, allocated, address });
            host.print_digest(address, size);
            let _ = sys::unmap(address as usize, size as usize);
        }
        Err(found) => report(host, path, found),
    }
}

/// Address of the mapped file, every page present.
fn map(file: &File, size: u64) -> Result<u64, Found> {
    let length =
        usize::try_from(size).map_err(|_| Found::Errno { call: "mmap".into(), errno: libc::ENOMEM })?;
    let address = sys::map_to_read(file, length).map_err(|error| failed("mmap", &error))? as u64;
    // MAP_POPULATE says nothing when a page could not be had.
    if signals::guarded(|| straight::touch(address, size)).is_err() {
        let _ = sys::unmap(address as usize, length);
        return Err(Found::Errno { call: "load".into(), errno: libc::EIO });
    }
    Ok(address)
}
