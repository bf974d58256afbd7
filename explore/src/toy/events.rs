//! The toy machine's memory, and the events that reach it.

use std::collections::BTreeMap;

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
}

/// The functions of the toy kernel; function N is at 0xffff_0000 + N * 0x100.
pub const FUNCTIONS: [&str; 8] = [
    "blkdev_issue_zeroout",
    "ext4_set_iomap",
    "dax_iomap_pte_fault",
    "dax_finish_sync_fault",
    "journal_submit_commit_record",
    "generic_nvdimm_flush",
    "insert_pfn",
    "__memcpy_flushcache",
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

    pub fn read(&self, at: u64, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.memory[at as usize..][..buffer.len()]);
    }

    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}
