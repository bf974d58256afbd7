//! The devices of the machine: everything a guest reaches through ports and device pages.
//!
//! Three rules hold for every device here. It knows no host clock: what needs time is given `now`, nanoseconds of
//! virtual time since power-on (which are TSC ticks, the TSC runs at 1 GHz). It calls nobody: what a device wants
//! done is returned as a value, and when it wants to be woken it says so by a `deadline`. And it is plain data:
//! `Clone` and serde are a snapshot.
//!
//! No guest action panics: registers that do not exist read as zero or all ones and swallow writes.

pub mod acpi;
mod bus_functions;
mod control;
mod dimm_functions;
mod flush_hints;
mod fw_cfg;
mod ioapic;
mod lapic;
pub mod map;
mod media_errors;
mod message;
mod nvdimm_firmware;
mod pci;
mod pic;
mod pit;
mod power;
mod rtc;
mod serial;
pub mod virtio;

pub use bus_functions::{BusAnswer, Scrub};
pub use control::{control_call, debug_exit};
pub use dimm_functions::{DimmFunction, dimm_function, label_output};
pub use flush_hints::FlushHints;
pub use fw_cfg::FwCfg;
pub use ioapic::IoApic;
pub use lapic::{LapicEffect, LocalApic};
pub use media_errors::{LINE, MediaErrors, lines_around};
pub use message::{Delivery, Destination, Message, Signal, deliver};
pub use nvdimm_firmware::{FirmwareRequest, LabelAnswer, LabelRequest, NvdimmFirmware};
pub use pci::PciConfig;
pub use pic::Pic;
pub use pit::Pit;
pub use power::{Power, PowerEvent};
pub use rtc::Rtc;
pub use serial::Serial;
