//! `poison` of an `[[nvdimm]]`: what of its region the media has lost from the beginning.

use std::ops::Range;

use super::schema::RawPoison;
use super::{ScenarioError, Source};

/// Bytes of a line.
const LINE: u64 = 64;
/// Ranges of one region.
const MOST: usize = 64;
/// Bytes of one region in all: each line is part of every crash state.
const MOST_BYTES: u64 = 1 << 20;

/// Offsets in the region, ascending.
pub(super) fn check(
    source: &Source,
    number: usize,
    raw: &[RawPoison],
    size: u64,
) -> Result<Vec<Range<u64>>, ScenarioError> {
    let place = || source.place(&["nvdimm", &number.to_string(), "poison"]);
    let wrong = |what: String| Err(source.error(place(), "poison", what));
    if raw.len() > MOST {
        return wrong(format!("{} ranges: a region has at most {MOST}", raw.len()));
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for RawPoison { at, bytes } in raw {
        let (at, bytes) = (at.0, bytes.0);
        if bytes == 0 || !at.is_multiple_of(LINE) || !bytes.is_multiple_of(LINE) {
            return wrong(format!(
                "{bytes} bytes at {at:#x}: media loses whole lines, so write multiples of {LINE}, at least one"
            ));
        }
        let end = at.checked_add(bytes).filter(|end| *end <= size);
        let Some(end) = end else {
            return wrong(format!(
                "{bytes} bytes at {at:#x}: lie outside of the region, which has {size:#x}"
            ));
        };
        if let Some(other) = ranges.iter().find(|other| at < other.end && other.start < end) {
            return wrong(format!("{bytes} bytes at {at:#x}: overlap those at {:#x}", other.start));
        }
        ranges.push(at..end);
    }
    let all: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    if all > MOST_BYTES {
        return wrong(format!("{all} bytes in all: a region has at most {MOST_BYTES}"));
    }
    ranges.sort_by_key(|range| range.start);
    Ok(ranges)
}
