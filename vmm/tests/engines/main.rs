//! The same guests under both engines. Where there is no KVM, that is said and nothing compared.

mod assisted;
mod breakpoints;
mod devices;
mod guest;
mod handover;
mod hostile;
mod page_tables;
mod processor;
#[path = "../small_guest/mod.rs"]
mod small_guest;
mod timers;
