//! Making and checking XFS with Debian's xfsprogs from the cache, run as e2fsprogs are: never the host's.
//!
//! With a fixed UUID two runs of mkfs.xfs 6.1 differ in nothing but the times of the inodes that it makes (its random
//! numbers are not seeded). It has no option for these, so they are put right afterwards.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crc::{CRC_32_ISCSI, Crc};

use crate::apt::Package;
use crate::cache::Cache;
use crate::check::Fsck;
use crate::error::{Error, Result};
use crate::programs::{self, Programs};
use crate::traced::{self, Reads};

const UUID: &str = "706d656d-7369-4d00-8000-000000000001";
/// 2024-01-01 00:00:00 UTC: every time stamp in an image.
const TIME: u64 = 1_704_067_200;
/// Below this mkfs.xfs says that the file system is not supported, unless it is told that this is known.
const SUPPORTED: u64 = 300 << 20;
/// The smallest that mkfs.xfs 6.1 makes.
const SMALLEST: u64 = 16 << 20;

/// Debian's xfsprogs, ready to run. Only the two programs: the others want Python and ICU.
#[derive(Debug)]
pub(crate) struct Tools {
    mkfs: PathBuf,
    repair: PathBuf,
    pub package: Package,
}

impl Tools {
    pub(crate) fn get(cache: &Cache) -> Result<Tools> {
        let mkfs = Programs::get(cache, "xfsprogs/mkfs.xfs")?;
        let repair = Programs::get(cache, "xfsprogs/xfs_repair")?;
        let root = |programs: &Programs| programs.tree.root().to_path_buf();
        Ok(Tools { mkfs: root(&mkfs), repair: root(&repair), package: mkfs.package })
    }

    /// Makes a file system in these bytes of `file`, for a device with sectors of `sector` bytes. `arguments` are
    /// options of mkfs.xfs.
    pub(crate) fn make(
        &self,
        file: &Path,
        place: Range<u64>,
        sector: u32,
        arguments: &[String],
    ) -> Result<()> {
        let mut region = fs::read(file).map_err(Error::io("read", file))?;
        let device = region.get_mut(place.start as usize..place.end as usize).unwrap_or_default();
        if (device.len() as u64) < SMALLEST {
            let why = format!("XFS needs {SMALLEST} bytes of a region, not {}", device.len());
            return Err(Error::BadImage { why });
        }
        // mkfs.xfs cannot be told where in a file to begin.
        let alone = file.with_extension("xfs");
        fs::write(&alone, &*device).map_err(Error::io("write", &alone))?;
        self.make_whole(&alone, device.len() as u64, sector, arguments)?;
        let mut made = File::open(&alone).map_err(Error::io("read", &alone))?;
        made.read_exact(device).map_err(Error::io("read", &alone))?;
        fs::remove_file(&alone).map_err(Error::io("remove", &alone))?;
        fix_times(device)?;
        fs::write(file, &region).map_err(Error::io("write", file))
    }

    fn make_whole(&self, file: &Path, size: u64, sector: u32, arguments: &[String]) -> Result<()> {
        let mut mkfs = programs::command(&self.mkfs, "mkfs.xfs");
        // Without discarding, what stood there stays, as on a device that was used before.
        mkfs.args(["-q", "-f", "-K", "-b", "size=4096", "-m"]).arg(format!("uuid={UUID}"));
        // A file says nothing of sectors, and XFS does not mount where they are larger than it was told.
        if sector > 512 {
            mkfs.arg("-s").arg(format!("size={sector}"));
        }
        if size < SUPPORTED {
            mkfs.arg("--unsupported");
        }
        let output = run(mkfs.args(arguments).arg(file))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).replace(&*file.to_string_lossy(), "the image");
        if said.contains("No space left") {
            return Err(Error::DiskFull { path: file.into() });
        }
        // What follows is the list of all options.
        let said = said.split("Usage:").next().unwrap_or_default().trim();
        Err(Error::BadImage { why: format!("mkfs.xfs {} failed: {said}", arguments.join(" ")) })
    }

    /// Looks at the file system that begins where `file` does. When it is `followed`, tells what was read, too.
    pub(crate) fn check(&self, mut file: &File, followed: bool) -> Result<(Fsck, Reads)> {
        let mut superblock = [0; 92];
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut superblock));
        read.map_err(Error::io("read", Path::new("the image for the checker")))?;
        // There is no second superblock to compare the only one with.
        let alone = is_superblock(&superblock) && word(&superblock, AGCOUNT) == 1;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let repair = || {
            let mut repair = programs::command(&self.repair, "xfs_repair");
            // Without prefetching it goes through the groups one after the other, and says what it finds in one order.
            repair.args(["-n", "-P", "-f"]);
            if alone {
                repair.args(["-o", "force_geometry"]);
            }
            repair.arg(&path);
            repair
        };
        // Where it cannot be followed, anything may have been read.
        let told = if followed { traced::run(&mut repair(), file).ok() } else { None };
        let (output, mut reads) = match told {
            Some(told) => told,
            None => (run(&mut repair())?, None),
        };
        reads.iter_mut().for_each(|reads| reads.push(0..superblock.len() as u64));
        let failed = |detail: String| Err(Error::Tool { tool: "xfs_repair".into(), detail });
        let Some(code) = output.status.code() else {
            return failed(format!("ended by signal {}", output.status.signal().unwrap_or_default()));
        };
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let said = said.replace(&path, "image");
        let loader = said.contains("error while loading shared libraries");
        if code == 127 || loader || HOST_TROUBLE.iter().any(|trouble| said.contains(trouble)) {
            return failed(said);
        }
        let fsck = Fsck { command: "xfs_repair -n", clean: code == 0, code, output: complaints(&said) };
        Ok((fsck, reads))
    }
}

/// What xfs_repair says when the host has no memory or threads left; it ends with 1 then, as when it finds damage.
const HOST_TROUBLE: [&str; 6] = [
    "malloc",
    "memalign",
    "cannot alloc",
    "out of memory",
    "couldn't initialize XFS library",
    "worker thread",
];

/// The lines that are about damage, not about how far it has come and when.
fn complaints(said: &str) -> String {
    let progress = [
        "Phase ",
        "        - ",
        "No modify flag set",
        "Cannot get host filesystem geometry",
        "Repair may fail if there is a sector size mismatch",
        "the image and the host filesystem",
    ];
    let lines = said.lines().filter(|line| !progress.iter().any(|start| line.starts_with(start)));
    lines.map(without_address).collect::<Vec<_>>().join("\n")
}

/// `Metadata CRC error detected at 0x7f5672595f80, xfs_agf block 0x1/0x200` without the address of the code, which is
/// another in every run.
fn without_address(line: &str) -> String {
    match line.split_once(" detected at 0x").and_then(|(what, rest)| Some((what, rest.split_once(", ")?.1))) {
        Some((what, rest)) => format!("{what} detected, {rest}"),
        None => line.to_owned(),
    }
}

fn run(command: &mut Command) -> Result<Output> {
    command.output().map_err(|error| Error::Tool { tool: "xfsprogs".into(), detail: error.to_string() })
}

/// Refuses options of mkfs.xfs that would undo what the image depends on: block size, place, identity, checksums, other
/// devices and files, that anything is written at all.
pub(crate) fn check_options(arguments: &[String]) -> Result<()> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut letters = argument.chars();
        let section = match (letters.next(), letters.next()) {
            (Some('-'), Some(letter @ ('d' | 'i' | 'l' | 'L' | 'm' | 'n' | 's'))) => letter,
            _ => return Err(refused(argument)),
        };
        let missing = || Error::BadImage { why: format!("mkfs: {argument} needs a value") };
        let value = match &argument[2..] {
            "" => rest.next().ok_or_else(missing)?,
            value => value,
        };
        let ours: &[&str] = match section {
            'd' => &["name", "file", "size"],
            'l' => &["name", "logdev", "file", "internal"],
            'm' => &["uuid", "crc"],
            _ => &[],
        };
        let name = |part: &str| part.split('=').next().unwrap_or_default().trim().to_owned();
        if section != 'L' && value.split(',').any(|part| ours.contains(&&*name(part))) {
            return Err(refused(&format!("-{section} {value}")));
        }
    }
    Ok(())
}

fn refused(option: &str) -> Error {
    let why = format!(
        "mkfs: {option} is not yours to give: blocks have 4096 bytes, the log is inside, and place and UUID are fixed; \
         leave it out"
    );
    Error::BadImage { why }
}

/// Offsets of `struct xfs_dsb`, whose numbers are big-endian (fs/xfs/libxfs/xfs_format.h).
const AGCOUNT: usize = 88;
const INODE_SIZE: usize = 104;

fn is_superblock(bytes: &[u8]) -> bool {
    bytes.starts_with(b"XFSB")
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Offsets of `struct xfs_dinode`, version 3.
const VERSION: usize = 4;
const ACCESSED: usize = 32;
const MODIFIED: usize = 40;
const CHANGED: usize = 48;
const CHECKSUM: usize = 100;
const FLAGS2: usize = 120;
const CREATED: usize = 144;
/// XFS_DIFLAG2_BIGTIME: times are nanoseconds since the smallest that 32 bits of seconds can say.
const BIGTIME: u64 = 1 << 3;

/// Gives all inodes that have times the same times.
fn fix_times(device: &mut [u8]) -> Result<()> {
    let bad = |why: &str| Error::BadImage { why: format!("mkfs.xfs made something unexpected: {why}") };
    if device.len() < 512 || !is_superblock(device) {
        return Err(bad("there is no superblock"));
    }
    let size = usize::from(u16::from_be_bytes([device[INODE_SIZE], device[INODE_SIZE + 1]]));
    if !(256..=4096).contains(&size) {
        return Err(bad("the size of inodes"));
    }
    let inodes = device.chunks_exact_mut(size).filter(|chunk| is_inode(chunk));
    match inodes.map(fix_times_of).count() {
        0 => Err(bad("there are no inodes")),
        _ => Ok(()),
    }
}

/// An inode, or a free one: magic number, version and checksum are right.
fn is_inode(chunk: &[u8]) -> bool {
    chunk.starts_with(b"IN") && chunk[VERSION] == 3 && chunk[CHECKSUM..CHECKSUM + 4] == checksum(chunk)
}

/// CRC32C with zeroes where the checksum stands, little-endian (fs/xfs/libxfs/xfs_cksum.h).
fn checksum(inode: &[u8]) -> [u8; 4] {
    const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    let mut digest = CASTAGNOLI.digest();
    digest.update(&inode[..CHECKSUM]);
    digest.update(&[0; 4]);
    digest.update(&inode[CHECKSUM + 4..]);
    digest.finalize().to_le_bytes()
}

fn fix_times_of(inode: &mut [u8]) {
    let flags = u64::from_be_bytes(inode[FLAGS2..FLAGS2 + 8].try_into().expect("eight bytes"));
    let time = if flags & BIGTIME != 0 { (TIME + (1 << 31)) * 1_000_000_000 } else { TIME << 32 };
    for at in [ACCESSED, MODIFIED, CHANGED, CREATED] {
        let stamp = &mut inode[at..at + 8];
        if stamp.iter().any(|byte| *byte != 0) {
            stamp.copy_from_slice(&time.to_be_bytes());
        }
    }
    let checksum = checksum(inode);
    inode[CHECKSUM..CHECKSUM + 4].copy_from_slice(&checksum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn options_that_would_break_the_image_are_refused() {
        for arguments in [
            &["-b", "size=1024"][..],
            &["-bsize=1024"],
            &["-N"],
            &["-p", "/etc/passwd"],
            &["-c", "options=/x"],
            &["-d", "su=2m,name=/dev/sda"],
            &["-dfile"],
            &["-l", "logdev=/dev/sda"],
            &["-m", "crc=0"],
            &["-muuid=1"],
            &["-r", "rtdev=/dev/sda"],
            &["/dev/sda"],
            &["-d"],
            &[""],
        ] {
            assert!(check_options(&text(arguments)).is_err(), "{arguments:?}");
        }
        let good =
            ["-d", "su=2m,sw=1", "-l", "su=4096", "-m", "reflink=0,rmapbt=1", "-isize=1024", "-Lname=x"];
        assert!(check_options(&text(&good)).is_ok());
    }

    #[test]
    fn only_what_is_about_damage_is_told() {
        let said = "Phase 2 - using internal log\n        - 01:43:51: zeroing log\n\
                    Metadata CRC error detected at 0x7f5672595f80, xfs_agf block 0x1/0x200\nagi unlinked bucket 3 is 5\n\
                    No modify flag set, skipping filesystem flush and exiting.\n";
        let damage = "Metadata CRC error detected, xfs_agf block 0x1/0x200\nagi unlinked bucket 3 is 5";
        assert_eq!(complaints(said), damage);
    }

    /// An inode of 512 bytes with a right checksum.
    fn inode(time: u64, bigtime: bool) -> Vec<u8> {
        let mut inode = vec![0; 512];
        inode[..5].copy_from_slice(b"IN\x41\xed\x03");
        inode[MODIFIED..MODIFIED + 8].copy_from_slice(&time.to_be_bytes());
        inode[FLAGS2 + 7] = if bigtime { 8 } else { 0 };
        let checksum = checksum(&inode);
        inode[CHECKSUM..CHECKSUM + 4].copy_from_slice(&checksum);
        inode
    }

    #[test]
    fn times_become_the_same_and_checksums_stay_right() {
        for bigtime in [false, true] {
            let mut images = [1, 2].map(|time| {
                let mut image = vec![0; 1024];
                image[..4].copy_from_slice(b"XFSB");
                image[INODE_SIZE] = 2;
                image[512..].copy_from_slice(&inode(time, bigtime));
                image
            });
            images.iter_mut().for_each(|image| fix_times(image).unwrap());
            assert!(images[0] == images[1]);
            assert!(is_inode(&images[0][512..]));
            assert_eq!(images[0][512 + ACCESSED..512 + MODIFIED], [0; 8], "no time stays none");
        }
    }

    #[test]
    fn what_only_looks_like_an_inode_stays() {
        let mut image = vec![0; 1024];
        image[..4].copy_from_slice(b"XFSB");
        image[INODE_SIZE] = 2;
        image[512..].copy_from_slice(&inode(7, true));
        image[1000] ^= 1;
        let before = image.clone();
        assert!(fix_times(&mut image).is_err());
        assert!(image == before);
    }

    #[test]
    fn a_regular_checksum_of_castagnoli() {
        // RFC 3720, B.4: 32 bytes of zeroes.
        assert_eq!(Crc::<u32>::new(&CRC_32_ISCSI).checksum(&[0; 32]), 0x8a91_36aa);
    }
}
