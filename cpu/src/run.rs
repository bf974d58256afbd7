//! The run loop: blocks, boundaries between instructions, exact stops.

use crate::{
    Bus, Cpu, Exit, Fault,
    blocks::CodeCache,
    decode::Handlers,
    registers::{RFLAGS_IF, RFLAGS_RF, RFLAGS_TF},
    state::REG_RIP,
};

impl<B: Bus> Cpu<B> {
    /// Lets the selected processor run until its [`crate::State::retired`] is `until` or something else ends the run, see
    /// [`Exit`]. Returns at once when that count is already reached.
    pub fn run(&mut self, bus: &mut B, until: u64) -> Exit {
        // Handlers get the whole processor, so the blocks that they belong to are kept out of it meanwhile.
        let mut code = std::mem::take(&mut self.code);
        self.split_blocks_at_breakpoints(&mut code);
        self.boundary = true;
        self.interrupt_check = true;
        let exit = self.run_code(bus, &mut code, until);
        self.boundary = true;
        self.code = code;
        exit
    }

    /// Linear addresses of instructions that [`Bus::probe`] is told of before they execute.
    pub fn set_probes(&mut self, probes: &[u64]) {
        let mut code = std::mem::take(&mut self.code);
        self.drop_all_code(&mut code);
        self.code = code;
        self.probes = probes.iter().copied().collect();
        self.block_starts = probes.iter().map(|linear| (linear & 0xfff) as u16).collect();
    }

    /// Whether the bus is told of everything that empties the store buffer after a store to persistent memory: every
    /// drain ([`Bus::drain`]), and the delivery of interrupts and exceptions ([`Bus::stores_visible`]). Off at first.
    pub fn tell_store_buffer(&mut self, on: bool) {
        self.store_buffer_told = on;
    }

    /// Executes everything by the general handlers. They are slower than the specialised ones, which must agree with
    /// them bit for bit: for tests.
    pub fn use_general_handlers(&mut self) {
        let mut code = std::mem::take(&mut self.code);
        self.drop_all_code(&mut code);
        self.code = code;
        self.handlers = Handlers::General;
    }

    fn run_code(&mut self, bus: &mut B, code: &mut CodeCache<B>, until: u64) -> Exit {
        let mut first = true;
        loop {
            self.limit = until;
            if self.boundary && !first {
                if bus.attention() {
                    return Exit::Attention;
                }
                if std::mem::take(&mut self.paused) {
                    return Exit::Paused;
                }
            }
            if self.state.retired >= until {
                return Exit::Limit;
            }
            first = false;
            let alone = match self.boundary {
                true => self.at_boundary(bus, code),
                false => Ok(false),
            };
            let outcome = match alone {
                // What was delivered has to be looked at before anything executes.
                Ok(_) if self.boundary => continue,
                Ok(false) => self.run_block::<false>(bus, code),
                Ok(true) => self.step_alone(bus, code),
                Err(exit) => Err(exit),
            };
            if let Err(exit) = outcome {
                return exit;
            }
        }
    }

    /// Executes one instruction before or behind which something special holds: it is in the shadow of STI or MOV SS,
    /// it is single-stepped, RF is set, or a probe ended the last run before it.
    fn step_alone(&mut self, bus: &mut B, code: &mut CodeCache<B>) -> Result<bool, Exit> {
        let shadows = (self.state.interrupt_shadow, self.state.stack_shadow);
        let resumed = self.state.rflags & RFLAGS_RF;
        self.single_step = self.state.rflags & RFLAGS_TF != 0;
        self.breakpoints_suppressed = resumed != 0 || self.state.stack_shadow;
        // RF alone does not end a repeated string instruction between two iterations.
        if self.single_step || shadows.0 || self.state.probe_told {
            self.limit = self.state.retired + 1;
        }
        self.state.interrupt_shadow = false;
        self.state.stack_shadow = false;
        // SDM vol. 3, 18.3.1.1: RF is cleared at the start of the instruction.
        self.state.rflags &= !RFLAGS_RF;
        self.not_begun = false;
        let outcome = self.run_block::<true>(bus, code);
        self.breakpoints_suppressed = false;
        self.boundary = true;
        let stepped = std::mem::take(&mut self.single_step);
        if outcome.is_err() || std::mem::take(&mut self.not_begun) {
            (self.state.interrupt_shadow, self.state.stack_shadow) = shadows;
            self.state.rflags |= resumed;
        } else if shadows.1 && self.state.stack_shadow {
            // Of several loads of SS in a row only the first has a shadow (SDM vol. 3, 6.8.3).
            self.state.interrupt_shadow = false;
            self.state.stack_shadow = false;
        }
        // The single-step trap of MOV SS is not held back like that of a data breakpoint: it does not happen.
        if stepped && outcome == Ok(true) && !self.state.stack_shadow {
            self.note_single_step();
        }
        outcome
    }

    /// What happens between two instructions, in the order of SDM vol. 3, table 6-2. True if the next one must be
    /// executed alone.
    #[inline(never)]
    fn at_boundary(&mut self, bus: &mut B, code: &mut CodeCache<B>) -> Result<bool, Exit> {
        self.boundary = false;
        if !self.stale_code.is_empty() {
            self.drop_stale_code(code);
        }
        if self.breakpoints_changed {
            self.split_blocks_at_breakpoints(code);
        }
        self.raise_debug_traps(bus)?;
        let held = self.state.interrupt_shadow || self.state.probe_told;
        if self.state.takes_nmi() {
            self.take_nmi(bus)?;
        }
        let enabled = self.state.rflags & RFLAGS_IF != 0 && !held;
        if enabled && (self.interrupt_check || self.state.halted) {
            self.interrupt_check = false;
            if bus.interrupt_pending()
                && let Some(vector) = bus.take_interrupt()
            {
                self.state.halted = false;
                self.interrupt_check = true;
                let outcome = self.interrupt(bus, vector);
                if outcome == Err(Exit::Undecided) {
                    bus.give_back_interrupt(vector);
                }
                outcome?;
            }
        }
        if self.state.halted {
            return Err(Exit::Halted);
        }
        Ok(held || self.state.rflags & (RFLAGS_TF | RFLAGS_RF) != 0)
    }

    /// Executes the block at RIP, or as much of it as the limit allows. True if its last instruction completed, false
    /// if an exception was raised instead.
    #[inline(always)]
    fn run_block<const ALONE: bool>(&mut self, bus: &mut B, code: &mut CodeCache<B>) -> Result<bool, Exit> {
        let rip = self.state.regs[REG_RIP];
        let index = match self.known_block(code, rip) {
            Some(index) => index,
            None => match self.enter_block(bus, code, rip)? {
                Some(index) => index,
                None => return Ok(false),
            },
        };
        let block = &code.blocks[index as usize];
        code.fetch_ahead(block);
        let mut next = rip;
        let mut retired = self.state.retired;
        let room = if ALONE { 1 } else { self.limit - retired };
        let all = if room >= block.count.into() { code.ops(block) } else { code.part(block, room as usize) };
        let mut ops = all.iter();
        let outcome = loop {
            let Some(op) = ops.next() else { break Ok(()) };
            self.state.retired = retired;
            self.at = next;
            next = next.wrapping_add(u64::from(op.len));
            self.state.regs[REG_RIP] = next;
            let outcome = (op.run)(self, bus, op);
            if outcome.is_err() {
                break outcome;
            }
            retired += 1;
            if self.boundary {
                break Ok(());
            }
        };
        match outcome {
            Ok(()) => {
                self.state.retired += 1;
                Ok(true)
            }
            Err(fault) => {
                let at = self.at;
                let on_stack = self.not_canonical && ops_on_stack(all, ops.as_slice().len());
                self.faulted(bus, at, fault, on_stack)?;
                Ok(false)
            }
        }
    }

    /// The way into a block that is not remembered. `None`: an exception was raised instead.
    #[inline(never)]
    fn enter_block(&mut self, bus: &mut B, code: &mut CodeCache<B>, rip: u64) -> Result<Option<u32>, Exit> {
        self.at = rip;
        if !self.fetches_64_bit && rip >> 32 != 0 {
            // The last instruction ended at 4 GiB, where code segments start over.
            self.state.regs[REG_RIP] = rip & 0xffff_ffff;
            self.not_begun = true;
            return Ok(None);
        }
        self.not_begun = false;
        let linear = self.code_linear(rip);
        if self.raise_instruction_breakpoint(bus, linear)? {
            return Ok(None);
        }
        let found = self.find_block(bus, code).and_then(|index| {
            self.keep_in_code_segment(code.ops(&code.blocks[index as usize]), rip)?;
            Ok(index)
        });
        let index = match found {
            Ok(index) => index,
            Err(fault) => {
                // The probe has not been told yet.
                let told = self.state.probe_told;
                let outcome = self.faulted(bus, rip, fault, false);
                if outcome == Err(Exit::Undecided) {
                    self.state.probe_told = told;
                }
                return outcome.map(|()| None);
            }
        };
        if self.probes.contains(&linear) && !self.state.probe_told {
            let view = self.view();
            bus.probe(&view, linear);
            if bus.attention() {
                self.state.probe_told = true;
                return Err(Exit::Attention);
            }
        }
        self.state.probe_told = false;
        // The page walk may have asked for attention; a REP must not start while it does.
        self.not_begun = self.boundary;
        Ok(if self.boundary { None } else { Some(index) })
    }

    /// Raises what an instruction at `rip` returned.
    #[inline(never)]
    fn faulted(&mut self, bus: &mut B, rip: u64, fault: Fault, on_stack: bool) -> Result<(), Exit> {
        let not_canonical = std::mem::take(&mut self.not_canonical);
        // Breakpoints of an instruction that did not complete are found again when it is restarted.
        self.state.debug_traps = 0;
        if fault == Fault::UNDECIDED {
            return Err(self.stop_in_front_of(rip));
        }
        if fault != Fault::BP && fault != Fault::OF {
            self.state.regs[REG_RIP] = rip;
        }
        if let Some(what) = self.unsupported.take() {
            return Err(Exit::Unsupported { rip: self.code_linear(rip), what });
        }
        let fault = if not_canonical && on_stack && fault == Fault::GP0 { Fault::SS0 } else { fault };
        let outcome = self.raise(bus, fault);
        if outcome == Err(Exit::Undecided) {
            self.stop_in_front_of(rip);
        }
        outcome
    }

    /// The instruction at `rip` would use undecided bytes, or the exception that it raises would be delivered by means of
    /// such: it is executed again when the run goes on.
    fn stop_in_front_of(&mut self, rip: u64) -> Exit {
        self.state.regs[REG_RIP] = rip;
        self.unsupported = None;
        self.state.probe_told = self.probes.contains(&self.code_linear(rip));
        Exit::Undecided
    }
}

/// Whether the instruction that faulted with `left` more to go accesses memory through the stack segment.
fn ops_on_stack<B: Bus>(ops: &[crate::op::Op<B>], left: usize) -> bool {
    match ops.get(ops.len() - left - 1) {
        Some(op) => crate::segments::uses_stack_segment(op),
        None => false,
    }
}
