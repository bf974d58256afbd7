//! Orders that reach beyond one line.
//!
//! Under `adr` the parts of two lines have nothing to do with each other. Elsewhere they have:
//! - under `eadr` the cached parts in flight are those of one store buffer, which they leave in order: a cached part
//!   comes after every cached part of an earlier batch, on whatever line;
//! - under `virtio-pmem` a sector has the content that it had at one moment. A cached part was visible at once, a
//!   non-temporal one at any moment until it was drained. So a part comes after every part of its sector that was
//!   visible before it was stored.
//!
//! Both on top of what holds on every line: any part comes after an earlier part that overlaps its bytes, and under
//! `nt_evicts` a non-temporal part after every earlier cached part of its line.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use crate::choice::StateCount;
use crate::order::{Entry, Kind};
use crate::part::Part;
use crate::search::Orders;

/// How many different sets are kept before counting gives up, as for lines.
const LIMIT: usize = 4096;

/// What orders the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// A store buffer.
    Buffer,
    /// A sector that persists as it is at one moment.
    Moment,
}

/// A part, with the bytes that it covers of the lines it lies in.
#[derive(Clone, Debug)]
struct Node {
    id: u32,
    masks: SmallVec<[(u16, u64); 1]>,
    kind: Kind,
    event: u64,
    /// From which event on it must be visible.
    visible_by: Option<u64>,
}

impl Node {
    fn overlaps(&self, bytes: &[u64]) -> bool {
        self.masks.iter().any(|&(line, mask)| bytes[usize::from(line)] & mask != 0)
    }

    fn add_to(&self, bytes: &mut [u64]) {
        self.masks.iter().for_each(|&(line, mask)| bytes[usize::from(line)] |= mask);
    }
}

/// Parts of several lines that one of these orders connects, in event order.
#[derive(Clone, Debug)]
pub(crate) struct Tangle {
    reach: Reach,
    nt_evicts: bool,
    lines: usize,
    nodes: Vec<Node>,
}

/// What of the parts walked so far is missing from a set: all that decides which later parts it may contain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Missing {
    /// Bytes of missing parts, by line.
    bytes: Vec<u64>,
    /// Those of missing cached parts; counts for `nt_evicts` only.
    cached: Vec<u64>,
    /// Oldest batch of which a part is missing.
    batch: Option<u64>,
    /// The first event from which on a missing non-temporal part must be visible.
    visible_by: Option<u64>,
}

impl Tangle {
    /// `entries` are (id of the part, line, entry, part), of each line in coherence order. Ids ascend in event order;
    /// lines are numbered below `lines`.
    pub(crate) fn new<'a>(
        reach: Reach,
        nt_evicts: bool,
        lines: usize,
        entries: impl Iterator<Item = (u32, u16, &'a Entry, &'a Part)>,
    ) -> Self {
        let mut nodes: BTreeMap<u32, Node> = BTreeMap::new();
        for (id, line, entry, part) in entries {
            let visible_by = match entry.kind {
                Kind::Cached { .. } => Some(part.event),
                Kind::NonTemporal | Kind::Sector => part.drained_by,
            };
            let node = nodes.entry(id).or_insert_with(|| Node {
                id,
                masks: SmallVec::new(),
                kind: entry.kind,
                event: part.event,
                visible_by,
            });
            node.masks.push((line, entry.mask));
        }
        Self { reach, nt_evicts, lines, nodes: nodes.into_values().collect() }
    }

    /// The ids and kinds of its parts, in event order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (u32, Kind)> + Clone {
        self.nodes.iter().map(|node| (node.id, node.kind))
    }

    fn nothing_missing(&self) -> Missing {
        let cached = if self.nt_evicts { vec![0; self.lines] } else { Vec::new() };
        Missing { bytes: vec![0; self.lines], cached, batch: None, visible_by: None }
    }

    /// Whether a set from which this is missing may contain the next part.
    fn allows(&self, missing: &Missing, node: &Node) -> bool {
        let late = self.reach == Reach::Moment && missing.visible_by.is_some_and(|by| by < node.event);
        let ordered = match (self.reach, node.kind) {
            (_, Kind::Cached { batch }) => missing.batch.is_some_and(|oldest| oldest < batch),
            (Reach::Moment, Kind::NonTemporal | Kind::Sector) => missing.batch.is_some(),
            (Reach::Buffer, Kind::NonTemporal) => self.nt_evicts && self.shares_line(node, &missing.cached),
            (Reach::Buffer, Kind::Sector) => false,
        };
        !late && !ordered && !node.overlaps(&missing.bytes)
    }

    fn shares_line(&self, node: &Node, bytes: &[u64]) -> bool {
        node.masks.iter().any(|&(line, _)| bytes[usize::from(line)] != 0)
    }

    fn add(&self, missing: &mut Missing, node: &Node) {
        node.add_to(&mut missing.bytes);
        if let Kind::Cached { batch } = node.kind {
            missing.batch = Some(missing.batch.map_or(batch, |oldest| oldest.min(batch)));
            if self.nt_evicts {
                node.add_to(&mut missing.cached);
            }
        } else if let Some(by) = node.visible_by {
            missing.visible_by = Some(missing.visible_by.map_or(by, |first| first.min(by)));
        }
    }

    /// Adds to `included` everything that its parts come after. Reads and writes it by id.
    pub(crate) fn include_predecessors(&self, contains: impl Fn(u32) -> bool, mut include: impl FnMut(u32)) {
        let mut bytes = vec![0; self.lines];
        let mut non_temporal = vec![0; self.lines];
        let (mut newest_batch, mut newest_event, mut any_non_temporal) = (None, None, false);
        for node in self.nodes.iter().rev() {
            let moment = self.reach == Reach::Moment;
            let ordered = match node.kind {
                Kind::Cached { batch } => {
                    newest_batch.is_some_and(|newest| batch < newest)
                        || moment && any_non_temporal
                        || self.nt_evicts && self.shares_line(node, &non_temporal)
                }
                Kind::NonTemporal | Kind::Sector => {
                    moment && node.visible_by.zip(newest_event).is_some_and(|(by, newest)| by < newest)
                }
            };
            if ordered || node.overlaps(&bytes) {
                include(node.id);
            } else if !contains(node.id) {
                continue;
            }
            node.add_to(&mut bytes);
            newest_event = newest_event.max(Some(node.event));
            match node.kind {
                Kind::Cached { batch } => newest_batch = newest_batch.max(Some(batch)),
                Kind::NonTemporal => {
                    any_non_temporal = true;
                    node.add_to(&mut non_temporal);
                }
                Kind::Sector => any_non_temporal = true,
            }
        }
    }

    /// Walks along the parts. `contains` gets the id of each and whether what it comes after is in the set; it answers
    /// whether the part itself is.
    pub(crate) fn walk(&self, mut contains: impl FnMut(u32, bool) -> bool) {
        let mut missing = self.nothing_missing();
        for node in &self.nodes {
            let allowed = self.allows(&missing, node);
            if !contains(node.id, allowed) {
                self.add(&mut missing, node);
            }
        }
    }

    /// How many order-closed sets there are.
    pub(crate) fn count(&self) -> StateCount {
        let rest = Rest::of(self);
        let mut sets = BTreeMap::from([(self.nothing_missing(), StateCount::ONE)]);
        let mut complete = StateCount::ZERO;
        let mut exact = true;
        for (index, node) in self.nodes.iter().enumerate() {
            let mut next: BTreeMap<Missing, StateCount> = BTreeMap::new();
            for (missing, count) in sets {
                for missing in self.step(&missing, node) {
                    match rest.reduce(self, index, missing) {
                        Some(missing) => {
                            let known = next.entry(missing).or_insert(StateCount::ZERO);
                            *known = known.plus(count);
                        }
                        None => complete = complete.plus(count),
                    }
                }
            }
            while next.len() > LIMIT {
                next.pop_last();
                exact = false;
            }
            sets = next;
        }
        let count = sets.into_values().fold(complete, StateCount::plus);
        StateCount { exact: exact && count.exact, ..count }
    }

    /// What is missing behind the next part, with it and without it.
    fn step(&self, missing: &Missing, node: &Node) -> impl Iterator<Item = Missing> {
        let with = self.allows(missing, node).then(|| missing.clone());
        let mut without = missing.clone();
        self.add(&mut without, node);
        with.into_iter().chain([without])
    }

    /// Every content that the order-closed sets give a line whose durable content is `durable`. `apply` writes the
    /// part with the given id. `None` when it takes more than `limit` sets that differ.
    pub(crate) fn contents(
        &self,
        line: u16,
        durable: [u8; 64],
        limit: usize,
        apply: impl Fn(u32, &mut [u8; 64]),
    ) -> Option<BTreeSet<[u8; 64]>> {
        let tangle = self.of_line(line);
        let rest = Rest::of(&tangle);
        let mut sets = BTreeSet::from([(tangle.nothing_missing(), durable)]);
        let mut complete = BTreeSet::new();
        for (index, node) in tangle.nodes.iter().enumerate() {
            let mut next = BTreeSet::new();
            let mut keep = |missing: Missing, content: [u8; 64]| match rest.reduce(&tangle, index, missing) {
                Some(missing) => {
                    next.insert((missing, content));
                }
                None => {
                    complete.insert(content);
                }
            };
            for (missing, content) in sets {
                if tangle.allows(&missing, node) {
                    let mut with = content;
                    apply(node.id, &mut with);
                    keep(missing.clone(), with);
                }
                let mut without = missing;
                tangle.add(&mut without, node);
                keep(without, content);
            }
            if next.len() + complete.len() > limit {
                return None;
            }
            sets = next;
        }
        complete.extend(sets.into_iter().map(|(_, content)| content));
        Some(complete)
    }

    /// The same orders among the parts of one line. What comes before what by way of another line does so directly, too.
    fn of_line(&self, line: u16) -> Self {
        self.of_lines(&[line])
    }

    /// These lines, in this order, and behind them those with which they share a part. Of such a set holds, too, what
    /// holds of one line: what comes before what by way of other lines does so directly. (Not so of any set: a whole
    /// sector comes after a cached part of a line that is left out, and with that after others.)
    pub(crate) fn with_shared_parts(&self, lines: &[u16]) -> Vec<u16> {
        let mut all = lines.to_vec();
        for node in self.nodes.iter().filter(|node| node.masks.iter().any(|(line, _)| lines.contains(line))) {
            for (line, _) in &node.masks {
                if !all.contains(line) {
                    all.push(*line);
                }
            }
        }
        all
    }

    /// The same orders among the parts of some lines, which are numbered anew in this order.
    pub(crate) fn of_lines(&self, lines: &[u16]) -> Self {
        let numbers = |node: &Node| {
            let numbered = node.masks.iter().filter_map(|&(of, mask)| {
                let number = lines.iter().position(|line| *line == of)?;
                Some((number as u16, mask))
            });
            numbered.collect::<SmallVec<[(u16, u64); 1]>>()
        };
        let nodes = self.nodes.iter().map(|node| Node { masks: numbers(node), ..node.clone() });
        Self { lines: lines.len(), nodes: nodes.filter(|node| !node.masks.is_empty()).collect(), ..*self }
    }

    /// The ids of its parts in event order, each with the bytes that it covers, by line.
    pub(crate) fn masks(&self) -> impl Iterator<Item = (u32, &[(u16, u64)])> {
        self.nodes.iter().map(|node| (node.id, node.masks.as_slice()))
    }
}

/// A walk along the parts of a tangle, one set of those walked so far after the other.
pub(crate) struct Walk<'a> {
    tangle: &'a Tangle,
    rest: Rest,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(tangle: &'a Tangle) -> Self {
        Self { tangle, rest: Rest::of(tangle) }
    }
}

impl Orders for Walk<'_> {
    /// `None` when no later part can be there.
    type Missing = Option<Missing>;

    fn start(&self) -> Self::Missing {
        Some(self.tangle.nothing_missing())
    }

    fn step(&self, index: usize, missing: &Self::Missing, included: bool) -> Option<Self::Missing> {
        let node = &self.tangle.nodes[index];
        let Some(missing) = missing else { return (!included).then_some(None) };
        if included && !self.tangle.allows(missing, node) {
            return None;
        }
        let mut missing = missing.clone();
        if !included {
            self.tangle.add(&mut missing, node);
        }
        Some(self.rest.reduce(self.tangle, index, missing))
    }
}

/// What can still matter behind each part.
struct Rest {
    /// Behind the part with the same index: bytes of later parts, and of later non-temporal ones.
    bytes: Vec<(Vec<u64>, Vec<u64>)>,
    /// Index of the last part of every batch.
    last: BTreeMap<u64, usize>,
}

impl Rest {
    fn of(tangle: &Tangle) -> Self {
        let mut all = vec![0; tangle.lines];
        let mut non_temporal = all.clone();
        let mut bytes = Vec::with_capacity(tangle.nodes.len());
        let mut last = BTreeMap::new();
        for (index, node) in tangle.nodes.iter().enumerate().rev() {
            bytes.push((all.clone(), non_temporal.clone()));
            node.add_to(&mut all);
            match node.kind {
                Kind::Cached { batch } => {
                    last.entry(batch).or_insert(index);
                }
                Kind::NonTemporal | Kind::Sector => node.add_to(&mut non_temporal),
            }
        }
        bytes.reverse();
        Self { bytes, last }
    }

    /// Keeps of what is missing behind part `index` only what can matter to later parts: sets that agree in that are
    /// one. `None` when no later part can be there.
    fn reduce(&self, tangle: &Tangle, index: usize, mut missing: Missing) -> Option<Missing> {
        let next = tangle.nodes.get(index + 1);
        // Behind the last part of a batch that is not whole, no other cached part can come.
        let broken =
            missing.batch.is_some_and(|batch| self.last.get(&batch).is_none_or(|last| *last <= index));
        if tangle.reach == Reach::Moment {
            let late = next.is_some_and(|next| missing.visible_by.is_some_and(|by| by < next.event));
            if broken || late {
                return None;
            }
        }
        let (all, non_temporal) = &self.bytes[index];
        for (byte, later) in missing.bytes.iter_mut().zip(if broken { non_temporal } else { all }) {
            *byte &= later;
        }
        for (line, later) in missing.cached.iter_mut().zip(non_temporal) {
            // Which bytes are missing does not matter here, only of which lines.
            *line = u64::from(*line != 0 && *later != 0);
        }
        if broken {
            missing.batch = Some(0);
        }
        Some(missing)
    }
}
