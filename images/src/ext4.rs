//! Making and checking ext4 with Debian's e2fsprogs from the cache, run by its own dynamic loader and libraries:
//! never the host's, whose version is not ours to choose.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::apt::Package;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::filesystem::{self, FilesystemKind};
use crate::programs::{self, Programs};

/// 2024-01-01 00:00:00 UTC: every time stamp that mke2fs writes.
const TIME: &str = "1704067200";
const UUID: &str = "706d656d-7369-4d00-8000-000000000001";
const HASH_SEED: &str = "706d656d-7369-4d00-8000-000000000002";

/// e2fsck.conf(5): clocks of guest and host have nothing to do with each other.
const CONFIG: &str = "[options]\nbroken_system_clock = true\n";

/// Debian's e2fsprogs, ready to run.
#[derive(Debug)]
pub(crate) struct Tools {
    root: PathBuf,
    config: PathBuf,
    pub package: Package,
}

impl Tools {
    pub(crate) fn get(cache: &Cache) -> Result<Tools> {
        let programs = Programs::get(cache, "e2fsprogs")?;
        let config = cache.root().join("e2fsck.conf");
        if fs::read(&config).ok().as_deref() != Some(CONFIG.as_bytes()) {
            cache.write(&config, CONFIG.as_bytes())?;
        }
        Ok(Tools { root: programs.tree.root().to_path_buf(), config, package: programs.package })
    }

    fn command(&self, program: &str) -> Command {
        programs::command(&self.root, program)
    }

    /// Makes a file system in `file` from byte `offset` to its end. `arguments` are options of mke2fs.
    pub(crate) fn make(&self, file: &Path, offset: u64, arguments: &[String]) -> Result<()> {
        let size = fs::metadata(file).map_err(Error::io("look at", file))?.len();
        let (mut extended, others) = split_extended(arguments)?;
        let fixed = format!(
            "nodiscard,lazy_itable_init=0,lazy_journal_init=0,hash_seed={HASH_SEED},root_owner=0:0,offset={offset}"
        );
        extended.insert(0, fixed);
        let mut mke2fs = self.command("mke2fs");
        mke2fs.env("MKE2FS_CONFIG", self.root.join("etc/mke2fs.conf"));
        mke2fs.env("E2FSPROGS_FAKE_TIME", TIME).env("MKE2FS_SKIP_CHECK_MSG", "1");
        mke2fs.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-U", UUID]).args(&others);
        mke2fs.arg("-E").arg(extended.join(",")).arg(file).arg(format!("{}k", (size - offset) / 1024));
        let output = run(mke2fs)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.replace(&*file.to_string_lossy(), "the image");
        if said.contains("No space left") {
            return Err(Error::DiskFull { path: file.into() });
        }
        Err(Error::BadImage { why: format!("mke2fs {} failed: {}", arguments.join(" "), said.trim()) })
    }

    /// With `log`, e2fsck writes there which blocks it reads ([`reads`]).
    pub(crate) fn check(&self, file: &File, offset: u64, log: Option<&File>) -> Result<Fsck> {
        let mut e2fsck = self.command("e2fsck");
        if let Some(log) = log {
            // lib/ext2fs/test_io.c: 1 for reads, 4 for changes of the block size.
            let path = format!("/proc/{}/fd/{}", std::process::id(), log.as_raw_fd());
            e2fsck.env("TEST_IO_FLAGS", "5").env("TEST_IO_LOGFILE", path);
        }
        e2fsck.env("E2FSCK_CONFIG", &self.config);
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let output = run_in(e2fsck.arg("-fn").arg(format!("{path}?offset={offset}")))?;
        let Some(code) = output.status.code() else {
            let detail = format!("ended by signal {}", output.status.signal().unwrap_or_default());
            return Err(Error::Tool { tool: "e2fsck".into(), detail });
        };
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said += &String::from_utf8_lossy(&output.stderr);
        let said = said.replace(&format!("{path}?offset={offset}"), "image").replace(&path, "image");
        if code == 127 || said.contains("error while loading shared libraries") {
            return Err(Error::Tool { tool: "e2fsck".into(), detail: said });
        }
        Ok(Fsck { command: "e2fsck -fn", clean: code == 0, code, output: said })
    }
}

fn run(mut command: Command) -> Result<Output> {
    run_in(&mut command)
}

fn run_in(command: &mut Command) -> Result<Output> {
    command.output().map_err(|error| Error::Tool { tool: "e2fsprogs".into(), detail: error.to_string() })
}

/// The values of all -E options (mke2fs only heeds the last) and the other arguments.
fn split_extended(arguments: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let (mut extended, mut others) = (Vec::new(), Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix("-E") {
            Some("") => {
                let missing = || Error::BadImage { why: "mkfs: -E needs a value".into() };
                extended.push(rest.next().ok_or_else(missing)?.clone());
            }
            Some(value) => extended.push(value.to_string()),
            None => others.push(argument.clone()),
        }
    }
    Ok((extended, others))
}

/// Refuses options of mke2fs that would undo what the image depends on: block size, place, identity, that anything is
/// written at all.
pub(crate) fn check_options(arguments: &[String]) -> Result<()> {
    let (extended, others) = split_extended(arguments)?;
    let ours =
        |argument: &&String| ["-b", "-n", "-S", "-U", "-z"].iter().any(|option| argument.starts_with(option));
    let place = |value: &&String| value.split(',').any(|part| part.trim_start().starts_with("offset"));
    match others.iter().find(ours).or_else(|| extended.iter().find(place)) {
        None => Ok(()),
        Some(option) => {
            let why = format!(
                "mkfs: {option} is not yours to give: blocks have 4096 bytes, and place and UUID are fixed; leave it out"
            );
            Err(Error::BadImage { why })
        }
    }
}

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
/// count is negative. `None` when it names none: then the log is not there.
fn reads(log: &str) -> Option<Vec<Range<u64>>> {
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
    tools: filesystem::Tools,
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
        let tools = filesystem::Tools::get(cache, kind)?;
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
        self.check_with(changes, None)
    }

    /// As [`Checker::check`], and tells which ranges of the region the checker has read: what it says would be the same
    /// whatever stood elsewhere. Of XFS that is everything, as far as is known.
    ///
    /// # Errors
    /// Those of [`Checker::check`].
    pub fn check_and_tell<'a>(
        &mut self,
        changes: impl Iterator<Item = (u64, &'a [u8])>,
    ) -> Result<(Fsck, Vec<Range<u64>>)> {
        let place = Path::new("the log of e2fsck");
        let mut log =
            self.log.take().map_or_else(tempfile::tempfile, Ok).map_err(Error::io("write", place))?;
        log.set_len(0).map_err(Error::io("write", place))?;
        let fsck = self.check_with(changes, Some(&log))?;
        let mut said = String::new();
        let read = log.seek(SeekFrom::Start(0)).and_then(|_| log.read_to_string(&mut said));
        read.map_err(Error::io("read", place))?;
        self.log = Some(log);
        // Without a log, anything may have been read.
        let everything = 0..self.base.len() as u64;
        let ranges = reads(&said).unwrap_or_else(|| vec![everything]);
        let in_region = |range: Range<u64>| {
            range.start.saturating_add(self.offset)..range.end.saturating_add(self.offset)
        };
        Ok((fsck, ranges.into_iter().map(in_region).collect()))
    }

    fn check_with<'a>(
        &mut self,
        changes: impl Iterator<Item = (u64, &'a [u8])>,
        log: Option<&File>,
    ) -> Result<Fsck> {
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
        let result = result.and_then(|()| self.tools.check(&self.file, self.offset - self.skipped, log));
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
    fn all_extended_options_are_heard() {
        let arguments = ["-E", "stride=512", "-I", "256", "-Estripe_width=512"].map(String::from);
        let (extended, others) = split_extended(&arguments).unwrap();
        assert_eq!(extended, ["stride=512", "stripe_width=512"]);
        assert_eq!(others, ["-I", "256"]);
        assert!(split_extended(&["-E".to_string()]).is_err());
    }

    #[test]
    fn a_log_of_reads_gives_ranges() {
        let log = "Test_io: set_blksize(1024) returned OK\nTest_io: read_blk(1, -1024) returned OK\n\
                   Test_io: set_blksize(4096) returned OK\nTest_io: read_blk64(35, 2) returned OK\n";
        assert_eq!(reads(log), Some(vec![1024..2048, 35 * 4096..37 * 4096]));
        assert_eq!(reads(""), None);
        assert_eq!(reads("Test_io: read_blk64(35, 2"), None);
    }

    #[test]
    fn options_that_would_break_the_image_are_refused() {
        let text = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        for arguments in
            [&["-b", "1024"][..], &["-b1024"], &["-n"], &["-z", "x"], &["-E", "stride=4,offset=0"]]
        {
            assert!(check_options(&text(arguments)).is_err(), "{arguments:?}");
        }
        assert!(check_options(&text(&["-E", "stride=512", "-I", "256", "-N", "10"])).is_ok());
    }
}
