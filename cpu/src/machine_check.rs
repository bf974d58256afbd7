//! Machine checks: what loads of persistent memory raise whose content the media has lost. SDM vol. 3, chapters 16 and 17.
//!
//! Such a load is a recoverable error for which action is required (SRAR, 16.6.3): #MC is raised instead of the
//! instruction, and the one bank tells the guest-physical address of the line. It reaches the processor that loads, and no
//! other (local machine checks, 16.3.1.5). Nothing that was correct is ever reported.
//!
//! Processors without [`crate::Model::machine_checks`] have neither the registers nor the exception.

use crate::{Bus, Cpu, Exit, Fault};

const FEATURE_CONTROL: u32 = 0x3a;
const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MC0_CTL: u32 = 0x400;
const MC0_STATUS: u32 = 0x401;
const MC0_ADDR: u32 = 0x402;
const MC0_MISC: u32 = 0x403;
const MCG_EXT_CTL: u32 = 0x4d0;

/// IA32_FEATURE_CONTROL: locked, local machine checks may be enabled.
const FEATURE_CONTROL_VALUE: u64 = 1 | 1 << 20;
/// IA32_MCG_CAP: one bank, software error recovery, local machine checks.
const MCG_CAP_VALUE: u64 = 1 | 1 << 24 | 1 << 27;
/// IA32_MCG_EXT_CTL: machine checks are local.
const LOCAL_ENABLED: u64 = 1;

/// IA32_MCG_STATUS: the saved RIP is one to go on from, it is that of the error, a machine check is in progress.
const IN_PROGRESS: u64 = 1 << 2;
const RESTARTABLE: u64 = 1 << 0 | 1 << 1 | IN_PROGRESS;
/// IA32_MCG_STATUS: only this processor was told.
const IS_LOCAL: u64 = 1 << 3;

/// IA32_MCi_STATUS
const VALID: u64 = 1 << 63;
const OVERFLOW: u64 = 1 << 62;
const UNCORRECTED: u64 = 1 << 61;
const ENABLED: u64 = 1 << 60;
const MISC_VALID: u64 = 1 << 59;
const ADDRESS_VALID: u64 = 1 << 58;
const CONTEXT_CORRUPT: u64 = 1 << 57;
const SIGNALED: u64 = 1 << 56;
const ACTION_REQUIRED: u64 = 1 << 55;
/// IA32_MCi_MISC: the address is physical, and that of a line.
const PHYSICAL_LINE: u64 = 2 << 6 | 6;

/// What a poisoned line was wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Data,
    Instruction,
}

impl Wanted {
    /// Error code of the cache hierarchy (table 16-19).
    fn code(self) -> u64 {
        match self {
            Wanted::Data => 0x134,
            Wanted::Instruction => 0x150,
        }
    }
}

/// A poisoned byte that an instruction wanted: its guest-physical address, and what for.
pub(crate) type Lost = (u64, Wanted);

impl<B: Bus> Cpu<B> {
    /// The fault of an instruction that wants a poisoned byte.
    #[cold]
    pub(crate) fn machine_check(&mut self, physical: u64, wanted: Wanted) -> Fault {
        self.lost = Some((physical, wanted));
        Fault::MC
    }

    /// Puts a machine check that is about to be raised into the registers. Where it cannot be raised the processor shuts
    /// down (16.2, SDM vol. 3, 6.15): CR4.MCE is clear, or another one is in progress.
    pub(crate) fn log_machine_check(&mut self) -> Result<(), Exit> {
        let lost = self.lost.take();
        let status = self.machine_check_register(MCG_STATUS);
        let enabled = self.state.cr4 & crate::registers::CR4_MCE != 0;
        if !self.state.model.machine_checks || !enabled || status & IN_PROGRESS != 0 {
            return Err(Exit::Shutdown);
        }
        let before = self.machine_check_register(MC0_STATUS);
        let overflow = if before & VALID != 0 { OVERFLOW } else { 0 };
        let log = match lost {
            Some((_, wanted)) => ADDRESS_VALID | MISC_VALID | SIGNALED | ACTION_REQUIRED | wanted.code(),
            // A page walk: no instruction can be restarted that went this way.
            None => CONTEXT_CORRUPT | Wanted::Data.code(),
        };
        self.keep_msr(MC0_STATUS, VALID | UNCORRECTED | ENABLED | overflow | log);
        if let Some((physical, _)) = lost {
            self.keep_msr(MC0_ADDR, physical & !63);
            self.keep_msr(MC0_MISC, PHYSICAL_LINE);
        }
        let local = self.machine_check_register(MCG_EXT_CTL) & LOCAL_ENABLED != 0;
        self.keep_msr(MCG_STATUS, RESTARTABLE | if local { IS_LOCAL } else { 0 });
        Ok(())
    }

    fn machine_check_register(&self, msr: u32) -> u64 {
        let kept = &self.state.kept_msrs;
        kept.binary_search_by_key(&msr, |(number, _)| *number).map_or(0, |at| kept[at].1)
    }

    /// What RDMSR of one of the registers reads; `None` where there is none.
    pub(crate) fn read_machine_check(&self, msr: u32) -> Option<u64> {
        match msr {
            _ if !self.state.model.machine_checks => None,
            FEATURE_CONTROL => Some(FEATURE_CONTROL_VALUE),
            MCG_CAP => Some(MCG_CAP_VALUE),
            MCG_STATUS | MC0_CTL..=MC0_MISC | MCG_EXT_CTL => Some(self.machine_check_register(msr)),
            _ => None,
        }
    }

    /// What WRMSR to one of the registers does; false where there is none.
    pub(crate) fn write_machine_check(&mut self, msr: u32, value: u64) -> Result<bool, Fault> {
        match msr {
            _ if !self.state.model.machine_checks => return Ok(false),
            FEATURE_CONTROL | MCG_CAP => return Err(Fault::GP0),
            // 16.3.2.2: software may clear what a bank holds, and nothing else.
            MC0_STATUS | MC0_ADDR | MC0_MISC if value != 0 => return Err(Fault::GP0),
            MCG_EXT_CTL if value & !LOCAL_ENABLED != 0 => return Err(Fault::GP0),
            MCG_STATUS | MC0_CTL..=MC0_MISC | MCG_EXT_CTL => self.keep_msr(msr, value),
            _ => return Ok(false),
        }
        Ok(true)
    }
}
