//! Sites: where a store was made. The instruction alone does not tell, for all of the kernel's copies to persistent
//! memory go through the same few; the call stack above and the step under way do.

use std::collections::{BTreeMap, BTreeSet};

use persist::{Choice, Part};

use crate::causes::lost_of;
use crate::evidence;
use crate::run::Run;
use crate::target::{HostError, Laboratory};

/// Call stacks computed for the sites of one run.
const STACKS: usize = 512;

/// Where a store was made: the step under way, and who made it. What the same call of a kernel copy stores is one site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Site {
    step: Option<usize>,
    /// The call stack, innermost first, without the place in a copy.
    frames: Vec<String>,
    /// The instruction, where there is no stack.
    instruction: Option<String>,
}

/// Stores that are at one site whatever their stacks are.
type Alike = (Option<usize>, u8, u64, u32);

/// The sites of what failing states lack.
pub(crate) struct Sites {
    stacks: BTreeMap<Alike, Vec<String>>,
}

impl Sites {
    /// Computes the stacks of what these states lack.
    pub fn find<'f, L: Laboratory>(
        run: &Run<L>,
        states: impl Iterator<Item = (usize, &'f Choice)>,
    ) -> Result<Sites, HostError> {
        let mut first: BTreeMap<Alike, u64> = BTreeMap::new();
        for (point, choice) in states {
            let parts = run.points.points[point].media.in_flight();
            for part in lost_of(run, point, choice) {
                let event = parts[part].event;
                let seen = first.entry(alike(run, &parts[part])).or_insert(event);
                *seen = event.min(*seen);
            }
        }
        let mut events: BTreeSet<u64> = first.values().copied().collect();
        while events.len() > STACKS {
            events.pop_last();
        }
        let by_event = evidence::stacks(run, &events)?;
        let stack = |(alike, event): (Alike, u64)| {
            let frames = by_event.get(&event)?;
            let copy = usize::from(alike.3 != 0);
            Some((alike, frames.get(copy..).unwrap_or_default().to_vec()))
        };
        Ok(Sites { stacks: first.into_iter().filter_map(stack).collect() })
    }

    /// Where the part was stored.
    pub fn of<L: Laboratory>(&self, run: &Run<L>, part: &Part) -> Site {
        let alike = alike(run, part);
        let frames = self.stacks.get(&alike).cloned().unwrap_or_default();
        let instruction = frames.is_empty().then(|| evidence::place(run, part.origin.cpl, part.origin.rip));
        Site { step: alike.0, frames, instruction }
    }
}

fn alike<L: Laboratory>(run: &Run<L>, part: &Part) -> Alike {
    let step = run.recording.timeline.command_at(part.event + 1);
    let step = step.map(|command| run.scenario.commands[command].step);
    // Where in a copy it was says nothing.
    let rip = if part.origin.copy_call == 0 { part.origin.rip } else { 0 };
    (step, part.origin.cpl, rip, part.origin.copy_call)
}
