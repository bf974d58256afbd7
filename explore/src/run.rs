//! The whole way from a scenario to a report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use persist::{Choice, Event, Media, Overlay, Platform, StateId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::again;
use crate::canary::{self, Canary};
use crate::checking;
use crate::conversation::Trouble;
use crate::findings::{self, Instance};
use crate::guard;
use crate::lazy::{Cut, Explored, Searched};
use crate::ledger::{self, Ledger};
use crate::model::Model;
use crate::options::{OnProgress, Progress, RunOptions, Sabotage};
use crate::oracle::judge::Fault;
use crate::plant::drop_stores;
use crate::points::{self, Images, Point, Points};
use crate::record::{Recording, poisoned_at_first, record};
use crate::recover::{Outcome, Shape, Worker};
use crate::redundant;
use crate::report::{Counts, PointReport, REPORT, Report, SearchReport, Settings, TimelineReport, Verdict};
use crate::scenario::{Dropped, Explore, Scenario};
use crate::states;
use crate::target::{HostError, Laboratory, Target};
use crate::torn;
use crate::verdict::Class;
use crate::work::Units;

/// Why a run that was interrupted says nothing.
const INTERRUPTED: &str = "interrupted: what is told was found until then";

/// A distinct content of the media, and every crash point of which it is a state. What the check program is told is the
/// same at all of them.
pub(crate) struct State {
    pub id: StateId,
    pub at: Vec<(usize, Choice)>,
}

/// What was recovered, and how completely every crash point was searched, when exploring lazily.
pub(crate) struct Covered {
    pub states: Vec<State>,
    pub judged: Vec<Judged>,
    pub searched: Vec<Searched>,
}

/// What came of a state.
#[derive(Serialize, Deserialize)]
pub(crate) struct Judged {
    /// For each entry of [`State::at`], what must not be.
    pub faults: Vec<Vec<Fault>>,
    pub shape: Option<Shape>,
    pub unknown: Option<String>,
    pub warnings: Vec<String>,
}

impl Judged {
    /// Whether nothing is wrong with it, at any of its crash points.
    pub fn is_fine(&self) -> bool {
        self.unknown.is_none() && self.faults.iter().all(Vec::is_empty)
    }
}

/// Everything that the parts of a run share.
pub(crate) struct Run<'a, L: Laboratory> {
    pub scenario: &'a Scenario,
    pub laboratory: &'a L,
    pub options: &'a RunOptions,
    pub recording: Recording,
    /// Events that a plant took out of the recording.
    pub dropped: Vec<Event>,
    pub model: Model,
    pub points: Points,
    /// What is done already, and where what gets done is kept.
    pub ledger: Arc<Ledger>,
    /// When this is a recovery, which power cuts came before.
    pub earlier: Vec<again::Way>,
}

/// Records the scenario and finds its crash points.
pub(crate) fn prepare<'a, L: Laboratory>(
    scenario: &'a Scenario,
    laboratory: &'a L,
    options: &'a RunOptions,
    inconclusive: &mut Vec<String>,
) -> Result<Run<'a, L>, HostError> {
    let start = Instant::now();
    let mut recording = record(scenario, laboratory)?;
    options.effort.recorded_since(start, recording.instructions, recording.events.len());
    if let Some(Trouble::Harness(why)) = &recording.trouble {
        // Often the guest knows: that a device has no DAX, for instance.
        let said =
            recording.console.lines().rev().map(findings::printable).find(|line| !line.trim().is_empty());
        inconclusive.push(said.map_or(why.clone(), |said| format!("{why}; the guest said last: {said}")));
    }
    let dropped = scenario
        .plant
        .map(|plant| drop_stores(plant.drop, &recording.watched, &mut recording.events))
        .transpose()?;
    let of_recovery = scenario.plant.is_some_and(|plant| plant.drop == Dropped::Replay);
    if !of_recovery && dropped.as_ref().is_some_and(Vec::is_empty) {
        inconclusive.push("plant: there was nothing to drop".to_owned());
    }
    let regions = laboratory.start()?.regions();
    // What firmware has written to a label area is durable when it says so, as with virtio-pmem; label areas come last.
    let platforms = scenario.regions.iter().map(|region| region.platform);
    let platforms = platforms.chain(std::iter::repeat(Platform::VirtioPmem));
    let modelled = regions.iter().zip(platforms).map(|(region, platform)| persist::Region {
        range: region.base..region.base + region.size,
        platform,
        dimm: region.dimm,
    });
    let modelled = modelled.collect();
    let holding = Overlay::poisoning(poisoned_at_first(scenario, &regions));
    let media: Arc<dyn Media> = Arc::new(Images { regions, images: laboratory.images().to_vec() });
    let settings = options.model_of(scenario);
    let model = Model { settings, regions: modelled, media, holding };
    let points = points::find(scenario, &recording, &model);
    inconclusive.extend(points.unresolved.iter().cloned());
    inconclusive.extend(guard::check(scenario, &recording));
    recording.events.check()?;
    let ledger = options.ledger.clone().unwrap_or_default();
    let (dropped, earlier) = (dropped.unwrap_or_default(), Vec::new());
    Ok(Run { scenario, laboratory, options, recording, dropped, model, points, ledger, earlier })
}

/// Runs a scenario: records it, cuts the power everywhere it says, recovers, judges.
pub fn run<L: Laboratory>(
    scenario: &Scenario,
    laboratory: &L,
    options: &RunOptions,
    progress: OnProgress,
) -> Result<Report, HostError> {
    progress(Progress::Recording);
    let mut inconclusive = Vec::new();
    let run = prepare(scenario, laboratory, options, &mut inconclusive)?;
    run.ledger.begin(run.execution())?;
    progress(Progress::Recorded { events: run.recording.events.len() });
    let mut counts = run.count();
    let Covered { states, mut judged, searched } = run.cover(&mut counts, &mut inconclusive, progress)?;
    // What every state of a window has in common is not known before all are.
    if !run.is_partial() {
        run.judge_windows(&states, &mut judged);
    }
    progress(Progress::Explaining);
    inconclusive.extend(judged.iter().filter_map(|judged| judged.unknown.clone()).collect::<BTreeSet<_>>());
    run.check_counts(&mut counts, &states, &judged, &mut inconclusive);
    let faults = redundant::count(&run.recording.events, &run.points.faults);
    let mut instances = run.instances(&states, &judged);
    instances.extend(redundant::fault(&faults).map(Instance::of_recording));
    let canary = canary::try_one(&run, &states, &judged)?;
    if let Canary::NotSeen(why) = &canary {
        inconclusive.push(format!("canary: {why}"));
    }
    let mut findings = findings::explain(&run, &states, instances)?;
    let again = again::explore(&run, &states, &judged, progress)?;
    inconclusive.extend(again.inconclusive);
    findings.extend(again.findings);
    let mut report = Report {
        version: REPORT,
        scenario: scenario.name.clone(),
        text: scenario.text.clone(),
        expect: scenario.expect.clone(),
        verdict: Verdict::Inconclusive,
        inconclusive,
        settings: run.settings(),
        counts,
        findings,
        in_recovery: again.levels,
        faults,
        recording_warnings: run.recording.warnings.clone(),
        canary: canary.to_string(),
        points: run.point_reports(&states, &judged, &searched),
        timeline: Some(TimelineReport::of(&run)),
        provenance: laboratory.provenance().into_iter().chain(run.recording.account.clone()).collect(),
        trace: run.trace(),
        shard: run.shard_report(),
    };
    run.recording.events.check()?;
    report.verdict = report.verdict(&options.deny);
    if run.interrupted() {
        report.inconclusive.push(INTERRUPTED.to_owned());
        report.verdict = Verdict::Inconclusive;
    }
    Ok(report)
}

impl<'a, L: Laboratory> Run<'a, L> {
    pub fn seed(&self) -> u64 {
        self.options.seed.unwrap_or(self.scenario.crash.seed)
    }

    fn budget(&self) -> u64 {
        self.options.budget.unwrap_or(self.scenario.crash.budget)
    }

    /// Recoveries that lazy exploration may spend in all.
    pub fn lazy_budget(&self) -> u64 {
        self.options.budget.unwrap_or(u64::MAX)
    }

    pub fn branches(&self) -> u64 {
        self.scenario.crash.branches
    }

    /// What KVM has recorded is a sample anyway, and has whole pages in flight: lazily there would be no end of branches.
    fn explore(&self) -> Explore {
        let sampled = self.laboratory.samples().then_some(Explore::Sample);
        self.options.explore.or(sampled).unwrap_or(self.scenario.crash.explore)
    }

    pub fn skips_oracle(&self) -> bool {
        self.options.sabotage == Some(Sabotage::SkipOracle)
    }

    fn settings(&self) -> Settings {
        Settings {
            platform: self.scenario.platforms(),
            platform_override: self.scenario.platform_override,
            kernel_override: self.scenario.kernel_override.clone(),
            modules_override: self
                .scenario
                .kernel_override
                .as_ref()
                .and(self.scenario.machine.modules.clone()),
            mutant: self.scenario.mutant.clone(),
            granularity: self.options.granularity_of(self.scenario),
            nt_evicts: self.options.nt_evicts,
            strict_fences: self.options.strict_fences || self.scenario.crash.strict_fences,
            store_buffer: self
                .scenario
                .has_platform(Platform::Eadr)
                .then_some(self.scenario.crash.store_buffer),
            failed_flush_loses: self.scenario.crash.failed_flush_loses,
            sampled: self.laboratory.samples(),
            seed: self.seed(),
            explore: self.explore(),
            in_recovery: self.options.in_recovery.unwrap_or(self.scenario.crash.in_recovery),
            branches: (self.explore() == Explore::Lazy).then(|| self.branches()),
            budget: self.budget(),
            states_per_point: self.scenario.crash.states,
        }
    }

    /// Tells this execution, and what is done with it, from all others.
    fn execution(&self) -> ledger::Key {
        let settings = serde_json::to_string(&self.settings()).expect("settings are numbers and words");
        ledger::key("execution", &(self.trace(), settings, self.laboratory.provenance()))
    }

    /// BLAKE3 of all recorded events and acknowledgements, in hexadecimal.
    pub fn trace(&self) -> String {
        self.recording.trace.get_or_init(|| self.hash_trace()).clone()
    }

    fn hash_trace(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for event in &self.recording.events {
            hash.update(&postcard::to_stdvec(&event).expect("an event has only numbers and bytes"));
        }
        for acknowledged in self.recording.timeline.acknowledged.iter() {
            hash.update(&acknowledged.events.to_le_bytes()).update(acknowledged.text.as_bytes());
        }
        hash.finalize().to_hex().to_string()
    }

    pub fn count(&self) -> Counts {
        let (mut total, mut log2, mut exact) = (0_u128, f64::NEG_INFINITY, true);
        for point in &self.points.points {
            let count = point.media.count();
            total = total.saturating_add(count.states);
            let (large, small) = if count.log2 > log2 { (count.log2, log2) } else { (log2, count.log2) };
            log2 = if small == f64::NEG_INFINITY {
                large
            } else {
                large + (small - large).exp2().ln_1p() / std::f64::consts::LN_2
            };
            exact &= count.exact;
        }
        let huge = total == u128::MAX;
        Counts {
            events: self.recording.events.len(),
            promises: self.scenario.history.promises.len() as u64,
            acknowledged: self.recording.timeline.acknowledged.len() as u64,
            crash_points: self.points.points.len() as u64,
            crash_points_equal: self.points.equal as u64,
            crash_points_left_out: self.points.left_out as u64,
            states_exist: if huge { "more than 2^128".to_owned() } else { total.to_string() },
            // Two decimals: sums of logarithms are not worth more, and reports stay short.
            states_exist_log2: if self.points.points.is_empty() {
                0.0
            } else {
                (log2 * 100.0).round() / 100.0
            },
            states_exist_exact: exact && !huge,
            ..Counts::default()
        }
    }

    /// Finds crash states and recovers them.
    pub fn cover(
        &self,
        counts: &mut Counts,
        inconclusive: &mut Vec<String>,
        progress: OnProgress,
    ) -> Result<Covered, HostError> {
        if self.explore() == Explore::Sample {
            let (states, judged) = self.recover_all(self.choose(counts, &|_| true), true, progress)?;
            counts.exhaustive &= !self.is_partial();
            return Ok(Covered { states, judged, searched: Vec::new() });
        }
        let Explored { mut states, mut judged, recoveries, searched, inconclusive: disagreements } =
            self.explore_lazily(progress)?;
        inconclusive.extend(disagreements);
        counts.recoveries = recoveries;
        counts.points_exhaustive = searched.iter().filter(|searched| searched.cut.is_none()).count() as u64;
        counts.exhaustive = counts.points_exhaustive == counts.crash_points
            && self.points.left_out == 0
            && !self.laboratory.samples();
        let exhaustive = counts.exhaustive;
        // A search that was cut has seen one corner only. Which are is not known before: every shard has its own.
        let bounded = |point: usize| searched[point].cut.is_some_and(Cut::is_bounded);
        let (sampled, sampled_judged) = self.recover_all(self.choose(counts, &bounded), false, progress)?;
        counts.exhaustive = exhaustive;
        states.extend(sampled);
        judged.extend(sampled_judged);
        counts.states_distinct = states.len() as u64;
        Ok(Covered { states, judged, searched })
    }

    /// Chooses states of the wanted points, a few of every point before more of any.
    fn choose(&self, counts: &mut Counts, wanted: &dyn Fn(usize) -> bool) -> Vec<State> {
        let points = &self.points.points;
        let limit = self.scenario.crash.states as usize;
        let of_point = |(number, point): (usize, &Point)| match wanted(number) {
            true => states::of_point(point, self.seed() ^ point.events, limit),
            false => Vec::new(),
        };
        let chosen: Vec<Vec<Choice>> = points.iter().enumerate().map(of_point).collect();
        let order = self.order();
        let mut states: Vec<State> = Vec::new();
        let mut known: BTreeMap<(StateId, usize), usize> = BTreeMap::new();
        for round in 0..chosen.iter().map(Vec::len).max().unwrap_or(0) {
            for &number in &order {
                let Some(choice) = chosen[number].get(round) else { continue };
                counts.states_chosen += 1;
                let id = points[number].media.state_id(choice);
                // A check program sees what it is told, too.
                let key = (id, points[number].told().count());
                if let Some(&known) = known.get(&key) {
                    counts.states_equal += 1;
                    match states[known].at.iter_mut().find(|(point, _)| *point == number) {
                        // The same content without strict fences says more.
                        Some((_, at)) if points[number].is_only_strict(at) => *at = choice.clone(),
                        Some(_) => (),
                        None => states[known].at.push((number, choice.clone())),
                    }
                } else if (states.len() as u64) < self.budget() {
                    known.insert(key, states.len());
                    states.push(State { id, at: vec![(number, choice.clone())] });
                } else {
                    counts.states_left_out += 1;
                }
            }
        }
        counts.states_distinct = states.len() as u64;
        let complete = |(point, choices): (&Point, &Vec<Choice>)| {
            let count = point.media.count();
            let distinct: BTreeSet<&Choice> = choices.iter().collect();
            count.exact && count.states == distinct.len() as u128
        };
        counts.exhaustive = counts.states_left_out == 0
            && self.points.left_out == 0
            && !self.laboratory.samples()
            && points.iter().zip(&chosen).all(complete);
        states
    }

    /// Points that were asked for by name first: a small budget must not be used up before the first promise.
    pub fn order(&self) -> Vec<usize> {
        let only_durable = |point: &Point| point.reasons.iter().all(|reason| reason == "durable");
        let mut named: Vec<usize> = Vec::new();
        let mut others: Vec<usize> = Vec::new();
        for (number, point) in self.points.points.iter().enumerate() {
            if only_durable(point) { others.push(number) } else { named.push(number) }
        }
        let mut random = ChaCha8Rng::seed_from_u64(self.seed());
        for at in (1..others.len()).rev() {
            others.swap(at, (random.next_u64() % (at as u64 + 1)) as usize);
        }
        named.extend(others);
        named
    }

    /// Recovers every state that is this run's. The result does not depend on how many machines do it.
    fn recover_all(
        &self,
        states: Vec<State>,
        divided: bool,
        progress: OnProgress,
    ) -> Result<(Vec<State>, Vec<Judged>), HostError> {
        let key = |state: &State| {
            let events: Vec<u64> =
                state.at.iter().map(|(point, _)| self.points.points[*point].events).collect();
            ledger::key("state", &(self.place(), state.id, events))
        };
        let keys: Vec<ledger::Key> = states.iter().map(key).collect();
        let fits = |unit: usize, judged: &Judged| judged.faults.len() == states[unit].at.len();
        // A checker that was killed says something else the next time.
        let is_whole = |judged: &Judged| judged.unknown.is_none();
        let units = Units { keys: &keys, divided, is_whole, fits: &fits };
        let begin = || Worker::new(self.scenario, self.laboratory);
        let recover = |worker: &mut Worker<L>, unit: usize| {
            self.options.effort.recovered();
            self.recover(worker, &states[unit])
        };
        let judged = self.do_all(&units, begin, recover, progress)?;
        let done = states.into_iter().zip(judged);
        Ok(done.filter_map(|(state, judged)| Some((state, judged?))).unzip())
    }

    fn recover(&self, worker: &mut Worker<L>, state: &State) -> Result<Judged, HostError> {
        let (point, choice) = &state.at[0];
        let at = &self.points.points[*point];
        let recovered = torn::recover(worker, &at.media, choice, at.told())?;
        let faults = state.at.iter().map(|(point, _)| self.faults(&recovered.outcome, *point)).collect();
        let unknown = match &recovered.outcome {
            Outcome::Unknown(why) => Some(why.clone()),
            _ => None,
        };
        Ok(Judged { faults, shape: recovered.outcome.shape(), unknown, warnings: recovered.warnings })
    }

    /// What must not be, of an outcome at a crash point.
    pub fn faults(&self, outcome: &Outcome, point: usize) -> Vec<Fault> {
        if self.skips_oracle() {
            return Vec::new();
        }
        let mut faults = outcome.faults(&self.points.points[point].expectation);
        let of_check =
            |fault: &Fault| fault.subject == checking::SUBJECT || fault.text.starts_with(checking::MEANWHILE);
        faults.retain(|fault| !self.recording.check_is_void || !of_check(fault));
        faults
    }

    fn check_counts(
        &self,
        counts: &mut Counts,
        states: &[State],
        judged: &[Judged],
        inconclusive: &mut Vec<String>,
    ) {
        let mut promises = BTreeSet::new();
        for (state, judged) in states.iter().zip(judged).filter(|(_, judged)| judged.unknown.is_none()) {
            counts.judged += judged.faults.len() as u64;
            promises.extend(
                state
                    .at
                    .iter()
                    .flat_map(|(point, _)| self.points.points[*point].expectation.promises.iter().copied()),
            );
        }
        counts.promises_judged = promises.len() as u64;
        let whole = states.iter().zip(judged).filter(|(_, judged)| judged.unknown.is_none());
        let points =
            whole.flat_map(|(state, _)| state.at.iter().map(|(point, _)| &self.points.points[*point]));
        counts.acknowledged_judged = match self.scenario.check {
            Some(_) => points.map(|point| point.told().count() as u64).max().unwrap_or(0),
            None => 0,
        };
        if self.points.points.is_empty() {
            inconclusive.push("there is no crash point".to_owned());
        } else if promises.is_empty() && counts.acknowledged_judged == 0 && !self.is_partial() {
            inconclusive.push("no promise was judged".to_owned());
        }
        if self.skips_oracle() {
            counts.judged = 0;
        }
    }

    /// Every fault with the state and the place in it that show it, and a crash while recording.
    pub fn instances(&self, states: &[State], judged: &[Judged]) -> Vec<Instance> {
        let mut instances = Vec::new();
        for (number, judged) in judged.iter().enumerate() {
            for (place, faults) in judged.faults.iter().enumerate() {
                let (point, choice) = &states[number].at[place];
                let lost = self.points.points[*point].media.in_flight().len() - choice.len();
                let only_strict = self.points.points[*point].is_only_strict(choice);
                instances.extend(faults.iter().map(|fault| Instance {
                    state: Some((number, place)),
                    only_strict,
                    lost,
                    fault: fault.clone(),
                }));
                instances.extend(findings::warnings(&judged.warnings).into_iter().map(|fault| Instance {
                    state: Some((number, place)),
                    only_strict,
                    lost,
                    fault,
                }));
            }
        }
        if let Some(Trouble::Crash(why)) = &self.recording.trouble {
            let fault = Fault {
                class: Class::GuestCrash,
                promise: None,
                subject: "recording".to_owned(),
                range: None,
                text: format!("while recording: {why}"),
            };
            instances.push(Instance::of_recording(fault));
        }
        instances
    }

    pub fn point_reports(
        &self,
        states: &[State],
        judged: &[Judged],
        searched: &[Searched],
    ) -> Vec<PointReport> {
        let mut reports: Vec<PointReport> =
            self.points.points.iter().map(|point| self.point_report(point)).collect();
        for (report, searched) in reports.iter_mut().zip(searched) {
            report.search = Some(SearchReport {
                recoveries: searched.branches,
                exhaustive: searched.cut.is_none(),
                bounded: searched.why_bounded(),
            });
        }
        for (state, judged) in states.iter().zip(judged) {
            for ((point, choice), faults) in state.at.iter().zip(&judged.faults) {
                let report = &mut reports[*point];
                report.judged += 1;
                let at = &self.points.points[*point];
                report.found.extend(faults.iter().map(|fault| at.class_of(fault, choice)));
                report.found.sort();
                report.found.dedup();
                let outcome = judged.shape.as_ref().map_or("nothing came back".to_owned(), describe);
                if report.outcomes.len() < 4 && !report.outcomes.contains(&outcome) {
                    report.outcomes.push(outcome);
                }
            }
        }
        reports
    }

    /// The step under way behind so many events, for people.
    pub fn step_at(&self, events: u64) -> Option<String> {
        if !self.earlier.is_empty() {
            let phase = self.recording.phases.iter().find(|(_, end)| events <= *end);
            return phase.map(|(phase, _)| format!("recovery: {phase}"));
        }
        let command = self.recording.timeline.command_at(events)?;
        let step = &self.scenario.steps[self.scenario.commands[command].step];
        Some(format!("line {}: {}", step.line, step.text))
    }

    fn point_report(&self, point: &Point) -> PointReport {
        PointReport {
            events: point.events,
            reasons: point.reasons.iter().cloned().collect(),
            window: point.window.map(|(fault, window)| format!("fault {fault} W{window}")),
            step: self.step_at(point.events),
            in_flight: point.media.in_flight().len() as u64,
            log2: (point.media.count().log2 * 100.0).round() / 100.0,
            judged: 0,
            promises: point.expectation.promises.len() as u64,
            found: Vec::new(),
            search: None,
            outcomes: Vec::new(),
        }
    }
}

fn describe(shape: &Shape) -> String {
    let files = shape.iter().map(|(path, size, allocated)| format!("{path} {size:#x}/{allocated:#x}"));
    let files = files.collect::<Vec<_>>().join(", ");
    if files.is_empty() { "no files".to_owned() } else { files }
}
