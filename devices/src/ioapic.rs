//! The IOAPIC: Intel 82093AA with the EOI register of version 0x20.

use serde::{Deserialize, Serialize};

use crate::{Delivery, Destination, Message};

const PINS: usize = 24;
/// Version 0x20; the highest pin in bits 23:16.
const VERSION: u32 = 0x20 | (PINS as u32 - 1) << 16;

/// Offsets in the register page.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const END_OF_INTERRUPT: u64 = 0x40;

/// Bits of a redirection entry.
const LOGICAL: u64 = 1 << 11;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Delivery status (always idle) and remote IRR are the chip's, the rest is the guest's.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// 24 pins at [`crate::map::IOAPIC`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApic {
    id: u8,
    select: u8,
    redirection: [u64; PINS],
    /// Levels of the lines, one bit each.
    lines: u32,
}

impl Default for IoApic {
    fn default() -> Self {
        IoApic::new()
    }
}

impl IoApic {
    /// At power-on: all pins masked.
    pub fn new() -> IoApic {
        IoApic { id: 0, select: 0, redirection: [MASKED; PINS], lines: 0 }
    }

    /// Reads at `offset` (0 to 0xfff) of the register page.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            SELECT => self.select.into(),
            WINDOW => self.read_selected(),
            _ => 0,
        }
    }

    /// Writes at `offset` of the register page. Returns the messages to [`crate::deliver`].
    pub fn write(&mut self, offset: u64, value: u32) -> Vec<Message> {
        match offset {
            SELECT => self.select = value as u8,
            WINDOW => return self.write_selected(value).into_iter().collect(),
            END_OF_INTERRUPT => return self.end_of_interrupt(value as u8),
            _ => {}
        }
        Vec::new()
    }

    /// Sets the line of `pin`. Returns the message to [`crate::deliver`], if that interrupts. An edge on a masked
    /// pin is lost.
    pub fn set_irq(&mut self, pin: u8, level: bool) -> Option<Message> {
        let index = usize::from(pin);
        let entry = *self.redirection.get(index)?;
        let bit = 1 << index;
        let rose = level && self.lines & bit == 0;
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
        if entry & LEVEL != 0 {
            self.assert_level(index)
        } else if rose && entry & MASKED == 0 {
            message(entry)
        } else {
            None
        }
    }

    /// A low-high-low pulse on the line of `pin`.
    pub fn pulse(&mut self, pin: u8) -> Option<Message> {
        self.set_irq(pin, false);
        let message = self.set_irq(pin, true);
        self.set_irq(pin, false);
        message
    }

    /// A local APIC announced the end of level-triggered `vector`. Returns what still asserted lines send again.
    pub fn end_of_interrupt(&mut self, vector: u8) -> Vec<Message> {
        let ended = |entry: u64| entry & LEVEL != 0 && entry as u8 == vector;
        let pins: Vec<usize> = (0..PINS).filter(|&pin| ended(self.redirection[pin])).collect();
        for &pin in &pins {
            self.redirection[pin] &= !REMOTE_IRR;
        }
        pins.into_iter().filter_map(|pin| self.assert_level(pin)).collect()
    }

    /// Sends the interrupt of a level-triggered pin whose line is high and whose last one ended.
    fn assert_level(&mut self, pin: usize) -> Option<Message> {
        let entry = self.redirection[pin];
        if entry & LEVEL == 0 || entry & (MASKED | REMOTE_IRR) != 0 || self.lines >> pin & 1 == 0 {
            return None;
        }
        let message = message(entry)?;
        self.redirection[pin] |= REMOTE_IRR;
        Some(message)
    }

    fn read_selected(&self) -> u32 {
        match self.select {
            0 | 2 => u32::from(self.id) << 24,
            1 => VERSION,
            register => match self.redirection.get(usize::from(register.wrapping_sub(0x10) >> 1)) {
                Some(entry) if register & 1 == 0 => *entry as u32,
                Some(entry) => (*entry >> 32) as u32,
                None => 0,
            },
        }
    }

    fn write_selected(&mut self, value: u32) -> Option<Message> {
        if self.select == 0 {
            self.id = (value >> 24) as u8 & 0xf;
            return None;
        }
        let pin = usize::from(self.select.checked_sub(0x10)? >> 1);
        let entry = self.redirection.get_mut(pin)?;
        let shift = if self.select & 1 == 0 { 0 } else { 32 };
        let half = WRITABLE & 0xffff_ffff << shift;
        *entry = *entry & !half | u64::from(value) << shift & half;
        if *entry & LEVEL == 0 {
            *entry &= !REMOTE_IRR;
        }
        self.assert_level(pin)
    }
}

/// The message that a redirection entry sends, `None` for a reserved delivery mode.
fn message(entry: u64) -> Option<Message> {
    let field = (entry >> 56) as u8;
    Some(Message {
        destination: if entry & LOGICAL == 0 {
            Destination::Physical(field)
        } else {
            Destination::Logical(field)
        },
        delivery: Delivery::from_bits((entry >> 8) as u32)?,
        vector: entry as u8,
        level: entry & LEVEL != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(ioapic: &mut IoApic, pin: u8, entry: u64) -> Vec<Message> {
        ioapic.write(SELECT, u32::from(0x11 + 2 * pin));
        let mut sent = ioapic.write(WINDOW, (entry >> 32) as u32);
        ioapic.write(SELECT, u32::from(0x10 + 2 * pin));
        sent.extend(ioapic.write(WINDOW, entry as u32));
        sent
    }

    fn low_word(ioapic: &mut IoApic, pin: u8) -> u64 {
        ioapic.write(SELECT, u32::from(0x10 + 2 * pin));
        ioapic.read(WINDOW).into()
    }

    #[test]
    fn version_and_id_read() {
        let mut ioapic = IoApic::new();
        ioapic.write(SELECT, 1);
        assert_eq!(ioapic.read(WINDOW), 0x0017_0020);
        ioapic.write(SELECT, 0);
        ioapic.write(WINDOW, 0x0500_0000);
        assert_eq!(ioapic.read(WINDOW), 0x0500_0000);
        ioapic.write(SELECT, 0x40);
        assert_eq!(ioapic.read(WINDOW), 0, "behind the last pin");
    }

    #[test]
    fn an_edge_sends_once() {
        let mut ioapic = IoApic::new();
        assert_eq!(ioapic.set_irq(4, true), None, "masked");
        assert!(redirect(&mut ioapic, 4, 2 << 56 | 0x34).is_empty(), "the edge was lost");
        assert_eq!(ioapic.set_irq(4, true), None, "no edge");
        ioapic.set_irq(4, false);
        let sent = ioapic.set_irq(4, true).expect("an edge");
        assert_eq!((sent.destination, sent.vector, sent.level), (Destination::Physical(2), 0x34, false));
        assert!(ioapic.pulse(4).is_some());
        assert_eq!(ioapic.pulse(200), None);
    }

    #[test]
    fn a_level_sends_again_after_its_end() {
        let mut ioapic = IoApic::new();
        ioapic.set_irq(9, true);
        let sent = redirect(&mut ioapic, 9, LEVEL | LOGICAL | 1 << 56 | 0x59);
        assert_eq!(sent.len(), 1, "unmasking shows a line that is high");
        assert_eq!((sent[0].destination, sent[0].level), (Destination::Logical(1), true));
        assert_eq!(low_word(&mut ioapic, 9) & REMOTE_IRR, REMOTE_IRR);
        assert_eq!(ioapic.set_irq(9, true), None);
        assert!(ioapic.end_of_interrupt(0x58).is_empty());
        assert_eq!(ioapic.end_of_interrupt(0x59).len(), 1, "still high");
        ioapic.set_irq(9, false);
        assert!(ioapic.write(END_OF_INTERRUPT, 0x59).is_empty());
        assert_eq!(low_word(&mut ioapic, 9) & REMOTE_IRR, 0);
    }

    #[test]
    fn switching_to_edge_clears_remote_irr() {
        let mut ioapic = IoApic::new();
        redirect(&mut ioapic, 9, LEVEL | 0x59);
        ioapic.set_irq(9, true);
        redirect(&mut ioapic, 9, MASKED | 0x59);
        assert_eq!(low_word(&mut ioapic, 9) & REMOTE_IRR, 0);
    }

    #[test]
    fn read_only_bits_stay() {
        let mut ioapic = IoApic::new();
        redirect(&mut ioapic, 0, u64::MAX);
        assert_eq!(low_word(&mut ioapic, 0), 0x1_afff);
    }
}
