//! Findings: failing states by what is behind them, the smallest state that shows it, and the stores it lacks.

use std::collections::{BTreeMap, BTreeSet};

use crate::causes::{Cause, Causes, Failing};
use crate::checking;
use crate::contents;
use crate::evidence;
use crate::oracle::judge::Fault;
use crate::points::Point;
use crate::report::{CauseReport, Finding, PromiseReport, RECORDING, SmallestState, SymptomReport};
use crate::run::{Run, State};
use crate::sites::Site;
use crate::target::{HostError, Laboratory};
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

impl Instance {
    /// Of something that shows in the recording itself.
    pub fn of_recording(fault: Fault) -> Instance {
        Instance { state: None, only_strict: false, lost: 0, fault }
    }
}

/// What makes two faults the same symptom.
pub(crate) type Key = (Class, Option<u32>, String);

pub(crate) fn key(fault: &Fault) -> Key {
    (fault.class, fault.promise, fault.subject.clone())
}

/// Symptoms that are made smaller and explained; of the rest, the first state seen has to do.
const EXPLAINED: usize = 8;
/// Causes that are looked for behind one symptom.
const CAUSES: usize = 4;

/// A fault, and the states that show it for one reason.
pub(crate) struct Symptom {
    pub smallest: Failing,
    cause: Cause,
    /// Whether the smallest state was looked for.
    explained: bool,
    states: BTreeSet<usize>,
    points: BTreeSet<usize>,
    /// States that were taken to have this cause without being tried.
    untried: usize,
}

/// Groups the instances by what is behind them and explains each group.
pub(crate) fn explain<L: Laboratory>(
    run: &Run<L>,
    states: &[State],
    instances: Vec<Instance>,
) -> Result<Vec<Finding>, HostError> {
    let mut groups: BTreeMap<Key, Vec<Instance>> = BTreeMap::new();
    let mut recording = Vec::new();
    let failing = instances.iter().filter_map(|instance| {
        let (state, place) = instance.state?;
        let (point, choice) = &states[state].at[place];
        Some((*point, choice, &instance.fault))
    });
    let mut causes = Causes::new(run, failing)?;
    for instance in instances {
        match instance.state {
            Some(_) => groups.entry(key(&instance.fault)).or_default().push(instance),
            None => recording.push(while_recording(run, &instance.fault)),
        }
    }
    let mut symptoms = Vec::new();
    for mut group in groups.into_values() {
        // What is found without strict fences stays what it is.
        if group.iter().any(|instance| !instance.only_strict) {
            group.retain(|instance| !instance.only_strict);
        }
        group.sort_by_key(|instance| {
            (instance.lost, instance.state.map(|(state, place)| (states[state].at[place].0, state)))
        });
        symptoms_of(run, states, &mut causes, group, &mut symptoms)?;
    }
    let findings = by_cause(run, symptoms);
    let mut reports = Vec::new();
    for finding in &findings {
        reports.push(write_down(run, &mut causes, finding)?);
    }
    let told = findings.iter().enumerate().map(|(number, finding)| {
        let told = finding[0].explained || run.is_partial() && !run.options.unexplained && number < EXPLAINED;
        told.then_some(&finding[0].smallest)
    });
    let told: Vec<Option<&Failing>> = told.collect();
    let stores = evidence::stores(run, &told)?;
    for (report, stores) in reports.iter_mut().zip(stores) {
        report.stores = stores;
    }
    recording.extend(reports);
    recording.sort_by_key(|finding| finding.class);
    Ok(recording)
}

/// Tells apart why states show one fault. `group` is ordered: the most telling first.
fn symptoms_of<L: Laboratory>(
    run: &Run<L>,
    states: &[State],
    causes: &mut Causes<L>,
    mut group: Vec<Instance>,
    symptoms: &mut Vec<Symptom>,
) -> Result<(), HostError> {
    let failing = |instance: &Instance| {
        let (state, place) = instance.state?;
        let (point, choice) = states[state].at[place].clone();
        Some((state, Failing { point, choice, fault: instance.fault.clone() }))
    };
    for _ in 0..CAUSES {
        let Some((state, first)) = group.first().and_then(failing) else { break };
        let explained = !run.leaves_unexplained()
            && symptoms.iter().filter(|symptom: &&Symptom| symptom.explained).count() < EXPLAINED;
        let mut symptom = Symptom {
            states: BTreeSet::from([state]),
            points: BTreeSet::from([first.point]),
            smallest: first,
            cause: Cause::Unknown,
            explained,
            untried: 0,
        };
        look_into(run, causes, &mut symptom, symptoms)?;
        let mut others = Vec::new();
        for instance in group.drain(..) {
            let Some((state, failing)) = failing(&instance) else { continue };
            let same = symptom.cause == Cause::Unknown
                || symptom.states.contains(&state)
                || match causes.is_cause_of(&symptom.cause, &failing)? {
                    Some(same) => same,
                    None => {
                        symptom.untried += 1;
                        true
                    }
                };
            if same {
                symptom.states.insert(state);
                symptom.points.insert(failing.point);
            } else {
                others.push(instance);
            }
        }
        symptoms.push(symptom);
        group = others;
    }
    let Some(last) = symptoms.last_mut() else { return Ok(()) };
    // More causes than are looked for.
    for (state, failing) in group.iter().filter_map(failing) {
        last.untried += 1;
        last.states.insert(state);
        last.points.insert(failing.point);
    }
    Ok(())
}

/// Makes the state of a symptom smaller, and finds the store behind it.
fn look_into<L: Laboratory>(
    run: &Run<L>,
    causes: &mut Causes<L>,
    symptom: &mut Symptom,
    others: &[Symptom],
) -> Result<(), HostError> {
    let Symptom { smallest, cause, explained, .. } = symptom;
    if run.points.points[smallest.point].is_only_strict(&smallest.choice) {
        causes.look_without_strict(smallest)?;
    }
    // These compare states with one another: one alone does not show them.
    let is_window_rule = smallest.fault.subject.starts_with("fault ");
    if *explained && !is_window_rule {
        causes.shrink(smallest)?;
        *cause = causes.cause(smallest)?;
    } else if !is_window_rule {
        for other in others {
            if causes.is_cause_of(&other.cause, smallest)? == Some(true) {
                *cause = other.cause.clone();
                break;
            }
        }
    }
    Ok(())
}

/// Symptoms with the same cause are one finding, the worst first. What has no cause stands alone.
fn by_cause<L: Laboratory>(run: &Run<L>, symptoms: Vec<Symptom>) -> Vec<Vec<Symptom>> {
    let mut findings: Vec<Vec<Symptom>> = Vec::new();
    let mut known: BTreeMap<Reason, usize> = BTreeMap::new();
    for symptom in symptoms {
        let reason = match &symptom.cause {
            Cause::Store { site, .. } => Some(Reason::Site(site.clone())),
            Cause::Nothing => promised_step(run, &symptom).map(Reason::Promised),
            Cause::Unknown => None,
        };
        let at = reason.map_or(findings.len(), |reason| *known.entry(reason).or_insert(findings.len()));
        match findings.get_mut(at) {
            Some(finding) => finding.push(symptom),
            None => findings.push(vec![symptom]),
        }
    }
    findings
}

/// What makes symptoms one finding.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Site(Site),
    /// Nothing has to be lost: what a step promised was never on its way to where it is looked for.
    Promised(usize),
}

fn promised_step<L: Laboratory>(run: &Run<L>, symptom: &Symptom) -> Option<usize> {
    let promise = symptom.smallest.fault.promise?;
    Some(run.scenario.history.promises[promise as usize].step)
}

/// Recovers the state once more, for what the guest says meanwhile.
fn write_down<L: Laboratory>(
    run: &Run<L>,
    causes: &mut Causes<L>,
    symptoms: &[Symptom],
) -> Result<Finding, HostError> {
    let Failing { point, choice, .. } = &symptoms[0].smallest;
    let at = &run.points.points[*point];
    let recovered = causes.worker.recover(&at.media.content(choice), at.told(), &[], None)?;
    let smallest = &symptoms[0].smallest;
    let shown = recovered.outcome.tree().and_then(|tree| contents::content(run, smallest, tree));
    let lines = contents::lines(run, smallest);
    let mut others: Vec<SymptomReport> = symptoms.iter().map(|symptom| report(run, symptom)).collect();
    let SymptomReport { id, class, text, promise, smallest, .. } = others.remove(0);
    let count = |of: fn(&Symptom) -> &BTreeSet<usize>| {
        symptoms.iter().flat_map(of).collect::<BTreeSet<_>>().len() as u64
    };
    Ok(Finding {
        id,
        class,
        text,
        promise,
        states: count(|symptom| &symptom.states),
        points: count(|symptom| &symptom.points),
        untried: symptoms.iter().map(|symptom| symptom.untried as u64).sum(),
        smallest,
        earlier: Vec::new(),
        cause: cause(run, &symptoms[0]),
        symptoms: others,
        content: shown,
        lines,
        stores: Vec::new(),
        console: printable(&recovered.console),
    })
}

/// The store that makes the difference.
fn cause<L: Laboratory>(run: &Run<L>, symptom: &Symptom) -> Option<CauseReport> {
    let Cause::Store { part, .. } = symptom.cause else { return None };
    let part = &run.points.points[symptom.smallest.point].media.in_flight()[part];
    Some(CauseReport {
        event: part.event,
        at: evidence::place(run, part.origin.cpl, part.origin.rip),
        step: run.step_at(part.event + 1),
    })
}

/// A promise of the scenario, by its number.
pub(crate) fn promise<L: Laboratory>(run: &Run<L>, id: u32) -> PromiseReport {
    let promise = &run.scenario.history.promises[id as usize];
    PromiseReport {
        text: promise.text.clone(),
        line: run.scenario.steps[promise.step].line as u64,
        event: run.recording.timeline.promises.get(&id).map_or(0, |events| events - 1),
    }
}

fn report<L: Laboratory>(run: &Run<L>, symptom: &Symptom) -> SymptomReport {
    let found = &symptom.smallest;
    let point = &run.points.points[found.point];
    let state = point.media.state_id(&found.choice);
    let promise = found.fault.promise.map(|id| promise(run, id));
    let promise =
        promise.or_else(|| acknowledged(run, point).filter(|_| found.fault.subject == checking::SUBJECT));
    let class = point.class_of(&found.fault, &found.choice);
    let text = printable(&found.fault.text);
    let text = match class {
        Class::ReliesOnLock => {
            format!("{} if only SFENCE and MFENCE made durable: {text}", found.fault.class)
        }
        _ => text,
    };
    SymptomReport {
        id: format!("{}-{state}", point.events),
        class,
        text,
        promise,
        states: symptom.states.len() as u64,
        points: symptom.points.len() as u64,
        smallest: SmallestState::of(point, &found.choice),
    }
}

/// What the check program was told, as a promise.
fn acknowledged<L: Laboratory>(run: &Run<L>, point: &Point) -> Option<PromiseReport> {
    let last = point.told().last()?;
    let command = run.recording.timeline.command_at(last.events);
    let step = command.map(|command| &run.scenario.steps[run.scenario.commands[command].step]);
    Some(PromiseReport {
        text: format!("{} acknowledged, the last one {:?}", point.told().count(), last.text),
        line: step.map_or(0, |step| step.line as u64),
        event: last.events.saturating_sub(1),
    })
}

fn while_recording<L: Laboratory>(run: &Run<L>, fault: &Fault) -> Finding {
    let last: Vec<&str> = run.recording.console.lines().rev().take(40).collect();
    Finding {
        id: RECORDING.to_owned(),
        class: fault.class,
        text: printable(&fault.text),
        promise: None,
        states: 0,
        points: 0,
        untried: 0,
        smallest: SmallestState {
            events: run.recording.events.len(),
            state: persist::StateId::default(),
            in_flight: 0,
            lost_lines: 0,
            lost: Vec::new(),
        },
        earlier: Vec::new(),
        cause: None,
        symptoms: Vec::new(),
        content: None,
        lines: Vec::new(),
        stores: Vec::new(),
        console: printable(&last.into_iter().rev().collect::<Vec<_>>().join("\n")),
    }
}

/// Warnings of the guest as faults.
pub(crate) fn warnings(warnings: &[String]) -> Vec<Fault> {
    let fault = |warning: &String| Fault {
        class: Class::GuestWarning,
        promise: None,
        subject: without_numbers(warning),
        range: None,
        text: warning.clone(),
    };
    warnings.iter().map(fault).collect()
}

/// Warnings that differ in numbers only are one finding.
fn without_numbers(warning: &str) -> String {
    warning.chars().map(|c| if c.is_ascii_digit() { 'N' } else { c }).collect::<String>().replace("NN", "N")
}

/// The guest's words without control characters, and not too many of them.
pub(crate) fn printable(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let last = lines[lines.len().saturating_sub(100)..].join("\n");
    last.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).take(16384).collect()
}
