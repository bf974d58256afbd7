//! Several processors: one executes at a time, the others are parked.
//!
//! Decoded instructions belong to memory and are shared. What a processor has for itself is swapped with the parked
//! part of the one that is to execute next, its translations included, so that changing over flushes nothing. Pages
//! with decoded code are slow to store to for everybody: a processor that modifies code which another one executes
//! drops the decoded form as it would its own (SDM vol. 3, 9.1.3, asks for less).

use crate::{
    Bus, Cpu, State,
    integer::LazyFlags,
    registers::{CR0_CD, CR0_ET, CR0_NW, CS, RFLAGS_IF},
    state::REG_RIP,
    tlb::Tlb,
};

/// What a processor that does not execute has for itself.
pub(crate) struct Parked {
    state: State,
    flags: LazyFlags,
    tlb: Tlb,
}

impl Parked {
    /// An application processor at power-on: it waits to be started.
    pub fn new(vcpu: u8, seed: u64) -> Parked {
        let mut state = State::reset(vcpu, seed ^ u64::from(vcpu).wrapping_mul(0xd6e8_feb8_6659_fd93));
        state.halted = true;
        state.waits_for_start_up = true;
        Parked { flags: LazyFlags::load(state.rflags), state, tlb: Tlb::new() }
    }

    fn state(&self) -> State {
        State { rflags: self.flags.fold(self.state.rflags), ..self.state.clone() }
    }

    fn set_state(&mut self, state: State) {
        self.flags = LazyFlags::load(state.rflags);
        self.state = state;
        self.tlb.flush();
    }
}

impl<B: Bus> Cpu<B> {
    /// How many processors there are.
    pub fn processors(&self) -> u8 {
        self.parked.len() as u8 + 1
    }

    /// Index of the processor that [`Cpu::run`] lets execute.
    pub fn current(&self) -> u8 {
        self.state.vcpu
    }

    /// Makes another processor the one that executes. Its clock goes on from where this one's stands: there is one
    /// time for all of them. Nothing happens for the index of the current one, or of none.
    pub fn select(&mut self, vcpu: u8) {
        let Some(at) = self.parked.iter().position(|parked| parked.state.vcpu == vcpu) else { return };
        let time = self.state.time();
        let parked = &mut self.parked[at];
        std::mem::swap(&mut self.state, &mut parked.state);
        std::mem::swap(&mut self.flags, &mut parked.flags);
        std::mem::swap(&mut self.tlb, &mut parked.tlb);
        self.state.tsc_offset = time.wrapping_sub(self.state.retired);
        self.state_replaced();
    }

    /// Instructions retired by all processors together.
    pub fn retired_by_all(&self) -> u64 {
        self.parked.iter().fold(self.state.retired, |sum, parked| sum.wrapping_add(parked.state.retired))
    }

    /// The states of all processors, by index.
    pub fn states(&self) -> Vec<State> {
        let mut states: Vec<State> = self.parked.iter().map(Parked::state).collect();
        states.push(self.state());
        states.sort_by_key(|state| state.vcpu);
        states
    }

    /// Replaces the states of all processors and makes `current` the one that executes. As [`Cpu::set_state`] for
    /// each.
    ///
    /// # Panics
    /// When these are not the states of as many processors, one for each index, or `current` is none of them.
    pub fn set_states(&mut self, states: Vec<State>, current: u8) {
        assert_eq!(states.len(), self.parked.len() + 1, "one state for each processor");
        let mut others = self.parked.iter_mut();
        let mut selected = None;
        for (index, state) in (0..).zip(states) {
            assert_eq!(state.vcpu, index, "states stand at their processor's index");
            if index == current {
                selected = Some(state);
            } else if let Some(parked) = others.next() {
                parked.set_state(state);
            }
        }
        self.set_state(selected.expect("the current processor is one of them"));
    }

    /// Whether a processor would go on if it were selected, given whether an external interrupt waits
    /// for it.
    pub fn can_run(&self, vcpu: u8, interrupt: bool) -> bool {
        let Some(state) = self.state_of(vcpu) else { return false };
        let held = state.interrupt_shadow || state.probe_told;
        let woken = interrupt && state.rflags & RFLAGS_IF != 0 && !held;
        !state.waits_for_start_up && (!state.halted || woken || state.takes_nmi() || state.debug_traps != 0)
    }

    /// INIT: the registers that it resets, then waiting for a start-up message (SDM vol. 3, table 9-1). What the bus
    /// knows of the processor (its local APIC) is the bus's business. The bootstrap processor begins at the reset
    /// vector instead.
    pub fn init(&mut self, vcpu: u8, bootstrap: bool) {
        let Some(old) = self.state_of(vcpu) else { return };
        let mut state = State {
            cr0: CR0_ET | old.cr0 & (CR0_CD | CR0_NW),
            xmm: old.xmm,
            mxcsr: old.mxcsr,
            x87: old.x87,
            pat: old.pat,
            star: old.star,
            lstar: old.lstar,
            cstar: old.cstar,
            fmask: old.fmask,
            kernel_gs_base: old.kernel_gs_base,
            sysenter: old.sysenter,
            tsc_aux: old.tsc_aux,
            kept_msrs: old.kept_msrs.clone(),
            model: old.model,
            retired: old.retired,
            tsc_offset: old.tsc_offset,
            tsc_adjust: old.tsc_adjust,
            // Nothing reaches persistent memory by it, either.
            drain_pending: old.drain_pending,
            ..State::reset(vcpu, old.random)
        };
        state.halted = !bootstrap;
        state.waits_for_start_up = !bootstrap;
        self.replace_state_of(state);
    }

    /// Start-up message: a processor that waits for one begins in real mode at the first byte of the page
    /// (SDM vol. 3, 9.4.3). Others ignore it.
    pub fn start_up(&mut self, vcpu: u8, page: u8) {
        let Some(mut state) = self.state_of(vcpu).filter(|state| state.waits_for_start_up).cloned() else {
            return;
        };
        state.waits_for_start_up = false;
        state.halted = false;
        state.segments[CS].selector = u16::from(page) << 8;
        state.segments[CS].base = u64::from(page) << 12;
        state.regs[REG_RIP] = 0;
        self.replace_state_of(state);
    }

    /// As [`Cpu::request_nmi`] for any processor. One that waits for a start-up message ignores it.
    pub fn request_nmi_at(&mut self, vcpu: u8) {
        if vcpu == self.state.vcpu && !self.state.waits_for_start_up {
            self.request_nmi();
        }
        let awake = |state: &State| state.vcpu == vcpu && !state.waits_for_start_up;
        if let Some(parked) = self.parked.iter_mut().find(|parked| awake(&parked.state)) {
            parked.state.nmi_pending = true;
        }
    }

    /// The state of a processor, with the arithmetic flags perhaps not folded in.
    fn state_of(&self, vcpu: u8) -> Option<&State> {
        if vcpu == self.state.vcpu {
            return Some(&self.state);
        }
        self.parked.iter().map(|parked| &parked.state).find(|state| state.vcpu == vcpu)
    }

    fn replace_state_of(&mut self, state: State) {
        match self.parked.iter_mut().find(|parked| parked.state.vcpu == state.vcpu) {
            Some(parked) => parked.set_state(state),
            None => self.set_state(state),
        }
    }

    /// The translations of every processor.
    fn tlbs(&mut self) -> impl Iterator<Item = &mut Tlb> {
        std::iter::once(&mut self.tlb).chain(self.parked.iter_mut().map(|parked| &mut parked.tlb))
    }

    /// Makes stores to a guest-physical page slow, whoever makes them: there is decoded code from it.
    pub(crate) fn mark_code(&mut self, frame: u64) {
        self.tlbs().for_each(|tlb| tlb.mark_code(frame));
    }

    /// Takes [`Cpu::mark_code`] back.
    pub(crate) fn unmark_code(&mut self, frame: u64) {
        self.tlbs().for_each(|tlb| tlb.unmark_code(frame));
    }

    /// Makes every access to a guest-physical page slow, whoever makes it: it has undecided bytes now.
    pub(crate) fn watch(&mut self, frame: u64) {
        self.tlbs().for_each(|tlb| tlb.watch(frame));
    }

    /// Forgets all address translations, so that [`Bus::has_undecided`] is asked anew for each page.
    pub fn forget_translations(&mut self) {
        self.tlbs().for_each(Tlb::flush);
    }

    /// Forgets which pages are writable, so that [`Bus::page_dirtied`] is asked anew for each.
    pub fn forget_writable(&mut self) {
        self.tlbs().for_each(Tlb::forget_writable);
        self.dirtied.clear();
    }
}
