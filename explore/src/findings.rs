//! Findings: equal faults together, the smallest state that shows each, and the stores behind it.

use std::collections::{BTreeMap, BTreeSet};

use persist::Choice;

use crate::evidence;
use crate::oracle::judge::Fault;
use crate::recover::Worker;
use crate::report::{Finding, PromiseReport, RECORDING, SmallestState};
use crate::run::{Run, State};
use crate::target::{HostError, Laboratory};
use crate::torn;
use crate::verdict::Class;

/// A fault, and where it was seen.
pub(crate) struct Instance {
    /// State and place in [`State::at`]; `None` when it happened while recording.
    pub state: Option<(usize, usize)>,
    /// Whether the state exists only under strict fences.
    pub only_strict: bool,
    /// Parts in flight that the state lacks.
    pub lost: usize,
    pub fault: Fault,
}

/// What makes two faults the same finding.
pub(crate) type Key = (Class, Option<u32>, String);

pub(crate) fn key(fault: &Fault) -> Key {
    (fault.class, fault.promise, fault.subject.clone())
}

/// Findings that are made smaller and explained; of the rest, the first state seen has to do.
const EXPLAINED: usize = 8;
/// Recoveries spent on making one finding smaller.
const ATTEMPTS: usize = 40;

/// A finding before it is written down.
pub(crate) struct Found {
    pub fault: Fault,
    pub point: usize,
    pub choice: Choice,
}

/// Groups the instances and explains each group.
pub(crate) fn explain<L: Laboratory>(
    run: &Run<L>,
    states: &[State],
    instances: Vec<Instance>,
) -> Result<Vec<Finding>, HostError> {
    let mut groups: BTreeMap<Key, Vec<Instance>> = BTreeMap::new();
    for instance in instances {
        groups.entry(key(&instance.fault)).or_default().push(instance);
    }
    let mut worker = Worker::new(run.scenario, run.laboratory)?;
    let mut findings = Vec::new();
    let mut found = Vec::new();
    for (number, mut group) in groups.into_values().enumerate() {
        // What is found without strict fences stays what it is.
        if group.iter().any(|instance| !instance.only_strict) {
            group.retain(|instance| !instance.only_strict);
        }
        let states_of: BTreeSet<usize> =
            group.iter().filter_map(|instance| instance.state.map(|(state, _)| state)).collect();
        let points: BTreeSet<usize> = group
            .iter()
            .filter_map(|instance| instance.state.map(|(state, place)| states[state].at[place].0))
            .collect();
        let Some(first) = group.into_iter().min_by_key(|instance| {
            (instance.lost, instance.state.map(|(state, place)| (states[state].at[place].0, state)))
        }) else {
            continue;
        };
        let Some((state, place)) = first.state else {
            findings.push(while_recording(run, &first.fault));
            found.push(None);
            continue;
        };
        let (point, choice) = states[state].at[place].clone();
        let mut one = Found { fault: first.fault, point, choice };
        if run.points.points[point].is_only_strict(&one.choice) {
            look_without_strict(run, &mut worker, &mut one)?;
        }
        let is_window_rule = one.fault.subject.starts_with("fault ");
        if !run.is_partial()
            && number < EXPLAINED
            && one.fault.class != Class::GuestWarning
            && !is_window_rule
        {
            shrink(run, &mut worker, &mut one)?;
        }
        findings.push(write_down(run, &mut worker, &one, states_of.len(), points.len())?);
        found.push((number < EXPLAINED).then_some(one));
    }
    let stores = evidence::stores(run, &found)?;
    for (finding, stores) in findings.iter_mut().zip(stores) {
        finding.stores = stores;
    }
    Ok(findings)
}

/// Looks for the fault in the next state that exists without strict fences.
fn look_without_strict<L: Laboratory>(
    run: &Run<L>,
    worker: &mut Worker<L>,
    found: &mut Found,
) -> Result<(), HostError> {
    let point = &run.points.points[found.point];
    let choice = point.with_handed_over(&found.choice);
    let outcome = torn::recover(worker, &point.media, &choice)?.outcome;
    let wanted = key(&found.fault);
    if let Some(fault) = run.faults(&outcome, found.point).into_iter().find(|fault| key(fault) == wanted) {
        (found.choice, found.fault) = (choice, fault);
    }
    Ok(())
}

/// Adds lost parts back while the fault stays: halves first, then smaller pieces.
fn shrink<L: Laboratory>(run: &Run<L>, worker: &mut Worker<L>, found: &mut Found) -> Result<(), HostError> {
    let media = &run.points.points[found.point].media;
    let lost_of = |choice: &Choice| {
        (0..media.in_flight().len()).filter(|index| !choice.contains(*index)).collect::<Vec<_>>()
    };
    let wanted = key(&found.fault);
    let mut lost = lost_of(&found.choice);
    let mut left = ATTEMPTS;
    let mut still = |lost: &[usize]| -> Result<Option<(Choice, Fault)>, HostError> {
        let choice = media.without(lost.iter().copied());
        let outcome = torn::recover(worker, media, &choice)?.outcome;
        let fault = run.faults(&outcome, found.point).into_iter().find(|fault| key(fault) == wanted);
        Ok(fault.map(|fault| (choice, fault)))
    };
    // Perhaps it fails with everything there.
    if let Some((choice, fault)) = still(&[])? {
        (found.choice, found.fault) = (choice, fault);
        return Ok(());
    }
    let mut pieces = 2;
    while lost.len() > 1 && left > 0 && !run.interrupted() {
        let size = lost.len().div_ceil(pieces);
        let chunks: Vec<Vec<usize>> = lost.chunks(size).map(<[usize]>::to_vec).collect();
        let rest = |chunk: &Vec<usize>| {
            lost.iter().copied().filter(|index| !chunk.contains(index)).collect::<Vec<_>>()
        };
        let candidates: Vec<Vec<usize>> =
            chunks.iter().cloned().chain(chunks.iter().filter(|_| pieces > 2).map(rest)).collect();
        let mut smaller = None;
        for candidate in candidates.into_iter().take(left) {
            left -= 1;
            if let Some((choice, fault)) = still(&candidate)?
                && lost_of(&choice).len() < lost.len()
            {
                smaller = Some((choice, fault));
                break;
            }
        }
        match smaller {
            Some((choice, fault)) => {
                lost = lost_of(&choice);
                (found.choice, found.fault) = (choice, fault);
                pieces = 2;
            }
            None if size == 1 => break,
            None => pieces = (pieces * 2).min(lost.len()),
        }
    }
    Ok(())
}

/// Recovers the state once more, for what the guest says meanwhile.
fn write_down<L: Laboratory>(
    run: &Run<L>,
    worker: &mut Worker<L>,
    found: &Found,
    states: usize,
    points: usize,
) -> Result<Finding, HostError> {
    let point = &run.points.points[found.point];
    let state = point.media.state_id(&found.choice);
    let console = worker.recover(&point.media.content(&found.choice), &[], None)?.console;
    let lost = (0..point.media.in_flight().len())
        .filter(|index| !found.choice.contains(*index))
        .map(|index| index as u64)
        .collect();
    let promise = found.fault.promise.map(|id| {
        let promise = &run.scenario.history.promises[id as usize];
        let line = run.scenario.steps[promise.step].line as u64;
        PromiseReport {
            text: promise.text.clone(),
            line,
            event: run.recording.timeline.promises.get(&id).map_or(0, |events| events - 1),
        }
    });
    let class = point.class_of(&found.fault, &found.choice);
    let text = &found.fault.text;
    let text = match class {
        Class::ReliesOnLock => {
            format!("{} if only SFENCE and MFENCE made durable: {text}", found.fault.class)
        }
        _ => text.clone(),
    };
    Ok(Finding {
        id: format!("{}-{state}", point.events),
        class,
        text,
        promise,
        states: states as u64,
        points: points as u64,
        smallest: SmallestState {
            events: point.events,
            state,
            in_flight: point.media.in_flight().len() as u64,
            lost,
        },
        earlier: Vec::new(),
        stores: Vec::new(),
        console: printable(&console),
    })
}

fn while_recording<L: Laboratory>(run: &Run<L>, fault: &Fault) -> Finding {
    let last: Vec<&str> = run.recording.console.lines().rev().take(40).collect();
    Finding {
        id: RECORDING.to_owned(),
        class: fault.class,
        text: fault.text.clone(),
        promise: None,
        states: 0,
        points: 0,
        smallest: SmallestState {
            events: run.recording.events.len() as u64,
            state: persist::StateId::default(),
            in_flight: 0,
            lost: Vec::new(),
        },
        earlier: Vec::new(),
        stores: Vec::new(),
        console: printable(&last.into_iter().rev().collect::<Vec<_>>().join("\n")),
    }
}

/// The guest's words without control characters, and not too many of them.
fn printable(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let last = lines[lines.len().saturating_sub(100)..].join("\n");
    last.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).take(16384).collect()
}
