//! Small guests on machines with one processor or several: interleavings, persistency, undecided memory.

mod guest;
mod litmus;
mod machine;
#[path = "../small_guest/mod.rs"]
mod small_guest;
mod undecided;
