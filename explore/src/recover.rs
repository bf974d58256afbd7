//! Recovery: the power comes back with some content on the media, and what is found is judged.

use std::collections::BTreeMap;

use guest_protocol::{Command, Reply};
use persist::Overlay;

use crate::checking;
use crate::conversation::{Conversation, Heard, Limits, Trouble, Wanted};
use crate::oracle::acknowledged::Acknowledged;
use crate::oracle::expectation::Expectation;
use crate::oracle::judge::{Entry, Fault, Tree, judge};
use crate::record::prepared;
use crate::scenario::Scenario;
use crate::target::{Health, HostError, Laboratory, Target};
use crate::verdict::Class;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// A machine that recovers one crash state after the other.
pub(crate) struct Worker<'a, L: Laboratory> {
    pub laboratory: &'a L,
    pub scenario: &'a Scenario,
    pub target: L::Target,
}

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub outcome: Outcome,
    pub warnings: Vec<String>,
    pub console: String,
    /// Where the wanted byte lies in persistent memory.
    pub located: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The file system came back, and this is in it.
    Found(Tree),
    /// The device or the file system did not come back.
    Unmountable(String),
    /// It came back, but its checker finds damage.
    Damaged(Tree, String),
    /// It came back so, but the check program finds something wrong.
    Broken(Box<Outcome>, Broken),
    /// It did not come back, or came back damaged, only because one kernel copy is there in part.
    Torn(Box<Outcome>),
    Crashed(String),
    /// Nothing is known.
    Unknown(String),
}

/// What a check program says is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub class: Class,
    pub text: String,
}

impl<'a, L: Laboratory> Worker<'a, L> {
    pub fn new(scenario: &'a Scenario, laboratory: &'a L) -> Result<Self, HostError> {
        let mut target = prepared(laboratory)?;
        target.set_tracing(false);
        target.push();
        Ok(Worker { laboratory, scenario, target })
    }

    /// Goes back to where every recovery begins. Returns how many pages that took.
    pub fn rewind(&mut self) -> usize {
        self.target.rewind()
    }

    /// Puts the content on the media and lets the guest look at it. The check program is told what was acknowledged.
    pub fn recover(
        &mut self,
        content: &Overlay,
        told: &Acknowledged,
        changed: &[(u64, u8)],
        wanted: Wanted,
    ) -> Result<Recovered, HostError> {
        self.put(content);
        for (address, byte) in changed {
            self.target.write_pmem(*address, &[*byte]);
        }
        let limits = Limits::of_recovery(&self.scenario.limits);
        let mut conversation = Conversation::new(&mut self.target, limits).locating(wanted);
        let result = look(self.scenario, told, &mut conversation);
        let heard = conversation.heard;
        self.judge(result, heard)
    }

    /// Goes back to where every recovery begins, with this on the media.
    pub fn put(&mut self, content: &Overlay) {
        self.target.rewind();
        for (address, line) in content.lines() {
            self.target.write_pmem(*address, line);
        }
        self.target.set_poisoned(content.poisoned());
        self.target.take_console();
    }

    /// What was found, when the guest has looked.
    pub fn judge(
        &mut self,
        looked: Result<Option<String>, Trouble>,
        heard: Heard,
    ) -> Result<Recovered, HostError> {
        let warnings = heard.warnings();
        let console = String::from_utf8_lossy(&heard.console).into_owned();
        let outcome = match ended(looked) {
            Ok(()) => self.check(tree(heard.observed, self.target.is_poisoned()))?.broken_by(heard.broken),
            Err(outcome) => outcome,
        };
        Ok(Recovered { outcome, warnings, console, located: heard.located })
    }

    /// The pages in which the first region differs from its image now, by their offset.
    fn changed(&self) -> Vec<(u64, Vec<u8>)> {
        self.pages(self.target.changed())
    }

    /// These pages, as far as they lie in the first region, by their offset there.
    pub fn pages(&self, pages: impl IntoIterator<Item = u64>) -> Vec<(u64, Vec<u8>)> {
        let Some(region) = self.target.regions().first().copied() else { return Vec::new() };
        let pages = pages.into_iter();
        let offsets =
            pages.filter_map(|page| page.checked_sub(region.base).filter(|offset| *offset < region.size));
        let page_at = |offset| {
            let mut page = vec![0; PAGE];
            self.target.read_pmem(region.base + offset, &mut page);
            (offset, page)
        };
        offsets.map(page_at).collect()
    }

    fn check(&self, tree: Tree) -> Result<Outcome, HostError> {
        Ok(Outcome::checked(tree, self.laboratory.check(&self.changed())?))
    }
}

/// Attach, mount, observe, check, unmount: how far that is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// Commands that are done.
    done: usize,
    waits: Waits,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Default)]
enum Waits {
    #[default]
    Nothing,
    /// The agent asks for a command.
    Next,
    /// The command is done.
    Reply,
}

impl Look {
    /// Goes on to the end. `Some` when the device or the file system does not come back, and why. Behind
    /// [`Trouble::Undecided`] it can go on once more.
    pub fn go_on<T: Target>(
        &mut self,
        scenario: &Scenario,
        told: &Acknowledged,
        conversation: &mut Conversation<T>,
    ) -> Result<Option<String>, Trouble> {
        loop {
            match self.next(scenario, told, conversation)? {
                Looked::Done(_) => (),
                Looked::Failed(why) => return Ok(Some(why)),
                Looked::End => return Ok(None),
            }
        }
    }

    /// Goes on to the end of the command under way. Behind [`Trouble::Undecided`] and [`Trouble::Event`] it can go on
    /// once more.
    pub fn next<T: Target>(
        &mut self,
        scenario: &Scenario,
        told: &Acknowledged,
        conversation: &mut Conversation<T>,
    ) -> Result<Looked, Trouble> {
        let filesystem = &scenario.filesystem;
        let mount =
            Command::Mount { region: 0, fs: filesystem.kind.clone(), options: filesystem.mount.clone() };
        let check =
            scenario.check.as_ref().map(|check| ("checking", "checking", checking::command(check, told)));
        let mut commands = [
            Some(("attaching", "the device does not come back", Command::Attach { region: 0 })),
            Some(("mounting", "the file system does not mount", mount)),
            Some(("observing", "observing", Command::ObserveTree)),
            check,
            Some(("unmounting", "unmounting", Command::Umount)),
        ]
        .into_iter()
        .flatten();
        let Some((doing, wrong, command)) = commands.nth(self.done) else { return Ok(Looked::End) };
        loop {
            match self.waits {
                Waits::Nothing => {
                    conversation.target.answer(0);
                    self.waits = Waits::Next;
                }
                Waits::Next => {
                    let buffer = conversation.wait_for_next()?;
                    conversation.send(buffer, &command)?;
                    self.waits = Waits::Reply;
                }
                Waits::Reply => {
                    let reply = conversation.wait_for_reply().map_err(|trouble| named(&command, trouble))?;
                    if let (Some(check), Reply::Checked { status, output }) = (&scenario.check, &reply) {
                        conversation.heard.broken = checking::judge(check, *status, output)?;
                    } else if let Some(why) = judge_reply(wrong, &command, reply)? {
                        return Ok(Looked::Failed(why));
                    }
                    *self = Look { done: self.done + 1, waits: Waits::Nothing };
                    return Ok(Looked::Done(doing));
                }
            }
        }
    }
}

/// What came of one command.
pub(crate) enum Looked {
    /// It is done: its name.
    Done(&'static str),
    /// The device or the file system does not come back, and why.
    Failed(String),
    /// There is none left.
    End,
}

/// A program that does not come to its end is no crash of the kernel: says so.
fn named(command: &Command, trouble: Trouble) -> Trouble {
    match (command, trouble) {
        (Command::Check { .. }, Trouble::Crash(why)) => {
            Trouble::Crash(format!("{}{why}", checking::MEANWHILE))
        }
        (_, trouble) => trouble,
    }
}

/// `Some` when the command shows that the device or the file system does not come back, and why.
fn judge_reply(what: &str, command: &Command, reply: Reply) -> Result<Option<String>, Trouble> {
    match (reply, command) {
        (Reply::Ok, _) => Ok(None),
        (Reply::Errno { call, errno }, Command::Attach { .. } | Command::Mount { .. }) => {
            Ok(Some(format!("{what}: {call} returns errno {errno}")))
        }
        (Reply::Signal { signal }, Command::ObserveTree) => {
            Ok(Some(format!("reading the files ends with signal {signal}")))
        }
        (other, _) => Err(Trouble::Harness(format!("{what}: {other:?}"))),
    }
}

/// Attach, mount, observe, check, unmount. `Some` when the device or the file system does not come back, and why.
pub(crate) fn look<T: Target>(
    scenario: &Scenario,
    told: &Acknowledged,
    conversation: &mut Conversation<T>,
) -> Result<Option<String>, Trouble> {
    Look::default().go_on(scenario, told, conversation)
}

/// What came of looking; `Ok` when the file system came back and has yet to be checked.
pub(crate) fn ended(looked: Result<Option<String>, Trouble>) -> Result<(), Outcome> {
    Err(match looked {
        Ok(None) => return Ok(()),
        Ok(Some(why)) => Outcome::Unmountable(why),
        Err(Trouble::Crash(why)) => Outcome::Crashed(why),
        Err(Trouble::Harness(why)) => Outcome::Unknown(why),
        Err(Trouble::Event(seq)) => {
            Outcome::Unknown(format!("stopped at event {seq}, which nobody asked for"))
        }
        Err(Trouble::Undecided(lines)) => {
            Outcome::Unknown(format!("lines {lines:#x?} are undecided, which nobody asked for"))
        }
    })
}

/// What was observed. That a file cannot be read in places has to have a reason: lines that the media has lost.
pub(crate) fn tree(observed: Vec<(String, Option<Entry>)>, poisoned: bool) -> Tree {
    // EIO, as asm-generic/errno-base.h has it.
    const EIO: i32 = 5;
    let entry = |entry| match entry {
        Entry::File { unreadable, .. } if !poisoned && !unreadable.is_empty() => {
            Entry::Unreadable { call: "load".to_owned(), errno: EIO }
        }
        entry => entry,
    };
    let there: BTreeMap<String, Entry> =
        observed.into_iter().filter_map(|(path, found)| Some((path, entry(found?)))).collect();
    Tree(there)
}

impl Outcome {
    /// Of a file system that came back, once its checker has looked at it.
    pub fn checked(tree: Tree, health: Health) -> Outcome {
        match health {
            Health::Clean => Outcome::Found(tree),
            Health::Damaged(why) => Outcome::Damaged(tree, why),
            Health::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// The same, and what the check program says of it.
    pub fn broken_by(self, broken: Option<Broken>) -> Outcome {
        match (self, broken) {
            // What is not known of it is more than what is.
            (Outcome::Unknown(why), _) => Outcome::Unknown(why),
            (outcome, Some(broken)) => Outcome::Broken(Box::new(outcome), broken),
            (outcome, None) => outcome,
        }
    }

    /// The same for equal outcomes only.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        hash.update(self.words().as_bytes());
        if let Outcome::Broken(outcome, broken) = self {
            hash.update(format!("{broken:?}").as_bytes()).update(&outcome.digest());
        }
        for (path, entry) in self.tree().iter().flat_map(|tree| &tree.0) {
            hash.update(&(path.len() as u64).to_le_bytes()).update(path.as_bytes());
            match entry {
                Entry::File { size, allocated, attributes, content, open, unreadable } => {
                    let rest = format!(
                        "{size} {allocated} {attributes:?} {open:?} {unreadable:?} {}",
                        content.len()
                    );
                    hash.update(rest.as_bytes()).update(content);
                }
                other => {
                    hash.update(format!("{other:?}").as_bytes());
                }
            }
        }
        *hash.finalize().as_bytes()
    }

    /// What is in the file system, if it came back.
    pub fn tree(&self) -> Option<&Tree> {
        match self {
            Outcome::Found(tree) | Outcome::Damaged(tree, _) => Some(tree),
            Outcome::Torn(outcome) | Outcome::Broken(outcome, _) => outcome.tree(),
            Outcome::Unmountable(_) | Outcome::Crashed(_) | Outcome::Unknown(_) => None,
        }
    }

    /// The same with another tree, if it has one.
    pub fn with_tree(&self, tree: Tree) -> Outcome {
        match self {
            Outcome::Found(_) => Outcome::Found(tree),
            Outcome::Damaged(_, why) => Outcome::Damaged(tree, why.clone()),
            Outcome::Torn(outcome) => Outcome::Torn(Box::new(outcome.with_tree(tree))),
            Outcome::Broken(outcome, broken) => {
                Outcome::Broken(Box::new(outcome.with_tree(tree)), broken.clone())
            }
            Outcome::Unmountable(_) | Outcome::Crashed(_) | Outcome::Unknown(_) => self.clone(),
        }
    }

    /// Everything that must not be.
    pub fn faults(&self, expectation: &Expectation) -> Vec<Fault> {
        let fault = |class, subject: &str, text: &String| {
            vec![Fault { class, promise: None, subject: subject.to_owned(), range: None, text: text.clone() }]
        };
        match self {
            Outcome::Found(tree) => judge(expectation, tree),
            Outcome::Unmountable(why) => fault(Class::Corrupt, "mount", why),
            Outcome::Damaged(tree, why) => {
                fault(Class::Corrupt, "check", why).into_iter().chain(judge(expectation, tree)).collect()
            }
            Outcome::Crashed(why) => fault(Class::GuestCrash, "guest", why),
            Outcome::Torn(outcome) => {
                let mut faults = outcome.faults(expectation);
                faults
                    .iter_mut()
                    .filter(|fault| fault.class == Class::Corrupt)
                    .for_each(|fault| fault.class = Class::TornSector);
                faults
            }
            Outcome::Broken(outcome, broken) => {
                let found = fault(broken.class, checking::SUBJECT, &broken.text);
                found.into_iter().chain(outcome.faults(expectation)).collect()
            }
            Outcome::Unknown(_) => Vec::new(),
        }
    }

    /// Names, kinds, sizes and allocated bytes: what tells whether a change of metadata is there.
    pub fn shape(&self) -> Option<Shape> {
        self.tree().map(shape)
    }

    /// Whether the file system is damaged.
    pub fn is_corrupt(&self) -> bool {
        match self {
            Outcome::Unmountable(_) | Outcome::Damaged(..) => true,
            Outcome::Broken(outcome, _) => outcome.is_corrupt(),
            _ => false,
        }
    }

    /// Why there is nothing to judge, in words.
    pub fn words(&self) -> &str {
        match self {
            Outcome::Found(_) => "the file system came back",
            Outcome::Unmountable(why)
            | Outcome::Damaged(_, why)
            | Outcome::Crashed(why)
            | Outcome::Unknown(why) => why,
            Outcome::Broken(_, broken) => &broken.text,
            Outcome::Torn(outcome) => outcome.words(),
        }
    }
}

/// Path, size and allocated bytes of everything.
pub(crate) type Shape = Vec<(String, u64, u64)>;

fn shape(tree: &Tree) -> Shape {
    let entry = |(path, entry): (&String, &Entry)| match entry {
        Entry::File { size, allocated, .. } => (path.clone(), *size, *allocated),
        _ => (path.clone(), 0, 0),
    };
    tree.0.iter().map(entry).collect()
}
