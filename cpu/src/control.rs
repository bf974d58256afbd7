//! Control registers. SDM vol. 3, section 2.5.

use iced_x86::{OpKind, Register};

use crate::{Bus, Cpu, Fault, State, op::Op, paging::PHYSICAL_BITS, registers::*, system::full};

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
        Register::CR0 => cpu.write_cr0(bus, value)?,
        Register::CR2 => cpu.state.cr2 = value,
        Register::CR3 => cpu.write_cr3(bus, value)?,
        Register::CR4 => cpu.write_cr4(bus, value)?,
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
    cpu.write_cr0(bus, kept | word & 0xf)?;
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
    fn write_cr0(&mut self, bus: &mut B, value: u64) -> Result<(), Fault> {
        let paged = value & CR0_PG != 0;
        if value >> 32 != 0 || paged && value & CR0_PE == 0 || value & CR0_NW != 0 && value & CR0_CD == 0 {
            return Err(Fault::GP0);
        }
        let changed = self.state.cr0 ^ value;
        let long = paged && self.state.efer & EFER_LME != 0;
        if changed & CR0_PG != 0 {
            self.check_paging_switch(paged, long)?;
        }
        let State { cr3, cr4, efer, .. } = self.state;
        if changed & (CR0_PG | CR0_CD | CR0_NW) != 0 && Self::is_pae_paging(value, cr4, efer) {
            self.state.page_pointers = self.read_page_pointers(bus, cr3)?;
        }
        self.state.efer = efer & !EFER_LMA | if long { EFER_LMA } else { 0 };
        self.state.cr0 = value & CR0_DEFINED | CR0_ET;
        if changed & (CR0_PG | CR0_WP | CR0_PE) != 0 {
            self.flush_tlb();
        }
        self.privilege_changed();
        Ok(())
    }

    /// Paging goes on or off only outside of 64-bit mode; long mode needs PAE and a task register that fits.
    fn check_paging_switch(&self, on: bool, long: bool) -> Result<(), Fault> {
        let state = &self.state;
        let has_narrow_task = state.tr.access & 0x1f == 3;
        let refused = if on {
            long && (state.cr4 & CR4_PAE == 0
                || state.segments[CS].access & ACCESS_LONG != 0
                || has_narrow_task)
        } else {
            self.long_code()
        };
        if refused { Err(Fault::GP0) } else { Ok(()) }
    }

    fn write_cr3(&mut self, bus: &mut B, value: u64) -> Result<(), Fault> {
        if value >> PHYSICAL_BITS != 0 {
            return Err(Fault::GP0);
        }
        let State { cr0, cr4, efer, .. } = self.state;
        if Self::is_pae_paging(cr0, cr4, efer) {
            self.state.page_pointers = self.read_page_pointers(bus, value)?;
        }
        self.state.cr3 = value;
        self.tlb.flush_not_global();
        Ok(())
    }

    fn write_cr4(&mut self, bus: &mut B, value: u64) -> Result<(), Fault> {
        if value & !CR4_DEFINED != 0 || self.long_mode() && value & CR4_PAE == 0 {
            return Err(Fault::GP0);
        }
        let changed = self.state.cr4 ^ value;
        let State { cr0, cr3, efer, .. } = self.state;
        let reloads = changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP) != 0;
        if reloads && Self::is_pae_paging(cr0, value, efer) {
            self.state.page_pointers = self.read_page_pointers(bus, cr3)?;
        }
        self.state.cr4 = value;
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
