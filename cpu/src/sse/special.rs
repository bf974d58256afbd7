//! Instructions that do not just compute their first operand from the others.

use iced_x86::{Code, Instruction};

use super::{
    lanes::lane,
    mxcsr,
    operands::{check_pending_x87, enter_mmx, fetch, memory_address, register},
    strings,
};
use crate::{Bus, Cpu, Fault, integer::LazyFlags};

/// Whether [`execute`] knows `code`.
pub(super) fn handles(code: Code) -> bool {
    matches!(
        code,
        Code::Emms
            | Code::Ldmxcsr_m32
            | Code::Stmxcsr_m32
            | Code::Maskmovq_rDI_mm_mm
            | Code::Maskmovdqu_rDI_xmm_xmm
            | Code::Pcmpestri_xmm_xmmm128_imm8
            | Code::Pcmpestri64_xmm_xmmm128_imm8
            | Code::Pcmpestrm_xmm_xmmm128_imm8
            | Code::Pcmpestrm64_xmm_xmmm128_imm8
            | Code::Pcmpistri_xmm_xmmm128_imm8
            | Code::Pcmpistrm_xmm_xmmm128_imm8
    )
}

/// Executes `i`.
pub(super) fn execute<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, i: &Instruction) -> Result<(), Fault> {
    match i.code() {
        Code::Emms => empty_mmx(cpu),
        Code::Ldmxcsr_m32 => load_mxcsr(cpu, bus, i),
        Code::Stmxcsr_m32 => {
            let address = memory_address(cpu, i, 0)?;
            cpu.write(bus, address, cpu.state.mxcsr.to_le_bytes())
        }
        Code::Maskmovq_rDI_mm_mm => store_masked(cpu, bus, i, 8),
        Code::Maskmovdqu_rDI_xmm_xmm => store_masked(cpu, bus, i, 16),
        code if handles(code) => compare_strings(cpu, bus, i),
        _ => Err(Fault::UD),
    }
}

fn empty_mmx<B: Bus>(cpu: &mut Cpu<B>) -> Result<(), Fault> {
    check_pending_x87(cpu)?;
    enter_mmx(cpu);
    cpu.state.x87.tags = 0;
    Ok(())
}

fn load_mxcsr<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, i: &Instruction) -> Result<(), Fault> {
    let value = fetch(cpu, bus, i, 0)? as u32;
    if value & !mxcsr::WRITABLE != 0 {
        return Err(Fault::GP0);
    }
    cpu.state.mxcsr = value;
    Ok(())
}

/// MASKMOVQ and MASKMOVDQU: stores the bytes whose mask has its top bit set. Where the SDM leaves it to the processor,
/// this one is like AMD's: all bytes must be writable, whatever the mask, and the x87 unit has changed over before.
fn store_masked<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, i: &Instruction, width: usize) -> Result<(), Fault> {
    let bytes = register(cpu, i.op1_register()).to_le_bytes();
    let mask = register(cpu, i.op2_register());
    if width == 8 {
        enter_mmx(cpu);
    }
    let address = cpu.element_address(i, 0, width as u64, true)?;
    cpu.probe_writable(bus, address, width)?;
    // Of MASKMOVDQU no more is asked.
    cpu.check_alignment(address, 8)?;
    for (start, end) in (Runs { mask, from: 0, width }) {
        cpu.write_selected(bus, address.wrapping_add(start as u64), &bytes[start..end])?;
    }
    Ok(())
}

/// Stretches of selected bytes, as (first, behind the last).
struct Runs {
    mask: u128,
    from: usize,
    width: usize,
}

impl Iterator for Runs {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let selected = |&n: &usize| lane::<i8>(self.mask, n) < 0;
        let start = (self.from..self.width).find(selected)?;
        let end = (start..self.width).find(|n| !selected(n)).unwrap_or(self.width);
        self.from = end;
        Some((start, end))
    }
}

/// Index into `State::regs` of RAX, the length of the first string.
const RAX: usize = 0;
/// Of RCX, where an index goes.
const RCX: usize = 1;
/// Of RDX, the length of the second string.
const RDX: usize = 2;

fn compare_strings<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, i: &Instruction) -> Result<(), Fault> {
    let a = register(cpu, i.op0_register());
    let b = fetch(cpu, bus, i, 1)?;
    let imm = i.immediate8();
    let explicit = |register: usize, wide: bool| {
        let value = cpu.state.regs[register];
        strings::explicit_length(if wide { value as i64 } else { value as i32 as i64 }, imm)
    };
    let (a_length, b_length) = match i.code() {
        Code::Pcmpestri64_xmm_xmmm128_imm8 | Code::Pcmpestrm64_xmm_xmmm128_imm8 => {
            (explicit(RAX, true), explicit(RDX, true))
        }
        Code::Pcmpestri_xmm_xmmm128_imm8 | Code::Pcmpestrm_xmm_xmmm128_imm8 => {
            (explicit(RAX, false), explicit(RDX, false))
        }
        _ => (strings::implicit_length(a, imm), strings::implicit_length(b, imm)),
    };
    let outcome = strings::compare(a, a_length, b, b_length, imm);
    match i.code() {
        Code::Pcmpestri_xmm_xmmm128_imm8
        | Code::Pcmpestri64_xmm_xmmm128_imm8
        | Code::Pcmpistri_xmm_xmmm128_imm8 => {
            cpu.state.regs[RCX] = outcome.index(imm);
        }
        _ => cpu.state.xmm[0] = outcome.mask(imm),
    }
    cpu.flags = LazyFlags::load(outcome.flags);
    Ok(())
}
