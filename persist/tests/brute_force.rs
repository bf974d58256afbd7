//! The model against a slow one that is written straight from the words of the page, over random executions.

mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use persist::{
    Choice, CrashPoint, Domain, DrainKind, Event, EventKind, FlushKind, Granularity, Media, Origin, Overlay,
    Platform, Settings, StorePath,
};
use proptest::prelude::*;
use reference::Reference;

/// Sector 0x1000 is the one that kernel copies write; its first two lines are those of all other stores.
const BASE: u64 = 0x1000;

struct Zeros;

impl Media for Zeros {
    fn line(&self, _: u64) -> [u8; 64] {
        [0; 64]
    }
}

/// Something a processor does; a number that says how many instructions without events come before it.
#[derive(Clone, Debug)]
struct Step {
    vcpu: u8,
    pause: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Event(EventKind),
    /// Non-temporal store of 128 bytes of the sector, by the call with this number.
    Copy {
        call: u32,
        quarter: u64,
    },
    /// Something in user mode.
    User(EventKind),
}

fn address() -> impl Strategy<Value = u64> {
    // Few places, so that stores meet: around the end of the first line, anywhere in two lines, in the next sector.
    prop_oneof![
        6 => (6_u64..10).prop_map(|word| BASE + word * 8),
        2 => (0_u64..120).prop_map(|byte| BASE + byte),
        1 => (0_u64..2).prop_map(|word| BASE + 512 + word * 8),
    ]
}

fn path() -> impl Strategy<Value = StorePath> {
    prop_oneof![
        4 => Just(StorePath::Cached),
        3 => Just(StorePath::NonTemporal),
        2 => (0_u64..2).prop_map(StorePath::CachedRep),
        1 => Just(StorePath::Agent),
    ]
}

fn event() -> impl Strategy<Value = EventKind> {
    let len = prop_oneof![Just(8_usize), Just(4), Just(16), Just(1), Just(24)];
    let byte = 0_u8..3;
    let store = (address(), len, byte, path());
    let flush = prop_oneof![Just(FlushKind::Clwb), Just(FlushKind::Clflushopt), Just(FlushKind::Clflush)];
    let drain = prop_oneof![
        3 => Just(DrainKind::Sfence),
        1 => Just(DrainKind::Locked),
        1 => Just(DrainKind::Serialising),
        1 => Just(DrainKind::WriteBackAll),
    ];
    prop_oneof![
        6 => store.prop_map(|(addr, len, byte, path)| {
            EventKind::Store { addr, bytes: vec![byte; len].into(), path }
        }),
        2 => (0_u64..2, flush).prop_map(|(line, kind)| EventKind::Flush { addr: BASE + line * 64, kind }),
        1 => drain.prop_map(EventKind::Drain),
        1 => prop_oneof![
            Just(EventKind::Promise { id: 0 }),
            Just(EventKind::Marker { id: 0 }),
            Just(EventKind::Retired),
            Just(EventKind::StoresVisible),
        ],
        1 => prop_oneof![
            2 => Just(EventKind::FlushHint { dimm: 0 }),
            1 => Just(EventKind::FlushHint { dimm: 1 }),
        ],
        1 => Just(EventKind::DeviceFlushSubmitted { region: 0, id: 0 }),
        1 => prop_oneof![3 => Just(0), 1 => Just(-1)]
            .prop_map(|status| EventKind::DeviceFlushCompleted { region: 0, id: 0, status }),
    ]
}

fn steps(what: impl Strategy<Value = What>, len: usize) -> impl Strategy<Value = Vec<Step>> {
    let vcpu = prop_oneof![3 => Just(0_u8), 1 => Just(1)];
    let step = (vcpu, prop_oneof![3 => Just(0_u64), 1 => Just(1)], what);
    prop::collection::vec(step.prop_map(|(vcpu, pause, what)| Step { vcpu, pause, what }), 0..len)
}

/// Stores of all kinds, few enough to try every subset of their parts.
fn small_execution() -> impl Strategy<Value = Vec<Event>> {
    steps(event().prop_map(What::Event), 9).prop_map(events)
}

/// What it takes to make something durable by flush hints and device flushes, again and again.
fn flushing_execution() -> impl Strategy<Value = Vec<Event>> {
    let path = prop_oneof![Just(StorePath::Cached), Just(StorePath::NonTemporal)];
    let event = prop_oneof![
        3 => (7_u64..9, 1_u8..3, path).prop_map(|(word, byte, path)| {
            EventKind::Store { addr: BASE + word * 8, bytes: vec![byte; 8].into(), path }
        }),
        2 => (0_u64..2).prop_map(|line| EventKind::Flush { addr: BASE + line * 64, kind: FlushKind::Clwb }),
        3 => Just(EventKind::Drain(DrainKind::Sfence)),
        2 => Just(EventKind::FlushHint { dimm: 0 }),
        2 => Just(EventKind::DeviceFlushSubmitted { region: 0, id: 0 }),
        2 => prop_oneof![Just(0), Just(-1)]
            .prop_map(|status| EventKind::DeviceFlushCompleted { region: 0, id: 0, status }),
    ];
    steps(event.prop_map(What::Event), 20).prop_map(events)
}

/// Kernel copies that fill a sector, or do not, among other things.
fn copying_execution() -> impl Strategy<Value = Vec<Event>> {
    let interrupt = prop_oneof![
        Just(What::Event(EventKind::Drain(DrainKind::Serialising))),
        Just(What::Event(EventKind::Drain(DrainKind::Locked))),
    ];
    let whole =
        (1_u32..3).prop_map(|call| (0..4).map(|quarter| What::Copy { call, quarter }).collect::<Vec<_>>());
    let one = prop_oneof![
        2 => (1_u32..3, 0_u64..4).prop_map(|(call, quarter)| What::Copy { call, quarter }),
        2 => interrupt,
        1 => event().prop_map(What::Event),
        1 => event().prop_map(What::User),
    ];
    // Behind a cached store to the sector, and one elsewhere.
    let around = (1_u32..3, 0_u64..10).prop_map(|(call, line)| {
        let store =
            |addr| What::Event(EventKind::Store { addr, bytes: vec![1; 8].into(), path: StorePath::Cached });
        let copy = (0..4).map(|quarter| What::Copy { call, quarter });
        [store(BASE + 512), store(BASE + line * 64)].into_iter().chain(copy).collect::<Vec<_>>()
    });
    let several = prop_oneof![2 => whole, 1 => around, 3 => prop::collection::vec(one, 1..3)];
    let vcpu = prop_oneof![4 => Just(0_u8), 1 => Just(1)];
    // Whole copies with something thrown in between.
    (prop::collection::vec((vcpu, several), 0..6), prop::collection::vec((0_usize..24, event()), 0..2))
        .prop_map(|(chunks, intruders)| {
            let mut steps: Vec<Step> = Vec::new();
            for (vcpu, chunk) in chunks {
                steps.extend(chunk.into_iter().map(|what| Step { vcpu, pause: 0, what }));
            }
            for (at, event) in intruders {
                let step = Step { vcpu: 1, pause: 0, what: What::Event(event) };
                steps.insert(at.min(steps.len()), step);
            }
            events(steps)
        })
}

fn events(steps: Vec<Step>) -> Vec<Event> {
    let mut retired: BTreeMap<u8, u64> = BTreeMap::new();
    let mut events = Vec::new();
    let (mut submitted, mut completed) = (0, 0);
    for (seq, mut step) in (0..).zip(steps) {
        // Every request has a number of its own, and is answered once, in order.
        if let What::Event(kind) | What::User(kind) = &mut step.what {
            match kind {
                EventKind::DeviceFlushSubmitted { id, .. } => {
                    *id = submitted;
                    submitted += 1;
                }
                EventKind::DeviceFlushCompleted { id, .. } if completed < submitted => {
                    *id = completed;
                    completed += 1;
                }
                EventKind::DeviceFlushCompleted { .. } => *kind = EventKind::Retired,
                _ => {}
            }
        }
        let retired = retired.entry(step.vcpu).or_default();
        *retired += 1 + step.pause;
        let (cpl, copy_call, kind) = match step.what {
            What::Event(kind) => (0, 0, kind),
            What::User(kind) => (3, 0, kind),
            What::Copy { call, quarter } => {
                let bytes = (0..128).map(|byte| byte as u8 ^ seq as u8 | 1).collect();
                let addr = BASE + quarter * 128;
                (
                    0,
                    call + 2 * u32::from(step.vcpu),
                    EventKind::Store { addr, bytes, path: StorePath::NonTemporal },
                )
            }
        };
        let origin = Origin { vcpu: step.vcpu, cpl, rip: 0, retired: *retired, copy_call };
        events.push(Event { seq, origin, kind });
    }
    events
}

fn run(events: &[Event], settings: Settings) -> CrashPoint {
    let mut domain = Domain::new(settings, Arc::new(Zeros));
    for event in events {
        domain.apply(event);
    }
    domain.crash_point()
}

fn granularity() -> impl Strategy<Value = Granularity> {
    prop_oneof![Just(Granularity::Sector), Just(Granularity::Line), Just(Granularity::Word)]
}

fn settings(granularity: impl Strategy<Value = Granularity>) -> impl Strategy<Value = Settings> {
    let platform = prop_oneof![
        3 => Just(Platform::Adr),
        3 => Just(Platform::Eadr),
        2 => Just(Platform::AdrLost),
        3 => Just(Platform::VirtioPmem),
        1 => Just(Platform::HostSurvives),
    ];
    let depth = prop_oneof![0_u32..6, Just(112)];
    let options = (any::<bool>(), any::<bool>(), any::<bool>());
    (granularity, platform, depth, options).prop_map(
        |(granularity, platform, store_buffer, (nt_evicts, strict_fences, failed_flush_loses))| Settings {
            platform,
            granularity,
            nt_evicts,
            strict_fences,
            store_buffer,
            failed_flush_loses,
            ..Settings::default()
        },
    )
}

/// The bytes of a content that are not zero.
fn bytes(overlay: &Overlay) -> BTreeMap<u64, u8> {
    let lines = overlay.lines().iter();
    let bytes = lines.flat_map(|(addr, line)| (*addr..).zip(line.iter().copied()));
    bytes.filter(|(_, byte)| *byte != 0).collect()
}

/// A choice as numbers of the reference's parts.
fn numbers(in_flight: &[usize], choice: &Choice) -> BTreeSet<usize> {
    choice.iter().map(|index| in_flight[index]).collect()
}

/// Every subset of the parts in flight that contains, with each of its parts, all that it comes after.
fn closed_sets(reference: &Reference, in_flight: &[usize]) -> Vec<BTreeSet<usize>> {
    let count = in_flight.len();
    let pairs = (0..count).flat_map(|later| (0..later).map(move |earlier| (later, earlier)));
    let orders: Vec<(usize, usize)> = pairs
        .filter(|&(later, earlier)| reference.comes_after(in_flight[later], in_flight[earlier]))
        .collect();
    let subsets = 0_u32..1 << count;
    let closed =
        subsets.filter(|bits| orders.iter().all(|(later, earlier)| bits >> later & 1 <= bits >> earlier & 1));
    closed
        .map(|bits| (0..count).filter(|part| bits >> part & 1 == 1).map(|part| in_flight[part]).collect())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_crash_state_is_found_once_and_none_else(
        events in prop_oneof![small_execution(), flushing_execution()], settings in settings(granularity()),
    ) {
        let point = run(&events, settings);
        let reference = Reference::run(&events, settings);
        let in_flight = reference.in_flight();
        prop_assert_eq!(in_flight.len(), point.in_flight().len());
        prop_assume!(in_flight.len() <= 12);

        let expected = closed_sets(&reference, &in_flight);
        let all: Vec<Choice> = point.all().collect();
        let found: BTreeSet<BTreeSet<usize>> = all.iter().map(|choice| numbers(&in_flight, choice)).collect();
        prop_assert_eq!(found.len(), all.len());
        prop_assert_eq!(&found, &expected.iter().cloned().collect());

        let count = point.count();
        prop_assert!(count.exact);
        prop_assert_eq!(count.states, expected.len() as u128);
        prop_assert!((count.log2 - (expected.len() as f64).log2()).abs() < 1e-9);

        let mut contents = BTreeMap::new();
        for choice in &all {
            let content = point.content(choice);
            prop_assert_eq!(bytes(&content), reference.content(&numbers(&in_flight, choice)));
            let id = point.state_id(choice);
            // Equal ids exactly for equal contents.
            prop_assert_eq!(contents.entry(id).or_insert_with(|| content.clone()), &content);
        }
        let distinct: BTreeSet<&Overlay> = contents.values().collect();
        prop_assert_eq!(distinct.len(), contents.len());

        for line in [BASE, BASE + 64, BASE + 128, BASE + 512] {
            let of_line: BTreeSet<[u8; 64]> =
                contents.values().map(|content| content.line(line).copied().unwrap_or([0; 64])).collect();
            let found = point.line_contents(line, 1 << 13).expect("few sets");
            prop_assert_eq!(&found.iter().copied().collect::<BTreeSet<_>>(), &of_line);
            for byte in 0..64 {
                let values: BTreeSet<u8> = of_line.iter().map(|content| content[byte]).collect();
                let found = point.byte_values(line + byte as u64);
                prop_assert_eq!(found, values.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn parts_and_orders_are_those_of_the_words(
        events in prop_oneof![copying_execution(), small_execution()],
        settings in settings(prop_oneof![3 => Just(Granularity::Sector), 1 => granularity()]),
        seed in any::<u64>(),
    ) {
        let point = run(&events, settings);
        let reference = Reference::run(&events, settings);
        let in_flight = reference.in_flight();
        let expected: Vec<BTreeMap<u64, u8>> =
            in_flight.iter().map(|&number| reference.parts[number].bytes.clone()).collect();
        let found: Vec<BTreeMap<u64, u8>> =
            point.in_flight().iter().map(|part| (part.addr..).zip(part.bytes.iter().copied()).collect()).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(bytes(&point.content(&point.nothing())), reference.content(&BTreeSet::new()));
        prop_assert_eq!(bytes(&point.content(&point.everything())), reference.content(&in_flight.iter().copied().collect()));

        let predecessors = reference.predecessors();
        for (position, &number) in in_flight.iter().enumerate() {
            let expected: BTreeSet<usize> = predecessors[number].difference(&reference.durable).copied().collect();
            prop_assert_eq!(numbers(&in_flight, &point.closure([position])), expected);
            let expected: BTreeSet<usize> = in_flight.iter().copied()
                .filter(|&other| !predecessors[other].contains(&number)).collect();
            prop_assert_eq!(numbers(&in_flight, &point.without([position])), expected);
        }
        for number in 0..8 {
            let choice = point.random(seed, number);
            let set = numbers(&in_flight, &choice).union(&reference.durable).copied().collect();
            prop_assert!(reference.is_closed(&set));
            prop_assert!(point.is_closed(&choice));
        }
        for group in point.groups() {
            for index in group.parts {
                let part = &point.in_flight()[index];
                prop_assert!(group.start <= part.addr && part.end() <= group.end);
            }
        }
    }

    #[test]
    fn sets_are_closed_exactly_when_the_reference_says_so(
        events in prop_oneof![copying_execution(), small_execution()], settings in settings(granularity()),
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let point = run(&events, settings);
        let reference = Reference::run(&events, settings);
        let in_flight = reference.in_flight();
        // An index must have something to point at.
        let chosen = if in_flight.is_empty() { Vec::new() } else { chosen };
        let chosen: Vec<usize> = chosen.iter().map(|index| index.index(in_flight.len())).collect();
        let union = |set: BTreeSet<usize>| set.union(&reference.durable).copied().collect::<BTreeSet<usize>>();

        let smallest = union(reference.with_predecessors(chosen.iter().map(|&index| in_flight[index]).collect()));
        prop_assert_eq!(&union(numbers(&in_flight, &point.closure(chosen.iter().copied()))), &smallest);
        let predecessors = reference.predecessors();
        let lost: BTreeSet<usize> = chosen.iter().map(|&index| in_flight[index]).collect();
        let largest: BTreeSet<usize> = in_flight.iter().copied()
            .filter(|&number| predecessors[number].is_disjoint(&lost)).collect();
        prop_assert_eq!(&numbers(&in_flight, &point.without(chosen.iter().copied())), &largest);
    }

    #[test]
    fn what_is_handed_over_is_what_is_durable_without_strict_fences(
        events in prop_oneof![copying_execution(), small_execution()], settings in settings(granularity()),
    ) {
        let strict = run(&events, Settings { strict_fences: true, ..settings });
        let plain = run(&events, Settings { strict_fences: false, ..settings });
        let handed_over = strict.handed_over();
        prop_assert!(strict.is_closed(&handed_over));
        prop_assert_eq!(strict.content(&handed_over), plain.content(&plain.nothing()));
        let left: Vec<_> = strict.in_flight().iter().enumerate()
            .filter(|(index, _)| !handed_over.contains(*index)).map(|(_, part)| (part.event, part.addr)).collect();
        let in_flight: Vec<_> = plain.in_flight().iter().map(|part| (part.event, part.addr)).collect();
        prop_assert_eq!(left, in_flight);
        let reference = Reference::run(&events, Settings { strict_fences: true, ..settings });
        let expected = reference.handed_over.difference(&reference.durable).copied().collect();
        prop_assert_eq!(numbers(&reference.in_flight(), &handed_over), expected);
    }

    #[test]
    fn something_becomes_durable_exactly_when_told(
        events in prop_oneof![small_execution(), flushing_execution()], settings in settings(granularity()),
    ) {
        let mut domain = Domain::new(settings, Arc::new(Zeros));
        let mut durable = BTreeSet::new();
        for (index, event) in events.iter().enumerate() {
            let grown = domain.apply(event);
            let reference = Reference::run(&events[..=index], settings);
            prop_assert!(durable.is_subset(&reference.durable));
            prop_assert_eq!(grown, durable != reference.durable, "at {:?}", event);
            durable = reference.durable;
        }
    }
    #[test]
    fn a_sector_is_what_it_was_at_one_moment(
        events in small_execution(), settings in settings(granularity()),
    ) {
        let settings = Settings { platform: Platform::VirtioPmem, ..settings };
        let one_sector = |event: &&Event| match &event.kind {
            EventKind::Store { addr, path, .. } => *addr < BASE + 512 && !matches!(path, StorePath::CachedRep(_)),
            _ => true,
        };
        let events: Vec<Event> = events.iter().filter(one_sector).cloned().collect();
        let point = run(&events, settings);
        let reference = Reference::run(&events, settings);
        let in_flight = reference.in_flight();
        prop_assume!(in_flight.len() <= 10);
        let found: BTreeSet<BTreeSet<usize>> =
            point.all().map(|choice| numbers(&in_flight, &choice)).collect();
        let expected: BTreeSet<BTreeSet<usize>> = reference.moments(events.len() + 1).into_iter()
            .filter(|set| reference.durable.is_subset(set))
            .map(|set| set.difference(&reference.durable).copied().collect()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn what_adr_makes_durable_is_durable_under_eadr(
        events in prop_oneof![copying_execution(), small_execution()], settings in settings(granularity()),
    ) {
        let adr = Reference::run(&events, Settings { platform: Platform::Adr, ..settings });
        let lost: BTreeSet<(u64, u64)> = run(&events, Settings { platform: Platform::Eadr, ..settings })
            .in_flight().iter().map(|part| (part.event, part.addr)).collect();
        let lost_by_adr: BTreeSet<(u64, u64)> = run(&events, Settings { platform: Platform::Adr, ..settings })
            .in_flight().iter().map(|part| (part.event, part.addr)).collect();
        prop_assert!(lost.is_subset(&lost_by_adr));
        prop_assert_eq!(lost_by_adr.len(), adr.in_flight().len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_left_open_once_lines_are_known_is_what_agrees_with_them(
        events in prop_oneof![2 => small_execution(), 1 => flushing_execution(), 2 => copying_execution()],
        settings in settings(granularity()),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..5),
    ) {
        let point = run(&events, settings);
        prop_assume!(point.count().states <= 1024);
        let line_of = |choice: &Choice, addr: u64| point.content(choice).line(addr).copied().unwrap_or([0; 64]);
        let lines: Vec<u64> = (0..10).map(|line| BASE + line * 64).collect();
        let mut left: Vec<(Choice, Vec<[u8; 64]>)> = point.all()
            .map(|choice| { let contents = lines.iter().map(|addr| line_of(&choice, *addr)).collect(); (choice, contents) })
            .collect();

        let differ = |at: usize| (0..64).filter(|byte| left.iter().any(|(_, contents)| contents[at][*byte] != left[0].1[at][*byte]))
            .fold(0_u64, |mask, byte| mask | 1 << byte);
        let expected: Vec<(u64, u64)> =
            lines.iter().enumerate().map(|(at, addr)| (*addr, differ(at))).filter(|(_, mask)| *mask != 0).collect();
        prop_assert_eq!(point.undecided(), expected);

        let mut partial = point.partial();
        prop_assert_eq!(partial.choice(), Some(point.everything()));
        for step in 0..=picks.len() {
            prop_assert_eq!(partial.count().states, left.len() as u128);
            let choice = partial.choice().expect("what is known was possible");
            prop_assert!(left.iter().any(|(other, _)| *other == choice));
            let everything = left.iter().any(|(other, _)| *other == point.everything());
            prop_assert!(!everything || choice == point.everything());
            for (at, addr) in lines.iter().enumerate() {
                let expected: BTreeSet<[u8; 64]> = left.iter().map(|(_, contents)| contents[at]).collect();
                let found = partial.contents(addr + 5, 1 << 14).expect("few sets");
                prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
            }
            if let Some((line, content)) = picks.get(step) {
                let at = line.index(lines.len());
                let possible = partial.contents(lines[at], 1 << 14).expect("few sets");
                let content = possible[content.index(possible.len())];
                partial.decide(lines[at], content);
                left.retain(|(_, contents)| contents[at] == content);
            }
        }
    }
}
