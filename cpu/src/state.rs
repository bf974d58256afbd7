//! The architectural state of one processor: everything a snapshot of it holds.

use serde::{Deserialize, Serialize};

use crate::Model;

/// Index of the pseudo-register that is always 0 in [`State::regs`].
pub const REG_ZERO: usize = 16;
/// Index of RIP in [`State::regs`]. While an instruction executes it already points behind it.
pub const REG_RIP: usize = 17;

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Visible selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Access rights as in bytes 5 and 6 of the descriptor: type, S, DPL, P in bits 0-7, AVL, L, D/B, G in 12-15.
    pub access: u16,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// The x87 unit. SDM vol. 1, chapter 8. MMX registers are the significands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct X87 {
    /// Physical registers R0-R7 (not the stack order): 80 bits each, bit 79 the sign.
    pub regs: [u128; 8],
    /// Control word.
    pub control: u16,
    /// Status word with TOP in bits 11-13.
    pub status: u16,
    /// Bit n set: register Rn is not empty (the abridged tag word of FXSAVE).
    pub tags: u8,
    /// Last instruction's opcode, 11 bits.
    pub opcode: u16,
    /// Last instruction pointer.
    pub ip: u64,
    /// Last data pointer.
    pub dp: u64,
}

impl Default for X87 {
    fn default() -> Self {
        X87 { regs: [0; 8], control: 0x37f, status: 0, tags: 0, opcode: 0, ip: 0, dp: 0 }
    }
}

/// Everything software can see of one processor, and what it takes to go on from here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8-R15, then [`REG_ZERO`] and [`REG_RIP`].
    pub regs: [u64; 18],
    /// RFLAGS. While instructions run, the arithmetic flags may live in the lazy form instead; [`crate::Cpu::state`]
    /// always shows them folded in.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS in the encoding's order.
    pub segments: [Segment; 6],
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table register.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table register.
    pub idtr: TableRegister,
    /// CR0
    pub cr0: u64,
    /// CR2
    pub cr2: u64,
    /// CR3
    pub cr3: u64,
    /// CR4
    pub cr4: u64,
    /// The page-directory-pointer-table entries that PAE paging keeps in registers (SDM vol. 3, 4.4.1).
    pub page_pointers: [u64; 4],
    /// DR0-DR7 (4 and 5 unused).
    pub dr: [u64; 8],
    /// IA32_EFER
    pub efer: u64,
    /// IA32_STAR
    pub star: u64,
    /// IA32_LSTAR
    pub lstar: u64,
    /// IA32_CSTAR
    pub cstar: u64,
    /// IA32_FMASK
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS, _ESP, _EIP
    pub sysenter: [u64; 3],
    /// IA32_PAT
    pub pat: u64,
    /// IA32_TSC_AUX
    pub tsc_aux: u64,
    /// MTRRs and other registers that are only kept: (number, value), sorted by number.
    pub kept_msrs: Vec<(u32, u64)>,
    /// XMM0-XMM15
    pub xmm: [u128; 16],
    /// MXCSR
    pub mxcsr: u32,
    /// The x87 unit.
    pub x87: X87,
    /// Retired instructions: one REP iteration counts one.
    pub retired: u64,
    /// Time of the machine minus `retired`: grows when a halted machine jumps to its next timer, and by what other
    /// processors retire while this one does not execute.
    pub tsc_offset: u64,
    /// TSC minus time of the machine in its ticks: what WRMSR to the TSC changes, as IA32_TSC_ADJUST counts it.
    pub tsc_adjust: u64,
    /// In HLT.
    pub halted: bool,
    /// Waits for a start-up message: after INIT, and at power-on unless it is the bootstrap processor. `halted` is
    /// set, too.
    pub waits_for_start_up: bool,
    /// Shadow of STI or MOV SS: no interrupt is taken before the next instruction has retired.
    pub interrupt_shadow: bool,
    /// The shadow is that of MOV SS or POP SS: debug exceptions wait, too.
    pub stack_shadow: bool,
    /// Bits of DR6 for the debug traps that wait for the boundary behind the instruction that caused them.
    pub debug_traps: u64,
    /// A non-maskable interrupt waits.
    pub nmi_pending: bool,
    /// A non-maskable interrupt has been taken and IRET has not been executed since: the next one waits.
    pub nmi_blocked: bool,
    /// What CPUID tells.
    pub model: Model,
    /// State of the RDRAND generator.
    pub random: u64,
    /// This processor's index.
    pub vcpu: u8,
    /// Whether a drain would have something to drain: see [`crate::Bus::drain`].
    pub drain_pending: bool,
    /// The run ended before the instruction at RIP because [`crate::Bus::probe`] was told of it and asked for
    /// attention: it is not told again.
    pub probe_told: bool,
    /// The run ended between two iterations of the REP instruction at RIP, after this many retired instructions:
    /// executed next, it goes on with the same execution. An interrupt or exception between them ends that one.
    pub rep_paused_at: Option<u64>,
}

impl State {
    /// What RESET leaves (SDM vol. 3, table 9-1).
    pub(crate) fn reset(vcpu: u8, seed: u64) -> State {
        let data = Segment { selector: 0, base: 0, limit: 0xffff, access: 0x93 };
        let mut regs = [0; 18];
        regs[REG_RIP] = 0xfff0;
        regs[2] = 0x5_0654;
        let mut segments = [data; 6];
        segments[1] = Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, access: 0x9b };
        let mut dr = [0; 8];
        dr[6] = 0xffff_0ff0;
        dr[7] = 0x400;
        State {
            regs,
            rflags: 2,
            segments,
            ldtr: Segment { access: 0x82, limit: 0xffff, ..Segment::default() },
            tr: Segment { access: 0x8b, limit: 0xffff, ..Segment::default() },
            gdtr: TableRegister { base: 0, limit: 0xffff },
            idtr: TableRegister { base: 0, limit: 0xffff },
            cr0: 0x6000_0010,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            page_pointers: [0; 4],
            dr,
            efer: 0,
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            sysenter: [0; 3],
            pat: 0x0007_0406_0007_0406,
            tsc_aux: 0,
            kept_msrs: Vec::new(),
            xmm: [0; 16],
            mxcsr: 0x1f80,
            x87: X87 { control: 0x40, ..X87::default() },
            retired: 0,
            tsc_offset: 0,
            tsc_adjust: 0,
            halted: false,
            waits_for_start_up: false,
            interrupt_shadow: false,
            stack_shadow: false,
            debug_traps: 0,
            nmi_pending: false,
            nmi_blocked: false,
            model: Model::default(),
            random: seed,
            vcpu,
            drain_pending: false,
            probe_told: false,
            rep_paused_at: None,
        }
    }

    /// Time of the machine in nanoseconds: one for each instruction that a processor retired, and what halting skipped.
    /// Current for the selected processor, see [`crate::Cpu::select`].
    pub fn time(&self) -> u64 {
        self.retired.wrapping_add(self.tsc_offset)
    }

    /// Time stamp counter: [`State::time`] in its ticks, and what the guest added.
    pub fn tsc(&self) -> u64 {
        self.model.ticks(self.time()).wrapping_add(self.tsc_adjust)
    }

    /// Current privilege level: the DPL of the stack segment, as in SDM vol. 3, 24.4.1. The low bits of CS are the same
    /// but in real mode and between switching it off and the far jump that follows.
    pub fn cpl(&self) -> u8 {
        (self.segments[2].access >> 5 & 3) as u8
    }

    /// RIP.
    pub fn rip(&self) -> u64 {
        self.regs[REG_RIP]
    }
}
