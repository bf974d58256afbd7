//! Named places inside of a fault that waits for the journal: where they begin and end in a recording.
//!
//! The windows are those of a MAP_SYNC write fault, from its entry to the user's own fence. Their borders are kernel
//! functions that exist as symbols (not inlined) and the fences of the recording.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use persist::{DrainKind, Event, EventKind};

use crate::plant::BTT_LOG;
use crate::scenario::{Dropped, PageSize, PointRule, Scenario};
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
    let of_windows = |rule: &PointRule| matches!(rule, PointRule::Window(_) | PointRule::EveryOfWindow(_));
    if scenario.crash.points.iter().any(of_windows) || scenario.steps.iter().any(|step| step.fault.is_some())
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
    /// W9, which lies across the others: from where another processor takes a fault, or waits in one, while this one
    /// waits, until both have set their entries.
    pub overlap: Option<RangeInclusive<u64>>,
    /// From where it reaches DAX until it sets the entry of the page table.
    pub span: RangeInclusive<u64>,
    /// What it maps; `None` if it sets no entry.
    pub size: Option<PageSize>,
}

impl Fault {
    /// The window with this number, 0 to 9.
    pub fn window(&self, number: u8) -> Option<RangeInclusive<u64>> {
        self.windows.get(usize::from(number)).unwrap_or(&self.overlap).clone()
    }

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

/// Of the events of a recording those from which faults and their windows are told: calls of watched functions, fences, flush
/// hints, what user mode does first behind each of these, and the last one.
pub(crate) fn marks(events: impl Iterator<Item = Event>) -> Vec<Event> {
    let mut marks = Vec::new();
    let mut last = None;
    // Whether user mode has done anything, flushed, and made a fence of either kind since the last call or hint.
    let mut done = [true; 4];
    for event in events {
        let is_sfence = matches!(event.kind, EventKind::Drain(DrainKind::Sfence));
        let is_mfence = matches!(event.kind, EventKind::Drain(DrainKind::Mfence));
        let is_flush = matches!(event.kind, EventKind::Flush { .. });
        let is_mark = match event.kind {
            EventKind::Symbol { .. } | EventKind::FlushHint { .. } => {
                done = [false; 4];
                true
            }
            _ if event.origin.cpl == 3 => {
                let new = [true, is_flush, is_sfence, is_mfence];
                let is_first = new.iter().zip(&done).any(|(new, done)| *new && !done);
                done.iter_mut().zip(new).for_each(|(done, new)| *done |= new);
                is_first
            }
            _ => is_sfence,
        };
        last = if is_mark { None } else { Some(event.clone()) };
        if is_mark {
            marks.push(event);
        }
    }
    marks.extend(last);
    marks
}

/// Every fault of the recording that waited for the journal, told from its [`marks`].
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
        let begin = self.entry(from, sync).unwrap_or(sync);
        Fault {
            windows,
            overlap: self.overlap(sync, set),
            span: seq(begin)..=seq(set),
            size: self.size_set(&self.events[set]),
        }
    }

    /// W9: another processor reaches DAX, or waits for the journal, while the fault waits.
    fn overlap(&self, sync: usize, set: usize) -> Option<RangeInclusive<u64>> {
        let mine = self.events[sync].origin.vcpu;
        let other = (sync..set).find(|&at| {
            let event = &self.events[at];
            event.origin.vcpu != mine && (self.has(event, Role::Entry) || self.has(event, Role::Sync))
        })?;
        let last = self.first(Role::Set, set + 1, self.events.len()).unwrap_or(set);
        Some(self.events[other].seq..=self.events[last].seq)
    }

    /// What the entry maps that this event is about to set.
    fn size_set(&self, event: &Event) -> Option<PageSize> {
        let EventKind::Symbol { index } = event.kind else { return None };
        match self.watched.get(index as usize).map(String::as_str) {
            Some("insert_pfn") => Some(PageSize::Small),
            Some(name) if Role::Set.functions().contains(&name) => Some(PageSize::Huge),
            _ => None,
        }
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
        let record = self.first(Role::Commit, sync, set);
        // A fast commit has no commit record of its own: the two flushes are those of its last block.
        let commit = record.unwrap_or(sync);
        let is_fence = |event: &Event| matches!(event.kind, EventKind::Drain(DrainKind::Sfence));
        let is_hint = |event: &Event| matches!(event.kind, EventKind::FlushHint { .. });
        let flush = |after: usize| {
            let flush = self.first(Role::Flush, after, set)?;
            let next = self.first(Role::Flush, flush + 1, set).unwrap_or(set);
            // Where there are flush hints, the fence behind the last of them.
            let from = (flush..next).rev().find(|&at| is_hint(&self.events[at])).unwrap_or(flush);
            let fence = self.find(from, is_fence).filter(|fence| *fence < set)?;
            Some((flush, fence))
        };
        match flush(commit).and_then(|first| Some((first, flush(first.0 + 1)?))) {
            Some(((_, before), (flush, behind))) => {
                windows[2] = Some(seq(sync)..=seq(before));
                windows[3] = Some(seq(before) + 1..=seq(flush));
                windows[4] = Some(seq(flush) + 1..=seq(behind));
                windows[5] = Some(seq(behind) + 1..=seq(set));
            }
            None if record.is_none() => (),
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

/// What faults did in a part of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Whether an entry of 4 KiB was set.
    pub small: bool,
    /// Whether one of 2 MiB was.
    pub huge: bool,
    /// Whether a fault waited for the journal.
    pub synchronous: bool,
}

/// What faults did in these events of a recording.
pub(crate) fn taken(watched: &[String], events: &[Event]) -> Taken {
    let calls = Calls { watched, events };
    let sizes: Vec<PageSize> = events.iter().filter_map(|event| calls.size_set(event)).collect();
    Taken {
        small: sizes.contains(&PageSize::Small),
        huge: sizes.contains(&PageSize::Huge),
        synchronous: calls.first(Role::Sync, 0, events.len()).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use persist::{FlushKind, Origin, StorePath};
    use proptest::prelude::*;

    use super::*;

    fn watched() -> Vec<String> {
        Role::ALL.iter().flat_map(|role| role.functions()).map(|name| (*name).to_owned()).collect()
    }

    fn kind() -> impl Strategy<Value = EventKind> {
        prop_oneof![
            3 => (0..watched().len() as u32).prop_map(|index| EventKind::Symbol { index }),
            1 => Just(EventKind::Drain(DrainKind::Sfence)),
            1 => Just(EventKind::Drain(DrainKind::Mfence)),
            1 => Just(EventKind::Drain(DrainKind::Locked)),
            1 => Just(EventKind::FlushHint { dimm: 1 }),
            1 => Just(EventKind::Flush { addr: 0, kind: FlushKind::Clwb }),
            2 => Just(EventKind::Store { addr: 0, bytes: [0; 8].as_slice().into(), path: StorePath::Cached }),
        ]
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = (kind(), prop_oneof![Just(0_u8), Just(3_u8)], 0_u8..2);
        proptest::collection::vec(event, 0..80).prop_map(|events| {
            let event = |(seq, (kind, cpl, vcpu)): (u64, (EventKind, u8, u8))| {
                // Only the kernel enters functions of the kernel.
                let cpl = if matches!(kind, EventKind::Symbol { .. }) { 0 } else { cpl };
                Event { seq, origin: Origin { cpl, vcpu, ..Origin::default() }, kind }
            };
            (0..).zip(events).map(event).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_marks_of_a_recording_tell_the_same_faults_as_all_of_it(events in events()) {
            let watched = watched();
            let marks = marks(events.iter().cloned());
            prop_assert_eq!(faults(&watched, &marks), faults(&watched, &events));
            prop_assert_eq!(taken(&watched, &marks), taken(&watched, &events));
        }
    }
}
