//! What the steps promise, and whether what was found after a power loss keeps it.

pub(crate) mod expectation;
pub(crate) mod history;
pub(crate) mod judge;
pub(crate) mod model;
pub(crate) mod possible;
#[cfg(test)]
mod tests;
