//! The litmus tests of the persistency model, by their numbers there: exactly these outcomes, no more and no fewer.
//!
//! Notation of a program: instructions separated by `;`, `CPU1:` switches the processor. `x=1` is an 8-byte store,
//! `N x=1` a non-temporal one, `[x' x]=1` one 16-byte store over two words. m is in DRAM. x' and x are the last two
//! words of a line, y is the first word of the next line of the same sector, z lies in the next sector. `m?` reads m.
//! `hint` writes a flush hint of the DIMM of all these words, `hint other` one of another DIMM. `flush` is a device flush
//! that completes, `flush submitted` one that does not, `flush failed` one that completes with an error.

use std::collections::BTreeSet;
use std::sync::Arc;

use persist::{
    CrashPoint, Domain, DrainKind, Event, EventKind, FlushKind, Granularity, Media, Origin, Platform,
    Settings, StorePath,
};

use Granularity::{Line, Sector, Word};
use Platform::{AdrLost, Eadr, HostSurvives, VirtioPmem};

const EVERY: &[Granularity] = &[Sector, Line, Word];

struct Litmus {
    number: u32,
    modes: &'static [Granularity],
    nt_evicts: bool,
    strict: bool,
    platform: Platform,
    failed_flush_loses: bool,
    program: &'static str,
    /// Of which words each outcome gives the values.
    words: &'static str,
    outcomes: &'static str,
}

const fn litmus(number: u32, program: &'static str, words: &'static str, outcomes: &'static str) -> Litmus {
    Litmus {
        number,
        modes: EVERY,
        nt_evicts: false,
        strict: false,
        platform: Platform::Adr,
        failed_flush_loses: false,
        program,
        words,
        outcomes,
    }
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

    const fn on(self, platform: Platform) -> Self {
        Self { platform, ..self }
    }

    const fn failed_flush_loses(self) -> Self {
        Self { failed_flush_loses: true, ..self }
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
    litmus(15, "x=1; y=1", "x y", "00 10 11").on(Eadr),
    litmus(16, "x=1; sfence; y=1", "x y", "10 11").on(Eadr),
    litmus(17, "x=1; clwb x; sfence", "x", "0 1").on(AdrLost),
    litmus(18, "x=1; clwb x; sfence; hint; sfence; y=1", "x y", "10 11").on(AdrLost),
    litmus(19, "x=1; flush; y=1", "x y", "10 11").on(VirtioPmem),
    litmus(20, "x=1; flush submitted", "x", "0 1").on(VirtioPmem),
    litmus(21, "x=1; N x=2; sfence", "x", "2"),
    litmus(22, "x=1; N x'=1; sfence", "x x'", "01 11"),
    litmus(22, "x=1; N x'=1; sfence", "x x'", "11").nt_evicts(),
    litmus(23, "N x=1; x=2; sfence", "x", "1 2"),
    litmus(24, "N x=1; lock inc m; y=1", "x y", "10 11"),
    litmus(25, "x=1; clwb x; xchg x,2", "x", "1 2"),
    litmus(26, "CPU0: N x=1; CPU1: clwb x; sfence; y=1", "x y", "00 10 01 11"),
    litmus(27, "x=1; clwb x; promise", "x", "0 1"),
    litmus(28, "x=1; clwb x; lfence; y=1", "x y", "00 10 01 11"),
    litmus(29, "N x=1; y=1", "x y", "00 10 01 11").on(Eadr),
    litmus(30, "CPU0: x=1; CPU1: wbinvd; y=1", "x y", "00 10 01 11"),
    litmus(31, "[x y]=1", "x y", "00 10 01 11"),
    litmus(31, "[x y]=1", "x y", "00 10 01 11").on(Eadr),
    litmus(32, "x=1; x'=1", "x x'", "00 10 11").on(VirtioPmem),
    litmus(32, "x=1; z=1", "x z", "00 10 01 11").on(VirtioPmem),
    litmus(33, "x=1; clwb x; sfence; hint other; sfence", "x", "0 1").on(AdrLost),
    litmus(34, "CPU0: x=1; clwb x; lock inc m; CPU1: sfence; y=1", "x y", "10 11").strict(),
    litmus(34, "CPU0: x=1; clwb x; lock inc m; CPU1: y=1", "x y", "00 10 01 11").strict(),
    litmus(35, "CPU0: x=1; clflush x; m=1; CPU1: m?; y=1", "x y", "10 11"),
];

/// What follows from the words of the page, without a number there.
const BESIDES: &[Litmus] = &[
    // A switch of processors, an interrupt or an exception empties the store buffer; a flush alone does not.
    litmus(0, "CPU0: x=1; CPU1: y=1", "x y", "10 11").on(Eadr),
    litmus(0, "x=1; interrupt; y=1", "x y", "10 11").on(Eadr),
    litmus(0, "x=1; clwb x; y=1", "x y", "00 10 11").on(Eadr),
    litmus(0, "x=1; lock inc m; y=1", "x y", "10 11").on(Eadr),
    litmus(0, "y=1; x=1; clflush x; y=2", "x y", "11 12").on(Eadr),
    // Write-combining buffers stay with their processor.
    litmus(0, "CPU0: N x=1; CPU1: sfence; y=1", "x y", "00 10 01 11").on(Eadr),
    litmus(0, "N x=1; sfence; y=1", "x y", "10 11").on(Eadr),
    litmus(0, "N x=1; x=2; y=1; interrupt", "x y", "21").on(Eadr),
    // Handed over under strict fences are only non-temporal stores: the cache needs no fence.
    litmus(0, "x=1; N y=1; lock inc m", "x y", "10 11").on(Eadr).strict(),
    litmus(0, "CPU0: x=1; N y=1; lock inc m; CPU1: sfence", "x y", "11").on(Eadr).strict(),
    // A hint covers what was drained before it, and counts once its own processor has drained behind it.
    litmus(0, "x=1; clwb x; hint; sfence", "x", "0 1").on(AdrLost),
    litmus(0, "x=1; clwb x; sfence; hint", "x", "0 1").on(AdrLost),
    litmus(0, "CPU0: x=1; clwb x; sfence; CPU1: hint; CPU0: sfence", "x", "0 1").on(AdrLost),
    litmus(0, "CPU0: x=1; clwb x; sfence; CPU1: hint; sfence", "x", "1").on(AdrLost),
    litmus(0, "x=1; sfence; hint; sfence", "x", "0 1").on(AdrLost),
    litmus(0, "CPU1: hint; CPU0: x=1; clwb x; sfence; CPU1: sfence", "x", "0 1").on(AdrLost),
    litmus(0, "x=1; clflush x; hint; sfence", "x", "1").on(AdrLost),
    litmus(0, "x=1; clwb x; sfence; x'=1; hint; sfence", "x x'", "10 11").on(AdrLost),
    litmus(0, "x=1; clwb x; sfence; hint; sfence; x=2; clwb x; sfence", "x", "1 2").on(AdrLost),
    // Visible at the doorbell: cached stores at once, non-temporal ones once drained.
    litmus(0, "N x=1; flush", "x", "0 1").on(VirtioPmem),
    litmus(0, "N x=1; sfence; flush", "x", "1").on(VirtioPmem),
    litmus(0, "CPU0: N x=1; CPU1: sfence; flush", "x", "0 1").on(VirtioPmem),
    litmus(0, "x=1; flush submitted; y=1; completed", "x y", "10 11").on(VirtioPmem),
    litmus(0, "x=1; clwb x; sfence", "x", "0 1").on(VirtioPmem),
    // A sector is what it was at one moment: a non-temporal store may be visible early, and must be once drained.
    litmus(0, "N x=1; y=1", "x y", "00 10 01 11").on(VirtioPmem),
    litmus(0, "N x=1; sfence; y=1", "x y", "00 10 11").on(VirtioPmem),
    litmus(0, "y=1; N x=1", "y x", "00 10 11").on(VirtioPmem),
    litmus(0, "x=1; y=1; x=2", "x y", "00 10 11 21").on(VirtioPmem),
    litmus(0, "[x y]=1", "x y", "00 10 01 11").on(VirtioPmem),
    // A flush that fails guarantees nothing. With the option it takes what it covered along.
    litmus(0, "x=1; flush failed; y=1", "x y", "00 10 11").on(VirtioPmem),
    litmus(0, "x=1; flush failed; flush; y=1", "x y", "10 11").on(VirtioPmem),
    litmus(0, "x=1; flush failed; flush", "x", "0 1").on(VirtioPmem).failed_flush_loses(),
    litmus(0, "x=1; flush; flush failed", "x", "1").on(VirtioPmem).failed_flush_loses(),
    // The sector is written again, as it is then.
    litmus(0, "x=1; flush failed; y=1; flush", "x y", "11").on(VirtioPmem).failed_flush_loses(),
    litmus(0, "x=1; flush failed; z=1; flush", "x z", "01 11").on(VirtioPmem).failed_flush_loses(),
    // What was covered takes along what it lies over, although that is drained only later.
    litmus(0, "N x=1; x=2; flush failed; sfence; flush", "x", "0 1 2").on(VirtioPmem).failed_flush_loses(),
    litmus(0, "x=1; N y=1", "x y", "11").on(HostSurvives),
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
        "z" => 0x1200,
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
        "interrupt" => vec![EventKind::StoresVisible],
        "hint" => vec![EventKind::FlushHint { dimm: 0 }],
        "hint other" => vec![EventKind::FlushHint { dimm: 1 }],
        "flush submitted" => vec![EventKind::DeviceFlushSubmitted { region: 0, id: 0 }],
        "completed" => vec![EventKind::DeviceFlushCompleted { region: 0, id: 0, status: 0 }],
        "flush" | "flush failed" => vec![
            EventKind::DeviceFlushSubmitted { region: 0, id: 0 },
            EventKind::DeviceFlushCompleted {
                region: 0,
                id: 0,
                status: if instruction == "flush" { 0 } else { -1 },
            },
        ],
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
    let Litmus { nt_evicts, strict, platform, failed_flush_loses, .. } = *litmus;
    let settings = Settings {
        platform,
        granularity,
        nt_evicts,
        strict_fences: strict,
        failed_flush_loses,
        ..Settings::default()
    };
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
    for litmus in LITMUS.iter().chain(BESIDES) {
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
            let Litmus { number, program, platform, .. } = litmus;
            assert_eq!(found, expected, "{number} {program:?} {platform} {granularity:?}");
            assert_eq!(point.count().states, point.all().count() as u128, "{}", litmus.number);
        }
    }
}
