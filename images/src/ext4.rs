//! Making and checking ext4 with Debian's e2fsprogs from the cache, run by its own dynamic loader and libraries:
//! never the host's, whose version is not ours to choose.

use std::fs::{self, File};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::apt::Package;
use crate::cache::Cache;
use crate::check::Fsck;
use crate::error::{Error, Result};
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

    /// Makes a file system in these bytes of `file`. `arguments` are options of mke2fs.
    pub(crate) fn make(&self, file: &Path, place: Range<u64>, arguments: &[String]) -> Result<()> {
        let (offset, size) = (place.start, place.end - place.start);
        let (mut extended, others) = split_extended(arguments)?;
        let fixed = format!(
            "nodiscard,lazy_itable_init=0,lazy_journal_init=0,hash_seed={HASH_SEED},root_owner=0:0,offset={offset}"
        );
        extended.insert(0, fixed);
        let mut mke2fs = self.command("mke2fs");
        mke2fs.env("MKE2FS_CONFIG", self.root.join("etc/mke2fs.conf"));
        mke2fs.env("E2FSPROGS_FAKE_TIME", TIME).env("MKE2FS_SKIP_CHECK_MSG", "1");
        mke2fs.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-U", UUID]).args(&others);
        mke2fs.arg("-E").arg(extended.join(",")).arg(file).arg(format!("{}k", size / 1024));
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
    pub(crate) fn check(&self, file: &File, log: Option<&File>) -> Result<Fsck> {
        let mut e2fsck = self.command("e2fsck");
        if let Some(log) = log {
            // lib/ext2fs/test_io.c: 1 for reads, 4 for changes of the block size.
            let path = format!("/proc/{}/fd/{}", std::process::id(), log.as_raw_fd());
            e2fsck.env("TEST_IO_FLAGS", "5").env("TEST_IO_LOGFILE", path);
        }
        e2fsck.env("E2FSCK_CONFIG", &self.config);
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let output = run_in(e2fsck.arg("-fn").arg(&path))?;
        let Some(code) = output.status.code() else {
            let detail = format!("ended by signal {}", output.status.signal().unwrap_or_default());
            return Err(Error::Tool { tool: "e2fsck".into(), detail });
        };
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said += &String::from_utf8_lossy(&output.stderr);
        let said = said.replace(&path, "image");
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
