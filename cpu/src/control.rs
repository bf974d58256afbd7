//! Control registers. SDM vol. 3, section 2.5.

use iced_x86::{OpKind, Register};

use crate::{Bus, Cpu, Fault, op::Op, paging::PHYSICAL_BITS, registers::*, system::full};

/// MOV from CR
pub(crate) fn read_control<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    cpu.require_cpl0()?;
    let value = match i.op1_register() {
        Register::CR0 => cpu.state.cr0,
        Register::CR2 => cpu.state.cr2,
        Register::CR3 => cpu.state.cr3,
        Register::CR4 => cpu.state.cr4,
        Register::CR8 => bus.read_cr8(),
        _ => return Err(Fault::UD),
    };
    cpu.set_gpr(i.op0_register(), value);
    Ok(())
}

/// MOV to CR
pub(crate) fn write_control<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    cpu.require_cpl0()?;
    let register = i.op0_register();
    let mut value = cpu.state.regs[i.op1_register().number()];
    if i.op1_register().size() == 4 {
        value &= 0xffff_ffff;
    }
    match register {
        Register::CR0 => cpu.write_cr0(value)?,
        Register::CR2 => cpu.state.cr2 = value,
        Register::CR3 => cpu.write_cr3(value)?,
        Register::CR4 => cpu.write_cr4(value)?,
        Register::CR8 => return cpu.write_cr8(bus, value),
        _ => return Err(Fault::UD),
    }
    cpu.boundary = true;
    cpu.drain_serialising(bus);
    Ok(())
}

/// INVLPG
pub(crate) fn invlpg<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    cpu.require_cpl0()?;
    let linear = cpu.operand_address(full(op)?, 0);
    cpu.tlb.flush_page(linear);
    cpu.boundary = true;
    cpu.drain_serialising(bus);
    Ok(())
}

/// CLTS
pub(crate) fn clts<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    cpu.require_cpl0()?;
    cpu.state.cr0 &= !CR0_TS;
    Ok(())
}

/// LMSW: sets PE, MP, EM, TS; cannot clear PE.
pub(crate) fn lmsw<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    cpu.require_cpl0()?;
    let i = full(op)?;
    let word = if i.op0_kind() == OpKind::Register {
        cpu.state.regs[i.op0_register().number()]
    } else {
        let at = cpu.operand_address(i, 0);
        u64::from(u16::from_le_bytes(cpu.read(bus, at)?))
    };
    let kept = cpu.state.cr0 & !0xe;
    cpu.write_cr0(kept | word & 0xf)?;
    cpu.boundary = true;
    Ok(())
}

/// SMSW
pub(crate) fn smsw<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    if i.op0_kind() == OpKind::Register {
        cpu.set_gpr(i.op0_register(), cpu.state.cr0);
        return Ok(());
    }
    let at = cpu.operand_address(i, 0);
    cpu.write(bus, at, (cpu.state.cr0 as u16).to_le_bytes())
}

impl<B: Bus> Cpu<B> {
    fn write_cr0(&mut self, value: u64) -> Result<(), Fault> {
        let paged = value & CR0_PG != 0;
        if value >> 32 != 0 || paged && value & CR0_PE == 0 || value & CR0_NW != 0 && value & CR0_CD == 0 {
            return Err(Fault::GP0);
        }
        let changed = self.state.cr0 ^ value;
        if changed & CR0_PG != 0 {
            if paged { self.enable_paging()? } else { self.disable_paging()? }
        }
        self.state.cr0 = value & CR0_DEFINED | CR0_ET;
        if changed & (CR0_PG | CR0_WP | CR0_PE) != 0 {
            self.flush_tlb();
        }
        self.privilege_changed();
        Ok(())
    }

    fn enable_paging(&mut self) -> Result<(), Fault> {
        if self.state.efer & EFER_LME == 0 {
            self.unsupported = Some("32-bit paging");
            return Err(Fault::UD);
        }
        if self.state.cr4 & CR4_PAE == 0 || self.state.segments[CS].access & ACCESS_LONG != 0 {
            return Err(Fault::GP0);
        }
        self.state.efer |= EFER_LMA;
        Ok(())
    }

    fn disable_paging(&mut self) -> Result<(), Fault> {
        if self.long_code() {
            return Err(Fault::GP0);
        }
        self.state.efer &= !EFER_LMA;
        Ok(())
    }

    fn write_cr3(&mut self, value: u64) -> Result<(), Fault> {
        if value >> PHYSICAL_BITS != 0 {
            return Err(Fault::GP0);
        }
        self.state.cr3 = value;
        self.tlb.flush_not_global();
        Ok(())
    }

    fn write_cr4(&mut self, value: u64) -> Result<(), Fault> {
        if value & !CR4_DEFINED != 0 || self.long_mode() && value & CR4_PAE == 0 {
            return Err(Fault::GP0);
        }
        let changed = self.state.cr4 ^ value;
        self.state.cr4 = value;
        const CR4_PSE: u64 = 1 << 4;
        if changed & (CR4_PGE | CR4_PAE | CR4_PSE | CR4_SMEP | CR4_SMAP) != 0 {
            self.flush_tlb();
        }
        Ok(())
    }

    fn write_cr8(&mut self, bus: &mut B, value: u64) -> Result<(), Fault> {
        if value > 15 {
            return Err(Fault::GP0);
        }
        let view = self.view();
        bus.write_cr8(&view, value);
        self.device_accessed();
        Ok(())
    }
}
