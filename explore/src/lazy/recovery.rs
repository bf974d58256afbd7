//! Recovery of a crash point of which nothing is decided yet: a machine that comes up on the durable content, with
//! placeholders where there may be something else, and the file system's checker on the host behind it.

use std::collections::BTreeSet;
use std::ops::Range;

use persist::CrashPoint;
use rustc_hash::FxHashMap;

use super::search::{Reached, Subject};
use crate::conversation::{Conversation, Heard, Limits, Trouble};
use crate::oracle::acknowledged::Acknowledged;
use crate::oracle::judge::Tree;
use crate::recover::{Look, Outcome, PAGE, Worker, ended, tree};
use crate::target::{Checked, HostError, Laboratory, Target};

/// What came of one way that recovery went.
pub(crate) struct Leaf {
    /// What was found; contents of files can be open in places.
    pub outcome: Outcome,
    pub warnings: Vec<String>,
    pub console: String,
}

/// A machine that recovers.
pub(crate) struct Recovery<'w, 'a, L: Laboratory> {
    worker: &'w mut Worker<'a, L>,
    /// What the checker said, by what it was given: it says the same about the same.
    checks: &'w mut Checks,
    /// What the check program is told.
    told: Acknowledged,
    now: Progress,
    levels: Vec<Progress>,
}

/// What the checker said about an image, by the hash of the image and of what is undecided in it.
pub(crate) type Checks = FxHashMap<[u8; 32], Checked>;

/// How far the recovery is, the machine itself aside.
#[derive(Clone, Default)]
struct Progress {
    look: Look,
    heard: Heard,
    /// What was observed, once the file system is unmounted again.
    found: Option<Tree>,
    /// Pages of persistent memory that are not as they were on the image, or not decided, below the open level.
    changed: BTreeSet<u64>,
}

/// Undecided bytes of the first region, behind one another as their origins are.
struct Open {
    /// Offset in the region.
    at: u64,
    len: u64,
    /// Of the first byte.
    origin: u64,
}

impl Open {
    /// The lines in which the origins of those lie that are in `range`.
    fn lines_in(&self, range: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
        let (start, end) = (self.at.max(range.start), (self.at + self.len).min(range.end));
        let origins =
            if start < end { self.origin + (start - self.at)..self.origin + (end - self.at) } else { 0..0 };
        (origins.start / 64..origins.end.div_ceil(64)).map(|line| line * 64)
    }
}

impl<'w, 'a, L: Laboratory> Recovery<'w, 'a, L> {
    /// Puts the content that is durable at the crash point on the media, and leaves open what is not.
    pub fn begin(
        worker: &'w mut Worker<'a, L>,
        checks: &'w mut Checks,
        media: &CrashPoint,
        told: &Acknowledged,
    ) -> Result<Self, HostError> {
        worker.rewind();
        for (address, line) in media.content(&media.nothing()).lines() {
            worker.target.write_pmem(*address, line);
        }
        worker.target.set_poisoned(&media.poisoned());
        let undecided = media.undecided();
        worker.target.set_undecided(&undecided)?;
        worker.target.take_console();
        let page = |(address, _): &(u64, u64)| address - address % PAGE as u64;
        let now = Progress { changed: undecided.iter().map(page).collect(), ..Progress::default() };
        Ok(Recovery { worker, checks, told: told.clone(), now, levels: Vec::new() })
    }

    fn look(&mut self) -> Result<Option<String>, Trouble> {
        let Worker { target, scenario, .. } = &mut *self.worker;
        let heard = std::mem::take(&mut self.now.heard);
        let mut conversation = Conversation::go_on(target, Limits::of_recovery(&scenario.limits), heard);
        let result = self.now.look.go_on(scenario, &self.told, &mut conversation);
        self.now.heard = conversation.heard;
        result
    }

    fn end(&mut self, outcome: Outcome) -> Reached<Leaf> {
        let console = String::from_utf8_lossy(&self.now.heard.console).into_owned();
        Reached::End(Leaf { outcome, warnings: self.now.heard.warnings(), console })
    }

    /// Lets the checker look. What it reads has to be decided; what it does not read can be anything.
    fn check(&mut self, tree: Tree) -> Result<Reached<Leaf>, HostError> {
        let mut changed = self.now.changed.clone();
        changed.extend(self.worker.target.changed());
        let pages = self.worker.pages(changed.iter().copied());
        let open: Vec<Open> = pages.iter().flat_map(|(offset, _)| self.undecided_in(*offset)).collect();
        let checked = self.checked(&pages, open.is_empty())?;
        let mut lines: Vec<u64> =
            open.iter().flat_map(|open| checked.read.iter().flat_map(|range| open.lines_in(range))).collect();
        if lines.is_empty() {
            let outcome = Outcome::checked(tree, checked.health);
            return Ok(self.end(outcome.broken_by(self.now.heard.broken.clone())));
        }
        lines.sort_unstable();
        lines.dedup();
        Ok(Reached::Undecided(lines))
    }

    /// What is undecided in a page of the first region.
    fn undecided_in(&self, page: u64) -> impl Iterator<Item = Open> + use<L> {
        let base = self.worker.target.regions().first().map_or(0, |region| region.base);
        let runs = self.worker.target.undecided_runs(base + page, PAGE);
        runs.into_iter().map(move |(at, len, origin)| Open { at: page + at as u64, len: len as u64, origin })
    }

    fn checked(&mut self, pages: &[(u64, Vec<u8>)], decided: bool) -> Result<Checked, HostError> {
        let mut hash = blake3::Hasher::new();
        for (offset, page) in pages {
            hash.update(&offset.to_le_bytes()).update(page);
        }
        hash.update(&[u8::from(decided)]);
        let key = *hash.finalize().as_bytes();
        if let Some(known) = self.checks.get(&key) {
            return Ok(known.clone());
        }
        let laboratory = self.worker.laboratory;
        let checked = if decided {
            Checked { health: laboratory.check(pages)?, read: Vec::new() }
        } else {
            laboratory.check_and_tell(pages)?
        };
        self.checks.insert(key, checked.clone());
        Ok(checked)
    }
}

impl<L: Laboratory> Subject for Recovery<'_, '_, L> {
    type Leaf = Leaf;

    fn go_on(&mut self) -> Result<Reached<Leaf>, HostError> {
        if self.now.found.is_none() {
            match self.look() {
                Err(Trouble::Undecided(lines)) => return Ok(Reached::Undecided(lines)),
                looked => match ended(looked) {
                    Ok(()) => {
                        let poisoned = self.worker.target.is_poisoned();
                        self.now.found = Some(tree(std::mem::take(&mut self.now.heard.observed), poisoned));
                    }
                    Err(outcome) => return Ok(self.end(outcome)),
                },
            }
        }
        let found = self.now.found.clone().unwrap_or_default();
        self.check(found)
    }

    fn decide(&mut self, line: u64, content: &[u8; 64]) {
        self.worker.target.decide(line, u64::MAX, content);
    }

    fn push(&mut self) {
        self.now.changed.extend(self.worker.target.changed());
        self.worker.target.push();
        self.levels.push(self.now.clone());
    }

    fn rewind(&mut self) {
        self.worker.target.rewind();
        self.now.clone_from(self.levels.last().expect("a level is open"));
    }

    fn pop(&mut self) {
        self.worker.target.pop();
        self.now = self.levels.pop().expect("a level is open");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_what_was_read_are_those_of_its_origins_and_no_others() {
        let open = Open { at: 0x1010, len: 0x60, origin: 0x8_0030 };
        let lines = |range: Range<u64>| open.lines_in(&range).collect::<Vec<_>>();
        assert!(lines(0..0x1010).is_empty());
        assert_eq!(lines(0..0x1011), [0x8_0000]);
        assert_eq!(lines(0x1000..0x1020), [0x8_0000]);
        assert_eq!(lines(0x1020..0x1021), [0x8_0040]);
        assert_eq!(lines(0..0x2000), [0x8_0000, 0x8_0040, 0x8_0080]);
        assert_eq!(lines(0x106f..0x1070), [0x8_0080]);
        assert!(lines(0x1070..0x2000).is_empty());
    }
}
