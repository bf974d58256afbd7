//! Faults put into a recording on purpose, for controls that must be found.

use persist::{Event, EventKind};

use crate::events::Events;
use crate::scenario::{Dropped, Scenario};
use crate::target::{HostError, Laboratory};

/// Between these functions the journal of ext4 is replayed: from the first on, until the second is entered, which writes
/// the journal's superblock (fs/jbd2/recovery.c, fs/jbd2/journal.c).
const REPLAY: [&str; 2] = ["jbd2_journal_recover", "jbd2_journal_update_sb_log_tail"];

/// Between these functions a BTT writes to its log (drivers/nvdimm/btt.c). Compilers give the last one other names.
pub(crate) const BTT_LOG: [&str; 3] = ["__btt_log_write", "btt_map_write", "btt_map_write.constprop.0"];

/// Takes stores out of the recording of a scenario and returns them. Events keep their numbers.
pub(crate) fn drop_stores(
    dropped: Dropped,
    watched: &[String],
    events: &mut Events,
) -> Result<Vec<Event>, HostError> {
    match dropped {
        Dropped::Zeroing => {
            drop_between(&["blkdev_issue_zeroout"], &["ext4_set_iomap", "xfs_bmbt_to_iomap"], watched, events)
        }
        Dropped::BttLog => drop_between(&BTT_LOG[..1], &BTT_LOG[1..], watched, events),
        Dropped::Replay => Ok(Vec::new()),
    }
}

/// The same of the recording of a recovery.
pub(crate) fn drop_replayed(
    scenario: &Scenario,
    watched: &[String],
    events: &mut Events,
) -> Result<Vec<Event>, HostError> {
    match scenario.plant.map(|plant| plant.drop) {
        Some(Dropped::Replay) => drop_between(&REPLAY[..1], &REPLAY[1..], watched, events),
        Some(Dropped::Zeroing | Dropped::BttLog) | None => Ok(Vec::new()),
    }
}

/// Functions to watch in a recovery, in the order of their indices: only those that the kernel has.
pub(crate) fn watched_in_recovery<L: Laboratory>(scenario: &Scenario, laboratory: &L) -> Vec<String> {
    let drops = scenario.plant.is_some_and(|plant| plant.drop == Dropped::Replay);
    let names = REPLAY.into_iter().filter(|name| drops && laboratory.symbol(name).is_some());
    names.map(str::to_owned).collect()
}

/// Takes out what the kernel's copies store from a call of one of the first functions on to a call of one of the last.
fn drop_between(
    first: &[&str],
    last: &[&str],
    watched: &[String],
    events: &mut Events,
) -> Result<Vec<Event>, HostError> {
    let mut between = false;
    events.take_out(|event| {
        if let EventKind::Symbol { index } = event.kind
            && let Some(name) = watched.get(index as usize)
        {
            between = !last.contains(&name.as_str()) && (between || first.contains(&name.as_str()));
        }
        between && matches!(event.kind, EventKind::Store { .. }) && event.origin.copy_call != 0
    })
}
