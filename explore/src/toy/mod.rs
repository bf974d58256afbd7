//! A machine so small that every test can run thousands of it: an agent that executes commands on a toy file system,
//! with the events that a real machine would record.

mod events;
mod fs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use guest_protocol::{Command, Fence, Flush, Found, MAX_MESSAGE, Observation, Op, Reply, call};
use persist::{DrainKind, EventKind, FlushKind, StorePath};

use self::events::{Bus, FUNCTIONS, address_of};
use self::fs::{Errno, Fs, Kind, PAGE};
use crate::target::{Checked, Health, HostError, Laboratory, Region, Stop, Target};

const BASE: u64 = 0x1_0000_0000;
const SIZE: u64 = 1 << 20;
const BUFFER: u64 = 0x1000;
const FILES: u64 = 0x7000_0000_0000;

#[derive(Clone)]
struct State {
    bus: Bus,
    fs: Option<Fs>,
    maps: BTreeMap<String, Map>,
    stage: Stage,
    observations: VecDeque<Observation>,
    reply: Reply,
    buffer: Vec<u8>,
    answer: i64,
    console: Vec<u8>,
}

#[derive(Clone)]
struct Map {
    inode: u32,
    at: u64,
    len: u64,
    sync: bool,
    pages: BTreeSet<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Snapshot,
    Next,
    Observe,
    Done,
    Dead,
    Hung,
}

pub struct Toy {
    state: State,
    levels: Vec<State>,
}

type Outcome = Result<(), Reply>;

fn failed(Errno(call, errno): Errno) -> Reply {
    Reply::Errno { call: call.to_owned(), errno }
}

impl State {
    fn fs(&mut self) -> Result<(&mut Fs, &mut Bus), Reply> {
        match &mut self.fs {
            Some(fs) => Ok((fs, &mut self.bus)),
            None => Err(Reply::Bad { why: "nothing is mounted".to_owned() }),
        }
    }

    fn execute(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Attach { .. } => return Ok(()),
            Command::Mount { options, .. } => {
                if options.contains("oops") {
                    self.console
                        .extend(b"BUG: kernel NULL pointer dereference\nKernel panic - not syncing\n");
                }
                if options.contains("flood") {
                    self.console.resize(8 << 20, b'.');
                }
                if options.contains("hang") {
                    self.stage = Stage::Hung;
                }
                self.fs = Some(Fs::mount(&mut self.bus, options).map_err(failed)?);
                return Ok(());
            }
            Command::Run { map, ops } => return self.straight_line(map, ops),
            // One after the other: the toy has one processor, and its faults do not sleep.
            Command::Race { map, first, second, .. } => {
                self.straight_line(map, first)?;
                return self.straight_line(map, second);
            }
            Command::Promise { id } => {
                self.bus.user(EventKind::Promise { id: *id });
                return Ok(());
            }
            Command::Marker { id } => {
                self.bus.user(EventKind::Marker { id: *id });
                return Ok(());
            }
            Command::ObserveTree => return self.observe_tree(),
            Command::Observe { path } => {
                let observation = self.observe(path);
                self.observations.push_back(observation);
                return Ok(());
            }
            Command::Munmap { map } => {
                self.maps.remove(map);
                return Ok(());
            }
            Command::Map { name, path, at, len, sync, .. } => {
                let inode = self.fs()?.0.inode(path).map_err(failed)?;
                self.maps.insert(
                    name.clone(),
                    Map { inode, at: *at, len: *len, sync: *sync, pages: BTreeSet::new() },
                );
                return Ok(());
            }
            Command::Umount => {
                let (fs, bus) = self.fs()?;
                fs.sync(bus);
                self.fs = None;
                return Ok(());
            }
            _ => (),
        }
        let (fs, bus) = self.fs()?;
        on_files(fs, bus, command).map_err(failed)
    }

    fn straight_line(&mut self, name: &str, ops: &[Op]) -> Outcome {
        let State { bus, fs: Some(fs), maps, .. } = self else {
            return Err(Reply::Bad { why: "nothing is mounted".to_owned() });
        };
        let Some(map) = maps.get_mut(name) else {
            return Err(Reply::Bad { why: "unknown mapping".to_owned() });
        };
        for op in ops {
            match op {
                Op::Store { at, len, pattern } | Op::StoreNonTemporal { at, len, pattern } => {
                    let path = if matches!(op, Op::Store { .. }) {
                        StorePath::Cached
                    } else {
                        StorePath::NonTemporal
                    };
                    assert!(at + len <= map.len, "the host checks ranges");
                    let mut offset = map.at + at;
                    let end = offset + len;
                    while offset < end {
                        let piece = if offset.is_multiple_of(8) && end - offset >= 8 { 8 } else { 1 };
                        let page = offset / PAGE;
                        let block = if map.pages.insert(page) {
                            fs.fault(bus, map.inode, page, map.sync)
                        } else {
                            fs.now.inodes[&map.inode].blocks[&page]
                        };
                        let at = block * PAGE + offset % PAGE;
                        let mut bytes = [0; 8];
                        pattern.fill(offset, &mut bytes[..piece]);
                        fs::user_store(bus, at, &bytes[..piece], path);
                        fs.stored(bus.base + at / 64 * 64);
                        offset += piece as u64;
                    }
                }
                Op::Flush { at, len, with } => {
                    let kind = match with {
                        Flush::Clflush => FlushKind::Clflush,
                        Flush::Clflushopt => FlushKind::Clflushopt,
                        Flush::Clwb => FlushKind::Clwb,
                    };
                    let (start, end) = (map.at + at, map.at + at + len);
                    for offset in (start / 64 * 64..end).step_by(64) {
                        if let Some(block) = fs.now.inodes[&map.inode].blocks.get(&(offset / PAGE)) {
                            bus.user(EventKind::Flush {
                                addr: bus.base + block * PAGE + offset % PAGE,
                                kind,
                            });
                        }
                    }
                }
                Op::Fence(Fence::Sfence) => bus.user(EventKind::Drain(DrainKind::Sfence)),
                Op::Fence(Fence::Mfence) => bus.user(EventKind::Drain(DrainKind::Mfence)),
                Op::Fence(Fence::Lfence) => (),
                Op::Fence(Fence::Lock) => bus.user(EventKind::Drain(DrainKind::Locked)),
                Op::Promise(id) => bus.user(EventKind::Promise { id: *id }),
                Op::Marker(id) => bus.user(EventKind::Marker { id: *id }),
            }
        }
        Ok(())
    }

    fn observe_tree(&mut self) -> Outcome {
        let paths: Vec<String> = self.fs()?.0.now.names.keys().cloned().collect();
        for path in paths {
            let observation = self.observe(&path);
            self.observations.push_back(observation);
        }
        Ok(())
    }

    fn observe(&self, path: &str) -> Observation {
        let inode = self
            .fs
            .as_ref()
            .and_then(|fs| fs.now.names.get(path).map(|inode| (*inode, &fs.now.inodes[inode])));
        let found = match inode {
            None => Found::Nothing,
            Some((_, inode)) if inode.kind == Kind::Directory => Found::Directory,
            Some((number, inode)) => match &inode.kind {
                Kind::Symlink(target) => Found::Symlink { target: target.clone() },
                _ => {
                    let allocated = inode.blocks.len() as u64 * PAGE;
                    let address = FILES + (u64::from(number) << 32);
                    Found::File { size: inode.size, allocated, address, unreadable: Vec::new() }
                }
            },
        };
        let attributes = self.fs.as_ref().map(|fs| fs.attributes(path)).unwrap_or_default();
        Observation { path: path.to_owned(), found, attributes }
    }

    fn call(&mut self, number: u32, message: Option<Vec<u8>>) -> Stop {
        let len = message.map_or(MAX_MESSAGE, |message| {
            self.buffer[..message.len()].copy_from_slice(&message);
            message.len()
        });
        Stop::Call { number, first: BUFFER, second: len as u64 }
    }

    fn run(&mut self) -> Stop {
        self.bus.retired += 1;
        match self.stage {
            Stage::Snapshot | Stage::Done => {
                self.stage = Stage::Next;
                self.call(call::NEXT, None)
            }
            Stage::Next => {
                let command: Command = postcard::from_bytes(&self.buffer[..self.answer as usize])
                    .expect("the host sends commands");
                let before = (!self.bus.undecided.is_empty()).then(|| self.clone());
                self.reply = self.execute(&command).err().unwrap_or(Reply::Ok);
                let lines = self.bus.taken();
                if let Some(before) = before.filter(|_| !lines.is_empty()) {
                    *self = before;
                    return Stop::Undecided { lines };
                }
                self.stage = if self.stage == Stage::Hung {
                    Stage::Hung
                } else if self.console.ends_with(b"not syncing\n") {
                    Stage::Dead
                } else {
                    Stage::Observe
                };
                if std::mem::take(&mut self.bus.stopped) {
                    return Stop::Event(self.bus.stop_at.unwrap_or(0));
                }
                self.run()
            }
            Stage::Observe => match self.observations.pop_front() {
                Some(observation) => {
                    self.call(call::OBSERVE, Some(postcard::to_stdvec(&observation).expect("short")))
                }
                None => {
                    self.stage = Stage::Done;
                    let reply = postcard::to_stdvec(&self.reply).expect("short");
                    self.call(call::DONE, Some(reply))
                }
            },
            Stage::Hung => Stop::Budget,
            Stage::Dead => Stop::Ended("the machine halted for ever"),
        }
    }
}

fn on_files(fs: &mut Fs, bus: &mut Bus, command: &Command) -> Result<(), Errno> {
    match command {
        Command::Mkdir { path } => fs.add(path, Kind::Directory).map(drop),
        Command::Symlink { target, path } => fs.add(path, Kind::Symlink(target.clone())).map(drop),
        Command::Create { path, size } => {
            let inode = fs.add(path, Kind::File)?;
            fs.truncate(bus, inode, size.unwrap_or(0));
            Ok(())
        }
        Command::Write { path, at, len, pattern } => {
            let inode = fs.inode(path)?;
            let at = at.unwrap_or(fs.now.inodes[&inode].size);
            let mut bytes = vec![0; *len as usize];
            pattern.fill(at, &mut bytes);
            fs.write(bus, inode, at, &bytes);
            Ok(())
        }
        Command::Truncate { path, size } => {
            let inode = fs.inode(path)?;
            fs.truncate(bus, inode, *size);
            Ok(())
        }
        Command::Rename { from, to } => fs.rename(from, to),
        Command::Link { from, to } => fs.link(from, to),
        Command::SetXattr { path, name, value } => fs.set_xattr(path, name, Some(value.as_slice())),
        Command::RemoveXattr { path, name } => fs.set_xattr(path, name, None),
        Command::Unlink { path } => fs.unlink(path),
        Command::Fsync { .. }
        | Command::Fdatasync { .. }
        | Command::Sync
        | Command::Syncfs
        | Command::Msync { .. } => {
            fs.sync(bus);
            Ok(())
        }
        Command::Touch { .. } => Ok(()),
        other => panic!("the toy cannot {other:?}"),
    }
}

impl Target for Toy {
    fn run(&mut self, _budget: u64) -> Stop {
        self.state.run()
    }
    /// It has no instructions: its events count.
    fn retired(&self) -> u64 {
        self.event_count()
    }
    fn answer(&mut self, value: i64) {
        self.state.answer = value;
    }
    fn read_guest(&self, address: u64, buffer: &mut [u8]) -> bool {
        if address >= FILES {
            let (inode, at) = (((address - FILES) >> 32) as u32, (address & 0xffff_ffff) as usize);
            let content = self.state.fs.as_ref().map(|fs| fs.content(&self.state.bus, inode));
            return content
                .and_then(|content| {
                    content.get(at..at + buffer.len()).map(|bytes| buffer.copy_from_slice(bytes))
                })
                .is_some();
        }
        let at = (address - BUFFER) as usize;
        self.state.buffer.get(at..at + buffer.len()).map(|bytes| buffer.copy_from_slice(bytes)).is_some()
    }
    fn write_guest(&mut self, address: u64, bytes: &[u8]) -> bool {
        let at = (address - BUFFER) as usize;
        self.state.buffer.get_mut(at..at + bytes.len()).map(|buffer| buffer.copy_from_slice(bytes)).is_some()
    }
    fn translate(&self, address: u64) -> Option<u64> {
        let (inode, at) = ((address.checked_sub(FILES)? >> 32) as u32, address & 0xffff_ffff);
        let block = self.state.fs.as_ref()?.now.inodes.get(&inode)?.blocks.get(&(at / PAGE))?;
        Some(BASE + block * PAGE + at % PAGE)
    }
    fn regions(&self) -> Vec<Region> {
        vec![Region { base: BASE, size: SIZE, dimm: 1 }]
    }
    fn read_pmem(&self, address: u64, buffer: &mut [u8]) {
        self.state.bus.look(address - BASE, buffer);
    }
    fn write_pmem(&mut self, address: u64, bytes: &[u8]) {
        self.state.bus.write(address - BASE, bytes);
    }
    fn push(&mut self) {
        self.levels.push(self.state.clone());
    }
    fn rewind(&mut self) -> usize {
        self.state = self.levels.last().expect("a level is open").clone();
        1
    }
    fn pop(&mut self) -> usize {
        self.state = self.levels.pop().expect("a level is open");
        1
    }
    fn set_undecided(&mut self, lines: &[(u64, u64)]) -> Result<(), HostError> {
        let bytes = lines.iter().flat_map(|(line, mask)| {
            (0..64).filter(move |byte| mask >> byte & 1 == 1).map(move |byte| (line + byte, line + byte))
        });
        self.state.bus.undecided = bytes.collect();
        Ok(())
    }
    fn decide(&mut self, line: u64, mask: u64, content: &[u8; 64]) {
        self.state.bus.decide(line, mask, content);
    }
    fn origins(&self, address: u64, len: usize) -> Vec<(usize, u64)> {
        let (Some(at), Some(fs)) = (address.checked_sub(FILES), &self.state.fs) else { return Vec::new() };
        let (inode, at) = ((at >> 32) as u32, (at & 0xffff_ffff) as usize);
        let of_file = fs.origins(&self.state.bus, inode).into_iter();
        of_file
            .filter(|(offset, _)| (at..at + len).contains(offset))
            .map(|(offset, origin)| (offset - at, origin))
            .collect()
    }
    fn undecided_runs(&self, address: u64, len: usize) -> Vec<(usize, usize, u64)> {
        self.state.bus.origins(address - BASE, len).into_iter().map(|(at, origin)| (at, 1, origin)).collect()
    }
    fn changed(&self) -> Vec<u64> {
        Vec::new()
    }
    fn set_tracing(&mut self, on: bool) {
        self.state.bus.tracing = on;
    }
    fn take_events(&mut self) -> Vec<persist::Event> {
        std::mem::take(&mut self.state.bus.events)
    }
    fn event_count(&self) -> u64 {
        self.state.bus.next
    }
    fn stop_at_event(&mut self, seq: Option<u64>) {
        self.state.bus.stop_at = seq;
    }
    fn set_watched(&mut self, addresses: &[u64]) {
        self.state.bus.watched =
            addresses.iter().zip(0..).map(|(address, index)| (*address, index)).collect();
    }
    fn take_console(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.state.console)
    }
}

/// Where toys come from.
pub struct ToyLaboratory {
    images: Vec<Arc<Vec<u8>>>,
    /// What every check says.
    pub health: Health,
    /// What it says was run.
    pub kernel: String,
}

impl ToyLaboratory {
    pub fn new() -> ToyLaboratory {
        let mut image = vec![0; SIZE as usize];
        Fs::format(&mut image);
        ToyLaboratory { images: vec![Arc::new(image)], health: Health::Clean, kernel: "toy".to_owned() }
    }
}

impl Laboratory for ToyLaboratory {
    type Target = Toy;

    fn start(&self) -> Result<Toy, HostError> {
        let state = State {
            bus: Bus::new(BASE, SIZE),
            fs: None,
            maps: BTreeMap::new(),
            stage: Stage::Snapshot,
            observations: VecDeque::new(),
            reply: Reply::Ok,
            buffer: vec![0; MAX_MESSAGE],
            answer: 0,
            console: Vec::new(),
        };
        Ok(Toy { state, levels: Vec::new() })
    }
    fn images(&self) -> &[Arc<Vec<u8>>] {
        &self.images
    }
    fn symbol(&self, name: &str) -> Option<u64> {
        address_of(name)
    }
    fn function_at(&self, address: u64) -> Option<(String, u64)> {
        let offset = address.checked_sub(0xffff_0000)?;
        FUNCTIONS.get((offset / 0x100) as usize).map(|name| ((*name).to_owned(), offset % 0x100))
    }
    fn check(&self, _changed: &[(u64, Vec<u8>)]) -> Result<Health, HostError> {
        Ok(self.health.clone())
    }
    fn check_and_tell(&self, changed: &[(u64, Vec<u8>)]) -> Result<Checked, HostError> {
        // The toy's checker reads nothing.
        Ok(Checked { health: self.check(changed)?, read: Vec::new() })
    }
    fn stack(&self, _target: &Toy) -> Vec<String> {
        vec!["toy_store+0x0".to_owned(), "toy_syscall+0x10".to_owned()]
    }
    fn provenance(&self) -> Vec<(String, String)> {
        vec![("kernel".to_owned(), self.kernel.clone())]
    }
}
