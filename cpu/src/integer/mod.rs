//! The integer instructions of user mode.
//!
//! Two layers: the handlers that [`general`] names do every form of every instruction from its iced [`Instruction`]
//! and are the reference; [`specialise`] gives the hot 64-bit-mode forms a handler of their own.
//!
//! What it needs of [`Cpu`], beside `read`, `write`, `check_writable` and `operand_address`:
//! - `flags: LazyFlags`, a field: the arithmetic flags while instructions run.
//! - `fn locked(&mut self, bus: &mut B)`: tells the drain of a LOCK-prefixed instruction or XCHG with memory, after
//!   all checks and before its store.
//! - `fn rep_budget(&self) -> u64`: how many iterations a REP may still retire before the run loop must look again,
//!   the current one included, so at least 1 when a handler starts. Asked again after each iteration or chunk, so
//!   that attention asked for by a device access or a pmem store can make it 0; 1 under single-stepping.
//! - `fn retire_iterations(&mut self, n: u64)`: `n` iterations of a REP *beyond* the one that the run loop counts when
//!   a handler returns `Ok`. A handler that stops with RCX not 0 puts RIP back on the instruction and returns `Ok`;
//!   one that faults in iteration k has reported k - 1 iterations.
//! - `fn write_rep(&mut self, bus: &mut B, linear: u64, bytes: &[u8], first: bool) -> Result<(), Fault>`: as `write`,
//!   told to the bus as `StoreKind::CachedRep { first }`. All or nothing.
//! - `fn host_read(&mut self, bus: &mut B, linear: u64) -> Result<Option<*const u8>, Fault>` and
//!   `fn host_write(..) -> Result<Option<*mut u8>, Fault>`: where the byte at `linear` lies on the host, good up to the
//!   end of its page and until the next access; `None` where an access must be seen (pmem store, device, code, watch).

mod flags;

use iced_x86::Instruction;

use crate::{Bus, op::{Handler, Op}};

pub(crate) use flags::LazyFlags;

/// The general handler of `i`, if `i` is an instruction of this module. The handler wants `op.full`.
pub(crate) fn general<B: Bus>(i: &Instruction) -> Option<Handler<B>> {
    let _ = i;
    unimplemented!()
}

/// A specialised form of `i`, decoded in 64-bit mode: `full` is `None` unless the handler needs it.
pub(crate) fn specialise<B: Bus>(i: &Instruction) -> Option<Op<B>> {
    let _ = i;
    None
}
