//! Checking file systems by their own checkers: many variants of one image, one after the other.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use crate::apt::Package;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::filesystem::{FilesystemKind, Tools};
use crate::traced::{self, Reads};

/// What the file system's checker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fsck {
    /// The checker: `e2fsck -fn` or `xfs_repair -n`.
    pub command: &'static str,
    /// Nothing is wrong (exit code 0).
    pub clean: bool,
    /// Exit code. e2fsck(8): 4 errors are left, 8 it could not do its work (no superblock, say). xfs_repair(8): 1
    /// damage, which also is a log that was not replayed.
    pub code: i32,
    /// What it printed; the file is called `image`.
    pub output: String,
}

/// The ranges of the file system that a log of e2fsprogs' test_io names as read: whole blocks, or bytes where the
/// count is negative. `None` when it names none: then the log is not there, and anything may have been read.
fn reads(log: &str) -> Reads {
    let mut block_size = 1024;
    let mut ranges = Vec::new();
    for line in log.lines().filter_map(|line| line.strip_prefix("Test_io: ")) {
        let (call, rest) = line.split_once('(')?;
        let (arguments, _) = rest.split_once(')')?;
        match call {
            "set_blksize" => block_size = arguments.parse().ok()?,
            "read_blk" | "read_blk64" => {
                let (block, count) = arguments.split_once(", ")?;
                let (block, count): (u64, i64) = (block.parse().ok()?, count.parse().ok()?);
                let len = if count < 0 { count.unsigned_abs() } else { count.unsigned_abs() * block_size };
                ranges.push(block * block_size..block * block_size + len);
            }
            _ => (),
        }
    }
    (!ranges.is_empty()).then_some(ranges)
}

/// Checks many variants of one image: what differs from it is written, checked and put back.
#[derive(Debug)]
pub struct Checker {
    tools: Tools,
    base: std::sync::Arc<[u8]>,
    /// The region from byte `skipped` on.
    file: File,
    skipped: u64,
    offset: u64,
    /// Where e2fsck writes what it reads.
    log: Option<File>,
}

impl Checker {
    /// `base` is a region's content; its file system begins at `offset`.
    ///
    /// # Errors
    /// What fetching its programs can meet; [`Error::Io`], [`Error::DiskFull`] for the file (in /dev/shm when there is
    /// one); [`Error::BadImage`] when `offset` lies outside.
    pub fn new(
        cache: &Cache,
        kind: FilesystemKind,
        base: std::sync::Arc<[u8]>,
        offset: u64,
    ) -> Result<Checker> {
        let tools = Tools::get(cache, kind)?;
        let skipped = if tools.wants_file_system_alone() { offset } else { 0 };
        let Some(content) = usize::try_from(skipped).ok().and_then(|skipped| base.get(skipped..)) else {
            return Err(Error::BadImage { why: format!("the file system cannot begin at {offset:#x}") });
        };
        let memory = Path::new("/dev/shm");
        let scratch = cache.root().join("tmp");
        crate::cache::create_dir(&scratch)?;
        let in_memory = tempfile::tempfile_in(memory).ok();
        let file = in_memory.map_or_else(|| tempfile::tempfile_in(&scratch), Ok);
        let mut file = file.map_err(Error::io("write", &scratch))?;
        file.write_all(content).map_err(Error::io("write", &scratch))?;
        Ok(Checker { tools, base, file, skipped, offset, log: None })
    }

    /// The package that the checker comes from.
    pub fn package(&self) -> &Package {
        self.tools.package()
    }

    /// Checks the base with `changes` (offset in the region, bytes) applied in order.
    ///
    /// # Errors
    /// [`Error::BadImage`] when a change lies outside, [`Error::Tool`] when the checker did not get to an end (killed, say):
    /// nothing is known about the image then.
    pub fn check<'a>(&mut self, changes: impl Iterator<Item = (u64, &'a [u8])>) -> Result<Fsck> {
        let offset = self.offset - self.skipped;
        self.check_with(changes, |tools, file| tools.check(file, offset, None))
    }

    /// As [`Checker::check`], and tells which ranges of the region the checker has read: what it says would be the same
    /// whatever stood elsewhere. Where that cannot be known ([`Checker::tells_reads`]), it is everything.
    ///
    /// # Errors
    /// Those of [`Checker::check`].
    pub fn check_and_tell<'a>(
        &mut self,
        changes: impl Iterator<Item = (u64, &'a [u8])>,
    ) -> Result<(Fsck, Vec<Range<u64>>)> {
        let (fsck, ranges) = match &self.tools {
            Tools::Ext4(_) => self.check_and_log(changes)?,
            Tools::Xfs(_) => self.check_with(changes, |tools, file| tools.check_traced(file))?,
        };
        let everything = 0..self.base.len() as u64;
        let ranges = ranges.unwrap_or_else(|| vec![everything]);
        let in_region = |range: Range<u64>| {
            range.start.saturating_add(self.offset)..range.end.saturating_add(self.offset)
        };
        Ok((fsck, ranges.into_iter().map(in_region).collect()))
    }

    /// Whether this host lets it be known what the checker reads: xfs_repair is followed by ptrace(2), which containers
    /// may forbid.
    pub fn tells_reads(kind: FilesystemKind) -> bool {
        kind == FilesystemKind::Ext4 || traced::is_allowed()
    }

    /// Has e2fsck write a log of what it reads.
    fn check_and_log<'a>(&mut self, changes: impl Iterator<Item = (u64, &'a [u8])>) -> Result<(Fsck, Reads)> {
        let place = Path::new("the log of e2fsck");
        let mut log =
            self.log.take().map_or_else(tempfile::tempfile, Ok).map_err(Error::io("write", place))?;
        log.set_len(0).map_err(Error::io("write", place))?;
        let offset = self.offset - self.skipped;
        let fsck = self.check_with(changes, |tools, file| tools.check(file, offset, Some(&log)))?;
        let mut said = String::new();
        let read = log.seek(SeekFrom::Start(0)).and_then(|_| log.read_to_string(&mut said));
        read.map_err(Error::io("read", place))?;
        self.log = Some(log);
        Ok((fsck, reads(&said)))
    }

    fn check_with<'a, R>(
        &mut self,
        changes: impl Iterator<Item = (u64, &'a [u8])>,
        look: impl FnOnce(&Tools, &File) -> Result<R>,
    ) -> Result<R> {
        let mut changed = Vec::new();
        let mut result = Ok(());
        for (offset, bytes) in changes {
            let end = usize::try_from(offset).ok().and_then(|start| start.checked_add(bytes.len()));
            if end.is_none_or(|end| end > self.base.len()) {
                result = Err(Error::BadImage {
                    why: format!("a change at {offset:#x} lies outside of the region"),
                });
                break;
            }
            changed.push((offset, bytes.len()));
            result = self.write(offset, bytes);
            if result.is_err() {
                break;
            }
        }
        let result = result.and_then(|()| look(&self.tools, &self.file));
        for (offset, length) in changed {
            let base = std::sync::Arc::clone(&self.base);
            self.write(offset, &base[offset as usize..offset as usize + length])?;
        }
        result
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        // What lies in front of the file system is not in the file.
        let outside = self.skipped.saturating_sub(offset).min(bytes.len() as u64);
        let place = SeekFrom::Start((offset + outside).saturating_sub(self.skipped));
        let written = self.file.seek(place).and_then(|_| self.file.write_all(&bytes[outside as usize..]));
        written.map_err(Error::io("write", Path::new("the image for the checker")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_reads_gives_ranges() {
        let log = "Test_io: set_blksize(1024) returned OK\nTest_io: read_blk(1, -1024) returned OK\n\
                   Test_io: set_blksize(4096) returned OK\nTest_io: read_blk64(35, 2) returned OK\n";
        assert_eq!(reads(log), Some(vec![1024..2048, 35 * 4096..37 * 4096]));
        assert_eq!(reads(""), None);
        assert_eq!(reads("Test_io: read_blk64(35, 2"), None);
    }
}
