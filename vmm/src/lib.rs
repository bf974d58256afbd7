//! The machine: memory, boot, clock, run loop, snapshots, and the recording of what happens to persistent memory.

mod board;
mod boot;
mod config;
mod device_memory;
mod engine;
mod error;
mod file;
mod kvm;
mod layout;
mod machine;
mod memory;
mod pages;
mod processors;
mod recorder;
mod schedule;
mod shadow;
mod software;
mod symbols;
mod trace_hash;
mod translate;
mod undecided;
pub mod unwind;

pub use boot::{Module, PayloadError, bare_protocol};
pub use config::{BootProtocol, MachineConfig, Nvdimm, PlatformCapability, VirtioPmem};
pub use devices::map::LABELS_SIZE;
pub use devices::virtio::{FlushAction, FlushFault};
pub use engine::Engine;
pub use error::{Error, Unmapped};
pub use file::Snapshot;
pub use kvm::{Capability, Difference, KvmCounts, KvmError, KvmHost, SupervisorSpeed};
pub use machine::{Call, Machine, Stop};
pub use memory::{PAGE, Region, RegionKind};
pub use symbols::{Symbol, Symbols};
