//! QEMU's firmware configuration (QEMU: docs/specs/fw_cfg.rst) as far as test suites for bare machines ask it for
//! memory and processors. Read-only, without DMA and files. ACPI does not announce it: Linux does not look.

use serde::{Deserialize, Serialize};

use crate::map::port;

/// Keys of QEMU's include/standard-headers/linux/qemu_fw_cfg.h and hw/i386/fw_cfg.h.
const SIGNATURE: u16 = 0x00;
const ID: u16 = 0x01;
const RAM_SIZE: u16 = 0x03;
const NB_CPUS: u16 = 0x05;
const MAX_CPUS: u16 = 0x0f;

/// ID: the traditional interface, no DMA.
const TRADITIONAL: u32 = 1;

/// Ports 0x510 (selector, 16 bits) and 0x511 (data, one byte after the other).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfg {
    memory: u64,
    cpus: u16,
    key: u16,
    offset: u32,
}

impl FwCfg {
    /// Tells of `memory` bytes of RAM and `cpus` processors.
    pub fn new(memory: u64, cpus: u16) -> FwCfg {
        FwCfg { memory, cpus, key: SIGNATURE, offset: 0 }
    }

    /// OUT of `size` bytes. Only a 16-bit one to the selector does anything: it begins an item.
    pub fn write(&mut self, port: u16, size: usize, value: u32) {
        if port == port::FW_CFG_SELECTOR && size == 2 {
            (self.key, self.offset) = (value as u16, 0);
        }
    }

    /// IN of one byte: the item's next one. Behind its end, and of items that do not exist, zero.
    pub fn read(&mut self, port: u16) -> u8 {
        if port != port::FW_CFG_DATA {
            return 0xff;
        }
        let at = self.offset as usize;
        self.offset = self.offset.saturating_add(1);
        let byte = |item: &[u8]| item.get(at).copied().unwrap_or(0);
        match self.key {
            SIGNATURE => byte(b"QEMU"),
            ID => byte(&TRADITIONAL.to_le_bytes()),
            RAM_SIZE => byte(&self.memory.to_le_bytes()),
            NB_CPUS | MAX_CPUS => byte(&self.cpus.to_le_bytes()),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(device: &mut FwCfg, key: u32) -> [u8; 8] {
        device.write(0x510, 2, key);
        std::array::from_fn(|_| device.read(0x511))
    }

    #[test]
    fn items_are_read_byte_by_byte_and_end_in_zeros() {
        let mut device = FwCfg::new(0x1234_5678_9abc, 3);
        assert_eq!(item(&mut device, 0), *b"QEMU\0\0\0\0");
        assert_eq!(item(&mut device, 1), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(item(&mut device, 3), 0x1234_5678_9abcu64.to_le_bytes());
        assert_eq!(item(&mut device, 5), [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(item(&mut device, 0xf), [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(item(&mut device, 0x19), [0; 8]);
    }

    #[test]
    fn nothing_but_a_16_bit_selection_begins_an_item() {
        let mut device = FwCfg::new(0, 1);
        assert_eq!(device.read(0x511), b'Q');
        device.write(0x510, 1, 1);
        device.write(0x511, 2, 1);
        assert_eq!(device.read(0x511), b'E');
        assert_eq!(device.read(0x510), 0xff);
        device.write(0x510, 2, 0);
        assert_eq!(device.read(0x511), b'Q');
    }
}
