//! What only a kernel may do, tried at every privilege.

mod control;
mod delivery;
mod flags;
mod legacy;
mod paging;
mod ports;
mod registers;
mod segments;
mod steps;
mod system_calls;
mod transfers;

use crate::harness::report::Report;

/// Runs the groups that are asked for.
pub fn run(report: &Report) {
    control::run(report);
    registers::run(report);
    segments::run(report);
    transfers::run(report);
    system_calls::run(report);
    flags::run(report);
    ports::run(report);
    delivery::run(report);
    steps::run(report);
    paging::run(report);
    legacy::run(report);
}

/// Every selector of the tables, with every RPL, and some behind their ends.
fn selectors() -> impl Iterator<Item = u16> {
    let gdt = 0..0x208u16;
    let ldt = (0..0x48u16).filter(|selector| selector & 4 != 0);
    gdt.filter(|selector| selector & 4 == 0).chain(ldt)
}
