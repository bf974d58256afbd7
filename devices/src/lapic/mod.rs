//! The local APIC in xAPIC mode (SDM volume 3, chapter 11).
//!
//! Not there, because nothing needs it: x2APIC mode, moving the register page, interrupts from the 8259 (ExtINT).

mod timer;
mod vectors;

use serde::{Deserialize, Serialize};

use crate::{Delivery, Destination, Message, map};
use timer::{Mode, Timer};
use vectors::VectorSet;

/// Register offsets (SDM volume 3, table 11-1).
mod register {
    pub const ID: u64 = 0x20;
    pub const VERSION: u64 = 0x30;
    pub const TASK_PRIORITY: u64 = 0x80;
    pub const PROCESSOR_PRIORITY: u64 = 0xa0;
    pub const END_OF_INTERRUPT: u64 = 0xb0;
    pub const LOGICAL_DESTINATION: u64 = 0xd0;
    pub const DESTINATION_FORMAT: u64 = 0xe0;
    pub const SPURIOUS: u64 = 0xf0;
    pub const IN_SERVICE: u64 = 0x100;
    pub const IN_SERVICE_END: u64 = 0x170;
    pub const TRIGGER_MODE: u64 = 0x180;
    pub const TRIGGER_MODE_END: u64 = 0x1f0;
    pub const REQUEST: u64 = 0x200;
    pub const REQUEST_END: u64 = 0x270;
    pub const ERROR_STATUS: u64 = 0x280;
    pub const COMMAND_LOW: u64 = 0x300;
    pub const COMMAND_HIGH: u64 = 0x310;
    pub const LVT_TIMER: u64 = 0x320;
    pub const LVT_ERROR: u64 = 0x370;
    pub const INITIAL_COUNT: u64 = 0x380;
    pub const CURRENT_COUNT: u64 = 0x390;
    pub const DIVIDE_CONFIGURATION: u64 = 0x3e0;
}

/// Six LVT entries, an integrated APIC without suppression of EOI broadcasts.
const VERSION: u32 = 0x0005_0014;
/// Mask bit of an LVT entry.
const MASKED: u32 = 1 << 16;
/// Software enable bit of the spurious interrupt register.
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// Writable bits of the LVT entries: timer, thermal, performance counters, LINT0, LINT1, error.
const LVT_WRITABLE: [u32; 6] = [0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff];
/// Index of the timer's and the error LVT entry.
const TIMER: usize = 0;
const ERROR: usize = 5;

/// Bits of the error status register.
const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
const ILLEGAL_REGISTER: u32 = 1 << 7;

/// Bits of IA32_APIC_BASE (SDM volume 3, 11.4.4).
const BASE_BOOTSTRAP: u64 = 1 << 8;
const BASE_ENABLE: u64 = 1 << 11;

/// What a write to a local APIC wants done outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LapicEffect {
    /// Nothing.
    None,
    /// A level-triggered interrupt ended: tell [`crate::IoApic::end_of_interrupt`].
    EndOfInterrupt {
        /// Its vector.
        vector: u8,
    },
    /// An interrupt for other processors (or this one): give it to [`crate::deliver`].
    Send(Message),
}

/// One processor's local APIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalApic {
    id: u8,
    globally_enabled: bool,
    task_priority: u8,
    logical_destination: u32,
    destination_format: u32,
    spurious: u32,
    requested: VectorSet,
    in_service: VectorSet,
    level_triggered: VectorSet,
    error_status: u32,
    /// Errors since the last write to the error status register.
    errors: u32,
    command_low: u32,
    command_high: u32,
    lvt: [u32; 6],
    timer: Timer,
}

impl LocalApic {
    /// At power-on. `id` is the processor's index; processor 0 is the bootstrap processor.
    pub fn new(id: u8) -> LocalApic {
        LocalApic {
            id,
            globally_enabled: true,
            task_priority: 0,
            logical_destination: 0,
            destination_format: u32::MAX,
            spurious: 0xff,
            requested: VectorSet::default(),
            in_service: VectorSet::default(),
            level_triggered: VectorSet::default(),
            error_status: 0,
            errors: 0,
            command_low: 0,
            command_high: 0,
            lvt: [MASKED; 6],
            timer: Timer::new(),
        }
    }

    /// Back to the state after an INIT: everything but IA32_APIC_BASE and the ID (SDM volume 3, 11.4.7.3).
    pub fn init(&mut self) {
        *self = LocalApic { globally_enabled: self.globally_enabled, ..LocalApic::new(self.id) };
    }

    /// Reads the register at `offset` (0 to 0xfff) of the register page.
    pub fn read(&mut self, offset: u64, now: u64) -> u32 {
        if !self.globally_enabled {
            return u32::MAX;
        }
        match offset {
            register::ID => u32::from(self.id) << 24,
            register::VERSION => VERSION,
            register::TASK_PRIORITY => self.task_priority.into(),
            register::PROCESSOR_PRIORITY => self.priority().into(),
            register::LOGICAL_DESTINATION => self.logical_destination,
            register::DESTINATION_FORMAT => self.destination_format,
            register::SPURIOUS => self.spurious,
            register::IN_SERVICE..=register::IN_SERVICE_END if offset & 0xf == 0 => {
                self.in_service.register((offset - register::IN_SERVICE) >> 4)
            }
            register::TRIGGER_MODE..=register::TRIGGER_MODE_END if offset & 0xf == 0 => {
                self.level_triggered.register((offset - register::TRIGGER_MODE) >> 4)
            }
            register::REQUEST..=register::REQUEST_END if offset & 0xf == 0 => {
                self.requested.register((offset - register::REQUEST) >> 4)
            }
            register::ERROR_STATUS => self.error_status,
            register::COMMAND_LOW => self.command_low,
            register::COMMAND_HIGH => self.command_high,
            register::LVT_TIMER..=register::LVT_ERROR if offset & 0xf == 0 => self.lvt[lvt_index(offset)],
            register::INITIAL_COUNT => self.timer.initial_count(),
            register::CURRENT_COUNT => self.timer.current_count(now),
            register::DIVIDE_CONFIGURATION => self.timer.divide_configuration(),
            register::END_OF_INTERRUPT => 0,
            _ => {
                self.error(ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes the register at `offset` of the register page. Ask [`LocalApic::deadline`] and
    /// [`LocalApic::pending`] afterwards.
    pub fn write(&mut self, offset: u64, value: u32, now: u64) -> LapicEffect {
        if !self.globally_enabled {
            return LapicEffect::None;
        }
        self.expire(now);
        match offset {
            register::TASK_PRIORITY => self.task_priority = value as u8,
            register::END_OF_INTERRUPT => return self.end_of_interrupt(),
            register::LOGICAL_DESTINATION => self.logical_destination = value & 0xff00_0000,
            register::DESTINATION_FORMAT => self.destination_format = value | 0x0fff_ffff,
            register::SPURIOUS => self.set_spurious(value),
            register::ERROR_STATUS => self.error_status = std::mem::take(&mut self.errors),
            register::COMMAND_LOW => return self.send(value),
            register::COMMAND_HIGH => self.command_high = value & 0xff00_0000,
            register::LVT_TIMER..=register::LVT_ERROR if offset & 0xf == 0 => {
                self.set_lvt(lvt_index(offset), value);
            }
            register::INITIAL_COUNT => self.timer.set_initial_count(value, now),
            register::DIVIDE_CONFIGURATION => self.timer.set_divide_configuration(value, now),
            register::ID | register::VERSION | register::PROCESSOR_PRIORITY | register::CURRENT_COUNT => {}
            register::IN_SERVICE..=register::REQUEST_END => {}
            _ => self.error(ILLEGAL_REGISTER),
        }
        LapicEffect::None
    }

    /// IA32_APIC_BASE (MSR 0x1b).
    pub fn base(&self) -> u64 {
        let bootstrap = if self.id == 0 { BASE_BOOTSTRAP } else { 0 };
        let enable = if self.globally_enabled { BASE_ENABLE } else { 0 };
        map::LAPIC | bootstrap | enable
    }

    /// Sets IA32_APIC_BASE. `None` (to become #GP) for x2APIC mode, another address or reserved bits.
    pub fn set_base(&mut self, value: u64) -> Option<()> {
        if value & !(BASE_BOOTSTRAP | BASE_ENABLE) != map::LAPIC {
            return None;
        }
        self.globally_enabled = value & BASE_ENABLE != 0;
        if !self.globally_enabled {
            self.init();
        }
        Some(())
    }

    /// IA32_TSC_DEADLINE (MSR 0x6e0).
    pub fn tsc_deadline(&self, now: u64) -> u64 {
        self.timer.tsc_deadline(now)
    }

    /// Sets IA32_TSC_DEADLINE: the time of the interrupt, zero disarms. Ignored unless the timer is in that mode.
    pub fn set_tsc_deadline(&mut self, value: u64, now: u64) {
        self.timer.set_tsc_deadline(value);
        self.expire(now);
    }

    /// CR8: bits 7:4 of the task priority.
    pub fn cr8(&self) -> u64 {
        u64::from(self.task_priority >> 4)
    }

    /// Sets CR8. Bits above 3 are the processor's business (#GP).
    pub fn set_cr8(&mut self, value: u64) {
        self.task_priority = (value as u8 & 0xf) << 4;
    }

    /// When the timer next interrupts, or `None` if it will not.
    pub fn deadline(&self) -> Option<u64> {
        if self.lvt[TIMER] & MASKED != 0 || !self.enabled() { None } else { self.timer.expiry() }
    }

    /// Lets the timer interrupt if its time has come. The next deadline is after `now`.
    pub fn expire(&mut self, now: u64) {
        if self.timer.expire(now) && self.lvt[TIMER] & MASKED == 0 {
            self.inject(self.lvt[TIMER] as u8, false);
        }
    }

    /// Highest vector that may interrupt the processor now.
    pub fn pending(&self) -> Option<u8> {
        let vector = self.requested.highest()?;
        (self.enabled() && vector >> 4 > self.priority() >> 4).then_some(vector)
    }

    /// Interrupt acknowledge: takes the vector of [`LocalApic::pending`] into service.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        self.requested.set(vector, false);
        self.in_service.set(vector, true);
        Some(vector)
    }

    /// Takes an acknowledgement back: the processor has not begun to serve `vector`, it is requested again.
    pub fn take_back(&mut self, vector: u8) {
        if self.in_service.contains(vector) {
            self.in_service.set(vector, false);
            self.requested.set(vector, true);
        }
    }

    /// An interrupt message with `vector` arrives.
    pub fn inject(&mut self, vector: u8, level: bool) {
        if !self.enabled() {
            return;
        }
        if vector < 16 {
            self.error(RECEIVE_ILLEGAL_VECTOR);
            return;
        }
        self.requested.set(vector, true);
        self.level_triggered.set(vector, level);
    }

    /// Whether this local APIC is meant by `destination`.
    pub fn accepts(&self, destination: Destination) -> bool {
        let meant = match destination {
            Destination::Physical(id) => id == self.id || id == 0xff,
            Destination::Logical(bits) => self.in_logical(bits),
            Destination::All => true,
            Destination::AllExcept(id) => id != self.id,
        };
        self.globally_enabled && meant
    }

    /// Whether interrupts are accepted: enabled in IA32_APIC_BASE and in the spurious interrupt register.
    pub fn enabled(&self) -> bool {
        self.globally_enabled && self.spurious & SOFTWARE_ENABLE != 0
    }

    /// Processor priority (SDM volume 3, 11.8.3.1): the higher class of task priority and interrupt in service.
    pub(crate) fn priority(&self) -> u8 {
        let served = self.in_service.highest().unwrap_or(0) & 0xf0;
        if self.task_priority & 0xf0 >= served { self.task_priority } else { served }
    }

    /// Flat model: one bit per processor. Cluster model: bits 7:4 name the cluster (SDM volume 3, 11.6.2.2).
    fn in_logical(&self, bits: u8) -> bool {
        let own = (self.logical_destination >> 24) as u8;
        match self.destination_format >> 28 {
            _ if bits == 0xff => true,
            0xf => bits & own != 0,
            _ => (bits >> 4 == own >> 4 || bits >> 4 == 0xf) && bits & own & 0xf != 0,
        }
    }

    fn end_of_interrupt(&mut self) -> LapicEffect {
        let Some(vector) = self.in_service.highest() else {
            return LapicEffect::None;
        };
        self.in_service.set(vector, false);
        if self.level_triggered.contains(vector) {
            LapicEffect::EndOfInterrupt { vector }
        } else {
            LapicEffect::None
        }
    }

    /// Disabling by software masks every LVT entry (SDM volume 3, 11.4.7.2).
    fn set_spurious(&mut self, value: u32) {
        self.spurious = value & 0x3ff;
        if value & SOFTWARE_ENABLE == 0 {
            self.lvt.iter_mut().for_each(|entry| *entry |= MASKED);
        }
    }

    fn set_lvt(&mut self, index: usize, value: u32) {
        let forced = if self.spurious & SOFTWARE_ENABLE == 0 { MASKED } else { 0 };
        self.lvt[index] = value & LVT_WRITABLE[index] | forced;
        if index == TIMER {
            self.timer.set_mode(Mode::from_lvt(value));
        }
    }

    /// A write to the low half of the interrupt command register (SDM volume 3, 11.6.1).
    fn send(&mut self, value: u32) -> LapicEffect {
        self.command_low = value & 0x000c_cfff;
        let vector = value as u8;
        let Some(delivery) = Delivery::from_bits(value >> 8) else {
            return LapicEffect::None;
        };
        let level = value >> 15 & 1 != 0;
        let assert = value >> 14 & 1 != 0;
        if delivery == Delivery::Init && level && !assert {
            return LapicEffect::None; // INIT level de-assert: nothing on processors since the Pentium 4
        }
        if matches!(delivery, Delivery::Fixed | Delivery::LowestPriority) && vector < 16 {
            self.error(SEND_ILLEGAL_VECTOR);
            return LapicEffect::None;
        }
        let field = (self.command_high >> 24) as u8;
        let destination = match value >> 18 & 3 {
            0 if value >> 11 & 1 == 0 => Destination::Physical(field),
            0 => Destination::Logical(field),
            1 => Destination::Physical(self.id),
            2 => Destination::All,
            _ => Destination::AllExcept(self.id),
        };
        // The trigger mode is that of the message only for INIT: inter-processor interrupts are edges.
        LapicEffect::Send(Message { destination, delivery, vector, level: false })
    }

    /// Records an error and interrupts by the error LVT entry (SDM volume 3, 11.5.3).
    fn error(&mut self, bit: u32) {
        self.errors |= bit;
        let entry = self.lvt[ERROR];
        if entry & MASKED == 0 && entry as u8 >= 16 {
            self.inject(entry as u8, false);
        }
    }
}

fn lvt_index(offset: u64) -> usize {
    ((offset - register::LVT_TIMER) >> 4) as usize
}

#[cfg(test)]
mod tests;
