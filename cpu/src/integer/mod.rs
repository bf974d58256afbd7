//! The integer instructions of user mode.
//!
//! Two layers: the handlers that [`general`] names do every form of every instruction from its iced [`Instruction`]
//! and are the reference; [`specialise`] gives the hot 64-bit-mode forms a handler of their own.

mod alu;
mod arithmetic;
mod bits;
mod branch;
mod data;
mod flags;
mod general;
mod operand;
mod shift;
mod stack;
mod string;

use iced_x86::Instruction;

use crate::{Bus, op::Op};

pub(crate) use flags::{ARITHMETIC as ARITHMETIC_FLAGS, LazyFlags};
pub(crate) use general::general;

/// A specialised form of `i`, decoded in 64-bit mode: `full` is `None` unless the handler needs it.
pub(crate) fn specialise<B: Bus>(i: &Instruction) -> Option<Op<B>> {
    let _ = i;
    None
}
