//! Lazily found outcomes are those of trying every crash state: for a reader that does anything at random, and for the
//! toy file system.

use std::collections::BTreeSet;
use std::sync::Arc;

use persist::{
    Choice, CrashPoint, Domain, DrainKind, Event, EventKind, FlushKind, Media, Origin, Platform, StorePath,
};
use proptest::prelude::*;

use super::recovery::Checks;
use super::search::{Limits, Reached, Searched, Subject, search};
use super::{Cut, SETS, Task};
use crate::options::RunOptions;
use crate::recover::{Shape, Worker};
use crate::run::{Run, prepare};
use crate::scenario::Scenario;
use crate::target::HostError;
use crate::torn;
use crate::toy::ToyLaboratory;
use crate::verdict::Class;

const BASE: u64 = 0x1000;
const SIZE: usize = 1024;

struct Zeros;

impl Media for Zeros {
    fn line(&self, _: u64) -> [u8; 64] {
        [0; 64]
    }
}

/// What the reader does next.
#[derive(Clone, Debug)]
enum Step {
    /// Takes a byte; if it is that, the next step is left out.
    Take {
        at: usize,
        skips: u8,
    },
    /// Copies without looking.
    Copy {
        from: usize,
        to: usize,
        len: usize,
    },
    Write {
        at: usize,
        byte: u8,
    },
}

/// A machine that reads.
#[derive(Clone)]
struct State {
    memory: Vec<u8>,
    /// The byte that each byte is a copy of, where that is undecided.
    origins: Vec<Option<u64>>,
    next: usize,
    taken: Vec<u8>,
}

struct Reader<'a> {
    steps: &'a [Step],
    now: State,
    levels: Vec<State>,
}

impl<'a> Reader<'a> {
    fn new(point: &CrashPoint, choice: &Choice, steps: &'a [Step]) -> Self {
        let content = point.content(choice);
        let mut memory = vec![0; SIZE];
        for (addr, line) in content.lines() {
            memory[(addr - BASE) as usize..][..64].copy_from_slice(line);
        }
        let now = State { memory, origins: vec![None; SIZE], next: 0, taken: Vec::new() };
        Reader { steps, now, levels: Vec::new() }
    }

    /// Everything undecided that is in flight.
    fn lazy(point: &CrashPoint, steps: &'a [Step]) -> Self {
        let mut reader = Reader::new(point, &point.nothing(), steps);
        for (line, mask) in point.undecided() {
            for byte in (0..64).filter(|byte| mask >> byte & 1 == 1) {
                let at = (line - BASE + byte) as usize;
                reader.now.origins[at] = Some(line + byte);
                reader.now.memory[at] = 0xee;
            }
        }
        reader
    }
}

impl Subject for Reader<'_> {
    type Leaf = State;

    fn go_on(&mut self) -> Result<Reached<State>, HostError> {
        let now = &mut self.now;
        while let Some(step) = self.steps.get(now.next) {
            match *step {
                Step::Take { at, skips } => {
                    if let Some(origin) = now.origins[at] {
                        return Ok(Reached::Undecided(vec![origin & !63]));
                    }
                    now.taken.push(now.memory[at]);
                    now.next += usize::from(now.memory[at] == skips);
                }
                Step::Copy { from, to, len } => {
                    now.memory.copy_within(from..from + len, to);
                    now.origins.copy_within(from..from + len, to);
                }
                Step::Write { at, byte } => {
                    now.memory[at] = byte;
                    now.origins[at] = None;
                }
            }
            now.next += 1;
        }
        Ok(Reached::End(now.clone()))
    }

    fn decide(&mut self, line: u64, content: &[u8; 64]) {
        for (byte, origin) in self.now.memory.iter_mut().zip(&mut self.now.origins) {
            if let Some(decided) = origin.take_if(|origin| *origin & !63 == line) {
                *byte = content[(decided % 64) as usize];
            }
        }
    }

    fn push(&mut self) {
        self.levels.push(self.now.clone());
    }

    fn rewind(&mut self) {
        self.now.clone_from(self.levels.last().expect("a level is open"));
    }

    fn pop(&mut self) {
        self.now = self.levels.pop().expect("a level is open");
    }
}

fn place() -> impl Strategy<Value = usize> {
    prop_oneof![4 => (6_usize..10).prop_map(|word| word * 8), 2 => 0_usize..130, 1 => 512_usize..520]
}

fn reader() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (place(), 0_u8..3).prop_map(|(at, skips)| Step::Take { at, skips }),
        2 => (place(), place(), 1_usize..80).prop_map(|(from, to, len)| Step::Copy { from, to, len }),
        1 => (place(), 0_u8..3).prop_map(|(at, byte)| Step::Write { at, byte }),
    ];
    prop::collection::vec(step, 1..14)
}

fn kinds() -> impl Strategy<Value = Vec<EventKind>> {
    let path = prop_oneof![3 => Just(StorePath::Cached), 2 => Just(StorePath::NonTemporal), 1 => Just(StorePath::CachedRep(1))];
    let len = prop_oneof![Just(8_usize), Just(4), Just(16), Just(24)];
    let store = (place(), len, 1_u8..4, path).prop_map(|(at, len, byte, path)| {
        vec![EventKind::Store { addr: BASE + at as u64, bytes: vec![byte; len].into(), path }]
    });
    let sector = (1_u8..4).prop_map(|byte| {
        let words = (0..64).map(move |word| EventKind::Store {
            addr: BASE + word * 8,
            bytes: vec![byte; 8].into(),
            path: StorePath::NonTemporal,
        });
        words.collect()
    });
    let flush =
        (0_u64..2).prop_map(|line| vec![EventKind::Flush { addr: BASE + line * 64, kind: FlushKind::Clwb }]);
    let one = prop_oneof![
        6 => store,
        2 => sector,
        1 => flush,
        1 => Just(vec![EventKind::Drain(DrainKind::Sfence)]),
    ];
    prop::collection::vec(one, 1..7).prop_map(|several| several.concat())
}

/// What is in flight behind these events. A run of 64 words is one kernel copy of a sector.
fn crash_point(kinds: &[EventKind], platform: Platform) -> CrashPoint {
    let settings = persist::Settings { platform, ..persist::Settings::default() };
    let mut domain = Domain::new(settings, Arc::new(Zeros));
    let mut call = 1;
    for (seq, kind) in (0..).zip(kinds) {
        let word = matches!(kind, EventKind::Store { addr, path: StorePath::NonTemporal, bytes } if bytes.len() == 8 && addr % 8 == 0);
        call += u32::from(matches!(kind, EventKind::Store { addr: BASE, .. }));
        let copy_call = if word { call } else { 0 };
        let origin = Origin { vcpu: 0, cpl: 0, rip: 0, retired: seq + 1, copy_call };
        domain.apply(&Event { seq, origin, kind: kind.clone() });
    }
    domain.crash_point()
}

/// What the reader has taken, and what lies in memory in the end.
type Outcome = (Vec<u8>, Vec<u8>);

fn eagerly(point: &CrashPoint, steps: &[Step]) -> Vec<(Choice, Outcome)> {
    let outcome = |choice: Choice| {
        let mut reader = Reader::new(point, &choice, steps);
        let Ok(Reached::End(end)) = reader.go_on() else { panic!("everything is decided") };
        (choice, (end.taken, end.memory))
    };
    point.all().map(outcome).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_crash_state_is_stood_for_by_exactly_one_leaf(
        kinds in kinds(), steps in reader(),
        platform in prop_oneof![2 => Just(Platform::Adr), 1 => Just(Platform::Eadr), 1 => Just(Platform::VirtioPmem)],
    ) {
        let point = crash_point(&kinds, platform);
        prop_assume!(point.count().states <= 512);
        let eager = eagerly(&point, &steps);
        let (mut stood_for, mut leaves) = (Vec::new(), 0);
        let mut reader = Reader::lazy(&point, &steps);
        let limits = Limits { branches: 1 << 20, sets: SETS };
        let searched = search(&mut reader, point.partial(), limits, &|| false, |known, leaf| {
            let agrees = |choice: &Choice| {
                let content = point.content(choice);
                known.known().all(|(addr, line)| content.line(addr).copied().unwrap_or([0; 64]) == *line)
            };
            // Open bytes are those of the crash state, whichever it is.
            for (choice, _) in eager.iter().filter(|(choice, _)| agrees(choice)) {
                let content = point.content(choice);
                let byte = |origin: u64| content.line(origin).map_or(0, |line| line[(origin % 64) as usize]);
                let memory = leaf.memory.iter().zip(&leaf.origins);
                let memory = memory.map(|(byte_there, origin)| origin.map_or(*byte_there, byte)).collect();
                stood_for.push((choice.clone(), (leaf.taken.clone(), memory)));
            }
            leaves += 1;
            Ok(())
        });
        let searched = searched.expect("a reader has no trouble");
        prop_assert_eq!(searched, Searched { branches: leaves, cut: None });
        stood_for.sort();
        let mut expected = eager;
        expected.sort();
        prop_assert_eq!(stood_for, expected);
        prop_assert!(reader.levels.is_empty());
    }
}

#[test]
fn a_search_that_is_too_large_says_so() {
    let kinds: Vec<EventKind> = (0..6)
        .map(|line| EventKind::Store {
            addr: BASE + line * 64,
            bytes: vec![1; 8].into(),
            path: StorePath::Cached,
        })
        .collect();
    let point = crash_point(&kinds, Platform::Adr);
    let steps: Vec<Step> = (0..6).map(|line| Step::Take { at: line * 64, skips: 9 }).collect();
    let searched = |branches| {
        let mut reader = Reader::lazy(&point, &steps);
        let limits = Limits { branches, sets: SETS };
        let searched = search(&mut reader, point.partial(), limits, &|| false, |_, _| Ok(()));
        assert!(reader.levels.is_empty());
        searched.expect("a reader has no trouble")
    };
    assert_eq!(searched(64), Searched { branches: 64, cut: None });
    assert_eq!(searched(63), Searched { branches: 63, cut: Some(Cut::Branches) });
}

#[test]
fn a_line_with_too_many_contents_is_named() {
    let store =
        |byte| EventKind::Store { addr: BASE + byte, bytes: vec![1].into(), path: StorePath::CachedRep(1) };
    let point = crash_point(&(0..64).map(store).collect::<Vec<_>>(), Platform::Adr);
    let mut reader = Reader::lazy(&point, &[Step::Take { at: 5, skips: 9 }]);
    let limits = Limits { branches: 10, sets: 1000 };
    let searched =
        search(&mut reader, point.partial(), limits, &|| false, |_, _| Ok(())).expect("no trouble");
    assert_eq!(searched, Searched { branches: 0, cut: Some(Cut::Contents(BASE)) });
}

/// Steps of a scenario that leave something in flight in many ways.
fn toy_steps() -> impl Strategy<Value = Vec<String>> {
    let flush = prop_oneof![Just("flush = \"clwb\"\n"), Just("")];
    let fence = prop_oneof![Just("fence = \"sfence\"\n"), Just("")];
    let store = (0_u64..3, flush, fence, any::<bool>()).prop_map(|(word, flush, fence, promise)| {
        let promise = if promise && !flush.is_empty() { "promise = \"contents\"\n" } else { "" };
        format!("store = {{ map = \"m\", at = {}, bytes = 16 }}\n{flush}{fence}{promise}", 4040 + word * 8)
    });
    let step = prop_oneof![
        3 => store,
        1 => Just("write = { file = \"a\", at = 100, bytes = 20 }\n".to_owned()),
        1 => Just("fsync = \"a\"\n".to_owned()),
        1 => Just("rename = { from = \"b\", to = \"a\" }\n".to_owned()),
    ];
    prop::collection::vec(step, 1..4)
}

fn toy_scenario(steps: &[String], barrier: bool, platform: &str) -> Scenario {
    let before = "create = { file = \"a\", size = \"16K\" }\n|create = { file = \"b\", size = \"100\" }\n|fsync = \"a\"\n|map = { file = \"a\", as = \"m\", sync = true }\n";
    let mut renamed = false;
    let steps = before.split('|').chain(steps.iter().map(String::as_str)).filter(|step| {
        // There is one file b.
        !(step.starts_with("rename") && std::mem::replace(&mut renamed, true))
    });
    let steps: String = steps.map(|step| format!("[[step]]\n{step}")).collect();
    let mount = if barrier { "" } else { "mount = \"barrier=0\"\n" };
    let text = format!(
        "name = \"test\"\n[machine]\nkernel = \"debian-6.1\"\n[[nvdimm]]\nsize = \"16M\"\nplatform = \"{platform}\"\n\
         [filesystem]\ntype = \"ext4\"\n{mount}{steps}"
    );
    Scenario::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What can come of one crash point: in outline, and what can be wrong.
type Possible = (BTreeSet<Option<Shape>>, BTreeSet<(Class, Option<u32>, String)>);

fn by_brute_force(run: &Run<ToyLaboratory>, worker: &mut Worker<ToyLaboratory>, point: usize) -> Possible {
    let media = &run.points.points[point].media;
    let mut possible = Possible::default();
    for choice in media.all() {
        let outcome = torn::recover(worker, media, &choice, run.points.points[point].told())
            .expect("a toy has no host trouble")
            .outcome;
        possible.0.insert(outcome.shape());
        let faults = run.faults(&outcome, point).into_iter();
        possible.1.extend(faults.map(|fault| (fault.class, fault.promise, fault.subject)));
    }
    possible
}

fn lazily(run: &Run<ToyLaboratory>, worker: &mut Worker<ToyLaboratory>, point: usize) -> Possible {
    let task = Task { points: vec![point], plain: false };
    let done =
        run.search_one(worker, &mut Checks::default(), &task, 1 << 20).expect("a toy has no host trouble");
    assert_eq!((done.searched.cut, done.disagreements), (None, Vec::new()));
    let mut possible = Possible::default();
    for found in done.found {
        possible.0.insert(found.judged.shape);
        let faults = found.judged.faults.into_iter().flatten();
        possible.1.extend(faults.map(|fault| (fault.class, fault.promise, fault.subject)));
    }
    possible
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn on_the_toy_file_system_nothing_escapes_that_brute_force_finds(
        steps in toy_steps(), barrier in any::<bool>(), platform in prop_oneof![Just("adr"), Just("eadr")],
    ) {
        let scenario = toy_scenario(&steps, barrier, platform);
        let laboratory = ToyLaboratory::new();
        let options = RunOptions::default();
        let run = prepare(&scenario, &laboratory, &options, &mut Vec::new()).expect("a toy has no host trouble");
        let mut worker = Worker::new(&scenario, &laboratory).expect("a toy has no host trouble");
        for (number, point) in run.points.points.iter().enumerate() {
            if point.media.count().states <= 512 {
                let expected = by_brute_force(&run, &mut worker, number);
                let found = lazily(&run, &mut worker, number);
                prop_assert_eq!(found, expected, "behind {} events of {:?}", point.events, steps);
            }
        }
    }
}
