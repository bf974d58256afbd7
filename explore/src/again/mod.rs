//! The power goes again while a machine recovers, and again: what was promised before the first time must still be there
//! in the end.
//!
//! A recovery writes, too: it replays the journal, marks the file system as mounted, and unmounts it. Some crash states
//! are recovered once more with every event recorded ([`roots`]). What that recovery leaves on the media when it is cut is
//! explored as what the scenario leaves: the durable content it starts from is the crash state, its crash points are
//! those of its own events, and what may be found is what could be found before.

mod recording;
pub mod report;
mod roots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use persist::{Choice, StateId};

pub(crate) use self::recording::{Recovery, points_of, record};
use self::roots::Root;
use crate::findings::{self, Instance};
use crate::lazy::media_key;
use crate::options::{OnProgress, RunOptions};
use crate::oracle::expectation::{Expectation, Timeline};
use crate::plant;
use crate::points::Point;
use crate::record::Recording;
use crate::recover::Worker;
use crate::report::{Counts, Finding, LevelReport, RootReport, SmallestState};
use crate::run::{Covered, Judged, Run, State};
use crate::scenario::{CrashOptions, Dropped, Scenario};
use crate::target::{HostError, Laboratory};

/// What came of cutting recoveries.
#[derive(Default)]
pub(crate) struct Again {
    /// By how often the power had gone before: once, twice, and so on.
    pub levels: Vec<LevelReport>,
    pub findings: Vec<Finding>,
    pub inconclusive: Vec<String>,
    /// Where in `findings` a fault of a kind is.
    known: BTreeMap<findings::Key, usize>,
    /// Crash points that were explored: media and what may be found there.
    explored: BTreeSet<[u8; 32]>,
    /// Events that a plant took out.
    dropped: usize,
}

/// Cuts recoveries as often as the scenario or the user says.
pub(crate) fn explore<L: Laboratory>(
    run: &Run<L>,
    states: &[State],
    judged: &[Judged],
    progress: OnProgress,
) -> Result<Again, HostError> {
    let mut again = Again::default();
    let depth = run.options.in_recovery.unwrap_or(run.scenario.crash.in_recovery);
    // Which recoveries are cut follows from all results together.
    if run.is_partial() {
        return Ok(again);
    }
    if depth > 0 {
        again.cut(run, states, judged, depth, progress)?;
    }
    let plant = run.scenario.plant.is_some_and(|plant| plant.drop == Dropped::Replay);
    if plant && again.dropped == 0 {
        again.inconclusive.push("plant: there was nothing to drop: no journal was replayed".to_owned());
    }
    Ok(again)
}

/// A way to a recovery: the power cuts on it, and what may be found behind them.
#[derive(Clone)]
pub(crate) struct Way {
    /// The first one first.
    pub cuts: Vec<SmallestState>,
    pub expectation: Arc<Expectation>,
}

impl<L: Laboratory> Run<'_, L> {
    /// How often the power has gone before.
    fn level(&self) -> usize {
        self.earlier.first().map_or(0, |way| way.cuts.len())
    }

    /// Tells this recovery from all others: every way to it, by events and names of states.
    pub fn place(&self) -> Vec<Vec<(u64, StateId)>> {
        let cuts = |way: &Way| way.cuts.iter().map(|cut| (cut.events, cut.state)).collect();
        self.earlier.iter().map(cuts).collect()
    }

    /// The power cuts that lead to a crash point, itself not among them.
    fn cuts_before(&self, point: usize) -> &[SmallestState] {
        let expectation = &self.points.points[point].expectation;
        let way = self.earlier.iter().find(|way| Arc::ptr_eq(&way.expectation, expectation));
        way.map_or(&[], |way| &way.cuts)
    }

    /// The way to the recovery of a crash state.
    fn way_to(&self, point: usize, choice: &Choice) -> Way {
        let mut cuts = self.cuts_before(point).to_vec();
        let point = &self.points.points[point];
        cuts.push(SmallestState::of(point, choice));
        Way { cuts, expectation: point.expectation.clone() }
    }
}

impl Again {
    /// Cuts recoveries of some of these crash states, `depth` times in all.
    fn cut<L: Laboratory>(
        &mut self,
        run: &Run<L>,
        states: &[State],
        judged: &[Judged],
        depth: u32,
        progress: OnProgress,
    ) -> Result<(), HostError> {
        let level = run.level();
        let limit = usize::try_from(run.scenario.crash.in_recovery_states).unwrap_or(usize::MAX);
        let found = roots::choose(run, states, judged, limit, progress)?;
        if self.levels.len() <= level {
            self.levels.push(LevelReport::default());
        }
        let report = &mut self.levels[level];
        report.recorded += found.recorded;
        report.not_fine += found.not_fine;
        report.different += found.different;
        let mut shares = Shares::of(run);
        let count = found.roots.len();
        for (number, root) in found.roots.into_iter().enumerate() {
            if run.interrupted() {
                break;
            }
            let (options, scenario) = shares.next(run, count - number);
            let mut recovery = below(run, &scenario, &options, root)?;
            self.dropped += recovery.dropped.len();
            self.leave_out_explored(&mut recovery);
            let counts = self.cover(&recovery, depth, progress)?;
            shares.spend(&counts);
        }
        Ok(())
    }

    /// Crash points with media and expectations that were explored before are left out.
    fn leave_out_explored<L: Laboratory>(&mut self, run: &mut Run<L>) {
        let before = run.points.points.len();
        run.points.points.retain(|point| self.explored.insert(key(point)));
        run.points.equal += before - run.points.points.len();
    }

    /// Explores one recovery, and those that it leads to.
    fn cover<L: Laboratory>(
        &mut self,
        run: &Run<L>,
        depth: u32,
        progress: OnProgress,
    ) -> Result<Counts, HostError> {
        let level = run.level() - 1;
        let mut counts = run.count();
        let mut inconclusive = Vec::new();
        let Covered { states, judged, searched } = run.cover(&mut counts, &mut inconclusive, progress)?;
        let unknown = judged.iter().filter_map(|judged| judged.unknown.clone());
        inconclusive.extend(unknown.collect::<BTreeSet<_>>());
        counts.judged = judged.iter().map(|judged| judged.faults.len() as u64).sum();
        let cut = run.earlier.first().and_then(|way| way.cuts.last());
        let state = cut.map_or(String::new(), |cut| cut.state.to_string());
        let why = |why: String| format!("in recovery from state {state}: {why}");
        self.inconclusive.extend(inconclusive.into_iter().map(why));
        self.add_findings(run, &states, run.instances(&states, &judged))?;
        let points = run.point_reports(&states, &judged, &searched);
        self.levels[level].add(RootReport::of(run, &counts, &points));
        if depth > 1 {
            self.cut(run, &states, &judged, depth - 1, progress)?;
        }
        Ok(counts)
    }

    /// Explains what was not found in another recovery before.
    fn add_findings<L: Laboratory>(
        &mut self,
        run: &Run<L>,
        states: &[State],
        instances: Vec<Instance>,
    ) -> Result<(), HostError> {
        let (known, new): (Vec<Instance>, Vec<Instance>) = instances
            .into_iter()
            .partition(|instance| self.known.contains_key(&findings::key(&instance.fault)));
        let mut seen: BTreeMap<usize, (BTreeSet<usize>, BTreeSet<usize>)> = BTreeMap::new();
        for instance in &known {
            let Some((state, place)) = instance.state else { continue };
            let (of_states, points) = seen.entry(self.known[&findings::key(&instance.fault)]).or_default();
            of_states.insert(state);
            points.insert(states[state].at[place].0);
        }
        for (finding, (states, points)) in seen {
            self.findings[finding].states += states.len() as u64;
            self.findings[finding].points += points.len() as u64;
        }
        let mut kinds: BTreeMap<findings::Key, Vec<Instance>> = BTreeMap::new();
        for instance in new {
            kinds.entry(findings::key(&instance.fault)).or_default().push(instance);
        }
        for (key, mut instances) in kinds {
            let way = |instance: &Instance| {
                let (state, place) = instance.state?;
                Some(run.cuts_before(states[state].at[place].0).to_vec())
            };
            // A finding has one way that leads to it.
            let Some(cuts) = instances.iter().min_by_key(|it| (it.only_strict, it.lost)).and_then(way) else {
                continue;
            };
            instances.retain(|instance| way(instance).as_ref() == Some(&cuts));
            self.known.insert(key, self.findings.len());
            for mut finding in findings::explain(run, states, instances)? {
                finding.id = id(&cuts, &finding.id);
                finding.symptoms.iter_mut().for_each(|symptom| symptom.id = id(&cuts, &symptom.id));
                finding.earlier.clone_from(&cuts);
                self.findings.push(finding);
            }
        }
        Ok(())
    }
}

/// What is left of the budgets for the recoveries that are still to be cut, which share them equally.
struct Shares {
    /// What the user asked for, for everything.
    asked: Option<u64>,
    /// For states that are chosen one by one.
    sampled: u64,
}

impl Shares {
    fn of<L: Laboratory>(run: &Run<L>) -> Shares {
        Shares { asked: run.options.budget, sampled: run.scenario.crash.budget }
    }

    /// The share of one, where so many are left.
    fn next<L: Laboratory>(&self, run: &Run<L>, left: usize) -> (RunOptions, Scenario) {
        let share = |budget: u64| (budget / left as u64).max(1);
        let options = RunOptions { budget: self.asked.map(share), ..run.options.clone() };
        let crash = CrashOptions { budget: share(self.sampled), ..run.scenario.crash.clone() };
        (options, Scenario { crash, ..run.scenario.clone() })
    }

    fn spend(&mut self, counts: &Counts) {
        let sampled = counts.sampled();
        self.asked = self.asked.map(|asked| asked.saturating_sub(counts.recoveries + sampled));
        self.sampled = self.sampled.saturating_sub(sampled);
    }
}

/// The same for crash points with the same media and the same that may be found there, of whatever recovery.
fn key(point: &Point) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(&media_key(&point.media)).update(format!("{:?}", point.expectation).as_bytes());
    *hash.finalize().as_bytes()
}

/// Names a finding by all power cuts, the last one last.
fn id(earlier: &[SmallestState], last: &str) -> String {
    let cuts = earlier.iter().map(|cut| format!("{}-{}", cut.events, cut.state));
    cuts.chain([last.to_owned()]).collect::<Vec<_>>().join("+")
}

/// The recovery of a crash state as something to explore.
pub(crate) fn recovery_from<'a, L: Laboratory>(
    run: &Run<'a, L>,
    point: usize,
    choice: &Choice,
) -> Result<Run<'a, L>, HostError> {
    let content = run.points.points[point].media.content(choice);
    let root = Root { content, ways: vec![run.way_to(point, choice)] };
    below(run, run.scenario, run.options, root)
}

/// The recovery of a root as something to explore.
fn below<'a, L: Laboratory>(
    run: &Run<'a, L>,
    scenario: &'a Scenario,
    options: &'a RunOptions,
    root: Root,
) -> Result<Run<'a, L>, HostError> {
    let mut worker = Worker::new(scenario, run.laboratory)?;
    let told = root.told();
    let model = run.model.holding(root.content);
    let recovery = record(&mut worker, &model.holding, &told, None, &mut |_, _| None)?;
    let Recovery { recovered, mut events, phases } = recovery;
    let watched = plant::watched_in_recovery(scenario, run.laboratory);
    let dropped = plant::drop_replayed(scenario, &watched, &mut events)?;
    let expectations: Vec<_> = root.ways.iter().map(|way| way.expectation.clone()).collect();
    let points = points_of(&events, &model, &expectations);
    events.check()?;
    let Timeline { promises, acknowledged, .. } = run.recording.timeline.clone();
    let timeline = Timeline { promises, acknowledged, ..Timeline::default() };
    let recording = Recording {
        events,
        timeline,
        watched,
        trouble: None,
        check_is_void: run.recording.check_is_void,
        warnings: Vec::new(),
        console: recovered.console,
        instructions: 0,
        account: Vec::new(),
        trace: OnceLock::new(),
        phases,
    };
    let earlier = root.ways;
    let ledger = run.ledger.clone();
    Ok(Run {
        scenario,
        laboratory: run.laboratory,
        options,
        recording,
        dropped,
        model,
        points,
        ledger,
        earlier,
    })
}
