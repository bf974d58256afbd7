//! Recording: the scenario is run once, and every event that reaches persistent memory is kept.

use std::sync::OnceLock;

use guest_protocol::{Command, Reply};
use persist::{EventKind, LINE, Platform};

use crate::checking;
use crate::conversation::{Conversation, Limits, Taken, Trouble};
use crate::events::Events;
use crate::oracle::acknowledged::Acknowledged;
use crate::oracle::expectation::Timeline;
use crate::scenario::{Failure, Scenario};
use crate::target::{HostError, Laboratory, Region, Target};
use crate::windows;

/// One execution of a scenario.
pub(crate) struct Recording {
    pub events: Events,
    pub timeline: Timeline,
    /// Names of the watched symbols, by the index that events carry.
    pub watched: Vec<String>,
    /// What ended it early: a crash of the guest, or something that makes the run inconclusive.
    pub trouble: Option<Trouble>,
    /// Whether the check program complains even where the power was not cut: then nothing that it says counts.
    pub check_is_void: bool,
    pub warnings: Vec<String>,
    pub console: String,
    /// Instructions that it took.
    pub instructions: u64,
    /// What else is to be told of it.
    pub account: Vec<(String, String)>,
    /// What [`Run::trace`](crate::run::Run::trace) has found.
    pub trace: OnceLock<String>,
    /// Of a recovery, what the guest was told to do, and how many events had happened when it was done.
    pub phases: Vec<(&'static str, u64)>,
}

/// A machine with the images in its persistent memory, waiting in `SNAPSHOT_HERE`.
pub(crate) fn prepared<L: Laboratory>(laboratory: &L) -> Result<L::Target, HostError> {
    with_images(laboratory, laboratory.start()?)
}

fn with_images<L: Laboratory>(laboratory: &L, mut target: L::Target) -> Result<L::Target, HostError> {
    let regions = target.regions();
    for (region, image) in regions.iter().zip(laboratory.images()) {
        if image.len() as u64 != region.size {
            return Err(HostError(format!(
                "an image of {} bytes does not fit a region of {}",
                image.len(),
                region.size
            )));
        }
        target.write_pmem(region.base, image);
    }
    Ok(target)
}

/// What a recording does at events on the way.
pub(crate) type AtEvent<'a, T> = &'a mut dyn FnMut(&mut T, u64) -> Option<u64>;

/// Runs the scenario from the beginning.
pub(crate) fn record<L: Laboratory>(scenario: &Scenario, laboratory: &L) -> Result<Recording, HostError> {
    let mut target = with_images(laboratory, laboratory.start_recording()?)?;
    let mut recording = drive(scenario, laboratory, &mut target, None, &mut |_, _| None);
    if recording.trouble.is_none() {
        target.set_tracing(false);
        let told = Acknowledged::behind(&recording.timeline.acknowledged, u64::MAX);
        recording.trouble = checking::try_without_power_cut(scenario, &mut target, &told).err();
        recording.check_is_void = recording.trouble.is_some();
    }
    Ok(Recording { account: laboratory.account(&target), ..recording })
}

/// Runs the scenario again, calling `at_event` behind event `first` and then behind each that it asks for. The events of a
/// run with a `first` are known already, and are not kept.
pub(crate) fn drive<L: Laboratory>(
    scenario: &Scenario,
    laboratory: &L,
    target: &mut L::Target,
    first: Option<u64>,
    at_event: AtEvent<L::Target>,
) -> Recording {
    laboratory.inject_faults(target);
    drive_on(scenario, laboratory, target, first, at_event)
}

/// The same on a target that goes wrong already where it is to go wrong, and that may be more than the laboratory's.
pub(crate) fn drive_on<L: Laboratory, T: Target>(
    scenario: &Scenario,
    laboratory: &L,
    target: &mut T,
    first: Option<u64>,
    at_event: AtEvent<T>,
) -> Recording {
    let watched = windows::watched(scenario, laboratory);
    let addresses: Vec<u64> = watched.iter().filter_map(|name| laboratory.symbol(name)).collect();
    target.set_poisoned(&poisoned_at_first(scenario, &target.regions()));
    target.set_watched(&addresses);
    target.set_store_buffer_events(scenario.has_platform(Platform::Eadr));
    target.set_tracing(true);
    target.stop_at_event(first);
    let mut recording = Recording {
        events: Events::new(&laboratory.scratch()),
        timeline: Timeline::default(),
        watched,
        trouble: None,
        check_is_void: false,
        warnings: Vec::new(),
        console: String::new(),
        instructions: target.retired(),
        account: Vec::new(),
        trace: OnceLock::new(),
        phases: Vec::new(),
    };
    recording.timeline.commands = vec![(u64::MAX, u64::MAX); scenario.commands.len()];
    let mut conversation = Conversation::new(target, Limits::of_recording(&scenario.limits));
    conversation.events = match first {
        None => Taken::Kept(Events::new(&laboratory.scratch())),
        Some(_) => Taken::Forgotten,
    };
    recording.trouble = converse(scenario, &mut conversation, &mut recording, at_event).err();
    recording.warnings = conversation.heard.warnings();
    recording.console = String::from_utf8_lossy(&conversation.heard.console).into_owned();
    recording.timeline.acknowledged = std::mem::take(&mut conversation.heard.acknowledged).into();
    let mut taken = std::mem::replace(&mut conversation.events, Taken::No);
    if let Err(trouble) = taken.from(target) {
        recording.trouble.get_or_insert(trouble);
    }
    recording.instructions = target.retired().saturating_sub(recording.instructions);
    recording.events = taken.kept().unwrap_or(recording.events);
    for event in &recording.events {
        if let EventKind::Promise { id } = event.kind {
            recording.timeline.promises.insert(id, event.seq + 1);
        }
    }
    recording
}

/// What the media has lost from the beginning: addresses of lines, ascending.
pub(crate) fn poisoned_at_first(scenario: &Scenario, regions: &[Region]) -> Vec<u64> {
    let lines = regions.iter().zip(&scenario.regions).flat_map(|(region, of)| {
        let offsets = of.poison().iter().flat_map(|range| range.clone().step_by(LINE as usize));
        offsets.map(|offset| region.base + offset)
    });
    lines.collect()
}

/// The media loses ranges of persistent memory, each in one page.
fn lose<T: Target>(target: &mut T, ranges: Vec<(u64, u64)>) -> Result<(), Trouble> {
    for (address, len) in ranges {
        target.poison(address, len).map_err(|why| Trouble::Harness(why.0))?;
    }
    Ok(())
}

fn converse<'a, T: Target>(
    scenario: &'a Scenario,
    conversation: &mut Conversation<'a, T>,
    recording: &mut Recording,
    at_event: AtEvent<T>,
) -> Result<(), Trouble> {
    let filesystem = &scenario.filesystem;
    let mount = Command::Mount { region: 0, fs: filesystem.kind.clone(), options: filesystem.mount.clone() };
    for (what, command) in [("attach", Command::Attach { region: 0 }), ("mount", mount)] {
        let buffer = reach_next(conversation, at_event)?;
        expect_ok(what, hand_over(conversation, buffer, &command, at_event)?)?;
    }
    let mut located = Vec::new();
    for (index, planned) in scenario.commands.iter().enumerate() {
        let step = &scenario.steps[planned.step];
        let wanted = planned.loses.as_ref().map(|lost| (lost.path.as_str(), lost.at));
        conversation.locate(wanted);
        let buffer = reach_next(conversation, at_event)?;
        recording.timeline.commands[index].0 = conversation.target.event_count();
        let what = format!("the step of line {} ({})", step.line, step.text);
        let reply =
            hand_over(conversation, buffer, &planned.command, at_event).map_err(|trouble| match trouble {
                Trouble::Crash(why) => Trouble::Crash(format!("{why}, in {what}")),
                trouble => trouble,
            })?;
        if let Some(lost) = &planned.loses {
            located.extend(conversation.heard.located.map(|address| (address, lost.len)).ok_or_else(|| {
                let what =
                    format!("{what}: byte {:#x} of {} is not in persistent memory", lost.at, lost.path);
                Trouble::Harness(what)
            }));
            if lost.last {
                lose(conversation.target, std::mem::take(&mut located))?;
            }
        }
        recording.timeline.commands[index].1 = conversation.target.event_count();
        match (planned.fails, reply) {
            (Some(failure), reply) => expect_failure(&what, failure, reply)?,
            (None, Reply::Exited { status }) if status != 0 => {
                return Err(Trouble::Harness(failed_program(&what, status, &conversation.heard.console)));
            }
            (None, reply) => expect_ok(&what, reply)?,
        }
    }
    Ok(())
}

fn reach_next<T: Target>(conversation: &mut Conversation<T>, at_event: AtEvent<T>) -> Result<u64, Trouble> {
    let mut buffer = conversation.reach_next();
    while let Err(Trouble::Event(seq)) = buffer {
        stop_again(conversation, seq, at_event);
        buffer = conversation.wait_for_next();
    }
    buffer
}

fn hand_over<T: Target>(
    conversation: &mut Conversation<T>,
    buffer: u64,
    command: &Command,
    at_event: AtEvent<T>,
) -> Result<Reply, Trouble> {
    let mut reply = conversation.hand_over(buffer, command);
    while let Err(Trouble::Event(seq)) = reply {
        stop_again(conversation, seq, at_event);
        reply = conversation.wait_for_reply();
    }
    reply
}

fn stop_again<T: Target>(conversation: &mut Conversation<T>, seq: u64, at_event: AtEvent<T>) {
    let next = at_event(conversation.target, seq);
    conversation.target.stop_at_event(next);
}

/// A program that says itself that it failed, and the last lines of what it said.
fn failed_program(what: &str, status: i32, console: &[u8]) -> String {
    /// Lines told.
    const LAST: usize = 3;
    let how = match status & 0x7f {
        0 => format!("ends with exit code {}", status >> 8 & 0xff),
        signal => format!("is killed by signal {signal}"),
    };
    let console = String::from_utf8_lossy(console);
    let lines: Vec<&str> = console.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines[lines.len().saturating_sub(LAST)..].join("; ");
    let said = if said.is_empty() { String::new() } else { format!("; the console says last: {said}") };
    format!("{what} {how} while it was recorded{said}")
}

/// A step that was to fail another way than it did, or not at all, says nothing about power losses either.
fn expect_failure(what: &str, wanted: Failure, reply: Reply) -> Result<(), Trouble> {
    match (wanted, reply) {
        (Failure::Errno(wanted), Reply::Errno { errno, .. }) if errno == wanted => Ok(()),
        (Failure::Signal(wanted), Reply::Signal { signal }) if signal == wanted => Ok(()),
        (Failure::Errno(wanted), other) => {
            Err(Trouble::Harness(format!("{what} was to fail with errno {wanted}, but gave {other:?}")))
        }
        (Failure::Signal(wanted), other) => {
            Err(Trouble::Harness(format!("{what} was to end with signal {wanted}, but gave {other:?}")))
        }
    }
}

/// What a kernel or a scenario often lacks when a call fails so. Numbers are those of asm-generic/errno-base.h and
/// asm-generic/errno.h.
fn what_lacks(call: &str, errno: i32) -> &'static str {
    const ENOENT: i32 = 2;
    const ENODEV: i32 = 19;
    const EINVAL: i32 = 22;
    const EOPNOTSUPP: i32 = 95;
    match (call, errno) {
        ("attach", ENOENT) => {
            " (ENOENT): the kernel shows no such region; it needs libnvdimm, nd_pmem and what finds the region (ACPI_NFIT, e820 pmem or \
             virtio_pmem) built in, or as modules (--modules)"
        }
        ("mount", ENODEV) => " (ENODEV): the kernel does not have this file system built in, nor its module",
        ("mount", EINVAL | EOPNOTSUPP) => {
            ": with dax= the kernel needs FS_DAX, and the region a namespace that offers DAX"
        }
        ("mmap", EOPNOTSUPP) => {
            " (EOPNOTSUPP): MAP_SYNC is not offered here; is the file system mounted with dax=always, and has the kernel FS_DAX?"
        }
        _ => "",
    }
}

/// A step that fails while it is recorded says nothing about power losses.
fn expect_ok(what: &str, reply: Reply) -> Result<(), Trouble> {
    let failed = |why: String| Err(Trouble::Harness(format!("{what} {why} while it was recorded")));
    match reply {
        Reply::Ok | Reply::Exited { status: 0 } => Ok(()),
        Reply::Errno { call, errno } => {
            let lacks = what_lacks(&call, errno);
            Err(Trouble::Harness(format!(
                "{what} fails while it was recorded: {call} returns errno {errno}{lacks}"
            )))
        }
        Reply::Signal { signal } => failed(format!("ends with signal {signal}")),
        Reply::Exited { status } => failed(format!("exits with wait status {status:#x}")),
        Reply::Checked { status, .. } => failed(format!("ends as a check, with wait status {status:#x}")),
        Reply::Bad { why } => failed(format!("is refused by the agent: {why}")),
    }
}
