//! What a machine may do to its processor between two runs.

use crate::{Bus, Cpu, Exit, Fault, state::REG_RIP};

impl<B: Bus> Cpu<B> {
    /// Instructions that the selected processor retired: see [`crate::State::retired`].
    pub fn retired(&self) -> u64 {
        self.state.retired
    }

    /// RIP of the selected processor.
    pub fn rip(&self) -> u64 {
        self.state.rip()
    }

    /// Privilege that the selected processor executes with: see [`crate::State::cpl`].
    pub fn cpl(&self) -> u8 {
        self.state.cpl()
    }

    /// Time of the machine in nanoseconds: see [`crate::State::time`].
    pub fn time(&self) -> u64 {
        self.state.time()
    }

    /// Lets time pass without executing anything: every processor waits.
    pub fn advance_time(&mut self, ticks: u64) {
        self.state.tsc_offset = self.state.tsc_offset.wrapping_add(ticks);
    }

    /// Sets a general-purpose register of the selected processor by its number (0 RAX to 15 R15).
    pub fn set_register(&mut self, number: usize, value: u64) {
        assert!(number < 16, "general-purpose registers are 0 to 15");
        self.state.regs[number] = value;
    }

    /// Whether runs end as [`Exit::Paused`] when user mode begins, in front of its first instruction: somebody else
    /// executes that. A run that begins in user mode executes an instruction.
    pub fn leave_at_user(&mut self, on: bool) {
        self.leaves_at_user = on;
        self.paused = false;
    }

    /// Forgets all decoded instructions: memory was written by somebody who did not say where.
    pub fn forget_code(&mut self) {
        let mut code = std::mem::take(&mut self.code);
        self.drop_all_code(&mut code);
        self.code = code;
    }

    /// What RDMSR of `msr` would read on the selected processor, `None` where it would raise #GP.
    pub fn read_msr(&mut self, bus: &mut B, msr: u32) -> Option<u64> {
        self.read_any_msr(bus, msr)
    }

    /// Does what WRMSR to `msr` would do on the selected processor, `None` where it would raise #GP.
    pub fn write_msr(&mut self, bus: &mut B, msr: u32, value: u64) -> Option<()> {
        self.write_any_msr(bus, msr, value).ok()
    }

    /// Delivers an exception that another processor model had found but not yet delivered: its vector and, if it pushes
    /// one, its error code. RIP is what is to be saved. Returns why the run must end, if it must.
    pub fn raise_exception(&mut self, bus: &mut B, vector: u8, code: Option<u16>) -> Option<Exit> {
        let vector = vector & 31;
        let fault = code.map_or(Fault::plain(vector), |code| Fault::coded(vector, code));
        self.at = self.state.regs[REG_RIP];
        let outcome = self.raise(bus, fault).err();
        self.boundary = true;
        outcome
    }
}
