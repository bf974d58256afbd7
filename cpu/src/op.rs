//! The decoded form of one instruction.

use std::ops::Deref;

use iced_x86::{Instruction, Register};

use crate::{Bus, Cpu, Fault, integer::Flat, legacy::Checked, state::REG_ZERO};

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
    /// The segment whose base is added: only FS and GS have one in 64-bit mode.
    pub segment: Option<Based>,
    pub disp: i32,
}

impl Mem {
    /// No operand.
    pub const NONE: Mem =
        Mem { base: REG_ZERO as u8, index: REG_ZERO as u8, scale: 0, segment: None, disp: 0 };
}

/// A segment with a base in 64-bit mode, as its index into `State::segments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Based {
    Fs = 4,
    Gs = 5,
}

impl Based {
    /// The segment of a memory operand of 64-bit code, if it has a base.
    pub fn of(i: &Instruction) -> Option<Based> {
        match i.memory_segment() {
            Register::FS => Some(Based::Fs),
            Register::GS => Some(Based::Gs),
            _ => None,
        }
    }
}

/// One decoded instruction. Two fit a cache line of the host: what is executed is far larger than its caches.
#[repr(align(32))]
pub(crate) struct Op<B: Bus> {
    pub run: Handler<B>,
    /// Immediate; branches keep their displacement here.
    pub imm: i32,
    pub mem: Mem,
    /// First operand's register number, 0 to 15.
    pub dst: u8,
    /// Second operand's register number, 0 to 15.
    pub src: u8,
    /// Length in bytes. Of a fused pair, of both together.
    pub len: u8,
    /// Of a fused pair, what its jump is: the condition's low four bits, and which length it has.
    pub jump: u8,
    /// The instruction as iced decoded it: for the general handlers, `None` where a specialised one needs nothing.
    pub full: Option<Box<Full<B>>>,
}

impl<B: Bus> Op<B> {
    /// The immediate, sign-extended to 64 bits.
    #[inline(always)]
    pub fn imm(&self) -> u64 {
        self.imm as i64 as u64
    }
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
