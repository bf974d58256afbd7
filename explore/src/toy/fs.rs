//! A file system for the toy machine: two metadata areas written in turn, each made valid by one commit sector. It
//! behaves as ext4 does where exploration looks: new blocks are zeroed before they are used, metadata waits in DRAM
//! for a commit, a commit flushes before and behind its commit record.
//!
//! With the mount option `journal` the two areas are a journal: mounting replays the newest commit into a third area, the
//! home of the metadata, and empties the journal then. So recovery writes. With `replay-no-flush` it does not wait for
//! what it has replayed: a fault, planted for tests.

use std::collections::{BTreeMap, BTreeSet};

use guest_protocol::Attributes;
use persist::{DrainKind, EventKind, FlushKind, StorePath};
use serde::{Deserialize, Serialize};

use super::events::Bus;

pub const PAGE: u64 = 4096;
const AREAS: [u64; 3] = [PAGE, 9 * PAGE, 17 * PAGE];
const AREA: u64 = 8 * PAGE;
/// The slot and the area that are no journal.
const HOME: usize = 2;
const FIRST_BLOCK: u64 = 32;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    pub seq: u64,
    next_block: u64,
    next_inode: u32,
    pub names: BTreeMap<String, u32>,
    pub inodes: BTreeMap<u32, Inode>,
    /// By inode and name.
    xattrs: BTreeMap<(u32, String), Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    File,
    Directory,
    Symlink(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inode {
    pub kind: Kind,
    pub size: u64,
    pub blocks: BTreeMap<u64, u64>,
}

/// A mounted file system.
#[derive(Clone)]
pub struct Fs {
    pub now: Metadata,
    committed: Metadata,
    barrier: bool,
    /// Lines stored through mappings since the last sync, guest-physical.
    dirty: BTreeSet<u64>,
}

#[derive(Debug)]
pub struct Errno(pub &'static str, pub i32);

impl Fs {
    /// An empty file system in a region full of old content.
    pub fn format(region: &mut [u8]) {
        for (at, byte) in region.iter_mut().enumerate() {
            *byte = 0xc0 | (at / 8 % 61) as u8;
        }
        let empty = Metadata { seq: 1, next_block: FIRST_BLOCK, next_inode: 1, ..Metadata::default() };
        region[..PAGE as usize].fill(0);
        let (bytes, sector) = encode(&empty);
        let slot = (empty.seq % 2) as usize;
        for slot in [slot, HOME] {
            region[AREAS[slot] as usize..][..bytes.len()].copy_from_slice(&bytes);
            region[slot * 512..][..512].copy_from_slice(&sector);
        }
    }

    pub fn mount(bus: &mut Bus, options: &str) -> Result<Fs, Errno> {
        let journal = options.contains("journal");
        let slots = if journal { 0..3 } else { 0..2 };
        let committed = slots.filter_map(|slot| Some((slot, read_commit(bus, slot)?)));
        // What is replayed in part is not at home yet.
        let committed =
            committed.filter(|(slot, (_, len, sum))| *slot != HOME || read(bus, *slot, *len, *sum).is_some());
        let newest = committed.max_by_key(|(slot, commit)| (commit.0, *slot));
        let (slot, (_, len, sum)) = newest.ok_or(Errno("mount", 22))?;
        let bytes = read(bus, slot, len, sum).ok_or(Errno("mount", 117))?;
        let now: Metadata = postcard::from_bytes(&bytes).map_err(|_| Errno("mount", 117))?;
        let barrier = !options.contains("barrier=0");
        let fs = Fs { committed: now.clone(), now, barrier, dirty: BTreeSet::new() };
        if journal && slot != HOME {
            fs.replay(bus, slot, !options.contains("replay-no-flush"));
        }
        Ok(fs)
    }

    /// Brings what was committed home, and empties the slot of the journal.
    fn replay(&self, bus: &mut Bus, slot: usize, flush: bool) {
        bus.symbol("jbd2_journal_recover");
        let (bytes, sector) = encode(&self.now);
        bus.copy(AREAS[HOME], &bytes);
        bus.copy(HOME as u64 * 512, &sector);
        if flush {
            self.flush(bus);
        }
        bus.symbol("jbd2_journal_update_sb_log_tail");
        bus.copy(slot as u64 * 512, &[0; 512]);
        self.flush(bus);
    }

    pub fn inode(&self, path: &str) -> Result<u32, Errno> {
        self.now.names.get(path).copied().ok_or(Errno("open", 2))
    }

    pub fn add(&mut self, path: &str, kind: Kind) -> Result<u32, Errno> {
        if self.now.names.contains_key(path) {
            return Err(Errno("open", 17));
        }
        let inode = self.now.next_inode;
        self.now.next_inode += 1;
        self.now.inodes.insert(inode, Inode { kind, size: 0, blocks: BTreeMap::new() });
        self.now.names.insert(path.to_owned(), inode);
        Ok(inode)
    }

    pub fn link(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        let inode = self.inode(from)?;
        self.now.names.insert(to.to_owned(), inode);
        Ok(())
    }

    pub fn set_xattr(&mut self, path: &str, name: &str, value: Option<&[u8]>) -> Result<(), Errno> {
        let key = (self.inode(path)?, name.to_owned());
        match value {
            Some(value) => self.now.xattrs.insert(key, value.to_vec()),
            None => self.now.xattrs.remove(&key),
        };
        Ok(())
    }

    pub fn attributes(&self, path: &str) -> Attributes {
        let Ok(inode) = self.inode(path) else { return Attributes::default() };
        let is_directory = |inode: &u32| self.now.inodes[inode].kind == Kind::Directory;
        let inside = |child: &str| child.rsplit_once('/').is_some_and(|(parent, _)| parent == path);
        let names = self.now.names.iter();
        let links = if is_directory(&inode) {
            2 + names.filter(|(child, of)| inside(child) && is_directory(of)).count()
        } else {
            names.filter(|(_, of)| **of == inode).count()
        };
        let xattrs = self.now.xattrs.iter().filter(|((of, _), _)| *of == inode);
        let xattrs = xattrs.map(|((_, name), value)| (name.clone(), value.clone())).collect();
        Attributes { links: links as u64, xattrs }
    }

    pub fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        self.now.names.remove(path).map(drop).ok_or(Errno("unlink", 2))
    }

    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        let below = format!("{from}/");
        let moved: Vec<String> =
            self.now.names.keys().filter(|path| *path == from || path.starts_with(&below)).cloned().collect();
        if moved.is_empty() {
            return Err(Errno("rename", 2));
        }
        for path in moved {
            let inode = self.now.names.remove(&path).expect("just listed");
            self.now.names.insert(format!("{to}{}", &path[from.len()..]), inode);
        }
        Ok(())
    }

    pub fn truncate(&mut self, bus: &mut Bus, inode: u32, size: u64) {
        let file = self.now.inodes.get_mut(&inode).expect("inodes stay");
        if size < file.size {
            file.blocks.retain(|page, _| *page < size.div_ceil(PAGE));
            if let Some(block) = file.blocks.get(&(size / PAGE)).filter(|_| !size.is_multiple_of(PAGE)) {
                let at = block * PAGE + size % PAGE;
                bus.store_cached(at, &vec![0; (PAGE - size % PAGE) as usize]);
                for line in (at / 64 * 64..(block + 1) * PAGE).step_by(64) {
                    bus.kernel(EventKind::Flush { addr: bus.base + line, kind: FlushKind::Clwb });
                }
            }
        }
        file.size = size;
    }

    /// The block of a page of the file, allocated and zeroed when there is none.
    fn block(&mut self, bus: &mut Bus, inode: u32, page: u64) -> u64 {
        let file = self.now.inodes.get_mut(&inode).expect("inodes stay");
        if let Some(block) = file.blocks.get(&page) {
            return *block;
        }
        let block = self.now.next_block;
        self.now.next_block += 1;
        bus.symbol("blkdev_issue_zeroout");
        bus.copy(block * PAGE, &[0; PAGE as usize]);
        bus.symbol("ext4_set_iomap");
        // As smp_mb() in dax_read_lock() does.
        bus.kernel(EventKind::Drain(DrainKind::Locked));
        file.blocks.insert(page, block);
        block
    }

    pub fn write(&mut self, bus: &mut Bus, inode: u32, at: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let offset = at + done as u64;
            let len = (bytes.len() - done).min((PAGE - offset % PAGE) as usize);
            let block = self.block(bus, inode, offset / PAGE);
            bus.copy(block * PAGE + offset % PAGE, &bytes[done..done + len]);
            done += len;
        }
        let file = self.now.inodes.get_mut(&inode).expect("inodes stay");
        file.size = file.size.max(at + bytes.len() as u64);
    }

    /// A write fault of a mapping. Returns the block.
    pub fn fault(&mut self, bus: &mut Bus, inode: u32, page: u64, sync: bool) -> u64 {
        bus.symbol("dax_iomap_pte_fault");
        let block = self.block(bus, inode, page);
        if sync && self.now != self.committed {
            bus.symbol("dax_finish_sync_fault");
            self.commit(bus);
        }
        bus.symbol("insert_pfn");
        block
    }

    pub fn stored(&mut self, line: u64) {
        self.dirty.insert(line);
    }

    /// fsync, of everything: the journal knows no single files.
    pub fn sync(&mut self, bus: &mut Bus) {
        for line in std::mem::take(&mut self.dirty) {
            bus.kernel(EventKind::Flush { addr: line, kind: FlushKind::Clwb });
        }
        if self.now == self.committed {
            self.flush(bus);
        } else {
            self.commit(bus);
        }
    }

    fn flush(&self, bus: &mut Bus) {
        if self.barrier {
            bus.symbol("generic_nvdimm_flush");
            bus.kernel(EventKind::Drain(DrainKind::Sfence));
        }
    }

    fn commit(&mut self, bus: &mut Bus) {
        self.now.seq += 1;
        let (bytes, sector) = encode(&self.now);
        bus.copy(AREAS[(self.now.seq % 2) as usize], &bytes);
        bus.symbol("journal_submit_commit_record");
        self.flush(bus);
        bus.copy(self.now.seq % 2 * 512, &sector);
        self.flush(bus);
        self.committed = self.now.clone();
    }

    pub fn content(&self, bus: &Bus, inode: u32) -> Vec<u8> {
        let file = &self.now.inodes[&inode];
        let mut content = vec![0; file.size as usize];
        for (page, block) in &file.blocks {
            let at = (page * PAGE) as usize;
            if at < content.len() {
                let end = content.len().min(at + PAGE as usize);
                bus.look(block * PAGE, &mut content[at..end]);
            }
        }
        content
    }

    /// What of a file's content is undecided: offset in it and origin.
    pub fn origins(&self, bus: &Bus, inode: u32) -> Vec<(usize, u64)> {
        let file = &self.now.inodes[&inode];
        let of_page = |(page, block): (&u64, &u64)| {
            let at = (page * PAGE) as usize;
            let len = (file.size as usize).saturating_sub(at).min(PAGE as usize);
            bus.origins(block * PAGE, len).into_iter().map(move |(offset, origin)| (at + offset, origin))
        };
        file.blocks.iter().flat_map(of_page).collect()
    }
}

/// The metadata, and the sector that makes them valid.
fn encode(metadata: &Metadata) -> (Vec<u8>, [u8; 512]) {
    let mut bytes = postcard::to_stdvec(metadata).expect("metadata can be encoded");
    // Whole sectors, so that they do not tear.
    let len = bytes.len();
    bytes.resize(len.next_multiple_of(512), 0);
    assert!(bytes.len() as u64 <= AREA, "the toy's metadata is full");
    let mut sector = [0; 512];
    for (at, word) in [metadata.seq, bytes.len() as u64, checksum(&bytes)].into_iter().enumerate() {
        sector[at * 8..][..8].copy_from_slice(&word.to_le_bytes());
    }
    let sum = checksum(&sector[..24]);
    sector[504..].copy_from_slice(&sum.to_le_bytes());
    (bytes, sector)
}

fn read_commit(bus: &Bus, slot: usize) -> Option<(u64, u64, u64)> {
    let mut sector = [0; 512];
    bus.read(slot as u64 * 512, &mut sector);
    let word = |at: usize| u64::from_le_bytes(sector[at * 8..][..8].try_into().expect("eight bytes"));
    (word(63) == checksum(&sector[..24])).then(|| (word(0), word(1), word(2)))
}

/// What is in the area of a slot, if it is what the commit says.
fn read(bus: &Bus, slot: usize, len: u64, sum: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len.min(AREA) as usize];
    bus.read(AREAS[slot], &mut bytes);
    (checksum(&bytes) == sum).then_some(bytes)
}

fn checksum(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(blake3::hash(bytes).as_bytes()[..8].try_into().expect("eight bytes"))
}

/// What a user's straight-line store does to the events.
pub fn user_store(bus: &mut Bus, at: u64, bytes: &[u8], path: StorePath) {
    bus.user(EventKind::Store { addr: bus.base + at, bytes: smallvec::SmallVec::from_slice(bytes), path });
    bus.write(at, bytes);
}
