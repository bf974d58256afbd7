//! Faults put into a recording on purpose, for controls that must be found.

use persist::{Event, EventKind};

use crate::scenario::Dropped;

/// Takes stores out of the recording and returns them. Events keep their numbers.
pub(crate) fn drop_stores(dropped: Dropped, watched: &[String], events: &mut Vec<Event>) -> Vec<Event> {
    let Dropped::Zeroing = dropped;
    let name = |event: &Event| match event.kind {
        EventKind::Symbol { index } => watched.get(index as usize).map(String::as_str),
        _ => None,
    };
    let mut zeroing = false;
    let (taken, kept) = std::mem::take(events).into_iter().partition(|event| {
        match name(event) {
            Some("blkdev_issue_zeroout") => zeroing = true,
            Some("ext4_set_iomap" | "xfs_bmbt_to_iomap") => zeroing = false,
            _ => (),
        }
        zeroing && matches!(event.kind, EventKind::Store { .. }) && event.origin.copy_call != 0
    });
    *events = kept;
    taken
}
