//! The machine: processors on a board, run until something happens.

use std::ops::Range;
use std::path::Path;

use persist::Event;

use crate::board::{Board, BoardState};
use crate::boot;
use crate::engine::{Engine, Running};
use crate::memory::{Memory, Region};
use crate::pages::Pages;
use crate::processors::Processors;
use crate::software::Software;
use crate::trace_hash::TraceHash;
use crate::translate::translate;
use crate::{Difference, Error, FlushFault, KvmCounts, MachineConfig, Snapshot, Unmapped, file, layout};

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
    /// The next instruction would use undecided bytes ([`Machine::set_undecided`]) whose origins lie in these lines of
    /// persistent memory: guest-physical, ascending. Nothing of it is visible yet; of a repeated instruction, nothing of
    /// the next iteration. Running on begins with it, and comes back at once until [`Machine::decide`] was called for
    /// the lines.
    Undecided {
        /// Addresses, multiples of 64.
        lines: Vec<u64>,
    },
    /// A device would have read undecided bytes of RAM. It was told that there is no memory there instead: this run of the
    /// machine means nothing.
    UndecidedDevice {
        /// Guest-physical address of what it would have read.
        address: u64,
    },
    /// The engine cannot go on, for a reason outside of the guest.
    Engine(String),
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

/// One snapshot level, memory aside.
struct Level {
    processors: Processors,
    board: BoardState,
    hash: TraceHash,
    recorded: usize,
}

/// A whole machine.
pub struct Machine {
    software: Software,
    board: Board,
    running: Running,
    levels: Vec<Level>,
}

impl Machine {
    /// A machine with `config`'s kernel loaded, in front of its first instruction.
    pub fn new(config: &MachineConfig) -> Result<Machine, Error> {
        Machine::on(Engine::Software, config)
    }

    /// As [`Machine::new`], on an engine. Processors of a machine that is made for KVM lack what the host's do not have,
    /// and their TSC may be another one; they keep that on any engine.
    pub fn on(engine: Engine, config: &MachineConfig) -> Result<Machine, Error> {
        config.check()?;
        let plan = layout::Plan::new(config);
        let mut memory = Memory::new(&plan.banks(), None)?;
        let rsdp = plan.write_firmware(&mut memory)?;
        let mut software = Software::new(config.cpus, config.seed);
        software.set_model(cpu::Model { machine_checks: config.has_media_errors(), ..engine.model()? });
        let boot = boot::Boot {
            kernel: &config.kernel,
            initrd: &config.initrd,
            modules: &config.modules,
            command_line: &config.command_line,
            low_memory: config.memory,
            firmware: layout::FIRMWARE,
            legacy_pmem: &plan.legacy_pmem(),
            rsdp,
            seed: config.seed,
            protocol: config.protocol,
        };
        let state = boot::load(&mut memory, &boot, software.cpu.state())?;
        software.cpu.set_state(state);
        memory.take_written();
        let mut board = Board::new(memory, plan.wiring(), config.cpus);
        for (index, device) in config.virtio_pmem.iter().enumerate() {
            board.set_flush_faults(config.nvdimms.len() + index, &device.faults);
        }
        let running = Running::new(engine, &software, &board)?;
        Ok(Machine { software, board, running, levels: Vec::new() })
    }

    /// The engine that the machine has.
    pub fn engine(&self) -> Engine {
        self.running.engine()
    }

    /// Goes over to another engine where the machine stands, and records no longer. KVM refuses a machine whose processors have what the host's
    /// lack, or that has undecided bytes.
    pub fn set_engine(&mut self, engine: Engine) -> Result<(), Error> {
        if engine != self.engine() {
            if !self.board.memory.undecided.is_empty() {
                return Err(Error::Undecided("another engine"));
            }
            self.board.memory.expect_late_names(false)?;
            self.board.memory.note_touched(false);
            self.set_tracing(false);
            self.running = Running::new(engine, &self.software, &self.board)?;
        }
        Ok(())
    }

    /// On KVM: how many instructions the software processor executes at most when it does what KVM cannot, at least 1.
    /// Without this it is 1, and all of supervisor mode where KVM emulates that.
    pub fn set_assist(&mut self, instructions: u64) {
        if let Running::Kvm(kvm) = &mut self.running {
            kvm.set_help(crate::kvm::Help::Instructions(instructions));
        }
    }

    /// What the machine did on KVM since it went over to it; `None` on the software engine.
    pub fn kvm_counts(&self) -> Option<KvmCounts> {
        match &self.running {
            Running::Software => None,
            Running::Kvm(kvm) => Some(kvm.counts()),
        }
    }

    /// What the machine's processors lack that those of the software engine have.
    pub fn differences(&self) -> Vec<Difference> {
        crate::kvm::differences(&self.software.cpu.state().model)
    }

    /// Writes the machine as it stands, without its open levels, events and console output, to a file. Not while
    /// something is undecided.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        if !self.board.memory.undecided.is_empty() {
            return Err(Error::Undecided("a snapshot file"));
        }
        let board = &self.board;
        let processors = Processors::of(&self.software);
        file::save(path, processors, board.state(), board.wiring.clone(), &board.memory)
    }

    /// The machine in a file: [`Snapshot::open`] and [`Snapshot::machine`].
    ///
    /// # Errors
    /// As they have.
    pub fn load(path: &Path) -> Result<Machine, Error> {
        Snapshot::open(path)?.machine()
    }

    pub(crate) fn from_saved(body: file::Body, memory: Memory) -> Machine {
        let count = body.processors.count();
        let mut software = Software::new(count, 0);
        let mut board = Board::new(memory, body.wiring, count);
        board.set_state(body.board);
        body.processors.restore(&mut software, &mut board);
        Machine { software, board, running: Running::Software, levels: Vec::new() }
    }

    /// Runs until something happens, or `budget` instructions have retired; on KVM, or so many nanoseconds have passed.
    pub fn run(&mut self, budget: u64) -> Stop {
        self.running.run(&mut self.software, &mut self.board, budget)
    }

    /// Time of the machine in nanoseconds.
    pub fn time(&self) -> u64 {
        self.software.cpu.time()
    }

    /// Instructions retired since the start of the machine, by all processors together.
    pub fn retired(&self) -> u64 {
        self.software.cpu.retired_by_all()
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

    /// The media loses every line that holds one of `len` bytes at a guest-physical address, now:
    /// [`persist::EventKind::Poisoned`].
    ///
    /// # Errors
    /// [`Error::NoMedia`] where no NVDIMM with media errors has all of the range.
    pub fn poison(&mut self, address: u64, len: u64) -> Result<(), Error> {
        let end = address.checked_add(len).ok_or(Error::NoMedia { address, len })?;
        if !self.board.poison(address..end) {
            return Err(Error::NoMedia { address, len });
        }
        self.software.cpu.forget_translations();
        Ok(())
    }

    /// These lines of persistent memory are lost, and no others, as they were before power-on: no event.
    pub fn set_poisoned(&mut self, lines: &[u64]) {
        self.board.set_errors(lines);
        self.software.cpu.forget_translations();
    }

    /// Power went `count` times and what NVDIMMs were to save was not saved: those with [`crate::Nvdimm::smart`] tell it.
    pub fn set_dirty_shutdowns(&mut self, count: u32) {
        self.board.set_dirty_shutdowns(count);
    }

    /// The lines of persistent memory whose content is lost, ascending.
    pub fn poisoned(&self) -> Vec<u64> {
        self.board.errors().lines().collect()
    }

    /// From now on these bytes of persistent memory are undecided, and no others: pairs of a line's guest-physical
    /// address (a multiple of 64) and a mask of its bytes, byte n in bit n. What stands there is a placeholder: REP MOVS
    /// and MOVS copy it, and the copies are undecided, too; a store over them decides; whatever else would use them ends
    /// the run ([`Stop::Undecided`]). Snapshot levels go back to what was undecided when they were opened.
    ///
    /// The host's own ways to memory ([`Machine::read_pmem`], [`Machine::read_guest`]) read placeholders: ask
    /// [`Machine::undecided_runs`] and [`Machine::origins`]. What the host writes is decided.
    ///
    /// Only the software engine can do that.
    pub fn set_undecided(&mut self, lines: &[(u64, u64)]) -> Result<(), Error> {
        if self.engine() != Engine::Software {
            return Err(Error::Undecided("KVM"));
        }
        let wrong = |line: u64| !line.is_multiple_of(64) || !self.board.memory.is_pmem(line);
        if let Some(&(line, _)) = lines.iter().find(|(line, _)| wrong(*line)) {
            return Err(Error::NoLine { address: line });
        }
        self.board.memory.undecided.set(lines);
        self.software.cpu.forget_translations();
        Ok(())
    }

    /// The undecided bytes of a line of persistent memory that are in `mask` are decided: they hold what `content` says,
    /// and so does every copy of them. No event.
    pub fn decide(&mut self, line: u64, mask: u64, content: &[u8; 64]) {
        self.board.memory.decide(line, mask, content);
        self.software.notice_changes(&mut self.board);
    }

    /// The undecided ones among `len` bytes at a guest-physical address, in runs whose origins follow each other: offset in
    /// the range, length, and origin of the first byte, ascending.
    pub fn undecided_runs(&self, addr: u64, len: usize) -> Vec<(usize, usize, u64)> {
        self.board.memory.undecided.runs(addr, len).collect()
    }

    /// The undecided ones among `len` bytes at a guest-virtual address: offset in the range and origin, ascending. Pages
    /// that are not mapped have none.
    pub fn origins(&self, virt: u64, len: usize) -> Vec<(usize, u64)> {
        if self.board.memory.undecided.is_empty() {
            return Vec::new();
        }
        let state = self.software.cpu.state();
        let mut found = Vec::new();
        for piece in crate::memory::split(virt, len) {
            let address = virt.wrapping_add(piece.start as u64);
            let Some(physical) = translate(&self.board.memory, &state, address) else { continue };
            let undecided = self.board.memory.undecided.origins(physical, piece.len());
            found.extend(undecided.map(|(at, origin)| (piece.start + at, origin)));
        }
        found
    }

    /// Opens a snapshot level: CPU, devices, RAM, persistent memory, what of it is undecided, and the
    /// numbering of events.
    pub fn push(&mut self) {
        self.software.notice_changes(&mut self.board);
        self.board.memory.push();
        self.software.cpu.forget_writable();
        self.levels.push(Level {
            processors: Processors::of(&self.software),
            board: self.board.state(),
            hash: self.board.recorder.hash.clone(),
            recorded: self.board.recorder.recorded(),
        });
    }

    /// Goes back to the last [`Machine::push`], whose level stays open. Returns how many pages had changed.
    pub fn rewind(&mut self) -> usize {
        let Some(level) = self.levels.last() else { return 0 };
        let pages = self.board.memory.rewind();
        if self.board.has_other_errors(&level.board) {
            self.software.cpu.forget_translations();
        }
        self.board.set_state(level.board.clone());
        level.processors.restore(&mut self.software, &mut self.board);
        self.board.recorder.hash.clone_from(&level.hash);
        self.board.recorder.truncate(level.recorded);
        self.software.notice_changes(&mut self.board);
        self.software.cpu.forget_writable();
        pages
    }

    /// Goes back to the last [`Machine::push`] and closes its level. Returns how many pages had changed.
    pub fn pop(&mut self) -> usize {
        let pages = self.rewind();
        self.board.memory.pop();
        self.levels.pop();
        self.software.cpu.forget_writable();
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
    ///
    /// On KVM, stores, flushes and fences are not told. Whenever the machine is looked at (in front of device flushes,
    /// promises, watched symbols, and when the software processor takes over or is done), sectors of persistent memory
    /// that have changed are recorded as if the kernel had copied them there as a whole and fenced that. That is sound for
    /// the platforms `virtio-pmem` and `host-survives`, and for no other.
    pub fn set_tracing(&mut self, on: bool) {
        let by_pages = on && self.engine() == Engine::Kvm;
        self.board.recorder.on = on;
        self.board.recorder.by_pages = by_pages;
        self.board.pages = by_pages.then(|| Pages::new(&self.board.memory));
    }

    /// Records also what empties a store buffer ([`persist::EventKind::StoresVisible`], and every drain behind a store):
    /// for the platform `eadr`, which alone needs it. Other events keep their order, not their numbers.
    pub fn set_store_buffer_events(&mut self, on: bool) {
        self.board.recorder.store_buffer = on;
        self.software.cpu.tell_store_buffer(on);
    }

    /// Hashes what the machine does from now on: which processor executed how far, how time was skipped, the events.
    pub fn start_trace_hash(&mut self) {
        self.board.recorder.hash.start();
    }

    /// The hash since [`Machine::start_trace_hash`], in hexadecimal: two machines with the same one did the same.
    pub fn trace_hash(&self) -> Option<String> {
        self.board.recorder.hash.value(&self.software.cpu).map(|hash| hash.to_hex().to_string())
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

    /// Records [`persist::EventKind::Symbol`] with the index in `symbols` whenever the processor is about to execute one of
    /// these linear addresses. KVM, where it executes natively, knows four, those of the copy functions included: the
    /// lowest.
    pub fn set_watched(&mut self, symbols: &[u64]) {
        self.board.recorder.set_watched(symbols);
        self.software.cpu.set_probes(&self.board.recorder.probes());
    }

    /// Additionally stops there.
    pub fn stop_at_symbols(&mut self, on: bool) {
        self.board.recorder.stop_at_symbols = on;
    }

    /// The kernel's flushcache copies, entry to end: stores in them carry the number of their call.
    pub fn set_copy_functions(&mut self, ranges: &[Range<u64>]) {
        self.board.recorder.set_copy_functions(ranges);
        self.software.cpu.set_probes(&self.board.recorder.probes());
    }

    /// From now on these faults are injected into the virtio-pmem device of region `index` of [`Machine::regions`], and
    /// no others; its flushes are counted anew, from 1. False if the region is of another kind.
    pub fn set_flush_faults(&mut self, index: usize, faults: &[FlushFault]) -> bool {
        self.board.set_flush_faults(index, faults)
    }

    /// Whether the guest has stored to persistent memory since this machine was made or loaded.
    pub fn pmem_written(&self) -> bool {
        self.board.pmem_written
    }

    /// Guest-physical address of a guest-virtual one under the current page tables.
    pub fn translate(&self, virt: u64) -> Option<u64> {
        translate(&self.board.memory, &self.software.cpu.state(), virt)
    }

    /// Reads guest-virtual memory.
    pub fn read_guest(&self, virt: u64, buffer: &mut [u8]) -> Result<(), Unmapped> {
        let state = self.software.cpu.state();
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
        let state = self.software.cpu.state();
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
        self.software.cpu.set_register(0, value as u64);
    }

    /// What the guest has written to the serial console since the last call.
    pub fn take_console(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.board.console)
    }

    /// Whether the guest has asked to be interrupted by what is typed, as Linux does while the console is open.
    pub fn console_listens(&self) -> bool {
        self.board.console_listens()
    }

    /// Types on the serial console. Returns how many bytes fitted: the port holds 64 until the guest reads them.
    pub fn type_console(&mut self, bytes: &[u8]) -> usize {
        let taken = self.board.type_console(bytes);
        self.software.act_on_signals(&mut self.board);
        taken
    }

    /// The registers of the processor that executed last: behind [`Stop::Call`] and [`Stop::Event`], the one that did
    /// it.
    pub fn cpu_state(&self) -> cpu::State {
        self.software.cpu.state()
    }
}
