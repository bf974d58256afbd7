//! Machines with several processors, by small guests.

mod guest;
mod litmus;
mod machine;
