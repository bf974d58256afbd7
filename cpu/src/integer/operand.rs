//! Operands of the general handlers: registers, memory and immediates in any size.

use iced_x86::{Instruction, OpKind, Register};

use super::alu::mask;
use crate::{Bus, Cpu, Fault, op::Op, segments::segment_index};

/// The iced form of a general handler's instruction.
pub(super) fn full<B: Bus>(op: &Op<B>) -> &Instruction {
    &op.full.as_deref().expect("the decoder keeps the full form for general handlers").instruction
}

/// Number, 0 to 15, of the general register that `register` is or is a part of.
pub(super) fn number(register: Register) -> u8 {
    register.full_register().number() as u8
}

/// Where an operand is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Low part of a general register.
    Register(u8),
    /// AH, CH, DH or BH: bits 8 to 15 of the register.
    HighByte(u8),
    /// Linear address.
    Memory(u64),
    /// An immediate, sign-extended.
    Value(u64),
}

/// One operand of an instruction, its address computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand {
    place: Place,
    /// Size in bits: 8, 16, 32 or 64 (0 for what has none).
    pub bits: u32,
}

impl Operand {
    /// Operand `n` of `i`.
    pub fn new<B: Bus>(cpu: &Cpu<B>, i: &Instruction, n: u32) -> Operand {
        match i.op_kind(n) {
            OpKind::Register => Operand::register(i.op_register(n)),
            OpKind::Memory => {
                let place = Place::Memory(cpu.operand_address(i, n));
                Operand { place, bits: i.memory_size().size() as u32 * 8 }
            }
            _ => Operand { place: Place::Value(i.immediate(n)), bits: 0 },
        }
    }

    /// A general register or a part of one.
    pub fn register(register: Register) -> Operand {
        let high = (Register::AH..=Register::BH).contains(&register);
        let number = number(register);
        let place = if high { Place::HighByte(number) } else { Place::Register(number) };
        Operand { place, bits: register.size() as u32 * 8 }
    }

    /// Linear address, when it is in memory.
    pub fn address(&self) -> Option<u64> {
        match self.place {
            Place::Memory(linear) => Some(linear),
            _ => None,
        }
    }

    /// The same memory operand at another linear address.
    fn at(mut self, address: u64) -> Operand {
        if let Place::Memory(linear) = &mut self.place {
            *linear = address;
        }
        self
    }

    /// Its value, zero-extended; immediates sign-extended.
    pub fn read<B: Bus>(&self, cpu: &mut Cpu<B>, bus: &mut B) -> Result<u64, Fault> {
        match self.place {
            Place::Register(number) => Ok(cpu.state.regs[number as usize] & mask(self.bits)),
            Place::HighByte(number) => Ok(cpu.state.regs[number as usize] >> 8 & 0xff),
            Place::Value(value) => Ok(value),
            Place::Memory(linear) => load(cpu, bus, self.bits, linear),
        }
    }

    /// Stores the low bits of `value`: 32-bit registers are zero-extended, smaller ones merged.
    pub fn write<B: Bus>(&self, cpu: &mut Cpu<B>, bus: &mut B, value: u64) -> Result<(), Fault> {
        match self.place {
            Place::Register(number) => set_register(cpu, self.bits, number, value),
            Place::HighByte(number) => {
                let register = &mut cpu.state.regs[number as usize];
                *register = *register & !0xff00 | (value & 0xff) << 8;
            }
            Place::Value(_) => unreachable!("iced has no immediate destinations among integer instructions"),
            Place::Memory(linear) => store(cpu, bus, self.bits, linear, value)?,
        }
        Ok(())
    }

    /// Raises now what a later [`Operand::write`] would raise.
    pub fn check_writable<B: Bus>(&self, cpu: &mut Cpu<B>, bus: &mut B) -> Result<(), Fault> {
        match self.place {
            Place::Memory(linear) => cpu.check_writable(bus, linear, self.bits as usize / 8),
            _ => Ok(()),
        }
    }

    /// Reads, then writes what `change` makes of it. `change` runs only when nothing can fault any more, so it may
    /// set flags and registers; a locked instruction drains between the two.
    pub fn modify<B: Bus>(
        &self,
        cpu: &mut Cpu<B>,
        bus: &mut B,
        lock: bool,
        change: impl FnOnce(&mut Cpu<B>, u64) -> u64,
    ) -> Result<(), Fault> {
        self.check_writable(cpu, bus)?;
        let old = self.read(cpu, bus)?;
        if lock {
            cpu.locked(bus);
        }
        let new = change(cpu, old);
        self.write(cpu, bus, new)
    }
}

/// Reads `bits` (8, 16, 32 or 64) at a linear address, zero-extended.
#[inline(always)]
pub(super) fn load<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, bits: u32, linear: u64) -> Result<u64, Fault> {
    Ok(match bits {
        8 => cpu.read::<1>(bus, linear)?[0] as u64,
        16 => u16::from_le_bytes(cpu.read(bus, linear)?) as u64,
        32 => u32::from_le_bytes(cpu.read(bus, linear)?) as u64,
        _ => u64::from_le_bytes(cpu.read(bus, linear)?),
    })
}

/// As [`load`] if nothing stands in the way, see [`Cpu::read_fast`].
#[inline(always)]
pub(super) fn load_fast<B: Bus>(cpu: &Cpu<B>, bits: u32, linear: u64) -> Option<u64> {
    Some(match bits {
        8 => cpu.read_fast::<1>(linear)?[0] as u64,
        16 => u16::from_le_bytes(cpu.read_fast(linear)?) as u64,
        32 => u32::from_le_bytes(cpu.read_fast(linear)?) as u64,
        _ => u64::from_le_bytes(cpu.read_fast(linear)?),
    })
}

/// Writes the low `bits` (8, 16, 32 or 64) of `value` at a linear address.
#[inline(always)]
pub(super) fn store<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    bits: u32,
    linear: u64,
    value: u64,
) -> Result<(), Fault> {
    match bits {
        8 => cpu.write(bus, linear, [value as u8]),
        16 => cpu.write(bus, linear, (value as u16).to_le_bytes()),
        32 => cpu.write(bus, linear, (value as u32).to_le_bytes()),
        _ => cpu.write(bus, linear, value.to_le_bytes()),
    }
}

/// The low `bits` of a general register, zero-extended.
#[inline(always)]
pub(super) fn register<B: Bus>(cpu: &Cpu<B>, bits: u32, number: u8) -> u64 {
    cpu.state.regs[number as usize & 15] & mask(bits)
}

/// Sets the low `bits` of a general register: 32 bits zero the upper half, 8 and 16 leave the rest alone.
#[inline(always)]
pub(super) fn set_register<B: Bus>(cpu: &mut Cpu<B>, bits: u32, number: u8, value: u64) {
    let register = &mut cpu.state.regs[number as usize & 15];
    *register = match bits {
        64 => value,
        32 => value as u32 as u64,
        _ => *register & !mask(bits) | value & mask(bits),
    };
}

/// Memory operand `n` of `i`, moved by `bytes` and checked anew. The effective address wraps at the address size.
pub(super) fn moved<B: Bus>(
    cpu: &Cpu<B>,
    i: &Instruction,
    n: u32,
    bytes: u64,
    writes: bool,
) -> Result<Operand, Fault> {
    let operand = Operand::new(cpu, i, n);
    let offset = cpu.effective_address(i).wrapping_add(bytes) & mask(address_bits(i));
    let len = u64::from(operand.bits / 8);
    let address = cpu.segment_linear(segment_index(i.memory_segment()), offset, len, writes)?;
    Ok(operand.at(address))
}

/// Size in bits of addresses in the memory operand: 16, 32 or 64.
fn address_bits(i: &Instruction) -> u32 {
    let bytes = match (i.memory_base(), i.memory_index()) {
        (Register::None, Register::None) => i.memory_displ_size(),
        (Register::None, index) => index.size() as u32,
        (base, _) => base.size() as u32,
    };
    bytes.clamp(2, 8) * 8
}
