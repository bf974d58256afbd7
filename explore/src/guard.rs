//! Whether faults went as the scenario says: of the size that a step names, and waiting for the journal or not. A run in
//! which they did not shows something, but not what it is there for.

use crate::record::Recording;
use crate::scenario::{FaultGuard, PageSize, Scenario};
use crate::windows::{self, Taken};

/// What went another way than it is named, in words.
pub(crate) fn check(scenario: &Scenario, recording: &Recording) -> Vec<String> {
    let of_step = |(number, guard): (usize, FaultGuard)| {
        let command = scenario.commands.iter().position(|planned| planned.step == number)?;
        let &(begin, end) = recording.timeline.commands.get(command).filter(|(_, end)| *end != u64::MAX)?;
        let events = windows::marks(recording.events.between(begin, end));
        let taken = windows::taken(&recording.watched, &events);
        let step = &scenario.steps[number];
        (!fits(guard, &taken)).then(|| {
            format!(
                "the step of line {} ({}) was to take {}, but took {}",
                step.line,
                step.text,
                wanted(guard),
                found(&taken)
            )
        })
    };
    let steps = scenario.steps.iter().enumerate();
    steps.filter_map(|(number, step)| of_step((number, step.fault?))).collect()
}

fn fits(guard: FaultGuard, taken: &Taken) -> bool {
    let huge = guard.size == PageSize::Huge;
    let waits = guard.synchronous.is_none_or(|synchronous| taken.synchronous == synchronous);
    taken.huge == huge && taken.small != huge && waits
}

fn wanted(guard: FaultGuard) -> String {
    let how = guard.synchronous.map_or("a fault", how);
    let size = if guard.size == PageSize::Huge { "2 MiB" } else { "4 KiB" };
    format!("{how} of {size}")
}

fn found(taken: &Taken) -> String {
    let how = how(taken.synchronous);
    match (taken.small, taken.huge) {
        (false, false) => "none".to_owned(),
        (true, false) => format!("{how} of 4 KiB"),
        (false, true) => format!("{how} of 2 MiB"),
        (true, true) => "faults of 4 KiB and of 2 MiB".to_owned(),
    }
}

fn how(synchronous: bool) -> &'static str {
    if synchronous { "a synchronous fault" } else { "a fault that does not wait" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_went_another_way_does_not_fit() {
        let taken = |small, huge, synchronous| Taken { small, huge, synchronous };
        let guard = |size, synchronous| FaultGuard { size, synchronous: Some(synchronous) };
        assert!(fits(guard(PageSize::Small, true), &taken(true, false, true)));
        assert!(fits(guard(PageSize::Huge, false), &taken(false, true, false)));
        assert!(!fits(guard(PageSize::Huge, true), &taken(true, false, true)), "it fell back");
        assert!(!fits(guard(PageSize::Small, true), &taken(true, false, false)), "it did not wait");
        assert!(!fits(guard(PageSize::Huge, true), &taken(true, true, true)), "nobody knows which it was");
        assert!(!fits(guard(PageSize::Small, false), &taken(false, false, false)), "there was none");
        let either = FaultGuard { size: PageSize::Huge, synchronous: None };
        assert!(fits(either, &taken(false, true, true)) && fits(either, &taken(false, true, false)));
        assert!(!fits(either, &taken(true, false, false)));
    }
}
