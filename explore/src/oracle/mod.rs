//! What the steps promise, and whether what was found after a power loss keeps it.

pub(crate) mod acknowledged;
pub(crate) mod expectation;
pub(crate) mod history;
pub(crate) mod judge;
pub(crate) mod model;
pub(crate) mod order;
pub(crate) mod possible;
mod shift;
#[cfg(test)]
mod tests;
