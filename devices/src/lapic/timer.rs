//! The timer of the local APIC (SDM volume 3, 11.5.4). One tick of the undivided clock is one nanosecond.

use serde::{Deserialize, Serialize};

/// Bits 18:17 of the timer's LVT entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
    /// Encoding 3: nothing counts.
    Reserved,
}

impl Mode {
    pub fn from_lvt(entry: u32) -> Mode {
        match entry >> 17 & 3 {
            0 => Mode::OneShot,
            1 => Mode::Periodic,
            2 => Mode::TscDeadline,
            _ => Mode::Reserved,
        }
    }

    fn counts_down(self) -> bool {
        matches!(self, Mode::OneShot | Mode::Periodic)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timer {
    mode: Mode,
    initial_count: u32,
    /// Divide configuration register, as written.
    divide_configuration: u32,
    /// When the count reaches zero or the TSC the deadline.
    expiry: Option<u64>,
}

impl Timer {
    pub fn new() -> Timer {
        Timer { mode: Mode::OneShot, initial_count: 0, divide_configuration: 0, expiry: None }
    }

    /// Switching to or from TSC-deadline mode disarms (SDM volume 3, 11.5.4.1).
    pub fn set_mode(&mut self, mode: Mode) {
        if mode != self.mode && !(mode.counts_down() && self.mode.counts_down()) {
            self.expiry = None;
            self.initial_count = 0;
        }
        self.mode = mode;
    }

    pub fn initial_count(&self) -> u32 {
        self.initial_count
    }

    pub fn set_initial_count(&mut self, count: u32, now: u64) {
        if self.mode.counts_down() {
            self.initial_count = count;
            self.expiry = (count != 0).then(|| now.saturating_add(self.period()));
        }
    }

    pub fn current_count(&self, now: u64) -> u32 {
        match self.expiry {
            Some(expiry) if self.mode.counts_down() => {
                let ticks = expiry.saturating_sub(now).div_ceil(self.divisor());
                ticks.min(u64::from(self.initial_count)) as u32
            }
            _ => 0,
        }
    }

    pub fn divide_configuration(&self) -> u32 {
        self.divide_configuration
    }

    /// Changes the divider; a running count goes on from where it is.
    pub fn set_divide_configuration(&mut self, value: u32, now: u64) {
        let count = u64::from(self.current_count(now));
        self.divide_configuration = value & 0b1011;
        if self.mode.counts_down() && self.expiry.is_some() {
            self.expiry = Some(now.saturating_add(count * self.divisor()));
        }
    }

    pub fn tsc_deadline(&self, now: u64) -> u64 {
        match self.expiry {
            Some(expiry) if self.mode == Mode::TscDeadline && expiry > now => expiry,
            _ => 0,
        }
    }

    pub fn set_tsc_deadline(&mut self, value: u64) {
        if self.mode == Mode::TscDeadline {
            self.expiry = (value != 0).then_some(value);
        }
    }

    pub fn expiry(&self) -> Option<u64> {
        self.expiry
    }

    /// Whether the timer ran out until `now`. However often a periodic timer did, it counts once.
    pub fn expire(&mut self, now: u64) -> bool {
        let Some(expiry) = self.expiry.filter(|&expiry| expiry <= now) else {
            return false;
        };
        self.expiry = match self.mode {
            Mode::Periodic if self.initial_count != 0 => {
                let missed = (now - expiry) / self.period();
                (missed + 1).checked_mul(self.period()).and_then(|span| expiry.checked_add(span))
            }
            _ => None,
        };
        true
    }

    /// Bits 3, 1 and 0 of the divide configuration: 0 divides by 2, ... 6 by 128, 7 by 1.
    fn divisor(&self) -> u64 {
        let code = (self.divide_configuration >> 1 & 4) | (self.divide_configuration & 3);
        1 << ((code + 1) & 7)
    }

    fn period(&self) -> u64 {
        u64::from(self.initial_count) * self.divisor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn periodic(count: u32, now: u64) -> Timer {
        let mut timer = Timer::new();
        timer.set_mode(Mode::Periodic);
        timer.set_divide_configuration(0b1011, now);
        timer.set_initial_count(count, now);
        timer
    }

    #[test]
    fn divide_configuration_follows_the_table() {
        let mut timer = Timer::new();
        let codes = [(0b0000, 2), (0b0001, 4), (0b0010, 8), (0b0011, 16), (0b1000, 32), (0b1001, 64)];
        for (code, divisor) in codes.into_iter().chain([(0b1010, 128), (0b1011, 1)]) {
            timer.set_divide_configuration(code, 0);
            assert_eq!(timer.divisor(), divisor, "code {code:#b}");
        }
    }

    #[test]
    fn one_shot_counts_down_once() {
        let mut timer = Timer::new();
        timer.set_initial_count(100, 1000);
        assert_eq!(timer.expiry(), Some(1200));
        assert_eq!(timer.current_count(1001), 100);
        assert_eq!(timer.current_count(1100), 50);
        assert!(!timer.expire(1199));
        assert!(timer.expire(1200));
        assert_eq!((timer.expiry(), timer.current_count(1200)), (None, 0));
    }

    #[test]
    fn periodic_catches_up_in_one_step() {
        let mut timer = periodic(10, 0);
        assert!(timer.expire(35));
        assert_eq!(timer.expiry(), Some(40));
        assert!(timer.expire(40));
        assert_eq!(timer.expiry(), Some(50));
    }

    #[test]
    fn divider_change_keeps_the_count() {
        let mut timer = periodic(100, 0);
        timer.set_divide_configuration(0b0000, 40);
        assert_eq!(timer.current_count(40), 60);
        assert_eq!(timer.expiry(), Some(160));
    }

    #[test]
    fn leaving_deadline_mode_disarms() {
        let mut timer = Timer::new();
        timer.set_tsc_deadline(5);
        assert_eq!(timer.expiry(), None, "not in deadline mode");
        timer.set_mode(Mode::TscDeadline);
        timer.set_tsc_deadline(500);
        timer.set_initial_count(3, 0);
        assert_eq!((timer.tsc_deadline(499), timer.tsc_deadline(500), timer.initial_count()), (500, 0, 0));
        timer.set_mode(Mode::OneShot);
        assert_eq!(timer.expiry(), None);
    }
}
