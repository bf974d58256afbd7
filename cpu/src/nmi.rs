//! Non-maskable interrupts. SDM vol. 3, section 6.7.

use crate::{Bus, Cpu, Exit, Fault, State, interrupt_return, op::Op};

const VECTOR: u8 = 2;

impl<B: Bus> Cpu<B> {
    /// Requests a non-maskable interrupt of the selected processor. It is taken before the next instruction, or once what holds it off ends: the
    /// handler of an earlier one up to its IRET, or the shadow of STI or MOV SS. At most one waits: more are lost, as
    /// on hardware.
    pub fn request_nmi(&mut self) {
        self.state.nmi_pending = true;
        self.boundary = true;
    }

    /// Takes the NMI that waits. It blocks others even when its delivery raises an exception.
    pub(crate) fn take_nmi(&mut self, bus: &mut B) -> Result<(), Exit> {
        self.state.nmi_pending = false;
        self.state.nmi_blocked = true;
        self.state.halted = false;
        let outcome = self.interrupt(bus, VECTOR);
        if outcome == Err(Exit::Undecided) {
            self.state.nmi_pending = true;
            self.state.nmi_blocked = false;
        }
        outcome
    }
}

impl State {
    /// Whether an NMI would be taken before the next instruction.
    pub(crate) fn takes_nmi(&self) -> bool {
        self.nmi_pending && !self.nmi_blocked && !self.interrupt_shadow && !self.probe_told
    }
}

/// IRET of any size. It lets NMIs in again, also when it raises an exception (SDM vol. 3, 26.3: "even if the
/// instruction causes a fault").
pub(crate) fn interrupt_return<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let outcome = interrupt_return::execute(cpu, bus, op);
    let executed = cpu.unsupported.is_none() && outcome != Err(Fault::UNDECIDED);
    if executed && cpu.state.nmi_blocked {
        cpu.state.nmi_blocked = false;
        cpu.boundary = true;
    }
    outcome
}
