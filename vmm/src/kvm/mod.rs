//! The KVM engine: the same machine, executed by the host's processor.
//!
//! # What belongs to whom
//! While a machine stands still its processors are [`cpu::State`]s in the software engine, whichever engine it runs on.
//! A run gives them to KVM and takes them back at its end. So everything that looks at a machine or changes it between
//! two runs (snapshots, calls of the control port, guest-virtual memory) is the same for both engines, and going over
//! from one to the other is running on with the other.
//!
//! # Interrupts
//! The local APICs, the IOAPIC, PIC and PIT are our own, in user space, as under the software engine: KVM gets vectors by
//! KVM_INTERRUPT once it says that the processor takes them. An irqchip in the kernel would save an exit for each access
//! to a local APIC, some microseconds a timer tick. Against that, two models of each chip would have to agree in every
//! bit of a snapshot, and instructions that the software processor executes for KVM could not reach them.
//!
//! # Time
//! Time of the machine is real time while it runs, and stands still between two runs. A timer of the host ends KVM_RUN
//! when the next timer of the board goes off or the run's time is up: [`kick`].
//!
//! # Memory
//! KVM names the pages that it wrote in its dirty log, after the fact. That is enough for persistent memory, of which pages
//! are recorded and not lines; a snapshot level has to know what stood there before, and so there is a copy of all memory
//! while a level is open (`crate::shadow`).
//!
//! # Several processors
//! They take turns on the thread that runs the machine, a millisecond each, as they do under the software engine. That
//! makes nothing faster; it makes kernels for several processors run.

mod assist;
mod clock;
mod error;
mod exit;
mod half_calls;
mod host;
mod kick;
mod model;
mod msrs;
mod page_tables;
mod registers;
mod run;
mod slots;
mod speed;
mod system;
mod vcpu;

pub(crate) use assist::Help;
pub use error::KvmError;
pub use host::{Capability, KvmHost};
pub use model::Difference;
pub(crate) use model::{differences, offered};
pub(crate) use run::Kvm;
pub use run::KvmCounts;
pub use speed::SupervisorSpeed;
pub(crate) use system::System;
