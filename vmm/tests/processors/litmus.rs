//! The litmus tests of the persistency model that take two processors, by their numbers there, from the instructions of
//! two processors to the outcomes: exactly these, whatever the seed.

use std::collections::BTreeSet;
use std::sync::Arc;

use persist::{Domain, Granularity, Media, Settings};
use vmm::Stop;

use crate::guest::{X, machine};

struct Litmus {
    number: u32,
    strict: bool,
    /// What processor 0 does, then what processor 1 does once it has seen a store to RAM that follows it.
    programs: [&'static str; 2],
    /// Values of x and y.
    outcomes: &'static str,
}

const LITMUS: &[Litmus] = &[
    Litmus { number: 13, strict: false, programs: ["x=1", "clwb x; sfence; y=1"], outcomes: "10 11" },
    Litmus { number: 14, strict: false, programs: ["x=1; clwb x", "sfence; y=1"], outcomes: "00 10 01 11" },
    Litmus { number: 26, strict: false, programs: ["N x=1", "clwb x; sfence; y=1"], outcomes: "00 10 01 11" },
    Litmus { number: 30, strict: false, programs: ["x=1", "wbinvd; y=1"], outcomes: "00 10 01 11" },
    Litmus {
        number: 34,
        strict: true,
        programs: ["x=1; clwb x; lock inc n", "sfence; y=1"],
        outcomes: "10 11",
    },
    Litmus {
        number: 34,
        strict: true,
        programs: ["x=1; clwb x; lock inc n", "y=1"],
        outcomes: "00 10 01 11",
    },
    Litmus { number: 35, strict: false, programs: ["x=1; clflush x", "y=1"], outcomes: "10 11" },
];

/// x is at RBX, y at RBX + 8 on the next line, the flag m at RBP, n at RBP + 8 in RAM; RDX is 1.
fn encode(instruction: &str) -> &'static [u8] {
    match instruction {
        "x=1" => &[0x48, 0xc7, 0x03, 1, 0, 0, 0],
        "y=1" => &[0x48, 0xc7, 0x43, 8, 1, 0, 0, 0],
        "N x=1" => &[0x48, 0x0f, 0xc3, 0x13],
        "clwb x" => &[0x66, 0x0f, 0xae, 0x33],
        "clflush x" => &[0x0f, 0xae, 0x3b],
        "sfence" => &[0x0f, 0xae, 0xf8],
        "wbinvd" => &[0x0f, 0x09],
        "lock inc n" => &[0xf0, 0x48, 0xff, 0x45, 8],
        "m=1" => &[0xc6, 0x45, 0, 1],
        // cmp byte [rbp], 0; je back
        "wait for m" => &[0x80, 0x7d, 0, 0, 0x74, 0xfa],
        // The same with PAUSE in front.
        "pause for m" => &[0xf3, 0x90, 0x80, 0x7d, 0, 0, 0x74, 0xf8],
        "stop" => &[0xfa, 0xf4],
        other => panic!("no instruction {other:?}"),
    }
}

fn assemble(program: &str) -> Vec<u8> {
    program.split("; ").flat_map(encode).copied().collect()
}

struct Zeros;

impl Media for Zeros {
    fn line(&self, _: u64) -> [u8; 64] {
        [0; 64]
    }
}

fn outcomes(litmus: &Litmus, wait: &str, granularity: Granularity, seed: u64) -> BTreeSet<String> {
    let [first, second] = litmus.programs;
    let (first, second) = (format!("{first}; m=1; stop"), format!("{wait}; {second}; stop"));
    let mut machine = machine(&assemble(&first), &assemble(&second), seed);
    machine.set_tracing(true);
    assert_eq!(machine.run(10_000_000), Stop::Idle, "litmus {}", litmus.number);
    let settings = Settings { granularity, strict_fences: litmus.strict, ..Settings::default() };
    let mut domain = Domain::new(settings, Arc::new(Zeros));
    let events = machine.take_events();
    assert!(events.iter().any(|event| event.origin.vcpu == 1), "litmus {}: {events:?}", litmus.number);
    for event in &events {
        domain.apply(event);
    }
    let point = domain.crash_point();
    let x = machine.regions()[0].base + X;
    let states = point.all().map(|choice| {
        let content = point.content(&choice);
        let digit = |addr: u64| content.line(addr).copied().unwrap_or([0; 64])[(addr % 64) as usize];
        format!("{}{}", digit(x), digit(x + 8))
    });
    states.collect()
}

#[test]
fn two_processors_have_exactly_the_outcomes_of_the_litmus_tests() {
    for litmus in LITMUS {
        let expected: BTreeSet<String> = litmus.outcomes.split(' ').map(str::to_owned).collect();
        for seed in 0..4 {
            for wait in ["wait for m", "pause for m"] {
                for granularity in [Granularity::Sector, Granularity::Line, Granularity::Word] {
                    let found = outcomes(litmus, wait, granularity, seed);
                    assert_eq!(found, expected, "{} {wait} {granularity:?} seed {seed}", litmus.number);
                }
            }
        }
    }
}
