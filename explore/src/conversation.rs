//! Talking to the agent: one command at a time, and everything that can go wrong meanwhile.

use guest_protocol::{Command, Found, MAX_ACKNOWLEDGEMENT, MAX_MESSAGE, Observation, Reply, call};

use crate::events::Events;
use crate::oracle::acknowledged::Acknowledgement;
use crate::oracle::judge::{Entry, Open};
use crate::recover::Broken;
use crate::scenario::LimitOptions;
use crate::target::{Stop, Target};

/// Largest file whose content is read back, in bytes.
const LARGEST_FILE: u64 = 1 << 30;

/// What ends a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The guest crashed, hung or flooded its console.
    Crash(String),
    /// The simulator or the agent is at fault: nothing is known.
    Harness(String),
    /// Right behind the event that was to be reached.
    Event(u64),
    /// In front of something that takes the content of these lines of persistent memory, which is not decided yet.
    /// Once it is, what was being waited for can be waited for again.
    Undecided(Vec<u64>),
}

/// When a guest counts as hung or flooding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Instructions for one command.
    pub instructions: u64,
    /// Bytes of console output for one conversation.
    pub console: usize,
}

impl Limits {
    const RECORD: Limits = Limits { instructions: 20_000_000_000, console: 4 << 20 };
    const RECOVER: Limits = Limits { instructions: 2_000_000_000, console: 1 << 20 };

    /// While the scenario is recorded.
    pub fn of_recording(options: &LimitOptions) -> Limits {
        Limits::RECORD.changed_by(options)
    }

    /// While a crash state is recovered.
    pub fn of_recovery(options: &LimitOptions) -> Limits {
        Limits::RECOVER.changed_by(options)
    }

    fn changed_by(self, options: &LimitOptions) -> Limits {
        let console = options.console.map(|console| usize::try_from(console.0).unwrap_or(usize::MAX));
        Limits {
            instructions: options.instructions.unwrap_or(self.instructions),
            console: console.unwrap_or(self.console),
        }
    }
}

/// Instructions between two looks at the console, and at the events: what happens in between is in memory as it is.
const SLICE: u64 = 1_000_000;
/// Instructions that a line for the log counts as, so that a guest that does nothing else comes to an end.
const LOG_COST: u64 = 100_000;
/// Bytes that the observations of one conversation may take on the host, contents included.
const MOST_OBSERVED: u64 = 4 << 30;
/// What an observation counts beside its message and content: a quarter of a million are enough for any tree.
const OBSERVATION: u64 = 16 << 10;

/// Bytes that the acknowledgements of one recording may take: all have to fit in one message to the agent.
const MOST_ACKNOWLEDGED: usize = MAX_MESSAGE / 2;

/// What of the guest-physical memory behind an observation is wanted: where this byte of this file lies.
pub(crate) type Wanted<'a> = Option<(&'a str, u64)>;

/// What a conversation has come to so far, the machine itself aside.
#[derive(Clone, Default)]
pub(crate) struct Heard {
    /// Everything the console said.
    pub console: Vec<u8>,
    /// Everything that was observed, in order.
    pub observed: Vec<(String, Option<Entry>)>,
    /// Where the wanted byte lies.
    pub located: Option<u64>,
    /// What programs acknowledged, in order.
    pub acknowledged: Vec<Acknowledgement>,
    /// What the check program says is wrong.
    pub broken: Option<Broken>,
    acknowledged_bytes: usize,
    /// Bytes that all observations took.
    observed_bytes: u64,
    /// Instructions left for what is waited for, and of them in this slice, when something undecided came between.
    left: Option<(u64, u64)>,
    /// The last call.
    call: Option<Call>,
    /// Whether it has to be answered still, for its message was not decided.
    again: bool,
}

impl Heard {
    /// Lines of the console that are warnings of the kernel or errors of the file system.
    pub fn warnings(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.console);
        let lines = text.lines().filter(|line| is_warning(line));
        lines.map(|line| without_time(line).to_owned()).collect()
    }
}

/// A call of the control port: number, first argument, second.
type Call = (u32, u64, u64);

/// A machine whose agent waits for commands, stopped in `SNAPSHOT_HERE` or `DONE`.
pub(crate) struct Conversation<'a, T> {
    pub target: &'a mut T,
    pub limits: Limits,
    pub heard: Heard,
    pub events: Taken,
    wanted: Wanted<'a>,
}

/// What becomes of the events of a conversation.
pub(crate) enum Taken {
    /// They stay with the machine.
    No,
    /// They are forgotten.
    Forgotten,
    /// They are kept.
    Kept(Events),
}

impl Taken {
    /// Takes what the machine has recorded since the last time.
    pub fn from<T: Target>(&mut self, target: &mut T) -> Result<(), Trouble> {
        match self {
            Taken::No => Ok(()),
            Taken::Forgotten => {
                target.take_events();
                Ok(())
            }
            Taken::Kept(events) => events.extend(target.take_events()).map_err(|why| Trouble::Harness(why.0)),
        }
    }

    /// What was kept.
    pub fn kept(self) -> Option<Events> {
        match self {
            Taken::No | Taken::Forgotten => None,
            Taken::Kept(events) => Some(events),
        }
    }
}

impl<'a, T: Target> Conversation<'a, T> {
    pub fn new(target: &'a mut T, limits: Limits) -> Self {
        Conversation { target, limits, heard: Heard::default(), events: Taken::No, wanted: None }
    }

    /// Goes on with one that ended in [`Trouble::Undecided`].
    pub fn go_on(target: &'a mut T, limits: Limits, heard: Heard) -> Self {
        Conversation { target, limits, heard, events: Taken::No, wanted: None }
    }

    /// Wants to know from now on where this byte of this file lies, and forgets what was observed.
    pub fn locate(&mut self, wanted: Wanted<'a>) {
        self.wanted = wanted;
        self.heard.located = None;
        self.heard.observed.clear();
        self.heard.observed_bytes = 0;
    }

    pub fn locating(mut self, wanted: Wanted<'a>) -> Self {
        self.wanted = wanted;
        self
    }

    /// Brings the agent to where it asks for a command.
    pub fn reach_next(&mut self) -> Result<u64, Trouble> {
        self.target.answer(0);
        self.wait_for_next()
    }

    /// Waits until the agent asks for a command.
    pub fn wait_for_next(&mut self) -> Result<u64, Trouble> {
        match self.run()? {
            (call::NEXT, buffer, _) => Ok(buffer),
            (other, ..) => {
                Err(Trouble::Harness(format!("the agent made call {other} instead of asking for a command")))
            }
        }
    }

    /// Has the command executed.
    pub fn perform(&mut self, command: &Command) -> Result<Reply, Trouble> {
        let buffer = self.reach_next()?;
        self.hand_over(buffer, command)
    }

    /// Gives the agent its command and waits until it is done.
    pub fn hand_over(&mut self, buffer: u64, command: &Command) -> Result<Reply, Trouble> {
        self.send(buffer, command)?;
        self.wait_for_reply()
    }

    /// Gives the agent its command.
    pub fn send(&mut self, buffer: u64, command: &Command) -> Result<(), Trouble> {
        let message = postcard::to_stdvec(command)
            .map_err(|why| Trouble::Harness(format!("a command cannot be encoded: {why}")))?;
        let room = self.heard.call.map_or(0, |(_, _, len)| len).min(MAX_MESSAGE as u64);
        if message.len() as u64 > room || !self.target.write_guest(buffer, &message) {
            return Err(Trouble::Harness("the agent has no room for a command".to_owned()));
        }
        self.target.answer(message.len() as i64);
        Ok(())
    }

    /// Waits until the command under way is done.
    pub fn wait_for_reply(&mut self) -> Result<Reply, Trouble> {
        loop {
            match self.run()? {
                (call::DONE, address, len) => {
                    let message = self.message(address, len)?;
                    return postcard::from_bytes(&message)
                        .map_err(|why| Trouble::Harness(format!("a reply cannot be read: {why}")));
                }
                (call::OBSERVE, address, len) => self.observe(address, len)?,
                (other, ..) => {
                    return Err(Trouble::Harness(format!(
                        "the agent made call {other} in the middle of a command"
                    )));
                }
            }
            self.target.answer(0);
        }
    }

    /// Runs to the next call that is not for the log.
    fn run(&mut self) -> Result<Call, Trouble> {
        let all = self.limits.instructions;
        let (mut left, mut slice) = self.heard.left.take().unwrap_or((all, all.min(SLICE)));
        loop {
            let stop = match self.heard.call.filter(|_| std::mem::take(&mut self.heard.again)) {
                Some((number, first, second)) => Stop::Call { number, first, second },
                None => self.run_slice(left, &mut slice)?,
            };
            match stop {
                Stop::Call { number, first, second } => {
                    self.heard.call = Some((number, first, second));
                    if ![call::LOG, call::ACKNOWLEDGE].contains(&number) {
                        return Ok((number, first, second));
                    }
                    let line =
                        self.message(first, second).inspect_err(|_| self.heard.left = Some((left, slice)))?;
                    if number == call::ACKNOWLEDGE {
                        self.acknowledged(&line)?;
                    } else {
                        self.heard.console.extend(line);
                        self.heard.console.push(b'\n');
                    }
                    self.target.answer(0);
                    left = left.saturating_sub(LOG_COST);
                    slice = left.min(SLICE);
                    if left == 0 {
                        return Err(Trouble::Crash(
                            "it does nothing but write to the log, or acknowledge".to_owned(),
                        ));
                    }
                }
                Stop::Budget => {
                    left -= left.min(SLICE);
                    slice = left.min(SLICE);
                    if left == 0 {
                        return Err(Trouble::Crash(format!("no progress within {all} instructions")));
                    }
                }
                Stop::Ended(how) => return Err(Trouble::Crash(how.to_owned())),
                Stop::Event(seq) => return Err(Trouble::Event(seq)),
                Stop::Undecided { lines } => return Err(Trouble::Undecided(lines)),
                Stop::Unsupported(what) => {
                    return Err(Trouble::Harness(format!(
                        "the machine does not offer what the guest did: {what}"
                    )));
                }
            }
        }
    }

    fn acknowledged(&mut self, line: &[u8]) -> Result<(), Trouble> {
        let line = &line[..line.len().min(MAX_ACKNOWLEDGEMENT)];
        // A line each is what the check program gets.
        let text = String::from_utf8_lossy(line).replace(['\n', '\0'], " ");
        self.heard.acknowledged_bytes += text.len() + size_of::<Acknowledgement>();
        if self.heard.acknowledged_bytes > MOST_ACKNOWLEDGED {
            let what = format!("acknowledgements of more than {MOST_ACKNOWLEDGED} bytes");
            return Err(Trouble::Harness(what));
        }
        self.heard.acknowledged.push(Acknowledgement { events: self.target.event_count(), text });
        Ok(())
    }

    /// Runs for what is left of a slice, and hears what the console says.
    fn run_slice(&mut self, left: u64, slice: &mut u64) -> Result<Stop, Trouble> {
        let before = self.target.retired();
        let stop = self.target.run(*slice);
        self.events.from(self.target)?;
        if matches!(stop, Stop::Undecided { .. }) {
            *slice = slice.saturating_sub(self.target.retired() - before);
            self.heard.left = Some((left, *slice));
        }
        let said = self.target.take_console();
        self.heard.console.extend(said);
        if let Some(what) = self.crash() {
            return Err(Trouble::Crash(what));
        }
        Ok(stop)
    }

    /// What the console says about a crash, if anything.
    fn crash(&self) -> Option<String> {
        if self.heard.console.len() > self.limits.console {
            return Some(format!("more than {} bytes of console output", self.limits.console));
        }
        let text = String::from_utf8_lossy(&self.heard.console);
        let line = text.lines().find(|line| {
            ["Oops", "BUG: ", "kernel BUG at", "Kernel panic"].iter().any(|word| line.contains(word))
        });
        line.map(|line| line.trim().to_owned())
    }

    fn message(&mut self, address: u64, len: u64) -> Result<Vec<u8>, Trouble> {
        let len = usize::try_from(len).ok().filter(|len| *len <= MAX_MESSAGE);
        let mut message =
            vec![0; len.ok_or_else(|| Trouble::Harness("a message of the agent is too long".to_owned()))?];
        let mut lines: Vec<u64> =
            self.target.origins(address, message.len()).iter().map(|(_, origin)| origin & !63).collect();
        if !lines.is_empty() {
            lines.sort_unstable();
            lines.dedup();
            self.heard.again = true;
            return Err(Trouble::Undecided(lines));
        }
        if self.target.read_guest(address, &mut message) {
            Ok(message)
        } else {
            Err(Trouble::Harness("a message of the agent is not in memory".to_owned()))
        }
    }

    fn observe(&mut self, address: u64, len: u64) -> Result<(), Trouble> {
        let message = self.message(address, len)?;
        let observation: Observation = postcard::from_bytes(&message)
            .map_err(|why| Trouble::Harness(format!("an observation cannot be read: {why}")))?;
        let size = if let Found::File { size, .. } = observation.found { size } else { 0 };
        self.heard.observed_bytes =
            self.heard.observed_bytes.saturating_add(OBSERVATION + len).saturating_add(size);
        if self.heard.observed_bytes > MOST_OBSERVED && size <= LARGEST_FILE {
            return Err(Trouble::Harness(format!("observations of more than {MOST_OBSERVED} bytes")));
        }
        let attributes = observation.attributes;
        let entry = match observation.found {
            Found::Nothing => None,
            Found::Errno { call, errno } => Some(Entry::Unreadable { call, errno }),
            Found::Directory => Some(Entry::Directory { attributes }),
            Found::Symlink { target } => Some(Entry::Symlink { target, attributes }),
            Found::Other => Some(Entry::Other),
            Found::File { size, allocated, address, unreadable } => {
                if let Some((_, offset)) =
                    self.wanted.filter(|(path, offset)| *path == observation.path && *offset < size)
                {
                    self.heard.located = self.target.translate(address.wrapping_add(offset));
                }
                let unreadable = inside(&unreadable, size);
                let content = self.content(&observation.path, address, size, &unreadable)?;
                let open = runs(self.target.origins(address, content.len()));
                Some(Entry::File { size, allocated, attributes, content, open, unreadable })
            }
        };
        self.heard.observed.push((observation.path, entry));
        Ok(())
    }

    fn content(
        &self,
        path: &str,
        address: u64,
        size: u64,
        unreadable: &[(u64, u64)],
    ) -> Result<Vec<u8>, Trouble> {
        if size > LARGEST_FILE {
            return Err(Trouble::Harness(format!(
                "{path} has {size} bytes: more than {LARGEST_FILE} are not read back"
            )));
        }
        let mut content = vec![0; size as usize];
        let mut at = 0;
        for (start, end) in unreadable.iter().map(|(start, len)| (*start, start + len)).chain([(size, size)])
        {
            let part = &mut content[at as usize..start as usize];
            if !part.is_empty() && !self.target.read_guest(address.wrapping_add(at), part) {
                return Err(Trouble::Harness(format!("the agent's mapping of {path} is not populated")));
            }
            at = end;
        }
        Ok(content)
    }
}

/// Ranges of a file of `size` bytes as an agent tells them, which may have told anything: ascending and inside.
fn inside(ranges: &[(u64, u64)], size: u64) -> Vec<(u64, u64)> {
    let mut behind = 0;
    let mut kept = Vec::new();
    for &(at, len) in ranges {
        let (start, end) = (at.max(behind), at.saturating_add(len).min(size));
        if start < end {
            kept.push((start, end - start));
            behind = end;
        }
    }
    kept
}

/// Puts together what belongs together: undecided bytes of a content behind one another that come from bytes of one
/// line behind one another.
fn runs(origins: Vec<(usize, u64)>) -> Vec<Open> {
    let mut runs: Vec<Open> = Vec::new();
    for (at, origin) in origins {
        match runs.last_mut() {
            Some(run)
                if run.at + run.len == at
                    && run.origin + run.len as u64 == origin
                    && !origin.is_multiple_of(64) =>
            {
                run.len += 1;
            }
            _ => runs.push(Open { at, origin, len: 1 }),
        }
    }
    runs
}

/// Whether a line of the console is a warning of the kernel or an error of the file system. That XFS cuts its log off
/// in front of a record that did not arrive whole is how it recovers: no error.
fn is_warning(line: &str) -> bool {
    let of_any = ["WARNING:", "EXT4-fs error", "EXT4-fs warning", "Buffer I/O error", "JBD2: Invalid"];
    let of_xfs = [
        "Corruption detected",
        "Corruption warning",
        "Metadata corruption detected",
        "Metadata CRC error detected",
        "Internal error",
        "log record CRC mismatch",
        "log mount/recovery failed",
        "log I/O error",
        "Failed to recover",
        "Shutting down filesystem",
    ];
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    has(&of_any) || line.contains("XFS (") && has(&of_xfs)
}

/// A line of the kernel's log without its time, so that equal warnings are equal.
fn without_time(line: &str) -> &str {
    match line.split_once("] ") {
        Some((time, rest)) if time.trim_start().starts_with('[') => rest.trim(),
        _ => line.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_file_systems_are_warnings_and_what_recovery_says_is_not() {
        for line in [
            "EXT4-fs error (device pmem0): ext4_lookup:1785: inode #2: comm init: deleted inode referenced: 12",
            "XFS (pmem0): Metadata CRC error detected at xfs_agf_read_verify+0xa5/0xf0 [xfs], xfs_agf block 0x1 ",
            "XFS (pmem0): Corruption detected. Unmount and run xfs_repair",
            "XFS (pmem0): log mount/recovery failed: error -117",
            "WARNING: CPU: 0 PID: 1 at fs/dax.c:1",
        ] {
            assert!(is_warning(&format!("[    1.975649] {line}")), "{line}");
        }
        for line in [
            "XFS (pmem0): DAX enabled. Warning: EXPERIMENTAL, use at your own risk",
            "XFS (pmem0): Torn write (CRC failure) detected at log block 0x28. Truncating head block from 0x30.",
            "XFS (pmem0): Ending recovery (logdev: internal)",
        ] {
            assert!(!is_warning(line), "{line}");
        }
    }
}
