//! XCHG, XADD, CMPXCHG.

use iced_x86::{Instruction, Mnemonic};

use super::{
    super::{
        alu::{self, Binary},
        operand::{load, register, set_register, store},
    },
    Kinds, Shape, for_bits, for_wide_bits,
    operands::{linear, modify},
};
use crate::{
    Bus, Cpu, Fault,
    op::{Handler, Op},
};

const RAX: u8 = 0;

pub(super) fn select<B: Bus>(i: &Instruction, shape: &Shape) -> Option<Handler<B>> {
    let bits = shape.bits;
    match (i.mnemonic(), shape.kinds, shape.lock) {
        (Mnemonic::Xchg, Kinds::Rr, _) => for_wide_bits!(bits, xchg_rr),
        // Always locked.
        (Mnemonic::Xchg, Kinds::Mr, _) => for_bits!(bits, xchg_mr),
        (Mnemonic::Xadd, Kinds::Mr, false) => for_wide_bits!(bits, xadd_mr, false),
        (Mnemonic::Xadd, Kinds::Mr, true) => for_wide_bits!(bits, xadd_mr, true),
        (Mnemonic::Cmpxchg, Kinds::Mr, false) => for_bits!(bits, cmpxchg_mr, false),
        (Mnemonic::Cmpxchg, Kinds::Mr, true) => for_bits!(bits, cmpxchg_mr, true),
        _ => None,
    }
}

fn xchg_rr<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let (a, b) = (register(cpu, BITS, op.dst), register(cpu, BITS, op.src));
    set_register(cpu, BITS, op.src, a);
    set_register(cpu, BITS, op.dst, b);
    Ok(())
}

fn xchg_mr<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let address = linear(cpu, &op.mem);
    modify::<B, true, BITS>(cpu, bus, address, |cpu, old| {
        let new = register(cpu, BITS, op.src);
        set_register(cpu, BITS, op.src, old);
        new
    })
}

fn xadd_mr<B: Bus, const LOCK: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let address = linear(cpu, &op.mem);
    modify::<B, LOCK, BITS>(cpu, bus, address, |cpu, old| {
        let b = register(cpu, BITS, op.src);
        let sum = alu::binary(Binary::Add, &mut cpu.flags, BITS, old, b);
        set_register(cpu, BITS, op.src, old);
        sum
    })
}

/// One that fails must not store: in persistent memory that would be seen.
fn cmpxchg_mr<B: Bus, const LOCK: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    let address = linear(cpu, &op.mem);
    cpu.check_writable(bus, address, BITS as usize / 8)?;
    let old = load(cpu, bus, BITS, address)?;
    if LOCK {
        cpu.locked(bus);
    }
    let expected = register(cpu, BITS, RAX);
    alu::binary(Binary::Cmp, &mut cpu.flags, BITS, expected, old);
    if old == expected {
        let new = register(cpu, BITS, op.src);
        return store(cpu, bus, BITS, address, new);
    }
    set_register(cpu, BITS, RAX, old);
    Ok(())
}
