//! SYSCALL, SYSRET, SYSENTER and SYSEXIT. SDM vol. 3, section 5.8.7.

use iced_x86::Mnemonic;

use crate::{
    Bus, Cpu, Fault, Segment, op::Op, paging::is_canonical, registers::*, state::REG_RIP, system::full,
};

/// SYSCALL: #UD outside of 64-bit mode, as on all Intel processors.
pub(crate) fn syscall<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    if cpu.state.efer & EFER_SCE == 0 || !cpu.long_code() {
        return Err(Fault::UD);
    }
    let flags = cpu.rflags() & !RFLAGS_RF;
    cpu.state.regs[1] = cpu.state.regs[REG_RIP];
    cpu.state.regs[11] = flags;
    cpu.state.regs[REG_RIP] = cpu.state.lstar;
    let selector = (cpu.state.star >> 32) as u16 & !3;
    cpu.state.segments[CS] = flat_code(selector, 0, true);
    cpu.state.segments[SS] = flat_data(selector.wrapping_add(8), 0);
    cpu.set_rflags(flags & !cpu.state.fmask, !0);
    if cpu.single_step {
        cpu.step_by_new_flags();
    }
    Ok(())
}

/// SYSRET to 64-bit code or to compatibility mode
pub(crate) fn sysret<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    if cpu.state.efer & EFER_SCE == 0 || !cpu.long_code() {
        return Err(Fault::UD);
    }
    cpu.require_cpl0()?;
    let to_64_bit = full(op)?.mnemonic() == Mnemonic::Sysretq;
    let target = if to_64_bit { cpu.state.regs[1] } else { cpu.state.regs[1] & 0xffff_ffff };
    if !is_canonical(target) {
        return Err(Fault::GP0);
    }
    let selector = (cpu.state.star >> 48) as u16;
    let code = selector.wrapping_add(if to_64_bit { 16 } else { 0 });
    cpu.state.segments[CS] = flat_code(code | 3, 3, to_64_bit);
    cpu.state.segments[SS] = flat_data(selector.wrapping_add(8) | 3, 3);
    cpu.state.regs[REG_RIP] = target;
    cpu.set_rflags(cpu.state.regs[11] & 0x3c_7fd7, !0);
    cpu.step_by_new_flags();
    Ok(())
}

/// SYSENTER, from any code of protected mode
pub(crate) fn sysenter<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    let [selector, stack, entry] = cpu.state.sysenter;
    let selector = selector as u16 & !3;
    if !cpu.protected() || selector == 0 {
        return Err(Fault::GP0);
    }
    let long = cpu.long_mode();
    let width = if long { u64::MAX } else { 0xffff_ffff };
    cpu.state.regs[RSP] = stack & width;
    cpu.state.regs[REG_RIP] = entry & width;
    cpu.state.segments[CS] = flat_code(selector, 0, long);
    cpu.state.segments[SS] = flat_data(selector.wrapping_add(8), 0);
    cpu.set_rflags(0, RFLAGS_VM | RFLAGS_IF);
    Ok(())
}

/// SYSEXIT to 32-bit code, or with REX.W to 64-bit code
pub(crate) fn sysexit<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let base = cpu.state.sysenter[0] as u16 & !3;
    if !cpu.protected() || base == 0 {
        return Err(Fault::GP0);
    }
    cpu.require_cpl0()?;
    let to_64_bit = full(op)?.mnemonic() == Mnemonic::Sysexitq;
    let width = if to_64_bit { u64::MAX } else { 0xffff_ffff };
    let (stack, target) = (cpu.state.regs[1] & width, cpu.state.regs[2] & width);
    if !is_canonical(stack) || !is_canonical(target) {
        return Err(Fault::GP0);
    }
    let code = base.wrapping_add(if to_64_bit { 32 } else { 16 });
    cpu.state.segments[CS] = flat_code(code | 3, 3, to_64_bit);
    cpu.state.segments[SS] = flat_data(code.wrapping_add(8) | 3, 3);
    cpu.state.regs[RSP] = stack;
    cpu.state.regs[REG_RIP] = target;
    cpu.privilege_changed();
    cpu.boundary = true;
    Ok(())
}

/// The code segment that these instructions load without looking at a descriptor.
fn flat_code(selector: u16, dpl: u16, is_64_bit: bool) -> Segment {
    let size = if is_64_bit { ACCESS_LONG } else { ACCESS_BIG };
    Segment { selector, base: 0, limit: u32::MAX, access: ACCESS_GRANULAR | size | 0x9b | dpl << 5 }
}

fn flat_data(selector: u16, dpl: u16) -> Segment {
    Segment { selector, base: 0, limit: u32::MAX, access: 0xc093 | dpl << 5 }
}
