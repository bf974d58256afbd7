//! What a report says about power cuts during recovery.

use std::collections::BTreeSet;

use persist::Choice;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::points::Point;
use crate::report::{Counts, PointReport, SmallestState};
use crate::run::Run;
use crate::target::Laboratory;
use crate::verdict::Class;

/// Recoveries that were cut, after equally many power cuts before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LevelReport {
    /// Crash states whose recovery was recorded, to find recoveries that differ.
    pub recorded: u64,
    /// Of these, with something wrong already: their recovery is not cut.
    pub not_fine: u64,
    /// Of the others, recoveries that write different things.
    pub different: u64,
    /// Crash points of recoveries that were explored.
    pub crash_points: u64,
    /// Crash points left out because another is the same.
    pub crash_points_equal: u64,
    /// Crash points of which every state was covered.
    pub points_exhaustive: u64,
    /// Recoveries from states of these points.
    pub recoveries: u64,
    /// Of these states, distinct by content and judged.
    pub states: u64,
    /// Chosen states that were left out because the budget was used up.
    pub states_left_out: u64,
    /// The recoveries that were cut.
    pub roots: Vec<RootReport>,
}

/// One recovery that was cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RootReport {
    /// The power cuts before it, the first one first.
    pub cuts: Vec<SmallestState>,
    /// Events of the recovery.
    pub events: u64,
    /// Crash points of it that were explored.
    pub crash_points: u64,
    /// Of these, exhaustively.
    pub points_exhaustive: u64,
    /// Crash points left out because another is the same, of this recovery or of one before.
    pub crash_points_equal: u64,
    /// Recoveries from its states.
    pub recoveries: u64,
    /// States that were judged.
    pub states: u64,
    /// Chosen states that were left out because the budget was used up.
    pub states_left_out: u64,
    /// What was found.
    pub found: Vec<Class>,
    /// Crash points that were not searched in full when exploring lazily: events of the recovery, and why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounded: Vec<(u64, String)>,
}

impl LevelReport {
    /// Whether every crash point of the recoveries that were cut was covered in full.
    pub fn is_exhaustive(&self) -> bool {
        self.points_exhaustive == self.crash_points
    }

    pub(crate) fn add(&mut self, root: RootReport) {
        self.crash_points += root.crash_points;
        self.crash_points_equal += root.crash_points_equal;
        self.points_exhaustive += root.points_exhaustive;
        self.recoveries += root.recoveries;
        self.states += root.states;
        self.states_left_out += root.states_left_out;
        self.roots.push(root);
    }
}

impl RootReport {
    pub(crate) fn of<L: Laboratory>(run: &Run<L>, counts: &Counts, points: &[PointReport]) -> RootReport {
        let mut found: Vec<Class> = points.iter().flat_map(|point| point.found.iter().copied()).collect();
        found.sort();
        found.dedup();
        let bounded = points.iter().filter_map(|point| {
            let search = point.search.as_ref()?;
            Some((point.events, search.bounded.clone()?))
        });
        let exhaustive = if counts.exhaustive { counts.crash_points } else { counts.points_exhaustive };
        RootReport {
            cuts: run.earlier.first().map_or(Vec::new(), |way| way.cuts.clone()),
            events: run.recording.events.len(),
            crash_points: counts.crash_points,
            points_exhaustive: exhaustive,
            crash_points_equal: counts.crash_points_equal,
            // When sampling, every state is recovered once.
            recoveries: counts.recoveries + counts.sampled(),
            states: counts.states_distinct,
            states_left_out: counts.states_left_out,
            found,
            bounded: bounded.collect(),
        }
    }
}

impl SmallestState {
    /// A state of a crash point.
    pub(crate) fn of(point: &Point, choice: &Choice) -> SmallestState {
        let media = &point.media;
        let lost = (0..media.in_flight().len()).filter(|index| !choice.contains(*index));
        let lost: Vec<usize> = lost.collect();
        let lines: BTreeSet<u64> = lost.iter().map(|index| media.in_flight()[*index].line()).collect();
        SmallestState {
            events: point.events,
            state: media.state_id(choice),
            in_flight: media.in_flight().len() as u64,
            lost_lines: lines.len() as u64,
            lost: lost.into_iter().map(|index| index as u64).collect(),
        }
    }
}

impl Counts {
    /// States that were chosen and recovered one by one.
    pub(crate) fn sampled(&self) -> u64 {
        self.states_chosen - self.states_equal - self.states_left_out
    }
}
