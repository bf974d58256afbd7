//! Whether files that are open in places can hold what they may not.
//!
//! An open byte is a byte of a line of persistent memory of which it is not decided what it holds. Whether a file can
//! be wrong is found line by line: every content that the line can have is held against the words of the file that it
//! makes. That takes time in proportion to what is open; nothing is tried in combination unless a word of the file
//! lies across lines, or names of which each could be meant differ in what they allow.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use persist::{Overlay, Partial};

use super::expectation::{Expectation, FileExpectation, NameGroup, Segment};
use super::history::FileId;
use super::judge::{Entry, Open, Tree, fitting_states, judge_file, mismatch_of};
use crate::verdict::Class;

/// Places tried for one fault, from the first to the last: other places may have other causes.
pub(crate) const WITNESSES: usize = 4;
/// Combinations that are tried where names could mean several files.
const COMBINATIONS: usize = 4096;

/// A line with too many contents to be held against a file, or too many combinations of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub line: u64,
}

impl Tree {
    /// Whether something in it is open.
    pub fn is_open(&self) -> bool {
        self.0.values().any(|entry| matches!(entry, Entry::File { open, .. } if !open.is_empty()))
    }

    /// The tree of one crash state, whose media differ so from the initial ones. `initial` gives the lines of those.
    pub fn filled(&self, media: &Overlay, initial: impl Fn(u64) -> [u8; 64]) -> Tree {
        let line = |addr: u64| media.line(addr).copied().unwrap_or_else(|| initial(addr));
        let fill = |(path, entry): (&String, &Entry)| {
            let mut entry = entry.clone();
            if let Entry::File { content, open, .. } = &mut entry {
                for run in std::mem::take(open) {
                    put(content, &run, &line(run.line()));
                }
            }
            (path.clone(), entry)
        };
        Tree(self.0.iter().map(fill).collect())
    }
}

fn put(content: &mut [u8], run: &Open, line: &[u8; 64]) {
    content[run.at..run.at + run.len].copy_from_slice(&line[(run.origin % 64) as usize..][..run.len]);
}

/// Crash states that may be wrong.
pub(crate) struct Suspect<'a> {
    /// What has to be known of one.
    pub known: Partial<'a>,
    /// Which of the places of its fault it is about, counted from 0 and below [`WITNESSES`].
    pub place: usize,
}

/// Crash states, among those that `known` leaves, that may be wrong: for everything that can be wrong with the contents
/// of files at least one that is. `sets` limits the search for the contents of a line.
pub(crate) fn suspects<'a>(
    expectation: &Expectation,
    tree: &Tree,
    known: &Partial<'a>,
    sets: usize,
) -> Result<Vec<Suspect<'a>>, TooMany> {
    let mut suspects = Vec::new();
    if !tree.is_open() {
        return Ok(suspects);
    }
    for group in &expectation.names {
        let states: Vec<&Vec<Option<FileId>>> = fitting_states(expectation, group, tree).collect();
        let context = Context { expectation, tree, group, sets };
        match states.as_slice() {
            [] => (),
            [state] => suspects.extend(context.of_state(state, known)?),
            states => {
                let mut left = COMBINATIONS;
                let wrong = context.wrong_for_all(states, known.clone(), &mut left)?;
                suspects.extend(wrong.map(|known| Suspect { known, place: 0 }));
            }
        }
    }
    Ok(suspects)
}

struct Context<'e> {
    expectation: &'e Expectation,
    tree: &'e Tree,
    group: &'e NameGroup,
    sets: usize,
}

/// What a line, or several, must hold for a word of a file to be wrong.
struct Wrong {
    class: Class,
    promise: Option<u32>,
    at: u64,
    lines: Vec<(u64, [u8; 64])>,
}

impl<'e> Context<'e> {
    /// The files that the names mean in this state, each with what was found at its first name.
    fn files(&self, state: &[Option<FileId>]) -> Vec<(&'e FileExpectation, &'e str, &'e Entry)> {
        let mut seen = BTreeSet::new();
        let named = self.group.paths.iter().zip(state).filter_map(|(path, file)| {
            let (file, entry) = ((*file)?, self.tree.0.get(path)?);
            seen.insert(file).then(|| (&self.expectation.files[file.0], path.as_str(), entry))
        });
        named.collect()
    }

    /// For every kind of fault states that show it at a few places.
    fn of_state<'a>(
        &self,
        state: &[Option<FileId>],
        known: &Partial<'a>,
    ) -> Result<Vec<Suspect<'a>>, TooMany> {
        let mut suspects = Vec::new();
        for (file, _, entry) in self.files(state) {
            let mut places: BTreeMap<(Class, Option<u32>), Vec<Wrong>> = BTreeMap::new();
            for wrong in self.wrongs(file, entry, known)? {
                let places = places.entry((wrong.class, wrong.promise)).or_default();
                if places.last().is_none_or(|last| last.at != wrong.at) {
                    places.push(wrong);
                }
            }
            for wrongs in places.values() {
                let known = |wrong: &Wrong| with(known, &wrong.lines);
                suspects.extend(evenly(wrongs).map(|(place, wrong)| Suspect { known: known(wrong), place }));
            }
        }
        Ok(suspects)
    }

    /// A state that is wrong whichever of these the names mean.
    fn wrong_for_all<'a>(
        &self,
        states: &[&Vec<Option<FileId>>],
        known: Partial<'a>,
        left: &mut usize,
    ) -> Result<Option<Partial<'a>>, TooMany> {
        let Some((state, rest)) = states.split_first() else { return Ok(Some(known)) };
        let files = self.files(state);
        if files.iter().any(|(file, path, entry)| is_wrong_anyway(file, path, entry)) {
            return self.wrong_for_all(rest, known, left);
        }
        for (file, _, entry) in files {
            for wrong in self.wrongs(file, entry, &known)? {
                *left = left
                    .checked_sub(1)
                    .ok_or(TooMany { line: wrong.lines.first().map_or(0, |line| line.0) })?;
                if let Some(found) = self.wrong_for_all(rest, with(&known, &wrong.lines), left)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Every way in which a word that is open, at least in part, can be wrong; by its place in the file.
    fn wrongs(&self, file: &FileExpectation, entry: &Entry, known: &Partial) -> Result<Vec<Wrong>, TooMany> {
        let Entry::File { content, open, .. } = entry else { return Ok(Vec::new()) };
        let mut wrongs = Vec::new();
        // A line whose contents are known here, for several units lie on one.
        let mut contents: BTreeMap<u64, Vec<[u8; 64]>> = BTreeMap::new();
        for unit in open_units(file, content.len(), open) {
            for line in unit.lines() {
                if let btree_map::Entry::Vacant(vacant) = contents.entry(line) {
                    vacant.insert(known.contents(line, self.sets).ok_or(TooMany { line })?);
                }
            }
            let segment = &file.segments[unit.segment];
            let mut wrong = |found: &[u8], lines: &[(u64, [u8; 64])]| {
                if let Some(class) = mismatch_of(segment, unit.at as u64, found) {
                    let promise = segment.promise.filter(|_| class != Class::Stale);
                    wrongs.push(Wrong { class, promise, at: unit.at as u64, lines: lines.to_vec() });
                }
            };
            let lines: Vec<u64> = unit.lines().into_iter().collect();
            let [line] = lines.as_slice() else {
                unit.try_all(&lines, content, known, self.sets, &mut Vec::new(), &mut wrong)?;
                continue;
            };
            for possible in &contents[line] {
                let found = unit.with(content, |_| *possible);
                wrong(&found, &[(*line, *possible)]);
            }
        }
        wrongs.sort_by_key(|wrong| wrong.at);
        Ok(wrongs)
    }
}

fn with<'a>(known: &Partial<'a>, lines: &[(u64, [u8; 64])]) -> Partial<'a> {
    let mut known = known.clone();
    lines.iter().for_each(|(line, content)| known.decide(*line, *content));
    known
}

/// [`WITNESSES`] of them at most, the first and the last among them.
fn evenly(wrongs: &[Wrong]) -> impl Iterator<Item = (usize, &Wrong)> {
    let count = wrongs.len().min(WITNESSES);
    let number = move |place: usize| place * (wrongs.len() - 1) / (count - 1).max(1);
    (0..count).map(move |place| (place, &wrongs[number(place)]))
}

/// Whether the file is wrong whatever its open bytes are.
fn is_wrong_anyway(file: &FileExpectation, path: &str, entry: &Entry) -> bool {
    let mut best = entry.clone();
    if let Entry::File { content, open, .. } = &mut best {
        for unit in open_units(file, content.len(), &std::mem::take(open)) {
            let allowed = file.segments[unit.segment].allowed[0];
            allowed.fill(unit.at as u64, &mut content[unit.at..unit.at + unit.len]);
        }
    }
    let mut faults = Vec::new();
    judge_file(file, path, &best, &mut faults);
    !faults.is_empty()
}

/// A word of a file, or a byte at a ragged edge, that is open, at least in part.
struct Unit {
    segment: usize,
    at: usize,
    len: usize,
    /// What of it is open, cut to it.
    open: Vec<Open>,
}

impl Unit {
    fn lines(&self) -> BTreeSet<u64> {
        self.open.iter().map(Open::line).collect()
    }

    /// Its bytes if the lines have these contents.
    fn with(&self, content: &[u8], line: impl Fn(u64) -> [u8; 64]) -> Vec<u8> {
        let mut found = content[self.at..self.at + self.len].to_vec();
        for run in &self.open {
            put(&mut found, &Open { at: run.at - self.at, ..*run }, &line(run.line()));
        }
        found
    }

    /// All contents that its lines can have together.
    fn try_all(
        &self,
        lines: &[u64],
        content: &[u8],
        known: &Partial,
        sets: usize,
        decided: &mut Vec<(u64, [u8; 64])>,
        wrong: &mut impl FnMut(&[u8], &[(u64, [u8; 64])]),
    ) -> Result<(), TooMany> {
        let Some((&line, rest)) = lines.split_first() else {
            let of =
                |wanted: u64| decided.iter().find(|(line, _)| *line == wanted).map_or([0; 64], |it| it.1);
            wrong(&self.with(content, of), decided);
            return Ok(());
        };
        for possible in known.contents(line, sets).ok_or(TooMany { line })? {
            decided.push((line, possible));
            self.try_all(rest, content, &with(known, &decided[decided.len() - 1..]), sets, decided, wrong)?;
            decided.pop();
        }
        Ok(())
    }
}

/// The units of a file of `size` bytes that are judged and open, in order.
fn open_units(file: &FileExpectation, size: usize, open: &[Open]) -> Vec<Unit> {
    let mut units: BTreeMap<usize, Unit> = BTreeMap::new();
    for run in open {
        let mut at = run.at;
        while at < run.at + run.len {
            let number = file.segments.partition_point(|segment| segment.at <= at as u64).saturating_sub(1);
            let Some(segment) = file.segments.get(number) else { break };
            let (start, len) = unit_at(segment, size, at);
            let end = (start + len).min(run.at + run.len);
            if !segment.free {
                let unit =
                    units.entry(start).or_insert(Unit { segment: number, at: start, len, open: Vec::new() });
                unit.open.push(Open { at, origin: run.origin + (at - run.at) as u64, len: end - at });
            }
            at = end;
        }
    }
    units.into_values().collect()
}

/// Start and length of what is judged as one.
fn unit_at(segment: &Segment, size: usize, at: usize) -> (usize, usize) {
    let word = at & !7;
    let end = segment.at.saturating_add(segment.len).min(size as u64);
    let inside = word as u64 >= segment.at && word as u64 + 8 <= end;
    if segment.whole_words && inside { (word, 8) } else { (at, 1) }
}
