//! Commands on files and directories. Paths are relative to the mount point.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink as make_symlink};
use std::path::{Path, PathBuf};

use guest_protocol::{MOUNT, Pattern, Reply};

use crate::commands::Outcome;
use crate::sys;

const PAGE: u64 = 4096;

/// Turns an error of the system call `call` into a reply.
pub fn errno(call: &'static str) -> impl FnOnce(io::Error) -> Reply {
    move |error| match error.raw_os_error() {
        Some(errno) => Reply::Errno { call: call.into(), errno },
        None => Reply::Bad { why: format!("{call}: {error}") },
    }
}

/// The path in the guest.
pub fn full(path: &str) -> PathBuf {
    Path::new(MOUNT).join(path.trim_start_matches('/'))
}

pub fn mkdir(path: &str) -> Outcome {
    fs::create_dir(full(path)).map_err(errno("mkdir"))
}

pub fn create(path: &str, size: Option<u64>) -> Outcome {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(full(path));
    let file = file.map_err(errno("open"))?;
    size.map_or(Ok(()), |size| file.set_len(size).map_err(errno("ftruncate")))
}

/// One system call, as far as the kernel takes it.
pub fn write(path: &str, at: Option<u64>, len: u64, pattern: Pattern) -> Outcome {
    let mut options = OpenOptions::new();
    let mut file = if at.is_some() { options.write(true) } else { options.append(true) }
        .open(full(path))
        .map_err(errno("open"))?;
    let offset = match at {
        Some(at) => at,
        None => file.metadata().map_err(errno("fstat"))?.len(),
    };
    let mut bytes = Vec::new();
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(len).map_err(|_| Reply::Errno { call: "malloc".into(), errno: libc::ENOMEM })?;
    bytes.resize(len, 0);
    pattern.fill(offset, &mut bytes);
    match at {
        Some(at) => file.write_all_at(&bytes, at).map_err(errno("pwrite")),
        None => file.write_all(&bytes).map_err(errno("write")),
    }
}

/// Reads page by page: a system call that reads a part before an error says nothing of the error.
pub fn read(path: &str, at: u64, len: u64) -> Outcome {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOATIME)
        .open(full(path))
        .map_err(errno("open"))?;
    let mut page = [0; PAGE as usize];
    let (mut at, end) = (at, at.saturating_add(len));
    while at < end {
        let piece = (end - at).min(PAGE - at % PAGE);
        file.read_exact_at(&mut page[..piece as usize], at).map_err(errno("pread"))?;
        at += piece;
    }
    Ok(())
}

pub fn truncate(path: &str, size: u64) -> Outcome {
    let file = OpenOptions::new().write(true).open(full(path)).map_err(errno("open"))?;
    file.set_len(size).map_err(errno("ftruncate"))
}

pub fn fallocate(path: &str, mode: i32, at: u64, len: u64) -> Outcome {
    let file = OpenOptions::new().write(true).open(full(path)).map_err(errno("open"))?;
    let (at, len) = (i64::try_from(at), i64::try_from(len));
    let (Ok(at), Ok(len)) = (at, len) else {
        return Err(Reply::Bad { why: "offset or length too large".into() });
    };
    sys::fallocate(&file, mode, at, len).map_err(errno("fallocate"))
}

pub fn rename(from: &str, to: &str) -> Outcome {
    fs::rename(full(from), full(to)).map_err(errno("rename"))
}

pub fn link(from: &str, to: &str) -> Outcome {
    fs::hard_link(full(from), full(to)).map_err(errno("link"))
}

pub fn symlink(target: &str, path: &str) -> Outcome {
    make_symlink(target, full(path)).map_err(errno("symlink"))
}

pub fn unlink(path: &str) -> Outcome {
    let path = full(path);
    match fs::symlink_metadata(&path) {
        Ok(data) if data.is_dir() => fs::remove_dir(path).map_err(errno("rmdir")),
        _ => fs::remove_file(path).map_err(errno("unlink")),
    }
}

pub fn set_xattr(path: &str, name: &str, value: &[u8]) -> Outcome {
    sys::set_xattr(&full(path), name, value).map_err(errno("setxattr"))
}

pub fn remove_xattr(path: &str, name: &str) -> Outcome {
    sys::remove_xattr(&full(path), name).map_err(errno("removexattr"))
}

pub fn fsync(path: &str) -> Outcome {
    File::open(full(path)).map_err(errno("open"))?.sync_all().map_err(errno("fsync"))
}

pub fn fdatasync(path: &str) -> Outcome {
    File::open(full(path)).map_err(errno("open"))?.sync_data().map_err(errno("fdatasync"))
}

pub fn syncfs() -> Outcome {
    let directory = File::open(MOUNT).map_err(errno("open"))?;
    sys::syncfs(&directory).map_err(errno("syncfs"))
}
