//! The CMOS real-time clock (MC146818).

use serde::{Deserialize, Serialize};

/// Ports 0x70 and 0x71.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtc {}

impl Rtc {
    /// 2024-01-01T00:00:00Z, the time at power-on unless told otherwise.
    pub const DEFAULT_START: i64 = 1_704_067_200;

    /// At power-on, `now` = 0, at `start` seconds since 1970.
    pub fn new(_start: i64) -> Rtc {
        todo!()
    }
    /// The clock after a power cut: CMOS bytes stay, time restarts at the original start.
    pub fn power_loss(&self) -> Rtc {
        todo!()
    }
    /// IN of one byte.
    pub fn read(&self, _port: u16, _now: u64) -> u8 {
        todo!()
    }
    /// OUT of one byte.
    pub fn write(&mut self, _port: u16, _value: u8, _now: u64) {
        todo!()
    }
}
