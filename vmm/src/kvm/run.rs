//! The run loop: lets processors execute in KVM and serves their exits on the board.

use cpu::{Bus, CpuView};
use kvm_ioctls::VmFd;

use super::assist::{Help, LOOK};
use super::clock::Clock;
use super::exit::{self, Exit};
use super::kick::Kick;
use super::page_tables::PageTables;
use super::slots::Slots;
use super::vcpu::Vcpu;
use super::{KvmError, SupervisorSpeed, System, model, msrs, speed};
use crate::Stop;
use crate::board::Board;
use crate::pages::Pages;
use crate::software::Software;

/// Nanoseconds that a processor executes before it is the next one's turn.
const TURN: u64 = 1_000_000;
/// CPUID leaf 1, ECX.
const AVX: u32 = 1 << 28;
/// Exits that one instruction may need before it is complete: it accesses devices in so many pieces at most.
const MOST_PIECES: u32 = 4096;

/// What a machine did on KVM so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvmCounts {
    /// Exits to user space.
    pub exits: u64,
    /// Times that the software processor helped out.
    pub assists: u64,
    /// Instructions that it executed doing so.
    pub assisted_instructions: u64,
    /// Times that KVM had to forget what it kept of the guest's page tables.
    pub forgotten: u64,
}

/// A machine in KVM.
pub(crate) struct Kvm {
    // Before the slots: the mappings must outlive whoever writes them.
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) vm: VmFd,
    pub(super) slots: Slots,
    pub(super) counts: KvmCounts,
    /// Whose turn it is.
    pub(super) current: usize,
    pub(super) help: Help,
    /// Programs see AVX although CPUID does not tell of it.
    leaks: bool,
    /// What KVM may keep of the guest's page tables, if it does.
    pub(super) page_tables: Option<PageTables>,
}

impl Kvm {
    /// A machine with the processors of `software` and the memory of `board`.
    pub(crate) fn new(system: &System, software: &Software, board: &Board) -> Result<Kvm, KvmError> {
        let states = software.cpu.states();
        for state in &states {
            model::check(&state.model, &model::offered(system)?)?;
        }
        let vm = system.kvm.create_vm().map_err(KvmError::call("KVM_CREATE_VM"))?;
        msrs::filter(&vm)?;
        let slots = Slots::new(&vm, &board.memory)?;
        let processors = states.len() as u8;
        let leaks = match states.first() {
            Some(state) => speed::leaked(system, &state.model)?.0 & AVX != 0,
            None => false,
        };
        let vcpus: Result<_, _> =
            states.into_iter().map(|state| Vcpu::new(&vm, state, processors, leaks)).collect();
        let emulated = SupervisorSpeed::measure(system)?.is_emulated();
        let help = Help::suitable(emulated);
        let mut kvm = Kvm {
            vcpus: vcpus?,
            vm,
            slots,
            counts: KvmCounts::default(),
            current: 0,
            help,
            leaks,
            page_tables: emulated.then(PageTables::default),
        };
        kvm.set_help(help);
        Ok(kvm)
    }

    /// What the software processor does for KVM.
    pub(crate) fn set_help(&mut self, help: Help) {
        self.help = help;
        let hides_avx = self.leaks && help == Help::Supervisor;
        self.vcpus.iter_mut().for_each(|vcpu| vcpu.hides_avx = hides_avx);
    }

    pub(crate) fn counts(&self) -> KvmCounts {
        self.counts
    }

    /// Runs until something happens, or `budget` nanoseconds have passed.
    pub(crate) fn run(&mut self, software: &mut Software, board: &mut Board, budget: u64) -> Stop {
        match self.try_run(software, board, budget) {
            Ok(stop) => stop,
            Err(error) => Stop::Engine(error.to_string()),
        }
    }

    fn try_run(&mut self, software: &mut Software, board: &mut Board, budget: u64) -> Result<Stop, KvmError> {
        let end = software.cpu.time().saturating_add(budget);
        self.slots.log_ram(&self.vm, board.memory.has_levels())?;
        board.memory.expect_late_names(true).map_err(KvmError::memory)?;
        board.memory.note_touched(self.page_tables.is_some() || board.pages.is_some());
        loop {
            // It has been asked which pages it wrote: it is to tell of them again.
            software.cpu.forget_writable();
            if let Some(stop) = software.settle(board) {
                return Ok(stop);
            }
            self.load_all(software, board)?;
            let clock = Clock::start(software.cpu.time());
            let outcome = self.execute(software, board, &clock, end);
            let stop = self.store_all(software, board, &clock)?;
            let outcome = outcome?;
            match software.take_stop(board).or(stop) {
                Some(stop) => return Ok(stop),
                None => {
                    if let Some(stop) = outcome {
                        return Ok(stop);
                    }
                }
            }
        }
    }

    /// Lets processors execute until the run must end (`Some`), or until the machine has to be looked at (`None`).
    fn execute(
        &mut self,
        software: &mut Software,
        board: &mut Board,
        clock: &Clock,
        end: u64,
    ) -> Result<Option<Stop>, KvmError> {
        let mut kick = Kick::new()?;
        self.vcpus.iter().try_for_each(|vcpu| kick.listen(&vcpu.fd))?;
        let mut turn_ends = clock.now().saturating_add(TURN);
        loop {
            kick.fetch();
            let now = clock.now();
            board.expire(now);
            if board.wants_attention() {
                return Ok(None);
            }
            if now >= end {
                return Ok(Some(Stop::Budget));
            }
            let Some(next) = self.turn(board, now >= turn_ends) else {
                match board.deadline() {
                    Some(deadline) => clock.sleep_until(deadline.min(end)),
                    None => return Ok(Some(Stop::Idle)),
                }
                continue;
            };
            if next != self.current || now >= turn_ends {
                turn_ends = now.saturating_add(TURN);
            }
            self.select(next, software, board);
            if self.is_taken_over() {
                self.complete(next, software, board, clock, end)?;
                if board.wants_attention() {
                    return Ok(None);
                }
                if let Some(stop) = self.assist(software, board, clock, end)? {
                    return Ok(Some(stop));
                }
                continue;
            }
            let until = board.deadline().map_or(end, |deadline| deadline.min(end));
            // A KVM that emulates lowers CR8 without telling; an interrupt may have become possible by it.
            let until = if board.read_cr8() != 0 { until.min(now.saturating_add(TURN)) } else { until };
            let until = if self.vcpus.len() > 1 { until.min(turn_ends) } else { until };
            let until =
                if self.help == Help::Supervisor { until.min(now.saturating_add(LOOK)) } else { until };
            kick.arm(until, until.saturating_sub(now));
            if let Some(stop) = self.step(software, board, clock, end)? {
                return Ok(Some(stop));
            }
        }
    }

    /// The processor that executes next: the current one unless it cannot or its turn is over. `None` if none can.
    fn turn(&mut self, board: &Board, over: bool) -> Option<usize> {
        let (current, count) = (self.current, self.vcpus.len());
        let first = if over { 1 } else { 0 };
        (first..=count).map(|step| (current + step) % count).find(|&index| self.can_run(index, board))
    }

    fn can_run(&mut self, index: usize, board: &Board) -> bool {
        let vcpu = &mut self.vcpus[index];
        let woken = vcpu.fd.get_kvm_run().if_flag != 0 && board.interrupts(vcpu.state.vcpu);
        !vcpu.state.waits_for_start_up && (!vcpu.state.halted || woken)
    }

    fn select(&mut self, index: usize, software: &mut Software, board: &mut Board) {
        self.current = index;
        software.cpu.select(index as u8);
        board.select(index as u8);
        self.vcpus[index].state.halted = false;
    }

    /// Lets the current processor execute up to its next exit, and serves that.
    fn step(
        &mut self,
        software: &mut Software,
        board: &mut Board,
        clock: &Clock,
        end: u64,
    ) -> Result<Option<Stop>, KvmError> {
        self.offer_interrupt(board)?;
        let vcpu = &mut self.vcpus[self.current];
        let priority = board.read_cr8();
        vcpu.fd.get_kvm_run().cr8 = priority;
        let exit = vcpu.enter()?;
        self.counts.exits += 1;
        vcpu.unanswered = false;
        let priority_now = vcpu.fd.get_kvm_run().cr8;
        if priority_now != priority {
            board.write_cr8(&view(vcpu, clock.now()), priority_now);
        }
        self.serve(exit, software, board, clock, end)
    }

    /// Gives the current processor the interrupt that waits for it, or asks KVM to say when it would take one.
    fn offer_interrupt(&mut self, board: &mut Board) -> Result<(), KvmError> {
        let vcpu = &mut self.vcpus[self.current];
        let waits = board.interrupt_pending();
        let run = vcpu.fd.get_kvm_run();
        let ready = run.ready_for_interrupt_injection != 0 && run.if_flag != 0;
        run.request_interrupt_window = u8::from(waits && !ready);
        match waits && ready {
            true => board.take_interrupt().map_or(Ok(()), |vector| vcpu.interrupt(vector)),
            false => Ok(()),
        }
    }

    fn serve(
        &mut self,
        exit: Exit,
        software: &mut Software,
        board: &mut Board,
        clock: &Clock,
        end: u64,
    ) -> Result<Option<Stop>, KvmError> {
        let vcpu = &mut self.vcpus[self.current];
        vcpu.unanswered = true;
        let now = clock.now();
        match exit {
            Exit::Port { port, size, write } => {
                let view = view(vcpu, now);
                for data in exit::port_data(&mut vcpu.fd).chunks_exact_mut(size) {
                    let mut bytes = [0; 4];
                    if write {
                        bytes[..size].copy_from_slice(data);
                        board.port_write(&view, port, size, u32::from_le_bytes(bytes));
                    } else {
                        data.copy_from_slice(&board.port_read(&view, port, size).to_le_bytes()[..size]);
                    }
                }
            }
            Exit::Load { addr, size } => {
                let value = load(board, &view(vcpu, now), addr, size);
                exit::answer_load(&mut vcpu.fd, value);
            }
            Exit::Store { addr, size, value } => {
                if board.pages.is_some() {
                    // A device that is asked for a flush has to know what was written before.
                    self.note_changes(software, board)?;
                }
                let vcpu = &mut self.vcpus[self.current];
                store(board, &view(vcpu, now), addr, size, value);
            }
            Exit::ReadMsr { index } => {
                let value = self.read_msr(index, software, board, now)?;
                exit::answer_msr(&mut self.vcpus[self.current].fd, value);
            }
            Exit::WriteMsr { index, value } => {
                let done = self.write_msr(index, value, software, board, now)?;
                exit::answer_msr(&mut self.vcpus[self.current].fd, done.map(|()| value));
            }
            Exit::Halted => {
                vcpu.unanswered = false;
                vcpu.state.halted = true;
            }
            // The software processor is told of the probe, and goes over it.
            Exit::CannotEmulate | Exit::Debug => {
                vcpu.unanswered = false;
                return self.assist(software, board, clock, end);
            }
            Exit::Shutdown => return Ok(Some(Stop::Shutdown)),
            Exit::Failed(what) => return Ok(Some(Stop::Engine(what))),
            Exit::Interrupted => vcpu.unanswered = false,
        }
        Ok(None)
    }

    /// RDMSR by the current processor of a register that is not KVM's.
    fn read_msr(
        &mut self,
        index: u32,
        software: &mut Software,
        board: &mut Board,
        now: u64,
    ) -> Result<Option<u64>, KvmError> {
        let vcpu = &self.vcpus[self.current];
        if index != msrs::TSC_DEADLINE {
            return Ok(software.cpu.read_msr(board, index));
        }
        let deadline = board.read_msr(&view_of(vcpu, now), index);
        let tsc = vcpu.tsc()?;
        Ok(deadline
            .map(|time| if time == 0 { 0 } else { tsc.wrapping_add(vcpu.state.model.ticks(time - now)) }))
    }

    /// WRMSR by the current processor.
    fn write_msr(
        &mut self,
        index: u32,
        value: u64,
        software: &mut Software,
        board: &mut Board,
        now: u64,
    ) -> Result<Option<()>, KvmError> {
        let vcpu = &self.vcpus[self.current];
        if index != msrs::TSC_DEADLINE {
            return Ok(software.cpu.write_msr(board, index, value));
        }
        let time = match value {
            0 => 0,
            // One that has passed already is as good as one that passes now.
            _ => now.saturating_add(vcpu.state.model.time(value.saturating_sub(vcpu.tsc()?))).max(1),
        };
        Ok(board.write_msr(&view_of(vcpu, now), index, time))
    }

    /// Gives every processor its state, and the time.
    fn load_all(&mut self, software: &mut Software, board: &mut Board) -> Result<(), KvmError> {
        let time = software.cpu.time();
        self.current = software.cpu.current().into();
        for (vcpu, state) in self.vcpus.iter_mut().zip(software.cpu.states()) {
            let mut state = state;
            // An interrupt that wakes it comes later; these wake it now.
            state.halted &= !state.nmi_pending || state.nmi_blocked;
            vcpu.set_tsc(state.model.ticks(time).wrapping_add(state.tsc_adjust))?;
            vcpu.load(state, board.apic_base(vcpu.state.vcpu))?;
        }
        for index in 0..self.vcpus.len() {
            self.stop_at(index, board)?;
        }
        self.follow_page_tables(board)
    }

    /// Makes KVM forget the guest's page tables if others have changed them. Memory stays as it is until it goes on.
    pub(super) fn follow_page_tables(&mut self, board: &mut Board) -> Result<(), KvmError> {
        board.look_at_pages();
        board.pages.iter_mut().for_each(Pages::settle);
        let written = board.memory.take_touched();
        let Some(tables) = &mut self.page_tables else { return Ok(()) };
        if tables.are_outdated(&board.memory, &written) {
            self.counts.forgotten += 1;
            self.slots.forget_page_tables(&self.vm)?;
        }
        self.vcpus.iter().for_each(|vcpu| tables.look(&board.memory, &vcpu.state));
        Ok(())
    }

    /// Takes every processor's state back, and the time.
    fn store_all(
        &mut self,
        software: &mut Software,
        board: &mut Board,
        clock: &Clock,
    ) -> Result<Option<Stop>, KvmError> {
        let current = self.current;
        let mut stop = None;
        for index in (0..self.vcpus.len()).filter(|&index| index != current).chain([current]) {
            self.complete(index, software, board, clock, 0)?;
            self.select_only(index, software, board);
            stop = stop.or(self.store(index, software, board)?);
            let now = clock.now();
            software.follow_time(now);
            let vcpu = &self.vcpus[index];
            let mut state = software.cpu.state();
            state.tsc_adjust = vcpu.tsc()?.wrapping_sub(state.model.ticks(now));
            software.cpu.set_state(state);
        }
        self.current = current;
        self.note_changes(software, board)?;
        Ok(stop)
    }

    fn select_only(&mut self, index: usize, software: &mut Software, board: &mut Board) {
        self.current = index;
        software.cpu.select(index as u8);
        board.select(index as u8);
    }

    /// Lets a processor fetch what its last exit asked for, so that it stands between two instructions.
    fn complete(
        &mut self,
        index: usize,
        software: &mut Software,
        board: &mut Board,
        clock: &Clock,
        end: u64,
    ) -> Result<(), KvmError> {
        let before = std::mem::replace(&mut self.current, index);
        for _ in 0..MOST_PIECES {
            let vcpu = &mut self.vcpus[index];
            if !vcpu.unanswered {
                break;
            }
            vcpu.fd.set_kvm_immediate_exit(1);
            let exit = vcpu.enter();
            vcpu.fd.set_kvm_immediate_exit(0);
            match exit? {
                Exit::Interrupted => vcpu.unanswered = false,
                Exit::CannotEmulate | Exit::Debug => vcpu.unanswered = false,
                more => {
                    self.serve(more, software, board, clock, end)?;
                }
            }
        }
        self.current = before;
        Ok(())
    }

    /// Fetches a processor's state into the selected one of the software engine, and delivers what was on its way.
    pub(super) fn store(
        &mut self,
        index: usize,
        software: &mut Software,
        board: &mut Board,
    ) -> Result<Option<Stop>, KvmError> {
        let vcpu = &mut self.vcpus[index];
        let on_the_way = vcpu.store()?;
        // What only the software engine keeps has moved on there.
        let kept = software.cpu.state();
        vcpu.state.kept_msrs = kept.kept_msrs;
        (vcpu.state.retired, vcpu.state.tsc_offset) = (kept.retired, kept.tsc_offset);
        vcpu.state.page_pointers = board.page_pointers(&vcpu.state);
        software.cpu.set_state(vcpu.state.clone());
        if let Some(vector) = on_the_way.interrupt {
            board.take_back(vector);
        }
        let Some((vector, code)) = on_the_way.exception else { return Ok(None) };
        software.cpu.forget_code();
        software.cpu.forget_writable();
        let exit = software.cpu.raise_exception(board, vector, code);
        Ok(exit.and_then(crate::software::stop_of))
    }

    /// Gives a processor the state that it has in the software engine, where it is selected.
    pub(super) fn load(&mut self, index: usize, software: &Software, board: &Board) -> Result<(), KvmError> {
        let vcpu = &mut self.vcpus[index];
        vcpu.load(software.cpu.state(), board.apic_base(vcpu.state.vcpu))?;
        self.stop_at(index, board)
    }

    fn stop_at(&mut self, index: usize, board: &Board) -> Result<(), KvmError> {
        let stops = self.stops(&self.vcpus[index].state, board);
        self.vcpus[index].stop_at(&stops)
    }

    /// Tells the board and the software engine which memory KVM has written.
    pub(super) fn note_changes(
        &mut self,
        software: &mut Software,
        board: &mut Board,
    ) -> Result<(), KvmError> {
        let pages = self.slots.changed(&self.vm)?;
        board.named_late(&pages);
        software.cpu.forget_code();
        Ok(())
    }
}

/// What the board may know of a processor. KVM may have moved RIP behind a store already.
fn view(vcpu: &mut Vcpu, now: u64) -> CpuView {
    let sync = vcpu.fd.sync_regs();
    CpuView { cpl: sync.sregs.ss.dpl & 3, rip: sync.regs.rip, rsp: sync.regs.rsp, ..view_of(vcpu, now) }
}

fn view_of(vcpu: &Vcpu, now: u64) -> CpuView {
    CpuView { vcpu: vcpu.state.vcpu, cpl: 0, rip: 0, rsp: 0, retired: vcpu.state.retired, tsc: now }
}

/// Loads from a device, byte by byte where a device has no register of that size.
fn load(board: &mut Board, view: &CpuView, addr: u64, size: usize) -> u64 {
    if size.is_power_of_two() {
        return board.mmio_read(view, addr, size);
    }
    (0..size as u64)
        .fold(0, |value, byte| value | (board.mmio_read(view, addr + byte, 1) & 0xff) << (8 * byte))
}

/// Stores to a device likewise.
fn store(board: &mut Board, view: &CpuView, addr: u64, size: usize, value: u64) {
    if size.is_power_of_two() {
        let value = if size == 8 { value } else { value & ((1 << (8 * size)) - 1) };
        return board.mmio_write(view, addr, size, value);
    }
    (0..size as u64).for_each(|byte| board.mmio_write(view, addr + byte, 1, value >> (8 * byte) & 0xff));
}
