//! What a snapshot keeps of the processors.

use serde::{Deserialize, Serialize};

use crate::board::Board;
use crate::config::MAX_CPUS;
use crate::schedule::Schedule;
use crate::software::Software;

/// All processors, and whose turn it is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Processors {
    states: Vec<cpu::State>,
    current: u8,
    schedule: Schedule,
}

impl Processors {
    pub(crate) fn of(software: &Software) -> Processors {
        let Software { cpu, schedule } = software;
        Processors { states: cpu.states(), current: cpu.current(), schedule: schedule.clone() }
    }

    /// Puts everything back as it was. `software` has as many processors.
    pub(crate) fn restore(&self, software: &mut Software, board: &mut Board) {
        let Software { cpu, schedule } = software;
        cpu.set_states(self.states.clone(), self.current);
        board.select(self.current);
        schedule.clone_from(&self.schedule);
    }

    /// Whether they are what a machine with so many local APICs can have.
    pub(crate) fn fit(&self, local_apics: usize) -> bool {
        let numbered = self.states.iter().zip(0..).all(|(state, index)| state.vcpu == index);
        numbered
            && self.states.len() == local_apics
            && self.states.len() <= usize::from(MAX_CPUS)
            && usize::from(self.current) < self.states.len()
    }

    pub(crate) fn count(&self) -> u8 {
        self.states.len() as u8
    }
}
