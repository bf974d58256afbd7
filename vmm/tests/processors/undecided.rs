//! Persistent memory that is undecided: a run in which each line is decided when it is used, and not before, ends as the
//! run does that began with that content.

use std::collections::BTreeMap;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use proptest::prelude::*;
use vmm::{Machine, Stop};

use crate::guest::{RAM, machine_with_one};

/// Where persistent memory begins, guest-physical and guest-virtual.
const PMEM: u64 = 1 << 32;
/// Guest-virtual address at which the first GiB of guest-physical memory is mapped a second time.
const ALIAS: u64 = 5 << 30;
/// Bytes that are compared around a page border in each of the places.
const WINDOW: u64 = 1024;
const BUDGET: u64 = 1_000_000;

/// A window of memory.
#[derive(Clone, Copy, Debug)]
enum Window {
    /// Persistent memory, with the lines that are undecided.
    Pmem,
    Ram,
    /// The same memory as `Ram` at another linear address.
    Alias,
    OtherRam,
}

/// A byte of a window.
#[derive(Clone, Copy, Debug)]
struct At(Window, u64);

impl At {
    fn linear(self) -> u64 {
        let At(window, offset) = self;
        offset
            + match window {
                Window::Pmem => PMEM + 0x1000 - WINDOW / 2,
                Window::Ram => RAM + 0x1000 - WINDOW / 2,
                Window::Alias => ALIAS + RAM + 0x1000 - WINDOW / 2,
                Window::OtherRam => RAM + 0x3000 - WINDOW / 2,
            }
    }
}

#[derive(Clone, Copy, Debug)]
enum Width {
    Byte,
    Word,
    Dword,
    Qword,
}

impl Width {
    fn bytes(self) -> u64 {
        match self {
            Width::Byte => 1,
            Width::Word => 2,
            Width::Dword => 4,
            Width::Qword => 8,
        }
    }
}

/// What a guest program does. R12 gathers everything that was loaded.
#[derive(Clone, Debug)]
enum Step {
    Load(Width, At),
    LoadSixteen(At),
    Store(Width, At),
    StoreImmediate(At, i32),
    Add(At),
    Exchange(At),
    PushPop(At),
    /// REP MOVS of so many elements, up or down.
    Copy {
        width: Width,
        count: u64,
        from: At,
        to: At,
        down: bool,
    },
    Move(Width, At, At),
    Fill {
        width: Width,
        count: u64,
        to: At,
    },
    /// REPE CMPSB
    Compare {
        count: u64,
        left: At,
        right: At,
    },
    /// The next step is left out if the lowest bit of this byte is set.
    Skip(At),
}

fn load(g: &mut CodeAssembler, width: Width, from: u64) -> Result<(), IcedError> {
    g.mov(r15, from)?;
    match width {
        Width::Byte => g.movzx(eax, byte_ptr(r15))?,
        Width::Word => g.movzx(eax, word_ptr(r15))?,
        Width::Dword => g.mov(eax, dword_ptr(r15))?,
        Width::Qword => g.mov(rax, qword_ptr(r15))?,
    }
    gather(g)
}

/// Mixes RAX into R12.
fn gather(g: &mut CodeAssembler) -> Result<(), IcedError> {
    g.rol(r12, 7u32)?;
    g.xor(r12, rax)
}

fn pointers(g: &mut CodeAssembler, from: u64, to: u64, count: u64) -> Result<(), IcedError> {
    g.mov(rsi, from)?;
    g.mov(rdi, to)?;
    g.mov(rcx, count)
}

fn step(g: &mut CodeAssembler, step: &Step) -> Result<(), IcedError> {
    match *step {
        Step::Load(width, at) => load(g, width, at.linear()),
        Step::LoadSixteen(at) => {
            g.mov(r15, at.linear())?;
            g.movdqu(xmm1, xmmword_ptr(r15))?;
            g.movq(rax, xmm1)?;
            gather(g)?;
            g.psrldq(xmm1, 8)?;
            g.movq(rax, xmm1)?;
            gather(g)
        }
        Step::Store(width, at) => {
            g.mov(r15, at.linear())?;
            match width {
                Width::Byte => g.mov(byte_ptr(r15), r12b),
                Width::Word => g.mov(word_ptr(r15), r12w),
                Width::Dword => g.mov(dword_ptr(r15), r12d),
                Width::Qword => g.mov(qword_ptr(r15), r12),
            }
        }
        Step::StoreImmediate(at, value) => {
            g.mov(r15, at.linear())?;
            g.mov(dword_ptr(r15), value)
        }
        Step::Add(at) => {
            g.mov(r15, at.linear())?;
            g.add(dword_ptr(r15), r12d)?;
            g.setc(al)?;
            gather(g)
        }
        Step::Exchange(at) => {
            g.mov(r15, at.linear())?;
            g.mov(rax, r12)?;
            g.xchg(qword_ptr(r15), rax)?;
            gather(g)
        }
        Step::PushPop(at) => {
            g.mov(r15, at.linear())?;
            g.push(qword_ptr(r15))?;
            g.pop(rax)?;
            gather(g)
        }
        Step::Copy { width, count, from, to, down } => {
            let last = if down { count.saturating_sub(1) * width.bytes() } else { 0 };
            pointers(g, from.linear() + last, to.linear() + last, count)?;
            if down {
                g.std()?;
            }
            match width {
                Width::Byte => g.rep().movsb()?,
                Width::Word => g.rep().movsw()?,
                Width::Dword => g.rep().movsd()?,
                Width::Qword => g.rep().movsq()?,
            }
            g.cld()
        }
        Step::Move(width, from, to) => {
            pointers(g, from.linear(), to.linear(), 0)?;
            match width {
                Width::Byte => g.movsb(),
                Width::Word => g.movsw(),
                Width::Dword => g.movsd(),
                Width::Qword => g.movsq(),
            }
        }
        Step::Fill { width, count, to } => {
            pointers(g, 0, to.linear(), count)?;
            g.mov(rax, r12)?;
            match width {
                Width::Byte => g.rep().stosb(),
                Width::Word => g.rep().stosw(),
                Width::Dword => g.rep().stosd(),
                Width::Qword => g.rep().stosq(),
            }
        }
        Step::Compare { count, left, right } => {
            pointers(g, left.linear(), right.linear(), count)?;
            g.cmp(eax, eax)?;
            g.repe().cmpsb()?;
            g.lahf()?;
            g.shl(rax, 8u32)?;
            g.or(rax, rcx)?;
            gather(g)
        }
        Step::Skip(_) => Ok(()),
    }
}

fn place(g: &mut CodeAssembler, mut label: CodeLabel) -> Result<(), IcedError> {
    g.set_label(&mut label)?;
    g.zero_bytes()
}

fn program(steps: &[Step]) -> Vec<u8> {
    let assemble = || {
        let mut g = CodeAssembler::new(64)?;
        // RAX is the table whose entry 5 maps the GiB from 5 GiB on.
        g.mov(ecx, 0x83)?;
        g.mov(qword_ptr(rax + 0x28), rcx)?;
        g.xor(r12d, r12d)?;
        g.mov(rsp, RAM + 0x8000)?;
        let mut skipped: Option<CodeLabel> = None;
        for now in steps {
            let end = skipped.take();
            if let Step::Skip(at) = now {
                let label = g.create_label();
                g.mov(r15, at.linear())?;
                g.test(byte_ptr(r15), 1)?;
                g.jne(label)?;
                skipped = Some(label);
            } else {
                step(&mut g, now)?;
            }
            end.map_or(Ok(()), |end| place(&mut g, end))?;
        }
        skipped.map_or(Ok(()), |end| place(&mut g, end))?;
        g.cli()?;
        g.hlt()?;
        g.assemble(0x20_0000)
    };
    assemble().unwrap_or_else(|error| panic!("{error}"))
}

/// An undecided line: its address, and what it may hold.
#[derive(Clone, Debug)]
struct Line {
    address: u64,
    contents: Vec<[u8; 64]>,
}

impl Line {
    /// Bytes that are not the same in all contents.
    fn mask(&self) -> u64 {
        let varies = |byte: &usize| self.contents.iter().any(|it| it[*byte] != self.contents[0][*byte]);
        (0..64).filter(varies).fold(0, |mask, byte| mask | 1 << byte)
    }
}

/// What can be told of a machine at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    registers: [u64; 16],
    flags: u64,
    trace: Option<String>,
    memory: Vec<u8>,
}

fn end(machine: &Machine) -> End {
    let state = machine.cpu_state();
    let mut memory = Vec::new();
    for start in [PMEM, RAM, RAM + 0x2000, RAM + 0x7000] {
        let mut window = [0; 0x1000 + WINDOW as usize];
        machine.read_pmem(start + 0x1000 - WINDOW / 2 - 0x800, &mut window);
        memory.extend(window);
    }
    End {
        registers: std::array::from_fn(|n| state.regs[n]),
        flags: state.rflags,
        trace: machine.trace_hash(),
        memory,
    }
}

/// The end for every choice of contents, each run from its beginning. The machine has an open level.
fn eagerly(machine: &mut Machine, lines: &[Line]) -> BTreeMap<Vec<usize>, End> {
    let mut ends = BTreeMap::new();
    let mut choices = vec![vec![]];
    for line in lines {
        let longer = |choice: &Vec<usize>| {
            let choice = choice.clone();
            (0..line.contents.len()).map(move |which| [choice.clone(), vec![which]].concat())
        };
        choices = choices.iter().flat_map(longer).collect();
    }
    for choice in choices {
        machine.rewind();
        for (line, &which) in lines.iter().zip(&choice) {
            machine.write_pmem(line.address, &line.contents[which]);
        }
        assert_eq!(machine.run(BUDGET), Stop::Idle, "{:#x}", machine.cpu_state().rip());
        ends.insert(choice, end(machine));
    }
    machine.rewind();
    ends
}

/// A depth-first search over what the machine asks for.
struct Search<'a> {
    lines: &'a [Line],
    chosen: Vec<Option<usize>>,
    ends: BTreeMap<Vec<usize>, End>,
    /// How often the guest ran to its end.
    runs: usize,
}

impl Search<'_> {
    fn explore(&mut self, machine: &mut Machine) {
        let wanted = match machine.run(BUDGET) {
            Stop::Undecided { lines } => {
                assert!(!lines.is_empty() && lines.is_sorted());
                let wanted = self.lines.iter().position(|line| line.address == lines[0]);
                wanted.expect("it asks for a line that is undecided")
            }
            stop => {
                assert_eq!(stop, Stop::Idle, "{:#x}", machine.cpu_state().rip());
                self.runs += 1;
                return self.finish(machine);
            }
        };
        assert_eq!(self.chosen[wanted], None, "a line is decided once");
        self.branch(machine, wanted, |search, machine| search.explore(machine));
    }

    /// Decides the lines that nothing asked for.
    fn finish(&mut self, machine: &mut Machine) {
        match self.chosen.iter().position(Option::is_none) {
            Some(open) => self.branch(machine, open, |search, machine| search.finish(machine)),
            None => {
                assert_eq!(machine.undecided_runs(PMEM, 2 << 20), []);
                assert_eq!(machine.undecided_runs(RAM, 1 << 16), []);
                self.ends.insert(self.chosen.iter().flatten().copied().collect(), end(machine));
            }
        }
    }

    fn branch(&mut self, machine: &mut Machine, line: usize, mut rest: impl FnMut(&mut Self, &mut Machine)) {
        machine.push();
        let undecided =
            |machine: &Machine| [machine.undecided_runs(0, 64 << 20), machine.undecided_runs(PMEM, 2 << 20)];
        let before = undecided(machine);
        for (which, content) in self.lines[line].contents.iter().enumerate() {
            self.chosen[line] = Some(which);
            machine.decide(self.lines[line].address, u64::MAX, content);
            rest(self, machine);
            machine.rewind();
            assert_eq!(undecided(machine), before, "going back brings back what was undecided");
        }
        machine.pop();
        self.chosen[line] = None;
    }
}

/// Runs the program in both ways and compares. Returns how often each way ran it.
fn compare(code: &[u8], lines: &[Line], tracing: bool) -> (usize, usize) {
    let mut machine = machine_with_one(code);
    // Something in every place, and the same each time.
    let fill = |seed: u64| (0..0x2000u64).map(|n| (n * 7 + seed + n / 256) as u8).collect::<Vec<_>>();
    for (place, seed) in [(PMEM, 1), (RAM, 2), (RAM + 0x2000, 3)] {
        machine.write_pmem(place, &fill(seed));
    }
    machine.set_tracing(tracing);
    machine.start_trace_hash();
    machine.push();
    let eager = eagerly(&mut machine, lines);
    let mut search = Search { lines, chosen: vec![None; lines.len()], ends: BTreeMap::new(), runs: 0 };
    for line in lines {
        let mut placeholder = line.contents[0];
        (0..64).filter(|byte| line.mask() >> byte & 1 != 0).for_each(|byte| placeholder[byte] = 0xee);
        machine.write_pmem(line.address, &placeholder);
    }
    let masks: Vec<(u64, u64)> = lines.iter().map(|line| (line.address, line.mask())).collect();
    machine.set_undecided(&masks).unwrap();
    search.explore(&mut machine);
    assert_eq!(search.ends.len(), eager.len());
    for (choice, end) in &eager {
        let other = &search.ends[choice];
        assert_eq!(other.registers, end.registers, "{choice:?}");
        assert_eq!(other.flags, end.flags, "{choice:?}");
        assert!(other.memory == end.memory, "memory differs with {choice:?}");
        assert_eq!(other.trace, end.trace, "{choice:?}");
    }
    (search.runs, eager.len())
}

fn widths() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::Byte), Just(Width::Word), Just(Width::Dword), Just(Width::Qword)]
}

fn places() -> impl Strategy<Value = At> {
    let window = prop_oneof![
        3 => Just(Window::Pmem),
        2 => Just(Window::Ram),
        1 => Just(Window::Alias),
        1 => Just(Window::OtherRam),
    ];
    // Most of it near the border, where the lines are.
    (window, prop_oneof![3 => WINDOW / 2 - 80..WINDOW / 2 + 80, 1 => WINDOW / 4..3 * WINDOW / 4])
        .prop_map(|(window, offset)| At(window, offset))
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (widths(), places()).prop_map(|(width, at)| Step::Load(width, at)),
        1 => places().prop_map(Step::LoadSixteen),
        2 => (widths(), places()).prop_map(|(width, at)| Step::Store(width, at)),
        1 => (places(), any::<i32>()).prop_map(|(at, value)| Step::StoreImmediate(at, value)),
        1 => places().prop_map(Step::Add),
        1 => places().prop_map(Step::Exchange),
        1 => places().prop_map(Step::PushPop),
        8 => (widths(), 0..160u64, places(), places(), any::<bool>()).prop_map(
            |(width, bytes, from, to, down)| Step::Copy { width, count: bytes / width.bytes(), from, to, down }
        ),
        2 => (widths(), places(), places()).prop_map(|(width, from, to)| Step::Move(width, from, to)),
        1 => (widths(), 0..100u64, places()).prop_map(
            |(width, bytes, to)| Step::Fill { width, count: bytes / width.bytes(), to }
        ),
        1 => (0..100u64, places(), places()).prop_map(
            |(count, left, right)| Step::Compare { count, left, right }
        ),
        1 => places().prop_map(Step::Skip),
    ]
}

/// Lines next to the page border, with two or three contents each that differ in some bytes.
fn lines() -> impl Strategy<Value = Vec<Line>> {
    let content = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec((0..64usize, any::<u8>()), 1..4),
        prop::collection::vec((0..64usize, any::<u8>()), 64),
    ];
    let line = (0..4u64, prop::collection::vec(content, 2..4));
    prop::collection::vec(line, 1..4).prop_map(|lines| {
        let mut by_address = BTreeMap::new();
        for (number, contents) in lines {
            let address = PMEM + 0x1000 - 128 + 64 * number;
            let base: [u8; 64] = std::array::from_fn(|n| (n as u8).wrapping_mul(3) ^ number as u8);
            let contents: Vec<[u8; 64]> = contents
                .iter()
                .map(|changes| {
                    let mut content = base;
                    changes.iter().for_each(|&(byte, value)| content[byte] = value);
                    content
                })
                .collect();
            by_address.insert(address, Line { address, contents });
        }
        by_address.into_values().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn deciding_late_ends_as_deciding_at_first(
        steps in prop::collection::vec(steps(), 1..14),
        lines in lines(),
        tracing in any::<bool>(),
    ) {
        compare(&program(&steps), &lines, tracing);
    }
}

/// The line at the page border: so many contents, of which some bytes differ.
fn line(contents: &[&[u8]]) -> Vec<Line> {
    let content = |bytes: &&[u8]| {
        let mut content = [0x90; 64];
        content[..bytes.len()].copy_from_slice(bytes);
        content
    };
    vec![Line { address: PMEM + 0x1000, contents: contents.iter().map(content).collect() }]
}

const BORDER: u64 = WINDOW / 2;

#[test]
fn copies_decide_nothing_up_to_the_byte_that_is_loaded() {
    let lines = line(&[&[1, 2], &[1, 3], &[1, 4]]);
    let copy = |from, to, down| Step::Copy { width: Width::Byte, count: 100, from, to, down };
    let (pmem, ram, other) =
        (At(Window::Pmem, BORDER - 36), At(Window::Ram, BORDER - 36), At(Window::OtherRam, BORDER - 31));
    let mut steps = vec![copy(pmem, ram, false), copy(ram, other, true)];
    assert_eq!(compare(&program(&steps), &lines, true), (1, 3));
    // Its neighbour is decided.
    steps.push(Step::Load(Width::Byte, At(Window::OtherRam, BORDER + 5)));
    assert_eq!(compare(&program(&steps), &lines, true), (1, 3));
    steps.push(Step::Load(Width::Word, At(Window::OtherRam, BORDER + 5)));
    assert_eq!(compare(&program(&steps), &lines, true), (3, 3));
}

#[test]
fn bytes_that_are_stored_over_need_no_decision() {
    let lines = line(&[&[1, 2], &[1, 3]]);
    let at = |window| At(window, BORDER);
    let steps = [
        Step::Copy {
            width: Width::Qword,
            count: 2,
            from: at(Window::Pmem),
            to: at(Window::Ram),
            down: false,
        },
        Step::Store(Width::Word, at(Window::Alias)),
        Step::Load(Width::Qword, at(Window::Ram)),
    ];
    assert_eq!(compare(&program(&steps), &lines, false), (1, 2));
}

#[test]
fn a_recorded_copy_into_persistent_memory_needs_its_content() {
    let lines = line(&[&[1, 2], &[1, 3]]);
    let steps = [Step::Copy {
        width: Width::Byte,
        count: 200,
        from: At(Window::Pmem, BORDER - 100),
        to: At(Window::Pmem, BORDER + 200),
        down: false,
    }];
    assert_eq!(compare(&program(&steps), &lines, true), (2, 2));
    assert_eq!(compare(&program(&steps), &lines, false), (1, 2));
}

/// Code that calls what lies at a linear address, after copying it there from persistent memory or not.
fn calling(copied: bool) -> Vec<u8> {
    let assemble = || {
        let mut g = CodeAssembler::new(64)?;
        g.mov(esp, (RAM + 0x8000) as u32)?;
        g.mov(rsi, PMEM + 0x1000)?;
        g.mov(rdi, RAM + 0x1000)?;
        g.mov(ecx, 64)?;
        let target = if copied { RAM + 0x1000 } else { PMEM + 0x1000 };
        if copied {
            // Something was executed there before.
            g.mov(byte_ptr(rdi), 0xc3)?;
            g.mov(rax, target)?;
            g.call(rax)?;
            g.rep().movsb()?;
        }
        g.mov(rbx, target)?;
        g.xor(eax, eax)?;
        g.call(rbx)?;
        g.call(rbx)?;
        g.cli()?;
        g.hlt()?;
        g.assemble(0x20_0000)
    };
    assemble().unwrap_or_else(|error: IcedError| panic!("{error}"))
}

#[test]
fn instructions_are_decided_before_they_are_executed() {
    // add al, 5; ret - add al, 9; inc eax; ret - ret
    let lines = line(&[&[0x04, 5, 0xc3], &[0x04, 9, 0xff, 0xc0, 0xc3], &[0xc3]]);
    assert_eq!(compare(&calling(false), &lines, false), (3, 3));
    assert_eq!(compare(&calling(true), &lines, false), (3, 3));
}

#[test]
fn what_cannot_be_left_undecided_is_refused() {
    let mut machine = machine_with_one(&program(&[]));
    for address in [PMEM + 1, RAM, PMEM + (16 << 20)] {
        assert!(machine.set_undecided(&[(address, 1)]).is_err(), "{address:#x}");
    }
    machine.set_undecided(&[(PMEM, 1)]).unwrap();
    let path = std::env::temp_dir().join(format!("undecided-{}", std::process::id()));
    assert!(machine.save(&path).is_err());
    assert!(machine.set_engine(vmm::Engine::Kvm).is_err());
    machine.decide(PMEM, u64::MAX, &[7; 64]);
    let mut line = [1; 64];
    machine.read_pmem(PMEM, &mut line);
    assert_eq!((line[0], line[1]), (7, 0), "only what was undecided is decided");
}
