//! The decoded form of one instruction.

use std::ops::Deref;

use iced_x86::Instruction;

use crate::{Bus, Cpu, Fault, integer::Flat, legacy::Checked};

/// Executes one decoded instruction. RIP already points behind it; a handler that branches sets it. On a fault
/// nothing of the instruction may have become visible, except what the SDM allows (REP progress, x87 pointers);
/// the caller puts RIP back.
pub(crate) type Handler<B> = fn(&mut Cpu<B>, &mut B, &Op<B>) -> Result<(), Fault>;

/// A memory operand: `regs[base] + (regs[index] << scale) + disp + segment base`. An absent register is
/// [`crate::state::REG_ZERO`]; RIP-relative operands use [`crate::state::REG_RIP`]. Only 64-bit addressing: other
/// address sizes go through the general handlers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mem {
    pub base: u8,
    pub index: u8,
    pub scale: u8,
    /// Index into `State::segments` whose base is added: only FS and GS have one in 64-bit mode.
    pub segment: Option<u8>,
    pub disp: i32,
}

/// One decoded instruction.
pub(crate) struct Op<B: Bus> {
    pub run: Handler<B>,
    /// Immediate, sign-extended to 64 bits; branches keep their displacement here.
    pub imm: u64,
    pub mem: Mem,
    /// First operand's register number, 0 to 15.
    pub dst: u8,
    /// Second operand's register number, 0 to 15.
    pub src: u8,
    /// Length in bytes.
    pub len: u8,
    /// The instruction as iced decoded it: for the general handlers, `None` where a specialised one needs nothing.
    pub full: Option<Box<Full<B>>>,
}

/// What only general handlers need.
pub(crate) struct Full<B: Bus> {
    pub instruction: Instruction,
    /// Outside of 64-bit mode: what stands between the instruction and its memory operand.
    pub checked: Option<Checked<B>>,
    /// In 32-bit code: the specialised form.
    pub flat: Option<Box<Flat<B>>>,
}

#[cfg(test)]
impl<B: Bus> From<Instruction> for Full<B> {
    fn from(instruction: Instruction) -> Self {
        Full { instruction, checked: None, flat: None }
    }
}

impl<B: Bus> Deref for Full<B> {
    type Target = Instruction;

    fn deref(&self) -> &Instruction {
        &self.instruction
    }
}
