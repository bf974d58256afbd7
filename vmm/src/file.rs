//! Snapshot files: a small header, then memory as it is, page-aligned and sparse, so that it can be mapped.
//!
//! Layout, little-endian: magic (8 bytes), version (u32), length of the header's body (u32), CRC-32 of the body (u32),
//! the body (postcard), zeros up to a page border, then every memory bank in order.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::board::{BoardState, Wiring};
use crate::memory::{BankKind, Memory, PAGE, Region};
use crate::processors::Processors;
use crate::{Error, Machine};

const MAGIC: [u8; 8] = *b"PMEMSIM\0";
const VERSION: u32 = 12;
const FIXED: usize = 20;
/// No header is larger than this, whatever a damaged file says.
const MAX_BODY: u32 = 16 << 20;

/// Everything but memory.
#[derive(Serialize, Deserialize)]
pub(crate) struct Body {
    pub processors: Processors,
    pub board: BoardState,
    pub wiring: Wiring,
    /// Base, size and whether it is persistent.
    banks: Vec<(u64, u64, bool)>,
}

/// Writes a snapshot beside `path` and renames it, so that `path` is never half a file.
pub(crate) fn save(
    path: &Path,
    processors: Processors,
    board: BoardState,
    wiring: Wiring,
    memory: &Memory,
) -> Result<(), Error> {
    let banks = memory.layout();
    let body = Body {
        processors,
        board,
        wiring,
        banks: banks.iter().map(|&(base, size, kind)| (base, size, kind == BankKind::Pmem)).collect(),
    };
    let io = |source| Error::SnapshotFile { path: path.to_owned(), source };
    let body = postcard::to_stdvec(&body).map_err(|error| io(std::io::Error::other(error)))?;
    let beside = path.with_extension(format!("partial-{}", std::process::id()));
    let written = write(&beside, &body, memory, &banks).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|source| {
        let _ = std::fs::remove_file(&beside);
        io(source)
    })
}

fn write(path: &Path, body: &[u8], memory: &Memory, banks: &[(u64, u64, BankKind)]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&MAGIC)?;
    file.write_all(&VERSION.to_le_bytes())?;
    file.write_all(&(body.len() as u32).to_le_bytes())?;
    file.write_all(&crc32fast::hash(body).to_le_bytes())?;
    file.write_all(body)?;
    let mut at = memory_offset(body.len());
    let mut page = [0; PAGE as usize];
    for &(base, size, _) in banks {
        for offset in (0..size).step_by(PAGE as usize) {
            memory.read(base + offset, &mut page);
            if page.iter().any(|&byte| byte != 0) {
                file.seek(SeekFrom::Start(at + offset))?;
                file.write_all(&page)?;
            }
        }
        at += size;
    }
    file.set_len(at)
}

/// Where memory begins behind a body of this length.
fn memory_offset(body: usize) -> u64 {
    (FIXED as u64 + body as u64).next_multiple_of(PAGE)
}

/// A snapshot file that is held open: machines can be had of it for as long as this lives, also when the file has been
/// removed in the meantime.
#[derive(Clone, Debug)]
pub struct Snapshot {
    path: PathBuf,
    file: Arc<File>,
}

impl Snapshot {
    /// Opens the file; what it holds is looked at by [`Snapshot::machine`].
    ///
    /// # Errors
    /// [`Error::SnapshotFile`].
    pub fn open(path: &Path) -> Result<Snapshot, Error> {
        let io = |source| Error::SnapshotFile { path: path.to_owned(), source };
        Ok(Snapshot { path: path.to_owned(), file: Arc::new(File::open(path).map_err(io)?) })
    }

    /// A machine as it was saved. Its memory is a private copy-on-write mapping of the file, which must stay as it
    /// is while the machine lives; it may be removed.
    ///
    /// # Errors
    /// [`Error::SnapshotFile`], and [`Error::SnapshotFormat`] for a file that holds no machine.
    pub fn machine(&self) -> Result<Machine, Error> {
        let (body, memory) = self.read()?;
        Ok(Machine::from_saved(body, memory))
    }

    /// Reads the header and maps memory copy-on-write.
    fn read(&self) -> Result<(Body, Memory), Error> {
        let Snapshot { path, file } = self;
        let io = |source| Error::SnapshotFile { path: path.clone(), source };
        let format = |what: &str| Error::SnapshotFormat { path: path.clone(), what: what.to_owned() };
        let mut fixed = [0; FIXED];
        file.read_exact_at(&mut fixed, 0).map_err(|_| format("shorter than its header"))?;
        if fixed[..8] != MAGIC {
            return Err(format("not a snapshot"));
        }
        let word = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        if word(8) != VERSION {
            return Err(format(&std::format!("version {}, this program reads {VERSION}", word(8))));
        }
        if word(12) > MAX_BODY {
            return Err(format("header of impossible length"));
        }
        let mut bytes = vec![0; word(12) as usize];
        file.read_exact_at(&mut bytes, FIXED as u64).map_err(|_| format("shorter than its header"))?;
        if crc32fast::hash(&bytes) != word(16) {
            return Err(format("header checksum does not match"));
        }
        let body: Body = postcard::from_bytes(&bytes).map_err(|error| format(&error.to_string()))?;
        check_layout(&body.banks, &body.wiring.regions).map_err(format)?;
        if !body.processors.fit(body.board.local_apics()) {
            return Err(format("processors that do not fit each other"));
        }
        if !body.board.fits(&body.wiring) {
            return Err(format("devices that do not fit the regions"));
        }
        let start = memory_offset(bytes.len());
        let size = body.banks.iter().try_fold(start, |sum, bank| sum.checked_add(bank.1));
        if size != Some(file.metadata().map_err(io)?.len()) {
            return Err(format("memory part of wrong length"));
        }
        let banks: Vec<_> = body
            .banks
            .iter()
            .map(|&(base, size, pmem)| (base, size, if pmem { BankKind::Pmem } else { BankKind::Ram }))
            .collect();
        let memory = Memory::new(&banks, Some((file, start)))?;
        Ok((body, memory))
    }
}

/// Refuses memory that no machine has: everybody who reaches it later relies on whole pages, in one bank each, and on
/// persistent memory where the regions are.
fn check_layout(banks: &[(u64, u64, bool)], regions: &[Region]) -> Result<(), &'static str> {
    const HIGHEST: u64 = 1 << 46;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &(base, size, _) in banks {
        let end = base.checked_add(size).filter(|&end| end <= HIGHEST);
        let Some(end) = end.filter(|_| size > 0) else { return Err("a bank of memory of impossible size") };
        if !base.is_multiple_of(PAGE) || !size.is_multiple_of(PAGE) {
            return Err("a bank of memory that is not made of pages");
        }
        if ranges.iter().any(|&(other, other_end)| base < other_end && other < end) {
            return Err("banks of memory that overlap");
        }
        ranges.push((base, end));
    }
    let is_bank = |base, size| banks.contains(&(base, size, true));
    if !regions.iter().all(|region| is_bank(region.base, region.size)) {
        return Err("a region without memory");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_pages_apart_from_each_other_are_memory() {
        let refused = |banks: &[(u64, u64, bool)]| check_layout(banks, &[]).is_err();
        assert!(!refused(&[(0, 2 * PAGE, false), (2 * PAGE, PAGE, true)]));
        // A page at the end of such a bank would reach beyond its mapping.
        assert!(refused(&[(8, PAGE, false)]));
        assert!(refused(&[(0, PAGE + 8, false)]));
        assert!(refused(&[(0, 0, false)]));
        assert!(refused(&[(0, 2 * PAGE, false), (PAGE, PAGE, true)]));
        assert!(refused(&[(u64::MAX - PAGE + 1, PAGE, false)]));
        assert!(refused(&[(PAGE, u64::MAX - PAGE + 1, false)]));
    }

    #[test]
    fn a_region_is_a_bank_of_persistent_memory() {
        let region = Region { base: PAGE, size: PAGE, kind: crate::RegionKind::Nvdimm, dimm: 1 };
        assert!(check_layout(&[(PAGE, PAGE, true)], &[region]).is_ok());
        assert!(check_layout(&[(PAGE, PAGE, false)], &[region]).is_err());
        assert!(check_layout(&[(PAGE, 2 * PAGE, true)], &[region]).is_err());
    }
}
