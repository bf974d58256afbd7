//! Payloads for the bare machine: how they are loaded, and what the processor does when they try what only a kernel
//! may do, beside QEMU.

mod deviations;
mod formats;
mod payload;
mod privileged;
mod qemu;
mod refused;
