//! PCI configuration mechanism #1 with nothing behind it.
//!
//! The address register latches, so that Linux finds the mechanism (pci_check_type1) and with it registers pmem of
//! e820 type 12; every device reads as absent.

use serde::{Deserialize, Serialize};

use crate::map::port;

/// Ports 0xcf8 to 0xcff, without 0xcf9, which belongs to [`crate::Power`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciConfig {
    address: u32,
}

impl PciConfig {
    /// IN of `size` bytes.
    pub fn read(&self, port: u16, size: usize) -> u32 {
        if port == port::PCI_ADDRESS && size == 4 { self.address } else { u32::MAX }
    }

    /// OUT of `size` bytes. Only a 32-bit write to 0xcf8 does anything.
    pub fn write(&mut self, port: u16, size: usize, value: u32) {
        if port == port::PCI_ADDRESS && size == 4 {
            self.address = value & 0x80ff_fffc;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_latches_and_no_device_answers() {
        let mut pci = PciConfig::default();
        pci.write(0xcfb, 1, 1);
        pci.write(0xcf8, 4, 0x8000_0000);
        assert_eq!(pci.read(0xcf8, 4), 0x8000_0000);
        assert_eq!(pci.read(0xcfc, 4), u32::MAX);
        assert_eq!(pci.read(0xcfa, 1), u32::MAX);
    }
}
