//! The bytes behind a finding: of the media, line by line, and of the file that shows it.

use std::collections::BTreeMap;

use guest_protocol::Pattern;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::causes::{Failing, lost_of};
use crate::oracle::expectation::{FileExpectation, Segment};
use crate::oracle::history::FileId;
use crate::oracle::judge::{Entry, Tree};
use crate::run::Run;
use crate::target::Laboratory;

/// Lines told for one finding.
const TOLD: usize = 16;
/// Bytes of a file that are shown around what is wrong.
const SHOWN: u64 = 64;

/// A line of persistent memory that lacks something in the smallest state. Bytes are hexadecimal digits, two for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LineReport {
    /// Guest-physical address.
    pub address: u64,
    /// What is there in the smallest state.
    pub found: String,
    /// What would be there, had everything arrived that was stored until then.
    pub stored: String,
    /// Events of the stores that are lost, at most 8.
    pub events: Vec<u64>,
}

/// The bytes of a file around what is wrong with it. Bytes are hexadecimal digits, two for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContentReport {
    /// Its path below the mount point.
    pub file: String,
    /// Offset of the first byte shown.
    pub at: u64,
    /// Offset of the first byte that is wrong.
    pub wrong: u64,
    /// How many bytes are, from there on.
    pub bytes: u64,
    /// What recovery found.
    pub found: String,
    /// What has to be there, as far as something has: `..` for a byte of which nothing is said.
    pub expected: String,
    /// What else may be there.
    pub also: Vec<String>,
    /// What was there before, and no longer may be; the newest last.
    pub before: Vec<String>,
}

/// The lines that lack something, the first of them.
pub(crate) fn lines<L: Laboratory>(run: &Run<L>, found: &Failing) -> Vec<LineReport> {
    let media = &run.points.points[found.point].media;
    let mut lost: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for part in lost_of(run, found.point, &found.choice).into_iter().map(|index| &media.in_flight()[index]) {
        for line in (part.line()..part.end()).step_by(64) {
            let events = lost.entry(line).or_default();
            if events.len() < 8 && !events.contains(&part.event) {
                events.push(part.event);
            }
        }
    }
    let (state, everything) = (media.content(&found.choice), media.content(&media.everything()));
    // A line that is as it was at first is in no overlay.
    let of = |overlay: &persist::Overlay, line: u64| {
        overlay.line(line).copied().unwrap_or_else(|| run.model.media.line(line))
    };
    let report = |(address, events): (u64, Vec<u64>)| {
        let (found, stored) = (of(&state, address), of(&everything, address));
        // What was stored again as it was is no loss.
        let differs = found != stored;
        differs.then(|| LineReport { address, found: digits(&found), stored: digits(&stored), events })
    };
    lost.into_iter().filter_map(report).take(TOLD).collect()
}

/// The bytes of the file around what is wrong, if a file's content is what is wrong.
pub(crate) fn content<L: Laboratory>(run: &Run<L>, found: &Failing, tree: &Tree) -> Option<ContentReport> {
    let (path, wrong, bytes) = found.fault.range.as_ref()?;
    let Some(Entry::File { content, .. }) = tree.0.get(path) else { return None };
    let expectation = &run.points.points[found.point].expectation;
    let file = expectation.names.iter().find_map(|group| {
        let name = group.paths.iter().position(|known| known == path)?;
        group.states[group.first_allowed..].iter().rev().find_map(|state| state[name])
    });
    let FileId(file) = file?;
    Some(around(&expectation.files[file], path, *wrong, *bytes, content))
}

fn around(file: &FileExpectation, path: &str, wrong: u64, bytes: u64, content: &[u8]) -> ContentReport {
    let at = wrong & !(SHOWN - 1);
    let shown = at..at + SHOWN;
    let there = content.get(at as usize..content.len().min(shown.end as usize)).unwrap_or(&[]);
    let of = |at: u64| file.segments.iter().find(|segment| segment.at <= at && at - segment.at < segment.len);
    let expected =
        |at: u64| of(at).filter(|it| !it.free).map_or("..".to_owned(), |it| byte(it.allowed[0], at));
    let faulty = of(wrong).filter(|segment| !segment.free);
    let of_faulty = |list: fn(&Segment) -> &[Pattern]| {
        faulty.map_or(Vec::new(), |it| list(it).iter().map(|pattern| row(*pattern, shown.clone())).collect())
    };
    ContentReport {
        file: path.to_owned(),
        at,
        wrong,
        bytes,
        found: digits(there),
        expected: shown.clone().map(expected).collect(),
        also: of_faulty(|segment| &segment.allowed[1..]),
        before: of_faulty(|segment| &segment.outdated),
    }
}

fn row(pattern: Pattern, range: std::ops::Range<u64>) -> String {
    range.map(|at| byte(pattern, at)).collect()
}

fn byte(pattern: Pattern, at: u64) -> String {
    format!("{:02x}", pattern.byte(at))
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::history::FileKind;

    #[test]
    fn what_has_to_be_there_is_told_byte_by_byte() {
        let segment = |at, len, allowed: Vec<Pattern>, outdated, free| Segment {
            at,
            len,
            allowed,
            outdated,
            whole_words: true,
            promise: None,
            may_be_cut: false,
            free,
        };
        let (one, two) = (Pattern::Byte(1), Pattern::Byte(2));
        let file = FileExpectation {
            kind: FileKind::Regular,
            sizes: Vec::new(),
            size_promise: None,
            segments: vec![
                segment(0, 66, vec![one], vec![], false),
                segment(66, 4, vec![two, one], vec![Pattern::Zero], false),
                segment(70, u64::MAX, vec![Pattern::Zero], vec![], true),
            ],
        };
        let told = around(&file, "a", 66, 1, &[9; 68]);
        assert_eq!((told.at, told.found.as_str()), (64, "09090909"));
        assert!(told.expected.starts_with("010102020202....") && told.expected.len() == 128);
        assert_eq!(told.also, ["01".repeat(64)]);
        assert_eq!(told.before, ["00".repeat(64)]);
    }
}
