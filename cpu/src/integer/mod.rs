//! The integer instructions of user mode.

mod flags;

pub(crate) use flags::LazyFlags;
