//! The machine around the fuzzed processor: guarded memory, devices that answer by a fixed rule, a log of everything.

use std::collections::BTreeSet;

use cpu::{Bus, CpuView, DrainKind, FlushKind, Page, StoreKind};

use super::memory::GuardedMemory;

/// Pages of RAM, from guest-physical 0.
pub const RAM: usize = 32;
/// First page of persistent memory.
pub const PMEM: u64 = 0x100;
/// Pages of persistent memory.
pub const PMEM_PAGES: usize = 4;
/// All pages.
pub const PAGES: usize = RAM + PMEM_PAGES;

/// Calls of the bus for each instruction and each exception at most: FXSAVE to a device is the hungriest.
const CALLS_EACH: u64 = 600;

/// Exceptions without an instruction in between that the processor takes before it calls that an end, and some more.
const EXCEPTIONS: u64 = 11_000;

/// Something the processor told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Kind of access, address, size, value.
    Device(&'static str, u64, usize, u64),
    /// A store to persistent memory. Neighbouring iterations of REP are one entry, however they were grouped.
    Store(u64, Vec<u8>, StoreKind),
    Flush(u64, FlushKind),
    Drain(DrainKind),
}

/// What the processor is plugged into.
pub struct FuzzBus {
    pub memory: GuardedMemory,
    /// Pages that the processor said it would change.
    pub dirtied: BTreeSet<usize>,
    pub log: Vec<(Told, Option<CpuView>)>,
    interrupts: Vec<u8>,
    attention: bool,
    cr8: u64,
    calls: u64,
    /// Calls that are too many.
    allowed: u64,
}

impl FuzzBus {
    pub fn new(memory: GuardedMemory) -> FuzzBus {
        let (log, interrupts) = (Vec::new(), Vec::new());
        FuzzBus {
            memory,
            dirtied: BTreeSet::new(),
            log,
            interrupts,
            attention: false,
            cr8: 0,
            calls: 0,
            allowed: 0,
        }
    }

    /// Before the same machine starts once more.
    pub fn restart(&mut self, instructions: u64) {
        self.dirtied.clear();
        self.log.clear();
        self.interrupts.clear();
        (self.attention, self.cr8, self.calls) = (false, 0, 0);
        self.allowed = (instructions + EXCEPTIONS) * CALLS_EACH;
    }

    /// Something from outside happens to a halted processor.
    pub fn interrupt(&mut self, vector: u8) {
        self.interrupts.push(vector);
    }

    /// The machine has looked.
    pub fn attended(&mut self) {
        self.attention = false;
    }

    /// Page of the guarded memory behind a guest-physical page.
    fn index(page: u64) -> Option<usize> {
        match page {
            _ if page < RAM as u64 => Some(page as usize),
            _ if page >= PMEM && page < PMEM + PMEM_PAGES as u64 => Some(RAM + (page - PMEM) as usize),
            _ => None,
        }
    }

    fn called(&mut self) {
        self.calls += 1;
        assert!(self.calls < self.allowed, "the processor works for the guest without end");
    }

    fn device(&mut self, view: &CpuView, what: &'static str, address: u64, size: usize, value: u64) {
        self.called();
        self.log.push((Told::Device(what, address, size, value), Some(*view)));
    }

    /// A device was written: some writes have consequences.
    fn consequence(&mut self, value: u64) {
        if value & 3 == 3 {
            self.interrupts.push((value >> 8) as u8);
            self.interrupts.truncate(4);
        }
        self.attention |= value & 0x30 == 0x30;
    }

    /// What a device reads as.
    fn value(address: u64, view: &CpuView) -> u64 {
        (address ^ view.retired).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Bus for FuzzBus {
    fn page(&mut self, page: u64) -> Page {
        self.called();
        match FuzzBus::index(page) {
            Some(index) if index < RAM => Page::Ram { host: self.memory.page(index) },
            Some(index) => Page::Pmem { host: self.memory.page(index) },
            None => Page::Device,
        }
    }

    fn page_dirtied(&mut self, page: u64) {
        self.called();
        self.dirtied.insert(FuzzBus::index(page).expect("only memory is dirtied"));
    }

    fn mmio_read(&mut self, cpu: &CpuView, addr: u64, size: usize) -> u64 {
        assert!(matches!(size, 1 | 2 | 4 | 8) && FuzzBus::index(addr >> 12).is_none());
        let value = FuzzBus::value(addr, cpu);
        self.device(cpu, "read", addr, size, value);
        value
    }

    fn mmio_write(&mut self, cpu: &CpuView, addr: u64, size: usize, value: u64) {
        assert!(matches!(size, 1 | 2 | 4 | 8) && FuzzBus::index(addr >> 12).is_none());
        assert!(size == 8 || value >> (8 * size) == 0, "{value:#x} has more than {size} bytes");
        self.device(cpu, "write", addr, size, value);
        self.consequence(value);
    }

    fn port_read(&mut self, cpu: &CpuView, port: u16, size: usize) -> u32 {
        assert!(matches!(size, 1 | 2 | 4));
        let value = FuzzBus::value(port.into(), cpu);
        self.device(cpu, "in", port.into(), size, value);
        value as u32
    }

    fn port_write(&mut self, cpu: &CpuView, port: u16, size: usize, value: u32) {
        assert!(matches!(size, 1 | 2 | 4));
        self.device(cpu, "out", port.into(), size, value.into());
        self.consequence(value.into());
    }

    fn read_msr(&mut self, cpu: &CpuView, msr: u32) -> Option<u64> {
        self.device(cpu, "rdmsr", msr.into(), 8, 0);
        (msr == 0x1b).then_some(0xfee0_0900)
    }

    fn write_msr(&mut self, cpu: &CpuView, msr: u32, value: u64) -> Option<()> {
        self.device(cpu, "wrmsr", msr.into(), 8, value);
        (msr == 0x6e0).then(|| self.consequence(value))
    }

    fn read_cr8(&mut self) -> u64 {
        self.cr8
    }

    fn write_cr8(&mut self, cpu: &CpuView, value: u64) {
        self.device(cpu, "cr8", 0, 8, value);
        self.cr8 = value & 15;
    }

    fn interrupt_pending(&mut self) -> bool {
        !self.interrupts.is_empty()
    }

    fn take_interrupt(&mut self) -> Option<u8> {
        self.interrupts.pop()
    }

    fn attention(&self) -> bool {
        self.attention
    }

    fn pmem_store(&mut self, cpu: &CpuView, addr: u64, bytes: &[u8], kind: StoreKind) {
        self.called();
        let last = FuzzBus::index((addr + bytes.len() as u64 - 1) >> 12);
        assert!(last.is_some_and(|page| page >= RAM) && last == FuzzBus::index(addr >> 12));
        let StoreKind::CachedRep { .. } = kind else {
            let view = (kind != StoreKind::PageWalk).then_some(*cpu);
            self.log.push((Told::Store(addr, bytes.to_vec(), kind), view));
            return;
        };
        // Where a limit falls decides which iterations are told together, and which are the first of an execution.
        if let Some((Told::Store(start, before, StoreKind::CachedRep { .. }), _)) = self.log.last_mut()
            && *start + before.len() as u64 == addr
        {
            before.extend(bytes);
            return;
        }
        let kind = StoreKind::CachedRep { first: true };
        self.log.push((Told::Store(addr, bytes.to_vec(), kind), None));
    }

    fn pmem_flush(&mut self, cpu: &CpuView, addr: u64, kind: FlushKind) {
        self.called();
        assert!(addr.is_multiple_of(64) && FuzzBus::index(addr >> 12).is_some_and(|page| page >= RAM));
        self.log.push((Told::Flush(addr, kind), Some(*cpu)));
    }

    fn drain(&mut self, cpu: &CpuView, kind: DrainKind) {
        self.called();
        self.log.push((Told::Drain(kind), Some(*cpu)));
    }

    fn probe(&mut self, _: &CpuView, _: u64) {
        self.called();
    }
}
