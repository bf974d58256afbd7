//! Checking file systems by their own checkers: many variants of one image, one after the other.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use crate::apt::Package;
use crate::btt::Media;
use crate::cache::Cache;
use crate::device::{Device, View};
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
    device: Device,
    /// The device's content.
    file: File,
    /// Where e2fsck writes what it reads.
    log: Option<File>,
}

/// What the checker is asked about, as it lies in the region: offset, bytes.
type Changes<'a> = Vec<(u64, &'a [u8])>;

impl Checker {
    /// `base` is a region's content; its file system is on this device of it.
    ///
    /// # Errors
    /// What fetching its programs can meet; [`Error::Io`], [`Error::DiskFull`] for the file (in /dev/shm when there is
    /// one); [`Error::BadImage`] when the device lies outside.
    pub fn new(
        cache: &Cache,
        kind: FilesystemKind,
        base: std::sync::Arc<[u8]>,
        device: Device,
    ) -> Result<Checker> {
        let tools = Tools::get(cache, kind)?;
        let extent = device.extent();
        let Some(content) = base.get(extent.start as usize..extent.end as usize) else {
            return Err(Error::BadImage { why: format!("the file system cannot be at {extent:#x?}") });
        };
        let memory = Path::new("/dev/shm");
        let scratch = cache.root().join("tmp");
        crate::cache::create_dir(&scratch)?;
        let in_memory = tempfile::tempfile_in(memory).ok();
        let file = in_memory.map_or_else(|| tempfile::tempfile_in(&scratch), Ok);
        let mut file = file.map_err(Error::io("write", &scratch))?;
        file.write_all(content).map_err(Error::io("write", &scratch))?;
        Ok(Checker { tools, base, device, file, log: None })
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
        let changes = self.inside(changes)?;
        let base = std::sync::Arc::clone(&self.base);
        match self.device.view(&Media { base: &base, changes: &changes }) {
            Err(why) => Ok(unreadable(why)),
            Ok(view) => self.check_view(&view, |tools, file| tools.check(file, None)),
        }
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
        let changes = self.inside(changes)?;
        let base = std::sync::Arc::clone(&self.base);
        let view = match self.device.view(&Media { base: &base, changes: &changes }) {
            Err(why) => return Ok((unreadable(why), self.device.read_for_view())),
            Ok(view) => view,
        };
        let (fsck, ranges) = match &self.tools {
            Tools::Ext4(_) => self.check_and_log(&view)?,
            Tools::Xfs(_) => self.check_view(&view, |tools, file| tools.check_traced(file))?,
        };
        let everything = 0..self.base.len() as u64;
        let places = ranges.map_or_else(|| vec![everything], |ranges| self.device.places(&view, &ranges));
        Ok((fsck, places))
    }

    /// Whether this host lets it be known what the checker reads: xfs_repair is followed by ptrace(2), which containers
    /// may forbid.
    pub fn tells_reads(kind: FilesystemKind) -> bool {
        kind == FilesystemKind::Ext4 || traced::is_allowed()
    }

    /// Has e2fsck write a log of what it reads.
    fn check_and_log(&mut self, view: &View) -> Result<(Fsck, Reads)> {
        let place = Path::new("the log of e2fsck");
        let mut log =
            self.log.take().map_or_else(tempfile::tempfile, Ok).map_err(Error::io("write", place))?;
        log.set_len(0).map_err(Error::io("write", place))?;
        let fsck = self.check_view(view, |tools, file| tools.check(file, Some(&log)))?;
        let mut said = String::new();
        let read = log.seek(SeekFrom::Start(0)).and_then(|_| log.read_to_string(&mut said));
        read.map_err(Error::io("read", place))?;
        self.log = Some(log);
        Ok((fsck, reads(&said)))
    }

    fn inside<'a>(&self, changes: impl Iterator<Item = (u64, &'a [u8])>) -> Result<Changes<'a>> {
        let changes: Changes = changes.collect();
        let size = self.base.len() as u64;
        let end = |(at, bytes): &(u64, &[u8])| at.checked_add(bytes.len() as u64);
        match changes.iter().find(|change| end(change).is_none_or(|end| end > size)) {
            None => Ok(changes),
            Some((at, _)) => {
                Err(Error::BadImage { why: format!("a change at {at:#x} lies outside of the region") })
            }
        }
    }

    fn check_view<R>(&mut self, view: &View, look: impl FnOnce(&Tools, &File) -> Result<R>) -> Result<R> {
        let written = view.changed.iter().try_for_each(|(offset, bytes)| self.write(*offset, bytes));
        let result = written.and_then(|()| look(&self.tools, &self.file));
        let (base, start) = (std::sync::Arc::clone(&self.base), self.device.extent().start);
        for (offset, bytes) in &view.changed {
            let at = (start + offset) as usize;
            self.write(*offset, &base[at..at + bytes.len()])?;
        }
        result
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.write_all(bytes));
        written.map_err(Error::io("write", Path::new("the image for the checker")))
    }
}

/// Of a device that cannot be read, no file system can be.
fn unreadable(why: String) -> Fsck {
    Fsck { command: "reading the namespace", clean: false, code: 1, output: why }
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
