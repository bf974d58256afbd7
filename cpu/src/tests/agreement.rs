//! However a program is executed, it does the same: by the specialised or the general handlers, in one run, one
//! instruction at a time, in runs of any length, and with the state carried to another processor in between.

use iced_x86::code_asm::*;
use proptest::prelude::*;

use super::*;
use crate::{
    Exit, State, StoreKind,
    testing::{DATA, PMEM, Told},
};

/// Instructions a program may retire.
const LIMIT: u64 = 3000;
/// Counters of the handlers, by vector.
const COUNTS: u64 = 0xc000;
const TF: u64 = 0x100;
const AC: u64 = 0x4_0000;

/// One step of a program: what, two registers, a number.
type Step = (u8, u8, u8, u32);

const WIDE: [AsmRegister64; 11] = [rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11, r12, r13];
const NARROW: [AsmRegister32; 11] = [eax, ecx, edx, esi, edi, r8d, r9d, r10d, r11d, r12d, r13d];
const VECTORS: [AsmRegisterXmm; 4] = [xmm0, xmm1, xmm2, xmm3];

/// What a program starts with.
#[derive(Clone, Debug)]
struct Setting {
    steps: Vec<Step>,
    user: bool,
    nmi: bool,
    breakpoints: u64,
    watched: u64,
    flags: u64,
}

fn setting() -> impl Strategy<Value = Setting> {
    let steps = prop::collection::vec(any::<Step>(), 1..60);
    (steps, any::<bool>(), any::<bool>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(steps, user, nmi, breakpoints, watched, flags)| Setting {
            steps,
            user,
            nmi,
            // Half of the programs are executed without any.
            breakpoints: if breakpoints & 1 == 0 { breakpoints >> 1 & 0xff } else { 0 },
            watched: watched & 0x3fff,
            flags: if flags % 4 == 0 { TF } else { 0 } | if flags % 5 == 0 { AC } else { 0 } | flags & 0x200,
        },
    )
}

fn program(setting: &Setting) -> Vec<u8> {
    assemble(|a| {
        let mut again = a.create_label();
        a.mov(rbx, DATA)?;
        a.mov(rbp, PMEM)?;
        a.mov(r15d, 4)?;
        a.set_label(&mut again)?;
        for step in &setting.steps {
            emit(a, *step, setting.user)?;
        }
        a.dec(r15d)?;
        a.jne(again)?;
        a.ud2()
    })
}

fn emit(a: &mut CodeAssembler, (what, first, second, number): Step, user: bool) -> Result<(), IcedError> {
    let (r, s) = (WIDE[first as usize % 11], WIDE[second as usize % 11]);
    let (r32, s32) = (NARROW[first as usize % 11], NARROW[second as usize % 11]);
    let (x, y) = (VECTORS[first as usize % 4], VECTORS[second as usize % 4]);
    let small = i32::from(second);
    // Two pages of RAM or of persistent memory, seldom unaligned.
    let aligned = if first.is_multiple_of(8) { number & 0x1fff } else { number & 0x1ff0 };
    let base = if number >> 31 == 0 { rbx } else { rbp };
    let memory = base + aligned;
    match what % 48 {
        0 => a.add(r, s),
        1 => a.sub(r32, s32),
        2 => a.xor(r, number as i32),
        3 => a.mov(qword_ptr(memory), r),
        4 => a.mov(r, qword_ptr(memory)),
        5 => a.add(dword_ptr(memory), r32),
        6 => a.lock().xadd(qword_ptr(memory), r),
        7 => a.xchg(qword_ptr(memory), r),
        8 => a.lock().cmpxchg(dword_ptr(memory), r32),
        9 => {
            a.push(r)?;
            a.pop(s)
        }
        10 => {
            a.pushfq()?;
            a.pop(r)
        }
        11 => {
            let flags = number & 0xcd5 | if second > 230 { 0x100 } else { 0 };
            a.push((flags | if user { 0x3002 } else { 2 }) as i32)?;
            a.popfq()
        }
        12 => {
            a.lea(rdi, qword_ptr(memory))?;
            if first > 250 {
                // Over the program itself: NOPs, HLTs, anything.
                a.mov(rdi, CODE + u64::from(number & 0x3ff))?;
            }
            a.mov(ecx, small & 0x7f)?;
            if first & 1 == 0 { a.rep().stosb() } else { a.rep().stosq() }
        }
        13 => {
            a.lea(rdi, qword_ptr(memory))?;
            a.lea(rsi, qword_ptr(rbx + (number >> 8 & 0xfff)))?;
            a.mov(ecx, small)?;
            if first & 1 == 0 { a.rep().movsb() } else { a.rep().movsq() }
        }
        14 => {
            a.lea(rdi, qword_ptr(memory))?;
            a.mov(ecx, small)?;
            a.repe().scasb()
        }
        15 => a.shl(r, small & 0x3f),
        16 => a.imul_2(r, s),
        17 => a.adc(r32, s32),
        18 => {
            a.cmove(r, s)?;
            a.setb(byte_ptr(memory))
        }
        19 => a.movdqu(x, xmmword_ptr(memory)),
        20 => a.movups(xmmword_ptr(memory), x),
        21 => a.paddd(x, y),
        22 => a.clwb(byte_ptr(memory)),
        23 => a.sfence(),
        24 => a.mfence(),
        25 => {
            a.push(rbx)?;
            a.xor(eax, eax)?;
            a.cpuid()?;
            a.pop(rbx)
        }
        26 => a.rdtsc(),
        27 => {
            if first & 1 == 0 {
                a.in_(al, 0x30)
            } else {
                a.out(0x30, al)
            }
        }
        28 => match first % 3 {
            0 => a.int(0x55),
            1 => a.int3(),
            _ => a.int1(),
        },
        29 => {
            let mut again = a.create_label();
            a.mov(ecx, 1 + (small & 0xf))?;
            a.set_label(&mut again)?;
            a.add(r8, rcx)?;
            a.mov(qword_ptr(memory), r8)?;
            a.dec(ecx)?;
            a.jne(again)
        }
        30 => {
            let mut patched = a.create_label();
            a.lea(rax, ptr(patched))?;
            a.mov(byte_ptr(rax + 1), small)?;
            if first & 1 == 0 {
                a.nop()?;
            }
            a.set_label(&mut patched)?;
            a.mov(eax, 0)
        }
        31 => {
            a.mov(ecx, u32::from(if user { USER_DATA } else { KERNEL_DATA }))?;
            a.mov(ss, ecx)
        }
        32 => {
            if first & 1 == 0 {
                a.sti()
            } else {
                a.cli()
            }
        }
        33 if second > 240 => match first % 3 {
            0 => a.ud2(),
            1 => {
                a.xor(ecx, ecx)?;
                a.div(ecx)
            }
            _ => {
                a.mov(rcx, 0x20_0000_0000u64)?;
                a.mov(rax, qword_ptr(rcx))
            }
        },
        34 => a.movnti(qword_ptr(memory), r),
        35 => {
            a.mov(rcx, 0xf000_0000u64)?;
            if first & 1 == 0 { a.mov(eax, dword_ptr(rcx)) } else { a.mov(word_ptr(rcx), ax) }
        }
        36 => a.sahf(),
        37 => {
            let (mut function, mut behind) = (a.create_label(), a.create_label());
            a.call(function)?;
            a.jmp(behind)?;
            a.set_label(&mut function)?;
            a.inc(r)?;
            a.ret()?;
            a.set_label(&mut behind)?;
            a.nop()
        }
        38 => a.bts(dword_ptr(memory), r32),
        39 => {
            a.lea(rdi, qword_ptr(memory + 0x200))?;
            a.mov(rsi, rdi)?;
            a.mov(ecx, small & 0x3f)?;
            a.std()?;
            a.rep().movsw()?;
            a.cld()
        }
        40 if !user => {
            a.mov(eax, number & 0x3ff | 0x400)?;
            a.mov(dr7, rax)
        }
        41 => {
            a.fild(dword_ptr(memory))?;
            a.fstp(qword_ptr(memory + 8))
        }
        42 => {
            let mut behind = a.create_label();
            a.test(r, s)?;
            a.jp(behind)?;
            a.not(r)?;
            a.set_label(&mut behind)?;
            a.nop()
        }
        43..=46 => compare_and_jump(a, first, second, number, memory),
        _ => a.lea(r, qword_ptr(s + r * 4 + small)),
    }
}

/// An instruction that sets flags with a conditional jump behind it: such pairs are executed as one.
fn compare_and_jump(
    a: &mut CodeAssembler,
    first: u8,
    second: u8,
    number: u32,
    memory: AsmMemoryOperand,
) -> Result<(), IcedError> {
    let (r, s) = (WIDE[first as usize % 11], WIDE[second as usize % 11]);
    let (r32, s32) = (NARROW[first as usize % 11], NARROW[second as usize % 11]);
    let small = i32::from(second as i8);
    let (mut here, mut behind) = (a.create_label(), a.create_label());
    a.nop()?;
    a.set_label(&mut here)?;
    match number >> 8 & 31 {
        0 => a.cmp(r, s)?,
        1 => a.cmp(r32, s32)?,
        2 => a.cmp(r, small)?,
        3 => a.cmp(al, small)?,
        4 => a.cmp(r32, dword_ptr(memory))?,
        5 => a.cmp(qword_ptr(memory), r)?,
        6 => a.cmp(dword_ptr(memory), small)?,
        7 => a.cmp(word_ptr(memory), small)?,
        8 => a.cmp(byte_ptr(memory), small)?,
        9 => a.cmp(qword_ptr(memory), small)?,
        10 => a.test(r, r)?,
        11 => a.test(r32, s32)?,
        12 => a.test(r32, small)?,
        13 => a.test(dl, dl)?,
        14 => a.test(byte_ptr(memory), small)?,
        15 => a.test(dword_ptr(memory), r32)?,
        16 => a.test(qword_ptr(memory), r)?,
        17 => a.add(r32, small)?,
        18 => a.add(r, s)?,
        19 => a.sub(r, small)?,
        20 => a.and(r32, s32)?,
        21 => a.or(r, s)?,
        22 => a.xor(r32, small)?,
        23 => a.inc(r)?,
        24 => a.dec(r32)?,
        25 => a.cmp(dword_ptr(here), small)?,
        26 => a.test(byte_ptr(here), small)?,
        27 => {
            // A device: what it wants comes before the jump.
            a.mov(rcx, 0xf000_0000u64)?;
            a.cmp(dword_ptr(rcx), r32)?
        }
        28 => a.adc(r, s)?,
        29 => a.shl(r32, small & 3)?,
        30 => a.lock().add(dword_ptr(memory), small)?,
        _ => a.cmp(r32, edx)?,
    }
    let far = number & 0x8000_0000 != 0;
    match number >> 13 & 15 {
        0 => a.jo(behind)?,
        1 => a.jno(behind)?,
        2 => a.jb(behind)?,
        3 => a.jae(behind)?,
        4 => a.je(behind)?,
        5 => a.jne(behind)?,
        6 => a.jbe(behind)?,
        7 => a.ja(behind)?,
        8 => a.js(behind)?,
        9 => a.jns(behind)?,
        10 => a.jp(behind)?,
        11 => a.jnp(behind)?,
        12 => a.jl(behind)?,
        13 => a.jge(behind)?,
        14 => a.jle(behind)?,
        _ => a.jg(behind)?,
    }
    a.not(s)?;
    if far {
        // Beyond the reach of a displacement of 8 bits.
        for _ in 0..70 {
            a.xchg(ax, ax)?;
        }
    }
    a.set_label(&mut behind)?;
    a.nop()
}

/// The machine at the start of a program. Handlers of traps and interrupts count and return, those of faults halt.
fn prepared(setting: &Setting) -> (Cpu<TestBus>, TestBus) {
    let code = program(setting);
    let (mut cpu, mut bus) = if setting.user { user_machine(&code) } else { machine_with_traps(&code) };
    for vector in [1, 2, 3, 0x40, 0x41, 0x55] {
        let at = HANDLERS + 0x2000 + vector * 0x40;
        let handler = assemble_at(at, |a| {
            a.push(rax)?;
            a.mov(eax, (COUNTS + vector * 8) as u32)?;
            a.inc(qword_ptr(rax))?;
            a.pop(rax)?;
            if vector == 1 {
                a.or(dword_ptr(rsp + 16), 0x1_0000)?;
            }
            a.iretq()
        });
        bus.poke(at, &handler);
        let raw = gate(0, 0, if vector == 3 || vector == 0x55 { 0xee } else { 0x8e });
        let raw = raw & !0xffff & !(0xffff << 48) | u128::from(at & 0xffff) | u128::from(at >> 16) << 48;
        bus.poke(IDT + vector * 16, &raw.to_le_bytes());
    }
    bus.device_value = 0x1234_5678_9abc_def0;
    bus.interrupts = vec![0x40, 0x41];
    let mut state = cpu.state();
    state.cr0 |= AC;
    state.cr4 |= 8;
    state.rflags |= setting.flags | if setting.user { 0x3000 } else { 0 };
    state.nmi_pending = setting.nmi;
    // On an instruction, on eight bytes of RAM, on two of persistent memory, on a port.
    state.dr[0] = CODE + setting.watched % code.len() as u64;
    state.dr[1] = DATA + (setting.watched & 0x1ff8);
    state.dr[2] = PMEM + (setting.watched & 0x1ffe);
    state.dr[3] = 0x30;
    state.dr[7] = 0x400 | setting.breakpoints | 1 << 20 | 2 << 22 | 3 << 24 | 1 << 26 | 2 << 28;
    cpu.set_state(state);
    (cpu, bus)
}

/// What a program did, as far as it can be compared.
#[derive(Debug, PartialEq)]
struct Outcome {
    exit: Exit,
    state: State,
    events: Vec<String>,
    memory: [Vec<u8>; 4],
}

/// Runs to the end by `run`, which is given how far it may go.
fn outcome(
    setting: &Setting,
    general: bool,
    mut run: impl FnMut(&mut Cpu<TestBus>, &mut TestBus) -> Exit,
) -> Outcome {
    let (mut cpu, mut bus) = prepared(setting);
    if general {
        cpu.use_general_handlers();
    }
    let mut exit = run(&mut cpu, &mut bus);
    while exit == Exit::Limit && cpu.retired() < LIMIT {
        exit = run(&mut cpu, &mut bus);
    }
    let mut bytes = |at: u64| bus.peek::<0x4000>(at).to_vec();
    let memory = [bytes(CODE), bytes(DATA), bytes(PMEM), bytes(COUNTS)];
    let events = events(&bus);
    Outcome { exit, state: cpu.state(), events, memory }
}

/// Everything told, with the bytes of repeated stores one by one: how many iterations are told at once is free.
fn events(bus: &TestBus) -> Vec<String> {
    let mut events = Vec::new();
    for (told, view) in &bus.told {
        match told {
            Told::Store(at, bytes, StoreKind::CachedRep { .. }) => {
                events.extend((*at..).zip(bytes).map(|(at, byte)| format!("{at:#x} {byte}")));
            }
            _ => events.push(format!("{told:x?} {view:x?}")),
        }
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_way_to_execute_a_program_does_the_same(
        setting in setting(),
        slices in prop::collection::vec(1u64..200, 1..20),
    ) {
        let whole = outcome(&setting, false, |cpu, bus| cpu.run(bus, LIMIT));

        let general = outcome(&setting, true, |cpu, bus| cpu.run(bus, LIMIT));
        prop_assert_eq!(&whole, &general, "general handlers");

        let stepped = outcome(&setting, false, |cpu, bus| cpu.run(bus, cpu.retired() + 1));
        prop_assert_eq!(&whole, &stepped, "one at a time");

        let mut next = slices.iter().cycle();
        let mut slice = move || *next.next().expect("there is at least one");
        let sliced = outcome(&setting, false, |cpu, bus| cpu.run(bus, LIMIT.min(cpu.retired() + slice())));
        prop_assert_eq!(&whole, &sliced, "in runs of some length");

        let mut next = slices.iter().cycle();
        let mut slice = move || *next.next().expect("there is at least one");
        let carried = outcome(&setting, false, |cpu, bus| {
            let state = cpu.state();
            *cpu = Cpu::new(1, 0);
            cpu.set_state(state);
            cpu.run(bus, LIMIT.min(cpu.retired() + slice()))
        });
        prop_assert_eq!(&whole, &carried, "on another processor each time");
    }
}
