//! The stores behind a finding: which, what they lacked, and who made them.

use std::collections::{BTreeMap, BTreeSet};

use persist::{DrainKind, Event, EventKind, Part, Platform, StorePath};

use crate::again;
use crate::causes::Failing;
use crate::record::{drive, prepared};
use crate::recover::Worker;
use crate::report::StoreReport;
use crate::run::Run;
use crate::target::{HostError, Laboratory};

/// Stores told for one finding.
const TOLD: usize = 6;
/// What an address in user space is told with.
const USER: &str = "user space";
/// Call stacks computed in one run.
const STACKS: usize = 24;

/// For every finding the stores behind it.
pub(crate) fn stores<L: Laboratory>(
    run: &Run<L>,
    found: &[Option<&Failing>],
) -> Result<Vec<Vec<StoreReport>>, HostError> {
    let mut stores: Vec<Vec<StoreReport>> =
        found.iter().map(|found| found.map_or(Vec::new(), |found| of_finding(run, found))).collect();
    let events: BTreeSet<u64> = stores.iter().flatten().map(|store| store.event).take(STACKS).collect();
    let stacks = stacks(run, &events)?;
    for store in stores.iter_mut().flatten() {
        store.stack = stacks.get(&store.event).cloned().unwrap_or_default();
        // Where a program is in memory only the stack tells.
        if let Some(frame) = store.stack.first().filter(|_| store.at.starts_with(USER)) {
            store.at.clone_from(frame);
        }
    }
    Ok(stores)
}

fn of_finding<L: Laboratory>(run: &Run<L>, found: &Failing) -> Vec<StoreReport> {
    let media = &run.points.points[found.point].media;
    let lost = media
        .in_flight()
        .iter()
        .enumerate()
        .filter(|(index, _)| !found.choice.contains(*index))
        .map(|(_, part)| &**part);
    let mut stores: Vec<StoreReport> = Vec::new();
    for part in lost {
        let store = of_part(run, part);
        match stores.last_mut().filter(|last| is_next(last, &store)) {
            Some(last) => {
                last.count += 1;
                last.bytes += store.bytes;
            }
            None => stores.push(store),
        }
    }
    if stores.is_empty() {
        stores = promised_stores(run, found);
    }
    if let Some(first) = run.dropped.first().filter(|_| stores.is_empty()) {
        let count =
            run.dropped.iter().take_while(|event| event.origin.copy_call == first.origin.copy_call).count()
                as u64;
        let store = of_event(run, first, "taken out of the recording by the plant");
        stores.push(StoreReport { count, bytes: store.bytes * count, ..store });
    }
    stores.truncate(TOLD);
    stores
}

/// Whether a store goes on where the last one ended, by the same instruction and with the same lack.
fn is_next(last: &StoreReport, store: &StoreReport) -> bool {
    last.address + last.bytes == store.address && last.at == store.at && last.lacked == store.lacked
}

fn of_part<L: Laboratory>(run: &Run<L>, part: &Part) -> StoreReport {
    let platform = run.model.platform(part.addr);
    let lacked = match (part.path, part.flushed_by) {
        _ if let Some(drain) = part.handed_over_by => {
            format!("drained by {}, but by no fence", drained_by(run, drain))
        }
        _ if platform == Platform::VirtioPmem => lacked_of_device(part),
        _ if let Some(drain) = part.drained_by => {
            format!("drained by event {drain}, but no flush hint of its DIMM covered it")
        }
        (StorePath::Cached | StorePath::CachedRep(_), _) if platform == Platform::Eadr => {
            "in the store buffer: neither fenced nor seen by anybody".to_owned()
        }
        (StorePath::NonTemporal, _) => "non-temporal and not fenced".to_owned(),
        (_, Some(event)) => format!("flushed by event {event} but not fenced"),
        (_, None) => "never flushed".to_owned(),
    };
    StoreReport {
        event: part.event,
        count: 1,
        address: part.addr,
        bytes: part.bytes.len() as u64,
        wanted: Some(wanted_by(part, platform)),
        lacked,
        at: place(run, part.origin.cpl, part.origin.rip),
        file: file_of(run, part.event),
        step: run.step_at(part.event + 1),
        stack: Vec::new(),
    }
}

/// What would have made a part durable that is not.
fn wanted_by(part: &Part, platform: Platform) -> String {
    let line = part.line();
    match platform {
        _ if part.handed_over_by.is_some() => "an SFENCE or MFENCE behind that".to_owned(),
        Platform::VirtioPmem => {
            "a flush of the device that completes with success: fsync or msync".to_owned()
        }
        Platform::AdrLost if part.drained_by.is_some() => {
            "a write to a flush hint of its DIMM, and an SFENCE behind it".to_owned()
        }
        _ if !part.is_cached() || part.flushed_by.is_some() => "an SFENCE or MFENCE behind that".to_owned(),
        Platform::Eadr => "an SFENCE or MFENCE behind it".to_owned(),
        _ if part.origin.cpl == 0 => {
            format!(
                "a flush of the line {line:#x} by the kernel (clean_cache_range, dax_flush), and an SFENCE behind it"
            )
        }
        _ => format!("CLWB, CLFLUSHOPT or CLFLUSH of the line {line:#x}, and an SFENCE behind it"),
    }
}

/// What a part lacked that only a device flush makes durable.
fn lacked_of_device(part: &Part) -> String {
    match part.failed_by {
        Some(event) => format!("covered by a device flush that failed (event {event})"),
        None if part.path == StorePath::NonTemporal && part.drained_by.is_none() => {
            "non-temporal and not drained, so not visible to the device".to_owned()
        }
        None => "covered by no device flush that completed with success".to_owned(),
    }
}

/// A drain that is no fence, in words.
fn drained_by<L: Laboratory>(run: &Run<L>, seq: u64) -> String {
    let kind = run.recording.events.between(seq, seq + 1).next().map(|event| event.kind);
    let what = match kind {
        Some(EventKind::Drain(DrainKind::Locked)) => "a locked instruction",
        Some(EventKind::Drain(DrainKind::WriteBackAll)) => "WBINVD",
        Some(EventKind::Drain(DrainKind::Uncached)) => "an uncached access",
        _ => "a serialising instruction",
    };
    format!("{what} (event {seq})")
}

/// An instruction: a function of the kernel or of the agent and the offset in it, or an address.
pub(crate) fn place<L: Laboratory>(run: &Run<L>, cpl: u8, rip: u64) -> String {
    if run.laboratory.samples() {
        return "somebody, before the machine was looked at".to_owned();
    }
    match run.laboratory.function_at(rip) {
        Some((name, offset)) if cpl == 0 => format!("{name}+{offset:#x}"),
        Some((name, offset)) => format!("{name}+{offset:#x} [agent]"),
        None if cpl == 0 => format!("{rip:#x}"),
        None => format!("{USER} {rip:#x}"),
    }
}

/// The file and offset to which a step's own store went.
fn file_of<L: Laboratory>(run: &Run<L>, seq: u64) -> Option<String> {
    let command =
        run.recording.timeline.commands.iter().position(|&(begin, end)| begin <= seq && seq < end)?;
    let (begin, _) = run.recording.timeline.commands[command];
    let (file, change) = run.scenario.history.files.iter().enumerate().find_map(|(file, history)| {
        Some((file, history.contents.iter().find(|change| change.command == command)?))
    })?;
    let mut events = run.recording.events.between(begin, seq + 1);
    let mut stored = events.by_ref().filter_map(|event| match &event.kind {
        EventKind::Store { bytes, .. } if event.origin.cpl == 3 => Some((event.seq, bytes.len() as u64)),
        _ => None,
    });
    let mut offset = 0;
    let mine = stored.find_map(|(at, len)| {
        if at == seq {
            Some(offset)
        } else {
            offset += len;
            None
        }
    })?;
    let name = run.scenario.history.first_name(crate::oracle::history::FileId(file));
    Some(format!("{name} at {:#x}", change.at + mine))
}

/// Nothing in flight has to be lost: tells the promised stores themselves, and the kernel's last into their pages.
fn promised_stores<L: Laboratory>(run: &Run<L>, found: &Failing) -> Vec<StoreReport> {
    let Some(promise) = found.fault.promise.map(|id| &run.scenario.history.promises[id as usize]) else {
        return Vec::new();
    };
    let mut stores = Vec::new();
    for &(command, ..) in promise.stores.iter().rev() {
        let Some(&(begin, end)) =
            run.recording.timeline.commands.get(command).filter(|(begin, _)| *begin != u64::MAX)
        else {
            continue;
        };
        let user = run
            .recording
            .events
            .between(begin, end)
            .find(|event| event.origin.cpl == 3 && matches!(event.kind, EventKind::Store { .. }));
        let Some((user, page)) = user.and_then(|event| {
            let page = page(&event)?;
            Some((event, page))
        }) else {
            continue;
        };
        let what = "durable in its block, but not to be found from the file: the block's metadata never reached the journal";
        stores.push(of_event(run, &user, what));
        let before = run.recording.events.between(0, user.seq);
        let kernel = before.filter(|event| event.origin.cpl == 0 && self::page(event) == Some(page)).last();
        stores.extend(
            kernel.map(|event| of_event(run, &event, "the kernel's last store into that page before it")),
        );
        break;
    }
    stores
}

fn page(event: &Event) -> Option<u64> {
    match &event.kind {
        EventKind::Store { addr, .. } => Some(addr / 4096),
        _ => None,
    }
}

fn of_event<L: Laboratory>(run: &Run<L>, event: &Event, lacked: &str) -> StoreReport {
    let (address, bytes) = match &event.kind {
        EventKind::Store { addr, bytes, .. } => (*addr, bytes.len() as u64),
        _ => (0, 0),
    };
    StoreReport {
        event: event.seq,
        count: 1,
        address,
        bytes,
        lacked: lacked.to_owned(),
        wanted: None,
        at: place(run, event.origin.cpl, event.origin.rip),
        file: file_of(run, event.seq),
        step: run.step_at(event.seq + 1),
        stack: Vec::new(),
    }
}

/// Replays the recording and looks at the stack behind each of the events.
pub(crate) fn stacks<L: Laboratory>(
    run: &Run<L>,
    events: &BTreeSet<u64>,
) -> Result<BTreeMap<u64, Vec<String>>, HostError> {
    let mut stacks = BTreeMap::new();
    let Some(&first) = events.first().filter(|_| !run.laboratory.samples()) else { return Ok(stacks) };
    let mut at_event = |target: &mut L::Target, seq: u64| {
        stacks.insert(seq, run.laboratory.stack(target));
        events.range(seq + 1..).next().copied()
    };
    if run.earlier.is_empty() {
        let mut target = prepared(run.laboratory)?;
        drive(run.scenario, run.laboratory, &mut target, Some(first), &mut at_event);
    } else {
        let mut worker = Worker::new(run.scenario, run.laboratory)?;
        let told = run.earlier[0].expectation.told.clone();
        again::record(&mut worker, &run.model.holding, &told, Some(first), &mut at_event)?;
    }
    Ok(stacks)
}
