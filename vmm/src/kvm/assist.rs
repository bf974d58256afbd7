//! What KVM cannot execute, the software processor does: on the same state and memory, then KVM goes on.
//!
//! Where KVM executes natively, that is one instruction. Where it emulates supervisor mode, the software processor is
//! much faster at it. It then takes over supervisor mode as a whole: KVM executes user mode, and is looked at
//! every now and then whether it has come to supervisor mode in the meantime.

use cpu::{Exit, State};

use super::clock::Clock;
use super::run::Kvm;
use super::{KvmError, half_calls};
use crate::Stop;
use crate::board::Board;
use crate::software::{Software, stop_of};

/// Instructions between two looks at timers and at the privilege.
const CHUNK: u64 = 256;
/// Nanoseconds after which a processor that executes in KVM is looked at, where supervisor mode is emulated.
pub(super) const LOOK: u64 = 200_000;

/// What the software processor does for KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Help {
    /// So many instructions, at least 1, when KVM cannot execute one, or less if user mode comes first.
    Instructions(u64),
    /// All of supervisor mode.
    Supervisor,
}

impl Help {
    /// What suits this KVM.
    pub(super) fn suitable(emulated: bool) -> Help {
        if emulated { Help::Supervisor } else { Help::Instructions(1) }
    }
}

impl Kvm {
    /// Where a processor in KVM is to stop: where page faults go, when the software processor executes the kernel (see
    /// [`half_calls`]), and at the probes.
    pub(super) fn stops(&self, state: &State, board: &Board) -> Vec<u64> {
        let handler =
            if self.help == Help::Supervisor { half_calls::page_fault_handler(state, board) } else { None };
        handler.into_iter().chain(board.recorder.probes()).collect()
    }

    /// Whether the current processor stands where KVM is not to execute.
    pub(super) fn is_taken_over(&self) -> bool {
        self.help == Help::Supervisor && self.vcpus[self.current].privilege() < 3
    }

    /// Executes the instruction at RIP of the current processor, and more as long as they are in supervisor mode, it is
    /// before `end`, and [`Help`] says so. Returns why the run must end, if it must.
    pub(super) fn assist(
        &mut self,
        software: &mut Software,
        board: &mut Board,
        clock: &Clock,
        end: u64,
    ) -> Result<Option<Stop>, KvmError> {
        if let Some(stop) = self.store(self.current, software, board)? {
            return Ok(Some(stop));
        }
        if self.help == Help::Supervisor {
            half_calls::undo(software, board);
        }
        if board.pages.is_some() {
            self.note_changes(software, board)?;
            board.look_at_pages();
        }
        if let Some(tables) = &mut self.page_tables {
            tables.look(&board.memory, &software.cpu.state());
        }
        // KVM has written memory since: nobody knows where.
        software.cpu.forget_code();
        software.cpu.forget_writable();
        self.counts.assists += 1;
        software.cpu.leave_at_user(true);
        let before = software.cpu.retired();
        let last = match self.help {
            Help::Instructions(count) => before.saturating_add(count.max(1)),
            Help::Supervisor => u64::MAX,
        };
        let stop = loop {
            let now = clock.now();
            software.follow_time(now);
            board.expire(now);
            board.looked();
            let cpu = &mut software.cpu;
            let exit = cpu.run(board, last.min(cpu.retired().saturating_add(CHUNK)));
            let ended = cpu.retired() >= last || cpu.cpl() == 3 || board.wants_attention() || now >= end;
            match exit {
                Exit::Limit | Exit::Attention if !ended => {}
                exit => break stop_of(exit),
            }
        };
        software.cpu.leave_at_user(false);
        self.counts.assisted_instructions += software.cpu.retired() - before;
        if stop.is_none() {
            self.load(self.current, software, board)?;
            self.follow_page_tables(board)?;
        }
        Ok(stop)
    }
}
