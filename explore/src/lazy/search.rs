//! Depth first through everything that can come of a crash point.
//!
//! What recovers runs until it takes something that is not decided. There a level is opened, and for every content
//! that the line can have, given what has been decided before, it goes on from there.

use std::collections::BTreeSet;

use persist::Partial;
use serde::{Deserialize, Serialize};

use crate::target::HostError;

/// Something that recovers, and that can go back.
pub(crate) trait Subject {
    /// What comes of a recovery.
    type Leaf;

    /// Goes on until something undecided is taken, or to the end.
    fn go_on(&mut self) -> Result<Reached<Self::Leaf>, HostError>;
    /// The content of a line, from now on.
    fn decide(&mut self, line: u64, content: &[u8; 64]);
    /// Opens a level.
    fn push(&mut self);
    /// Back to the last [`Subject::push`], whose level stays open.
    fn rewind(&mut self);
    /// Back to the last [`Subject::push`], whose level is closed.
    fn pop(&mut self);
}

/// How far a subject has come.
pub(crate) enum Reached<L> {
    /// In front of something that takes the contents of these lines.
    Undecided(Vec<u64>),
    End(L),
}

/// What is too much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Ways that a recovery can go.
    pub branches: u64,
    /// Sets of parts that are told apart to find the contents of one line.
    pub sets: usize,
}

/// How complete a search was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Searched {
    /// Ways that recovery went, each to its end.
    pub branches: u64,
    /// Why there are more; `None` when there are not.
    pub cut: Option<Cut>,
}

/// Why not everything was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cut {
    /// There are more ways than [`Limits::branches`].
    Branches,
    /// This line has too many contents to be found.
    Contents(u64),
    /// The run was interrupted.
    Interrupted,
    /// Another shard does it.
    Elsewhere,
}

impl Cut {
    /// Whether what was not tried is tried nowhere else, and will not be.
    pub fn is_bounded(self) -> bool {
        matches!(self, Cut::Branches | Cut::Contents(_))
    }
}

impl Searched {
    /// Why not everything was tried, in words.
    pub fn why_bounded(&self) -> Option<String> {
        self.cut.map(|cut| match cut {
            Cut::Branches => format!("more than {} ways to recover", self.branches),
            Cut::Contents(line) => format!("the line at {line:#x} has too many contents"),
            Cut::Interrupted => "interrupted".to_owned(),
            Cut::Elsewhere => "another shard searches it".to_owned(),
        })
    }
}

/// A line that is being decided, and what is known above it.
struct Level<'a> {
    line: u64,
    contents: Vec<[u8; 64]>,
    next: usize,
    above: Partial<'a>,
    told: BTreeSet<u64>,
}

/// Tries everything below `partial` unless it is interrupted; hands what comes of each way to `end`, with what was known then.
pub(crate) fn search<'a, S: Subject>(
    subject: &mut S,
    partial: Partial<'a>,
    limits: Limits,
    interrupted: &dyn Fn() -> bool,
    mut end: impl FnMut(&Partial<'a>, S::Leaf) -> Result<(), HostError>,
) -> Result<Searched, HostError> {
    let mut levels: Vec<Level> = Vec::new();
    let mut searched = Searched { branches: 0, cut: None };
    let mut known = partial;
    // Lines that the subject has been told since the root.
    let mut told = BTreeSet::new();
    loop {
        let ended = match subject.go_on()? {
            Reached::End(leaf) => {
                searched.branches += 1;
                end(&known, leaf)?;
                true
            }
            Reached::Undecided(lines) => match open(&lines, &known, &mut told, limits, subject)? {
                Next::Told => false,
                Next::Choose(line, contents) => {
                    subject.push();
                    let (above, told) = (known.clone(), told.clone());
                    levels.push(Level { line, contents, next: 0, above, told });
                    true
                }
                Next::TooMany(line) => {
                    searched.cut = Some(Cut::Contents(line));
                    true
                }
            },
        };
        if !ended {
            continue;
        }
        if !go_to_next(subject, &mut levels, &mut known, &mut told) {
            return Ok(searched);
        }
        let cut = if searched.branches >= limits.branches {
            Some(Cut::Branches)
        } else {
            interrupted().then_some(Cut::Interrupted)
        };
        if cut.is_some() {
            levels.iter().for_each(|_| subject.pop());
            searched.cut = cut;
            return Ok(searched);
        }
    }
}

/// What follows when some lines are asked for.
enum Next {
    /// There was only one content.
    Told,
    Choose(u64, Vec<[u8; 64]>),
    TooMany(u64),
}

/// Tells the subject what can only be one thing; the first line that can be several has to be chosen.
fn open<S: Subject>(
    lines: &[u64],
    known: &Partial,
    told: &mut BTreeSet<u64>,
    limits: Limits,
    subject: &mut S,
) -> Result<Next, HostError> {
    let mut new = false;
    for &line in lines {
        let Some(contents) = known.contents(line, limits.sets) else { return Ok(Next::TooMany(line)) };
        match contents.as_slice() {
            [] => return Err(HostError(format!("the line at {line:#x} can have no content at all"))),
            [content] => {
                new |= told.insert(line);
                subject.decide(line, content);
            }
            _ => return Ok(Next::Choose(line, contents)),
        }
    }
    if new { Ok(Next::Told) } else { Err(HostError(format!("the machine asks again for lines {lines:#x?}"))) }
}

/// Back to the last level that has a content left, and on with that. False when there is none.
fn go_to_next<'a, S: Subject>(
    subject: &mut S,
    levels: &mut Vec<Level<'a>>,
    known: &mut Partial<'a>,
    told: &mut BTreeSet<u64>,
) -> bool {
    while let Some(level) = levels.last_mut() {
        let Some(content) = level.contents.get(level.next) else {
            subject.pop();
            levels.pop();
            continue;
        };
        // A level that has just been opened is where it was.
        if level.next > 0 {
            subject.rewind();
        }
        level.next += 1;
        subject.decide(level.line, content);
        known.clone_from(&level.above);
        known.decide(level.line, *content);
        told.clone_from(&level.told);
        told.insert(level.line);
        return true;
    }
    false
}
