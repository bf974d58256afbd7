//! A guest that says anything on the control port: random calls at random moments, with addresses, lengths and messages
//! as they come. No panic, an end, and nothing written but what the guest named for it.

use guest_protocol::{Command, Found, MAX_MESSAGE, Observation, Reply, call};
use proptest::prelude::*;

use crate::conversation::{Conversation, Limits};
use crate::target::{Region, Stop, Target};

/// Where the guest's memory is, and how much there is.
const BASE: u64 = 0xffff_8880_0000_0000;
const SIZE: usize = 4096;

/// What the guest does.
struct Hostile {
    stops: std::vec::IntoIter<Stop>,
    memory: Vec<u8>,
    /// The buffer that the call under way names to be written.
    named: Option<(u64, u64)>,
}

impl Target for Hostile {
    fn run(&mut self, _: u64) -> Stop {
        let stop = self.stops.next().unwrap_or(Stop::Ended("it has nothing more to say"));
        self.named = match stop {
            Stop::Call { number: call::NEXT, first, second } => Some((first, second)),
            _ => None,
        };
        stop
    }
    fn write_guest(&mut self, address: u64, bytes: &[u8]) -> bool {
        let (buffer, room) = self.named.expect("only a call for a command names a buffer");
        assert!(address == buffer && bytes.len() as u64 <= room, "{address:#x}, {} bytes", bytes.len());
        let Some(at) = self.at(address, bytes.len()) else { return false };
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        true
    }
    fn read_guest(&self, address: u64, buffer: &mut [u8]) -> bool {
        let Some(at) = self.at(address, buffer.len()) else { return false };
        buffer.copy_from_slice(&self.memory[at..at + buffer.len()]);
        true
    }
    fn retired(&self) -> u64 {
        0
    }
    fn answer(&mut self, _: i64) {}
    fn translate(&self, address: u64) -> Option<u64> {
        Some(address & 0xffff)
    }
    fn regions(&self) -> Vec<Region> {
        Vec::new()
    }
    fn read_pmem(&self, _: u64, _: &mut [u8]) {}
    fn write_pmem(&mut self, address: u64, _: &[u8]) {
        panic!("nobody asked to write {address:#x}");
    }
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
        Vec::new()
    }
}

impl Hostile {
    fn at(&self, address: u64, len: usize) -> Option<usize> {
        let at = usize::try_from(address.checked_sub(BASE)?).ok()?;
        at.checked_add(len).filter(|end| *end <= self.memory.len()).map(|_| at)
    }
}

/// Addresses in memory, around its borders, and anywhere.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(BASE), 4 => (0..SIZE as u64).prop_map(|at| BASE + at), 1 => any::<u64>()]
}

/// Lengths of messages, about the longest one, and anything.
fn length() -> impl Strategy<Value = u64> {
    let longest = MAX_MESSAGE as u64;
    prop_oneof![6 => 0..200u64, 2 => 0..2 * SIZE as u64, 1 => longest - 2..longest + 2, 1 => any::<u64>()]
}

fn stop() -> impl Strategy<Value = Stop> {
    let number = prop_oneof![1 => any::<u32>(), 9 => 0..12u32, 6 => Just(call::NEXT), 6 => Just(call::DONE)];
    let call = (number, address(), length()).prop_map(|(number, first, second)| Stop::Call {
        number,
        first,
        second,
    });
    prop_oneof![20 => call, 2 => Just(Stop::Budget), 1 => any::<u64>().prop_map(Stop::Event)]
}

/// Messages as an agent makes them, with numbers that no agent has, and bytes that are none.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let found = prop_oneof![
        (length(), any::<u64>(), address(), prop::collection::vec(any::<(u64, u64)>(), 0..3)).prop_map(
            |(size, allocated, address, unreadable)| Found::File { size, allocated, address, unreadable }
        ),
        Just(Found::Directory),
        any::<i32>().prop_map(|errno| Found::Errno { call: "read".to_owned(), errno }),
    ];
    let observation = found.prop_map(|found| Observation {
        path: "a".to_owned(),
        found,
        attributes: guest_protocol::Attributes { links: 1, xattrs: vec![("user.a".to_owned(), vec![1])] },
    });
    prop_oneof![
        any::<i32>().prop_map(|status| postcard::to_stdvec(&Reply::Exited { status }).unwrap()),
        observation.prop_map(|it| postcard::to_stdvec(&it).unwrap()),
        proptest::collection::vec(any::<u8>(), 0..64),
    ]
}

proptest! {
    #[test]
    fn a_guest_that_says_anything_breaks_nothing(
        stops in proptest::collection::vec(stop(), 0..40),
        message in message(),
        wanted in length(),
    ) {
        let mut memory = message;
        memory.resize(SIZE, 0);
        let mut guest = Hostile { stops: stops.into_iter(), memory, named: None };
        let limits = Limits { instructions: 30_000_000, console: 1 << 16 };
        let commands = [Command::Attach { region: 0 }, Command::ObserveTree, Command::Umount];
        for command in commands.iter().cycle().take(40) {
            // Also behind a call that came at the wrong moment.
            let mut conversation = Conversation::new(&mut guest, limits).locating(Some(("a", wanted)));
            let _ = conversation.perform(command);
        }
    }
}

#[test]
fn a_command_longer_than_the_buffer_that_the_guest_names_is_not_written() {
    for room in [0, 5, 6, 7, 64] {
        let next = Stop::Call { number: call::NEXT, first: BASE, second: room };
        let done = Stop::Call { number: call::DONE, first: BASE + 1024, second: 1 };
        let mut guest = Hostile { stops: vec![next, done].into_iter(), memory: vec![0; SIZE], named: None };
        let limits = Limits { instructions: 1000, console: 100 };
        let command = Command::Mkdir { path: "12345".to_owned() };
        let reply = Conversation::new(&mut guest, limits).perform(&command);
        assert_eq!(reply.is_ok(), room >= 7, "{room}");
    }
}
