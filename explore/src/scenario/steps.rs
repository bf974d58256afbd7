//! Steps to commands for the guest, checked against the model of the file system.

use guest_protocol::{Command, Fence, Op, Pattern};
use toml::Spanned;

use super::schema::{
    Acknowledge, Errno, FallocateMode, OracleOptions, PatternName, RawFileRange, RawFlush, RawPromise,
    RawPromiseTable, RawSetXattr, RawStep,
};
use super::{Lost, Planned, ScenarioError, Source, Step};
use crate::oracle::history::History;
use crate::oracle::model::{Model, Refusal};

pub(super) struct Program {
    pub steps: Vec<Step>,
    pub commands: Vec<Planned>,
    pub history: History,
}

/// The device-dax device of the first region, as steps name it.
const DEVICE: &str = "dax0.0";
/// Mappings of it are in units of its alignment (`check_vma`, drivers/dax/device.c).
const DEVICE_ALIGN: u64 = 2 << 20;

/// Reads the steps in order. `device` is the size of the device-dax device that there is instead of a file system.
pub(super) fn compile(
    source: &Source,
    raw: &[Spanned<RawStep>],
    oracle: OracleOptions,
    device: Option<u64>,
) -> Result<Program, ScenarioError> {
    let mut compiler = Compiler { model: Model::new(oracle), steps: Vec::new(), commands: Vec::new() };
    if let Some(size) = device {
        let has_programs = raw.iter().any(|step| step.get_ref().exec.is_some());
        let id = compiler.model.device(DEVICE, size, has_programs);
        compiler.push(Command::Promise { id });
        compiler.steps.push(Step { line: 1, text: format!("{DEVICE} is there"), fault: None });
    }
    for step in raw {
        let span = step.span();
        let checked = if device.is_some() { check_on_device(step.get_ref()) } else { Ok(()) };
        checked.and_then(|()| compiler.step(step.get_ref())).map_err(|refusal| {
            let at = source.find_key(span.start, refusal.key);
            source.error(at, refusal.key, refusal.what)
        })?;
        let text = compiler
            .commands
            .iter()
            .rev()
            .find(|planned| planned.step == compiler.steps.len())
            .map_or(String::new(), |planned| describe(&planned.command));
        compiler.steps.push(Step { line: source.line(span.start), text, fault: step.get_ref().fault });
    }
    Ok(Program { steps: compiler.steps, commands: compiler.commands, history: compiler.model.history })
}

/// What can be done to a device: it is mapped, and mapped in units of its alignment.
fn check_on_device(step: &RawStep) -> Result<(), Refusal> {
    let of_files = [
        ("mkdir", step.mkdir.is_some()),
        ("create", step.create.is_some()),
        ("write", step.write.is_some()),
        ("truncate", step.truncate.is_some()),
        ("fallocate", step.fallocate.is_some()),
        ("rename", step.rename.is_some()),
        ("link", step.link.is_some()),
        ("symlink", step.symlink.is_some()),
        ("unlink", step.unlink.is_some()),
        ("setxattr", step.setxattr.is_some()),
        ("removexattr", step.removexattr.is_some()),
        ("fsync", step.fsync.is_some()),
        ("fdatasync", step.fdatasync.is_some()),
        ("sync", step.sync.is_some()),
        ("syncfs", step.syncfs.is_some()),
        ("msync", step.msync.is_some()),
        ("poison", step.poison.is_some()),
        ("read", step.read.is_some()),
    ];
    if let Some((key, _)) = of_files.into_iter().find(|(_, present)| *present) {
        let what = format!(
            "there is no file system on a device-dax device: map {DEVICE:?}, store, flush and fence, or let a program do so"
        );
        return refuse(key, what);
    }
    let Some(map) = &step.map else { return Ok(()) };
    if map.align.map(|align| align.0) != Some(DEVICE_ALIGN) {
        return refuse("map", format!("{DEVICE:?} is mapped in units of 2M: write align = \"2M\""));
    }
    let places = [map.at, map.size].into_iter().flatten();
    match places.map(|place| place.0).find(|place| !place.is_multiple_of(DEVICE_ALIGN)) {
        None => Ok(()),
        Some(place) => refuse("map", format!("{place:#x}: {DEVICE:?} is mapped in units of 2M")),
    }
}

struct Compiler {
    model: Model,
    steps: Vec<Step>,
    commands: Vec<Planned>,
}

fn refuse<T>(key: &'static str, what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { key, what: what.into() })
}

impl Compiler {
    /// Number that the next command gets.
    fn next(&self) -> usize {
        self.commands.len()
    }

    fn push(&mut self, command: Command) {
        self.commands.push(Planned { step: self.steps.len(), command, fails: None, loses: None });
    }

    /// Sends the promise behind the command just pushed.
    fn push_promise(
        &mut self,
        waive: bool,
        promise: impl FnOnce(&mut Model, usize) -> Result<u32, Refusal>,
    ) -> Result<(), Refusal> {
        if !waive {
            let id = promise(&mut self.model, self.steps.len())?;
            self.push(Command::Promise { id });
        }
        Ok(())
    }

    fn pattern(&self, name: Option<PatternName>) -> Result<Pattern, Refusal> {
        let number = self.steps.len() + 1;
        Ok(match name {
            Some(PatternName::Zero) => Pattern::Zero,
            Some(PatternName::Byte(byte)) => Pattern::Byte(byte),
            Some(PatternName::Seq(Some(tag))) => Pattern::Seq(tag),
            Some(PatternName::Seq(None)) | None => match u16::try_from(number) {
                Ok(tag @ ..=0xfff) => Pattern::Seq(tag),
                _ => {
                    return refuse(
                        "pattern",
                        format!(
                            "step {number} gets no tag of its own: tags are 12 bits, so only steps 1 to 4095 do; write a pattern such as \"seq:TAG\" with TAG from 0 to 4095"
                        ),
                    );
                }
            },
        })
    }

    fn step(&mut self, step: &RawStep) -> Result<(), Refusal> {
        self.check_shape(step)?;
        self.action(step)?;
        if let (Some(errno), Some(planned)) = (step.fails, self.commands.last_mut()) {
            planned.fails = Some(errno.failure());
            // The mapping was not made.
            step.map.iter().try_for_each(|map| self.model.unmap(&map.name))?;
        }
        Ok(())
    }

    fn action(&mut self, step: &RawStep) -> Result<(), Refusal> {
        if step.store.is_some() || step.flush.is_some() || step.fence.is_some() {
            return self.straight_line(step);
        }
        self.namespace_step(step)?;
        self.content_step(step)?;
        self.sync_step(step)?;
        self.mapping_step(step)?;
        self.other_step(step)
    }

    /// Exactly one action, and companions only where they mean something.
    fn check_shape(&self, step: &RawStep) -> Result<(), Refusal> {
        let straight = step.store.is_some() || step.flush.is_some() || step.fence.is_some();
        let promise_alone = matches!(step.promise, Some(RawPromise::Alone(_)));
        let actions: Vec<&str> = [
            ("mkdir", step.mkdir.is_some()),
            ("create", step.create.is_some()),
            ("write", step.write.is_some()),
            ("truncate", step.truncate.is_some()),
            ("fallocate", step.fallocate.is_some()),
            ("rename", step.rename.is_some()),
            ("link", step.link.is_some()),
            ("symlink", step.symlink.is_some()),
            ("unlink", step.unlink.is_some()),
            ("setxattr", step.setxattr.is_some()),
            ("removexattr", step.removexattr.is_some()),
            ("fsync", step.fsync.is_some()),
            ("fdatasync", step.fdatasync.is_some()),
            ("sync", step.sync.is_some()),
            ("syncfs", step.syncfs.is_some()),
            ("map", step.map.is_some()),
            ("touch", step.touch.is_some()),
            ("store, flush and fence", straight),
            ("msync", step.msync.is_some()),
            ("poison", step.poison.is_some()),
            ("read", step.read.is_some()),
            ("munmap", step.munmap.is_some()),
            ("exec", step.exec.is_some()),
            ("marker", step.marker.is_some()),
            ("promise", promise_alone),
            ("observe", step.observe.is_some()),
            ("scrub", step.scrub.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, present)| present.then_some(name))
        .collect();
        match actions[..] {
            [_] => (),
            [] => {
                return refuse(
                    "step",
                    "has no action: write exactly one of mkdir, create, write, truncate, fallocate, rename, link, symlink, unlink, setxattr, removexattr, fsync, fdatasync, sync, syncfs, map, touch, store, flush, fence, msync, munmap, exec, marker, promise, observe, read, poison, scrub",
                );
            }
            _ => {
                return refuse(
                    "step",
                    format!("has several actions ({}): write one [[step]] for each", actions.join(", ")),
                );
            }
        }
        if matches!(step.promise, Some(RawPromise::Beside))
            && step.store.is_none()
            && !matches!(step.flush, Some(RawFlush::Alone(_)))
        {
            return refuse(
                "promise",
                "\"contents\" stands beside store or flush; alone, write promise = { contents = { file = ... } }",
            );
        }
        if matches!(step.flush, Some(RawFlush::Beside(_))) && step.store.is_none() {
            return refuse(
                "flush",
                "a word stands beside store; alone, write flush = { map = ..., with = \"clwb\" }",
            );
        }
        if matches!(step.flush, Some(RawFlush::Alone(_))) && step.store.is_some() {
            return refuse("flush", "beside store, write the instruction only: flush = \"clwb\"");
        }
        let companions = [
            ("non_temporal", step.non_temporal.is_some()),
            ("race", step.race.is_some()),
            ("fault", step.fault.is_some()),
        ];
        for (key, present) in companions {
            if present && step.store.is_none() {
                return refuse(key, "stands beside store only");
            }
        }
        if step.scrub == Some(false) {
            return refuse("scrub", "write true, or leave the step out");
        }
        if step.acknowledge.is_some() && step.exec.is_none() {
            return refuse("acknowledge", "stands beside exec only");
        }
        if step.sync == Some(false) || step.syncfs == Some(false) {
            return refuse("sync", "write true, or leave the step out");
        }
        let promises = step.fsync.is_some()
            || step.fdatasync.is_some()
            || step.sync.is_some()
            || step.syncfs.is_some()
            || step.msync.is_some();
        let reads = step.touch.is_some() || step.read.is_some();
        let can_fail = step.map.is_some() || reads || promises && step.sync.is_none();
        if step.fails.is_some() && !can_fail {
            return refuse(
                "fails",
                "stands beside map, touch, read, fsync, fdatasync, syncfs and msync only",
            );
        }
        if matches!(step.fails, Some(Errno::Sigbus)) != (step.fails.is_some() && step.touch.is_some()) {
            return refuse(
                "fails",
                "SIGBUS stands beside touch, which can end in no other way, and beside touch only",
            );
        }
        if step.waive == Some(true) && !promises {
            return refuse(
                "waive",
                "this step promises nothing by itself: only fsync, fdatasync, sync, syncfs and msync do",
            );
        }
        Ok(())
    }

    fn namespace_step(&mut self, step: &RawStep) -> Result<(), Refusal> {
        let next = self.next();
        if let Some(path) = &step.mkdir {
            self.model.mkdir(next, path)?;
            self.push(Command::Mkdir { path: path.clone() });
        }
        if let Some(create) = &step.create {
            let size = create.size.map(|size| size.0);
            self.model.create(next, &create.file, size)?;
            self.push(Command::Create { path: create.file.clone(), size });
        }
        if let Some(rename) = &step.rename {
            self.model.rename(next, &rename.from, &rename.to)?;
            self.push(Command::Rename { from: rename.from.clone(), to: rename.to.clone() });
        }
        if let Some(link) = &step.link {
            self.model.link(next, &link.from, &link.to)?;
            self.push(Command::Link { from: link.from.clone(), to: link.to.clone() });
        }
        if let Some(symlink) = &step.symlink {
            self.model.symlink(next, &symlink.target, &symlink.path)?;
            self.push(Command::Symlink { target: symlink.target.clone(), path: symlink.path.clone() });
        }
        if let Some(path) = &step.unlink {
            self.model.unlink(next, path)?;
            self.push(Command::Unlink { path: path.clone() });
        }
        if let Some(set) = &step.setxattr {
            let value = value_of(set)?;
            self.model.set_attribute(next, &set.path, &set.name, value.clone())?;
            self.push(Command::SetXattr { path: set.path.clone(), name: set.name.clone(), value });
        }
        if let Some(remove) = &step.removexattr {
            self.model.remove_attribute(next, &remove.path, &remove.name)?;
            self.push(Command::RemoveXattr { path: remove.path.clone(), name: remove.name.clone() });
        }
        Ok(())
    }

    fn content_step(&mut self, step: &RawStep) -> Result<(), Refusal> {
        let next = self.next();
        if let Some(write) = &step.write {
            let append = write.append == Some(true);
            if append && write.at.is_some() {
                return refuse("append", "an append has no \"at\"");
            }
            if write.bytes.0 == 0 {
                return refuse("bytes", "must be at least 1");
            }
            let pattern = self.pattern(write.pattern)?;
            let at = if append { None } else { Some(write.at.unwrap_or_default().0) };
            self.model.write(next, &write.file, at, write.bytes.0, pattern)?;
            self.push(Command::Write { path: write.file.clone(), at, len: write.bytes.0, pattern });
        }
        if let Some(truncate) = &step.truncate {
            self.model.truncate(next, &truncate.file, truncate.size.0)?;
            self.push(Command::Truncate { path: truncate.file.clone(), size: truncate.size.0 });
        }
        if let Some(fallocate) = &step.fallocate {
            let (path, at, len) = (&fallocate.file, fallocate.at.unwrap_or_default().0, fallocate.bytes.0);
            if len == 0 {
                return refuse("bytes", "must be at least 1");
            }
            // FALLOC_FL_KEEP_SIZE 1, FALLOC_FL_PUNCH_HOLE 2, FALLOC_FL_COLLAPSE_RANGE 8, FALLOC_FL_ZERO_RANGE 16,
            // FALLOC_FL_INSERT_RANGE 32 (linux/falloc.h).
            let mode = match fallocate.mode {
                FallocateMode::Allocate => self.model.allocate(next, path, at, len).map(|()| 0)?,
                FallocateMode::KeepSize => self.model.file("file", path).map(|_| 1)?,
                FallocateMode::PunchHole => self.model.zero(next, path, at, len, false).map(|()| 2 | 1)?,
                FallocateMode::ZeroRange => self.model.zero(next, path, at, len, true).map(|()| 16)?,
                FallocateMode::ZeroRangeKeepSize => {
                    self.model.zero(next, path, at, len, false).map(|()| 16 | 1)?
                }
                FallocateMode::CollapseRange => self.model.collapse(next, path, at, len).map(|()| 8)?,
                FallocateMode::InsertRange => self.model.insert(next, path, at, len).map(|()| 32)?,
            };
            self.push(Command::Fallocate { path: path.clone(), mode, at, len });
        }
        Ok(())
    }

    fn sync_step(&mut self, step: &RawStep) -> Result<(), Refusal> {
        let waive = step.waive == Some(true) || step.fails.is_some();
        if let Some(path) = &step.fsync {
            if path == "." {
                self.push(Command::Fsync { path: path.clone() });
                return self.push_promise(waive, |model, step| Ok(model.promise_fsync_root(step)));
            }
            self.model.entry("fsync", path)?;
            self.push(Command::Fsync { path: path.clone() });
            self.push_promise(waive, |model, step| model.promise_fsync(step, path))?;
        }
        if let Some(path) = &step.fdatasync {
            self.model.file("fdatasync", path)?;
            self.push(Command::Fdatasync { path: path.clone() });
            self.push_promise(waive, |model, step| model.promise_fdatasync(step, path))?;
        }
        if step.sync.is_some() {
            self.push(Command::Sync);
            self.push_promise(waive, |model, step| Ok(model.promise_sync(step, "sync")))?;
        }
        if step.syncfs.is_some() {
            self.push(Command::Syncfs);
            self.push_promise(waive, |model, step| Ok(model.promise_sync(step, "syncfs")))?;
        }
        if let Some(msync) = &step.msync {
            let at = msync.at.unwrap_or_default().0;
            let (_, len) = self.model.range(&msync.map, at, msync.bytes.map(|bytes| bytes.0))?;
            self.push(Command::Msync { map: msync.map.clone(), at, len });
            self.push_promise(waive, |model, step| model.promise_mapped(step, &msync.map, at, len, "msync"))?;
        }
        Ok(())
    }

    fn mapping_step(&mut self, step: &RawStep) -> Result<(), Refusal> {
        if let Some(map) = &step.map {
            let at = map.at.unwrap_or_default().0;
            let align = map.align.map_or(4096, |align| align.0);
            if !align.is_power_of_two() || !(4096..=1 << 30).contains(&align) {
                return refuse("align", "must be a power of two from 4096 to 1G");
            }
            let len = self.model.map(&map.name, &map.file, at, map.size.map(|size| size.0))?;
            self.push(Command::Map {
                name: map.name.clone(),
                path: map.file.clone(),
                at,
                len,
                sync: map.sync,
                align,
            });
        }
        if let Some(touch) = &step.touch {
            let at = touch.at.unwrap_or_default().0;
            let (_, len) = self.model.range(&touch.map, at, touch.bytes.map(|bytes| bytes.0))?;
            self.push(Command::Touch { map: touch.map.clone(), at, len });
        }
        if let Some(name) = &step.munmap {
            self.model.unmap(name)?;
            self.push(Command::Munmap { map: name.clone() });
        }
        Ok(())
    }

    /// `store`, `flush`, `fence` and `promise` of one step: one straight-line run.
    fn straight_line(&mut self, step: &RawStep) -> Result<(), Refusal> {
        let mut ops = Vec::new();
        let mut range = None;
        let mut race = None;
        if let Some(store) = &step.store {
            let (at, len) = (store.at.unwrap_or_default().0, store.bytes.0);
            let pattern = self.pattern(store.pattern)?;
            let next = self.next();
            self.model.store(next, &store.map, at, len, pattern)?;
            if step.non_temporal == Some(true) {
                if !at.is_multiple_of(8) || !len.is_multiple_of(8) {
                    return refuse("non_temporal", "at and bytes must be multiples of 8");
                }
                ops.push(Op::StoreNonTemporal { at, len, pattern });
            } else {
                ops.push(Op::Store { at, len, pattern });
            }
            range = Some((store.map.clone(), at, len));
            if let Some(other) = &step.race {
                let words = |at: u64, len: u64| at / 8..at.saturating_add(len).div_ceil(8);
                let ours = words(at, len);
                let (at, len) = (other.at.unwrap_or_default().0, other.bytes.0);
                let theirs = words(at, len);
                if ours.start < theirs.end && theirs.start < ours.end {
                    return refuse(
                        "race",
                        "stores to words of the step's own store: nobody knows which comes last",
                    );
                }
                let pattern = self.pattern(other.pattern)?;
                self.model.store(next, &store.map, at, len, pattern)?;
                race = Some((vec![Op::Store { at, len, pattern }], other.delay, other.process));
            }
        }
        match &step.flush {
            Some(RawFlush::Beside(with)) => {
                if let Some((_, at, len)) = range {
                    ops.push(Op::Flush { at, len, with: *with });
                }
            }
            Some(RawFlush::Alone(flush)) => {
                let at = flush.at.unwrap_or_default().0;
                let (_, len) = self.model.range(&flush.map, at, flush.bytes.map(|bytes| bytes.0))?;
                ops.push(Op::Flush { at, len, with: flush.with });
                range = Some((flush.map.clone(), at, len));
            }
            None => (),
        }
        if let Some(fence) = step.fence {
            ops.push(Op::Fence(fence));
        }
        if let (Some(RawPromise::Beside), Some((map, at, len))) = (&step.promise, &range) {
            ops.push(Op::Promise(self.model.promise_mapped(self.steps.len(), map, *at, *len, "store")?));
        }
        let map = range.map(|(map, ..)| map).or_else(|| self.model.any_map().map(str::to_owned));
        let Some(map) = map else {
            return refuse("fence", "needs a mapping: map a file first");
        };
        self.push(match race {
            Some((first, delay, process)) => Command::Race { map, first, second: ops, delay, process },
            None => Command::Run { map, ops },
        });
        Ok(())
    }

    fn other_step(&mut self, step: &RawStep) -> Result<(), Refusal> {
        if let Some(argv) = &step.exec {
            if argv.is_empty() {
                return refuse("exec", "names no program");
            }
            self.model.history.programs_ran = true;
            let argv = argv.clone();
            self.push(match step.acknowledge {
                Some(Acknowledge::Stdout) => Command::ExecHeard { argv },
                None => Command::Exec { argv },
            });
        }
        if let Some(id) = step.marker {
            self.push(Command::Marker { id });
        }
        if let Some(path) = &step.observe {
            self.model.entry("observe", path)?;
            self.push(Command::Observe { path: path.clone() });
        }
        if let Some(range) = &step.read {
            let (at, len) = self.file_range(range)?;
            self.push(Command::Read { path: range.file.clone(), at, len });
        }
        if let Some(range) = &step.poison {
            self.poison(range)?;
        }
        if step.scrub.is_some() {
            self.push(Command::Scrub);
        }
        if let Some(RawPromise::Alone(table)) = &step.promise {
            self.promise_step(table)?;
        }
        Ok(())
    }

    /// A range of a file, or all of it that there is.
    fn file_range(&self, range: &RawFileRange) -> Result<(u64, u64), Refusal> {
        let file = self.model.file("file", &range.file)?;
        let at = range.at.unwrap_or_default().0;
        let len = range.bytes.map_or(self.model.size(file).saturating_sub(at), |bytes| bytes.0);
        if len == 0 {
            return refuse("bytes", "must be at least 1");
        }
        Ok((at, len))
    }

    /// One command for each page, for they may lie anywhere.
    fn poison(&mut self, range: &RawFileRange) -> Result<(), Refusal> {
        let (at, len) = self.file_range(range)?;
        if len > MOST_LOST {
            return refuse("bytes", format!("{len}: one step has the media lose at most {MOST_LOST}"));
        }
        let end = at.saturating_add(len);
        let pages = end.div_ceil(PAGE) - at / PAGE;
        self.model.lose(self.next() + pages as usize - 1, &range.file, at, len)?;
        let mut at = at;
        while at < end {
            let len = (end - at).min(PAGE - at % PAGE);
            self.push(Command::Observe { path: range.file.clone() });
            if let Some(planned) = self.commands.last_mut() {
                let last = at + len == end;
                planned.loses = Some(Lost { path: range.file.clone(), at, len, last });
            }
            at += len;
        }
        Ok(())
    }

    fn promise_step(&mut self, table: &RawPromiseTable) -> Result<(), Refusal> {
        let (step, next) = (self.steps.len(), self.next());
        let id = match (&table.contents, &table.exists, &table.absent) {
            (Some(contents), None, None) => {
                let at = contents.at.unwrap_or_default().0;
                let pattern = contents.pattern.map(|name| self.pattern(Some(name))).transpose()?;
                self.model.promise_contents(
                    step,
                    next,
                    &contents.file,
                    at,
                    contents.bytes.map(|bytes| bytes.0),
                    pattern,
                )?
            }
            (None, Some(path), None) => self.model.promise_name(step, next, path, true)?,
            (None, None, Some(path)) => self.model.promise_name(step, next, path, false)?,
            _ => return refuse("promise", "has exactly one of contents, exists, absent"),
        };
        self.push(Command::Promise { id });
        Ok(())
    }
}

const PAGE: u64 = 4096;
/// Bytes that one step has the media lose.
const MOST_LOST: u64 = 256 << 10;

/// XATTR_SIZE_MAX of linux/limits.h.
const LARGEST_ATTRIBUTE: u64 = 65536;

fn value_of(set: &RawSetXattr) -> Result<Vec<u8>, Refusal> {
    let len = set.bytes.map_or(set.value.len() as u64, |bytes| bytes.0);
    if len > LARGEST_ATTRIBUTE {
        return refuse("bytes", format!("{len}: an extended attribute has at most {LARGEST_ATTRIBUTE}"));
    }
    if set.value.is_empty() && len > 0 {
        return refuse("value", "an empty value cannot be repeated");
    }
    Ok(set.value.bytes().cycle().take(len as usize).collect())
}

/// A command in a few words.
fn describe(command: &Command) -> String {
    match command {
        Command::Mkdir { path } => format!("mkdir {path}"),
        Command::Create { path, .. } => format!("create {path}"),
        Command::Write { path, at: Some(at), len, .. } => format!("write {path} {at:#x}+{len:#x}"),
        Command::Write { path, len, .. } => format!("append {len:#x} to {path}"),
        Command::Truncate { path, size } => format!("truncate {path} to {size:#x}"),
        Command::Fallocate { path, at, len, .. } => format!("fallocate {path} {at:#x}+{len:#x}"),
        Command::Rename { from, to } => format!("rename {from} to {to}"),
        Command::Link { from, to } => format!("link {from} to {to}"),
        Command::Symlink { path, .. } => format!("symlink {path}"),
        Command::Unlink { path } => format!("unlink {path}"),
        Command::SetXattr { path, name, value } => {
            format!("setxattr {name} of {path}, {:#x} bytes", value.len())
        }
        Command::RemoveXattr { path, name } => format!("removexattr {name} of {path}"),
        Command::Fsync { path } => format!("fsync {path}"),
        Command::Fdatasync { path } => format!("fdatasync {path}"),
        Command::Map { name, path, sync, .. } => {
            format!("map {path} as {name}{}", if *sync { " with MAP_SYNC" } else { "" })
        }
        Command::Run { map, ops } => {
            format!("{} on {map}", ops.iter().map(describe_op).collect::<Vec<_>>().join(", "))
        }
        Command::Race { map, first, second, delay, process } => {
            let other = if *process { "process" } else { "thread" };
            let ops = |ops: &[Op]| ops.iter().map(describe_op).collect::<Vec<_>>().join(", ");
            format!(
                "{} on {map} against {} of another {other}, {delay} rounds ahead",
                ops(second),
                ops(first)
            )
        }
        Command::Touch { map, .. } => format!("touch {map}"),
        Command::Msync { map, .. } => format!("msync {map}"),
        Command::Munmap { map } => format!("munmap {map}"),
        Command::Exec { argv } | Command::ExecHeard { argv } => {
            format!("exec {}", shortened(&argv.join(" ")))
        }
        Command::Promise { id } => format!("promise {id}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The first line, and not too much of it.
fn shortened(text: &str) -> String {
    const MOST: usize = 100;
    let line = text.lines().next().unwrap_or_default();
    let short: String = line.chars().take(MOST).collect();
    if short == text { short } else { format!("{short} ...") }
}

fn describe_op(op: &Op) -> String {
    match op {
        Op::Store { at, len, .. } => format!("store {at:#x}+{len:#x}"),
        Op::StoreNonTemporal { at, len, .. } => format!("non-temporal store {at:#x}+{len:#x}"),
        Op::Flush { with, .. } => format!("{with:?}").to_lowercase(),
        Op::Fence(Fence::Sfence) => "sfence".to_owned(),
        Op::Fence(fence) => format!("{fence:?}").to_lowercase(),
        Op::Promise(_) => "promise".to_owned(),
        Op::Marker(id) => format!("marker {id}"),
    }
}
