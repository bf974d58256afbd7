//! Guest memory as instructions see it: linear addresses, translated, checked, split at page borders, traced.

use iced_x86::Instruction;

use crate::{Bus, Cpu, Fault};

impl<B: Bus> Cpu<B> {
    /// Linear address of the (only) memory operand of `i`: segment base included, 32-bit address size honoured.
    /// Works for string operands, too, when asked with the operand's number.
    pub(crate) fn operand_address(&self, i: &Instruction, operand: u32) -> u64 {
        let _ = (i, operand);
        unimplemented!()
    }

    /// Reads `N` bytes at a linear address with the current privilege. Faults before anything is visible.
    pub(crate) fn read<const N: usize>(&mut self, bus: &mut B, linear: u64) -> Result<[u8; N], Fault> {
        let _ = (bus, linear);
        unimplemented!()
    }

    /// Writes `N` bytes at a linear address. Either all bytes are written or none and a fault is returned.
    pub(crate) fn write<const N: usize>(&mut self, bus: &mut B, linear: u64, value: [u8; N]) -> Result<(), Fault> {
        let _ = (bus, linear, value);
        unimplemented!()
    }

    /// As [`Cpu::write`] for any length up to 4096, told to the bus as a non-temporal store.
    pub(crate) fn write_non_temporal(&mut self, bus: &mut B, linear: u64, value: &[u8]) -> Result<(), Fault> {
        let _ = (bus, linear, value);
        unimplemented!()
    }

    /// Checks that `len` bytes at a linear address could be written now, setting accessed and dirty bits.
    pub(crate) fn check_writable(&mut self, bus: &mut B, linear: u64, len: usize) -> Result<(), Fault> {
        let _ = (bus, linear, len);
        unimplemented!()
    }
}
