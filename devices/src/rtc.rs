//! The CMOS real-time clock (MC146818): binary coded decimal, 24 hours, no interrupts.
//!
//! Its clock is virtual time. Update-in-progress always reads clear: Linux waits a whole second for it otherwise.

use serde::{Deserialize, Serialize};
use time::{Date, Month, OffsetDateTime, Time};

use crate::map::port;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
/// Where the FADT says the century is.
pub(crate) const CENTURY: u8 = 0x32;

/// Divider for 32.768 kHz, 1024 Hz periodic rate.
const REGISTER_A_DEFAULT: u8 = 0x26;
/// Register B: 24 hours, binary coded decimal.
const HOURS_24: u8 = 1 << 1;
/// Register B: the time is being set and stands still.
const SET: u8 = 1 << 7;
/// Register D: the battery is good.
const VALID: u8 = 1 << 7;

const NANOSECONDS: u64 = 1_000_000_000;

/// Ports 0x70 and 0x71.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtc {
    /// Seconds since 1970 at power-on.
    start: i64,
    /// Seconds that the guest moved the clock by.
    moved: i64,
    index: u8,
    register_b: u8,
    /// Time as the guest is setting it, in the order of [`Rtc::fields`].
    setting: Option<[u8; 8]>,
    /// Bytes 0x0e to 0x7f and the alarm: what a battery keeps.
    memory: Vec<u8>,
}

/// Registers of the time, in the order of `setting`.
const FIELDS: [u8; 8] = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];

impl Rtc {
    /// 2024-01-01T00:00:00Z, the time at power-on unless told otherwise.
    pub const DEFAULT_START: i64 = 1_704_067_200;

    /// At power-on, `now` = 0, at `start` seconds since 1970.
    pub fn new(start: i64) -> Rtc {
        let memory = vec![0; 128];
        Rtc { start, moved: 0, index: 0, register_b: HOURS_24, setting: None, memory }
    }

    /// The clock of the same machine after its power was cut: the bytes in CMOS stay, time begins again at `start`.
    pub fn power_loss(&self) -> Rtc {
        Rtc { memory: self.memory.clone(), ..Rtc::new(self.start) }
    }

    /// IN of one byte.
    pub fn read(&self, port: u16, now: u64) -> u8 {
        if port != port::RTC + 1 {
            return 0xff;
        }
        match self.index {
            REGISTER_A => REGISTER_A_DEFAULT,
            REGISTER_B => self.register_b,
            REGISTER_C => 0,
            REGISTER_D => VALID,
            index => match field(index) {
                Some(field) => self.setting.unwrap_or_else(|| self.fields(now))[field],
                None => self.memory.get(usize::from(index)).copied().unwrap_or(0),
            },
        }
    }

    /// OUT of one byte.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        if port == port::RTC {
            self.index = value & 0x7f; // bit 7 masks NMI, which nothing here sends
        }
        if port != port::RTC + 1 {
            return;
        }
        match self.index {
            REGISTER_A | REGISTER_C | REGISTER_D => {}
            REGISTER_B => self.set_register_b(value, now),
            index => match field(index) {
                Some(field) => self.set_field(field, value, now),
                None => self.memory.iter_mut().skip(index.into()).take(1).for_each(|byte| *byte = value),
            },
        }
    }

    /// Only the SET bit can be changed: format and interrupts are as they are.
    fn set_register_b(&mut self, value: u8, now: u64) {
        self.register_b = HOURS_24 | value & SET;
        if value & SET != 0 {
            let fields = self.fields(now);
            self.setting.get_or_insert(fields);
        } else if let Some(fields) = self.setting.take() {
            self.set_time(&fields, now);
        }
    }

    fn set_field(&mut self, field: usize, value: u8, now: u64) {
        match &mut self.setting {
            Some(fields) => fields[field] = value,
            None => {
                let mut fields = self.fields(now);
                fields[field] = value;
                self.set_time(&fields, now);
            }
        }
    }

    /// The clock in seconds since 1970.
    fn seconds(&self, now: u64) -> i64 {
        self.start.saturating_add(self.moved).saturating_add((now / NANOSECONDS) as i64)
    }

    fn fields(&self, now: u64) -> [u8; 8] {
        let time =
            OffsetDateTime::from_unix_timestamp(self.seconds(now)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let year = time.year().rem_euclid(10_000) as u16;
        [
            time.second(),
            time.minute(),
            time.hour(),
            time.weekday().number_from_sunday(),
            time.day(),
            time.month().into(),
            (year % 100) as u8,
            (year / 100) as u8,
        ]
        .map(to_bcd)
    }

    /// Takes over what the guest set. What is no time is ignored.
    fn set_time(&mut self, fields: &[u8; 8], now: u64) {
        let [second, minute, hour, _, day, month, year, century] = fields.map(from_bcd);
        let year = i32::from(century) * 100 + i32::from(year);
        let date = Month::try_from(month).and_then(|month| Date::from_calendar_date(year, month, day));
        if let (Ok(date), Ok(time)) = (date, Time::from_hms(hour, minute, second)) {
            let seconds = OffsetDateTime::new_utc(date, time).unix_timestamp();
            self.moved = seconds.saturating_sub(self.start).saturating_sub((now / NANOSECONDS) as i64);
        }
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Rtc::new(Rtc::DEFAULT_START)
    }
}

fn field(index: u8) -> Option<usize> {
    FIELDS.iter().position(|&register| register == index)
}

fn to_bcd(value: u8) -> u8 {
    ((value / 10) << 4) | (value % 10)
}

fn from_bcd(value: u8) -> u8 {
    (value >> 4) * 10 + (value & 0xf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(rtc: &mut Rtc, index: u8, now: u64) -> u8 {
        rtc.write(0x70, index, now);
        rtc.read(0x71, now)
    }

    fn set(rtc: &mut Rtc, index: u8, value: u8, now: u64) {
        rtc.write(0x70, index, now);
        rtc.write(0x71, value, now);
    }

    fn time(rtc: &mut Rtc, now: u64) -> [u8; 8] {
        FIELDS.map(|index| get(rtc, index, now))
    }

    #[test]
    fn starts_in_2024_and_follows_virtual_time() {
        let mut rtc = Rtc::default();
        assert_eq!(time(&mut rtc, 0), [0, 0, 0, 2, 1, 1, 0x24, 0x20], "a Monday");
        let later = (31 * 86_400 + 13 * 3600 + 45 * 60 + 59) * NANOSECONDS;
        assert_eq!(time(&mut rtc, later + 999_999_999), [0x59, 0x45, 0x13, 5, 1, 2, 0x24, 0x20]);
    }

    #[test]
    fn status_registers_show_a_steady_clock() {
        let mut rtc = Rtc::default();
        assert_eq!([0xa, 0xb, 0xc, 0xd].map(|index| get(&mut rtc, index, 0)), [0x26, 0x02, 0x00, 0x80]);
        set(&mut rtc, REGISTER_A, 0xff, 0);
        assert_eq!(get(&mut rtc, REGISTER_A, 0) & 0x80, 0);
    }

    #[test]
    fn the_guest_sets_the_time_as_linux_does() {
        let mut rtc = Rtc::default();
        set(&mut rtc, REGISTER_B, 0x82, 0);
        for (index, value) in FIELDS.into_iter().zip([0x56, 0x34, 0x12, 7, 0x29, 0x02, 0x32, 0x20]) {
            set(&mut rtc, index, value, 5 * NANOSECONDS);
        }
        set(&mut rtc, REGISTER_B, 0x02, 10 * NANOSECONDS);
        assert_eq!(time(&mut rtc, 11 * NANOSECONDS)[..3], [0x57, 0x34, 0x12]);
        assert_eq!(time(&mut rtc, 11 * NANOSECONDS)[3..], [1, 0x29, 0x02, 0x32, 0x20]);
    }

    #[test]
    fn what_is_no_time_is_ignored() {
        let mut rtc = Rtc::default();
        set(&mut rtc, MONTH, 0x13, 0);
        set(&mut rtc, DAY, 0xff, 0);
        assert_eq!(time(&mut rtc, 0)[4..6], [1, 1]);
    }

    #[test]
    fn cmos_bytes_survive_a_power_cut() {
        let mut rtc = Rtc::default();
        set(&mut rtc, 0x40, 0x5a, 0);
        set(&mut rtc, YEAR, 0x30, 0);
        let mut rtc = rtc.power_loss();
        assert_eq!(get(&mut rtc, 0x40, 0), 0x5a);
        assert_eq!(get(&mut rtc, YEAR, 0), 0x24);
    }
}
