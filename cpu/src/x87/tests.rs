//! Instructions in a machine: what reaches memory, and when exceptions are reported.

use super::execute;
use crate::op::{Mem, Op};
use crate::testing::{DATA, TestBus, machine};
use crate::{Cpu, Fault, REG_RIP};

const CR0_NE: u64 = 1 << 5;

/// Executes one instruction, and puts RIP back on a fault as the caller does.
fn step(cpu: &mut Cpu<TestBus>, bus: &mut TestBus, bytes: &[u8]) -> Result<(), Fault> {
    let instruction = iced_x86::Decoder::new(64, bytes, 0).decode();
    let op = Op {
        run: execute::<TestBus>,
        imm: 0,
        mem: Mem::NONE,
        dst: 0,
        src: 0,
        len: instruction.len() as u8,
        jump: 0,
        full: Some(Box::new(instruction.into())),
    };
    let rip = cpu.state.regs[REG_RIP];
    cpu.state.regs[REG_RIP] = rip + instruction.len() as u64;
    execute(cpu, bus, &op).inspect_err(|_| cpu.state.regs[REG_RIP] = rip)
}

/// A machine with RDI at `DATA`.
fn start() -> (Cpu<TestBus>, TestBus) {
    let (mut cpu, bus) = machine(&[]);
    cpu.state.regs[7] = DATA;
    (cpu, bus)
}

const FLD1: [u8; 2] = [0xd9, 0xe8];
const FLDZ: [u8; 2] = [0xd9, 0xee];
const FDIVP: [u8; 2] = [0xde, 0xf9];
const FWAIT: [u8; 1] = [0x9b];
const FNCLEX: [u8; 2] = [0xdb, 0xe2];
const FLDCW_RDI: [u8; 2] = [0xd9, 0x2f];
const FST_DOUBLE_RDI: [u8; 2] = [0xdd, 0x17];
const FXSAVE64_RDI: [u8; 4] = [0x48, 0x0f, 0xae, 0x07];
const FXRSTOR64_RDI: [u8; 4] = [0x48, 0x0f, 0xae, 0x0f];

/// Divides one by zero with that unmasked.
fn raise(cpu: &mut Cpu<TestBus>, bus: &mut TestBus) {
    bus.poke(DATA, &0x37bu16.to_le_bytes());
    for code in [&FLDCW_RDI, &FLD1, &FLDZ, &FDIVP] {
        step(cpu, bus, code).unwrap();
    }
}

#[test]
fn an_unmasked_exception_is_reported_by_the_next_waiting_instruction() {
    let (mut cpu, mut bus) = start();
    raise(&mut cpu, &mut bus);
    assert_eq!(cpu.state.x87.status & 0x80ff, 0x8084);
    assert_eq!(step(&mut cpu, &mut bus, &FLD1), Err(Fault::MF));
    assert_eq!(step(&mut cpu, &mut bus, &FWAIT), Err(Fault::MF));
    step(&mut cpu, &mut bus, &FNCLEX).unwrap();
    step(&mut cpu, &mut bus, &FLD1).unwrap();
}

#[test]
fn without_ne_nothing_is_reported() {
    let (mut cpu, mut bus) = start();
    cpu.state.cr0 &= !CR0_NE;
    raise(&mut cpu, &mut bus);
    step(&mut cpu, &mut bus, &FWAIT).unwrap();
}

#[test]
fn the_last_instruction_and_operand_are_remembered() {
    let (mut cpu, mut bus) = start();
    step(&mut cpu, &mut bus, &FLD1).unwrap();
    let rip = cpu.state.regs[REG_RIP];
    step(&mut cpu, &mut bus, &FST_DOUBLE_RDI).unwrap();
    assert_eq!(bus.peek64(DATA), 1f64.to_bits());
    step(&mut cpu, &mut bus, &FNCLEX).unwrap();
    assert_eq!((cpu.state.x87.ip, cpu.state.x87.dp), (rip, DATA));
}

#[test]
fn a_store_that_faults_leaves_the_stack_alone() {
    let (mut cpu, mut bus) = start();
    step(&mut cpu, &mut bus, &FLD1).unwrap();
    let before = cpu.state.x87;
    cpu.state.regs[7] = 0x7f00_0000_0000;
    let fstp_extended_rdi = [0xdb, 0x3f];
    assert_eq!(step(&mut cpu, &mut bus, &fstp_extended_rdi).unwrap_err().vector(), 14);
    assert_eq!(cpu.state.x87, before);
}

#[test]
fn fxsave_and_fxrstor_carry_everything_and_spare_what_is_softwares() {
    let (mut cpu, mut bus) = start();
    bus.poke(DATA, &[0xee; 512]);
    step(&mut cpu, &mut bus, &FLD1).unwrap();
    cpu.state.xmm = std::array::from_fn(|i| u128::MAX / (i as u128 + 1));
    cpu.state.mxcsr = 0x3f80;
    step(&mut cpu, &mut bus, &FXSAVE64_RDI).unwrap();
    assert_eq!(bus.peek::<96>(DATA + 416), [0xee; 96]);
    assert_eq!(bus.peek::<4>(DATA + 28), [0xff, 0xff, 0, 0]);
    let saved = cpu.state();
    cpu.state.xmm = [0; 16];
    cpu.state.mxcsr = 0x1f80;
    step(&mut cpu, &mut bus, &FLDZ).unwrap();
    step(&mut cpu, &mut bus, &FXRSTOR64_RDI).unwrap();
    let restored = cpu.state();
    assert_eq!((restored.x87, restored.xmm, restored.mxcsr), (saved.x87, saved.xmm, saved.mxcsr));
}

#[test]
fn fxsave_area_must_be_aligned_and_mxcsr_valid() {
    let (mut cpu, mut bus) = start();
    cpu.state.regs[7] = DATA + 8;
    assert_eq!(step(&mut cpu, &mut bus, &FXSAVE64_RDI), Err(Fault::GP0));
    assert_eq!(step(&mut cpu, &mut bus, &FXRSTOR64_RDI), Err(Fault::GP0));
    cpu.state.regs[7] = DATA;
    bus.poke(DATA + 24, &0x1_1f80u32.to_le_bytes());
    let before = cpu.state();
    assert_eq!(step(&mut cpu, &mut bus, &FXRSTOR64_RDI), Err(Fault::GP0));
    assert_eq!(cpu.state(), before);
}

#[test]
fn fnsave_initialises_and_frstor_brings_back() {
    let (mut cpu, mut bus) = start();
    step(&mut cpu, &mut bus, &FLD1).unwrap();
    let before = cpu.state.x87;
    step(&mut cpu, &mut bus, &[0xdd, 0x37]).unwrap();
    assert_eq!((cpu.state.x87.tags, cpu.state.x87.control), (0, 0x37f));
    step(&mut cpu, &mut bus, &[0xdd, 0x27]).unwrap();
    assert_eq!(cpu.state.x87, before);
}
