//! The machine: processors on a board, run until something happens.

use std::ops::Range;
use std::path::Path;

use cpu::{Cpu, CpuView, Exit};
use devices::Signal;
use persist::{Event, EventKind};

use crate::board::{Board, BoardState};
use crate::boot;
use crate::memory::{Memory, Region};
use crate::processors::Processors;
use crate::schedule::Schedule;
use crate::trace_hash::TraceHash;
use crate::translate::translate;
use crate::{Error, MachineConfig, Unmapped, file, layout};

/// Why [`Machine::run`] came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest called the control port. Give its result by [`Machine::answer`].
    Call(Call),
    /// The budget is used up.
    Budget,
    /// All processors are halted and nothing wakes them: no timer is armed, or 100,000 went off in vain.
    Idle,
    /// The guest powered the machine off.
    PowerOff,
    /// The guest reset the machine.
    Reset,
    /// Triple fault.
    Shutdown,
    /// The guest wrote this value to the debug-exit port.
    DebugExit(u32),
    /// Right behind the event of [`Machine::stop_at_event`].
    Event(u64),
    /// In front of the function with this index in [`Machine::set_watched`].
    Symbol(u32),
    /// The guest did something that this machine does not offer.
    Unsupported {
        /// Linear address of the instruction.
        rip: u64,
        /// What it was.
        what: String,
    },
}

/// A call of the control port: see the guest-protocol crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// EAX: one of `guest_protocol::call`.
    pub number: u32,
    /// RDI
    pub first: u64,
    /// RSI
    pub second: u64,
}

/// Timers that halted processors may sleep through in a row. More means that they never wake it: its interrupts are
/// off, or the timer's line is masked.
const MAX_SKIPS: u32 = 100_000;

/// The processor that is not started by a message.
const BOOTSTRAP: u8 = 0;

/// How often time was skipped since the last instruction.
struct Skips {
    retired: u64,
    count: u32,
}

impl Skips {
    /// Counts one more; false when that is too often.
    fn again(&mut self, retired: u64) -> bool {
        if self.retired != retired {
            *self = Skips { retired, count: 0 };
        }
        self.count += 1;
        self.count <= MAX_SKIPS
    }
}

/// One snapshot level, memory aside.
struct Level {
    processors: Processors,
    board: BoardState,
    hash: TraceHash,
    recorded: usize,
}

/// A whole machine.
pub struct Machine {
    cpu: Cpu<Board>,
    board: Board,
    schedule: Schedule,
    levels: Vec<Level>,
}

impl Machine {
    /// A machine with `config`'s kernel loaded, in front of its first instruction.
    pub fn new(config: &MachineConfig) -> Result<Machine, Error> {
        config.check()?;
        let plan = layout::Plan::new(config);
        let mut memory = Memory::new(&plan.banks(), None)?;
        let rsdp = plan.write_firmware(&mut memory)?;
        let mut cpu = Cpu::new(config.cpus, config.seed);
        let boot = boot::Boot {
            kernel: &config.kernel,
            initrd: &config.initrd,
            modules: &config.modules,
            command_line: &config.command_line,
            low_memory: config.memory,
            firmware: layout::FIRMWARE,
            rsdp,
            seed: config.seed,
            protocol: config.protocol,
        };
        let state = boot::load(&mut memory, &boot, cpu.state())?;
        cpu.set_state(state);
        memory.take_written();
        let board = Board::new(memory, plan.wiring(), config.cpus);
        Ok(Machine { cpu, board, schedule: Schedule::new(config.seed), levels: Vec::new() })
    }

    /// Writes the machine as it stands, without its open levels, events and console output, to a file.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let board = &self.board;
        let processors = Processors::of(&self.cpu, &self.schedule);
        file::save(path, processors, board.state(), board.wiring.clone(), &board.memory)
    }

    /// A machine as it was saved. Its memory is a private copy-on-write mapping of the file, which must stay as it
    /// is while the machine lives.
    pub fn load(path: &Path) -> Result<Machine, Error> {
        let (body, memory) = file::load(path)?;
        let count = body.processors.count();
        let (mut cpu, mut schedule) = (Cpu::new(count, 0), Schedule::new(0));
        let mut board = Board::new(memory, body.wiring, count);
        board.set_state(body.board);
        body.processors.restore(&mut cpu, &mut board, &mut schedule);
        Ok(Machine { cpu, board, schedule, levels: Vec::new() })
    }

    /// Runs until something happens, or `budget` instructions have retired.
    pub fn run(&mut self, budget: u64) -> Stop {
        let end = self.retired().saturating_add(budget);
        let mut skips = Skips { retired: self.retired(), count: 0 };
        loop {
            self.tell_cpu_what_changed();
            self.board.expire(self.cpu.time());
            self.act_on_signals();
            let exit = match self.take_turn() {
                Err(stop) => return stop,
                Ok(Some(slice)) => self.run_slice(slice.min(end.saturating_sub(self.retired()))),
                Ok(None) if self.retired() >= end => Exit::Limit,
                Ok(None) => Exit::Halted,
            };
            if let Some(stop) = self.board.take_stop() {
                return stop;
            }
            if let Some((view, number)) = self.board.take_call()
                && let Some(stop) = self.called(&view, number)
            {
                return stop;
            }
            match exit {
                Exit::Limit | Exit::Paused if self.retired() >= end => return Stop::Budget,
                Exit::Limit | Exit::Paused | Exit::Attention => {}
                Exit::Halted if self.anybody_can_run() => {}
                Exit::Halted => match self.board.deadline() {
                    Some(deadline) if skips.again(self.retired()) => {
                        self.cpu.advance_time(deadline.saturating_sub(self.cpu.time()));
                        self.board.recorder.hash.waited(deadline);
                    }
                    _ => return Stop::Idle,
                },
                Exit::Shutdown => return Stop::Shutdown,
                Exit::Unsupported { rip, what } => return Stop::Unsupported { rip, what: what.to_owned() },
            }
        }
    }

    /// Selects the processor whose turn it is. Returns how many instructions it may retire, `None` if every processor
    /// is halted.
    fn take_turn(&mut self) -> Result<Option<u64>, Stop> {
        let (current, count) = (self.cpu.current(), self.cpu.processors());
        let can_run = |vcpu| self.cpu.can_run(vcpu, self.board.interrupts(vcpu));
        let Some(turn) = self.schedule.turn(current, count, can_run) else { return Ok(None) };
        if count == 1 {
            return Ok(Some(u64::MAX));
        }
        if turn != current {
            let view = self.cpu.view();
            let seq = self.board.recorder.next();
            if self.board.recorder.stops(&view) {
                return Err(Stop::Event(seq));
            }
            self.board.recorder.hash.turn(turn, view.retired, self.cpu.rip());
            self.cpu.select(turn);
            self.board.select(turn);
        }
        Ok(Some(self.schedule.slice(turn != current)))
    }

    /// Lets the selected processor go on for `count` instructions, or until the next timer goes off.
    fn run_slice(&mut self, count: u64) -> Exit {
        let count = match self.board.deadline() {
            // A deadline is in TSC ticks; while instructions retire the two clocks run in step.
            Some(deadline) => count.min(deadline.saturating_sub(self.cpu.time()).max(1)),
            None => count,
        };
        let before = self.cpu.retired();
        let exit = self.cpu.run(&mut self.board, before.saturating_add(count));
        self.schedule.retired(self.cpu.retired() - before);
        if exit == Exit::Paused {
            self.schedule.give_up();
        }
        self.act_on_signals();
        exit
    }

    fn anybody_can_run(&self) -> bool {
        (0..self.cpu.processors()).any(|vcpu| self.cpu.can_run(vcpu, self.board.interrupts(vcpu)))
    }

    /// Does to processors what interrupt messages ask for.
    fn act_on_signals(&mut self) {
        for (vcpu, signal) in self.board.take_signals() {
            match signal {
                Signal::Init => {
                    self.board.init(vcpu);
                    self.cpu.init(vcpu, vcpu == BOOTSTRAP);
                }
                Signal::StartUp { page } => self.cpu.start_up(vcpu, page),
                Signal::Nmi => self.cpu.request_nmi_at(vcpu),
            }
        }
    }

    /// A call of the control port: declarations are recorded at once, the rest is for the host to answer.
    fn called(&mut self, view: &CpuView, number: u32) -> Option<Stop> {
        let state = self.cpu.state();
        let (first, second) = (state.regs[7], state.regs[6]);
        let Some(kind) = declaration(number, first as u32) else {
            return Some(Stop::Call(Call { number, first, second }));
        };
        self.answer(0);
        let seq = self.board.recorder.next();
        self.board.recorder.declared(view, kind).then_some(Stop::Event(seq))
    }

    /// Instructions retired since the start of the machine, by all processors together.
    pub fn retired(&self) -> u64 {
        self.cpu.retired_by_all()
    }

    /// Persistent memory, in the order of the configuration.
    pub fn regions(&self) -> &[Region] {
        &self.board.wiring.regions
    }

    /// Reads persistent memory (or RAM) at a guest-physical address. Holes read as 0xff.
    pub fn read_pmem(&self, addr: u64, buffer: &mut [u8]) {
        if !self.board.memory.read(addr, buffer) {
            buffer.fill(0xff);
        }
    }

    /// Writes persistent memory at a guest-physical address as it was before power-on: no event, nothing pending.
    /// Holes ignore it.
    pub fn write_pmem(&mut self, addr: u64, bytes: &[u8]) {
        self.board.memory.write(addr, bytes);
    }

    /// Opens a snapshot level: CPU, devices, RAM, persistent memory and the numbering of events.
    pub fn push(&mut self) {
        self.tell_cpu_what_changed();
        self.board.memory.push();
        self.cpu.forget_writable();
        self.levels.push(Level {
            processors: Processors::of(&self.cpu, &self.schedule),
            board: self.board.state(),
            hash: self.board.recorder.hash.clone(),
            recorded: self.board.recorder.recorded(),
        });
    }

    /// Goes back to the last [`Machine::push`], whose level stays open. Returns how many pages had changed.
    pub fn rewind(&mut self) -> usize {
        let Some(level) = self.levels.last() else { return 0 };
        let pages = self.board.memory.rewind();
        self.board.set_state(level.board.clone());
        level.processors.restore(&mut self.cpu, &mut self.board, &mut self.schedule);
        self.board.recorder.hash.clone_from(&level.hash);
        self.board.recorder.truncate(level.recorded);
        self.tell_cpu_what_changed();
        self.cpu.forget_writable();
        pages
    }

    /// Goes back to the last [`Machine::push`] and closes its level. Returns how many pages had changed.
    pub fn pop(&mut self) -> usize {
        let pages = self.rewind();
        self.board.memory.pop();
        self.levels.pop();
        self.cpu.forget_writable();
        pages
    }

    /// Pages changed since the last [`Machine::push`].
    pub fn dirty_pages(&self) -> usize {
        self.board.memory.dirty_pages()
    }

    /// Guest-physical addresses of the pages of persistent memory changed since the last [`Machine::push`], ascending.
    pub fn changed_pmem(&self) -> Vec<u64> {
        self.board.memory.changed_pmem()
    }

    /// Records events from now on, or stops doing so.
    pub fn set_tracing(&mut self, on: bool) {
        self.board.recorder.on = on;
    }

    /// Hashes what the machine does from now on: which processor executed how far, how time was skipped, the events.
    pub fn start_trace_hash(&mut self) {
        self.board.recorder.hash.start();
    }

    /// The hash since [`Machine::start_trace_hash`], in hexadecimal: two machines with the same one did the same.
    pub fn trace_hash(&self) -> Option<String> {
        self.board.recorder.hash.value(&self.cpu).map(|hash| hash.to_hex().to_string())
    }

    /// The events recorded since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.board.recorder.take()
    }

    /// Number that the next event gets.
    pub fn event_count(&self) -> u64 {
        self.board.recorder.next()
    }

    /// Stops right behind this event; `None` for no event.
    pub fn stop_at_event(&mut self, seq: Option<u64>) {
        self.board.recorder.stop_at = seq;
    }

    /// Records [`EventKind::Symbol`] with the index in `symbols` whenever the processor is about to execute one of
    /// these linear addresses.
    pub fn set_watched(&mut self, symbols: &[u64]) {
        self.board.recorder.set_watched(symbols);
        self.cpu.set_probes(&self.board.recorder.probes());
    }

    /// Additionally stops there.
    pub fn stop_at_symbols(&mut self, on: bool) {
        self.board.recorder.stop_at_symbols = on;
    }

    /// The kernel's flushcache copies, entry to end: stores in them carry the number of their call.
    pub fn set_copy_functions(&mut self, ranges: &[Range<u64>]) {
        self.board.recorder.set_copy_functions(ranges);
        self.cpu.set_probes(&self.board.recorder.probes());
    }

    /// Whether the guest has stored to persistent memory since this machine was made or loaded.
    pub fn pmem_written(&self) -> bool {
        self.board.pmem_written
    }

    /// Guest-physical address of a guest-virtual one under the current page tables.
    pub fn translate(&self, virt: u64) -> Option<u64> {
        translate(&self.board.memory, &self.cpu.state(), virt)
    }

    /// Reads guest-virtual memory.
    pub fn read_guest(&self, virt: u64, buffer: &mut [u8]) -> Result<(), Unmapped> {
        let state = self.cpu.state();
        for piece in crate::memory::split(virt, buffer.len()) {
            let address = virt.wrapping_add(piece.start as u64);
            let physical = translate(&self.board.memory, &state, address).ok_or(Unmapped { address })?;
            if !self.board.memory.read(physical, &mut buffer[piece]) {
                return Err(Unmapped { address });
            }
        }
        Ok(())
    }

    /// Writes guest-virtual memory, whatever its permissions. In persistent memory that is a store by the host.
    pub fn write_guest(&mut self, virt: u64, bytes: &[u8]) -> Result<(), Unmapped> {
        let state = self.cpu.state();
        for piece in crate::memory::split(virt, bytes.len()) {
            let address = virt.wrapping_add(piece.start as u64);
            let physical = translate(&self.board.memory, &state, address).ok_or(Unmapped { address })?;
            if !self.board.memory.write(physical, &bytes[piece.clone()]) {
                return Err(Unmapped { address });
            }
            if self.board.memory.is_pmem(physical) {
                self.board.recorder.agent_store(physical, &bytes[piece]);
            }
        }
        Ok(())
    }

    /// Result of the last [`Stop::Call`], into RAX.
    pub fn answer(&mut self, value: i64) {
        self.cpu.set_register(0, value as u64);
    }

    /// What the guest has written to the serial console since the last call.
    pub fn take_console(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.board.console)
    }

    /// Types on the serial console.
    pub fn type_console(&mut self, bytes: &[u8]) {
        self.board.type_console(bytes);
        self.act_on_signals();
    }

    /// The registers of the processor that executed last: behind [`Stop::Call`] and [`Stop::Event`], the one that did
    /// it.
    pub fn cpu_state(&self) -> cpu::State {
        self.cpu.state()
    }

    /// Drops what the processor remembers of pages that somebody else wrote.
    fn tell_cpu_what_changed(&mut self) {
        for page in self.board.memory.take_written() {
            self.cpu.memory_changed(page);
        }
    }
}

/// A promise or marker that the guest declares by a call, `None` for calls that the host answers.
fn declaration(number: u32, id: u32) -> Option<EventKind> {
    match number {
        guest_protocol::call::PROMISE => Some(EventKind::Promise { id }),
        guest_protocol::call::MARKER => Some(EventKind::Marker { id }),
        _ => None,
    }
}
