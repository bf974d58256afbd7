//! What a machine may do to its processor between two runs.

use crate::{Bus, Cpu};

impl<B: Bus> Cpu<B> {
    /// Instructions that the selected processor retired: see [`crate::State::retired`].
    pub fn retired(&self) -> u64 {
        self.state.retired
    }

    /// RIP of the selected processor.
    pub fn rip(&self) -> u64 {
        self.state.rip()
    }

    /// Time of the machine, in TSC ticks: see [`crate::State::time`].
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
}
