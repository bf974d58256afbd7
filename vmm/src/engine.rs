//! The seam between a machine and what executes its processors.
//!
//! An engine is given the processors' states, the board (which is their bus: memory, devices, the recorder) and how long
//! it may take; it comes back with a [`Stop`](crate::Stop), and the states are where it got to. It knows nothing of
//! devices, and nothing outside of it knows which one it was.

use crate::board::Board;
use crate::kvm::{self, Kvm};
use crate::software::Software;
use crate::{Error, Stop};

/// What lets the processors of a machine execute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// Processors of our own: deterministic to the instruction, sees every store to persistent memory.
    #[default]
    Software,
    /// The host's processor, by KVM: fast where that is hardware-backed, in real time, and not reproducible.
    Kvm,
}

impl Engine {
    /// What CPUID tells on a machine that is made for this engine.
    pub(crate) fn model(self) -> Result<cpu::Model, Error> {
        match self {
            Engine::Software => Ok(cpu::Model::default()),
            Engine::Kvm => Ok(kvm::offered(&kvm::System::open()?)?),
        }
    }
}

/// The engine that a machine has now.
pub(crate) enum Running {
    Software,
    Kvm(Box<Kvm>),
}

impl Running {
    pub(crate) fn new(engine: Engine, software: &Software, board: &Board) -> Result<Running, Error> {
        Ok(match engine {
            Engine::Software => Running::Software,
            Engine::Kvm => Running::Kvm(Box::new(Kvm::new(&kvm::System::open()?, software, board)?)),
        })
    }

    pub(crate) fn engine(&self) -> Engine {
        match self {
            Running::Software => Engine::Software,
            Running::Kvm(_) => Engine::Kvm,
        }
    }

    pub(crate) fn run(&mut self, software: &mut Software, board: &mut Board, budget: u64) -> Stop {
        match self {
            Running::Software => software.run(board, budget),
            Running::Kvm(kvm) => kvm.run(software, board, budget),
        }
    }
}
