//! Lazy exploration: at every crash point everything that recovery could tell apart, each once.
//!
//! Recovery starts with the durable content; what is in flight stays undecided until something takes it. What comes of
//! a crash point is a tree of decisions. Its leaves stand for all crash states together, every one of them for those
//! that agree with what was decided on the way to it.

mod compare;
mod gather;
mod recovery;
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use persist::{Choice, CrashPoint};
use serde::{Deserialize, Serialize};

pub use self::compare::{Comparison, compare};
use self::gather::Gathered;
use self::recovery::{Checks, Recovery};
pub(crate) use self::search::{Cut, Searched};
use self::search::{Limits, search};
use crate::ledger;
use crate::options::OnProgress;
use crate::oracle::acknowledged::Acknowledged;
use crate::oracle::judge::Fault;
use crate::points::Point;
use crate::recover::{Outcome, Worker};
use crate::run::{Judged, Run, State};
use crate::target::{HostError, Laboratory};
use crate::torn;
use crate::work::Units;

/// Sets of parts that are told apart to find the contents of one line: enough for any order that real stores have.
const SETS: usize = 1 << 14;

/// What lazy exploration found.
pub(crate) struct Explored {
    pub states: Vec<State>,
    pub judged: Vec<Judged>,
    /// Ways that recovery went in all.
    pub recoveries: u64,
    /// For every crash point how completely it was searched; under strict fences, of both readings together.
    pub searched: Vec<Searched>,
    pub inconclusive: Vec<String>,
}

/// Crash points with the same media, where the check program is told the same: one search serves them all.
struct Task {
    points: Vec<usize>,
    /// Under strict fences: without them.
    plain: bool,
}

/// What tells tasks apart: the media, whether strict fences are left out, and how much the check program is told of.
type TaskKey = ([u8; 32], bool, usize);

/// What came of a task.
#[derive(Serialize, Deserialize)]
struct Done {
    searched: Searched,
    found: Vec<Found>,
    disagreements: Vec<String>,
}

/// Ways of recovery that ended alike.
#[derive(Serialize, Deserialize)]
struct Found {
    /// Of the crash states for which they stand the one with the most that arrived.
    choice: Choice,
    outcome: [u8; 32],
    judged: Judged,
}

impl<L: Laboratory> Run<'_, L> {
    /// Searches all crash points, on several machines at once. The result does not depend on how many.
    pub fn explore_lazily(&self, progress: OnProgress) -> Result<Explored, HostError> {
        let tasks = self.tasks();
        let mut done: Vec<Option<Done>> = tasks.iter().map(|_| None).collect();
        let (mut left, mut limit) = (self.lazy_budget(), 0);
        loop {
            let open: Vec<usize> = (0..tasks.len())
                .filter(|task| {
                    done[*task].as_ref().is_none_or(|done| done.searched.cut == Some(Cut::Branches))
                })
                .collect();
            let share = (left / (open.len() as u64).max(1)).min(self.branches());
            // Searching again must be worth it.
            if open.is_empty() || share < (2 * limit).max(1) {
                break;
            }
            limit = share;
            let results = self.search_all(&tasks, &open, limit, progress)?;
            for (task, result) in open.into_iter().zip(results) {
                let Some(result) = result else { continue };
                left = left.saturating_sub(result.searched.branches);
                // What was interrupted when it was searched again is better known from before.
                if result.searched.cut != Some(Cut::Interrupted) || done[task].is_none() {
                    done[task] = Some(result);
                }
            }
            // What is left is only known when everything has been searched once.
            if self.is_partial() {
                break;
            }
        }
        let left_out = match (self.interrupted(), self.options.shard) {
            (true, _) => Cut::Interrupted,
            (false, Some(_)) => Cut::Elsewhere,
            (false, None) => Cut::Branches,
        };
        let nothing = Searched { branches: 0, cut: Some(left_out) };
        let mut explored = Explored {
            states: Vec::new(),
            judged: Vec::new(),
            recoveries: 0,
            searched: vec![Searched { branches: 0, cut: None }; self.points.points.len()],
            inconclusive: Vec::new(),
        };
        for (task, done) in tasks.iter().zip(done) {
            let searched = done.as_ref().map_or(nothing, |done| done.searched);
            explored.recoveries += searched.branches;
            for point in &task.points {
                let of_point = &mut explored.searched[*point];
                of_point.branches += searched.branches;
                of_point.cut = of_point.cut.or(searched.cut);
            }
            let Some(done) = done else { continue };
            explored.inconclusive.extend(done.disagreements);
            for found in done.found {
                explored.states.push(self.state(task, &found.choice));
                explored.judged.push(found.judged);
            }
        }
        Ok(explored)
    }

    /// Crash points whose media are the same, and under strict fences those without them, too. A check program sees what
    /// it is told, so what it is told must be the same.
    fn tasks(&self) -> Vec<Task> {
        let mut known: BTreeMap<TaskKey, usize> = BTreeMap::new();
        let mut tasks: Vec<Task> = Vec::new();
        for (number, point) in self.points.points.iter().enumerate() {
            let plain = point.without_strict.as_ref().filter(|_| !point.media.handed_over().is_empty());
            let readings = plain.map(|media| (media, true)).into_iter().chain([(&point.media, false)]);
            for (media, plain) in readings {
                let told = point.told().count();
                let task = *known.entry((media_key(media), plain, told)).or_insert_with(|| {
                    tasks.push(Task { points: Vec::new(), plain });
                    tasks.len() - 1
                });
                tasks[task].points.push(number);
            }
        }
        tasks
    }

    fn media(&self, task: &Task) -> &CrashPoint {
        let point = &self.points.points[task.points[0]];
        point.without_strict.as_ref().filter(|_| task.plain).unwrap_or(&point.media)
    }

    fn told(&self, task: &Task) -> &Acknowledged {
        self.points.points[task.points[0]].told()
    }

    fn state(&self, task: &Task, choice: &Choice) -> State {
        let at_point = |number: &usize| {
            let point: &Point = &self.points.points[*number];
            (*number, if task.plain { point.under_strict(choice) } else { choice.clone() })
        };
        State { id: self.media(task).state_id(choice), at: task.points.iter().map(at_point).collect() }
    }

    fn search_all(
        &self,
        tasks: &[Task],
        wanted: &[usize],
        limit: u64,
        progress: OnProgress,
    ) -> Result<Vec<Option<Done>>, HostError> {
        let key = |task: &usize| {
            let task = &tasks[*task];
            let events: Vec<u64> =
                task.points.iter().map(|point| self.points.points[*point].events).collect();
            ledger::key("search", &(self.place(), media_key(self.media(task)), task.plain, events, limit))
        };
        let keys: Vec<ledger::Key> = wanted.iter().map(key).collect();
        let fits = |unit: usize, done: &Done| {
            let task = &tasks[wanted[unit]];
            let fits = |found: &Found| {
                self.media(task).is_closed(&found.choice) && found.judged.faults.len() == task.points.len()
            };
            done.found.iter().all(fits)
        };
        let is_whole = |done: &Done| {
            done.searched.cut != Some(Cut::Interrupted)
                && done.found.iter().all(|found| found.judged.unknown.is_none())
        };
        let begin = || Ok((Worker::new(self.scenario, self.laboratory)?, Checks::default()));
        self.do_all(
            &Units { keys: &keys, divided: true, is_whole, fits: &fits },
            begin,
            |(worker, checks), unit| self.search_one(worker, checks, &tasks[wanted[unit]], limit),
            progress,
        )
    }

    fn search_one(
        &self,
        worker: &mut Worker<L>,
        checks: &mut Checks,
        task: &Task,
        branches: u64,
    ) -> Result<Done, HostError> {
        let media = self.media(task);
        let mut gathered = Gathered::new(self, task);
        let mut recovery = Recovery::begin(worker, checks, media, self.told(task))?;
        let limits = Limits { branches, sets: SETS };
        let interrupted = || self.interrupted();
        let mut searched = search(&mut recovery, media.partial(), limits, &interrupted, |known, leaf| {
            self.options.effort.recovered();
            gathered.add(known, &leaf)
        })?;
        searched.cut = searched.cut.or(gathered.cut);
        let mut found = gathered.finish(worker)?;
        let mut disagreements = Vec::new();
        for found in
            found.iter_mut().filter(|found| found.judged.faults.iter().any(|faults| !faults.is_empty()))
        {
            disagreements.extend(self.confirm(worker, task, found)?);
        }
        Ok(Done { searched, found, disagreements })
    }

    /// Recovers the crash state that stands for what was found in the ordinary way. What comes of it has to be the
    /// same; says where it is not.
    fn confirm(
        &self,
        worker: &mut Worker<L>,
        task: &Task,
        found: &mut Found,
    ) -> Result<Option<String>, HostError> {
        let media = self.media(task);
        let told = self.told(task);
        let recovered = worker.recover(&media.content(&found.choice), told, &[], None)?;
        let same = recovered.outcome.digest() == found.outcome && recovered.warnings == found.judged.warnings;
        let recovered = torn::lay_to_tearing(worker, media, &found.choice, told, recovered)?;
        found.judged.faults = self.faults_of(task, &recovered.outcome);
        found.judged.shape = recovered.outcome.shape();
        let point = self.points.points[task.points[0]].events;
        let state = media.state_id(&found.choice);
        Ok((!same)
            .then(|| format!("lazy and eager recovery disagree behind {point} events about state {state}")))
    }

    /// What must not be, of an outcome at each crash point of a task.
    fn faults_of(&self, task: &Task, outcome: &Outcome) -> Vec<Vec<Fault>> {
        task.points.iter().map(|point| self.faults(outcome, *point)).collect()
    }
}

/// The same for media that are the same in all that matters: the durable content, the parts in flight and their orders.
pub(crate) fn media_key(media: &CrashPoint) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(media.durable_id().to_string().as_bytes());
    for part in media.in_flight() {
        let what = (part.event, part.addr, &part.bytes, part.handed_over_by, part.drained_by, part.failed_by);
        hash.update(format!("{what:?}").as_bytes());
    }
    *hash.finalize().as_bytes()
}
