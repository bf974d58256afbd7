//! What may be found after a power loss at one crash point: the history, cut at the point.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use guest_protocol::Pattern;

use super::acknowledged::{Acknowledged, Acknowledgement};
use super::history::{
    AttributeChange, BEFORE, ContentChange, FileHistory, FileId, FileKind, History, NameChange, SizeChange,
    Term, Unit,
};
use super::order::{Change, Order};

/// When the commands and promises of a history happened, in numbers of events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    /// For each command, how many events came before it began and before it ended; `u64::MAX` for what never did.
    pub commands: Vec<(u64, u64)>,
    /// For each promise, how many events came before it held, itself included.
    pub promises: BTreeMap<u32, u64>,
    /// What programs acknowledged, in order.
    pub acknowledged: Arc<[Acknowledgement]>,
}

impl Timeline {
    /// Whether the command can have had an effect after the first `events` events.
    fn started(&self, command: usize, events: u64) -> bool {
        command == BEFORE || self.commands.get(command).is_some_and(|&(begin, _)| begin < events)
    }

    /// The command under way after the first `events` events.
    pub fn command_at(&self, events: u64) -> Option<usize> {
        self.commands.iter().position(|&(begin, end)| begin < events && events <= end)
    }
}

/// What may be found after a power loss at one crash point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expectation {
    pub names: Vec<NameGroup>,
    /// One for each file of the history.
    pub files: Vec<FileExpectation>,
    /// Changes of metadata in their order, where the file system keeps it.
    pub order: Option<Order>,
    /// Names that no step made are not judged.
    pub programs_ran: bool,
    /// Promises that hold here.
    pub promises: Vec<u32>,
    /// What the check program is told.
    pub told: Acknowledged,
}

/// Names that change together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameGroup {
    pub paths: Vec<String>,
    /// What the paths meant before the first change, after it, and so on, up to the last that has begun.
    pub states: Vec<Vec<Option<FileId>>>,
    /// The first of `states` that is allowed: the later ones are too.
    pub first_allowed: usize,
    /// The promise that rules out the states before it.
    pub promise: Option<u32>,
}

/// What may be in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileExpectation {
    pub kind: FileKind,
    pub sizes: Vec<RangeInclusive<u64>>,
    pub size_promise: Option<u32>,
    /// Ranges of content, ascending, that cover everything.
    pub segments: Vec<Segment>,
}

/// A range of a file whose bytes have the same history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub at: u64,
    /// Length in bytes; the last segment of a file has no end.
    pub len: u64,
    /// What may be there: the promised content, or zero where nothing was promised, first.
    pub allowed: Vec<Pattern>,
    /// What was there once and no longer may be.
    pub outdated: Vec<Pattern>,
    /// Whether aligned words do not tear.
    pub whole_words: bool,
    /// The promise about the first of `allowed`, if that was written at all.
    pub promise: Option<u32>,
    /// The file may end before it: it was shrunk later.
    pub may_be_cut: bool,
    /// Not judged: a program wrote the file, or the media has lost it.
    pub free: bool,
}

/// What may be found after a power loss behind the first `events` events.
pub(crate) fn expect(history: &History, timeline: &Timeline, events: u64) -> Expectation {
    let held = |id: &u32| timeline.promises.get(id).is_some_and(|&at| at <= events);
    let promises: Vec<u32> = (0..history.promises.len() as u32).filter(held).collect();
    let context = Context { history, timeline, events, promises: &promises };
    Expectation {
        names: context.name_groups(),
        files: (0..history.files.len()).map(|file| context.file(FileId(file))).collect(),
        order: context.order(),
        programs_ran: history.programs_ran,
        promises: promises.clone(),
        told: Acknowledged::behind(&timeline.acknowledged, events),
    }
}

/// A change of metadata, as promises name it.
enum Covered {
    Names(usize),
    Size(FileId, usize),
    Attribute(FileId, usize),
}

impl Covered {
    fn is_in(&self, term: &Term) -> bool {
        match (self, term) {
            (Covered::Names(index), Term::Names(changes)) => changes.contains(index),
            (Covered::Size(file, index), Term::Size { file: of, upto })
            | (Covered::Attribute(file, index), Term::Attributes { file: of, upto }) => {
                file == of && index < upto
            }
            _ => false,
        }
    }
}

struct Context<'a> {
    history: &'a History,
    timeline: &'a Timeline,
    events: u64,
    promises: &'a [u32],
}

impl Context<'_> {
    fn started(&self, command: usize) -> bool {
        self.timeline.started(command, self.events)
    }

    /// The terms of all promises that hold.
    fn terms(&self) -> impl Iterator<Item = (u32, &Term)> {
        self.promises
            .iter()
            .flat_map(|&id| self.history.promises[id as usize].terms.iter().map(move |term| (id, term)))
    }

    /// `None` where programs may have done more than the steps tell.
    fn order(&self) -> Option<Order> {
        let history = self.history;
        if !history.metadata_is_ordered || history.programs_ran {
            return None;
        }
        let names = history.names.iter().enumerate().map(|(index, change)| {
            (change.command, Covered::Names(index), Change::Names(change.sets.clone()))
        });
        let mut all: Vec<(usize, Covered, Change)> = names.collect();
        for (file, of) in history.files.iter().enumerate().map(|(file, of)| (FileId(file), of)) {
            all.extend(of.sizes.iter().enumerate().map(|(index, change)| {
                let size = Change::Size { file, to: change.to, gradual: change.gradual };
                (change.command, Covered::Size(file, index), size)
            }));
            all.extend(of.attributes.iter().enumerate().map(|(index, change)| {
                let AttributeChange { command, name, value } = change.clone();
                (command, Covered::Attribute(file, index), Change::Attribute { file, name, value })
            }));
        }
        all.retain(|(command, ..)| self.started(*command));
        // A file is named first, then it gets its size.
        all.sort_by_key(|(command, ..)| *command);
        let (mut promised, mut promise) = (0, None);
        for (id, term) in self.terms() {
            let last = all.iter().rposition(|(_, what, _)| what.is_in(term)).map_or(0, |at| at + 1);
            if last > promised {
                (promised, promise) = (last, Some(id));
            }
        }
        let changes = all.into_iter().map(|(.., change)| change).collect();
        Some(Order { changes, promised, promise })
    }

    fn name_groups(&self) -> Vec<NameGroup> {
        let mut promised: BTreeMap<usize, u32> = BTreeMap::new();
        for (id, term) in self.terms() {
            if let Term::Names(changes) = term {
                for &change in changes {
                    promised.entry(change).or_insert(id);
                }
            }
        }
        groups_of(&self.history.names).into_iter().map(|group| self.name_group(group, &promised)).collect()
    }

    fn name_group(&self, group: ChangeGroup, promised: &BTreeMap<usize, u32>) -> NameGroup {
        let mut states = vec![vec![None; group.paths.len()]];
        let mut first_allowed = 0;
        let mut promise = None;
        for change in group.changes {
            if !self.started(self.history.names[change].command) {
                break;
            }
            let mut state = states[states.len() - 1].clone();
            for (path, to) in &self.history.names[change].sets {
                let at = group.paths.binary_search(path).expect("a group has all paths of its changes");
                state[at] = *to;
            }
            states.push(state);
            if let Some(id) = promised.get(&change) {
                first_allowed = states.len() - 1;
                promise = Some(*id);
            }
        }
        NameGroup { paths: group.paths, states, first_allowed, promise }
    }

    fn file(&self, file: FileId) -> FileExpectation {
        let history = &self.history.files[file.0];
        let (sizes, size_promise) = self.sizes(file, history);
        FileExpectation {
            kind: history.kind.clone(),
            sizes,
            size_promise,
            segments: self.segments(file, history),
        }
    }

    fn sizes(&self, file: FileId, history: &FileHistory) -> (Vec<RangeInclusive<u64>>, Option<u32>) {
        let size_terms = self.terms().filter_map(|(id, term)| match term {
            Term::Size { file: of, upto } if *of == file => Some((*upto, id)),
            _ => None,
        });
        // The first promise of the latest size.
        let (base, promise) =
            size_terms.fold(
                (0, None),
                |(base, by), (upto, id)| if upto > base { (upto, Some(id)) } else { (base, by) },
            );
        let size_after = |count: usize| if count == 0 { 0 } else { history.sizes[count - 1].to };
        let mut sizes = vec![size_after(base)..=size_after(base)];
        for (index, change) in history.sizes.iter().enumerate().skip(base) {
            if self.started(change.command) {
                let from = size_after(index);
                sizes.push(if change.gradual {
                    from.min(change.to)..=from.max(change.to)
                } else {
                    change.to..=change.to
                });
            }
        }
        (sizes, promise)
    }

    fn segments(&self, file: FileId, history: &FileHistory) -> Vec<Segment> {
        let terms: Vec<(u32, u64, u64, usize)> = self
            .terms()
            .filter_map(|(id, term)| match term {
                Term::Content { file: of, at, len, upto } if *of == file => {
                    Some((id, *at, at.saturating_add(*len), *upto))
                }
                _ => None,
            })
            .collect();
        let changes: Vec<&ContentChange> = history.contents.iter().collect();
        let mut edges = std::collections::BTreeSet::from([0]);
        edges.extend(changes.iter().flat_map(|change| [change.at, change.at + change.len]));
        edges.extend(history.losses.iter().flat_map(|loss| [loss.at, loss.at + loss.len]));
        edges.extend(terms.iter().flat_map(|&(_, from, to, _)| [from, to]).filter(|&edge| edge != u64::MAX));
        let edges: Vec<u64> = edges.into_iter().chain([u64::MAX]).collect();
        let foreign = history.kind == FileKind::Foreign;
        let segments = edges.windows(2).map(|edge| self.segment(edge[0], edge[1], &changes, &terms));
        segments
            .map(|(segment, base)| {
                let since = base.map_or(0, |index| history.contents[index].command);
                let shrinks = |change: &SizeChange| {
                    change.to <= segment.at && change.command >= since && self.started(change.command)
                };
                let may_be_cut = history.sizes.iter().any(shrinks);
                // Until something is promised of what was written since, lost bytes may be anything.
                let lost = history.losses.iter().any(|loss| {
                    let covers = loss.at <= segment.at && segment.at < loss.at + loss.len;
                    covers && self.started(loss.command) && base.is_none_or(|index| index < loss.upto)
                });
                Segment { may_be_cut, free: lost || foreign && base.is_none(), ..segment }
            })
            .collect()
    }

    fn segment(
        &self,
        at: u64,
        end: u64,
        changes: &[&ContentChange],
        terms: &[(u32, u64, u64, usize)],
    ) -> (Segment, Option<usize>) {
        let covering: Vec<usize> = (0..changes.len())
            .filter(|&index| changes[index].at <= at && end <= changes[index].at + changes[index].len)
            .collect();
        // The latest change that a promise covers, and the first promise that does.
        let mut base: Option<(usize, u32)> = None;
        for &(id, from, to, upto) in terms {
            let last = covering.iter().copied().take_while(|&index| index < upto).last();
            if let Some(last) = last.filter(|_| from <= at && end <= to)
                && base.is_none_or(|(index, _)| last > index)
            {
                base = Some((last, id));
            }
        }
        let first = base.map_or(Pattern::Zero, |(index, _)| changes[index].pattern);
        let (mut allowed, mut outdated) = (vec![first], Vec::new());
        let mut whole_words = true;
        if base.is_some() {
            outdated.push(Pattern::Zero);
        }
        for &index in &covering {
            let change = changes[index];
            match base {
                Some((base, _)) if index < base => push_new(&mut outdated, change.pattern),
                Some((base, _)) if index == base => (),
                _ if self.started(change.command) => {
                    push_new(&mut allowed, change.pattern);
                    whole_words &= change.unit == Unit::Word;
                }
                _ => (),
            }
        }
        let promise = base.map(|(_, id)| id);
        (
            Segment {
                at,
                len: end - at,
                allowed,
                outdated,
                whole_words,
                promise,
                may_be_cut: false,
                free: false,
            },
            base.map(|(index, _)| index),
        )
    }
}

fn push_new(patterns: &mut Vec<Pattern>, pattern: Pattern) {
    if !patterns.contains(&pattern) {
        patterns.push(pattern);
    }
}

/// Changes of names that share a path, directly or through others: the journal keeps their order.
struct ChangeGroup {
    paths: Vec<String>,
    changes: Vec<usize>,
}

fn groups_of(changes: &[NameChange]) -> Vec<ChangeGroup> {
    let mut groups: Vec<ChangeGroup> = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        let shares = |group: &ChangeGroup| change.sets.iter().any(|(path, _)| group.paths.contains(path));
        let (joined, rest): (Vec<_>, Vec<_>) = groups.into_iter().partition(shares);
        groups = rest;
        let mut paths: Vec<String> = joined
            .iter()
            .flat_map(|group| group.paths.clone())
            .chain(change.sets.iter().map(|(path, _)| path.clone()))
            .collect();
        paths.sort();
        paths.dedup();
        let mut all: Vec<usize> = joined.into_iter().flat_map(|group| group.changes).chain([index]).collect();
        all.sort_unstable();
        groups.push(ChangeGroup { paths, changes: all });
    }
    groups
}
