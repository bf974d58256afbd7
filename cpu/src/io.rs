//! IN, OUT, INS and OUTS. SDM vol. 1, chapter 19.

use iced_x86::{Instruction, OpKind};

use crate::{
    Bus, Cpu, Fault, debug::between_iterations, op::Op, registers::RFLAGS_DF, state::REG_RIP, system::full,
};

/// IN
pub(crate) fn input<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let size = i.op0_register().size();
    let port = port(cpu, i, 1);
    let value = cpu.port_read(bus, port, size)?;
    let mask = if size == 4 { u64::MAX } else { (1 << (size * 8)) - 1 };
    let kept = if size == 4 { 0 } else { cpu.state.regs[0] & !mask };
    cpu.state.regs[0] = kept | u64::from(value) & mask;
    Ok(())
}

/// OUT
pub(crate) fn output<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let port = port(cpu, i, 0);
    let size = i.op1_register().size();
    let value = cpu.state.regs[0] as u32 & low_bits(size);
    cpu.port_write(bus, port, size, value)
}

/// INS: one iteration a call, also under REP. Whether it may at all comes first, even if there is nothing to do.
pub(crate) fn input_string<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let size = i.memory_size().size();
    let port = cpu.state.regs[2] as u16;
    cpu.check_port(bus, port, size)?;
    if !begin_iteration(cpu, i, 0) {
        return Ok(());
    }
    let linear = cpu.element_address(i, 0, size as u64, true)?;
    cpu.check_writable(bus, linear, size)?;
    let bytes = cpu.port_read(bus, port, size)?.to_le_bytes();
    match size {
        1 => cpu.write(bus, linear, [bytes[0]])?,
        2 => cpu.write(bus, linear, [bytes[0], bytes[1]])?,
        _ => cpu.write(bus, linear, bytes)?,
    }
    end_iteration(cpu, i, 0, 7, size);
    Ok(())
}

/// OUTS: one iteration a call, also under REP.
pub(crate) fn output_string<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let size = i.memory_size().size();
    let port = cpu.state.regs[2] as u16;
    cpu.check_port(bus, port, size)?;
    if !begin_iteration(cpu, i, 1) {
        return Ok(());
    }
    let linear = cpu.element_address(i, 1, size as u64, false)?;
    let value = match size {
        1 => u32::from(cpu.read::<1>(bus, linear)?[0]),
        2 => u32::from(u16::from_le_bytes(cpu.read(bus, linear)?)),
        _ => u32::from_le_bytes(cpu.read(bus, linear)?),
    };
    cpu.port_write(bus, port, size, value)?;
    end_iteration(cpu, i, 1, 6, size);
    Ok(())
}

fn low_bits(size: usize) -> u32 {
    if size == 4 { u32::MAX } else { (1 << (size * 8)) - 1 }
}

fn port<B: Bus>(cpu: &Cpu<B>, i: &Instruction, operand: u32) -> u16 {
    if i.op_kind(operand) == OpKind::Immediate8 {
        u16::from(i.immediate8())
    } else {
        cpu.state.regs[2] as u16
    }
}

/// Registers of a string operand are as wide as the address.
fn address_mask(i: &Instruction, operand: u32) -> u64 {
    match i.op_kind(operand) {
        OpKind::MemorySegSI | OpKind::MemoryESDI => 0xffff,
        OpKind::MemorySegESI | OpKind::MemoryESEDI => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// False when a REP has nothing (more) to do.
fn begin_iteration<B: Bus>(cpu: &Cpu<B>, i: &Instruction, operand: u32) -> bool {
    !repeats(i) || cpu.state.regs[1] & address_mask(i, operand) != 0
}

fn repeats(i: &Instruction) -> bool {
    i.has_rep_prefix() || i.has_repne_prefix()
}

fn end_iteration<B: Bus>(cpu: &mut Cpu<B>, i: &Instruction, operand: u32, register: usize, size: usize) {
    let mask = address_mask(i, operand);
    let step = if cpu.state.rflags & RFLAGS_DF != 0 { (size as u64).wrapping_neg() } else { size as u64 };
    advance(cpu, register, step, mask);
    if repeats(i) {
        advance(cpu, 1, u64::MAX, mask);
        if cpu.state.regs[1] & mask != 0 {
            let len = i.len() as u64;
            cpu.state.regs[REG_RIP] = cpu.state.regs[REG_RIP].wrapping_sub(len);
            between_iterations(cpu);
        }
    }
}

fn advance<B: Bus>(cpu: &mut Cpu<B>, register: usize, by: u64, mask: u64) {
    let value = cpu.state.regs[register];
    let moved = value.wrapping_add(by) & mask;
    cpu.state.regs[register] = if mask == 0xffff { value & !mask | moved } else { moved };
}

impl<B: Bus> Cpu<B> {
    fn port_read(&mut self, bus: &mut B, port: u16, size: usize) -> Result<u32, Fault> {
        self.check_port(bus, port, size)?;
        if bus.port_drains(port) {
            self.drain_uncached(bus);
        }
        let view = self.view();
        let value = bus.port_read(&view, port, size);
        self.watch_port(port, size);
        self.device_accessed();
        Ok(value)
    }

    fn port_write(&mut self, bus: &mut B, port: u16, size: usize, value: u32) -> Result<(), Fault> {
        self.check_port(bus, port, size)?;
        if bus.port_drains(port) {
            self.drain_uncached(bus);
        }
        let view = self.view();
        bus.port_write(&view, port, size, value);
        self.watch_port(port, size);
        self.device_accessed();
        Ok(())
    }

    /// IOPL, or the permission bitmap of the TSS.
    fn check_port(&mut self, bus: &mut B, port: u16, size: usize) -> Result<(), Fault> {
        if !self.protected() || u64::from(self.state.cpl()) <= self.iopl() {
            return Ok(());
        }
        let (base, limit) = (self.state.tr.base, u64::from(self.state.tr.limit));
        // Only 32-bit and 64-bit task-state segments have a map: types 9 and 11.
        if self.state.tr.access & 8 == 0 || limit < 0x67 {
            return Err(Fault::GP0);
        }
        let map = u64::from(u16::from_le_bytes(self.read_system(bus, base.wrapping_add(0x66))?));
        let at = map + u64::from(port / 8);
        if at + 1 > limit {
            return Err(Fault::GP0);
        }
        let bits = u16::from_le_bytes(self.read_system(bus, base.wrapping_add(at))?) >> (port % 8);
        if bits & ((1 << size) - 1) == 0 { Ok(()) } else { Err(Fault::GP0) }
    }
}
