//! The serial console: vm-superio's 16550 at 0x3f8.

use serde::{Deserialize, Serialize};

/// 16550A on IRQ 4. Output goes out at once, so it is never part of the state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Serial {}

impl Serial {
    /// At power-on.
    pub fn new() -> Serial {
        todo!()
    }
    /// IN of register `offset` (0 to 7).
    pub fn read(&mut self, _offset: u8) -> u8 {
        todo!()
    }
    /// OUT to register `offset` (0 to 7). Returns the byte that left on the wire, if one did.
    pub fn write(&mut self, _offset: u8, _value: u8) -> Option<u8> {
        todo!()
    }
    /// Level of the interrupt line: feed it to [`crate::IoApic::set_irq`] after every access.
    pub fn irq(&self) -> bool {
        todo!()
    }
    /// Bytes arriving on the wire. Returns how many fitted into the receive queue.
    pub fn receive(&mut self, _bytes: &[u8]) -> usize {
        todo!()
    }
}
