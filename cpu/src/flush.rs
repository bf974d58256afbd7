//! Cache line flushes and fences: what persistent memory lives from.

use iced_x86::Mnemonic;

use crate::{Bus, Cpu, DrainKind, Fault, FlushKind, Page, op::Op, system::full};

/// CLFLUSH, CLFLUSHOPT, CLWB: faults like a load of one byte.
pub(crate) fn flush_line<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let kind = match i.mnemonic() {
        Mnemonic::Clflush => FlushKind::Clflush,
        Mnemonic::Clflushopt => FlushKind::Clflushopt,
        _ => FlushKind::Clwb,
    };
    let linear = cpu.operand_address(i, 0);
    let physical = cpu.physical_for_load(bus, linear)?;
    if let Page::Pmem { .. } = bus.page(physical >> 12) {
        cpu.pmem_flushed(bus, physical & !63, kind);
    }
    Ok(())
}

/// SFENCE and MFENCE.
pub(crate) fn fence<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let kind = if full(op)?.mnemonic() == Mnemonic::Sfence { DrainKind::Sfence } else { DrainKind::Mfence };
    cpu.drain(bus, kind);
    Ok(())
}

/// WBINVD and WBNOINVD.
pub(crate) fn write_back_all<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, _: &Op<B>) -> Result<(), Fault> {
    cpu.require_cpl0()?;
    cpu.drain(bus, DrainKind::WriteBackAll);
    Ok(())
}

/// INVD: throwing caches away would lose stores that other models of this machine keep, so nothing is done.
pub(crate) fn invalidate_all<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    cpu.require_cpl0()
}
