//! Delivery of exceptions and interrupts through the IDT. SDM vol. 3, chapter 6.

use crate::{
    Bus, Cpu, Exit, Fault, Segment, StoreKind,
    debug::DR7_GD,
    paging::is_canonical,
    registers::*,
    segments::{Descriptor, gp},
    state::REG_RIP,
};

const DOUBLE_FAULT: u8 = 8;
const PAGE_FAULT: u8 = 14;
/// Exceptions and interrupts that may be raised without an instruction retired in between.
const MOST_RAISED_IN_A_ROW: u32 = 10_000;

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub vector: u8,
    pub code: Option<u16>,
    /// INT n, INT3 or INTO: the gate's DPL counts and error codes have EXT clear.
    pub software: bool,
    /// An exception that reports the instruction it prevented: RF is set in the saved flags.
    pub restarts: bool,
}

/// A gate of the IDT, checked.
struct Gate {
    selector: u16,
    target: u64,
    /// Clears IF.
    interrupt_gate: bool,
    /// Which stack of the TSS, 0 for the usual one.
    ist: u8,
}

impl<B: Bus> Cpu<B> {
    /// Raises an exception; RIP is what is to be saved.
    pub(crate) fn raise(&mut self, bus: &mut B, fault: Fault) -> Result<(), Exit> {
        self.check_progress()?;
        let mut fault = fault;
        loop {
            let vector = fault.vector();
            if fault == Fault::MC {
                self.log_machine_check()?;
            }
            let restarts = !matches!(vector, 3 | 4 | DOUBLE_FAULT);
            let event = Event { vector, code: fault.code(), software: false, restarts };
            let Err(second) = self.deliver(bus, event) else { return Ok(()) };
            if second == Fault::UNDECIDED {
                return Err(Exit::Undecided);
            }
            if let Some(what) = self.unsupported.take() {
                return Err(Exit::Unsupported { rip: self.state.rip(), what });
            }
            self.not_canonical = false;
            fault = match (severity(vector), severity(second.vector())) {
                (Severity::Double, Severity::Contributory | Severity::PageFault) => {
                    return Err(Exit::Shutdown);
                }
                (Severity::Contributory, Severity::Contributory)
                | (Severity::PageFault, Severity::Contributory | Severity::PageFault) => {
                    Fault::coded(DOUBLE_FAULT, 0)
                }
                _ => second,
            };
        }
    }

    /// Takes an external interrupt or an NMI, or raises a trap.
    pub(crate) fn interrupt(&mut self, bus: &mut B, vector: u8) -> Result<(), Exit> {
        self.check_progress()?;
        let event = Event { vector, code: None, software: false, restarts: false };
        match self.deliver(bus, event) {
            Ok(()) => Ok(()),
            Err(Fault::UNDECIDED) => Err(Exit::Undecided),
            Err(fault) => self.raise(bus, fault),
        }
    }

    /// A handler that cannot execute its first instruction raises the same exception for ever. Hardware hangs then; here
    /// no limit of the run could end it, because nothing retires.
    fn check_progress(&mut self) -> Result<(), Exit> {
        if self.state.retired != self.last_raised_at {
            self.last_raised_at = self.state.retired;
            self.raised_in_a_row = 0;
        }
        self.raised_in_a_row += 1;
        if self.raised_in_a_row > MOST_RAISED_IN_A_ROW {
            self.raised_in_a_row = 0;
            return Err(Exit::Unsupported { rip: self.state.rip(), what: "exceptions without an end" });
        }
        Ok(())
    }

    /// INT n, INT3, INTO; RIP already points behind it.
    pub(crate) fn software_interrupt(&mut self, bus: &mut B, vector: u8) -> Result<(), Fault> {
        self.deliver(bus, Event { vector, code: None, software: true, restarts: false })
    }

    /// INT1: like INT3, but its gate's DPL does not count. A data breakpoint that MOV SS held back is not raised any more:
    /// processors do so (Linux: tools/testing/selftests/x86/mov_ss_trap.c), and a handler with a stack of its own would
    /// lose its frame by a second #DB.
    pub(crate) fn debug_interrupt(&mut self, bus: &mut B) -> Result<(), Fault> {
        self.state.debug_traps = 0;
        self.deliver(bus, Event { vector: 1, code: None, software: false, restarts: false })
    }

    fn deliver(&mut self, bus: &mut B, event: Event) -> Result<(), Fault> {
        // Of INT n and the like no manual says that they wait for stores.
        if !event.software {
            self.tell_stores_visible(bus);
        }
        match (self.long_mode(), self.protected()) {
            (true, _) => self.deliver_long(bus, event)?,
            (false, true) => self.deliver_protected(bus, event)?,
            (false, false) => self.deliver_real(bus, event)?,
        }
        self.state.interrupt_shadow = false;
        self.state.stack_shadow = false;
        self.state.rep_paused_at = None;
        self.single_step = false;
        if event.vector == 1 && !event.software {
            self.state.dr[7] &= !DR7_GD;
        }
        Ok(())
    }

    /// In long mode: through 64-bit gates to 64-bit code, also from compatibility mode.
    fn deliver_long(&mut self, bus: &mut B, event: Event) -> Result<(), Fault> {
        let external = !event.software as u16;
        let gate = self.gate(bus, event)?;
        let descriptor = self.handler_segment(bus, gate.selector, external)?;
        if !is_canonical(gate.target) {
            return Err(Fault::coded(13, external));
        }
        let cpl = self.state.cpl();
        let new_cpl = if descriptor.has(ACCESS_CONFORMING) { cpl } else { descriptor.dpl() };
        let stack = self.handler_stack(bus, gate.ist, cpl, new_cpl, external)?;
        let pushed = self.push_frame(bus, event, stack)?;

        self.state.regs[RSP] = pushed;
        if new_cpl != cpl {
            self.state.segments[SS] = null_stack(new_cpl);
        }
        let mut cleared = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM;
        if gate.interrupt_gate {
            cleared |= RFLAGS_IF;
        }
        self.state.rflags &= !cleared;
        self.state.regs[REG_RIP] = gate.target;
        let mut segment = descriptor.segment(gate.selector);
        segment.base = 0;
        self.set_code_segment(segment, new_cpl);
        Ok(())
    }

    fn gate(&mut self, bus: &mut B, event: Event) -> Result<Gate, Fault> {
        let code = u16::from(event.vector) << 3 | 2 | !event.software as u16;
        let offset = u16::from(event.vector) * 16;
        if offset + 15 > self.state.idtr.limit {
            return Err(Fault::coded(13, code));
        }
        let at = self.state.idtr.base.wrapping_add(u64::from(offset));
        let raw = u128::from_le_bytes(self.read_system(bus, at)?);
        let kind = (raw >> 40) as u8;
        let is_gate = matches!(kind & 0x1f, 0xe | 0xf);
        if !is_gate || event.software && kind >> 5 & 3 < self.state.cpl() {
            return Err(Fault::coded(13, code));
        }
        if kind & 0x80 == 0 {
            return Err(Fault::coded(11, code));
        }
        let low = (raw & 0xffff | raw >> 32 & 0xffff_0000) as u64;
        Ok(Gate {
            selector: (raw >> 16) as u16,
            target: low | ((raw >> 64) as u64) << 32,
            interrupt_gate: kind & 0x1f == 0xe,
            ist: (raw >> 32) as u8 & 7,
        })
    }

    /// The code segment that a gate of the IDT names.
    pub(crate) fn handler_segment(
        &mut self,
        bus: &mut B,
        selector: u16,
        external: u16,
    ) -> Result<Descriptor, Fault> {
        if selector & !3 == 0 {
            return Err(Fault::coded(13, external));
        }
        let told = |fault: Fault| match fault.code() {
            Some(code) if fault.vector() == 13 => Fault::coded(13, code | external),
            _ => fault,
        };
        let descriptor = self.descriptor(bus, selector).map_err(told)?;
        let is_code = descriptor.has(ACCESS_NOT_SYSTEM | ACCESS_CODE);
        let is_64_bit = descriptor.has(ACCESS_LONG) && !descriptor.has(ACCESS_BIG);
        if !is_code || self.long_mode() && !is_64_bit || descriptor.dpl() > self.state.cpl() {
            return Err(told(gp(selector)));
        }
        if !descriptor.has(ACCESS_PRESENT) {
            return Err(Fault::coded(11, selector & !3 | external));
        }
        Ok(descriptor)
    }

    /// RSP that the handler starts with, before anything is pushed.
    fn handler_stack(
        &mut self,
        bus: &mut B,
        ist: u8,
        cpl: u8,
        new_cpl: u8,
        external: u16,
    ) -> Result<u64, Fault> {
        let rsp = match ist {
            0 if new_cpl == cpl => self.state.regs[RSP],
            _ => self.long_inner_stack(bus, ist, new_cpl, external)?,
        };
        Ok(rsp & !0xf)
    }

    /// Pushes SS, RSP, RFLAGS, CS, RIP and the error code, all or nothing. Returns the new RSP.
    fn push_frame(&mut self, bus: &mut B, event: Event, stack: u64) -> Result<u64, Fault> {
        let restart_flag = if event.restarts { RFLAGS_RF } else { 0 };
        let frame = [
            u64::from(event.code.unwrap_or(0)),
            self.state.regs[REG_RIP],
            u64::from(self.state.segments[CS].selector),
            self.rflags() | restart_flag,
            self.state.regs[RSP],
            u64::from(self.state.segments[SS].selector),
        ];
        let mut bytes = [0; 48];
        for (slot, value) in bytes.chunks_exact_mut(8).zip(frame) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        let pushed = if event.code.is_some() { &bytes[..] } else { &bytes[8..] };
        let rsp = stack.wrapping_sub(pushed.len() as u64);
        let outcome = self.as_supervisor(|cpu| {
            // The highest value is pushed first: its page is the first to fault.
            cpu.probe_writable(bus, stack.wrapping_sub(8), 8)?;
            cpu.write_slow(bus, rsp, pushed, StoreKind::Cached)
        });
        match outcome {
            Err(fault) if fault.vector() == PAGE_FAULT => {
                // Of the lower page its highest value is.
                let lower_page = self.state.cr2 < stack.wrapping_sub(8);
                self.state.cr2 = if lower_page { rsp | 0xff8 } else { self.state.cr2 };
                Err(fault)
            }
            Err(fault) if fault == Fault::GP0 => Err(Fault::SS0),
            Err(fault) => Err(fault),
            Ok(()) => Ok(rsp),
        }
    }
}

/// The stack segment of an inner privilege in long mode: null, with the privilege as its DPL.
pub(crate) fn null_stack(cpl: u8) -> Segment {
    Segment { selector: u16::from(cpl), access: u16::from(cpl) << 5, ..Segment::default() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Benign,
    Contributory,
    PageFault,
    Double,
}

/// Classes of SDM vol. 3, table 6-4.
fn severity(vector: u8) -> Severity {
    match vector {
        0 | 10..=13 => Severity::Contributory,
        PAGE_FAULT => Severity::PageFault,
        DOUBLE_FAULT => Severity::Double,
        _ => Severity::Benign,
    }
}
