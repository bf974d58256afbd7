//! First crash states: those whose recovery is cut in its turn.

use std::collections::BTreeMap;

use persist::{Choice, Overlay, StateId};
use serde::{Deserialize, Serialize};

use super::{Way, recording};
use crate::ledger;
use crate::options::OnProgress;
use crate::oracle::acknowledged::Acknowledged;
use crate::points::Point;
use crate::recover::{Outcome, Worker};
use crate::run::{Judged, Run, State};
use crate::target::{HostError, Laboratory};
use crate::work::Units;

/// Recoveries that are recorded to find those that differ, for each that is cut.
const RECORDED: usize = 8;

/// A crash state that a machine comes up on, to lose power again.
pub(crate) struct Root {
    pub content: Overlay,
    /// One for each of the different things that may be found, at the crash points of which it is a state.
    pub ways: Vec<Way>,
}

impl Root {
    /// What the check program is told when the power does not go again: it is the same on every way.
    pub fn told(&self) -> Acknowledged {
        self.ways.first().map(|way| way.expectation.told.clone()).unwrap_or_default()
    }
}

/// The roots, and how they were chosen.
pub(crate) struct Roots {
    pub roots: Vec<Root>,
    /// Crash states whose recovery was recorded.
    pub recorded: u64,
    /// Of these, not fine as they are: there is no point in cutting their recovery.
    pub not_fine: u64,
    /// Of the others, how many recoveries write different things.
    pub different: u64,
}

/// A crash state, at every crash point of which it is one.
struct Candidate {
    at: Vec<(usize, Choice)>,
}

/// What the recovery of a candidate is like.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Tried {
    fine: bool,
    digest: [u8; 32],
    stores: u64,
}

/// Chooses at most `limit` crash states: of each crash point that with everything lost, that with nothing lost, and one
/// by chance, then those that were explored; of recoveries that write the same, the one behind the most promises.
pub(crate) fn choose<L: Laboratory>(
    run: &Run<L>,
    states: &[State],
    judged: &[Judged],
    limit: usize,
    progress: OnProgress,
) -> Result<Roots, HostError> {
    let candidates = candidates(run, states, judged, limit.saturating_mul(RECORDED));
    let tried = try_all(run, &candidates, progress)?;
    // What is not there was not begun when the run was interrupted.
    let tried: Vec<(usize, Tried)> =
        tried.into_iter().enumerate().filter_map(|(number, tried)| Some((number, tried?))).collect();
    let mut alike: BTreeMap<(u64, [u8; 32]), Vec<usize>> = BTreeMap::new();
    for (number, tried) in tried.iter().filter(|(_, tried)| tried.fine) {
        alike.entry((tried.stores, tried.digest)).or_default().push(*number);
    }
    let promises = |candidate: &usize| {
        let points = candidates[*candidate].at.iter();
        points.map(|(point, _)| run.points.points[*point].expectation.promises.len()).max()
    };
    let mut alike: Vec<Vec<usize>> = alike.into_values().collect();
    for group in &mut alike {
        // A stable sort: of equals, the first.
        group.sort_by_key(|candidate| std::cmp::Reverse(promises(candidate)));
    }
    let different = alike.len() as u64;
    let chosen = evenly(&alike, limit);
    Ok(Roots {
        roots: chosen.into_iter().map(|candidate| root(run, &candidates[candidate])).collect(),
        recorded: tried.len() as u64,
        not_fine: tried.iter().filter(|(_, tried)| !tried.fine).count() as u64,
        different,
    })
}

/// One of each group, from the first group to the last as evenly as it goes; when there are fewer groups than wanted,
/// second ones, and so on.
fn evenly(groups: &[Vec<usize>], limit: usize) -> Vec<usize> {
    if groups.len() >= limit {
        let last = groups.len() - 1;
        let at = |number: usize| if limit == 1 { last } else { number * last / (limit - 1) };
        return (0..limit).map(|number| groups[at(number)][0]).collect();
    }
    let most = groups.iter().map(Vec::len).max().unwrap_or(0);
    let rounds = (0..most).flat_map(|round| groups.iter().filter_map(move |group| group.get(round)));
    rounds.take(limit).copied().collect()
}

fn candidates<L: Laboratory>(
    run: &Run<L>,
    states: &[State],
    judged: &[Judged],
    limit: usize,
) -> Vec<Candidate> {
    let points = &run.points.points;
    let mut found: Vec<Candidate> = Vec::new();
    let mut known: BTreeMap<(StateId, usize), usize> = BTreeMap::new();
    let mut add = |id: StateId, point: usize, choice: Choice| {
        if points[point].is_only_strict(&choice) {
            return;
        }
        let number = *known.entry((id, points[point].told().count())).or_insert(found.len());
        match found.get_mut(number) {
            Some(candidate) if candidate.at.iter().any(|(other, _)| *other == point) => (),
            Some(candidate) => candidate.at.push((point, choice)),
            None => found.push(Candidate { at: vec![(point, choice)] }),
        }
    };
    for round in 0..3 {
        for point in run.order() {
            let Point { media, .. } = &points[point];
            let choice = match round {
                0 => media.everything(),
                1 => media.closure(media.handed_over().iter()),
                _ => media.closure(
                    media
                        .random(run.seed() ^ points[point].events, 0)
                        .iter()
                        .chain(media.handed_over().iter()),
                ),
            };
            add(media.state_id(&choice), point, choice);
        }
    }
    for (state, _) in states.iter().zip(judged).filter(|(_, judged)| judged.is_fine()) {
        for (point, choice) in &state.at {
            add(state.id, *point, choice.clone());
        }
    }
    found.truncate(limit);
    found
}

fn try_all<L: Laboratory>(
    run: &Run<L>,
    candidates: &[Candidate],
    progress: OnProgress,
) -> Result<Vec<Option<Tried>>, HostError> {
    let key = |candidate: &Candidate| {
        let points = &run.points.points;
        let (point, choice) = &candidate.at[0];
        let events: Vec<u64> = candidate.at.iter().map(|(point, _)| points[*point].events).collect();
        ledger::key("recovery", &(run.place(), points[*point].media.state_id(choice), events))
    };
    let keys: Vec<ledger::Key> = candidates.iter().map(key).collect();
    let units = Units { keys: &keys, divided: false, is_whole: |_: &Tried| true, fits: &|_, _| true };
    let begin = || Worker::new(run.scenario, run.laboratory);
    let record = |worker: &mut Worker<L>, unit: usize| {
        let candidate = &candidates[unit];
        let (point, choice) = &candidate.at[0];
        let content = run.points.points[*point].media.content(choice);
        let told = run.points.points[*point].told();
        let recovery = recording::record(worker, &content, told, None, &mut |_, _| None)?;
        let outcome = &recovery.recovered.outcome;
        let fine = matches!(outcome, Outcome::Found(_))
            && candidate.at.iter().all(|(point, _)| run.faults(outcome, *point).is_empty());
        Ok(Tried { fine, digest: recovery.digest(), stores: recovery.stores() })
    };
    run.do_all(&units, begin, record, progress)
}

fn root<L: Laboratory>(run: &Run<L>, candidate: &Candidate) -> Root {
    let mut ways: Vec<Way> = Vec::new();
    for (point, choice) in &candidate.at {
        let way = run.way_to(*point, choice);
        if ways.iter().all(|known| known.expectation != way.expectation) {
            ways.push(way);
        }
    }
    let (point, choice) = &candidate.at[0];
    Root { content: run.points.points[*point].media.content(choice), ways }
}

#[cfg(test)]
mod tests {
    use super::evenly;

    #[test]
    fn roots_are_spread_over_all_recoveries_that_differ() {
        let groups = |len: usize| (0..len).map(|group| vec![group, 100 + group]).collect::<Vec<_>>();
        assert_eq!(evenly(&groups(9), 3), [0, 4, 8]);
        assert_eq!(evenly(&groups(9), 1), [8]);
        assert_eq!(evenly(&groups(2), 3), [0, 1, 100]);
        assert_eq!(evenly(&groups(2), 9), [0, 1, 100, 101]);
        assert!(evenly(&[], 9).is_empty());
    }
}
