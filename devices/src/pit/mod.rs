//! The 8254 interval timer and port 0x61.
//!
//! Linux needs it only when CPUID does not tell the frequencies: channel 2 to measure the TSC, channel 0 to check
//! that the IOAPIC delivers (timer_irq_works).

mod channel;

use serde::{Deserialize, Serialize};

use crate::map::port;
use channel::Channel;

/// Port of the control word.
const CONTROL: u16 = port::PIT + 3;
/// Nanoseconds after which the refresh bit of port 0x61 toggles.
const REFRESH: u64 = 15_085;

/// Ports 0x40 to 0x43 and 0x61.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pit {
    channels: [Channel; 3],
    /// Bits 1:0 of port 0x61: gate of channel 2, speaker.
    speaker: u8,
}

impl Pit {
    /// At power-on: nothing counts. The gates of channels 0 and 1 are always high.
    pub fn new() -> Pit {
        Pit { channels: [Channel::new(true), Channel::new(true), Channel::new(false)], speaker: 0 }
    }

    /// IN of one byte.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        match port {
            port::SPEAKER => {
                let refresh = ((now / REFRESH) & 1) as u8;
                self.speaker | refresh << 4 | u8::from(self.channels[2].output(now)) << 5
            }
            port::PIT..CONTROL => self.channels[usize::from(port - port::PIT)].read(now),
            _ => 0,
        }
    }

    /// OUT of one byte. Ask [`Pit::deadline`] afterwards.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        match port {
            port::SPEAKER => {
                self.speaker = value & 3;
                self.channels[2].set_gate(value & 1 != 0, now);
            }
            port::PIT..CONTROL => self.channels[usize::from(port - port::PIT)].write(value, now),
            CONTROL => self.control(value, now),
            _ => {}
        }
    }

    /// When the output of channel 0 next rises, or `None` if it will not.
    pub fn deadline(&self) -> Option<u64> {
        self.channels[0].next_rise()
    }

    /// Whether the output of channel 0 rose until `now`: then IRQ 0 is due, [`crate::IoApic::pulse`]. The next
    /// deadline is after `now`.
    pub fn expire(&mut self, now: u64) -> bool {
        self.channels[0].rose(now)
    }

    fn control(&mut self, value: u8, now: u64) {
        let channel = usize::from(value >> 6);
        if channel == 3 {
            self.read_back(value, now);
        } else if value & 0x30 == 0 {
            self.channels[channel].latch_count(now);
        } else {
            self.channels[channel].configure(value);
        }
    }

    /// Bit 5 clear latches counts, bit 4 clear status, of the channels in bits 3:1.
    fn read_back(&mut self, value: u8, now: u64) {
        for (index, channel) in self.channels.iter_mut().enumerate() {
            if value >> (index + 1) & 1 == 0 {
                continue;
            }
            if value & 0x20 == 0 {
                channel.latch_count(now);
            }
            if value & 0x10 == 0 {
                channel.latch_status(now);
            }
        }
    }
}

impl Default for Pit {
    fn default() -> Self {
        Pit::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nanoseconds of so many ticks, rounded up.
    fn after(ticks: u64) -> u64 {
        (ticks * 1_000_000_000).div_ceil(1_193_182)
    }

    fn programmed(control: u8, count: u16) -> Pit {
        let mut pit = Pit::new();
        let port = port::PIT + u16::from(control >> 6);
        pit.write(0x43, control, 0);
        pit.write(port, count as u8, 0);
        pit.write(port, (count >> 8) as u8, 0);
        pit
    }

    #[test]
    fn at_power_on_nothing_is_due() {
        assert_eq!(Pit::new().deadline(), None);
    }

    #[test]
    fn rate_generator_interrupts_every_period() {
        let mut pit = programmed(0x34, 4773); // mode 2, HZ=250
        let first = pit.deadline().unwrap();
        assert_eq!(first, after(4773));
        assert!(!pit.expire(first - 1));
        assert!(pit.expire(first));
        assert!(!pit.expire(first));
        assert_eq!(pit.deadline(), Some(after(2 * 4773)));
        assert!(pit.expire(after(5 * 4773)), "missed ones count once");
        assert_eq!(pit.deadline(), Some(after(6 * 4773)));
    }

    #[test]
    fn square_wave_halves_its_period() {
        let mut pit = programmed(0x36, 1000);
        assert_eq!(pit.deadline(), Some(after(1000)));
        assert!(pit.channels[0].output(after(499)));
        assert!(!pit.channels[0].output(after(500)));
        assert_eq!(u16::from_le_bytes([pit.read(0x40, after(100)), pit.read(0x40, after(100))]), 800);
    }

    #[test]
    fn terminal_count_interrupts_once() {
        let mut pit = programmed(0x30, 0);
        assert_eq!(pit.deadline(), Some(after(0x1_0000)));
        assert!(pit.expire(after(0x1_0000)));
        assert_eq!(pit.deadline(), None);
    }

    #[test]
    fn strobe_ends_one_tick_after_the_count() {
        let mut pit = programmed(0x38, 100);
        assert_eq!(pit.deadline(), Some(after(101)));
        assert!(!pit.channels[0].output(after(100)));
        assert!(pit.expire(after(101)));
        assert_eq!(pit.deadline(), None);
    }

    #[test]
    fn channel_two_shows_its_end_in_port_61() {
        // As pit_calibrate_tsc does: gate up, speaker off, mode 0, wait for bit 5.
        let mut pit = Pit::new();
        pit.write(0x61, pit.clone().read(0x61, 0) & !2 | 1, 0);
        pit.write(0x43, 0xb0, 0);
        pit.write(0x42, 0x00, 0);
        pit.write(0x42, 0x10, 0);
        assert_eq!(pit.read(0x61, after(0xfff)) & 0x23, 0x01);
        assert_eq!(pit.read(0x61, after(0x1000)) & 0x23, 0x21);
    }

    #[test]
    fn a_low_gate_halts_the_count() {
        let mut pit = Pit::new();
        pit.write(0x61, 1, 0);
        pit.write(0x43, 0xb0, 0);
        pit.write(0x42, 100, 0);
        pit.write(0x42, 0, 0);
        pit.write(0x61, 0, after(40));
        pit.write(0x61, 1, after(1000));
        assert_eq!(pit.read(0x61, after(1055)) & 0x20, 0);
        assert_eq!(pit.read(0x61, after(1065)) & 0x20, 0x20);
    }

    #[test]
    fn a_latched_count_stands_still() {
        let mut pit = programmed(0x30, 0xffff);
        pit.write(0x43, 0x00, after(0x100));
        let latched = [pit.read(0x40, after(0x200)), pit.read(0x40, after(0x300))];
        assert_eq!(u16::from_le_bytes(latched), 0xfeff);
        let live = [pit.read(0x40, after(0x400)), pit.read(0x40, after(0x400))];
        assert_eq!(u16::from_le_bytes(live), 0xfbff);
    }

    #[test]
    fn read_back_tells_mode_and_output() {
        let mut pit = programmed(0x34, 100);
        pit.write(0x43, 0xe2, 0);
        assert_eq!(pit.read(0x40, 0), 0xb4);
        assert_eq!(pit.read(0x40, 0), 100, "then the count again");
    }

    #[test]
    fn bcd_counts_in_decimal() {
        let mut pit = programmed(0x31, 0x0100);
        assert_eq!(pit.deadline(), Some(after(100)));
        assert_eq!(pit.read(0x40, after(1)), 0x99);
    }
}
