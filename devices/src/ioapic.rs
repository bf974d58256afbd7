//! The IOAPIC (82093AA, version 0x20 with EOI register).

use serde::{Deserialize, Serialize};

use crate::Message;

/// 24 pins at [`crate::map::IOAPIC`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApic {}

impl IoApic {
    /// At power-on: all pins masked.
    pub fn new() -> IoApic {
        todo!()
    }
    /// Reads at `offset` (0 to 0xfff) of the register page.
    pub fn read(&self, _offset: u64) -> u32 {
        todo!()
    }
    /// Writes at `offset` of the register page. Returns the messages to [`crate::deliver`].
    pub fn write(&mut self, _offset: u64, _value: u32) -> Vec<Message> {
        todo!()
    }
    /// Sets the line of `pin`. Returns the message to [`crate::deliver`], if that interrupts.
    pub fn set_irq(&mut self, _pin: u8, _level: bool) -> Option<Message> {
        todo!()
    }
    /// A low-high-low pulse on the line of `pin`.
    pub fn pulse(&mut self, _pin: u8) -> Option<Message> {
        todo!()
    }
    /// A local APIC announced the end of level-triggered `vector`. Returns what still asserted lines send again.
    pub fn end_of_interrupt(&mut self, _vector: u8) -> Vec<Message> {
        todo!()
    }
}
