//! PCI configuration mechanism #1, with nothing behind it, or with a host bridge that does nothing.
//!
//! The address register latches. Linux makes e820 type 12 known to its drivers only where it has found a way to PCI
//! configuration (pcibios_init calls pcibios_resource_survey, and that e820__reserve_resources_late), and believes in the
//! mechanism only when a host bridge answers (pci_sanity_check). So a machine with legacy persistent memory has one; in
//! every other, each device reads as absent, as nobody needs one.

use serde::{Deserialize, Serialize};

use crate::map::port;

/// Ports 0xcf8 to 0xcff, without 0xcf9, which belongs to [`crate::Power`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciConfig {
    address: u32,
    host_bridge: bool,
}

/// Enable bit of the address register; function 0 of device 0 of bus 0.
const HOST_BRIDGE: u32 = 1 << 31;
/// Registers of the host bridge that are not zero, by their number: vendor and device (QEMU's generic host bridge, of
/// which Linux has no quirk), class.
const HOST_BRIDGE_REGISTERS: [(u32, u32); 2] = [(0x00, 0x0008_1b36), (0x08, 0x0600_0000)];

impl PciConfig {
    /// With a host bridge at 00:00.0, or without.
    pub fn new(host_bridge: bool) -> PciConfig {
        PciConfig { address: 0, host_bridge }
    }

    /// IN of `size` bytes.
    pub fn read(&self, port: u16, size: usize) -> u32 {
        if port == port::PCI_ADDRESS && size == 4 {
            return self.address;
        }
        let Some(byte) = port.checked_sub(port::PCI_DATA).filter(|_| self.host_bridge) else {
            return u32::MAX;
        };
        if self.address & !0xff != HOST_BRIDGE {
            return u32::MAX;
        }
        let register = self.address & 0xfc;
        let found = HOST_BRIDGE_REGISTERS.iter().find(|(number, _)| *number == register);
        found.map_or(0, |(_, value)| value >> (8 * byte).min(31) & u32::MAX >> (32 - 8 * size.clamp(1, 4)))
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
    fn the_host_bridge_answers_at_its_place_only() {
        let mut pci = PciConfig::new(true);
        let mut read = |address, port, size| {
            pci.write(0xcf8, 4, address);
            pci.read(port, size)
        };
        assert_eq!(read(0x8000_0000, 0xcfc, 4), 0x0008_1b36);
        assert_eq!(read(0x8000_0008, 0xcfe, 2), 0x0600, "class: host bridge");
        assert_eq!(read(0x8000_0010, 0xcfc, 4), 0, "no address ranges");
        assert_eq!(read(0x8000_0100, 0xcfc, 4), u32::MAX, "no other function");
        assert_eq!(read(0, 0xcfc, 4), u32::MAX, "not enabled");
    }

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
