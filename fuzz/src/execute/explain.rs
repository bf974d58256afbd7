//! Shows a program, and where the ways to run it part.

use iced_x86::Decoder;

use super::super::input::Input;
use super::bus::{FuzzBus, PAGES};
use super::layout::{CODE, Mode};
use super::memory::{GuardedMemory, PAGE};
use super::{Case, INSTRUCTIONS, Way, execute_until};

/// Prints to standard output.
pub fn explain(data: &[u8]) {
    let case = Case::new(data);
    let mode = Mode::from_byte(Input(data).byte());
    println!("{mode:?}");
    let code = case.image.concat();
    let mut decoder = Decoder::with_ip(mode.bits(), &code[CODE as usize..], CODE, 0);
    for _ in 0..32 {
        let instruction = decoder.decode();
        println!("{:#x} {:?} {instruction}", instruction.ip(), instruction.code());
    }
    let mut bus = FuzzBus::new(GuardedMemory::new(PAGES));
    for until in 1..=INSTRUCTIONS {
        let ways = [Way::Straight, Way::General, Way::ShortRuns];
        let outcomes = ways.map(|way| execute_until(&case, &mut bus, way, until));
        let [straight, others @ ..] = &outcomes;
        let (state, rip) = (&straight.state, straight.state.rip());
        println!("{until}: {:?} rip {rip:#x} cpl {} rflags {:#x}", straight.end, state.cpl(), state.rflags);
        println!("    regs {:x?} cr2 {:#x}", &state.regs[..16], state.cr2);
        for (way, other) in ways[1..].iter().zip(others) {
            if other.state != straight.state {
                println!("{way:?} differs: straight {:#x?}\n{way:?} {:#x?}", straight.state, other.state);
                return;
            }
            for (a, b) in straight.pages.iter().zip(&other.pages) {
                if let Some(at) = (0..PAGE).find(|&at| a.0 != b.0 || a.1[at] != b.1[at]) {
                    println!("{way:?} differs in page {} or {} at {at:#x}", a.0, b.0);
                    return;
                }
            }
            if other.log != straight.log {
                println!("{way:?} tells {:x?} instead of {:x?}", other.log.last(), straight.log.last());
                return;
            }
        }
    }
}
