//! The board: what the processor is plugged into. Memory, devices, and the recorder that listens to both.

mod errors;
mod labels;
mod virtio;

use cpu::{Bus, CpuView, Page};
use devices::virtio::VirtioPmem;
use devices::{
    FlushHints, FwCfg, IoApic, LapicEffect, LocalApic, MediaErrors, Message, NvdimmFirmware, PciConfig, Pic,
    Pit, Power, PowerEvent, Rtc, Scrub, Serial, Signal, map,
};
use serde::{Deserialize, Serialize};

use crate::Stop;
use crate::device_memory::DeviceMemory;
use crate::memory::{BankKind, Memory, PAGE, Region, RegionKind};
use crate::pages::Pages;
use crate::recorder::{Recorder, RecorderState};

const MSR_APIC_BASE: u32 = 0x1b;
const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// What never changes while a machine lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Wiring {
    pub regions: Vec<Region>,
    pub hints: FlushHints,
    /// Whether NVDIMMs can lose lines, and firmware and processors tell of it.
    pub media_errors: bool,
    /// Handles of the NVDIMMs that tell of their health.
    pub smart: Vec<u32>,
}

impl Wiring {
    /// Whether a label area has this address, at which nobody but firmware finds it.
    pub(crate) fn is_labels(&self, addr: u64) -> bool {
        let mut labels = self.regions.iter().filter(|region| region.kind == RegionKind::Labels);
        labels.any(|region| addr.checked_sub(region.base).is_some_and(|offset| offset < region.size))
    }

    /// Indices of the regions that virtio-pmem devices tell of, in the order of the devices.
    fn virtio_regions(&self) -> impl Iterator<Item = usize> {
        let regions = self.regions.iter().enumerate();
        regions.filter(|(_, region)| region.kind == RegionKind::VirtioPmem).map(|(index, _)| index)
    }
}

/// The chips, all of whose state a snapshot keeps.
#[derive(Clone, Serialize, Deserialize)]
struct Chips {
    /// One for each processor.
    lapics: Vec<LocalApic>,
    ioapic: IoApic,
    serial: Serial,
    pit: Pit,
    pic: Pic,
    rtc: Rtc,
    power: Power,
    pci: PciConfig,
    fw_cfg: FwCfg,
    firmware: NvdimmFirmware,
    scrub: Scrub,
    errors: MediaErrors,
    /// How often power went and what was to be saved was not.
    dirty_shutdowns: u32,
    /// Writes to label areas so far.
    label_writes: u64,
    /// Device N of `map::virtio`.
    virtio: Vec<VirtioPmem>,
}

/// What a snapshot keeps of the board, memory aside.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct BoardState {
    chips: Chips,
    recorder: RecorderState,
}

impl BoardState {
    /// How many processors it belongs to.
    pub(crate) fn local_apics(&self) -> usize {
        self.chips.lapics.len()
    }

    /// Whether it has the devices that tell of regions, and no others.
    pub(crate) fn fits(&self, wiring: &Wiring) -> bool {
        self.chips.virtio.len() == wiring.virtio_regions().count()
    }
}

/// Everything around the processors.
pub(crate) struct Board {
    pub(crate) memory: Memory,
    pub(crate) recorder: Recorder,
    pub(crate) console: Vec<u8>,
    pub(crate) wiring: Wiring,
    chips: Chips,
    stop: Option<Stop>,
    call: Option<(CpuView, u32)>,
    /// Processors that are to be reset, started or interrupted, in this order.
    signals: Vec<(u8, Signal)>,
    /// The processor that executes.
    current: u8,
    /// A processor has stored to persistent memory since the machine was made.
    pub(crate) pmem_written: bool,
    /// A device wants the run loop to look again: its deadline may have moved.
    recheck: bool,
    /// While recording is by pages.
    pub(crate) pages: Option<Pages>,
}

impl Board {
    pub(crate) fn new(memory: Memory, wiring: Wiring, cpus: u8) -> Board {
        let legacy = wiring.regions.iter().any(|region| region.kind == RegionKind::Legacy);
        let virtio = wiring.virtio_regions().map(|index| &wiring.regions[index]);
        let virtio = virtio.map(|region| VirtioPmem::new(region.base, region.size)).collect();
        let chips = Chips {
            virtio,
            lapics: (0..cpus).map(LocalApic::new).collect(),
            ioapic: IoApic::new(),
            serial: Serial::new(),
            pit: Pit::new(),
            pic: Pic::default(),
            rtc: Rtc::new(Rtc::DEFAULT_START),
            power: Power::default(),
            pci: PciConfig::new(legacy),
            fw_cfg: FwCfg::new(memory.ram(), cpus.into()),
            firmware: NvdimmFirmware::default(),
            scrub: Scrub::default(),
            errors: MediaErrors::default(),
            dirty_shutdowns: 0,
            label_writes: 0,
        };
        let (recorder, console) = (Recorder::default(), Vec::new());
        Board {
            memory,
            recorder,
            console,
            wiring,
            chips,
            stop: None,
            call: None,
            signals: Vec::new(),
            current: 0,
            pmem_written: false,
            recheck: false,
            pages: None,
        }
    }

    pub(crate) fn state(&self) -> BoardState {
        BoardState { chips: self.chips.clone(), recorder: self.recorder.state.clone() }
    }

    pub(crate) fn set_state(&mut self, state: BoardState) {
        self.chips = state.chips;
        self.recorder.state = state.recorder;
        self.stop = None;
        self.call = None;
        self.signals.clear();
        self.recheck = false;
    }

    /// So often power went and what was to be saved was not.
    pub(crate) fn set_dirty_shutdowns(&mut self, count: u32) {
        self.chips.dirty_shutdowns = count;
    }

    /// Another processor executes from now on.
    pub(crate) fn select(&mut self, vcpu: u8) {
        self.current = vcpu;
    }

    /// Whether an interrupt waits for a processor.
    pub(crate) fn interrupts(&self, vcpu: u8) -> bool {
        self.lapic(vcpu).is_some_and(|lapic| lapic.pending().is_some())
    }

    /// What processors, not their local APICs, have to do. Forgets it.
    pub(crate) fn take_signals(&mut self) -> Vec<(u8, Signal)> {
        std::mem::take(&mut self.signals)
    }

    /// INIT for a processor's local APIC.
    pub(crate) fn init(&mut self, vcpu: u8) {
        if let Some(lapic) = self.chips.lapics.get_mut(usize::from(vcpu)) {
            lapic.init();
        }
    }

    fn lapic(&self, vcpu: u8) -> Option<&LocalApic> {
        self.chips.lapics.get(usize::from(vcpu))
    }

    /// The run loop has looked at deadlines.
    pub(crate) fn looked(&mut self) {
        self.recheck = false;
    }

    /// Whether the run loop has to look: it must end, or processors have something to do.
    pub(crate) fn wants_attention(&self) -> bool {
        self.stop.is_some() || self.call.is_some() || !self.signals.is_empty()
    }

    /// IA32_APIC_BASE of a processor.
    pub(crate) fn apic_base(&self, vcpu: u8) -> u64 {
        self.lapic(vcpu).map_or(map::LAPIC, LocalApic::base)
    }

    /// An interrupt that the current processor's local APIC has given away was not taken: it waits again.
    pub(crate) fn take_back(&mut self, vector: u8) {
        if let Some(lapic) = self.chips.lapics.get_mut(usize::from(self.current)) {
            lapic.take_back(vector);
        }
    }

    /// What PAE paging keeps in registers (SDM vol. 3, 4.4.1), read again from memory: KVM does not tell.
    pub(crate) fn page_pointers(&self, state: &cpu::State) -> [u64; 4] {
        const PAGING: u64 = 1 << 31;
        const PAE: u64 = 1 << 5;
        const LONG_MODE: u64 = 1 << 10;
        let mut bytes = [0; 32];
        if state.cr0 & PAGING != 0 && state.cr4 & PAE != 0 && state.efer & LONG_MODE == 0 {
            self.memory.read(state.cr3 & 0xffff_ffe0, &mut bytes);
        }
        std::array::from_fn(|at| {
            bytes[8 * at..8 * at + 8].iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte))
        })
    }

    /// Pages that an engine has written that names them late.
    pub(crate) fn named_late(&mut self, pages: &[u64]) {
        self.memory.named_late(pages);
        self.pages.iter_mut().for_each(|it| it.note(pages));
        self.pmem_written |= pages.iter().any(|page| self.memory.is_pmem(page * PAGE));
    }

    /// Records by pages what persistent memory holds now, if that is how it is recorded.
    pub(crate) fn look_at_pages(&mut self) {
        if let Some(pages) = &mut self.pages {
            pages.note(self.memory.touched());
            self.recorder.sectors(&pages.look(&self.memory));
        }
    }

    /// Why the run must end, if it must. Forgets it.
    pub(crate) fn take_stop(&mut self) -> Option<Stop> {
        self.recheck = false;
        let read = self.memory.take_read_by_device();
        self.stop.take().or_else(|| Some(Stop::UndecidedDevice { address: read? }))
    }

    /// The call of the control port that the processor has just made.
    pub(crate) fn take_call(&mut self) -> Option<(CpuView, u32)> {
        self.call.take()
    }

    /// When the next timer goes off, in TSC ticks.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let lapics = self.chips.lapics.iter().filter_map(LocalApic::deadline);
        let virtio = self.chips.virtio.iter().filter_map(VirtioPmem::deadline);
        lapics.chain(self.chips.pit.deadline()).chain(virtio).min()
    }

    /// Lets timers go off whose time has come.
    pub(crate) fn expire(&mut self, now: u64) {
        self.chips.lapics.iter_mut().for_each(|lapic| lapic.expire(now));
        if self.chips.pit.expire(now) {
            let message = self.chips.ioapic.pulse(map::irq::PIT);
            self.deliver(message);
        }
        for device in 0..self.chips.virtio.len() {
            self.expire_virtio(device, now);
        }
    }

    /// Whether the guest waits for bytes on the serial line.
    pub(crate) fn console_listens(&self) -> bool {
        self.chips.serial.listens()
    }

    /// Bytes arrive on the serial line.
    pub(crate) fn type_console(&mut self, bytes: &[u8]) -> usize {
        let taken = self.chips.serial.receive(bytes);
        self.update_serial_irq();
        taken
    }

    fn update_serial_irq(&mut self) {
        let message = self.chips.ioapic.set_irq(map::irq::SERIAL, self.chips.serial.irq());
        self.deliver(message);
    }

    /// Delivers messages. Signals to processors (INIT, start-up, NMI) wait for the run loop.
    fn deliver(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            let signals = devices::deliver(&mut self.chips.lapics, &message);
            self.signals.extend(signals.into_iter().map(|(index, signal)| (index as u8, signal)));
        }
    }

    fn port_read_byte(&mut self, view: &CpuView, port: u16) -> u8 {
        match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => self.chips.pic.read(port),
            0x40..=0x43 | map::port::SPEAKER => self.chips.pit.read(port, view.tsc),
            0x70 | 0x71 => self.chips.rtc.read(port, view.tsc),
            0x3f8..=0x3ff => {
                let value = self.chips.serial.read((port - map::port::SERIAL) as u8);
                self.update_serial_irq();
                value
            }
            map::port::KEYBOARD | map::port::SLEEP_CONTROL | map::port::SLEEP_STATUS | map::port::RESET => {
                self.chips.power.read(port)
            }
            map::port::FW_CFG_SELECTOR | map::port::FW_CFG_DATA => self.chips.fw_cfg.read(port),
            _ => 0xff,
        }
    }

    fn port_write_byte(&mut self, view: &CpuView, port: u16, value: u8) {
        match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => self.chips.pic.write(port, value),
            0x40..=0x43 | map::port::SPEAKER => self.chips.pit.write(port, value, view.tsc),
            0x70 | 0x71 => self.chips.rtc.write(port, value, view.tsc),
            0x3f8..=0x3ff => {
                let sent = self.chips.serial.write((port - map::port::SERIAL) as u8, value);
                self.console.extend(sent);
                self.update_serial_irq();
            }
            map::port::DEBUG_CONSOLE => self.console.push(value),
            map::port::KEYBOARD
            | map::port::SLEEP_CONTROL
            | map::port::SLEEP_STATUS
            | map::port::PM1_CONTROL_HIGH
            | map::port::RESET => {
                self.stop = match self.chips.power.write(port, value) {
                    Some(PowerEvent::PowerOff) => Some(Stop::PowerOff),
                    Some(PowerEvent::Reset) => Some(Stop::Reset),
                    None => return,
                }
            }
            _ => {}
        }
    }

    /// Whether `addr` lies in the register page at `base`.
    fn in_page(addr: u64, base: u64) -> Option<u64> {
        (addr & !(PAGE - 1) == base).then(|| addr - base)
    }

    /// An event has been recorded: stop behind it if that was asked for.
    fn recorded(&mut self, stop: bool) {
        if stop {
            self.stop = Some(Stop::Event(self.recorder.next() - 1));
        }
    }
}

impl Bus for Board {
    fn page(&mut self, page: u64) -> Page {
        if self.wiring.is_labels(page * PAGE) {
            return Page::Device;
        }
        match self.memory.page(page) {
            Some((BankKind::Ram, host)) => Page::Ram { host },
            Some((BankKind::Pmem, host)) => Page::Pmem { host },
            None => Page::Device,
        }
    }

    fn page_dirtied(&mut self, page: u64) {
        self.memory.dirtied(page);
    }

    fn mmio_read(&mut self, view: &CpuView, addr: u64, size: usize) -> u64 {
        self.recheck = true;
        if let Some(offset) = Board::in_page(addr, map::LAPIC) {
            let lapic = self.chips.lapics.get_mut(usize::from(view.vcpu));
            lapic.map_or(0, |lapic| lapic.read(offset, view.tsc).into())
        } else if let Some(offset) = Board::in_page(addr, map::IOAPIC) {
            u64::from(self.chips.ioapic.read(offset))
        } else if let Some((device, offset)) = self.virtio(addr) {
            self.chips.virtio[device].read(offset, size)
        } else if let Some(offset) = Board::in_page(addr, map::NVDIMM_FIRMWARE) {
            self.chips.firmware.read(offset, size)
        } else {
            u64::MAX >> (64 - 8 * size)
        }
    }

    fn mmio_write(&mut self, view: &CpuView, addr: u64, size: usize, value: u64) {
        self.recheck = true;
        if let Some(offset) = Board::in_page(addr, map::LAPIC) {
            let Some(lapic) = self.chips.lapics.get_mut(usize::from(view.vcpu)) else { return };
            match lapic.write(offset, value as u32, view.tsc) {
                LapicEffect::None => {}
                LapicEffect::EndOfInterrupt { vector } => {
                    let messages = self.chips.ioapic.end_of_interrupt(vector);
                    self.deliver(messages);
                }
                LapicEffect::Send(message) => self.deliver([message]),
            }
        } else if let Some(offset) = Board::in_page(addr, map::IOAPIC) {
            let messages = self.chips.ioapic.write(offset, value as u32);
            self.deliver(messages);
        } else if let Some((device, offset)) = self.virtio(addr) {
            let memory = DeviceMemory::new(&mut self.memory);
            let events = self.chips.virtio[device].write(offset, size, value, view.tsc, &memory);
            self.update_virtio_irq(device);
            events.into_iter().for_each(|event| self.flush_event(Some(view), device, event));
        } else if let Some(offset) = Board::in_page(addr, map::NVDIMM_FIRMWARE) {
            if let Some(request) = self.chips.firmware.write(offset, size, value) {
                self.firmware_request(view, request);
            }
        } else if let Some(dimm) = self.wiring.hints.decode(addr, size) {
            let stop = self.recorder.flush_hint(view, dimm);
            self.recorded(stop);
        }
    }

    fn port_read(&mut self, view: &CpuView, port: u16, size: usize) -> u32 {
        self.recheck = true;
        if (map::port::PCI_ADDRESS..map::port::PCI_ADDRESS + 8).contains(&port) && port != map::port::RESET {
            return self.chips.pci.read(port, size);
        }
        (0..size).fold(0, |value, byte| {
            let at = port.wrapping_add(byte as u16);
            value | u32::from(self.port_read_byte(view, at)) << (8 * byte)
        })
    }

    fn port_write(&mut self, view: &CpuView, port: u16, size: usize, value: u32) {
        self.recheck = true;
        if let Some(number) = devices::control_call(port, size, value) {
            self.call = Some((*view, number));
        } else if let Some(value) = devices::debug_exit(port, size, value) {
            self.stop = Some(Stop::DebugExit(value));
        } else if (map::port::PCI_ADDRESS..map::port::PCI_ADDRESS + 8).contains(&port)
            && port != map::port::RESET
        {
            self.chips.pci.write(port, size, value);
        } else if matches!(port, map::port::FW_CFG_SELECTOR | map::port::FW_CFG_DATA) {
            self.chips.fw_cfg.write(port, size, value);
        } else {
            for byte in 0..size {
                self.port_write_byte(view, port.wrapping_add(byte as u16), (value >> (8 * byte)) as u8);
            }
        }
    }

    fn read_msr(&mut self, view: &CpuView, msr: u32) -> Option<u64> {
        match msr {
            MSR_APIC_BASE => Some(self.lapic(view.vcpu)?.base()),
            MSR_TSC_DEADLINE => Some(self.lapic(view.vcpu)?.tsc_deadline(view.tsc)),
            _ => None,
        }
    }

    fn write_msr(&mut self, view: &CpuView, msr: u32, value: u64) -> Option<()> {
        self.recheck = true;
        let lapic = self.chips.lapics.get_mut(usize::from(view.vcpu))?;
        match msr {
            MSR_APIC_BASE => lapic.set_base(value),
            MSR_TSC_DEADLINE => {
                lapic.set_tsc_deadline(value, view.tsc);
                Some(())
            }
            _ => None,
        }
    }

    fn read_cr8(&mut self) -> u64 {
        self.lapic(self.current).map_or(0, LocalApic::cr8)
    }

    fn write_cr8(&mut self, view: &CpuView, value: u64) {
        if let Some(lapic) = self.chips.lapics.get_mut(usize::from(view.vcpu)) {
            lapic.set_cr8(value);
        }
    }

    fn interrupt_pending(&mut self) -> bool {
        self.interrupts(self.current)
    }

    fn take_interrupt(&mut self) -> Option<u8> {
        self.chips.lapics.get_mut(usize::from(self.current))?.acknowledge()
    }

    fn attention(&self) -> bool {
        self.recheck || self.stop.is_some() || self.call.is_some()
    }

    fn port_drains(&self, port: u16) -> bool {
        // The simulator must not help: a call of the control port is no event of the machine.
        port != map::port::CONTROL
    }

    fn pmem_store(&mut self, view: &CpuView, addr: u64, bytes: &[u8], kind: cpu::StoreKind) {
        self.pmem_written = true;
        let stop = self.recorder.store(view, addr, bytes, kind);
        self.recorded(stop);
    }

    fn pmem_flush(&mut self, view: &CpuView, addr: u64, kind: cpu::FlushKind) {
        let stop = self.recorder.flush(view, addr, kind);
        self.recorded(stop);
    }

    fn drain(&mut self, view: &CpuView, kind: cpu::DrainKind) {
        let stop = self.recorder.drain(view, kind);
        self.recorded(stop);
    }

    fn stores_visible(&mut self, view: &CpuView) {
        let stop = self.recorder.stores_visible(view);
        self.recorded(stop);
    }

    fn has_undecided(&self, page: u64) -> bool {
        let lost = || self.chips.errors.first(page * PAGE, PAGE).is_some();
        self.memory.undecided.holds(page) || lost()
    }

    fn poisoned(&self, addr: u64, len: usize) -> Option<u64> {
        self.chips.errors.first(addr, len as u64)
    }

    fn consume(&mut self, addr: u64, len: usize) -> bool {
        if !self.memory.undecided.any(addr, len) {
            return true;
        }
        let wanted = self.memory.undecided.lines(addr, len);
        // Behind another stop it is consumed again when the run goes on.
        if let Stop::Undecided { lines } =
            self.stop.get_or_insert_with(|| Stop::Undecided { lines: Vec::new() })
        {
            lines.extend(wanted);
            lines.sort_unstable();
            lines.dedup();
        }
        false
    }

    fn origins(&self, addr: u64, origins: &mut [u64]) -> bool {
        origins.fill(cpu::DECIDED);
        let mut any = false;
        for (at, origin) in self.memory.undecided.origins(addr, origins.len()) {
            origins[at] = origin;
            any = true;
        }
        any
    }

    fn takes_undecided(&self, page: u64) -> bool {
        // The event of a store says what was stored.
        let told = self.recorder.on && self.memory.is_pmem(page * PAGE);
        !told && self.memory.undecided.has_room(page)
    }

    fn put_origins(&mut self, addr: u64, len: usize, origins: Option<&[u64]>) {
        match origins {
            Some(origins) => self.memory.undecided.put(addr, origins),
            None => self.memory.undecided.overwrite(addr, len),
        }
    }

    fn give_back_interrupt(&mut self, vector: u8) {
        self.take_back(vector);
    }

    fn probe(&mut self, view: &CpuView, _: u64) {
        self.look_at_pages();
        if let Some(index) = self.recorder.probe(view) {
            self.stop = Some(Stop::Symbol(index));
        }
    }
}

#[cfg(test)]
mod tests;
