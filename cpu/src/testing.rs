//! A small machine for unit tests: a processor in 64-bit mode, some RAM, some persistent memory, a recording bus.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::{Bus, Cpu, CpuView, DECIDED, DrainKind, Exit, FlushKind, Page, REG_RIP, Segment, StoreKind};

/// Bytes of RAM, from guest-physical 0.
pub(crate) const RAM: u64 = 16 << 20;
/// First byte of persistent memory.
pub(crate) const PMEM: u64 = 0x8000_0000;
/// Bytes of persistent memory.
pub(crate) const PMEM_SIZE: u64 = 2 << 20;
/// Where the code of [`machine`] lies.
pub(crate) const CODE: u64 = 0x10_0000;
/// Initial RSP.
pub(crate) const STACK: u64 = 0x20_0000;
/// RAM that nothing else uses, 1 MiB.
pub(crate) const DATA: u64 = 0x30_0000;
/// Physical address of the PML4 that maps the first 4 GiB to themselves by 2 MiB pages, for user and supervisor.
pub(crate) const TABLES: u64 = 0x1000;

/// A port whose accesses are no events of the machine.
pub(crate) const CONTROL_PORT: u16 = 0x5050;

/// What the bus was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Dirtied(u64),
    Store(u64, Vec<u8>, StoreKind),
    Flush(u64, FlushKind),
    Drain(DrainKind),
    MmioRead(u64, usize),
    MmioWrite(u64, usize, u64),
    PortRead(u16, usize),
    PortWrite(u16, usize, u32),
    Probe(u64),
    Visible,
}

/// The machine around the processor. RAM and persistent memory are plain bytes; everything else is a device that
/// reads as `device_value`.
pub(crate) struct TestBus {
    ram: Vec<u8>,
    pmem: Vec<u8>,
    /// Everything told so far, except `Dirtied` unless `record_dirtied`.
    pub told: Vec<(Told, CpuView)>,
    pub record_dirtied: bool,
    pub device_value: u64,
    /// Vectors that wait, first taken first.
    pub interrupts: Vec<u8>,
    /// What [`Bus::attention`] answers.
    pub attention: bool,
    /// Sets `attention` at the next pmem store, flush, drain or probe.
    pub attention_at_event: bool,
    /// MSRs of the bus: answers only for these.
    pub msrs: Vec<(u32, u64)>,
    pub cr8: u64,
    /// Guest-physical bytes that are undecided, and where they came from.
    pub undecided: BTreeMap<u64, u64>,
    /// Guest-physical bytes that are poisoned.
    pub poisoned: Range<u64>,
}

impl TestBus {
    pub fn new() -> TestBus {
        TestBus {
            ram: vec![0; RAM as usize],
            pmem: vec![0; PMEM_SIZE as usize],
            told: Vec::new(),
            record_dirtied: false,
            device_value: 0,
            interrupts: Vec::new(),
            attention: false,
            attention_at_event: false,
            msrs: Vec::new(),
            cr8: 0,
            undecided: BTreeMap::new(),
            poisoned: 0..0,
        }
    }

    /// Writes guest-physical memory behind the processor's back.
    pub fn poke(&mut self, addr: u64, bytes: &[u8]) {
        self.bytes(addr, bytes.len()).copy_from_slice(bytes);
    }

    /// Reads guest-physical memory.
    pub fn peek<const N: usize>(&mut self, addr: u64) -> [u8; N] {
        self.bytes(addr, N).try_into().unwrap()
    }

    pub fn peek64(&mut self, addr: u64) -> u64 {
        u64::from_le_bytes(self.peek(addr))
    }

    pub fn poke64(&mut self, addr: u64, value: u64) {
        self.poke(addr, &value.to_le_bytes());
    }

    /// Everything told, without when and where.
    pub fn told(&self) -> Vec<Told> {
        self.told.iter().map(|(told, _)| told.clone()).collect()
    }

    fn bytes(&mut self, addr: u64, len: usize) -> &mut [u8] {
        if addr >= PMEM {
            &mut self.pmem[(addr - PMEM) as usize..][..len]
        } else {
            &mut self.ram[addr as usize..][..len]
        }
    }

    fn event(&mut self, told: Told, view: &CpuView) {
        self.told.push((told, *view));
    }

    fn traced(&mut self, told: Told, view: &CpuView) {
        self.event(told, view);
        if self.attention_at_event {
            self.attention = true;
        }
    }
}

impl Bus for TestBus {
    fn page(&mut self, page: u64) -> Page {
        let addr = page << 12;
        if addr < RAM {
            Page::Ram { host: self.bytes(addr, 0x1000).as_mut_ptr() }
        } else if (PMEM..PMEM + PMEM_SIZE).contains(&addr) {
            Page::Pmem { host: self.bytes(addr, 0x1000).as_mut_ptr() }
        } else {
            Page::Device
        }
    }

    fn page_dirtied(&mut self, page: u64) {
        if self.record_dirtied {
            let view = CpuView { vcpu: 0, cpl: 0, rip: 0, rsp: 0, retired: 0, tsc: 0 };
            self.event(Told::Dirtied(page), &view);
        }
    }

    fn mmio_read(&mut self, cpu: &CpuView, addr: u64, size: usize) -> u64 {
        self.event(Told::MmioRead(addr, size), cpu);
        self.device_value
    }

    fn mmio_write(&mut self, cpu: &CpuView, addr: u64, size: usize, value: u64) {
        self.event(Told::MmioWrite(addr, size, value), cpu);
    }

    fn port_read(&mut self, cpu: &CpuView, port: u16, size: usize) -> u32 {
        self.event(Told::PortRead(port, size), cpu);
        self.device_value as u32
    }

    fn port_write(&mut self, cpu: &CpuView, port: u16, size: usize, value: u32) {
        self.event(Told::PortWrite(port, size, value), cpu);
    }

    fn port_drains(&self, port: u16) -> bool {
        port != CONTROL_PORT
    }

    fn read_msr(&mut self, _: &CpuView, msr: u32) -> Option<u64> {
        self.msrs.iter().find(|(number, _)| *number == msr).map(|(_, value)| *value)
    }

    fn write_msr(&mut self, _: &CpuView, msr: u32, value: u64) -> Option<()> {
        self.msrs.iter_mut().find(|(number, _)| *number == msr).map(|(_, kept)| *kept = value)
    }

    fn read_cr8(&mut self) -> u64 {
        self.cr8
    }

    fn write_cr8(&mut self, _: &CpuView, value: u64) {
        self.cr8 = value;
    }

    fn interrupt_pending(&mut self) -> bool {
        !self.interrupts.is_empty()
    }

    fn take_interrupt(&mut self) -> Option<u8> {
        if self.interrupts.is_empty() { None } else { Some(self.interrupts.remove(0)) }
    }

    fn attention(&self) -> bool {
        self.attention
    }

    fn pmem_store(&mut self, cpu: &CpuView, addr: u64, bytes: &[u8], kind: StoreKind) {
        self.traced(Told::Store(addr, bytes.to_vec(), kind), cpu);
    }

    fn pmem_flush(&mut self, cpu: &CpuView, addr: u64, kind: FlushKind) {
        self.traced(Told::Flush(addr, kind), cpu);
    }

    fn drain(&mut self, cpu: &CpuView, kind: DrainKind) {
        self.traced(Told::Drain(kind), cpu);
    }

    fn stores_visible(&mut self, cpu: &CpuView) {
        self.traced(Told::Visible, cpu);
    }

    fn probe(&mut self, cpu: &CpuView, rip: u64) {
        self.traced(Told::Probe(rip), cpu);
    }

    fn has_undecided(&self, page: u64) -> bool {
        let undecided = self.undecided.range(page << 12..(page + 1) << 12).next().is_some();
        undecided || self.poisoned(page << 12, 0x1000).is_some()
    }

    fn poisoned(&self, addr: u64, len: usize) -> Option<u64> {
        let first = addr.max(self.poisoned.start);
        (first < self.poisoned.end.min(addr + len as u64)).then_some(first)
    }

    fn consume(&mut self, addr: u64, len: usize) -> bool {
        self.undecided.range(addr..addr + len as u64).next().is_none()
    }

    fn origins(&self, addr: u64, origins: &mut [u64]) -> bool {
        let origin = |at| self.undecided.get(&at).copied().unwrap_or(DECIDED);
        origins.iter_mut().zip(addr..).for_each(|(it, at)| *it = origin(at));
        origins.iter().any(|origin| *origin != DECIDED)
    }

    fn takes_undecided(&self, page: u64) -> bool {
        page << 12 < RAM
    }

    fn put_origins(&mut self, addr: u64, len: usize, origins: Option<&[u64]>) {
        for (n, at) in (addr..addr + len as u64).enumerate() {
            match origins.map_or(DECIDED, |origins| origins[n]) {
                DECIDED => self.undecided.remove(&at),
                origin => self.undecided.insert(at, origin),
            };
        }
    }

    fn give_back_interrupt(&mut self, vector: u8) {
        self.interrupts.insert(0, vector);
    }
}

/// A processor at `code` in 64-bit mode at CPL 0 with interrupts off, the first 4 GiB mapped to themselves.
pub(crate) fn machine(code: &[u8]) -> (Cpu<TestBus>, TestBus) {
    let mut bus = TestBus::new();
    bus.poke64(TABLES, 0x2000 | 7);
    for gib in 0..4 {
        bus.poke64(0x2000 + gib * 8, (0x3000 + gib * 0x1000) | 7);
        for entry in 0..512 {
            bus.poke64(0x3000 + gib * 0x1000 + entry * 8, gib << 30 | entry << 21 | 0x87);
        }
    }
    bus.poke(CODE, code);
    let mut cpu = Cpu::new(1, 1);
    let mut state = cpu.state();
    state.cr0 = 0x8001_0033;
    state.cr3 = TABLES;
    state.cr4 = 0x620;
    state.efer = 0xd01;
    let data = Segment { selector: 0x18, base: 0, limit: u32::MAX, access: 0xc093 };
    state.segments = [data; 6];
    state.segments[1] = Segment { selector: 0x10, base: 0, limit: u32::MAX, access: 0xa09b };
    state.rflags = 2;
    state.regs[REG_RIP] = CODE;
    state.regs[4] = STACK;
    cpu.set_state(state);
    (cpu, bus)
}

/// Runs until HLT (not counted on to be reached: gives up after a million instructions).
pub(crate) fn run_to_halt(cpu: &mut Cpu<TestBus>, bus: &mut TestBus) {
    let limit = cpu.state().retired + 1_000_000;
    assert_eq!(cpu.run(bus, limit), Exit::Halted, "at {:#x}", cpu.state().rip());
}
