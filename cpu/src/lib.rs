//! A software x86-64 processor: decode, execute, translate addresses, take traps.
//!
//! It does no I/O, reads no host clock and knows no devices: all of that is behind [`Bus`].
//!
//! It starts in real mode and goes on to protected mode (without paging, with 32-bit or PAE paging) and to long mode
//! (64-bit and compatibility mode), and back. Not offered are virtual-8086 mode and task switches by hardware, through a
//! task gate, a far transfer to a task-state segment or an IRET with NT set: they end the run as
//! [`Exit::Unsupported`]. System management mode does not exist.

#![allow(unsafe_code)] // Guest memory is reached through host addresses that `Bus::page` vouches for.

mod access;
mod blocks;
mod bus;
mod call_gates;
mod control;
mod cpuid;
mod debug;
mod decode;
mod events;
mod far;
mod fast_calls;
mod fault;
mod flush;
mod integer;
mod interrupt_return;
mod io;
mod legacy;
mod legacy_traps;
mod machine_check;
mod model;
mod msr;
mod nmi;
mod op;
mod outside;
mod paging;
mod paging_legacy;
mod processors;
mod registers;
mod run;
mod segments;
mod sse;
mod stack;
mod state;
mod system;
mod tables;
mod task;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tlb;
mod traps;
mod undecided;
mod x87;

use blocks::CodeCache;
use rustc_hash::{FxHashMap, FxHashSet};

pub use bus::{Bus, CpuView, DECIDED, DrainKind, Exit, FlushKind, Page, StoreKind};
pub use fault::Fault;
use integer::LazyFlags;
pub use model::{Features, Model};
use processors::Parked;
pub use state::{REG_RIP, REG_ZERO, Segment, State, TableRegister, X87};
use tlb::{Privilege, Tlb};

/// The processors of a machine, of which one executes at a time.
pub struct Cpu<B: Bus> {
    pub(crate) state: State,
    /// The arithmetic flags: those in `state.rflags` are stale while instructions run.
    pub(crate) flags: LazyFlags,
    pub(crate) tlb: Tlb,
    /// Whose rights explicit accesses have: follows CPL and RFLAGS.AC.
    pub(crate) privilege: Privilege,
    /// Something waits to be looked at before the next instruction: the run loop leaves its block.
    pub(crate) boundary: bool,
    /// Retired count at which REP must pause and the run loop stop.
    pub(crate) limit: u64,
    /// Linear address of the instruction being executed.
    pub(crate) at: u64,
    /// The bus is to be asked for interrupts when they are next enabled.
    pub(crate) interrupt_check: bool,
    /// Why the instruction that just returned a fault cannot be executed at all.
    pub(crate) unsupported: Option<&'static str>,
    /// The poisoned byte for which the instruction that just returned [`Fault::MC`] did so.
    pub(crate) lost: Option<machine_check::Lost>,
    /// The fault just returned is for a non-canonical data address.
    pub(crate) not_canonical: bool,
    /// Pages whose content the bus was told of since the last [`Cpu::forget_writable`].
    pub(crate) dirtied: FxHashSet<u64>,
    /// Guest-physical pages with decoded instructions: which of their 32 granules of 128 bytes have some.
    pub(crate) code_pages: FxHashMap<u64, u32>,
    /// Granules of pages that were written and whose blocks are to be dropped.
    pub(crate) stale_code: Vec<(u64, u32)>,
    /// Decoded instructions. Empty while the run loop has them.
    pub(crate) code: CodeCache<B>,
    /// Whose rights fetches have: follows CPL.
    pub(crate) fetch_privilege: Privilege,
    /// The code segment is a 64-bit one.
    pub(crate) fetches_64_bit: bool,
    /// Linear addresses that the bus wants to hear of.
    pub(crate) probes: FxHashSet<u64>,
    /// The bus wants to know when stores to persistent memory leave the store buffer.
    pub(crate) store_buffer_told: bool,
    /// Which handlers newly decoded instructions get.
    pub(crate) handlers: decode::Handlers,
    /// Offsets in a page at which blocks begin, because of probes and of breakpoints on instructions.
    pub(crate) block_starts: FxHashSet<u16>,
    /// A debug register was written: blocks may have to begin elsewhere.
    pub(crate) breakpoints_changed: bool,
    /// Breakpoints on the next instruction do not count.
    pub(crate) breakpoints_suppressed: bool,
    /// The instruction being executed began with TF set, and nothing has taken that back yet.
    pub(crate) single_step: bool,
    /// Retired count when the last exception or interrupt was raised, and how many were since it began to stand still.
    pub(crate) last_raised_at: u64,
    pub(crate) raised_in_a_row: u32,
    /// The run loop came back from the way into a block without having executed or raised anything.
    pub(crate) not_begun: bool,
    /// The processors that do not execute now.
    pub(crate) parked: Vec<Parked>,
    /// A PAUSE was executed that other processors may make use of.
    pub(crate) paused: bool,
    /// The run ends when user mode begins.
    pub(crate) leaves_at_user: bool,
}

impl<B: Bus> Cpu<B> {
    /// So many processors (at least one) as RESET leaves them (SDM vol. 3, table 9-1), with the seed of their random
    /// numbers. Processor 0 is selected; the others wait for a start-up message.
    pub fn new(count: u8, seed: u64) -> Cpu<B> {
        let state = State::reset(0, seed);
        Cpu {
            flags: LazyFlags::load(state.rflags),
            state,
            tlb: Tlb::new(),
            privilege: Privilege::Supervisor,
            boundary: true,
            limit: 0,
            at: 0,
            interrupt_check: true,
            unsupported: None,
            lost: None,
            not_canonical: false,
            dirtied: FxHashSet::default(),
            code_pages: FxHashMap::default(),
            stale_code: Vec::new(),
            code: CodeCache::default(),
            fetch_privilege: Privilege::Supervisor,
            fetches_64_bit: false,
            probes: FxHashSet::default(),
            store_buffer_told: false,
            handlers: decode::Handlers::Fastest,
            block_starts: FxHashSet::default(),
            breakpoints_changed: false,
            breakpoints_suppressed: false,
            single_step: false,
            last_raised_at: 0,
            raised_in_a_row: 0,
            not_begun: false,
            parked: (1..count).map(|vcpu| Parked::new(vcpu, seed)).collect(),
            paused: false,
            leaves_at_user: false,
        }
    }

    /// The architectural state of the selected processor.
    pub fn state(&self) -> State {
        let mut state = self.state.clone();
        state.rflags = self.flags.fold(state.rflags);
        state
    }

    /// Replaces the architectural state of the selected processor; [`State::vcpu`] must be its own. Decoded
    /// instructions stay: they belong to memory, not to the processor.
    pub fn set_state(&mut self, state: State) {
        self.flags = LazyFlags::load(state.rflags);
        self.state = state;
        self.flush_tlb();
        self.state_replaced();
    }

    /// Follows a change of the whole state.
    fn state_replaced(&mut self) {
        self.boundary = true;
        self.unsupported = None;
        self.lost = None;
        self.raised_in_a_row = 0;
        self.privilege_changed();
    }

    /// Forgets all address translations of the selected processor.
    pub(crate) fn flush_tlb(&mut self) {
        self.tlb.flush();
    }

    /// Who, when and where.
    pub fn view(&self) -> CpuView {
        CpuView {
            vcpu: self.state.vcpu,
            cpl: self.state.cpl(),
            rip: self.code_linear(self.at),
            rsp: self.state.regs[4],
            retired: self.state.retired,
            tsc: self.state.time(),
        }
    }
}
