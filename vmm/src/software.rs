//! The software engine: processors of our own, one of which executes at a time, deterministic to the instruction.
//!
//! It is also where the processors stand while a machine does not run, whichever engine it has: what looks at a
//! processor or changes it from outside does so here.

use cpu::{Cpu, CpuView, Exit};
use devices::Signal;
use persist::EventKind;

use crate::board::Board;
use crate::schedule::Schedule;
use crate::{Call, Stop};

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

/// The processors, and whose turn it is.
pub(crate) struct Software {
    pub(crate) cpu: Cpu<Board>,
    pub(crate) schedule: Schedule,
}

impl Software {
    /// So many processors at power-on.
    pub(crate) fn new(count: u8, seed: u64) -> Software {
        Software { cpu: Cpu::new(count, seed), schedule: Schedule::new(seed) }
    }

    /// What CPUID tells on every processor.
    pub(crate) fn set_model(&mut self, model: cpu::Model) {
        let current = self.cpu.current();
        let states = self.cpu.states().into_iter().map(|state| cpu::State { model, ..state });
        self.cpu.set_states(states.collect(), current);
    }

    /// Runs until something happens, or `budget` instructions have retired.
    pub(crate) fn run(&mut self, board: &mut Board, budget: u64) -> Stop {
        let end = self.cpu.retired_by_all().saturating_add(budget);
        let mut skips = Skips { retired: self.cpu.retired_by_all(), count: 0 };
        loop {
            board.expire(self.cpu.time());
            self.notice_changes(board);
            self.act_on_signals(board);
            if let Some(stop) = self.take_stop(board) {
                return stop;
            }
            let exit = match self.take_turn(board) {
                Err(stop) => return stop,
                Ok(Some(slice)) => {
                    self.run_slice(board, slice.min(end.saturating_sub(self.cpu.retired_by_all())))
                }
                Ok(None) if self.cpu.retired_by_all() >= end => Exit::Limit,
                Ok(None) => Exit::Halted,
            };
            if let Some(stop) = self.take_stop(board) {
                return stop;
            }
            match exit {
                Exit::Limit | Exit::Paused if self.cpu.retired_by_all() >= end => return Stop::Budget,
                // The board has said which, above.
                Exit::Limit | Exit::Paused | Exit::Attention | Exit::Undecided => {}
                Exit::Halted if self.anybody_can_run(board) => {}
                Exit::Halted => match board.deadline() {
                    Some(deadline) if skips.again(self.cpu.retired_by_all()) => {
                        self.cpu.advance_time(deadline.saturating_sub(self.cpu.time()));
                        board.recorder.hash.waited(deadline);
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
    fn take_turn(&mut self, board: &mut Board) -> Result<Option<u64>, Stop> {
        let (current, count) = (self.cpu.current(), self.cpu.processors());
        let can_run = |vcpu| self.cpu.can_run(vcpu, board.interrupts(vcpu));
        let Some(turn) = self.schedule.turn(current, count, can_run) else { return Ok(None) };
        if count == 1 {
            return Ok(Some(u64::MAX));
        }
        if turn != current {
            let view = self.cpu.view();
            let seq = board.recorder.next();
            if board.recorder.stops(&view) {
                return Err(Stop::Event(seq));
            }
            board.recorder.hash.turn(turn, view.retired, self.cpu.rip());
            self.cpu.select(turn);
            board.select(turn);
        }
        Ok(Some(self.schedule.slice(turn != current)))
    }

    /// Lets the selected processor go on for `count` instructions, or until the next timer goes off.
    fn run_slice(&mut self, board: &mut Board, count: u64) -> Exit {
        let count = match board.deadline() {
            // A deadline is in TSC ticks; while instructions retire the two clocks run in step.
            Some(deadline) => count.min(deadline.saturating_sub(self.cpu.time()).max(1)),
            None => count,
        };
        let before = self.cpu.retired();
        let exit = self.cpu.run(board, before.saturating_add(count));
        self.schedule.retired(self.cpu.retired() - before);
        if exit == Exit::Paused {
            self.schedule.give_up();
        }
        self.act_on_signals(board);
        exit
    }

    fn anybody_can_run(&self, board: &Board) -> bool {
        (0..self.cpu.processors()).any(|vcpu| self.cpu.can_run(vcpu, board.interrupts(vcpu)))
    }

    /// Does to processors what interrupt messages ask for.
    pub(crate) fn act_on_signals(&mut self, board: &mut Board) {
        for (vcpu, signal) in board.take_signals() {
            match signal {
                Signal::Init => {
                    board.init(vcpu);
                    self.cpu.init(vcpu, vcpu == BOOTSTRAP);
                }
                Signal::StartUp { page } => self.cpu.start_up(vcpu, page),
                Signal::Nmi => self.cpu.request_nmi_at(vcpu),
            }
        }
    }

    /// Time of the machine is `time`, because somebody else let its processors execute.
    pub(crate) fn follow_time(&mut self, time: u64) {
        self.cpu.advance_time(time.saturating_sub(self.cpu.time()));
    }

    /// Brings processors to where another engine can take over: no debug trap waits to be raised, and none has
    /// stopped in front of a probe. Returns why the run must end, if it must.
    pub(crate) fn settle(&mut self, board: &mut Board) -> Option<Stop> {
        self.notice_changes(board);
        self.act_on_signals(board);
        let current = self.cpu.current();
        for state in self.cpu.states() {
            if state.debug_traps == 0 && !state.probe_told {
                continue;
            }
            self.cpu.select(state.vcpu);
            board.select(state.vcpu);
            let exit = self.cpu.run(board, state.retired.saturating_add(1));
            if let Some(stop) = self.take_stop(board).or_else(|| stop_of(exit)) {
                return Some(stop);
            }
        }
        self.cpu.select(current);
        board.select(current);
        None
    }

    /// What the board wants the run to end for, if anything.
    pub(crate) fn take_stop(&mut self, board: &mut Board) -> Option<Stop> {
        board.take_stop().or_else(|| {
            let (view, number) = board.take_call()?;
            self.called(board, &view, number)
        })
    }

    /// A call of the control port: declarations are recorded at once, the rest is for the host to answer.
    fn called(&mut self, board: &mut Board, view: &CpuView, number: u32) -> Option<Stop> {
        let state = self.cpu.state();
        let (first, second) = (state.regs[7], state.regs[6]);
        let Some(kind) = declaration(number, first as u32) else {
            return Some(Stop::Call(Call { number, first, second }));
        };
        self.cpu.set_register(0, 0);
        board.look_at_pages();
        let seq = board.recorder.next();
        board.recorder.declared(view, kind).then_some(Stop::Event(seq))
    }

    /// Drops what the processors remember of pages that somebody else wrote.
    pub(crate) fn notice_changes(&mut self, board: &mut Board) {
        for page in board.memory.take_written() {
            self.cpu.memory_changed(page);
        }
    }
}

/// The stop that an exit of a processor is in any case.
pub(crate) fn stop_of(exit: Exit) -> Option<Stop> {
    match exit {
        Exit::Shutdown => Some(Stop::Shutdown),
        Exit::Unsupported { rip, what } => Some(Stop::Unsupported { rip, what: what.to_owned() }),
        Exit::Limit | Exit::Halted | Exit::Attention | Exit::Paused | Exit::Undecided => None,
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
