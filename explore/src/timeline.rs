//! What a recording was like, coarse enough to be drawn: steps, faults, promises, and runs of events.

use std::collections::BTreeMap;
use std::fmt::Write;

use persist::{Event, EventKind, StorePath};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::findings;
use crate::report::PromiseReport;
use crate::run::Run;
use crate::target::Laboratory;

/// What happened while the scenario was recorded. A place in it is a number of events that had happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimelineReport {
    /// The events, in order: a letter and how many of that kind come in a row, again and again, as in `s12f3d1`. Stores
    /// are `s`, non-temporal ones `n`, flushes `f`, SFENCE and MFENCE `d`, other drains `o`, writes to flush hints `h`,
    /// requests to a device to flush `q` and its answers `a`, promises `p`, markers `m`, calls of watched functions `w`,
    /// everything else `x`, and so is what comes behind the first 2^20 bytes of this. A capital letter says that user mode did it.
    pub activity: String,
    /// What the steps did, in order; a step may do several things.
    pub steps: Vec<StepSpan>,
    /// Faults that waited for the journal, when windows were asked for.
    pub faults: Vec<FaultSpan>,
    /// Promises that were made.
    pub promises: Vec<PromiseReport>,
    /// Functions that were watched, and how often each was called.
    pub functions: Vec<FunctionReport>,
}

/// A step, from its first event to its last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepSpan {
    /// Line of the scenario.
    pub line: u64,
    /// For people.
    pub text: String,
    /// How many events had happened when it began.
    pub begin: u64,
    /// How many had happened when it ended.
    pub end: u64,
}

/// A fault that waited for the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultSpan {
    /// The windows that it has.
    pub windows: Vec<WindowSpan>,
}

/// A window of a fault: the power may be cut behind `begin` to `end` events, both included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpan {
    /// `W0` to `W8`.
    pub name: String,
    /// The first number of events.
    pub begin: u64,
    /// The last one.
    pub end: u64,
}

/// A function of the kernel that was watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FunctionReport {
    /// Its name.
    pub name: String,
    /// How often it was called.
    pub calls: u64,
}

impl TimelineReport {
    pub(crate) fn of<L: Laboratory>(run: &Run<L>) -> TimelineReport {
        TimelineReport {
            activity: activity(&run.recording.events),
            steps: steps(run),
            faults: run.points.faults.iter().map(|fault| FaultSpan { windows: windows(fault) }).collect(),
            promises: promises(run),
            functions: functions(run),
        }
    }
}

fn windows(fault: &crate::windows::Fault) -> Vec<WindowSpan> {
    let span = |(number, range): (usize, &Option<std::ops::RangeInclusive<u64>>)| {
        let range = range.as_ref()?;
        Some(WindowSpan { name: format!("W{number}"), begin: *range.start(), end: *range.end() })
    };
    fault.windows.iter().enumerate().filter_map(span).collect()
}

fn steps<L: Laboratory>(run: &Run<L>) -> Vec<StepSpan> {
    let spans = run.scenario.commands.iter().zip(&run.recording.timeline.commands);
    let begun = spans.filter(|(_, (begin, _))| *begin != u64::MAX);
    let all = run.recording.events.last_seq().map_or(0, |last| last + 1);
    let span = |(planned, &(begin, end)): (&crate::scenario::Planned, &(u64, u64))| {
        let step = &run.scenario.steps[planned.step];
        // A step during which the guest crashed has no end.
        StepSpan { line: step.line as u64, text: step.text.clone(), begin, end: end.min(all).max(begin) }
    };
    begun.map(span).collect()
}

/// In the order in which they were made.
fn promises<L: Laboratory>(run: &Run<L>) -> Vec<PromiseReport> {
    let mut made: Vec<(u64, u32)> =
        run.recording.timeline.promises.iter().map(|(id, events)| (*events, *id)).collect();
    made.sort();
    let known = made.iter().filter(|(_, id)| (*id as usize) < run.scenario.history.promises.len());
    known.map(|(_, id)| findings::promise(run, *id)).collect()
}

fn functions<L: Laboratory>(run: &Run<L>) -> Vec<FunctionReport> {
    let mut calls: BTreeMap<u32, u64> = BTreeMap::new();
    if run.recording.watched.is_empty() {
        return Vec::new();
    }
    for event in &run.recording.events {
        if let EventKind::Symbol { index } = event.kind {
            *calls.entry(index).or_default() += 1;
        }
    }
    let report = |(index, name): (u32, &String)| FunctionReport {
        name: name.clone(),
        calls: calls.get(&index).copied().unwrap_or(0),
    };
    (0..).zip(&run.recording.watched).map(report).collect()
}

/// Bytes of [`TimelineReport::activity`] in which events are told apart: nobody can look at more.
const MOST_ACTIVITY: usize = 1 << 20;

fn activity(events: impl IntoIterator<Item = Event>) -> String {
    let mut text = String::new();
    let mut run = (' ', 0_u64);
    let mut add = |letter: char, count: u64| {
        let letter = if letter == ' ' || text.len() < MOST_ACTIVITY { letter } else { 'x' };
        if letter == run.0 {
            run.1 += count;
            return;
        }
        if run.1 > 0 {
            let _ = write!(text, "{}{}", run.0, run.1);
        }
        run = (letter, count);
    };
    let mut next = 0;
    for event in events {
        // What was taken out on purpose has its place still.
        let missing = event.seq.saturating_sub(next);
        if missing > 0 {
            add('x', missing);
        }
        add(letter(&event), 1);
        next = event.seq + 1;
    }
    add(' ', 0);
    text
}

fn letter(event: &Event) -> char {
    let letter = match &event.kind {
        EventKind::Store { path: StorePath::NonTemporal, .. } => 'n',
        EventKind::Store { .. } => 's',
        EventKind::Flush { .. } => 'f',
        EventKind::Drain(kind) if kind.is_fence() => 'd',
        EventKind::Drain(_) => 'o',
        EventKind::FlushHint { .. } => 'h',
        EventKind::DeviceFlushSubmitted { .. } => 'q',
        EventKind::DeviceFlushCompleted { .. } => 'a',
        EventKind::Promise { .. } => 'p',
        EventKind::Marker { .. } => 'm',
        EventKind::Symbol { .. } => 'w',
        EventKind::Poisoned { .. }
        | EventKind::PoisonCleared { .. }
        | EventKind::StoresVisible
        | EventKind::Retired => 'x',
    };
    if event.origin.cpl == 3 { letter.to_ascii_uppercase() } else { letter }
}

#[cfg(test)]
mod tests {
    use persist::{DrainKind, Origin};

    use super::*;

    #[test]
    fn events_of_one_kind_in_a_row_are_a_letter_and_a_number() {
        let event = |seq, cpl, kind| Event { seq, origin: Origin { cpl, ..Origin::default() }, kind };
        let fence = || EventKind::Drain(DrainKind::Sfence);
        let events = [
            event(0, 0, fence()),
            event(1, 0, fence()),
            event(2, 3, fence()),
            event(3, 0, EventKind::Drain(DrainKind::Locked)),
            event(4, 3, EventKind::Promise { id: 0 }),
        ];
        assert_eq!(activity(events), "d2D1o1P1");
        assert_eq!(activity([]), "");
        let taken_out = [event(0, 0, fence()), event(7, 0, fence())];
        assert_eq!(activity(taken_out), "d1x6d1");
    }

    #[test]
    fn so_many_events_that_nobody_can_look_at_them_are_one_run() {
        let kinds = [EventKind::Drain(DrainKind::Sfence), EventKind::Promise { id: 0 }];
        let events = |count: u64| {
            let event = |seq| Event { seq, origin: Origin::default(), kind: kinds[seq as usize % 2].clone() };
            (0..count).map(event)
        };
        let text = activity(events(2 << 20));
        let told: u64 = text.split(char::is_alphabetic).filter_map(|count| count.parse::<u64>().ok()).sum();
        assert_eq!(told, 2 << 20);
        assert!(text.len() < (1 << 20) + 32 && text.contains("1x"), "{} bytes", text.len());
    }
}
