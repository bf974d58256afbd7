//! One of the three counters of the 8254.
//!
//! Nothing ticks: a counter remembers since when it counts, and everything else follows from the time.

use serde::{Deserialize, Serialize};

/// Input clock of the counters in Hz.
const FREQUENCY: u128 = 1_193_182;
const NANOSECONDS: u128 = 1_000_000_000;

/// Ticks of the input clock until `now`.
fn ticks(now: u64) -> u64 {
    (u128::from(now) * FREQUENCY / NANOSECONDS) as u64
}

/// The first nanosecond at which `ticks` ticks are over.
fn nanoseconds(ticks: u64) -> u64 {
    (u128::from(ticks) * NANOSECONDS).div_ceil(FREQUENCY).try_into().unwrap_or(u64::MAX)
}

/// Which bytes of the count are read and written: bits 5:4 of the control word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Access {
    Low,
    High,
    LowThenHigh,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Channel {
    mode: u8,
    access: Access,
    bcd: bool,
    gate: bool,
    /// Count as loaded, 1 to 65536 (10000 in BCD), or `None` before the first one.
    load: Option<u64>,
    /// Ticks counted before `since`.
    counted: u64,
    /// Tick since which the counter runs, `None` while it stands still.
    since: Option<u64>,
    /// Ticks until which [`Channel::rose`] has been asked.
    observed: u64,
    /// Low byte written, waiting for its high byte.
    low_written: Option<u8>,
    /// The low byte was read, the high one is next.
    high_next: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Channel {
    pub fn new(gate: bool) -> Channel {
        Channel {
            mode: 0,
            access: Access::LowThenHigh,
            bcd: false,
            gate,
            load: None,
            counted: 0,
            since: None,
            observed: 0,
            low_written: None,
            high_next: false,
            latched_count: None,
            latched_status: None,
        }
    }

    /// A control word for this counter that is neither a latch nor a read-back command.
    pub fn configure(&mut self, control: u8) {
        let access = match control >> 4 & 3 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowThenHigh,
        };
        let mode = control >> 1 & 7;
        let mode = if mode > 5 { mode & 3 } else { mode };
        *self = Channel { mode, access, bcd: control & 1 != 0, ..Channel::new(self.gate) };
    }

    pub fn write(&mut self, value: u8, now: u64) {
        let count = match (self.access, self.low_written.take()) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::LowThenHigh, Some(low)) => u16::from_le_bytes([low, value]),
            (Access::LowThenHigh, None) => {
                self.low_written = Some(value);
                return;
            }
        };
        self.load = Some(match (count, self.bcd) {
            (0, _) => self.modulus(),
            (_, true) => from_bcd(count),
            (_, false) => count.into(),
        });
        self.restart();
        if self.gate && !self.waits_for_gate() {
            self.since = Some(ticks(now));
        }
    }

    pub fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let count = self.latched_count.unwrap_or_else(|| self.count(now));
        let [low, high] = count.to_le_bytes();
        match self.access {
            Access::LowThenHigh if !self.high_next => {
                self.high_next = true;
                low
            }
            access => {
                self.high_next = false;
                self.latched_count = None;
                if access == Access::Low { low } else { high }
            }
        }
    }

    pub fn latch_count(&mut self, now: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.count(now));
        }
    }

    pub fn latch_status(&mut self, now: u64) {
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::LowThenHigh => 3,
        };
        let output = u8::from(self.output(now)) << 7;
        let null_count = u8::from(self.load.is_none()) << 6;
        let status = output | null_count | access << 4 | self.mode << 1 | u8::from(self.bcd);
        self.latched_status.get_or_insert(status);
    }

    /// A low gate halts modes 0, 2, 3 and 4; a rising one restarts modes 1, 2, 3 and 5.
    pub fn set_gate(&mut self, gate: bool, now: u64) {
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        if self.load.is_none() {
            return;
        }
        if gate {
            if !matches!(self.mode, 0 | 4) {
                self.restart();
            }
            self.since = Some(ticks(now));
        } else if !self.waits_for_gate() {
            self.counted = self.elapsed(now);
            self.since = None;
        }
    }

    pub fn output(&self, now: u64) -> bool {
        let Some(load) = self.load else {
            return self.mode != 0;
        };
        let elapsed = self.elapsed(now);
        match self.mode {
            0 => elapsed >= load,
            1 => self.since.is_none() || elapsed >= load,
            2 => self.since.is_none() || elapsed % load != load - 1,
            3 => self.since.is_none() || elapsed % load < load.div_ceil(2),
            _ => elapsed != load,
        }
    }

    /// When the output next rises, after what [`Channel::rose`] has told.
    pub fn next_rise(&self) -> Option<u64> {
        let since = self.since?;
        let rise = self.rise_after(self.observed)?;
        Some(nanoseconds(since.saturating_add(rise.saturating_sub(self.counted))))
    }

    /// Whether the output rose between the last question and `now`.
    pub fn rose(&mut self, now: u64) -> bool {
        let elapsed = self.elapsed(now);
        let rose = self.rise_after(self.observed).is_some_and(|rise| rise <= elapsed);
        self.observed = self.observed.max(elapsed);
        rose
    }

    /// The first rise of the output later than `elapsed` ticks after loading.
    fn rise_after(&self, elapsed: u64) -> Option<u64> {
        let load = self.load?;
        match self.mode {
            0 | 1 => Some(load).filter(|&rise| rise > elapsed),
            2 | 3 => Some((elapsed / load + 1) * load),
            _ => Some(load + 1).filter(|&rise| rise > elapsed),
        }
    }

    /// What the counter shows: modes 2 and 3 start over, the others go on through zero.
    fn count(&self, now: u64) -> u16 {
        let elapsed = self.elapsed(now);
        let load = self.load.unwrap_or(0);
        let modulus = self.modulus();
        let count = match self.mode {
            2 if load != 0 => load - elapsed % load,
            3 if load != 0 => load - 2 * elapsed % load,
            _ => (load + modulus - elapsed % modulus) % modulus,
        };
        if self.bcd { to_bcd(count) } else { count as u16 }
    }

    fn elapsed(&self, now: u64) -> u64 {
        let running = self.since.map_or(0, |since| ticks(now).saturating_sub(since));
        self.counted.saturating_add(running)
    }

    fn restart(&mut self) {
        self.counted = 0;
        self.observed = 0;
        self.since = None;
    }

    /// Modes 1 and 5 begin when the gate rises and then ignore it.
    fn waits_for_gate(&self) -> bool {
        matches!(self.mode, 1 | 5)
    }

    fn modulus(&self) -> u64 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }
}

fn from_bcd(value: u16) -> u64 {
    (0..4).rev().fold(0, |sum, digit| sum * 10 + u64::from(value >> (4 * digit) & 0xf))
}

fn to_bcd(value: u64) -> u16 {
    (0..4)
        .fold((0, value % 10_000), |(bcd, rest), digit| {
            (bcd | ((rest % 10) as u16) << (4 * digit), rest / 10)
        })
        .0
}
