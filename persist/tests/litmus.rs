//! The litmus tests of the persistency model, by their numbers there: exactly these outcomes, no more and no fewer.
//!
//! Notation of a program: instructions separated by `;`, `CPU1:` switches the processor. `x=1` is an 8-byte store,
//! `N x=1` a non-temporal one, `[x' x]=1` one 16-byte store over two words. m is in DRAM. x' and x are the last two
//! words of a line, y is the first word of the next line. `m?` reads m.

use std::collections::BTreeSet;
use std::sync::Arc;

use persist::{
    CrashPoint, Domain, DrainKind, Event, EventKind, FlushKind, Granularity, Media, Origin, Settings,
    StorePath,
};

use Granularity::{Line, Sector, Word};

const EVERY: &[Granularity] = &[Sector, Line, Word];

struct Litmus {
    number: u32,
    modes: &'static [Granularity],
    nt_evicts: bool,
    strict: bool,
    program: &'static str,
    /// Of which words each outcome gives the values.
    words: &'static str,
    outcomes: &'static str,
}

const fn litmus(number: u32, program: &'static str, words: &'static str, outcomes: &'static str) -> Litmus {
    Litmus { number, modes: EVERY, nt_evicts: false, strict: false, program, words, outcomes }
}

impl Litmus {
    const fn only(self, modes: &'static [Granularity]) -> Self {
        Self { modes, ..self }
    }

    const fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    const fn nt_evicts(self) -> Self {
        Self { nt_evicts: true, ..self }
    }
}

const LITMUS: &[Litmus] = &[
    litmus(1, "x=1; y=1", "x y", "00 10 01 11"),
    litmus(2, "x=1; x'=1", "x x'", "00 10 11"),
    litmus(3, "x=1; clwb x; sfence; y=1", "x y", "10 11"),
    litmus(4, "x=1; clwb x; y=1", "x y", "00 10 01 11"),
    litmus(5, "x=1; clflush x; y=1", "x y", "10 11"),
    litmus(6, "x=1; clflushopt x; lock inc m; y=1", "x y", "10 11"),
    litmus(7, "clwb x; x=1; sfence", "x", "0 1"),
    litmus(8, "N x=1; y=1", "x y", "00 10 01 11"),
    litmus(9, "N x=1; sfence; y=1", "x y", "10 11"),
    litmus(10, "x=1; clwb x; x=2; sfence", "x", "1 2"),
    litmus(11, "N x=1; N x'=1", "x x'", "00 10 01 11"),
    litmus(12, "[x' x]=1", "x x'", "00 11").only(&[Line, Sector]),
    litmus(12, "[x' x]=1", "x x'", "00 10 01 11").only(&[Word]),
    litmus(13, "CPU0: x=1; CPU1: clwb x; sfence; y=1", "x y", "10 11"),
    litmus(14, "CPU0: x=1; clwb x; CPU1: sfence; y=1", "x y", "00 10 01 11"),
    litmus(21, "x=1; N x=2; sfence", "x", "2"),
    litmus(22, "x=1; N x'=1; sfence", "x x'", "01 11"),
    litmus(22, "x=1; N x'=1; sfence", "x x'", "11").nt_evicts(),
    litmus(23, "N x=1; x=2; sfence", "x", "1 2"),
    litmus(24, "N x=1; lock inc m; y=1", "x y", "10 11"),
    litmus(25, "x=1; clwb x; xchg x,2", "x", "1 2"),
    litmus(26, "CPU0: N x=1; CPU1: clwb x; sfence; y=1", "x y", "00 10 01 11"),
    litmus(27, "x=1; clwb x; promise", "x", "0 1"),
    litmus(28, "x=1; clwb x; lfence; y=1", "x y", "00 10 01 11"),
    litmus(30, "CPU0: x=1; CPU1: wbinvd; y=1", "x y", "00 10 01 11"),
    litmus(31, "[x y]=1", "x y", "00 10 01 11"),
    litmus(34, "CPU0: x=1; clwb x; lock inc m; CPU1: sfence; y=1", "x y", "10 11").strict(),
    litmus(34, "CPU0: x=1; clwb x; lock inc m; CPU1: y=1", "x y", "00 10 01 11").strict(),
    litmus(35, "CPU0: x=1; clflush x; m=1; CPU1: m?; y=1", "x y", "10 11"),
];

struct Zeros;

impl Media for Zeros {
    fn line(&self, _: u64) -> [u8; 64] {
        [0; 64]
    }
}

fn address(word: &str) -> u64 {
    match word {
        "x'" => 0x1030,
        "x" => 0x1038,
        "y" => 0x1040,
        other => panic!("no word {other:?}"),
    }
}

fn value(digit: &str) -> u64 {
    digit.parse().unwrap_or_else(|_| panic!("no value {digit:?}"))
}

fn store(words: &str, digit: &str, path: StorePath) -> EventKind {
    let words: Vec<&str> = words.trim_matches(['[', ']']).split(' ').collect();
    let bytes = value(digit).to_le_bytes().repeat(words.len());
    EventKind::Store { addr: address(words[0]), bytes: bytes.into(), path }
}

/// What the persistence domain hears of an instruction.
fn events_of(instruction: &str) -> Vec<EventKind> {
    let flush = |word, kind| vec![EventKind::Flush { addr: address(word) & !63, kind }];
    let drain = |kind| vec![EventKind::Drain(kind)];
    match instruction {
        "sfence" => drain(DrainKind::Sfence),
        "wbinvd" => drain(DrainKind::WriteBackAll),
        "lock inc m" => drain(DrainKind::Locked),
        // Nothing that reaches persistent memory or drains: a store to DRAM, a load from it.
        "lfence" | "m=1" | "m?" => Vec::new(),
        "promise" => vec![EventKind::Promise { id: 0 }],
        _ => {
            if let Some(word) = instruction.strip_prefix("clwb ") {
                flush(word, FlushKind::Clwb)
            } else if let Some(word) = instruction.strip_prefix("clflushopt ") {
                flush(word, FlushKind::Clflushopt)
            } else if let Some(word) = instruction.strip_prefix("clflush ") {
                flush(word, FlushKind::Clflush)
            } else if let Some((word, digit)) =
                instruction.strip_prefix("xchg ").and_then(|rest| rest.split_once(','))
            {
                vec![EventKind::Drain(DrainKind::Locked), store(word, digit, StorePath::Cached)]
            } else if let Some((words, digit)) = instruction.split_once('=') {
                match words.strip_prefix("N ") {
                    Some(word) => vec![store(word, digit, StorePath::NonTemporal)],
                    None => vec![store(words, digit, StorePath::Cached)],
                }
            } else {
                panic!("no instruction {instruction:?}")
            }
        }
    }
}

fn run(litmus: &Litmus, granularity: Granularity) -> CrashPoint {
    let Litmus { nt_evicts, strict, .. } = *litmus;
    let settings = Settings { granularity, nt_evicts, strict_fences: strict, ..Settings::default() };
    let mut domain = Domain::new(settings, Arc::new(Zeros));
    let (mut vcpu, mut seq) = (0, 0);
    let mut apply = |vcpu, retired, kind| {
        domain.apply(&Event { seq, origin: Origin { vcpu, retired, ..Origin::default() }, kind });
        seq += 1;
    };
    for (retired, instruction) in (0..).zip(litmus.program.split(';')) {
        let mut instruction = instruction.trim();
        if let Some((cpu, rest)) = instruction.strip_prefix("CPU").and_then(|rest| rest.split_once(": ")) {
            // Whoever records says how far a processor came that another one takes over from.
            apply(vcpu, retired, EventKind::Retired);
            vcpu = cpu.parse().expect("a processor number");
            instruction = rest;
        }
        for kind in events_of(instruction) {
            apply(vcpu, retired, kind);
        }
    }
    domain.crash_point()
}

#[test]
fn litmus_tests_have_exactly_their_outcomes() {
    for litmus in LITMUS {
        for &granularity in litmus.modes {
            let point = run(litmus, granularity);
            let digit = |choice: &_, word: &str| {
                let addr = address(word);
                let line = point.content(choice).line(addr).copied().unwrap_or([0; 64]);
                line[(addr % 64) as usize].to_string()
            };
            let found: BTreeSet<String> = point
                .all()
                .map(|choice| litmus.words.split(' ').map(|word| digit(&choice, word)).collect())
                .collect();
            let expected: BTreeSet<String> = litmus.outcomes.split(' ').map(str::to_owned).collect();
            assert_eq!(found, expected, "{} {:?} {granularity:?}", litmus.number, litmus.program);
            assert_eq!(point.count().states, point.all().count() as u128, "{}", litmus.number);
        }
    }
}
