//! Descriptor tables and segment registers as instructions load, store and inspect them.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use crate::{
    Bus, Cpu, Fault, TableRegister,
    far::far_pointer,
    op::Op,
    registers::*,
    segments::{Descriptor, gp, segment_index},
    system::full,
};

/// LGDT, LIDT
pub(crate) fn load_table<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    cpu.require_cpl0()?;
    let i = full(op)?;
    let at = cpu.operand_address(i, 0);
    let mut bytes = [0; 16];
    let len = if cpu.long_code() { 10 } else { 6 };
    cpu.read_slow(bus, at, &mut bytes[..len])?;
    let image = u128::from_le_bytes(bytes);
    let (limit, base) = (image as u16, (image >> 16) as u64);
    let base =
        if matches!(i.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) { base & 0xff_ffff } else { base };
    cpu.check_code_address(base)?;
    let table = TableRegister { base, limit };
    if i.mnemonic() == Mnemonic::Lgdt {
        cpu.state.gdtr = table;
    } else {
        cpu.state.idtr = table;
    }
    cpu.drain_serialising(bus);
    Ok(())
}

/// SGDT, SIDT
pub(crate) fn store_table<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let at = cpu.operand_address(i, 0);
    let table = if i.mnemonic() == Mnemonic::Sgdt { cpu.state.gdtr } else { cpu.state.idtr };
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&table.limit.to_le_bytes());
    bytes[2..].copy_from_slice(&table.base.to_le_bytes());
    if cpu.long_code() {
        cpu.write(bus, at, bytes)
    } else {
        cpu.write(bus, at, [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]])
    }
}

/// LLDT, LTR
pub(crate) fn load_system_segment<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    let i = full(op)?;
    let selector = selector_operand(cpu, bus, i, 0)?;
    if i.mnemonic() == Mnemonic::Lldt {
        load_ldt(cpu, bus, selector)?;
    } else {
        load_task(cpu, bus, selector)?;
    }
    cpu.drain_serialising(bus);
    Ok(())
}

fn load_ldt<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, selector: u16) -> Result<(), Fault> {
    if selector & !3 == 0 {
        cpu.state.ldtr = crate::Segment { selector, ..Default::default() };
        return Ok(());
    }
    let descriptor = global_descriptor(cpu, bus, selector)?;
    if descriptor.access() & 0x1f != 2 {
        return Err(gp(selector));
    }
    let mut segment = present(descriptor, selector)?.segment(selector);
    segment.base |= cpu.upper_base(bus, descriptor)?;
    cpu.state.ldtr = segment;
    Ok(())
}

fn load_task<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, selector: u16) -> Result<(), Fault> {
    if selector & !3 == 0 {
        return Err(Fault::GP0);
    }
    let descriptor = global_descriptor(cpu, bus, selector)?;
    let narrow = descriptor.access() & 0x1f == 1 && !cpu.long_mode();
    if descriptor.access() & 0x1f != 9 && !narrow {
        return Err(gp(selector));
    }
    let mut segment = present(descriptor, selector)?.segment(selector);
    segment.base |= cpu.upper_base(bus, descriptor)?;
    segment.access |= 2;
    let busy = (descriptor.raw >> 40) as u8 | 2;
    cpu.as_supervisor(|cpu| cpu.write(bus, descriptor.at.wrapping_add(5), [busy]))?;
    cpu.state.tr = segment;
    Ok(())
}

fn global_descriptor<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, selector: u16) -> Result<Descriptor, Fault> {
    if selector & 4 != 0 {
        return Err(gp(selector));
    }
    cpu.descriptor(bus, selector)
}

fn present(descriptor: Descriptor, selector: u16) -> Result<Descriptor, Fault> {
    if descriptor.has(ACCESS_PRESENT) { Ok(descriptor) } else { Err(Fault::coded(11, selector & !3)) }
}

/// SLDT, STR
pub(crate) fn store_system_segment<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    cpu.require_protected()?;
    let i = full(op)?;
    let selector =
        if i.mnemonic() == Mnemonic::Sldt { cpu.state.ldtr.selector } else { cpu.state.tr.selector };
    store_selector(cpu, bus, i, selector)
}

/// MOV r/m, Sreg
pub(crate) fn store_segment_register<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let selector = cpu.state.segments[segment_index(i.op1_register())].selector;
    store_selector(cpu, bus, i, selector)
}

fn store_selector<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    i: &Instruction,
    selector: u16,
) -> Result<(), Fault> {
    if i.op0_kind() == OpKind::Register {
        cpu.set_gpr(i.op0_register(), u64::from(selector));
        return Ok(());
    }
    let at = cpu.operand_address(i, 0);
    cpu.write(bus, at, selector.to_le_bytes())
}

/// MOV Sreg, r/m
pub(crate) fn load_segment_register<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let index = segment_index(i.op0_register());
    if index == CS {
        return Err(Fault::UD);
    }
    let selector = selector_operand(cpu, bus, i, 1)?;
    cpu.load_segment(bus, index, selector)?;
    shadow_after(cpu, index);
    Ok(())
}

/// PUSH Sreg
pub(crate) fn push_segment<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let selector = cpu.state.segments[segment_index(i.op0_register())].selector;
    match stack_operand_size(i) {
        // SDM vol. 2, PUSH: all newer processors move 16 bits and leave the upper half of the slot alone.
        4 => {
            let before = cpu.state.regs[RSP];
            cpu.move_stack(2u64.wrapping_neg());
            let pushed = cpu.push_value(bus, u64::from(selector), 2);
            if pushed.is_err() {
                cpu.state.regs[RSP] = before;
            }
            pushed
        }
        size => cpu.push_value(bus, u64::from(selector), size),
    }
}

/// POP Sreg
pub(crate) fn pop_segment<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let index = segment_index(i.op0_register());
    let size = stack_operand_size(i);
    let selector = cpu.stack_value(bus, 0, size)? as u16;
    cpu.load_segment(bus, index, selector)?;
    cpu.move_stack(size);
    shadow_after(cpu, index);
    Ok(())
}

fn stack_operand_size(i: &Instruction) -> u64 {
    u64::from(i.stack_pointer_increment().unsigned_abs())
}

/// Loading SS holds interrupts and debug exceptions off for one instruction, so that RSP can follow.
fn shadow_after<B: Bus>(cpu: &mut Cpu<B>, index: usize) {
    if index == SS {
        cpu.state.interrupt_shadow = true;
        cpu.state.stack_shadow = true;
        cpu.boundary = true;
    }
}

/// LSS, LFS, LGS (LDS, LES outside of 64-bit mode)
pub(crate) fn load_far_pointer<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let at = cpu.operand_address(i, 1);
    let size = i.op0_register().size();
    let (selector, offset) = far_pointer(cpu, bus, at, size)?;
    let index = match i.mnemonic() {
        Mnemonic::Les => 0,
        Mnemonic::Lds => 3,
        Mnemonic::Lss => SS,
        Mnemonic::Lfs => FS,
        _ => GS,
    };
    cpu.load_segment(bus, index, selector)?;
    cpu.set_gpr(i.op0_register(), offset);
    Ok(())
}

/// LAR, LSL
pub(crate) fn load_rights<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    cpu.require_protected()?;
    let i = full(op)?;
    let selector = selector_operand(cpu, bus, i, 1)?;
    let wants_limit = i.mnemonic() == Mnemonic::Lsl;
    let visible = visible_descriptor(cpu, bus, selector, wants_limit)?;
    if let Some(descriptor) = visible {
        let value =
            if wants_limit { u64::from(descriptor.limit()) } else { descriptor.raw >> 32 & 0x00ff_ff00 };
        cpu.set_gpr(i.op0_register(), value);
    }
    cpu.set_zero_flag(visible.is_some());
    Ok(())
}

/// VERR, VERW
pub(crate) fn verify<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    cpu.require_protected()?;
    let i = full(op)?;
    let selector = selector_operand(cpu, bus, i, 0)?;
    let writes = i.mnemonic() == Mnemonic::Verw;
    let ok = match visible_descriptor(cpu, bus, selector, false)? {
        Some(descriptor) if descriptor.has(ACCESS_NOT_SYSTEM) => {
            let is_code = descriptor.has(ACCESS_CODE);
            let marked = descriptor.has(ACCESS_READABLE_OR_WRITABLE);
            if writes { !is_code && marked } else { !is_code || marked }
        }
        _ => false,
    };
    cpu.set_zero_flag(ok);
    Ok(())
}

/// The descriptor that LAR, LSL, VERR and VERW may look at; faults of the table itself count as "may not".
fn visible_descriptor<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    selector: u16,
    has_limit: bool,
) -> Result<Option<Descriptor>, Fault> {
    if selector & !3 == 0 {
        return Ok(None);
    }
    let descriptor = match cpu.descriptor(bus, selector) {
        Ok(descriptor) => descriptor,
        Err(fault) if fault.vector() == 13 => return Ok(None),
        Err(fault) => return Err(fault),
    };
    if !descriptor.has(ACCESS_NOT_SYSTEM) {
        // TSS and LDT; of gates LAR sees call gates and task gates only. SDM vol. 2, LAR and LSL.
        let kind = descriptor.access() & 0xf;
        let known = matches!(kind, 2 | 9 | 11) || kind == 12 && !has_limit;
        let known_in_legacy_mode = matches!(kind, 1 | 3) || matches!(kind, 4 | 5) && !has_limit;
        if !known && (cpu.long_mode() || !known_in_legacy_mode) {
            return Ok(None);
        }
    }
    let conforming = descriptor.has(ACCESS_NOT_SYSTEM | ACCESS_CODE | ACCESS_CONFORMING);
    let allowed = conforming || (cpu.state.cpl().max(selector as u8 & 3)) <= descriptor.dpl();
    Ok(allowed.then_some(descriptor))
}

fn selector_operand<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, i: &Instruction, n: u32) -> Result<u16, Fault> {
    if i.op_kind(n) == OpKind::Register {
        let register = i.op_register(n);
        debug_assert!(register.is_gpr() && register != Register::None);
        return Ok(cpu.state.regs[register.number()] as u16);
    }
    let at = cpu.operand_address(i, n);
    Ok(u16::from_le_bytes(cpu.read(bus, at)?))
}

impl<B: Bus> Cpu<B> {
    /// #UD in real mode, where there are no descriptors.
    fn require_protected(&self) -> Result<(), Fault> {
        if self.protected() { Ok(()) } else { Err(Fault::UD) }
    }

    fn set_zero_flag(&mut self, on: bool) {
        const ZF: u64 = 1 << 6;
        self.set_rflags(if on { ZF } else { 0 }, ZF);
    }
}
