//! The toy machine's memory, and the events that reach it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use persist::{Event, EventKind, Origin, StorePath};
use smallvec::SmallVec;

/// Persistent memory with a recorder in front of it.
#[derive(Clone)]
pub struct Bus {
    pub base: u64,
    pub memory: Vec<u8>,
    pub tracing: bool,
    pub events: Vec<Event>,
    pub next: u64,
    pub retired: u64,
    pub stop_at: Option<u64>,
    pub stopped: bool,
    copy_call: u32,
    pub watched: BTreeMap<u64, u32>,
    /// Bytes of persistent memory that are undecided: where they come from. Both guest-physical.
    pub undecided: BTreeMap<u64, u64>,
    /// Lines that something undecided was read of.
    taken: RefCell<BTreeSet<u64>>,
}

/// The functions of the toy kernel; function N is at 0xffff_0000 + N * 0x100.
pub const FUNCTIONS: [&str; 10] = [
    "blkdev_issue_zeroout",
    "ext4_set_iomap",
    "dax_iomap_pte_fault",
    "dax_finish_sync_fault",
    "journal_submit_commit_record",
    "generic_nvdimm_flush",
    "insert_pfn",
    "__memcpy_flushcache",
    "jbd2_journal_recover",
    "jbd2_journal_update_sb_log_tail",
];

pub fn address_of(name: &str) -> Option<u64> {
    FUNCTIONS.iter().position(|function| *function == name).map(|at| 0xffff_0000 + at as u64 * 0x100)
}

impl Bus {
    pub fn new(base: u64, size: u64) -> Bus {
        Bus {
            base,
            memory: vec![0; size as usize],
            tracing: false,
            events: Vec::new(),
            next: 0,
            retired: 0,
            stop_at: None,
            stopped: false,
            copy_call: 0,
            watched: BTreeMap::new(),
            undecided: BTreeMap::new(),
            taken: RefCell::default(),
        }
    }

    fn push(&mut self, cpl: u8, rip: u64, copy_call: u32, kind: EventKind) {
        self.retired += 1;
        if self.tracing {
            self.stopped |= self.stop_at == Some(self.next);
            let origin = Origin { vcpu: 0, cpl, rip, retired: self.retired, copy_call };
            self.events.push(Event { seq: self.next, origin, kind });
            self.next += 1;
        }
    }

    pub fn kernel(&mut self, kind: EventKind) {
        self.push(0, 0xffff_0010, 0, kind);
    }

    pub fn user(&mut self, kind: EventKind) {
        self.push(3, 0x40_1000, 0, kind);
    }

    pub fn symbol(&mut self, name: &str) {
        let address = address_of(name).expect("a function of the toy kernel");
        if let Some(&index) = self.watched.get(&address) {
            self.push(0, address, 0, EventKind::Symbol { index });
        }
    }

    /// `__memcpy_flushcache`
    pub fn copy(&mut self, at: u64, bytes: &[u8]) {
        self.copy_call += 1;
        let rip = address_of("__memcpy_flushcache").expect("known") + 0x20;
        for (index, word) in bytes.chunks(8).enumerate() {
            let addr = self.base + at + index as u64 * 8;
            self.push(
                0,
                rip,
                self.copy_call,
                EventKind::Store { addr, bytes: SmallVec::from_slice(word), path: StorePath::NonTemporal },
            );
        }
        self.write(at, bytes);
    }

    pub fn store_cached(&mut self, at: u64, bytes: &[u8]) {
        self.kernel(EventKind::Store {
            addr: self.base + at,
            bytes: SmallVec::from_slice(bytes),
            path: StorePath::Cached,
        });
        self.write(at, bytes);
    }

    /// Takes what it reads.
    pub fn read(&self, at: u64, buffer: &mut [u8]) {
        self.look(at, buffer);
        let lines = self.origins(at, buffer.len()).into_iter().map(|(_, origin)| origin & !63);
        self.taken.borrow_mut().extend(lines);
    }

    /// Reads what is there, be it decided or not.
    pub fn look(&self, at: u64, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.memory[at as usize..][..buffer.len()]);
    }

    /// Undecided bytes of a range: offset in it and origin.
    pub fn origins(&self, at: u64, len: usize) -> Vec<(usize, u64)> {
        let start = self.base + at;
        let undecided = self.undecided.range(start..start + len as u64);
        undecided.map(|(address, origin)| ((address - start) as usize, *origin)).collect()
    }

    /// The lines that something undecided was read of since the last call.
    pub fn taken(&mut self) -> Vec<u64> {
        std::mem::take(&mut *self.taken.borrow_mut()).into_iter().collect()
    }

    pub fn decide(&mut self, line: u64, mask: u64, content: &[u8; 64]) {
        let decided = |origin: u64| origin & !63 == line && mask >> (origin % 64) & 1 == 1;
        for (address, origin) in &self.undecided {
            if decided(*origin) {
                self.memory[(address - self.base) as usize] = content[(origin % 64) as usize];
            }
        }
        self.undecided.retain(|_, origin| !decided(*origin));
    }

    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        (0..bytes.len() as u64).for_each(|byte| {
            self.undecided.remove(&(self.base + at + byte));
        });
        self.memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}
