//! A software x86-64 processor: decode, execute, translate addresses, take traps.
//!
//! It does no I/O, reads no host clock and knows no devices: all of that is behind [`Bus`].

#![allow(unsafe_code)]

mod access;
mod bus;
mod fault;
mod op;
mod state;

pub use bus::{Bus, CpuView, DrainKind, Exit, FlushKind, Page, StoreKind};
pub use fault::Fault;
pub use state::{REG_RIP, REG_ZERO, Segment, State, TableRegister, X87};

/// One processor.
pub struct Cpu<B: Bus> {
    pub(crate) state: State,
    _bus: std::marker::PhantomData<fn(&mut B)>,
}
