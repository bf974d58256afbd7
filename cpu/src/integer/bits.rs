//! General handlers of the instructions that work on single bits or count them.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::{
    alu::{self, BitChange},
    flags::sign_extend,
    operand::{Operand, full, moved},
};
use crate::{Bus, Cpu, Fault, op::Op};

/// BT, BTS, BTR, BTC
pub(super) fn bit_test<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let change = match i.mnemonic() {
        Mnemonic::Bts => BitChange::Set,
        Mnemonic::Btr => BitChange::Reset,
        Mnemonic::Btc => BitChange::Complement,
        _ => BitChange::None,
    };
    let index = Operand::new(cpu, i, 1).read(cpu, bus)?;
    let destination = bit_string(cpu, i, index, change != BitChange::None)?;
    let bits = destination.bits;
    if change == BitChange::None {
        let a = destination.read(cpu, bus)?;
        alu::bit_test(change, &mut cpu.flags, bits, a, index);
        return Ok(());
    }
    destination
        .modify(cpu, bus, i.has_lock_prefix(), |cpu, a| alu::bit_test(change, &mut cpu.flags, bits, a, index))
}

/// The operand that holds bit `index`: with the index in a register, memory is a string of bits that reaches in
/// both directions from the operand's address.
fn bit_string<B: Bus>(cpu: &Cpu<B>, i: &Instruction, index: u64, writes: bool) -> Result<Operand, Fault> {
    let operand = Operand::new(cpu, i, 0);
    if operand.address().is_none() || i.op1_kind() != OpKind::Register {
        return Ok(operand);
    }
    let whole_operands = sign_extend(operand.bits, index) as i64 >> operand.bits.trailing_zeros();
    moved(cpu, i, 0, (whole_operands as u64).wrapping_mul(operand.bits as u64 / 8), writes)
}

/// BSF and BSR, also when a REP prefix makes them TZCNT and LZCNT on processors that have these.
pub(super) fn scan<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let destination = Operand::new(cpu, i, 0);
    let a = Operand::new(cpu, i, 1).read(cpu, bus)?;
    // ZF says whether the source was 0; the others are undefined.
    cpu.flags.set_logic(destination.bits, a);
    if a == 0 {
        // Undefined in the SDM; what processors do and AMD documents: the destination stays.
        return Ok(());
    }
    let forward = matches!(i.mnemonic(), Mnemonic::Bsf | Mnemonic::Tzcnt);
    destination.write(cpu, bus, if forward { a.trailing_zeros() } else { a.ilog2() } as u64)
}

/// POPCNT
pub(super) fn popcnt<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let a = Operand::new(cpu, i, 1).read(cpu, bus)?;
    let count = alu::popcnt(&mut cpu.flags, a);
    Operand::new(cpu, i, 0).write(cpu, bus, count)
}

/// BSWAP: of a 16-bit register it is undefined; processors leave 0.
pub(super) fn bswap<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let operand = Operand::new(cpu, full(op), 0);
    let a = operand.read(cpu, bus)?;
    let swapped = match operand.bits {
        64 => a.swap_bytes(),
        32 => (a as u32).swap_bytes() as u64,
        _ => 0,
    };
    operand.write(cpu, bus, swapped)
}

/// CRC32
pub(super) fn crc32<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let (destination, source) = (Operand::new(cpu, i, 0), Operand::new(cpu, i, 1));
    let data = source.read(cpu, bus)?;
    let seed = destination.read(cpu, bus)? as u32;
    destination.write(cpu, bus, alu::crc32(seed, source.bits, data) as u64)
}
