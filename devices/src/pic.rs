//! The two 8259 interrupt controllers, as far as Linux looks at them: present, masked, silent.
//!
//! Linux's probe_8259A writes the mask register and reads it back; init_8259A goes through the four initialisation
//! words. Interrupts take the IOAPIC, never this way.

use serde::{Deserialize, Serialize};

/// Ports 0x20, 0x21, 0xa0, 0xa1 and the edge/level registers 0x4d0, 0x4d1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pic {
    chips: [Chip; 2],
    edge_level: [u8; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Chip {
    mask: u8,
    /// Initialisation words still to come on the data port.
    expected: u8,
}

impl Default for Chip {
    fn default() -> Self {
        Chip { mask: 0xff, expected: 0 }
    }
}

impl Pic {
    /// IN of one byte.
    pub fn read(&self, port: u16) -> u8 {
        match port {
            0x21 | 0xa1 => self.chips[usize::from(port == 0xa1)].mask,
            0x4d0 | 0x4d1 => self.edge_level[usize::from(port & 1)],
            _ => 0,
        }
    }

    /// OUT of one byte.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            0x20 | 0xa0 => self.chips[usize::from(port == 0xa0)].command(value),
            0x21 | 0xa1 => self.chips[usize::from(port == 0xa1)].data(value),
            0x4d0 | 0x4d1 => self.edge_level[usize::from(port & 1)] = value,
            _ => {}
        }
    }
}

impl Chip {
    /// ICW1 has bit 4 set and says by bit 1 (single) and bit 0 (ICW4 needed) what follows; OCW2 and OCW3 do nothing
    /// in a controller that never interrupts.
    fn command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            self.mask = 0;
            self.expected = 1 + u8::from(value & 2 == 0) + u8::from(value & 1 != 0);
        }
    }

    fn data(&mut self, value: u8) {
        match self.expected {
            0 => self.mask = value,
            _ => self.expected -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_reads_back_for_the_probe() {
        let mut pic = Pic::default();
        pic.write(0xa1, 0xff);
        pic.write(0x21, 0xfb);
        assert_eq!((pic.read(0x21), pic.read(0xa1)), (0xfb, 0xff));
    }

    #[test]
    fn initialisation_words_are_not_masks() {
        let mut pic = Pic::default();
        for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 0x04), (0x21, 0x01), (0x21, 0xee)] {
            pic.write(port, value);
        }
        assert_eq!(pic.read(0x21), 0xee);
    }
}
