//! Named places inside of a fault that waits for the journal: where they begin and end in a recording.
//!
//! The windows are those of a MAP_SYNC write fault, from its entry to the user's own fence. Their borders are kernel
//! functions that exist as symbols (not inlined) and the fences of the recording.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use persist::{DrainKind, Event, EventKind};

use crate::plant::BTT_LOG;
use crate::scenario::{Dropped, PointRule, Scenario};
use crate::target::Laboratory;

/// What a watched function means for the windows. Kernels differ in the names: each role lists those of 6.1 and 6.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The fault reaches DAX.
    Entry,
    /// New blocks are about to be zeroed.
    Zeroing,
    /// The zeroed blocks have become an extent.
    Mapped,
    /// The fault waits for the journal.
    Sync,
    /// The commit record is about to be written.
    Commit,
    /// A device flush: SFENCE, hints, SFENCE.
    Flush,
    /// The page table entry is about to be set.
    Set,
}

impl Role {
    const ALL: [Role; 7] =
        [Role::Entry, Role::Zeroing, Role::Mapped, Role::Sync, Role::Commit, Role::Flush, Role::Set];

    fn functions(self) -> &'static [&'static str] {
        match self {
            Role::Entry => &["dax_iomap_pte_fault", "dax_iomap_pmd_fault"],
            Role::Zeroing => &["blkdev_issue_zeroout"],
            Role::Mapped => &["ext4_set_iomap", "xfs_bmbt_to_iomap"],
            Role::Sync => &["dax_finish_sync_fault"],
            Role::Commit => &["journal_submit_commit_record", "xlog_write_iclog"],
            Role::Flush => &["generic_nvdimm_flush"],
            Role::Set => &["insert_pfn", "vmf_insert_pfn_pmd_prot", "vmf_insert_pfn_pmd"],
        }
    }
}

/// Functions to watch, in the order of their indices: only those that the kernel has.
pub(crate) fn watched<L: Laboratory>(scenario: &Scenario, laboratory: &L) -> Vec<String> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    if scenario
        .crash
        .points
        .iter()
        .any(|rule| matches!(rule, PointRule::Window(_) | PointRule::EveryOfWindow(_)))
    {
        names.extend(Role::ALL.iter().flat_map(|role| role.functions()));
    }
    if scenario.plant.is_some_and(|plant| plant.drop == Dropped::Zeroing) {
        names.extend([Role::Zeroing, Role::Mapped].iter().flat_map(|role| role.functions()));
    }
    if scenario.plant.is_some_and(|plant| plant.drop == Dropped::BttLog) {
        names.extend(BTT_LOG);
    }
    for rule in &scenario.crash.points {
        if let PointRule::Symbol(name) = rule {
            names.insert(name);
        }
    }
    names.into_iter().filter(|name| laboratory.symbol(name).is_some()).map(str::to_owned).collect()
}

/// Names of roles that no function of this kernel fills.
pub(crate) fn unresolved(watched: &[String]) -> Vec<String> {
    let missing =
        |role: &&Role| !role.functions().iter().any(|name| watched.iter().any(|watched| watched == name));
    Role::ALL.iter().filter(missing).map(|role| role.functions().join(" or ")).collect()
}

/// One fault that waited for the journal. Windows are ranges of "so many events have happened".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Window N, if the fault has it.
    pub windows: [Option<RangeInclusive<u64>>; 9],
}

impl Fault {
    /// The window in which the power is cut behind so many events.
    pub fn window_at(&self, events: u64) -> Option<u8> {
        (0..9).find(|&number| {
            self.windows[usize::from(number)].as_ref().is_some_and(|window| window.contains(&events))
        })
    }
}

/// Events that are calls of functions with a role, in order.
struct Calls<'a> {
    watched: &'a [String],
    events: &'a [Event],
}

impl Calls<'_> {
    fn has(&self, event: &Event, role: Role) -> bool {
        match event.kind {
            EventKind::Symbol { index } => {
                self.watched.get(index as usize).is_some_and(|name| role.functions().contains(&name.as_str()))
            }
            _ => false,
        }
    }

    /// Index of the first call of the role in `from..to`.
    fn first(&self, role: Role, from: usize, to: usize) -> Option<usize> {
        (from..to).find(|&at| self.has(&self.events[at], role))
    }

    fn last(&self, role: Role, from: usize, to: usize) -> Option<usize> {
        (from..to).rev().find(|&at| self.has(&self.events[at], role))
    }

    /// Index of the first event in `from..` that fits.
    fn find(&self, from: usize, fits: impl Fn(&Event) -> bool) -> Option<usize> {
        (from..self.events.len()).find(|&at| fits(&self.events[at]))
    }
}

/// Every fault of the recording that waited for the journal.
pub(crate) fn faults(watched: &[String], events: &[Event]) -> Vec<Fault> {
    let calls = Calls { watched, events };
    let mut faults = Vec::new();
    let mut from = 0;
    while let Some(sync) = calls.first(Role::Sync, from, events.len()) {
        faults.push(calls.fault(from, sync));
        from = sync + 1;
    }
    faults
}

impl Calls<'_> {
    /// The fault whose wait for the journal begins at event index `sync`; the one before ended before `from`.
    fn fault(&self, from: usize, sync: usize) -> Fault {
        let seq = |at: usize| self.events[at].seq;
        let set = self.first(Role::Set, sync, self.events.len()).unwrap_or(self.events.len() - 1);
        let mut windows: [Option<RangeInclusive<u64>>; 9] = Default::default();
        if let Some(entry) = self.entry(from, sync) {
            let zeroing = self.first(Role::Zeroing, entry, sync);
            windows[0] = Some(seq(entry)..=seq(zeroing.unwrap_or(sync)));
            if let Some(begin) = zeroing {
                windows[1] = Some(seq(begin) + 1..=seq(self.last(Role::Mapped, begin, sync).unwrap_or(sync)));
            }
        }
        self.commit_windows(sync, set, &mut windows);
        self.user_windows(set, &mut windows);
        Fault { windows }
    }

    /// Where the fault that waits at `sync` reached DAX. One that falls back from a huge page reaches it twice.
    fn entry(&self, from: usize, sync: usize) -> Option<usize> {
        let entry = self.last(Role::Entry, from, sync)?;
        let earlier = self.last(Role::Entry, from, entry);
        let between = |at: usize| {
            self.events[at..entry].iter().any(|event| event.origin.cpl == 3)
                || self.first(Role::Set, at, entry).is_some()
        };
        Some(earlier.filter(|&at| !between(at)).unwrap_or(entry))
    }

    /// W2 to W5: the journal's commit.
    fn commit_windows(&self, sync: usize, set: usize, windows: &mut [Option<RangeInclusive<u64>>; 9]) {
        let seq = |at: usize| self.events[at].seq;
        let Some(commit) = self.first(Role::Commit, sync, set) else { return };
        let is_fence = |event: &Event| matches!(event.kind, EventKind::Drain(DrainKind::Sfence));
        let flush = |after: usize| {
            let flush = self.first(Role::Flush, after, set)?;
            let fence = self.find(flush, is_fence).filter(|fence| *fence < set)?;
            Some((flush, fence))
        };
        match flush(commit).and_then(|first| Some((first, flush(first.0 + 1)?))) {
            Some(((_, before), (flush, behind))) => {
                windows[2] = Some(seq(sync)..=seq(before));
                windows[3] = Some(seq(before) + 1..=seq(flush));
                windows[4] = Some(seq(flush) + 1..=seq(behind));
                windows[5] = Some(seq(behind) + 1..=seq(set));
            }
            // barrier=0: nothing orders the commit record, and nothing makes it durable.
            None => {
                windows[2] = Some(seq(sync)..=seq(commit));
                windows[3] = Some(seq(commit) + 1..=seq(set));
                windows[4] = Some(seq(set)..=seq(set));
            }
        }
    }

    /// W6 to W8: what the user does with the page.
    fn user_windows(&self, set: usize, windows: &mut [Option<RangeInclusive<u64>>; 9]) {
        let seq = |at: usize| self.events[at].seq;
        let next_entry = self.first(Role::Entry, set, self.events.len()).unwrap_or(self.events.len());
        let by_user = |from: usize, fits: fn(&EventKind) -> bool| {
            self.find(from, |event| event.origin.cpl == 3 && fits(&event.kind)).filter(|at| *at < next_entry)
        };
        let flush = by_user(set, |kind| matches!(kind, EventKind::Flush { .. }));
        let fence =
            by_user(set, |kind| matches!(kind, EventKind::Drain(DrainKind::Sfence | DrainKind::Mfence)));
        windows[6] = Some(seq(set) + 1..=flush.or(fence).map_or(seq(set) + 1, seq));
        if let (Some(flush), Some(fence)) = (flush, fence) {
            windows[7] = Some(seq(flush) + 1..=seq(fence));
        }
        if let Some(fence) = fence {
            windows[8] = Some(seq(fence) + 1..=seq(fence) + 1);
        }
    }
}
