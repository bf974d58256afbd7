//! What exploration needs of a machine. The `vmm` crate's machine is one; the tests have a smaller one.

use std::path::PathBuf;
use std::sync::Arc;

/// Why a machine came back from [`Target::run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest called the control port: a number of `guest_protocol::call` and its two arguments.
    Call {
        /// EAX
        number: u32,
        /// RDI
        first: u64,
        /// RSI
        second: u64,
    },
    /// The budget is used up.
    Budget,
    /// Right behind the event of [`Target::stop_at_event`].
    Event(u64),
    /// The machine ended by itself: halted for ever, powered off, reset, triple fault. Says which.
    Ended(&'static str),
    /// The next instruction would use undecided bytes ([`Target::set_undecided`]) whose origins lie in these lines of
    /// persistent memory: guest-physical, 64-byte aligned, ascending. It has not been executed, and nothing of it is
    /// visible (repeated string instructions stop between two iterations). [`Target::run`] goes on with it after
    /// [`Target::decide`] of these lines.
    Undecided {
        /// Addresses.
        lines: Vec<u64>,
    },
    /// The guest did something that the machine does not offer.
    Unsupported(String),
}

/// A range of guest-physical addresses that is persistent memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
    /// NFIT device handle of its DIMM.
    pub dimm: u32,
}

/// A machine with persistent memory and the agent in it. Deterministic: from equal states it does equal things.
pub trait Target {
    /// Runs until something happens or `budget` instructions have retired.
    fn run(&mut self, budget: u64) -> Stop;
    /// Instructions retired so far.
    fn retired(&self) -> u64;
    /// Result of the last [`Stop::Call`].
    fn answer(&mut self, value: i64);
    /// Reads guest-virtual memory; false when some of it is not mapped.
    fn read_guest(&self, address: u64, buffer: &mut [u8]) -> bool;
    /// Writes guest-virtual memory; false when some of it is not mapped.
    fn write_guest(&mut self, address: u64, bytes: &[u8]) -> bool;
    /// Guest-physical address of a guest-virtual one.
    fn translate(&self, address: u64) -> Option<u64>;
    /// Persistent memory; region N of the kernel has index N.
    fn regions(&self) -> Vec<Region>;
    /// Reads persistent memory at a guest-physical address.
    fn read_pmem(&self, address: u64, buffer: &mut [u8]);
    /// Writes persistent memory while nothing runs: no event.
    fn write_pmem(&mut self, address: u64, bytes: &[u8]);
    /// These lines of persistent memory are lost, and no others, while nothing runs: no event. Part of snapshot levels, as
    /// memory is.
    fn set_poisoned(&mut self, _lines: &[u64]) {}
    /// Whether lines of persistent memory are lost.
    fn is_poisoned(&self) -> bool {
        false
    }
    /// The media loses every line that holds one of these bytes, now: an event.
    fn poison(&mut self, _address: u64, _len: u64) -> Result<(), HostError> {
        Err(HostError("the media of this machine loses nothing".to_owned()))
    }
    /// Opens a snapshot level.
    fn push(&mut self);
    /// Back to the last [`Target::push`]; its level stays open. Returns how many pages that took.
    fn rewind(&mut self) -> usize;
    /// Back to the last [`Target::push`], and closes its level. Returns how many pages that took.
    fn pop(&mut self) -> usize;
    /// From now on these bytes of persistent memory are undecided, and no others: pairs of a line's guest-physical address
    /// and a mask of its bytes, byte n in bit n. What stands there is a placeholder. Copies that the machine makes
    /// without looking at them are undecided, too; what is stored over them is decided. Part of snapshot levels, as
    /// memory is.
    fn set_undecided(&mut self, _lines: &[(u64, u64)]) -> Result<(), HostError> {
        Err(HostError("this machine cannot leave bytes of persistent memory undecided".to_owned()))
    }
    /// The undecided bytes of a line that are in `mask` hold what `content` says, and so does every copy of them: they are
    /// decided.
    fn decide(&mut self, _line: u64, _mask: u64, _content: &[u8; 64]) {}
    /// The undecided bytes of a guest-virtual range: offset in the range and origin (the guest-physical address of the byte
    /// of persistent memory that it is, or is a copy of), ascending. [`Target::read_guest`] reads placeholders there.
    fn origins(&self, _address: u64, _len: usize) -> Vec<(usize, u64)> {
        Vec::new()
    }
    /// The same of a guest-physical range of persistent memory, in runs whose origins follow each other: offset, length, and
    /// origin of the first byte.
    fn undecided_runs(&self, _address: u64, _len: usize) -> Vec<(usize, usize, u64)> {
        Vec::new()
    }
    /// Guest-physical addresses of the pages of persistent memory that were written since the last [`Target::push`],
    /// ascending.
    fn changed(&self) -> Vec<u64>;
    /// Records events from now on, or no longer.
    fn set_tracing(&mut self, on: bool);
    /// Records also what empties store buffers ([`persist::EventKind::StoresVisible`]): for the platform `eadr`.
    fn set_store_buffer_events(&mut self, _on: bool) {}
    /// The events recorded since the last call.
    fn take_events(&mut self) -> Vec<persist::Event>;
    /// Number that the next event gets.
    fn event_count(&self) -> u64;
    /// Makes [`Target::run`] stop right behind this event.
    fn stop_at_event(&mut self, seq: Option<u64>);
    /// Records an event of kind `Symbol` whenever the kernel enters one of these addresses.
    fn set_watched(&mut self, addresses: &[u64]);
    /// What came out of the serial console since the last call.
    fn take_console(&mut self) -> Vec<u8>;
}

/// What exploration needs around a machine. Workers on several threads share it.
pub trait Laboratory: Sync {
    /// Its machines.
    type Target: Target;

    /// A machine that waits in the call `SNAPSHOT_HERE`, all regions unbound, its persistent memory blank.
    fn start(&self) -> Result<Self::Target, HostError>;
    /// As [`Laboratory::start`], a machine to be recorded: perhaps on another engine.
    fn start_recording(&self) -> Result<Self::Target, HostError> {
        self.start()
    }
    /// Whether recordings are samples: of an engine that tells what memory held now and then, and never does the same
    /// again.
    fn samples(&self) -> bool {
        false
    }
    /// What is to be told of a machine that was recorded.
    fn account(&self, _: &Self::Target) -> Vec<(String, String)> {
        Vec::new()
    }
    /// Makes go wrong what the scenario says, in a machine that is to be recorded.
    fn inject_faults(&self, _: &mut Self::Target) {}
    /// Directory for files without a name that are gone when the run is.
    fn scratch(&self) -> PathBuf {
        std::env::temp_dir()
    }
    /// What each region holds at first.
    fn images(&self) -> &[Arc<Vec<u8>>];
    /// Address of a kernel function.
    fn symbol(&self, name: &str) -> Option<u64>;
    /// The function of the kernel or of the agent that holds the address, and the offset in it.
    fn function_at(&self, address: u64) -> Option<(String, u64)>;
    /// Lets the file system's own checker look at the first region, without repairing anything. `changed` are the
    /// pages, by their offset in the region, in which it differs from its image.
    fn check(&self, changed: &[(u64, Vec<u8>)]) -> Result<Health, HostError>;
    /// The same, and which ranges of the region the checker has read: what it says would be the same whatever stood
    /// elsewhere.
    fn check_and_tell(&self, changed: &[(u64, Vec<u8>)]) -> Result<Checked, HostError>;
    /// The call stack of a machine that has just stopped, innermost first: `function+0x12`, with ` [module]` or
    /// ` [agent]` behind it. Behind a kernel stack that began in user mode follows the user's.
    fn stack(&self, target: &Self::Target) -> Vec<String>;
    /// What was run: kernel build, package versions, command line. The same for every run of the same inputs.
    fn provenance(&self) -> Vec<(String, String)>;
}

/// What the file system's checker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing to repair.
    Clean,
    /// What it would repair.
    Damaged(String),
    /// It did not come to an end: killed, or not there.
    Unknown(String),
}

/// What the file system's checker says, and what that rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it says.
    pub health: Health,
    /// What of the region it has read.
    pub read: Vec<std::ops::Range<u64>>,
}

/// Something on the host does not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HostError(pub String);
