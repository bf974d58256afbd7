//! What is left open at a crash point once the contents of some lines are known.
//!
//! Lines are bound to each other by sectors that persist as one and by orders that reach beyond one line. What is
//! bound together is a *group*: a whole sector, the lines of a tangle, or a line alone. A line that becomes known
//! leaves everything as it was outside of its group.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use smallvec::{SmallVec, smallvec};

use crate::choice::{Choice, StateCount};
use crate::count::{self, contents};
use crate::crash_point::{CrashPoint, LineInFlight};
use crate::order::{Entry, Kind};
use crate::part::{Part, line_of, sector_of};
use crate::search::{Search, Touch};
use crate::tangle;

/// Sets of parts that are told apart before it counts as too many, where no caller gives a limit.
const LIMIT: usize = 1 << 16;

/// A crash point, and lines of it whose content is known: it stands for every crash state in which they have that.
#[derive(Clone)]
pub struct Partial<'a> {
    point: &'a CrashPoint,
    /// Those with parts in flight.
    known: BTreeMap<u64, [u8; 64]>,
}

impl CrashPoint {
    /// Every line that has not the same content in all crash states, and which of its bytes differ between some (bit
    /// n for byte n), sorted by address.
    pub fn undecided(&self) -> Vec<(u64, u64)> {
        let masks = self.lines.iter().map(|line| {
            let differs = |index: &u32| differing(&self.parts[*index as usize], line.addr, &line.durable);
            let mask = self.indexes[line.range.clone()].iter().map(differs).fold(0, |all, mask| all | mask);
            (line.addr, mask)
        });
        masks.filter(|(_, mask)| *mask != 0).collect()
    }

    /// All crash states: nothing is known yet.
    pub fn partial(&self) -> Partial<'_> {
        Partial { point: self, known: BTreeMap::new() }
    }
}

impl<'a> Partial<'a> {
    /// The crash point.
    pub fn point(&self) -> &'a CrashPoint {
        self.point
    }

    /// The lines that have become known, by address.
    pub fn known(&self) -> impl Iterator<Item = (u64, &[u8; 64])> {
        self.known.iter().map(|(addr, content)| (*addr, content))
    }

    /// Every content that the line that holds `addr` has in some of the crash states, sorted. `None` when finding
    /// them takes more than `limit` sets of parts that differ.
    pub fn contents(&self, addr: u64, limit: usize) -> Option<Vec<[u8; 64]>> {
        let Some(line) = self.point.line_in_flight(addr) else {
            return Some(vec![self.point.durable_line(addr)]);
        };
        if let Some(content) = self.known.get(&line.addr) {
            return Some(vec![*content]);
        }
        let found = match line.tangled {
            Some((tangle, number)) => self.contents_in_tangle(line, tangle, number, limit)?,
            None => {
                let sector = self.sector(line.addr);
                let mut found = BTreeSet::new();
                for stretch in sector.possible(limit)? {
                    found.extend(sector.contents(line, stretch, limit)?);
                }
                found
            }
        };
        Some(found.into_iter().collect())
    }

    /// From now on the line that holds `addr` has this content: one of [`Partial::contents`].
    pub fn decide(&mut self, addr: u64, content: [u8; 64]) {
        if let Some(line) = self.point.line_in_flight(addr) {
            self.known.insert(line.addr, content);
        }
    }

    /// One of the crash states: where nothing else is known, with everything in flight. `None` when there is none:
    /// the lines do not have these contents together.
    pub fn choice(&self) -> Option<Choice> {
        let mut choice = self.point.everything();
        for group in self.groups() {
            match group {
                Group::Sector(sector) => sector.choose(&mut choice)?,
                Group::Tangle(number) => {
                    let tangle = &self.point.tangles[number];
                    let lines = self.known_in_tangle(number);
                    let walk = tangle::Walk::new(tangle);
                    let search = self.search(&walk, tangle, &lines);
                    for ((id, _), included) in tangle.masks().zip(search.first()?) {
                        choice.set(id as usize, included);
                    }
                }
            }
        }
        Some(choice)
    }

    /// How many crash states there are, as sets of parts.
    pub fn count(&self) -> StateCount {
        let of_sector = |lines: &[LineInFlight]| {
            let known = lines.iter().any(|line| self.known.contains_key(&line.addr));
            known.then(|| Sector { partial: self, lines }.count())
        };
        let of_tangle = |number| {
            let known = self.known_in_tangle(number);
            let tangle = &self.point.tangles[number];
            (!known.is_empty()).then(|| self.search(&tangle::Walk::new(tangle), tangle, &known).count())
        };
        self.point.count_with(of_sector, of_tangle)
    }

    /// The groups of which something is known.
    fn groups(&self) -> Vec<Group<'_>> {
        let mut tangles = BTreeSet::new();
        let mut sectors = BTreeSet::new();
        for line in self.known.keys().filter_map(|addr| self.point.line_in_flight(*addr)) {
            match line.tangled {
                Some((tangle, _)) => tangles.insert(tangle as u64),
                None => sectors.insert(sector_of(line.addr)),
            };
        }
        let tangles = tangles.into_iter().map(|tangle| Group::Tangle(tangle as usize));
        tangles.chain(sectors.into_iter().map(|addr| Group::Sector(self.sector(addr)))).collect()
    }

    fn sector(&self, addr: u64) -> Sector<'_> {
        let lines = &self.point.lines;
        let start = lines.partition_point(|line| line.addr < sector_of(addr));
        let count = lines[start..].partition_point(|line| sector_of(line.addr) == sector_of(addr));
        Sector { partial: self, lines: &lines[start..start + count] }
    }

    /// The known lines of a tangle: number there, address, content.
    fn known_in_tangle(&self, tangle: usize) -> Vec<(u16, &'a LineInFlight, [u8; 64])> {
        let known = self.known.iter().filter_map(|(addr, content)| {
            let line = self.point.line_in_flight(*addr)?;
            let (of, number) = line.tangled?;
            (of == tangle).then_some((number, line, *content))
        });
        known.collect()
    }

    /// What a line of a tangle can be, given the lines of it that are known.
    fn contents_in_tangle(
        &self,
        line: &LineInFlight,
        tangle: usize,
        number: u16,
        limit: usize,
    ) -> Option<BTreeSet<[u8; 64]>> {
        let known = self.known_in_tangle(tangle);
        let wanted: Vec<u16> = known.iter().map(|(number, ..)| *number).chain([number]).collect();
        let numbers = self.point.tangles[tangle].with_shared_parts(&wanted);
        let reduced = self.point.tangles[tangle].of_lines(&numbers);
        let known: Vec<_> =
            (0..).zip(known).map(|(number, (_, line, content))| (number, line, content)).collect();
        let ids: Vec<u32> = reduced.masks().map(|(id, _)| id).collect();
        let walk = tangle::Walk::new(&reduced);
        self.search(&walk, &reduced, &known).contents(line.durable, limit, |position, content| {
            let part = &self.point.parts[ids[position] as usize];
            if part.addr < line.addr + 64 && line.addr < part.end() {
                part.write_to(line.addr, content);
            }
        })
    }

    /// Sets of a tangle that give these lines these contents.
    fn search<'s, 't>(
        &self,
        walk: &'s tangle::Walk<'t>,
        tangle: &'t tangle::Tangle,
        known: &[(u16, &LineInFlight, [u8; 64])],
    ) -> Search<'s, tangle::Walk<'t>> {
        let start: Vec<u64> =
            known.iter().map(|(_, line, content)| unequal(&line.durable, content)).collect();
        let touches = tangle.masks().map(|(id, masks)| {
            let part = &self.point.parts[id as usize];
            let touched = masks.iter().filter_map(|&(number, mask)| {
                let at = known.iter().position(|(known, ..)| *known == number)?;
                let (_, line, content) = &known[at];
                Some(Touch { line: at, mask, wrong: differing(part, line.addr, content) })
            });
            touched.collect()
        });
        Search::new(walk, &start, touches.collect())
    }
}

/// What is bound together, with something known in it.
enum Group<'a> {
    Sector(Sector<'a>),
    /// By its number.
    Tangle(usize),
}

/// The lines of one sector in flight. A part that is a whole sector comes after everything before it in all lines and
/// before everything behind it: these parts cut the list of every line into equally many *stretches*. The newest such
/// part in a set decides in which stretch the lines vary, each on its own.
struct Sector<'a> {
    partial: &'a Partial<'a>,
    lines: &'a [LineInFlight],
}

impl Sector<'_> {
    fn entries(&self, line: &LineInFlight) -> &[Entry] {
        &self.partial.point.entries[line.range.clone()]
    }

    fn part(&self, entry: usize) -> &Part {
        &self.partial.point.parts[self.partial.point.indexes[entry] as usize]
    }

    /// How many stretches there are.
    fn stretches(&self) -> usize {
        let whole = |line| self.entries(line).iter().filter(|entry| entry.kind == Kind::Sector).count();
        1 + self.lines.iter().map(whole).max().unwrap_or(0)
    }

    /// Entries of the line that are in the stretch, by their index in the crash point.
    fn stretch(&self, line: &LineInFlight, stretch: usize) -> Range<usize> {
        let whole =
            line.range.clone().filter(|entry| self.partial.point.entries[*entry].kind == Kind::Sector);
        let ends: Vec<usize> = whole.collect();
        let start = if stretch == 0 { line.range.start } else { ends[stretch - 1] + 1 };
        start..ends.get(stretch).copied().unwrap_or(line.range.end)
    }

    /// The line's content at the beginning of the stretch.
    fn content_before(&self, line: &LineInFlight, range: &Range<usize>) -> [u8; 64] {
        let mut content = line.durable;
        if range.start > line.range.start {
            self.part(range.start - 1).write_to(line.addr, &mut content);
        }
        content
    }

    /// Every content of the line if the newest whole sector is the one before this stretch.
    fn contents(&self, line: &LineInFlight, stretch: usize, limit: usize) -> Option<BTreeSet<[u8; 64]>> {
        let range = self.stretch(line, stretch);
        let before = self.content_before(line, &range);
        let point = self.partial.point;
        contents(&point.entries[range.clone()], point.nt_evicts, before, limit, |position, content| {
            self.part(range.start + position).write_to(line.addr, content);
        })
    }

    /// Runs a search for the sets of a stretch that give the line the content that is known.
    fn search<T>(
        &self,
        line: &LineInFlight,
        stretch: usize,
        content: &[u8; 64],
        run: impl FnOnce(&Search<count::Walk>) -> T,
    ) -> T {
        let range = self.stretch(line, stretch);
        let before = self.content_before(line, &range);
        let touches = range.clone().map(|entry| -> SmallVec<[Touch; 1]> {
            let mask = self.partial.point.entries[entry].mask;
            smallvec![Touch { line: 0, mask, wrong: differing(self.part(entry), line.addr, content) }]
        });
        let walk = count::Walk::new(&self.partial.point.entries[range.clone()], self.partial.point.nt_evicts);
        run(&Search::new(&walk, &[unequal(&before, content)], touches.collect()))
    }

    /// The stretches in which every known line can have its content.
    fn possible(&self, limit: usize) -> Option<Vec<usize>> {
        let mut possible = Vec::new();
        for stretch in 0..self.stretches() {
            let mut all = true;
            for line in self.lines {
                if let Some(content) = self.partial.known.get(&line.addr).filter(|_| all) {
                    all = self.search(line, stretch, content, |search| search.any(limit))?;
                }
            }
            possible.extend(all.then_some(stretch));
        }
        Some(possible)
    }

    /// Takes out of the choice what may not be there.
    fn choose(&self, choice: &mut Choice) -> Option<()> {
        let stretch = *self.possible(LIMIT)?.last()?;
        for line in self.lines {
            let range = self.stretch(line, stretch);
            let index = |entry: usize| self.partial.point.indexes[entry] as usize;
            let known = self.partial.known.get(&line.addr);
            let taken = known.map(|content| self.search(line, stretch, content, |search| search.first()));
            for (position, entry) in range.clone().enumerate() {
                let included = match &taken {
                    Some(taken) => taken.as_ref()?[position],
                    None => true,
                };
                choice.set(index(entry), included);
            }
            (range.end..line.range.end).for_each(|entry| choice.set(index(entry), false));
        }
        Some(())
    }

    /// How many sets agree with what is known.
    fn count(&self) -> StateCount {
        let mut sum = StateCount::ZERO;
        for stretch in 0..self.stretches() {
            let count_line = |line: &LineInFlight| match self.partial.known.get(&line.addr) {
                Some(content) => self.search(line, stretch, content, |search| search.count()),
                None => {
                    let entries = &self.partial.point.entries[self.stretch(line, stretch)];
                    count::count_sets(entries, self.partial.point.nt_evicts)
                }
            };
            let counts = self.lines.iter().map(count_line);
            sum = sum.plus(counts.fold(StateCount::ONE, StateCount::times));
        }
        sum
    }
}

/// Bytes in which the contents differ.
fn unequal(one: &[u8; 64], other: &[u8; 64]) -> u64 {
    (0..64).filter(|byte| one[*byte] != other[*byte]).fold(0, |mask, byte| mask | 1 << byte)
}

/// Bytes of the line at `addr` that the part covers and makes different from this content.
fn differing(part: &Part, addr: u64, content: &[u8; 64]) -> u64 {
    let mut written = *content;
    part.write_to(line_of(addr), &mut written);
    unequal(&written, content)
}
