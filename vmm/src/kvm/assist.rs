//! What KVM cannot execute, the software processor does: on the same state and memory, then KVM goes on.

use super::KvmError;
use super::clock::Clock;
use super::run::Kvm;
use crate::Stop;
use crate::board::Board;
use crate::software::{Software, stop_of};

impl Kvm {
    /// Executes the instruction at RIP of the current processor, and `self.burst` - 1 more. Returns why the run must end,
    /// if it must.
    pub(super) fn assist(
        &mut self,
        software: &mut Software,
        board: &mut Board,
        clock: &Clock,
    ) -> Result<Option<Stop>, KvmError> {
        if let Some(stop) = self.store(self.current, software, board)? {
            return Ok(Some(stop));
        }
        software.follow_time(clock.now());
        let cpu = &mut software.cpu;
        // KVM has written memory since: nobody knows where.
        cpu.forget_code();
        cpu.forget_writable();
        let before = cpu.retired();
        let exit = cpu.run(board, before.saturating_add(self.burst));
        self.counts.assists += 1;
        self.counts.assisted_instructions += cpu.retired() - before;
        if let Some(stop) = stop_of(exit) {
            return Ok(Some(stop));
        }
        self.load(self.current, software, board)?;
        Ok(None)
    }
}
