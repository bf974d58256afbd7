//! What the leaves of a search come to: judged, those that ended alike put together, damage laid to tearing where that
//! is behind it.

use std::collections::BTreeMap;

use persist::{Choice, CrashPoint, Partial, StateId};

use super::recovery::Leaf;
use super::{Cut, Found, SETS, Task};
use crate::oracle::judge::Fault;
use crate::oracle::possible::suspects;
use crate::recover::{Outcome, Shape, Worker};
use crate::run::{Judged, Run};
use crate::target::{HostError, Laboratory};
use crate::torn;
use crate::verdict::Class;

/// What makes two ways of recovery alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    warnings: Vec<String>,
    /// What came back, in outline.
    shape: Option<Shape>,
    /// Why nothing is known.
    unknown: Option<String>,
    /// The kinds of faults at every crash point.
    kinds: Vec<Vec<(Class, Option<u32>, String)>>,
    /// At which of its places the contents of files are wrong: what is behind it may not be the same everywhere.
    place: usize,
    /// Whether damage is there only because one kernel copy is there in part.
    torn: bool,
}

/// Lines by address, with their contents.
type Lines = Vec<(u64, [u8; 64])>;

/// What was found so far.
pub(super) struct Gathered<'r, 'a, L: Laboratory> {
    run: &'r Run<'a, L>,
    task: &'r Task,
    media: &'r CrashPoint,
    all: BTreeMap<Alike, Found>,
    /// Of these it has to be seen whether they are torn.
    damaged: Vec<(Alike, Found)>,
    /// The lines that are known at each leaf, and whether that is damaged.
    leaves: Vec<(Lines, bool)>,
    /// A line that has too many contents to be held against a file.
    pub cut: Option<Cut>,
}

impl<'r, 'a, L: Laboratory> Gathered<'r, 'a, L> {
    pub fn new(run: &'r Run<'a, L>, task: &'r Task) -> Self {
        Gathered {
            run,
            task,
            media: run.media(task),
            all: BTreeMap::new(),
            damaged: Vec::new(),
            leaves: Vec::new(),
            cut: None,
        }
    }

    /// Judges the crash states for which a leaf stands: one, and those that can be wrong with the contents of files.
    pub fn add(&mut self, known: &Partial, leaf: &Leaf) -> Result<(), HostError> {
        let lines = known.known().map(|(line, content)| (line, *content)).collect();
        self.leaves.push((lines, leaf.outcome.is_corrupt()));
        let mut choices = vec![(known.choice(), 0)];
        for point in self.task.points.iter().filter(|_| !self.run.skips_oracle()) {
            let Some(tree) = leaf.outcome.tree() else { break };
            match suspects(&self.run.points.points[*point].expectation, tree, known, SETS) {
                Ok(suspects) => choices.extend(suspects.iter().map(|it| (it.known.choice(), it.place))),
                Err(too_many) => self.cut = Some(Cut::Contents(too_many.line)),
            }
        }
        for (choice, place) in choices {
            let choice =
                choice.ok_or_else(|| HostError("what was decided fits no crash state".to_owned()))?;
            self.add_state(choice, place, leaf);
        }
        Ok(())
    }

    fn add_state(&mut self, choice: Choice, place: usize, leaf: &Leaf) {
        let outcome = match leaf.outcome.tree().filter(|tree| tree.is_open()) {
            Some(tree) => {
                let initial = |addr| self.run.model.media.line(addr);
                leaf.outcome.with_tree(tree.filled(&self.media.content(&choice), initial))
            }
            None => leaf.outcome.clone(),
        };
        let unknown = match &outcome {
            Outcome::Unknown(why) => Some(why.clone()),
            _ => None,
        };
        let (faults, shape) = (self.run.faults_of(self.task, &outcome), outcome.shape());
        let kind = |fault: &Fault| (fault.class, fault.promise, fault.subject.clone());
        let kinds = faults.iter().map(|faults| faults.iter().map(kind).collect()).collect();
        let warnings = leaf.warnings.clone();
        let place = if faults.iter().all(Vec::is_empty) { 0 } else { place };
        let alike = Alike {
            warnings: warnings.clone(),
            shape: shape.clone(),
            unknown: unknown.clone(),
            kinds,
            place,
            torn: false,
        };
        if outcome.is_corrupt() || is_larger(&choice, self.all.get(&alike)) {
            let judged = Judged { faults, shape, unknown, warnings };
            let found = Found { choice, outcome: outcome.digest(), judged };
            if outcome.is_corrupt() {
                self.damaged.push((alike, found));
            } else {
                self.all.insert(alike, found);
            }
        }
    }

    /// Everything that was found, in a fixed order.
    pub fn finish(mut self, worker: &mut Worker<L>) -> Result<Vec<Found>, HostError> {
        let mut known = BTreeMap::new();
        for (mut alike, found) in std::mem::take(&mut self.damaged) {
            if let Some(others) = torn::whole_and_missing(self.media, &found.choice) {
                alike.torn = true;
                for other in others {
                    alike.torn &= !self.is_damaged(&other, worker, &mut known)?;
                }
            }
            if is_larger(&found.choice, self.all.get(&alike)) {
                self.all.insert(alike, found);
            }
        }
        let mut all: Vec<Found> = self.all.into_values().collect();
        all.sort_by(|one, other| one.choice.cmp(&other.choice));
        Ok(all)
    }

    /// Whether a state is damaged: as the leaf says that stands for it, if the search came to that.
    fn is_damaged(
        &self,
        choice: &Choice,
        worker: &mut Worker<L>,
        known: &mut BTreeMap<StateId, bool>,
    ) -> Result<bool, HostError> {
        let id = self.media.state_id(choice);
        if let Some(damaged) = known.get(&id) {
            return Ok(*damaged);
        }
        let content = self.media.content(choice);
        let line = |addr| content.line(addr).copied().unwrap_or_else(|| self.run.model.media.line(addr));
        let leaf = self.leaves.iter().find(|(lines, _)| lines.iter().all(|(addr, it)| line(*addr) == *it));
        let damaged = match leaf {
            Some((_, damaged)) => *damaged,
            None => worker.recover(&content, self.run.told(self.task), &[], None)?.outcome.is_corrupt(),
        };
        known.insert(id, damaged);
        Ok(damaged)
    }
}

/// Whether a state stands better for those that ended alike: with more that arrived.
fn is_larger(choice: &Choice, than: Option<&Found>) -> bool {
    than.is_none_or(|than| (choice.len(), &than.choice) > (than.choice.len(), choice))
}
