//! Litmus tests of the persistency model, by their numbers there, from the instructions of one or two processors to
//! the outcomes: exactly these, whatever the seed.

use std::collections::BTreeSet;
use std::sync::Arc;

use persist::{Domain, EventKind, Granularity, Media, Platform, Region, Settings};
use vmm::{Machine, Stop};

use crate::guest::{X, machine, machine_with_one};

struct Litmus {
    number: u32,
    strict: bool,
    platform: Platform,
    /// What processor 0 does, then what processor 1 does once it has seen a store to RAM that follows it.
    programs: [&'static str; 2],
    /// Values of x and y.
    outcomes: &'static str,
}

const LITMUS: &[Litmus] = &[
    Litmus {
        number: 13,
        strict: false,
        platform: Platform::Adr,
        programs: ["x=1", "clwb x; sfence; y=1"],
        outcomes: "10 11",
    },
    Litmus {
        number: 14,
        strict: false,
        platform: Platform::Adr,
        programs: ["x=1; clwb x", "sfence; y=1"],
        outcomes: "00 10 01 11",
    },
    Litmus {
        number: 26,
        strict: false,
        platform: Platform::Adr,
        programs: ["N x=1", "clwb x; sfence; y=1"],
        outcomes: "00 10 01 11",
    },
    Litmus {
        number: 30,
        strict: false,
        platform: Platform::Adr,
        programs: ["x=1", "wbinvd; y=1"],
        outcomes: "00 10 01 11",
    },
    Litmus {
        number: 34,
        strict: true,
        platform: Platform::Adr,
        programs: ["x=1; clwb x; lock inc n", "sfence; y=1"],
        outcomes: "10 11",
    },
    Litmus {
        number: 34,
        strict: true,
        platform: Platform::Adr,
        programs: ["x=1; clwb x; lock inc n", "y=1"],
        outcomes: "00 10 01 11",
    },
    Litmus {
        number: 35,
        strict: false,
        platform: Platform::Adr,
        programs: ["x=1; clflush x", "y=1"],
        outcomes: "10 11",
    },
    // Switching processors empties the store buffer.
    Litmus {
        number: 15,
        strict: false,
        platform: Platform::Eadr,
        programs: ["x=1", "y=1"],
        outcomes: "10 11",
    },
];

/// Number, platform, what the only processor does, values of x and y.
const OF_ONE: &[(u32, Platform, &str, &str)] = &[
    (15, Platform::Eadr, "x=1; y=1", "00 10 11"),
    (16, Platform::Eadr, "x=1; sfence; y=1", "10 11"),
    (16, Platform::Eadr, "x=1; lock inc n; y=1", "10 11"),
    (17, Platform::AdrLost, "x=1; clwb x; sfence", "00 10"),
    (18, Platform::AdrLost, "x=1; clwb x; sfence; hint; sfence; y=1", "10 11"),
    // The uncached write of a hint drains what came before it, as any other would: after the hint nothing does.
    (18, Platform::AdrLost, "x=1; clwb x; hint; sfence", "10"),
    (18, Platform::AdrLost, "x=1; clwb x; sfence; hint", "00 10"),
    (29, Platform::Eadr, "N x=1; y=1", "00 10 01 11"),
    (31, Platform::Adr, "x,y=1", "00 10 01 11"),
    (31, Platform::Eadr, "x,y=1", "00 10 01 11"),
    (33, Platform::AdrLost, "x=1; clwb x; sfence; hint other; sfence", "00 10"),
];

/// x is at RBX, y at RBX + 8 on the next line, the flag m at RBP, n at RBP + 8 in RAM; RDX and both halves of XMM0 are 1,
/// R8 points at a flush hint of their DIMM, R9 at one of another.
fn encode(instruction: &str) -> &'static [u8] {
    match instruction {
        "x=1" => &[0x48, 0xc7, 0x03, 1, 0, 0, 0],
        "y=1" => &[0x48, 0xc7, 0x43, 8, 1, 0, 0, 0],
        "x,y=1" => &[0x0f, 0x11, 0x03],
        "hint" => &[0x49, 0x89, 0x10],
        "hint other" => &[0x49, 0x89, 0x11],
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

fn settings(granularity: Granularity, platform: Platform) -> Settings {
    Settings { granularity, platform, ..Settings::default() }
}

/// Runs a machine until it halts. Returns every outcome, as values of x and y.
fn outcomes(mut machine: Machine, settings: Settings, about: &str) -> BTreeSet<String> {
    machine.set_store_buffer_events(settings.platform == Platform::Eadr);
    machine.set_tracing(true);
    assert_eq!(machine.run(10_000_000), Stop::Idle, "{about}");
    let regions = machine.regions().iter().map(|region| Region {
        range: region.base..region.base + region.size,
        platform: settings.platform,
        dimm: region.dimm,
    });
    let mut domain = Domain::of_regions(settings, regions.collect(), Arc::new(Zeros));
    for event in &machine.take_events() {
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

fn expected(outcomes: &str) -> BTreeSet<String> {
    outcomes.split(' ').map(str::to_owned).collect()
}

const GRANULARITIES: [Granularity; 3] = [Granularity::Sector, Granularity::Line, Granularity::Word];

#[test]
fn two_processors_have_exactly_the_outcomes_of_the_litmus_tests() {
    for litmus in LITMUS {
        for seed in 0..4 {
            for wait in ["wait for m", "pause for m"] {
                for granularity in GRANULARITIES {
                    let [first, second] = litmus.programs;
                    let (first, second) = (format!("{first}; m=1; stop"), format!("{wait}; {second}; stop"));
                    let machine = machine(&assemble(&first), &assemble(&second), seed);
                    let settings = settings(granularity, litmus.platform);
                    let settings = Settings { strict_fences: litmus.strict, ..settings };
                    let about = format!("{} {wait} {granularity:?} seed {seed}", litmus.number);
                    let found = outcomes(machine, settings, &about);
                    assert_eq!(found, expected(litmus.outcomes), "{about}");
                }
            }
        }
    }
}

#[test]
fn one_processor_has_exactly_the_outcomes_of_the_litmus_tests() {
    for &(number, platform, program, states) in OF_ONE {
        for granularity in GRANULARITIES {
            let machine = machine_with_one(&assemble(&format!("{program}; stop")));
            let about = format!("{number} {program:?} {platform} {granularity:?}");
            let found = outcomes(machine, settings(granularity, platform), &about);
            assert_eq!(found, expected(states), "{about}");
        }
    }
}

#[test]
fn a_switch_of_processors_is_an_event_only_where_the_store_buffer_counts() {
    for follows in [false, true] {
        let programs = ["x=1; m=1; stop", "pause for m; stop"].map(assemble);
        let mut machine = machine(&programs[0], &programs[1], 1);
        machine.set_store_buffer_events(follows);
        machine.set_tracing(true);
        assert_eq!(machine.run(10_000_000), Stop::Idle);
        let events = machine.take_events();
        let told = events.iter().filter(|event| event.kind == EventKind::StoresVisible).count();
        assert_eq!((events.len(), told), if follows { (2, 1) } else { (1, 0) }, "{events:?}");
    }
}
