//! The core from outside: small programs on a small machine.

mod agreement;
mod alignment;
mod breakpoints;
mod control;
mod decoding;
mod double_faults;
mod limits;
mod locks;
mod machine_checks;
mod modes;
mod nmi;
mod page_rights;
mod paging;
mod persistence;
mod processors;
mod self_modifying;
mod single_step;
mod tables;
mod traps;
mod undecided;

use iced_x86::{IcedError, code_asm::CodeAssembler};

use crate::{
    Cpu, REG_RIP, Segment, TableRegister,
    testing::{CODE, TestBus, machine, run_to_halt},
};

const GDT: u64 = 0x8000;
const IDT: u64 = 0x9000;
const TSS: u64 = 0xa000;
/// Handler of vector v is HLT at HANDLERS + 16 v.
const HANDLERS: u64 = 0x18_0000;
const KERNEL_STACK: u64 = 0x1a_0000;
const IST1: u64 = 0x1b_0000;

const KERNEL_CODE: u16 = 0x10;
const KERNEL_DATA: u16 = 0x18;
const USER_DATA: u16 = 0x2b;
const USER_CODE: u16 = 0x33;
const MISSING_DATA: u16 = 0x48;

/// Machine code that is to lie at [`CODE`].
fn assemble(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    assemble_at(CODE, program)
}

fn assemble_at(at: u64, program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(64).unwrap();
    program(&mut assembler).unwrap();
    assembler.assemble(at).unwrap()
}

fn gate(vector: u64, ist: u8, kind: u8) -> u128 {
    let target = u128::from(HANDLERS + vector * 16);
    target & 0xffff
        | u128::from(KERNEL_CODE) << 16
        | u128::from(ist) << 32
        | u128::from(kind) << 40
        | (target >> 16 & 0xffff) << 48
        | (target >> 32) << 64
}

/// A machine with descriptor tables, a TSS, and handlers that halt.
fn machine_with_traps(code: &[u8]) -> (Cpu<TestBus>, TestBus) {
    let (mut cpu, mut bus) = machine(code);
    let tss = 0x0000_8900_0000_0067 | TSS << 16;
    let descriptors = [
        (u64::from(KERNEL_CODE), 0x00af_9b00_0000_ffff),
        (u64::from(KERNEL_DATA), 0x00cf_9300_0000_ffff),
        (0x28, 0x00cf_f300_0000_ffff),
        (0x30, 0x00af_fb00_0000_ffff),
        (0x38, tss),
        (u64::from(MISSING_DATA), 0x00cf_1300_0000_ffff),
    ];
    for (at, raw) in descriptors {
        bus.poke64(GDT + at, raw);
    }
    for vector in 0..256 {
        bus.poke(IDT + vector * 16, &gate(vector, 0, 0x8e).to_le_bytes());
        bus.poke(HANDLERS + vector * 16, &[0xf4]);
    }
    bus.poke64(TSS + 4, KERNEL_STACK);
    bus.poke64(TSS + 0x24, IST1);
    bus.poke(TSS + 0x66, &[0xff, 0xff]);
    let mut state = cpu.state();
    state.gdtr = TableRegister { base: GDT, limit: 0x4f };
    state.idtr = TableRegister { base: IDT, limit: 0xfff };
    state.tr = Segment { selector: 0x38, base: TSS, limit: 0x67, access: 0x8b };
    state.star = 0x0020_0010 << 32;
    cpu.set_state(state);
    (cpu, bus)
}

/// The same at CPL 3.
fn user_machine(code: &[u8]) -> (Cpu<TestBus>, TestBus) {
    let (mut cpu, bus) = machine_with_traps(code);
    let mut state = cpu.state();
    let data = Segment { selector: USER_DATA, base: 0, limit: u32::MAX, access: 0xc0f3 };
    state.segments = [data; 6];
    state.segments[1] = Segment { selector: USER_CODE, base: 0, limit: u32::MAX, access: 0xa0fb };
    cpu.set_state(state);
    (cpu, bus)
}

/// What a handler finds on its stack.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    vector: u64,
    code: Option<u64>,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Runs until a handler halts and returns what it found.
fn run_to_handler(cpu: &mut Cpu<TestBus>, bus: &mut TestBus) -> Frame {
    run_to_halt(cpu, bus);
    let state = cpu.state();
    let at = state.regs[REG_RIP] - 1;
    assert!((HANDLERS..HANDLERS + 0x1000).contains(&at), "halted at {at:#x}");
    let vector = (at - HANDLERS) / 16;
    let mut rsp = state.regs[4];
    let mut pop = || {
        rsp += 8;
        bus.peek64(rsp - 8)
    };
    let code = matches!(vector, 8 | 10..=14 | 17).then(&mut pop);
    let (rip, cs, rflags) = (pop(), pop(), pop());
    Frame { vector, code, rip, cs, rflags, rsp: pop(), ss: pop() }
}
