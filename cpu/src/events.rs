//! What an instruction leaves behind for the run loop and for the bus: attention, drains, changed rights and code.

use crate::{
    Bus, Cpu, DrainKind, FlushKind,
    registers::{ACCESS_LONG, CR0_AM, CR0_PE, CS, EFER_LMA, RFLAGS_AC},
    tlb::Privilege,
};

/// Bytes of one granule of a page's decoded-code map.
pub(crate) const GRANULE: usize = 128;

impl<B: Bus> Cpu<B> {
    /// Whether IA-32e mode is active.
    #[inline(always)]
    pub(crate) fn long_mode(&self) -> bool {
        self.state.efer & EFER_LMA != 0
    }

    /// Whether the code segment is a 64-bit one.
    #[inline(always)]
    pub(crate) fn long_code(&self) -> bool {
        self.long_mode() && self.state.segments[CS].access & ACCESS_LONG != 0
    }

    /// Whether protected mode is on.
    pub(crate) fn protected(&self) -> bool {
        self.state.cr0 & CR0_PE != 0
    }

    /// Follows a change of CPL or RFLAGS.AC.
    pub(crate) fn privilege_changed(&mut self) {
        self.privilege = if self.protected() && self.state.cpl() == 3 {
            let checked = self.state.rflags & RFLAGS_AC != 0 && self.state.cr0 & CR0_AM != 0;
            if checked { Privilege::UserAligned } else { Privilege::User }
        } else if self.state.rflags & RFLAGS_AC != 0 {
            Privilege::SupervisorUserAllowed
        } else {
            Privilege::Supervisor
        };
        if self.leaves_at_user && self.privilege.is_user() {
            self.paused = true;
            self.boundary = true;
        }
        self.code_segment_changed();
    }

    /// How many iterations a REP may still retire before the run loop must look again, the current one included.
    /// At least 1 when a handler starts.
    #[inline]
    pub(crate) fn rep_budget(&self) -> u64 {
        if self.boundary { 0 } else { self.limit.saturating_sub(self.state.retired) }
    }

    /// Counts `n` iterations of a REP beyond the one that the run loop counts when a handler returns `Ok`.
    #[inline]
    pub(crate) fn retire_iterations(&mut self, n: u64) {
        self.state.retired += n;
    }

    /// Tells a drain.
    pub(crate) fn drain(&mut self, bus: &mut B, kind: DrainKind) {
        self.state.drain_pending = false;
        let view = self.view();
        bus.drain(&view, kind);
        self.look_for_attention(bus);
    }

    /// Tells the drain of a serialising instruction, if there is something to drain.
    pub(crate) fn drain_serialising(&mut self, bus: &mut B) {
        if self.state.drain_pending {
            self.drain(bus, DrainKind::Serialising);
        }
    }

    /// Tells the drain of an uncached access, if there is something to drain.
    pub(crate) fn drain_uncached(&mut self, bus: &mut B) {
        if self.state.drain_pending {
            self.drain(bus, DrainKind::Uncached);
        }
    }

    /// Tells that an interrupt or exception empties the store buffer, if somebody wants to know.
    pub(crate) fn tell_stores_visible(&mut self, bus: &mut B) {
        if self.store_buffer_told && self.state.drain_pending {
            let view = self.view();
            bus.stores_visible(&view);
            self.look_for_attention(bus);
        }
    }

    /// Tells the flush of a line of persistent memory.
    pub(crate) fn pmem_flushed(&mut self, bus: &mut B, line: u64, kind: FlushKind) {
        self.state.drain_pending = true;
        let view = self.view();
        bus.pmem_flush(&view, line, kind);
        self.look_for_attention(bus);
    }

    /// Ends the block after this instruction if the bus wants attention.
    pub(crate) fn look_for_attention(&mut self, bus: &B) {
        if bus.attention() {
            self.boundary = true;
        }
    }

    /// A device, MSR or CR8 was accessed: interrupts and attention are to be asked for.
    pub(crate) fn device_accessed(&mut self) {
        self.boundary = true;
        self.interrupt_check = true;
    }

    /// Bytes of a page changed: blocks decoded from them are dropped before the next instruction.
    pub(crate) fn code_written(&mut self, frame: u64, offset: usize, len: usize) {
        let Some(&decoded) = self.code_pages.get(&frame) else { return };
        let written = granules(offset, len);
        if decoded & written != 0 {
            self.stale_code.push((frame, written));
            self.boundary = true;
        }
    }
}

/// The granules of a page that `len` bytes (at least 1) from `offset` touch, one bit each.
pub(crate) fn granules(offset: usize, len: usize) -> u32 {
    let first = offset / GRANULE;
    let last = (offset + len - 1).min(0xfff) / GRANULE;
    (u32::MAX >> (31 - (last - first))) << first
}
