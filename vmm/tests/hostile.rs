//! Small guests that want the machine to hang.

mod small_guest;

use vmm::{Machine, Stop};

fn run(code: &[u8]) -> Stop {
    Machine::new(&small_guest::config(code)).unwrap_or_else(|error| panic!("{error}")).run(1_000_000)
}

#[test]
fn a_timer_that_never_wakes_a_halted_processor_does_not_hang_the_machine() {
    // PIT channel 0 in mode 2, its IOAPIC pin masked as at power-on; interrupts off; halt.
    let code = [0xfa, 0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x10, 0xe6, 0x40, 0xe6, 0x40, 0xf4, 0xeb, 0xfd];
    assert_eq!(run(&code), Stop::Idle);
}

#[test]
fn a_processor_halted_for_good_is_idle() {
    assert_eq!(run(&[0xfa, 0xf4]), Stop::Idle);
}

#[test]
fn an_endless_loop_ends_with_the_budget() {
    assert_eq!(run(&[0xeb, 0xfe]), Stop::Budget);
}
