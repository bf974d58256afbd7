//! virtio devices (VIRTIO 1.3) behind the memory-mapped transport, version 2.
//!
//! A device reads and writes guest memory through `vm_memory::GuestMemory`, which its board hands it for the time of a
//! call; whatever that memory refuses, the device cannot reach. The rings are walked by the virtio-queue crate.
//!
//! The driver is not trusted. What breaks the rules of the rings ends in DEVICE_NEEDS_RESET with a configuration
//! interrupt (2.1.2): the device answers nothing more until it is reset. No driver makes it do more than a queue's worth
//! of work at a time, or keep more than a queue's worth of requests.

mod faults;
mod mmio;
mod pmem;
mod queue;
#[cfg(test)]
mod tests;

pub use faults::{FlushAction, FlushFault};
pub use pmem::{FlushEvent, VirtioPmem};
