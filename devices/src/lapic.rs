//! The local APIC in xAPIC mode (SDM volume 3, chapter 11).

use serde::{Deserialize, Serialize};

use crate::{Destination, Message};

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
pub struct LocalApic {}

impl LocalApic {
    /// At power-on. `id` is the processor's index; processor 0 is the bootstrap processor.
    pub fn new(_id: u8) -> LocalApic {
        todo!()
    }
    /// Back to the state after an INIT: everything but the APIC base register and the ID.
    pub fn init(&mut self) {
        todo!()
    }
    /// Reads the register at `offset` (0 to 0xfff) of the register page.
    pub fn read(&mut self, _offset: u64, _now: u64) -> u32 {
        todo!()
    }
    /// Writes the register at `offset` of the register page. Ask [`LocalApic::deadline`] afterwards.
    pub fn write(&mut self, _offset: u64, _value: u32, _now: u64) -> LapicEffect {
        todo!()
    }
    /// IA32_APIC_BASE (MSR 0x1b).
    pub fn base(&self) -> u64 {
        todo!()
    }
    /// Sets IA32_APIC_BASE. `None` (to become #GP) for x2APIC mode, another address or reserved bits.
    pub fn set_base(&mut self, _value: u64) -> Option<()> {
        todo!()
    }
    /// IA32_TSC_DEADLINE (MSR 0x6e0).
    pub fn tsc_deadline(&mut self, _now: u64) -> u64 {
        todo!()
    }
    /// Sets IA32_TSC_DEADLINE: the time of the interrupt, zero disarms. Ignored unless the timer is in that mode.
    pub fn set_tsc_deadline(&mut self, _value: u64, _now: u64) {
        todo!()
    }
    /// CR8: bits 7:4 of the task priority.
    pub fn cr8(&self) -> u64 {
        todo!()
    }
    /// Sets CR8. Bits above 3 are the processor's business (#GP).
    pub fn set_cr8(&mut self, _value: u64) {
        todo!()
    }
    /// When the timer next interrupts, or `None` if it will not.
    pub fn deadline(&self) -> Option<u64> {
        todo!()
    }
    /// Lets the timer interrupt if its time has come. The next deadline is after `now`.
    pub fn expire(&mut self, _now: u64) {
        todo!()
    }
    /// Highest vector that may interrupt the processor now.
    pub fn pending(&self) -> Option<u8> {
        todo!()
    }
    /// Interrupt acknowledge: takes the vector of [`LocalApic::pending`] into service.
    pub fn acknowledge(&mut self) -> Option<u8> {
        todo!()
    }
    /// An interrupt message with `vector` arrives.
    pub fn inject(&mut self, _vector: u8, _level: bool) {
        todo!()
    }
    /// Whether this local APIC is meant by `destination`.
    pub fn accepts(&self, _destination: Destination) -> bool {
        todo!()
    }
    /// Whether interrupts are accepted: enabled in IA32_APIC_BASE and in the spurious interrupt register.
    pub fn enabled(&self) -> bool {
        todo!()
    }
    /// Processor priority register.
    pub(crate) fn priority(&self) -> u8 {
        todo!()
    }
}
