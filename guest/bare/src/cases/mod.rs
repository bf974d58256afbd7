//! What only a kernel may do, tried at every privilege.

mod control;

use crate::harness::report::Report;

/// Runs the groups that are asked for.
pub fn run(report: &Report) {
    control::run(report);
}
