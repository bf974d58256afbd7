//! What this crate reads from guests, for the fuzz targets in `fuzz/`: bytes in, no panic. Not for other use.

use crate::conversation::{Conversation, Limits};
use crate::target::{Region, Stop, Target};
use crate::user_stack::Agent;

/// Longest that a hostile guest talks: stops until it has nothing new to say.
const STOPS: usize = 64;

/// A guest that says what the fuzzer wants: each stop takes bytes off the front, messages are what follows.
struct Hostile<'a> {
    bytes: &'a [u8],
    stops: usize,
    /// What it does from the second stop on, for ever.
    forever: Option<Stop>,
}

impl Hostile<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.bytes.split_first().unwrap_or((&0, &[]));
        self.bytes = rest;
        *first
    }

    /// An argument of a call: small, or anything.
    fn argument(&mut self) -> u64 {
        let low = u64::from(self.byte());
        match self.byte() {
            0..200 => low,
            200..250 => low << 16,
            _ => low.wrapping_neg(),
        }
    }
}

impl Target for Hostile<'_> {
    fn run(&mut self, _: u64) -> Stop {
        self.stops += 1;
        if let Some(stop) = self.forever.clone().filter(|_| self.stops > 1) {
            return stop;
        }
        if self.stops > STOPS {
            return Stop::Ended("it has nothing more to say");
        }
        match self.byte() % 16 {
            0 => Stop::Budget,
            1 => Stop::Event(7),
            2 => Stop::Unsupported("a word".to_owned()),
            number => {
                let (first, second) = (self.argument(), self.argument());
                Stop::Call { number: u32::from(number) - 3, first, second }
            }
        }
    }
    fn retired(&self) -> u64 {
        self.stops as u64
    }
    fn answer(&mut self, _: i64) {}
    fn read_guest(&self, address: u64, buffer: &mut [u8]) -> bool {
        // Low addresses are the front of the bytes: most messages can be read.
        let start = usize::try_from(address & 0xf).unwrap_or(0);
        let Some(bytes) = self.bytes.get(start..start + buffer.len()) else { return address & 0x10 != 0 };
        buffer.copy_from_slice(bytes);
        true
    }
    fn write_guest(&mut self, address: u64, _: &[u8]) -> bool {
        address & 0xf00 != 0xf00
    }
    fn translate(&self, address: u64) -> Option<u64> {
        (address & 3 != 3).then_some(address)
    }
    fn regions(&self) -> Vec<Region> {
        Vec::new()
    }
    fn read_pmem(&self, _: u64, _: &mut [u8]) {}
    fn write_pmem(&mut self, _: u64, _: &[u8]) {}
    fn push(&mut self) {}
    fn rewind(&mut self) -> usize {
        0
    }
    fn pop(&mut self) -> usize {
        0
    }
    fn changed(&self) -> Vec<u64> {
        Vec::new()
    }
    fn set_tracing(&mut self, _: bool) {}
    fn take_events(&mut self) -> Vec<persist::Event> {
        Vec::new()
    }
    fn event_count(&self) -> u64 {
        0
    }
    fn stop_at_event(&mut self, _: Option<u64>) {}
    fn set_watched(&mut self, _: &[u64]) {}
    fn take_console(&mut self) -> Vec<u8> {
        if self.bytes.first() == Some(&0xee) { self.bytes.to_vec() } else { Vec::new() }
    }
}

/// A conversation with a guest that may say anything.
pub fn conversation(bytes: &[u8]) {
    let mut guest = Hostile { bytes, stops: 0, forever: None };
    let limits = Limits { instructions: 100_000_000, console: 1 << 16 };
    let mut conversation = Conversation::new(&mut guest, limits).locating(Some(("a", 100)));
    let commands = [guest_protocol::Command::Attach { region: 0 }, guest_protocol::Command::PowerOff];
    for command in commands.iter().cycle().take(STOPS) {
        if conversation.perform(command).is_err() {
            break;
        }
    }
    conversation.heard.warnings();
}

/// User stacks of a program in memory that may hold anything.
pub fn user_stack(elf: &[u8], registers: [u64; 3], memory: &[u8]) {
    let agent = Agent::new(elf);
    let read = |address: u64| {
        let at = usize::try_from(address % (memory.len().max(1) as u64)).ok()?;
        Some(u64::from_le_bytes(memory.get(at..at + 8)?.try_into().ok()?))
    };
    let [rip, rsp, rbp] = registers;
    agent.function_at(rip);
    agent.stack(rip, rbp, &read);
    agent.stack_behind_kernel(rip, rsp, &read);
}

#[cfg(test)]
mod tests {
    use guest_protocol::{Command, Found, Observation, call};

    use super::*;
    use crate::conversation::Trouble;

    #[test]
    fn a_guest_that_observes_for_ever_is_stopped() {
        let found = Found::File { size: 3, allocated: 0, address: 0, unreadable: Vec::new() };
        let message =
            postcard::to_stdvec(&Observation { path: "a".into(), found, attributes: Default::default() })
                .unwrap();
        let observe = Stop::Call { number: call::OBSERVE, first: 0, second: message.len() as u64 };
        // NEXT with two arguments, then the message, which is also the file's content.
        let bytes = [&[call::NEXT as u8 + 3, 0, 0, 255, 0], &message[..]].concat();
        let mut guest = Hostile { bytes: &bytes, stops: 0, forever: Some(observe) };
        let limits = Limits { instructions: 1000, console: 100 };
        let mut conversation = Conversation::new(&mut guest, limits);
        let outcome = conversation.perform(&Command::Sync);
        assert!(matches!(outcome, Err(Trouble::Harness(why)) if why.contains("observations")));
    }
}
