//! Vinter's two verdicts: what the crash states between two checkpoints are recovered to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use persist::{EventKind, StateId};

use super::vinter::Test;
use crate::conversation::Trouble;
use crate::options::RunOptions;
use crate::oracle::judge::{Entry, Tree};
use crate::points::{self, Point};
use crate::recover::{Outcome, Worker};
use crate::run::{Run, prepare};
use crate::scenario::PointRule;
use crate::states;
use crate::target::{HostError, Laboratory};

/// What was found from one checkpoint to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The first checkpoint; the other is the one behind it.
    pub checkpoint: u32,
    /// Distinct states that crashes in front of the second checkpoint are recovered to.
    pub states: usize,
    /// Those that crashes at the second checkpoint are recovered to.
    pub final_states: usize,
    /// Of all of these, those that could not be had: the file system does not mount, or is damaged.
    pub unsuccessful: usize,
    /// Crash states that were recovered.
    pub recovered: usize,
    /// Whether these are all there are.
    pub complete: bool,
}

impl Verdict {
    /// All crash states at the second checkpoint are recovered to the same.
    pub fn has_single_final_state(&self) -> bool {
        self.final_states == 1
    }

    /// Old or new.
    pub fn is_atomic(&self) -> bool {
        self.states <= 2
    }

    /// Whether both hold, and all states could be had.
    pub fn passes(&self) -> bool {
        self.has_single_final_state() && self.is_atomic() && self.unsuccessful == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let last = match self.final_states {
            1 => "single final state".to_owned(),
            states => format!("{states} final states"),
        };
        let atomic = if self.is_atomic() { "atomic" } else { "not atomic" };
        let all = if self.complete { "all there are" } else { "a choice" };
        write!(
            f,
            "checkpoint {} -> {}: {} states, {last}, {atomic}",
            self.checkpoint,
            self.checkpoint + 1,
            self.states
        )?;
        if self.unsuccessful > 0 {
            write!(f, ", {} of them not extracted", self.unsuccessful)?;
        }
        write!(f, " ({} crash states recovered, {all})", self.recovered)
    }
}

/// Records the test and recovers its crash states, `states` of each crash point at most, as Vinter does at every fence.
/// An error in words when the test cannot be judged.
pub fn verdicts<L: Laboratory>(
    test: &Test,
    laboratory: &L,
    options: &RunOptions,
) -> Result<Result<Vec<Verdict>, String>, HostError> {
    let mut run = prepare(&test.scenario, laboratory, options, &mut Vec::new())?;
    if let Some(Trouble::Harness(why) | Trouble::Crash(why)) = &run.recording.trouble {
        return Ok(Err(why.clone()));
    }
    let markers: BTreeMap<u32, u64> = run
        .recording
        .events
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::Marker { id } => Some((id, event.seq)),
            _ => None,
        })
        .collect();
    let wanted: Vec<(u32, u64)> = (test.range.0..=test.range.1)
        .filter_map(|number| markers.get(&number).map(|seq| (number, *seq)))
        .collect();
    let mut scenario = test.scenario.clone();
    scenario.crash.points.extend(wanted.iter().map(|(_, seq)| PointRule::Event(*seq)));
    run.points = points::find(&scenario, &run.recording, &run.model);
    let mut recoveries =
        Recoveries { worker: Worker::new(&test.scenario, laboratory)?, known: BTreeMap::new() };
    let mut verdicts = Vec::new();
    for pair in wanted.windows(2) {
        match recoveries.between(&run, pair[0], pair[1].1)? {
            Ok(verdict) => verdicts.push(verdict),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(verdicts))
}

/// What is compared: the tree without what it takes on the media; `None` for what could not be had.
type Digest = Option<[u8; 32]>;

struct Recoveries<'a, L: Laboratory> {
    worker: Worker<'a, L>,
    known: BTreeMap<StateId, Digest>,
}

/// What the states of some crash points come to.
#[derive(Default)]
struct Came {
    digests: BTreeSet<Digest>,
    states: BTreeSet<StateId>,
    incomplete: bool,
}

impl<L: Laboratory> Recoveries<'_, L> {
    /// From behind marker `first` to marker event `end`, which is the final state.
    fn between(
        &mut self,
        run: &Run<L>,
        (number, begin): (u32, u64),
        end: u64,
    ) -> Result<Result<Verdict, String>, HostError> {
        // A crash point that is the same as an earlier one carries both reasons.
        let at = |point: &Point, seq: u64| point.reasons.contains(&PointRule::Event(seq).to_string());
        let (mut inside, mut last) = (Came::default(), Came::default());
        for point in &run.points.points {
            let is_inside = (begin + 1..=end).contains(&point.events) || at(point, begin);
            for (wanted, came) in [(is_inside, &mut inside), (at(point, end), &mut last)] {
                if wanted && let Err(why) = self.recover(run, point, came)? {
                    return Ok(Err(why));
                }
            }
        }
        let all: BTreeSet<&Digest> = inside.digests.union(&last.digests).collect();
        Ok(Ok(Verdict {
            checkpoint: number,
            states: inside.digests.len(),
            final_states: last.digests.len(),
            unsuccessful: all.iter().filter(|digest| digest.is_none()).count(),
            recovered: inside.states.union(&last.states).count(),
            complete: !inside.incomplete && !last.incomplete,
        }))
    }

    fn recover(
        &mut self,
        run: &Run<L>,
        point: &Point,
        came: &mut Came,
    ) -> Result<Result<(), String>, HostError> {
        let choices = states::of_point(point, run.seed() ^ point.events, run.scenario.crash.states as usize);
        let count = point.media.count();
        let distinct: BTreeSet<_> = choices.iter().collect();
        came.incomplete |= !count.exact || count.states != distinct.len() as u128;
        for choice in choices {
            let id = point.media.state_id(&choice);
            let digest = match self.known.get(&id) {
                Some(known) => *known,
                None => {
                    match self.worker.recover(&point.media.content(&choice), point.told(), &[], None)?.outcome
                    {
                        Outcome::Unknown(why) => return Ok(Err(why)),
                        Outcome::Found(tree) => Some(digest(&tree)),
                        _ => None,
                    }
                }
            };
            self.known.insert(id, digest);
            came.digests.insert(digest);
            came.states.insert(id);
        }
        Ok(Ok(()))
    }
}

fn digest(tree: &Tree) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    for (path, entry) in &tree.0 {
        hash.update(&(path.len() as u64).to_le_bytes()).update(path.as_bytes());
        match entry {
            Entry::File { size, attributes, content, .. } => {
                hash.update(format!("{size} {attributes:?} {}", content.len()).as_bytes()).update(content);
            }
            other => {
                hash.update(format!("{other:?}").as_bytes());
            }
        }
    }
    *hash.finalize().as_bytes()
}
