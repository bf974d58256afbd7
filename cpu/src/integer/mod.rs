//! The integer instructions of user mode.
//!
//! Two layers: the handlers that [`general`] names do every form of every instruction from its iced instruction
//! and are the reference; [`specialise`] gives the hot 64-bit-mode forms a handler of their own.

mod alu;
mod arithmetic;
mod bits;
mod branch;
mod data;
mod decimal;
mod flags;
mod flat;
mod general;
mod hot;
mod legacy;
mod operand;
mod shift;
mod stack;
mod string;
#[cfg(test)]
mod tests;

pub(crate) use flags::LazyFlags;
pub(crate) use flat::{Flat, specialise as specialise_flat};
pub(crate) use general::general;
pub(crate) use hot::{fuse, specialise};
