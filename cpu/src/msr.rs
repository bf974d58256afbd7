//! Model-specific registers. SDM vol. 4, chapter 2.

use iced_x86::Mnemonic;

use crate::{Bus, Cpu, Fault, op::Op, paging::is_canonical, registers::*, system::full};

const TIME_STAMP_COUNTER: u32 = 0x10;
const PLATFORM_ID: u32 = 0x17;
const BIOS_SIGN_ID: u32 = 0x8b;
const MTRRCAP: u32 = 0xfe;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;
const MISC_ENABLE: u32 = 0x1a0;
const DEBUGCTL: u32 = 0x1d9;
const PAT: u32 = 0x277;
const MTRR_DEF_TYPE: u32 = 0x2ff;
const TSC_DEADLINE: u32 = 0x6e0;
const X2APIC: std::ops::Range<u32> = 0x800..0x900;
const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const FMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TSC_AUX: u32 = 0xc000_0103;

/// Eight variable ranges, fixed ranges, write-combining.
const MTRRCAP_VALUE: u64 = 0x508;

/// RDMSR
pub(crate) fn rdmsr<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, _: &Op<B>) -> Result<(), Fault> {
    cpu.require_cpl0()?;
    let value = cpu.read_any_msr(bus, cpu.state.regs[1] as u32).ok_or(Fault::GP0)?;
    cpu.state.regs[0] = value & 0xffff_ffff;
    cpu.state.regs[2] = value >> 32;
    Ok(())
}

/// WRMSR
pub(crate) fn wrmsr<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, _: &Op<B>) -> Result<(), Fault> {
    cpu.require_cpl0()?;
    let msr = cpu.state.regs[1] as u32;
    let value = cpu.state.regs[0] & 0xffff_ffff | cpu.state.regs[2] << 32;
    cpu.write_any_msr(bus, msr, value)?;
    if msr != TSC_DEADLINE && !X2APIC.contains(&msr) {
        cpu.drain_serialising(bus);
    }
    Ok(())
}

/// RDFSBASE, RDGSBASE
pub(crate) fn read_base<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let index = cpu.base_instruction(i.mnemonic() == Mnemonic::Rdfsbase)?;
    let base = cpu.state.segments[index].base;
    cpu.set_gpr(i.op0_register(), base);
    Ok(())
}

/// WRFSBASE, WRGSBASE
pub(crate) fn write_base<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let index = cpu.base_instruction(i.mnemonic() == Mnemonic::Wrfsbase)?;
    let register = i.op0_register();
    let value = cpu.state.regs[register.number()];
    let value = if register.size() == 4 { value & 0xffff_ffff } else { value };
    if !is_canonical(value) {
        return Err(Fault::GP0);
    }
    cpu.state.segments[index].base = value;
    Ok(())
}

/// SWAPGS
pub(crate) fn swapgs<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    if !cpu.long_code() {
        return Err(Fault::UD);
    }
    cpu.require_cpl0()?;
    std::mem::swap(&mut cpu.state.segments[GS].base, &mut cpu.state.kernel_gs_base);
    Ok(())
}

impl<B: Bus> Cpu<B> {
    fn base_instruction(&self, is_fs: bool) -> Result<usize, Fault> {
        if self.state.cr4 & CR4_FSGSBASE == 0 || !self.long_code() {
            return Err(Fault::UD);
        }
        Ok(if is_fs { FS } else { GS })
    }

    /// What RDMSR of `msr` reads, in the core or on the bus; `None` where it raises #GP.
    pub(crate) fn read_any_msr(&mut self, bus: &mut B, msr: u32) -> Option<u64> {
        if let Some(value) = self.read_own_msr(msr) {
            return Some(value);
        }
        let view = self.view();
        let value = bus.read_msr(&view, msr);
        self.device_accessed();
        let value = value?;
        let deadline = msr == TSC_DEADLINE && value != 0;
        Some(if deadline { self.state.model.ticks(value).wrapping_add(self.state.tsc_adjust) } else { value })
    }

    /// What WRMSR does to `msr`, in the core or on the bus, but for the drain.
    pub(crate) fn write_any_msr(&mut self, bus: &mut B, msr: u32, value: u64) -> Result<(), Fault> {
        if self.write_own_msr(msr, value)? {
            return Ok(());
        }
        let view = self.view();
        let told = if msr == TSC_DEADLINE { self.deadline_in_time(value) } else { value };
        let written = bus.write_msr(&view, msr, told);
        self.device_accessed();
        written.ok_or(Fault::GP0)
    }

    /// When the TSC will be `deadline`. Zero, which disarms, stays zero; one that lies before time began is 1.
    fn deadline_in_time(&self, deadline: u64) -> u64 {
        if deadline == 0 {
            return 0;
        }
        let ticks = i128::from(deadline) - i128::from(self.state.tsc_adjust.cast_signed());
        self.state.model.time(ticks.clamp(1, i128::from(u64::MAX)) as u64).max(1)
    }

    fn read_own_msr(&self, msr: u32) -> Option<u64> {
        let state = &self.state;
        Some(match msr {
            TIME_STAMP_COUNTER => state.tsc(),
            PLATFORM_ID => 0,
            MTRRCAP => MTRRCAP_VALUE,
            SYSENTER_CS..=SYSENTER_EIP => state.sysenter[(msr - SYSENTER_CS) as usize],
            PAT => state.pat,
            EFER => state.efer,
            STAR => state.star,
            LSTAR => state.lstar,
            CSTAR => state.cstar,
            FMASK => state.fmask,
            FS_BASE => state.segments[FS].base,
            GS_BASE => state.segments[GS].base,
            KERNEL_GS_BASE => state.kernel_gs_base,
            TSC_AUX => state.tsc_aux,
            _ if let Some(value) = self.read_machine_check(msr) => value,
            _ => {
                let initial = initial_kept(msr)?;
                match state.kept_msrs.binary_search_by_key(&msr, |(number, _)| *number) {
                    Ok(at) => state.kept_msrs[at].1,
                    Err(_) => initial,
                }
            }
        })
    }

    /// False: not a register of the core.
    fn write_own_msr(&mut self, msr: u32, value: u64) -> Result<bool, Fault> {
        let address = || if is_canonical(value) { Ok(value) } else { Err(Fault::GP0) };
        let low_half = || if value >> 32 == 0 { Ok(value) } else { Err(Fault::GP0) };
        match msr {
            TIME_STAMP_COUNTER => {
                self.state.tsc_adjust = value.wrapping_sub(self.state.model.ticks(self.state.time()));
            }
            PLATFORM_ID | MTRRCAP => return Err(Fault::GP0),
            SYSENTER_CS => self.state.sysenter[0] = value,
            SYSENTER_ESP | SYSENTER_EIP => self.state.sysenter[(msr - SYSENTER_CS) as usize] = address()?,
            PAT => self.write_pat(value)?,
            EFER => self.write_efer(value)?,
            STAR => self.state.star = value,
            LSTAR => self.state.lstar = address()?,
            CSTAR => self.state.cstar = address()?,
            FMASK => self.state.fmask = low_half()?,
            FS_BASE => self.state.segments[FS].base = address()?,
            GS_BASE => self.state.segments[GS].base = address()?,
            KERNEL_GS_BASE => self.state.kernel_gs_base = address()?,
            TSC_AUX => self.state.tsc_aux = low_half()?,
            _ if initial_kept(msr).is_some() => self.keep_msr(msr, value),
            _ => return self.write_machine_check(msr, value),
        }
        Ok(true)
    }

    pub(crate) fn keep_msr(&mut self, msr: u32, value: u64) {
        // Writing BIOS_SIGN_ID asks for the microcode revision, which stays what it is.
        let value = if msr == BIOS_SIGN_ID { initial_kept(msr).unwrap_or(0) } else { value };
        match self.state.kept_msrs.binary_search_by_key(&msr, |(number, _)| *number) {
            Ok(at) => self.state.kept_msrs[at].1 = value,
            Err(at) => self.state.kept_msrs.insert(at, (msr, value)),
        }
    }

    fn write_pat(&mut self, value: u64) -> Result<(), Fault> {
        let known = value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7));
        if !known {
            return Err(Fault::GP0);
        }
        self.state.pat = value;
        Ok(())
    }

    fn write_efer(&mut self, value: u64) -> Result<(), Fault> {
        let writable = EFER_SCE | EFER_LME | EFER_NXE;
        let changed = self.state.efer ^ value;
        let lme_while_paging = changed & EFER_LME != 0 && self.state.cr0 & CR0_PG != 0;
        if value & !(writable | EFER_LMA) != 0 || lme_while_paging {
            return Err(Fault::GP0);
        }
        self.state.efer = self.state.efer & EFER_LMA | value & writable;
        if changed & EFER_NXE != 0 {
            self.flush_tlb();
            self.boundary = true;
        }
        Ok(())
    }
}

/// What a register that is only kept reads as before it is first written; `None` for all other registers.
///
/// The MTRRs stand as firmware leaves them: write-back by default, uncached at 640 KiB to 768 KiB. Memory types change
/// nothing in this machine.
fn initial_kept(msr: u32) -> Option<u64> {
    Some(match msr {
        BIOS_SIGN_ID => 1 << 32,
        MISC_ENABLE => 1,
        DEBUGCTL => 0,
        MTRR_DEF_TYPE => 0xc06,
        0x200..=0x20f => 0,
        0x250 | 0x258 | 0x268..=0x26f => 0x0606_0606_0606_0606,
        0x259 => 0,
        _ => return None,
    })
}
