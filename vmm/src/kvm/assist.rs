//! What KVM cannot execute, the software processor does: on the same state and memory, then KVM goes on.
//!
//! Where KVM executes natively, that is one instruction. Where it emulates supervisor mode, the software processor is a
//! hundred times as fast and the way there as long as fifty instructions, so it goes on for a while, until user mode at
//! the latest.

use cpu::Exit;

use super::KvmError;
use super::clock::Clock;
use super::run::Kvm;
use crate::Stop;
use crate::board::Board;
use crate::software::{Software, stop_of};

/// Instructions between two looks at timers and at the privilege.
const CHUNK: u64 = 256;
/// Instructions of one assist by default, where supervisor mode is emulated.
const BURST_WHERE_EMULATED: u64 = 4096;

/// Instructions of one assist by default.
pub(super) fn burst(emulated: bool) -> u64 {
    if emulated { BURST_WHERE_EMULATED } else { 1 }
}

impl Kvm {
    /// Executes the instruction at RIP of the current processor, and up to `self.burst` - 1 more as long as they are in
    /// supervisor mode. Returns why the run must end, if it must.
    pub(super) fn assist(
        &mut self,
        software: &mut Software,
        board: &mut Board,
        clock: &Clock,
    ) -> Result<Option<Stop>, KvmError> {
        if let Some(stop) = self.store(self.current, software, board)? {
            return Ok(Some(stop));
        }
        // KVM has written memory since: nobody knows where.
        software.cpu.forget_code();
        software.cpu.forget_writable();
        self.counts.assists += 1;
        let before = software.cpu.retired();
        let end = before.saturating_add(self.burst);
        let stop = loop {
            let now = clock.now();
            software.follow_time(now);
            board.expire(now);
            board.looked();
            let cpu = &mut software.cpu;
            let exit = cpu.run(board, end.min(cpu.retired().saturating_add(CHUNK)));
            let ended = cpu.retired() >= end || cpu.cpl() == 3 || board.wants_attention();
            match exit {
                Exit::Limit | Exit::Attention if !ended => {}
                exit => break stop_of(exit),
            }
        };
        self.counts.assisted_instructions += software.cpu.retired() - before;
        if stop.is_none() {
            self.load(self.current, software, board)?;
        }
        Ok(stop)
    }
}
