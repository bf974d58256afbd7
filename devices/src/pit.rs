//! The 8254 interval timer and port 0x61.

use serde::{Deserialize, Serialize};

/// Ports 0x40 to 0x43 and 0x61.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pit {}

impl Pit {
    /// At power-on: nothing counts.
    pub fn new() -> Pit {
        todo!()
    }
    /// IN of one byte.
    pub fn read(&mut self, _port: u16, _now: u64) -> u8 {
        todo!()
    }
    /// OUT of one byte. Ask [`Pit::deadline`] afterwards.
    pub fn write(&mut self, _port: u16, _value: u8, _now: u64) {
        todo!()
    }
    /// When the output of channel 0 next rises, or `None` if it will not.
    pub fn deadline(&self) -> Option<u64> {
        todo!()
    }
    /// Whether the output of channel 0 rose until `now`: then IRQ 0 is due, [`crate::IoApic::pulse`]. The next
    /// deadline is after `now`.
    pub fn expire(&mut self, _now: u64) -> bool {
        todo!()
    }
}
