//! Real mode, protected mode without long mode, compatibility mode, and the ways between them.

mod compatibility;
mod decimal;
mod flat;
mod forms;
mod legacy_paging;
mod order;
mod protected;
mod real;
mod segments;
mod switches;

use iced_x86::{IcedError, code_asm::CodeAssembler};

use crate::{
    Cpu, REG_RIP, Segment,
    testing::{TestBus, run_to_halt},
};

type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Where real-mode code lies: at offset 0 of this segment.
const REAL_SEGMENT: u16 = 0x1000;
/// Where real-mode code lies.
const REAL_CODE: u64 = 0x1_0000;
/// SP of real-mode code; SS is 0.
const REAL_STACK: u64 = 0x7000;

/// Machine code of 16 or 32 bits that is to run at offset `at` of its segment.
fn assemble(
    bits: u32,
    at: u64,
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(bits).unwrap();
    program(&mut assembler).unwrap();
    assembler.assemble(at).unwrap()
}

/// A processor in real mode at `code`, interrupts off, DS and ES at 0x2000:0.
fn real_machine(code: &[u8]) -> (Cpu<TestBus>, TestBus) {
    let mut bus = TestBus::new();
    bus.poke(REAL_CODE, code);
    let mut cpu = Cpu::new(1, 1);
    let mut state = cpu.state();
    let segment =
        |selector, access| Segment { selector, base: u64::from(selector) << 4, limit: 0xffff, access };
    state.segments = [segment(0x2000, 0x93); 6];
    state.segments[1] = segment(REAL_SEGMENT, 0x9b);
    state.segments[2] = segment(0, 0x93);
    state.regs[REG_RIP] = 0;
    state.regs[4] = REAL_STACK;
    cpu.set_state(state);
    (cpu, bus)
}

/// Points a vector of the real-mode table to an offset in [`REAL_SEGMENT`].
fn set_vector(bus: &mut TestBus, vector: u64, offset: u16) {
    bus.poke(vector * 4, &offset.to_le_bytes());
    bus.poke(vector * 4 + 2, &REAL_SEGMENT.to_le_bytes());
}

fn registers<const N: usize>(cpu: &Cpu<TestBus>, numbers: [usize; N]) -> [u64; N] {
    numbers.map(|number| cpu.state().regs[number])
}

const AX: usize = 0;
const CX: usize = 1;
const DX: usize = 2;
const BX: usize = 3;
const SP: usize = 4;

/// Runs real-mode code to its HLT.
fn run_real(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> (Cpu<TestBus>, TestBus) {
    let (mut cpu, mut bus) = real_machine(&assemble(16, 0, program));
    run_to_halt(&mut cpu, &mut bus);
    (cpu, bus)
}
