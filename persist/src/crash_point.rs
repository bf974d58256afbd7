//! What could be on the media at one moment.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustc_hash::FxHashMap;

use crate::choice::{Choice, StateCount};
use crate::count::{contents, count_sets};
use crate::durable::{DurableLines, Media, StateId, line_id};
use crate::groups::{Group, groups};
use crate::line::Line;
use crate::order::{Entry, Kind, Missing, exclude_successors, include_predecessors};
use crate::overlay::Overlay;
use crate::part::{Part, line_of, sector_of};
use crate::settings::Platform;
use crate::tangle::{Reach, Tangle};

/// What could be on the media if the power went at one moment: the durable content and the parts in flight.
///
/// A crash state is a [`Choice`] of parts in flight that is *order-closed*: it contains, of each of its parts, all
/// that come before.
#[derive(Clone)]
pub struct CrashPoint {
    pub(crate) nt_evicts: bool,
    media: Arc<dyn Media>,
    durable: DurableLines,
    pub(crate) parts: Vec<Arc<Part>>,
    /// Lines with parts in flight, sorted by address.
    pub(crate) lines: Vec<LineInFlight>,
    pub(crate) entries: Vec<Entry>,
    /// Index in `parts` of each entry.
    pub(crate) indexes: Vec<u32>,
    /// Orders that reach beyond one line; the lines under them are [`LineInFlight::tangled`].
    pub(crate) tangles: Vec<Tangle>,
    /// What each line with all its parts adds to the id of the durable content.
    everything: OnceLock<Vec<u128>>,
}

#[derive(Clone)]
pub(crate) struct LineInFlight {
    pub(crate) addr: u64,
    pub(crate) durable: [u8; 64],
    /// Its entries, in coherence order.
    pub(crate) range: Range<usize>,
    /// The tangle that orders its parts and its number there; `None` when only its own orders hold.
    pub(crate) tangled: Option<(usize, u16)>,
}

impl CrashPoint {
    pub(crate) fn new(
        nt_evicts: bool,
        media: Arc<dyn Media>,
        durable: DurableLines,
        lines_in_flight: &BTreeMap<u64, Line>,
        platform: impl Fn(u64) -> Platform,
    ) -> Self {
        let (mut lines, mut entries, mut listed) = (Vec::new(), Vec::new(), Vec::new());
        for (&addr, line) in lines_in_flight {
            let start = entries.len();
            entries.extend_from_slice(&line.entries);
            listed.extend(
                line.parts.iter().zip(start..).map(|(part, entry)| (part.event, part.cut, entry, part)),
            );
            let durable = durable.get(addr).unwrap_or_else(|| media.line(addr));
            lines.push(LineInFlight { addr, durable, range: start..entries.len(), tangled: None });
        }
        // A whole sector is listed by each of its lines, the first line first.
        listed.sort_by_key(|&(event, cut, ..)| (event, cut));
        let mut parts: Vec<Arc<Part>> = Vec::new();
        let mut indexes = vec![0; entries.len()];
        for same in listed.chunk_by(|one, next| (one.0, one.1) == (next.0, next.1)) {
            for &(_, _, entry, _) in same {
                indexes[entry] = parts.len() as u32;
            }
            parts.push(same[0].3.clone());
        }
        let (tangles, everything) = (Vec::new(), OnceLock::new());
        let mut point =
            Self { nt_evicts, media, durable, parts, lines, entries, indexes, tangles, everything };
        point.tangle(platform);
        point
    }

    /// Finds the orders that reach beyond one line. Whole sectors stay together.
    fn tangle(&mut self, platform: impl Fn(u64) -> Platform) {
        let (mut buffered, mut moments) = (Vec::new(), Vec::new());
        let mut number = 0;
        for lines in self.lines.chunk_by(|one, next| sector_of(one.addr) == sector_of(next.addr)) {
            let numbers = number..number + lines.len();
            number = numbers.end;
            match platform(lines[0].addr) {
                Platform::Eadr => {
                    let cached = lines.iter().any(|line| {
                        self.entries_of(line).any(|(entry, _)| matches!(entry.kind, Kind::Cached { .. }))
                    });
                    buffered.extend(numbers.filter(|_| cached));
                }
                Platform::VirtioPmem => moments.push(numbers.collect()),
                Platform::Adr | Platform::AdrLost | Platform::HostSurvives => {}
            }
        }
        let moments = moments.into_iter().map(|lines: Vec<usize>| (Reach::Moment, lines));
        let buffer = (!buffered.is_empty()).then_some((Reach::Buffer, buffered));
        for (reach, numbers) in buffer.into_iter().chain(moments) {
            let (this, lines) = (&*self, &numbers);
            let entries = (0..).zip(lines).flat_map(|(line, &number)| {
                let entries = this.entries_of(&this.lines[number]);
                entries.map(move |(entry, &index)| (index, line, entry, &*this.parts[index as usize]))
            });
            let tangle = Tangle::new(reach, self.nt_evicts, numbers.len(), entries);
            for (line, number) in (0..).zip(numbers) {
                self.lines[number].tangled = Some((self.tangles.len(), line));
            }
            self.tangles.push(tangle);
        }
    }

    /// Every part that is in some crash states and not in others, in event order.
    pub fn in_flight(&self) -> &[Arc<Part>] {
        &self.parts
    }

    /// The parts in flight by what stored them.
    pub fn groups(&self) -> Vec<Group> {
        groups(&self.parts)
    }

    /// How many order-closed sets there are.
    pub fn count(&self) -> StateCount {
        self.count_with(|_| None, |_| None)
    }

    /// The same, where the sets of a sector outside of tangles, given by its lines, or of the tangle with a number may
    /// have been counted otherwise.
    pub(crate) fn count_with(
        &self,
        of_sector: impl Fn(&[LineInFlight]) -> Option<StateCount>,
        of_tangle: impl Fn(usize) -> Option<StateCount>,
    ) -> StateCount {
        let mut counted: FxHashMap<Vec<Entry>, StateCount> = FxHashMap::default();
        let mut count_line = |entries: &[Entry]| {
            let shape = shape(entries);
            *counted.entry(shape).or_insert_with_key(|shape| count_sets(shape, self.nt_evicts))
        };
        let tangles = self.tangles.iter().enumerate();
        let mut count = tangles.fold(StateCount::ONE, |count, (number, tangle)| {
            count.times(of_tangle(number).unwrap_or_else(|| tangle.count()))
        });
        for lines in self.lines.chunk_by(|one, next| sector_of(one.addr) == sector_of(next.addr)) {
            if lines[0].tangled.is_none() {
                let given = of_sector(lines);
                count = count.times(given.unwrap_or_else(|| self.count_sector(lines, &mut count_line)));
            }
        }
        count
    }

    /// A whole sector comes after everything before it in all its lines and before everything behind it: the newest
    /// one in the set decides between which two the rest can vary.
    fn count_sector(
        &self,
        lines: &[LineInFlight],
        count: &mut impl FnMut(&[Entry]) -> StateCount,
    ) -> StateCount {
        let split = |line: &LineInFlight| {
            let entries = &self.entries[line.range.clone()];
            entries.split(|entry| entry.kind == Kind::Sector).map(<[Entry]>::to_vec).collect::<Vec<_>>()
        };
        let lines: Vec<Vec<Vec<Entry>>> = lines.iter().map(split).collect();
        let between = lines.iter().map(Vec::len).max().unwrap_or(0);
        let mut sum = StateCount::ZERO;
        for stretch in 0..between {
            let stretches = lines.iter().map(|line| &line[stretch]);
            sum = sum.plus(stretches.fold(StateCount::ONE, |product, entries| product.times(count(entries))));
        }
        sum
    }

    /// The choice without any part in flight.
    pub fn nothing(&self) -> Choice {
        Choice::none(self.parts.len())
    }

    /// The choice of all parts in flight.
    pub fn everything(&self) -> Choice {
        let mut choice = self.nothing();
        (0..self.parts.len()).for_each(|index| choice.set(index, true));
        choice
    }

    /// The parts in flight that have been handed over: with them, it is what is durable without
    /// [`crate::Settings::strict_fences`]. Empty when that is off.
    pub fn handed_over(&self) -> Choice {
        let mut choice = self.nothing();
        for (index, part) in self.parts.iter().enumerate() {
            choice.set(index, part.handed_over_by.is_some());
        }
        choice
    }

    /// The smallest order-closed set that contains the parts with these indexes.
    pub fn closure(&self, wanted: impl IntoIterator<Item = usize>) -> Choice {
        let mut choice = self.nothing();
        wanted
            .into_iter()
            .filter(|&index| index < self.parts.len())
            .for_each(|index| choice.set(index, true));
        self.with_predecessors(choice)
    }

    /// The largest order-closed set that contains none of the parts with these indexes.
    pub fn without(&self, lost: impl IntoIterator<Item = usize>) -> Choice {
        let mut choice = self.everything();
        lost.into_iter().filter(|&index| index < self.parts.len()).for_each(|index| choice.set(index, false));
        self.without_successors(choice)
    }

    /// Whether the set contains, of each of its parts, all that come before.
    pub fn is_closed(&self, choice: &Choice) -> bool {
        self.closure(choice.iter()) == *choice
    }

    fn with_predecessors(&self, choice: Choice) -> Choice {
        let mut choice = self.close(choice, true, include_predecessors);
        for tangle in &self.tangles {
            let before = choice.clone();
            let contains = |index: u32| before.contains(index as usize);
            tangle.include_predecessors(contains, |index| choice.set(index as usize, true));
        }
        choice
    }

    fn without_successors(&self, choice: Choice) -> Choice {
        let mut choice = self.close(choice, false, exclude_successors);
        for tangle in &self.tangles {
            tangle.walk(|index, allowed| {
                let included = allowed && choice.contains(index as usize);
                choice.set(index as usize, included);
                included
            });
        }
        choice
    }

    /// Outside of tangles: marks parts as `value` until the orders hold. `spread` spreads marks along one line. A whole sector is in
    /// eight lines and spreads to everything on one side of it: a second round takes it to the lines that the first
    /// had passed.
    fn close(&self, mut choice: Choice, value: bool, spread: fn(&[Entry], &mut [bool], bool)) -> Choice {
        let rounds = if self.entries.iter().any(|entry| entry.kind == Kind::Sector) { 2 } else { 1 };
        for _ in 0..rounds {
            for line in self.untangled() {
                let indexes = &self.indexes[line.range.clone()];
                let mut marks: Vec<bool> =
                    indexes.iter().map(|&index| choice.contains(index as usize) == value).collect();
                spread(&self.entries[line.range.clone()], &mut marks, self.nt_evicts);
                for (&index, _) in indexes.iter().zip(marks).filter(|(_, mark)| *mark) {
                    choice.set(index as usize, value);
                }
            }
        }
        choice
    }

    /// Every order-closed set, each once, starting with the empty one. For use when [`CrashPoint::count`] is small.
    pub fn all(&self) -> impl Iterator<Item = Choice> {
        std::iter::successors(Some(self.nothing()), |choice| self.next_set(choice))
    }

    /// The set after this one when sets are sorted as binary numbers whose highest digit is the first part in event
    /// order, which no order contradicts: the last missing part that may be added is, and all behind it go.
    fn next_set(&self, choice: &Choice) -> Option<Choice> {
        let mut allowed = vec![true; self.parts.len()];
        for tangle in &self.tangles {
            tangle.walk(|index, may| {
                allowed[index as usize] &= may;
                choice.contains(index as usize)
            });
        }
        for line in self.untangled() {
            let mut missing = Missing::default();
            for (entry, &index) in self.entries_of(line) {
                allowed[index as usize] &= missing.allows(entry, self.nt_evicts);
                if !choice.contains(index as usize) {
                    missing.add(entry);
                }
            }
        }
        let added = (0..self.parts.len()).rev().find(|&index| allowed[index] && !choice.contains(index))?;
        let mut next = choice.clone();
        next.truncate(added);
        next.set(added, true);
        Some(next)
    }

    /// The `number`th random order-closed set of a seed. Every set can come out, not all equally likely: a line, and
    /// all of them together, leans towards having everything or nothing.
    pub fn random(&self, seed: u64, number: u64) -> Choice {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        let bias = rng.next_u32() % 257;
        let keep = rng.next_u32() & 1 == 0;
        let mut choice = self.nothing();
        for line in self.untangled() {
            let parts = self.entries_of(line).map(|(entry, &index)| (index, entry.kind));
            let own = |index: u32| self.parts[index as usize].line() == line.addr;
            random_parts(parts, own, bias, &mut rng, &mut choice);
        }
        for tangle in &self.tangles {
            random_parts(tangle.parts(), |_| true, bias, &mut rng, &mut choice);
        }
        if keep { self.with_predecessors(choice) } else { self.without_successors(choice) }
    }

    /// The content of the media: every line that differs from the initial media, what is durable included.
    pub fn content(&self, choice: &Choice) -> Overlay {
        let mut lines: Vec<(u64, [u8; 64])> = Vec::new();
        let mut changed =
            self.lines.iter().map(|line| (line.addr, self.line_content(line, choice))).peekable();
        for (addr, durable) in self.durable.iter() {
            while let Some(line) = changed.next_if(|line| line.0 < addr) {
                lines.push(line);
            }
            lines.push(changed.next_if(|line| line.0 == addr).unwrap_or((addr, *durable)));
        }
        lines.extend(changed);
        lines.retain(|(addr, content)| *content != self.media.line(*addr));
        Overlay { lines, poisoned: self.durable.poisoned() }
    }

    /// The lines whose content the media has lost, ascending.
    pub fn poisoned(&self) -> Vec<u64> {
        self.durable.poisoned()
    }

    /// The id of the content of the media.
    pub fn state_id(&self, choice: &Choice) -> StateId {
        let mut id = self.durable.id();
        for (number, line) in self.lines.iter().enumerate() {
            let indexes = &self.indexes[line.range.clone()];
            let included = indexes.iter().filter(|&&index| choice.contains(index as usize)).count();
            let added = match included {
                0 => 0,
                all if all == indexes.len() => self.everything_added()[number],
                _ => self.added_id(line, &self.line_content(line, choice)),
            };
            id = id.wrapping_add(added);
        }
        StateId(id)
    }

    /// The id of the durable content alone.
    pub fn durable_id(&self) -> StateId {
        StateId(self.durable.id())
    }

    fn everything_added(&self) -> &[u128] {
        self.everything.get_or_init(|| {
            let everything = self.everything();
            self.lines.iter().map(|line| self.added_id(line, &self.line_content(line, &everything))).collect()
        })
    }

    /// What the id of the durable content grows by when the line has this content.
    fn added_id(&self, line: &LineInFlight, content: &[u8; 64]) -> u128 {
        let initial = self.media.line(line.addr);
        let id = |content: &[u8; 64]| if *content == initial { 0 } else { line_id(line.addr, content) };
        id(content).wrapping_sub(id(&line.durable))
    }

    /// The durable content of the line that holds `addr`.
    pub fn durable_line(&self, addr: u64) -> [u8; 64] {
        let addr = line_of(addr);
        self.durable.get(addr).unwrap_or_else(|| self.media.line(addr))
    }

    /// Every content that the line that holds `addr` has in some crash state, sorted. `None` when finding them takes
    /// more than `limit` sets of parts that differ: [`CrashPoint::byte_values`] has no limit.
    pub fn line_contents(&self, addr: u64, limit: usize) -> Option<Vec<[u8; 64]>> {
        let Some(line) = self.line_in_flight(addr) else { return Some(vec![self.durable_line(addr)]) };
        let indexes = &self.indexes[line.range.clone()];
        let entries = &self.entries[line.range.clone()];
        let apply = |position: usize, content: &mut [u8; 64]| {
            self.parts[indexes[position] as usize].write_to(line.addr, content);
        };
        let contents = match line.tangled {
            Some((tangle, number)) => {
                let apply = |index: u32, content: &mut [u8; 64]| {
                    self.parts[index as usize].write_to(line.addr, content);
                };
                self.tangles[tangle].contents(number, line.durable, limit, apply)?
            }
            None => contents(entries, self.nt_evicts, line.durable, limit, apply)?,
        };
        Some(contents.into_iter().collect())
    }

    /// Every value that the byte at `addr` has in some crash state, sorted.
    pub fn byte_values(&self, addr: u64) -> Vec<u8> {
        let position = (addr - line_of(addr)) as usize;
        let mut values = vec![self.durable_line(addr)[position]];
        if let Some(line) = self.line_in_flight(addr) {
            // Parts that cover one byte overlap, so any number of them from the first on can be there.
            let covering = self.entries_of(line).filter(|(entry, _)| entry.mask >> position & 1 == 1);
            values.extend(covering.map(|(_, &index)| {
                let part = &self.parts[index as usize];
                part.bytes[(addr - part.addr) as usize]
            }));
        }
        values.sort_unstable();
        values.dedup();
        values
    }

    pub(crate) fn line_in_flight(&self, addr: u64) -> Option<&LineInFlight> {
        let position = self.lines.binary_search_by_key(&line_of(addr), |line| line.addr).ok()?;
        Some(&self.lines[position])
    }

    /// The lines whose own orders are all that holds.
    fn untangled(&self) -> impl Iterator<Item = &LineInFlight> {
        self.lines.iter().filter(|line| line.tangled.is_none())
    }

    fn entries_of(&self, line: &LineInFlight) -> impl Iterator<Item = (&Entry, &u32)> + Clone {
        self.entries[line.range.clone()].iter().zip(&self.indexes[line.range.clone()])
    }

    fn line_content(&self, line: &LineInFlight, choice: &Choice) -> [u8; 64] {
        let mut content = line.durable;
        for &index in &self.indexes[line.range.clone()] {
            if choice.contains(index as usize) {
                self.parts[index as usize].write_to(line.addr, &mut content);
            }
        }
        content
    }
}

/// Draws up to which batch cached parts are in, and each other part on its own.
fn random_parts(
    parts: impl Iterator<Item = (u32, Kind)> + Clone,
    own: impl Fn(u32) -> bool,
    bias: u32,
    rng: &mut ChaCha8Rng,
    choice: &mut Choice,
) {
    let mut batches: Vec<u64> = parts.clone().filter_map(|(_, kind)| kind.batch()).collect();
    batches.dedup();
    let last = rng.next_u64() % (batches.len() as u64 + 1);
    let last = batches.get(last as usize).copied();
    for (index, kind) in parts {
        let coin = rng.next_u32() % 256 < bias;
        let included = match kind.batch() {
            Some(batch) => last.is_none_or(|last| batch < last || batch == last && rng.next_u32() & 1 == 0),
            None => coin,
        };
        if own(index) {
            choice.set(index as usize, included);
        }
    }
}

/// The same orders with batches numbered from 0: equal for all lines that were written alike.
fn shape(entries: &[Entry]) -> Vec<Entry> {
    let mut batches: Vec<u64> = entries.iter().filter_map(|entry| entry.kind.batch()).collect();
    batches.dedup();
    let number = |batch: u64| batches.partition_point(|&other| other < batch) as u64;
    let renamed = entries.iter().map(|entry| {
        let kind = entry.kind.batch().map_or(entry.kind, |batch| Kind::Cached { batch: number(batch) });
        Entry { kind, ..*entry }
    });
    renamed.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::Execution;
    use crate::{Granularity, StorePath};

    const X: u64 = 0x1000;

    fn line() -> Execution {
        Execution::new(Granularity::Line)
    }

    #[test]
    fn with_nothing_in_flight_there_is_one_state() {
        let point = line().point();
        assert_eq!((point.count().states, point.all().count()), (1, 1));
        assert_eq!(point.durable_id(), StateId::default());
        assert!(point.content(&point.everything()).lines().is_empty());
    }

    #[test]
    fn equal_contents_have_equal_ids_however_they_came_about() {
        let mut one = line();
        one.store(X, &[1; 128], StorePath::Cached);
        let mut two = line();
        for addr in (0..16).rev().map(|word| X + word * 8) {
            two.store(addr, &[7; 8], StorePath::NonTemporal);
        }
        two.sfence();
        for addr in (X..X + 128).step_by(8) {
            two.store(addr, &[1; 8], StorePath::NonTemporal);
        }
        let (in_flight, other) = (one.point(), two.point());
        let id = in_flight.state_id(&in_flight.everything());
        assert_eq!(id, other.state_id(&other.everything()));
        assert_ne!(id, other.durable_id());
        two.sfence();
        assert_eq!(id, two.point().durable_id());
    }

    #[test]
    fn a_line_that_is_as_it_was_adds_nothing_to_the_id() {
        let mut run = line();
        run.store(X, &[1; 8], StorePath::NonTemporal);
        run.sfence();
        run.store(X, &[0; 8], StorePath::NonTemporal);
        let point = run.point();
        assert_ne!(point.durable_id(), StateId::default());
        assert_eq!(point.state_id(&point.everything()), StateId::default());
        assert!(point.content(&point.everything()).lines().is_empty());
        run.sfence();
        assert_eq!(run.point().durable_id(), StateId::default());
    }

    #[test]
    fn the_same_bytes_elsewhere_have_another_id() {
        let id = |addr| {
            let mut run = line();
            run.cached(addr, 1);
            let point = run.point();
            point.state_id(&point.everything())
        };
        assert_ne!(id(X), id(X + 64));
    }

    #[test]
    fn random_choices_reach_every_state_and_repeat() {
        let mut run = line();
        for byte in 0..3 {
            run.cached(X + byte, 1);
            run.store(X + 64 + byte * 8, &[1; 8], StorePath::NonTemporal);
        }
        let point = run.point();
        let drawn: BTreeSet<Choice> = (0..2000).map(|number| point.random(1, number)).collect();
        assert_eq!(drawn, point.all().collect());
        assert_eq!(point.random(5, 6), point.random(5, 6));
    }

    #[test]
    fn too_many_contents_of_a_line_are_refused_but_its_bytes_are_known() {
        let mut run = line();
        for byte in 0..64 {
            run.store(X + byte, &[1], StorePath::CachedRep(1));
        }
        let point = run.point();
        assert_eq!(point.line_contents(X, 1000), None);
        assert_eq!(point.byte_values(X + 63), [0, 1]);
        assert_eq!(point.count().states, 1 << 64);
    }

    #[test]
    fn counts_beyond_any_number_keep_their_logarithm() {
        let mut run = line();
        for line in 0..1000 {
            run.store(X + line * 64, &[1; 8], StorePath::NonTemporal);
        }
        let count = run.point().count();
        assert_eq!((count.states, count.exact), (u128::MAX, true));
        assert!((count.log2 - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn indexes_beyond_the_parts_are_ignored() {
        let mut run = line();
        run.cached(X, 1);
        let point = run.point();
        assert_eq!(point.closure([7]), point.nothing());
        assert_eq!(point.without([7]), point.everything());
    }
}
