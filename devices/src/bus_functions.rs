//! What the _DSM of the NVDIMM root device does (ACPI 6.4 9.20.7): address range scrub and clearing of media errors.
//!
//! Scrubs take no time: whoever asks for the status of one that was started finds it complete. A status tells at most
//! [`MOST_RECORDS`] errors; behind that it asks to be started again at the next one.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::media_errors::MediaErrors;

/// Bytes that the clearing of errors works on. The kernel clears whole sectors.
pub const CLEAR_UNIT: u64 = 256;
/// Errors that one status tells at most: they share the window of the mailbox with 48 bytes in front of them.
pub const MOST_RECORDS: usize = 40;

/// Numbers of the functions.
mod function {
    pub const CAPABILITIES: u32 = 1;
    pub const START: u32 = 2;
    pub const STATUS: u32 = 3;
    pub const CLEAR: u32 = 4;
}

/// Bit n is set for each function n, function 0 included.
pub(crate) const FUNCTIONS: u8 = 0b1_1111;

/// Status codes (tables 9.315 to 9.322), the lower half of a status.
mod status {
    pub const SUCCESS: u32 = 0;
    pub const NOT_SUPPORTED: u32 = 1;
    pub const INVALID: u32 = 2;
    /// Upper half of the status of a scrub: none was performed since the machine was reset.
    pub const NONE_PERFORMED: u32 = 2 << 16;
    /// Upper half: it ended before the end of the range.
    pub const ENDED_EARLY: u32 = 3 << 16;
    /// Upper half of the capabilities: persistent memory can be scrubbed.
    pub const PERSISTENT: u32 = 2 << 16;
}

/// Scrubs persistent memory.
const TYPE_PERSISTENT: u16 = 2;
/// Flag of a status: there are more errors than it tells.
const OVERFLOW: u16 = 1;

/// The scrub that was started last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrub(Option<Range<u64>>);

/// What a function answers, and what it wants done to the media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusAnswer {
    /// Its output.
    pub output: Vec<u8>,
    /// Lines that are to be repaired: a range of whole lines.
    pub cleared: Option<Range<u64>>,
}

impl Scrub {
    /// Does a function. `regions` are the ranges of persistent memory of which errors are known.
    pub fn call(
        &mut self,
        function: u32,
        input: &[u8],
        errors: &MediaErrors,
        regions: &[Range<u64>],
    ) -> BusAnswer {
        let range = range(input);
        let known = range.as_ref().is_some_and(|range| {
            regions.iter().any(|region| region.start <= range.start && range.end <= region.end)
        });
        let mut cleared = None;
        let output = match function {
            function::CAPABILITIES => capabilities(known),
            function::START => self.start(range.filter(|_| known), input),
            function::STATUS => self.status(errors),
            function::CLEAR => {
                let range = range.filter(|range| known && is_whole_units(range));
                let len = range.as_ref().map_or(0, |range| range.end - range.start);
                let code = if range.is_some() { status::SUCCESS } else { status::INVALID };
                cleared = range;
                Output::default().u32(code).u32(0).u64(len).0
            }
            _ => Output::default().u32(status::NOT_SUPPORTED).0,
        };
        BusAnswer { output, cleared }
    }

    fn start(&mut self, range: Option<Range<u64>>, input: &[u8]) -> Vec<u8> {
        let kind = input.get(16..18).map_or(0, |kind| u16::from_le_bytes([kind[0], kind[1]]));
        let range = range.filter(|_| kind == TYPE_PERSISTENT);
        let code = if range.is_some() { status::SUCCESS } else { status::INVALID };
        if range.is_some() {
            self.0 = range;
        }
        Output::default().u32(code).u32(0).0
    }

    fn status(&self, errors: &MediaErrors) -> Vec<u8> {
        let Some(range) = self.0.clone() else {
            return Output::default().u32(status::NONE_PERFORMED).u32(4).0;
        };
        let found: Vec<Range<u64>> = errors.within(range.clone()).take(MOST_RECORDS + 1).collect();
        let told = &found[..found.len().min(MOST_RECORDS)];
        // Where the next scrub is to begin.
        let rest = found.get(MOST_RECORDS).map_or(0..0, |next| next.start..range.end);
        let end = if rest.is_empty() { range.end } else { rest.start };
        let (code, flags) =
            if rest.is_empty() { (status::SUCCESS, 0) } else { (status::ENDED_EARLY, OVERFLOW) };
        let head = Output::default()
            .u32(code)
            .u32(44 + 24 * told.len() as u32)
            .u64(range.start)
            .u64(end - range.start)
            .u64(rest.start)
            .u64(rest.end - rest.start)
            .u16(TYPE_PERSISTENT)
            .u16(flags)
            .u32(told.len() as u32);
        let record = |output: Output, error: &Range<u64>| {
            // Handle and a reserved word: which NVDIMM it is follows from the address.
            output.u32(0).u32(0).u64(error.start).u64(error.end - error.start)
        };
        told.iter().fold(head, record).0
    }
}

fn capabilities(known: bool) -> Vec<u8> {
    let code = if known { status::SUCCESS | status::PERSISTENT } else { status::NOT_SUPPORTED };
    let most = 48 + 24 * MOST_RECORDS as u32;
    Output::default().u32(code).u32(most).u32(CLEAR_UNIT as u32).u16(0).u16(0).0
}

/// Address and length, with which the inputs of most functions begin.
fn range(input: &[u8]) -> Option<Range<u64>> {
    let word = |at: usize| Some(u64::from_le_bytes(input.get(at..at + 8)?.try_into().ok()?));
    let (start, len) = (word(0)?, word(8)?);
    let range = start..start.checked_add(len)?;
    (!range.is_empty()).then_some(range)
}

fn is_whole_units(range: &Range<u64>) -> bool {
    range.start.is_multiple_of(CLEAR_UNIT) && range.end.is_multiple_of(CLEAR_UNIT)
}

/// Numbers one after the other, little-endian.
#[derive(Default)]
struct Output(Vec<u8>);

impl Output {
    fn bytes(mut self, bytes: &[u8]) -> Output {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u16(self, value: u16) -> Output {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(self, value: u32) -> Output {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Output {
        self.bytes(&value.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvdimm_firmware::WINDOW;

    const REGION: Range<u64> = 0x1_0000_0000..0x1_0400_0000;

    fn input(start: u64, len: u64, kind: u16) -> Vec<u8> {
        let mut input = [start.to_le_bytes(), len.to_le_bytes()].concat();
        input.extend(kind.to_le_bytes());
        input.resize(24, 0);
        input
    }

    fn u32_at(output: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(output[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64_at(output: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(output[at..at + 8].try_into().expect("eight bytes"))
    }

    fn call(scrub: &mut Scrub, errors: &MediaErrors, function: u32, input: &[u8]) -> BusAnswer {
        scrub.call(function, input, errors, &[REGION])
    }

    #[test]
    fn errors_of_the_range_are_told_once_a_scrub_was_started() {
        let (mut scrub, mut errors) = (Scrub::default(), MediaErrors::default());
        errors.add(REGION.start + 0x1000..REGION.start + 0x1040);
        errors.add(REGION.start + 0x8000..REGION.start + 0x8200);
        assert_eq!(u32_at(&call(&mut scrub, &errors, 3, &[]).output, 0), 2 << 16);
        let started = call(&mut scrub, &errors, 2, &input(REGION.start, 0x8100, 2));
        assert_eq!(u32_at(&started.output, 0), 0);
        let told = call(&mut scrub, &errors, 3, &[]).output;
        assert_eq!((u32_at(&told, 0), u32_at(&told, 4), u32_at(&told, 44)), (0, 44 + 48, 2));
        assert_eq!((u64_at(&told, 56), u64_at(&told, 64)), (REGION.start + 0x1000, 64));
        assert_eq!((u64_at(&told, 80), u64_at(&told, 88)), (REGION.start + 0x8000, 0x100));
    }

    #[test]
    fn more_errors_than_fit_are_told_in_turns() {
        let (mut scrub, mut errors) = (Scrub::default(), MediaErrors::default());
        (0..100).for_each(|n| errors.add(REGION.start + n * 0x1000..REGION.start + n * 0x1000 + 1));
        let (mut at, mut told) = (REGION.start, 0);
        for turn in 0.. {
            assert!(turn < 3, "it comes to an end");
            let len = REGION.end - at;
            assert_eq!(u32_at(&call(&mut scrub, &errors, 2, &input(at, len, 2)).output, 0), 0);
            let status = call(&mut scrub, &errors, 3, &[]).output;
            assert!(status.len() <= WINDOW);
            told += u32_at(&status, 44);
            if u32_at(&status, 0) == 0 {
                break;
            }
            assert_eq!((u32_at(&status, 0), status[42]), (3 << 16, 1));
            at = u64_at(&status, 24);
            assert_eq!(u64_at(&status, 32), REGION.end - at);
        }
        assert_eq!(told, 100);
    }

    #[test]
    fn whole_units_are_cleared_and_nothing_else() {
        let (mut scrub, errors) = (Scrub::default(), MediaErrors::default());
        let start = REGION.start;
        let answer = call(&mut scrub, &errors, 4, &input(start + 512, 512, 0));
        assert_eq!(answer.cleared, Some(start + 512..start + 1024));
        assert_eq!((u32_at(&answer.output, 0), u64_at(&answer.output, 8)), (0, 512));
        for (start, len) in [(start + 64, 256), (start, 255), (start, 0), (REGION.end - 256, 512), (0, 256)] {
            let answer = call(&mut scrub, &errors, 4, &input(start, len, 0));
            assert_eq!((answer.cleared, u32_at(&answer.output, 0)), (None, 2), "{start:#x} {len}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_answered_all_the_same() {
        let (mut scrub, errors) = (Scrub::default(), MediaErrors::default());
        for function in [0, 1, 2, 3, 4, 5, 99, u32::MAX] {
            for input in [&[][..], &[0xff; 7], &[0xff; 64]] {
                let answer = call(&mut scrub, &errors, function, input);
                assert!(answer.cleared.is_none() && answer.output.len() >= 4);
            }
        }
        let cap = call(&mut scrub, &errors, 1, &input(REGION.start, 64, 0)).output;
        assert_eq!((u32_at(&cap, 0), u32_at(&cap, 8)), (2 << 16, 256));
    }
}
