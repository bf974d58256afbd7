//! Registers and memory of the specialised handlers.

use super::super::operand::{load, load_fast, store};
use crate::{
    Bus, Cpu, Fault,
    op::{Mem, Op},
};

/// Linear address of a memory operand.
#[inline(always)]
pub(super) fn linear<B: Bus>(cpu: &Cpu<B>, mem: &Mem) -> u64 {
    let address = effective(cpu, mem);
    match mem.segment {
        None => address,
        Some(segment) => address.wrapping_add(cpu.state.segments[segment as usize].base),
    }
}

/// Offset of a memory operand in its segment.
#[inline(always)]
pub(super) fn effective<B: Bus>(cpu: &Cpu<B>, mem: &Mem) -> u64 {
    let regs = &cpu.state.regs;
    regs[mem.base as usize]
        .wrapping_add(regs[mem.index as usize] << (mem.scale & 3))
        .wrapping_add(mem.disp as i64 as u64)
}

/// Reads the memory operand, zero-extended.
#[inline(always)]
pub(super) fn read<B: Bus, const BITS: u32>(cpu: &mut Cpu<B>, bus: &mut B, mem: &Mem) -> Result<u64, Fault> {
    let address = linear(cpu, mem);
    load(cpu, bus, BITS, address)
}

/// Reads the memory operand, zero-extended, and does the rest of the instruction with it. What needs more than a look at
/// the TLB is in a function of its own, so that the usual way saves no registers.
#[inline(always)]
pub(super) fn read_then<B: Bus, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
    rest: impl Fn(&mut Cpu<B>, &Op<B>, u64),
) -> Result<(), Fault> {
    let address = linear(cpu, &op.mem);
    match load_fast(cpu, BITS, address) {
        Some(value) => {
            rest(cpu, op, value);
            Ok(())
        }
        None => read_slow_then::<B, BITS>(cpu, bus, op, address, rest),
    }
}

#[cold]
#[inline(never)]
fn read_slow_then<B: Bus, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
    address: u64,
    rest: impl Fn(&mut Cpu<B>, &Op<B>, u64),
) -> Result<(), Fault> {
    let value = load(cpu, bus, BITS, address)?;
    rest(cpu, op, value);
    Ok(())
}

/// Writes the memory operand.
#[inline(always)]
pub(super) fn write<B: Bus, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    mem: &Mem,
    value: u64,
) -> Result<(), Fault> {
    let address = linear(cpu, mem);
    store(cpu, bus, BITS, address, value)
}

/// Reads memory, then writes what `change` makes of it; `change` runs only when nothing can fault any more, so it may
/// set flags and registers. `LOCK` drains between the two.
#[inline(always)]
pub(super) fn modify<B: Bus, const LOCK: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    address: u64,
    change: impl FnOnce(&mut Cpu<B>, u64) -> u64,
) -> Result<(), Fault> {
    let entry = cpu.tlb.write.entry(address, cpu.privilege);
    if entry.tag != address.wrapping_add(BITS as u64 / 8 - 1) & !0xfff {
        return modify_slow::<B, LOCK, BITS>(cpu, bus, address, change);
    }
    if LOCK {
        cpu.locked(bus);
    }
    let host = address.wrapping_add(entry.addend);
    // SAFETY: an entry for writing without slow bits maps its whole page to host memory that lives as long as the bus
    // and may be read and written, and all bytes of the operand are in that page.
    unsafe {
        match BITS {
            8 => {
                let old = (host as *const u8).read();
                let new = change(cpu, old as u64);
                (host as *mut u8).write(new as u8);
            }
            16 => {
                let old = (host as *const u16).read_unaligned();
                let new = change(cpu, u16::from_le(old) as u64);
                (host as *mut u16).write_unaligned((new as u16).to_le());
            }
            32 => {
                let old = (host as *const u32).read_unaligned();
                let new = change(cpu, u32::from_le(old) as u64);
                (host as *mut u32).write_unaligned((new as u32).to_le());
            }
            _ => {
                let old = (host as *const u64).read_unaligned();
                let new = change(cpu, u64::from_le(old));
                (host as *mut u64).write_unaligned(new.to_le());
            }
        }
    }
    Ok(())
}

#[cold]
fn modify_slow<B: Bus, const LOCK: bool, const BITS: u32>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    address: u64,
    change: impl FnOnce(&mut Cpu<B>, u64) -> u64,
) -> Result<(), Fault> {
    cpu.check_writable(bus, address, BITS as usize / 8)?;
    let old = load(cpu, bus, BITS, address)?;
    if LOCK {
        cpu.locked(bus);
    }
    let new = change(cpu, old);
    store(cpu, bus, BITS, address, new)
}
