//! Executes arbitrary code from arbitrary states in every mode, three times: by the specialised handlers in one go, by
//! the general ones, and by the specialised ones in short runs. All three must tell and leave the same.
//!
//! An input: mode, flags, a seed for registers and data, changes of the tables, then code. See [`Case::new`].

mod bus;
#[allow(dead_code)] // The tests of the workspace, which include this tree, do not explain.
pub mod explain;
mod layout;
mod memory;
mod program;

use cpu::{Cpu, Exit, State};

use super::input::{Input, Random};
use bus::{FuzzBus, PAGES, Told};
use layout::{Image, Mode};
use memory::{GuardedMemory, PAGE};

/// Instructions that each program runs.
const INSTRUCTIONS: u64 = 300;
/// Times that a halted processor is woken.
const WAKES: usize = 3;

/// What the model says it does not offer: the text of every `Unsupported` that may come.
const UNSUPPORTED: &[&str] = &[
    "exceptions without an end",
    "execution from device memory",
    "interrupt through a task gate",
    "task switch by a far jump or call",
    "return to another task",
    "return to virtual-8086 mode",
];

/// A machine before its first instruction.
struct Case {
    image: Image,
    state: State,
    /// Seed of the lengths of short runs.
    cuts: u64,
    /// Accessed and dirty bits are set from the beginning: whoever changes a paging structure is the program.
    tables_marked: bool,
}

impl Case {
    /// Byte 0 the mode, byte 1 flags (bit 0: instructions only; bit 1: IF; bits 2-4 all set: another of RFLAGS;
    /// bit 5: accessed and dirty bits clear), bytes 2-9 the seed, byte 10 how many changes of pages 0-15 follow (offset and eight bytes each), then code.
    fn new(data: &[u8]) -> Case {
        let mut input = Input(data);
        let (mode, flags) = (Mode::from_byte(input.byte()), input.byte());
        let seed = input.quad();
        let mut random = Random(seed);
        let tables_marked = flags & 0x20 == 0;
        let mut image = layout::image(mode, tables_marked, &mut random);
        let state = layout::state(mode, flags, &mut random, Cpu::<FuzzBus>::new(0, 1).state());
        for _ in 0..input.byte() % 8 {
            let at = u64::from(input.word());
            layout::put(&mut image, at, &input.bytes::<8>());
        }
        let code = match flags & 1 {
            0 => program::raw(mode.bits(), input.0),
            _ => program::valid(mode.bits(), &mut input),
        };
        layout::put(&mut image, layout::CODE, &code);
        Case { image, state, cuts: seed, tables_marked }
    }
}

/// How a case is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Straight,
    General,
    ShortRuns,
}

/// What a run told and left.
struct Outcome {
    state: State,
    end: Exit,
    log: Vec<(Told, Option<cpu::CpuView>)>,
    /// Pages that changed.
    pages: Vec<(usize, Box<[u8; PAGE]>)>,
}

/// The target.
pub fn run(data: &[u8]) {
    let case = Case::new(data);
    let mut bus = FuzzBus::new(GuardedMemory::new(PAGES));
    let straight = execute(&case, &mut bus, Way::Straight);
    let own_tables = bus.dirtied.iter().any(|page| layout::PAGING.contains(page));
    // Handlers may translate in another order and more or less often, which nobody sees but a program that changes its
    // paging structures without INVLPG.
    if case.tables_marked && !own_tables && straight.state.cr3 == case.state.cr3 {
        compare(&straight, &execute(&case, &mut bus, Way::General), Way::General);
    }
    compare(&straight, &execute(&case, &mut bus, Way::ShortRuns), Way::ShortRuns);
}

fn execute(case: &Case, bus: &mut FuzzBus, way: Way) -> Outcome {
    execute_until(case, bus, way, INSTRUCTIONS)
}

fn execute_until(case: &Case, bus: &mut FuzzBus, way: Way, limit: u64) -> Outcome {
    for (page, content) in case.image.iter().enumerate() {
        bus.memory.set(page, content);
    }
    bus.restart(INSTRUCTIONS);
    let mut cpu = Cpu::new(1, 1);
    cpu.set_state(case.state.clone());
    if way == Way::General {
        cpu.use_general_handlers();
    }
    let end = go(case, &mut cpu, bus, way, limit);
    let state = cpu.state();
    assert!(state.retired <= limit, "ran beyond its limit: {} instructions", state.retired);
    let pages = changed(case, bus);
    Outcome { state, end, log: std::mem::take(&mut bus.log), pages }
}

/// Runs to the last instruction or to an end that cannot be gone beyond.
fn go(case: &Case, cpu: &mut Cpu<FuzzBus>, bus: &mut FuzzBus, way: Way, limit: u64) -> Exit {
    let mut random = Random(case.cuts);
    let (mut until, mut wakes) = (0, 0);
    loop {
        until = match way {
            Way::ShortRuns => limit.min(until + 1 + random.below(8) * random.below(2)),
            _ => limit,
        };
        loop {
            match cpu.run(bus, until) {
                Exit::Limit if until == limit => return Exit::Limit,
                Exit::Limit => break,
                Exit::Attention => bus.attended(),
                Exit::Halted if wakes < WAKES => {
                    wakes += 1;
                    bus.interrupt(0x20 + wakes as u8);
                }
                Exit::Unsupported { what, .. } if !UNSUPPORTED.contains(&what) => {
                    panic!("{what:?} is not among the things that are not offered");
                }
                end => return end,
            }
        }
    }
}

/// The pages that differ from the image. All others must be as they were, and nobody changes a page unannounced.
fn changed(case: &Case, bus: &FuzzBus) -> Vec<(usize, Box<[u8; PAGE]>)> {
    let mut pages = Vec::new();
    for (page, before) in case.image.iter().enumerate() {
        let after = bus.memory.content(page);
        if after != *before {
            assert!(bus.dirtied.contains(&page), "page {page} was changed without a word");
            pages.push((page, Box::new(after)));
        }
    }
    pages
}

fn compare(straight: &Outcome, other: &Outcome, way: Way) {
    for (n, (a, b)) in straight.log.iter().zip(&other.log).enumerate() {
        assert_eq!(a, b, "entry {n} of the log, straight first, then {way:?}");
    }
    assert_eq!(straight.log.len(), other.log.len(), "{way:?} told more or less");
    assert_eq!(straight.end, other.end, "{way:?} ended in another way");
    assert_eq!(straight.state, other.state, "straight first, then {way:?}");
    for (a, b) in straight.pages.iter().zip(&other.pages) {
        assert_eq!(a.0, b.0, "{way:?} changed other pages");
        if let Some(at) = (0..PAGE).find(|&at| a.1[at] != b.1[at]) {
            panic!("byte {:#x} of memory is {:#x}, {way:?} {:#x}", a.0 * PAGE + at, a.1[at], b.1[at]);
        }
    }
    assert_eq!(straight.pages.len(), other.pages.len(), "{way:?} changed other pages");
}

/// Inputs to start from: some code in every mode.
pub fn seeds() -> Vec<Vec<u8>> {
    let code: [&[u8]; 8] = [
        // Arithmetic through memory; a string copy; a locked exchange; stores around SFENCE and CLWB.
        &[0x48, 0x01, 0x07, 0x48, 0x8b, 0x0e, 0x48, 0xff, 0xc9, 0x75, 0xfb],
        &[0xb9, 0x40, 0, 0, 0, 0xf3, 0xa4, 0xf3, 0x48, 0xab],
        &[0xf0, 0x48, 0x0f, 0xb1, 0x0f, 0x87, 0x06],
        &[
            0x48, 0x89, 0x03, 0x66, 0x0f, 0xae, 0x33, 0x0f, 0xae, 0xf8, 0x48, 0x0f, 0xc3, 0x03, 0x0f, 0xae,
            0xf8,
        ],
        // Floating point of both kinds; a far return; port and control registers; a system call.
        &[0xdd, 0x07, 0xdc, 0xc0, 0xdd, 0x1e, 0x0f, 0x58, 0xc1, 0xf2, 0x0f, 0x5e, 0x07, 0x0f, 0x29, 0x06],
        &[0x6a, 0x08, 0x68, 0, 0xaf, 0, 0, 0x48, 0xcb],
        &[0xe7, 0x20, 0xed, 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x0f, 0x01, 0x38, 0xfb, 0xf4],
        &[0x0f, 0x05, 0xcd, 0x80, 0xcc, 0x0f, 0x0b, 0xc8, 0x20, 0, 3, 0xc9],
    ];
    let mut seeds = Vec::new();
    for mode in 0..20 {
        for (n, code) in code.iter().enumerate() {
            let mut seed = vec![mode, (n as u8) << 1 & 2];
            seed.extend((u64::from(mode) * 100 + n as u64).to_le_bytes());
            seed.push(0);
            seed.extend(*code);
            seeds.push(seed);
        }
    }
    seeds
}
