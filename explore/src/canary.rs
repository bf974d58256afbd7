//! The canary: a recovered state with one promised byte flipped must come out `lost`, or the run proves nothing.

use std::fmt;

use persist::{Choice, Overlay};

use crate::checking;
use crate::oracle::expectation::Expectation;
use crate::oracle::judge::{Entry, Fault, Tree};
use crate::points::Point;
use crate::recover::{Outcome, Worker};
use crate::run::{Judged, Run, State};
use crate::target::{HostError, Laboratory, Target};
use crate::verdict::Class;

/// What the canary showed.
pub(crate) enum Canary {
    Seen(String),
    NotSeen(String),
    /// Where not everything was done, there may be no state for it.
    NotTried,
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Canary::Seen(how) => write!(f, "seen: {how}"),
            Canary::NotSeen(why) => write!(f, "NOT SEEN: {why}"),
            Canary::NotTried => f.write_str("not tried: this is not the whole run"),
        }
    }
}

/// The smallest piece of a file that block devices keep together, bytes.
const SECTOR: usize = 512;

/// How many states are tried before the canary gives up.
const ATTEMPTS: usize = 4;

/// Tells the check program, on media on which nothing of it can be, of everything that was acknowledged later.
fn tell_too_much<L: Laboratory>(run: &Run<L>, worker: &mut Worker<L>) -> Result<Option<Canary>, HostError> {
    let points = || run.points.points.iter().enumerate();
    let by_told = |(_, point): &(usize, &Point)| point.told().count();
    let (Some((_, first)), Some((last, at_last))) =
        (points().min_by_key(by_told), points().max_by_key(by_told))
    else {
        return Ok(None);
    };
    let told = at_last.told();
    if told.count() == 0 {
        return Ok(None);
    }
    let (content, had) = match first.told().count() < told.count() {
        true => (first.media.content(&first.media.nothing()), first.told().count()),
        // Nothing was acknowledged on the empty file system.
        false => (Overlay::default(), 0),
    };
    let outcome = worker.recover(&content, told, &[], None)?.outcome;
    let what = format!("{} acknowledgements where there were {had}", told.count());
    let broken = run.faults(&outcome, last).iter().any(|fault| fault.subject == checking::SUBJECT);
    Ok(Some(if broken {
        Canary::Seen(format!("the check program misses something when told of {what}"))
    } else {
        Canary::NotSeen(format!("the check program misses nothing when told of {what}"))
    }))
}

/// Flips one promised byte on the media of a state that was fine.
pub(crate) fn try_one<L: Laboratory>(
    run: &Run<L>,
    states: &[State],
    judged: &[Judged],
) -> Result<Canary, HostError> {
    if run.is_partial() {
        return Ok(Canary::NotTried);
    }
    let fine = places(run, states, judged);
    let mut worker = Worker::new(run.scenario, run.laboratory)?;
    let checked = match run.scenario.check {
        Some(_) => tell_too_much(run, &mut worker)?,
        None => None,
    };
    if let Some(Canary::NotSeen(why)) = checked {
        return Ok(Canary::NotSeen(why));
    }
    let mut last = None;
    for &(point, choice) in fine.iter().rev().take(ATTEMPTS) {
        let canary = flip_content(run, &mut worker, point, choice)?;
        let canary = match canary {
            Some(canary) => Some(canary),
            None => drop_name(run, &mut worker, point, choice)?,
        };
        match canary {
            Some(Canary::Seen(how)) => return Ok(Canary::Seen(how)),
            other => last = other.or(last),
        }
    }
    let lost = judged
        .iter()
        .flat_map(|judged| judged.faults.iter().flatten())
        .any(|fault| fault.class == Class::Lost && fault.promise.is_some());
    match last {
        Some(not_seen) => Ok(not_seen),
        // The steps themselves promised nothing that could be flipped.
        None if checked.is_some() => Ok(checked.unwrap_or(Canary::NotTried)),
        None if lost => {
            Ok(Canary::Seen("a broken promise was found, and no state in which it was kept".to_owned()))
        }
        None if all_are_damaged(&fine, states, judged) => Ok(Canary::Seen(
            "the file system is damaged wherever something is promised, and that was found".to_owned(),
        )),
        None => Ok(Canary::NotSeen("there is no state in which something promised was found".to_owned())),
    }
}

/// Judgements in which a promise held and was kept, by crash point.
fn places<'a, L: Laboratory>(
    run: &Run<L>,
    states: &'a [State],
    judged: &[Judged],
) -> Vec<(usize, &'a Choice)> {
    let mut places: Vec<(usize, &Choice)> = Vec::new();
    for (state, judged) in states.iter().zip(judged).filter(|(_, judged)| judged.unknown.is_none()) {
        for ((point, choice), faults) in state.at.iter().zip(&judged.faults) {
            let lost = faults.iter().any(|fault| fault.class == Class::Lost);
            if !lost && !run.points.points[*point].expectation.promises.is_empty() {
                places.push((*point, choice));
            }
        }
    }
    places.sort();
    places
}

/// Whether the file system was found damaged at all of these places, of which there are some.
fn all_are_damaged(places: &[(usize, &Choice)], states: &[State], judged: &[Judged]) -> bool {
    let damaged = |faults: &[Fault]| faults.iter().any(|fault| fault.class == Class::Corrupt);
    let mut whole = states.iter().zip(judged).flat_map(|(state, judged)| state.at.iter().zip(&judged.faults));
    !places.is_empty()
        && !whole.any(|((point, choice), faults)| !damaged(faults) && places.contains(&(*point, choice)))
}

/// A promised byte that is not zero: (path, offset).
fn promised_byte(expectation: &Expectation, tree: &Tree) -> Option<(String, u64)> {
    for group in &expectation.names {
        for state in &group.states[group.first_allowed..] {
            for (path, file) in group.paths.iter().zip(state) {
                let (Some(file), Some(entry)) = (file, tree.0.get(path)) else { continue };
                let segments = &expectation.files[file.0].segments;
                let promised = segments.iter().find(|segment| {
                    segment.promise.is_some()
                        && !segment.free
                        && segment.allowed.len() == 1
                        && segment.allowed[0].word(segment.at) != 0
                        && entry.can_be_read(segment.at + segment.len / 2)
                });
                if let Some(segment) = promised {
                    return Some((path.clone(), segment.at + segment.len / 2));
                }
            }
        }
    }
    None
}

fn flip_content<L: Laboratory>(
    run: &Run<L>,
    worker: &mut Worker<L>,
    point: usize,
    choice: &Choice,
) -> Result<Option<Canary>, HostError> {
    let at = &run.points.points[point];
    let content = at.media.content(choice);
    let Outcome::Found(tree) = worker.recover(&content, at.told(), &[], None)?.outcome else {
        return Ok(None);
    };
    let Some((path, offset)) = promised_byte(&at.expectation, &tree) else { return Ok(None) };
    let located = worker.recover(&content, at.told(), &[], Some((&path, offset)))?.located;
    let places = match located.filter(|address| is_persistent(worker, *address)) {
        Some(address) => vec![address],
        // What is mapped is a copy in the page cache.
        None => copies_on_media(worker, &content, &tree, (&path, offset)),
    };
    if places.is_empty() {
        return Ok(Some(Canary::NotSeen(format!("byte {offset:#x} of {path} is not in persistent memory"))));
    }
    let flip = |address: &u64| {
        let line = content.line(*address).copied().unwrap_or_else(|| run.model.media.line(address & !63));
        (*address, line[(address % 64) as usize] ^ 0xff)
    };
    let flipped: Vec<(u64, u8)> = places.iter().map(flip).collect();
    let outcome = worker.recover(&content, at.told(), &flipped, None)?.outcome;
    let lost =
        run.faults(&outcome, point).iter().any(|fault| fault.class == Class::Lost && fault.promise.is_some());
    let what = format!("byte {offset:#x} of {path} flipped on the media");
    Ok(Some(if lost {
        Canary::Seen(format!("{what} is lost"))
    } else {
        Canary::NotSeen(format!("{what} was not called lost"))
    }))
}

fn is_persistent<L: Laboratory>(worker: &Worker<L>, address: u64) -> bool {
    worker.target.regions().iter().any(|region| (region.base..region.base + region.size).contains(&address))
}

/// Where the byte of a file is on the media of the first region: in every sector that holds what its sector of the file
/// does.
fn copies_on_media<L: Laboratory>(
    worker: &mut Worker<L>,
    content: &Overlay,
    tree: &Tree,
    (path, offset): (&str, u64),
) -> Vec<u64> {
    let Some(Entry::File { content: file, .. }) = tree.0.get(path) else { return Vec::new() };
    let start = offset as usize / SECTOR * SECTOR;
    // The kernel writes zeroes behind the end of a file.
    let mut wanted = file.get(start..).unwrap_or_default().to_vec();
    wanted.resize(SECTOR, 0);
    worker.put(content);
    let Some(region) = worker.target.regions().first().copied() else { return Vec::new() };
    let mut media = vec![0; region.size as usize];
    worker.target.read_pmem(region.base, &mut media);
    let sectors = (region.base..).step_by(SECTOR).zip(media.chunks_exact(SECTOR));
    let same = sectors.filter(|(_, sector)| *sector == wanted);
    same.map(|(address, _)| address + offset % SECTOR as u64).collect()
}

/// Where only names are promised: takes a promised name away from what was found.
fn drop_name<L: Laboratory>(
    run: &Run<L>,
    worker: &mut Worker<L>,
    point: usize,
    choice: &Choice,
) -> Result<Option<Canary>, HostError> {
    let at = &run.points.points[point];
    let Outcome::Found(tree) = worker.recover(&at.media.content(choice), at.told(), &[], None)?.outcome
    else {
        return Ok(None);
    };
    let promised = at.expectation.names.iter().filter(|group| group.promise.is_some());
    let Some(path) = promised.flat_map(|group| &group.paths).find(|path| tree.0.contains_key(*path)) else {
        return Ok(None);
    };
    let mut without = tree.clone();
    without.0.remove(path);
    let faults = run.faults(&Outcome::Found(without), point);
    let lost = faults.iter().any(|fault| fault.class == Class::Lost);
    Ok(Some(if lost {
        Canary::Seen(format!("{path} taken away is lost"))
    } else {
        Canary::NotSeen(format!("{path} taken away was not called lost"))
    }))
}
