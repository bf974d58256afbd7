//! Steps to commands for the guest, checked against the model of the file system.

use guest_protocol::{Command, Op, Pattern};
use toml::Spanned;

use super::describe::describe;
use super::schema::OracleOptions;
use super::shape::{DEVICE, check_on_device, check_shape, refuse};
use super::step_schema::{
    Acknowledge, FallocateMode, PatternName, RawFileRange, RawFlush, RawPromise, RawPromiseTable,
    RawSetXattr, RawStep,
};
use super::{Lost, Planned, ScenarioError, Source, Step};
use crate::oracle::history::History;
use crate::oracle::model::{Model, Refusal};

pub(super) struct Program {
    pub steps: Vec<Step>,
    pub commands: Vec<Planned>,
    pub history: History,
}

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

struct Compiler {
    model: Model,
    steps: Vec<Step>,
    commands: Vec<Planned>,
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
        check_shape(step)?;
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
