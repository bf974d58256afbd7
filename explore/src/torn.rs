//! Torn copies: file systems take for granted that a block which the kernel copies in one go is old or new. Where a
//! power loss leaves it in part, a checksum may fail. That is another thing than losing what was promised.

use std::collections::BTreeMap;

use persist::{Choice, CrashPoint};

use crate::oracle::acknowledged::Acknowledged;
use crate::recover::{Recovered, Worker};
use crate::target::{HostError, Laboratory};

/// Kernel copies that are there in part: the indices that are there, and those that are not.
fn torn_copies(media: &CrashPoint, choice: &Choice) -> (Vec<usize>, Vec<usize>) {
    let mut copies: BTreeMap<u32, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for (index, part) in media.in_flight().iter().enumerate().filter(|(_, part)| part.origin.copy_call != 0) {
        let (there, lost) = copies.entry(part.origin.copy_call).or_default();
        if choice.contains(index) { there.push(index) } else { lost.push(index) }
    }
    let torn = copies.into_values().filter(|(there, lost)| !there.is_empty() && !lost.is_empty());
    torn.fold((Vec::new(), Vec::new()), |(mut there, mut lost), (more_there, more_lost)| {
        there.extend(more_there);
        lost.extend(more_lost);
        (there, lost)
    })
}

/// Recovers a state. Damage that is gone both when all torn copies are whole and when they are missing is laid to
/// the tearing.
pub(crate) fn recover<L: Laboratory>(
    worker: &mut Worker<L>,
    media: &CrashPoint,
    choice: &Choice,
    told: &Acknowledged,
) -> Result<Recovered, HostError> {
    let recovered = worker.recover(&media.content(choice), told, &[], None)?;
    lay_to_tearing(worker, media, choice, told, recovered)
}

/// Lays damage of a state that has been recovered to tearing, where that is behind it.
pub(crate) fn lay_to_tearing<L: Laboratory>(
    worker: &mut Worker<L>,
    media: &CrashPoint,
    choice: &Choice,
    told: &Acknowledged,
    mut recovered: Recovered,
) -> Result<Recovered, HostError> {
    let Some(others) = whole_and_missing(media, choice).filter(|_| recovered.outcome.is_corrupt()) else {
        return Ok(recovered);
    };
    for other in others {
        if worker.recover(&media.content(&other), told, &[], None)?.outcome.is_corrupt() {
            return Ok(recovered);
        }
    }
    recovered.outcome = crate::recover::Outcome::Torn(Box::new(recovered.outcome));
    Ok(recovered)
}

/// The state with all its torn copies whole, and the one without them; `None` when no copy is torn.
pub(crate) fn whole_and_missing(media: &CrashPoint, choice: &Choice) -> Option<[Choice; 2]> {
    let (there, lost) = torn_copies(media, choice);
    if there.is_empty() {
        return None;
    }
    let all_lost = (0..media.in_flight().len()).filter(|index| !choice.contains(*index));
    let whole = media.closure(choice.iter().chain(lost));
    let missing = media.without(all_lost.chain(there));
    Some([whole, missing])
}
