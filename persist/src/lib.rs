//! The persistence domain: events in, possible media contents out.
//!
//! Knows nothing of processors or virtual machines. A [`Domain`] follows the [`Event`]s of one execution; at any
//! moment its [`CrashPoint`] tells what could be on the media if the power went: the durable content, and the parts
//! *in flight*, of which every order-closed set ([`Choice`]) may have arrived, too.
//!
//! # What is modelled
//! Under the platform `adr`, what a drain covered is durable, anything else may or may not be.
//! - A cached store becomes one **C** part per line (per word in `word` mode). It comes after every earlier C part of
//!   its line; parts of one store, or of one execution of a REP string instruction, are unordered among themselves. A
//!   store by somebody else between two iterations orders them.
//! - A non-temporal store becomes one **N** part per aligned word. It comes after what it overlaps, and under
//!   [`Settings::nt_evicts`] after every earlier C part of its line.
//! - Any part comes after an earlier part that overlaps its bytes.
//! - CLFLUSHOPT and CLWB make all C parts of the line, whoever stored them, targets of the processor that executes
//!   them; a drain of that processor makes its targets and its N parts durable, with everything that comes before.
//!   A drain is whatever is told as one: the caller knows which instructions are.
//! - CLFLUSH is durable once its processor has executed one more instruction, which its next event with a higher
//!   `retired` shows; [`EventKind::Retired`] is there to say so when another processor goes on (litmus test 35). The OUT of a promise or marker is no instruction of the machine and shows nothing, nor does
//!   entering a watched symbol: there it takes another instruction in between.
//! - WBINVD makes the C parts of the lines durable whose newest C part this processor stored.
//! - Under [`Settings::strict_fences`] only SFENCE and MFENCE make durable. What any other drain covers is *handed
//!   over*, and the next SFENCE or MFENCE of any processor makes that durable, too. CLFLUSH needs no drain, so it is
//!   what it was. [`CrashPoint::handed_over`] tells the two readings apart.
//! - Agents (devices, the host, page walks) store C parts that any processor can flush and drain.
//!
//! In [`Granularity::Sector`] a whole aligned sector that one call of a kernel flushcache copy writes at CPL 0, from
//! its first byte to its last, is one N part that appears with its last store. Until then the sector is old, whatever
//! is drained. A copy that ends short of that leaves ordinary N parts, drained if their processor has drained since.
//! That it has ended is known once its processor stores elsewhere, flushes, executes SFENCE or MFENCE or does anything
//! in user mode, or once anybody stores into a line that it has written. Other drains at CPL 0 are
//! taken for an interrupt handler's. So right behind the last store of a short copy, and behind a LOCK or IRET that
//! drains it, its words still count as old, until one of those events.
//!
//! The other platforms differ in what is durable; every [`Region`] may have its own.
//! - `eadr`: a cached part is durable once it has left its processor's store buffer. Until the processor drains, is
//!   interrupted, or another one does something, its newest parts ([`Settings::store_buffer`] of them) may be lost, a
//!   suffix of them: a cached part comes after every earlier cached part in flight, on whatever line. Non-temporal parts
//!   wait for a drain as ever; they count for the depth of the buffer. A locked store counts as buffered, too, which
//!   gives more states than there are. The buffer is that of the regions under `eadr`: what one processor stores to
//!   regions of other platforms is unordered with it.
//! - `adr-lost`: what was drained is durable once a write to a flush hint of its DIMM came behind that drain, and another
//!   drain of the writing processor behind that.
//! - `virtio-pmem`: what was visible when a device flush was made available is durable once that completed with status
//!   0. A cached part is visible at once, a non-temporal one once it is drained, or at any moment before. Until then a
//!   sector has the content that it had at one moment: a part comes after everything in its sector that was visible
//!   before it was stored. Under [`Settings::failed_flush_loses`] no later flush covers what one covered that failed,
//!   unless the same sector is written again.
//! - `host-survives`: everything is durable as it is stored.
//!
//! On every platform the media may lose the content of lines ([`EventKind::Poisoned`]) until firmware repairs them
//! ([`EventKind::PoisonCleared`]): [`CrashPoint::poisoned`] and [`Overlay::poisoned`] tell which. A repaired line holds
//! zeros, durable at once, and what was in flight there before has no effect any more.
//!
//! Strict fences are a matter of `adr` and `eadr`: flush hints and device flushes count every drain.
//!
//! # What is not
//! Torn words. Uncached, write-combining and write-through stores have no [`StorePath`].
//!
//! # Cost
//! [`Domain::apply`] takes time in proportion to the parts in flight of the lines that the event touches,
//! [`Domain::crash_point`] in proportion to all parts in flight. What is durable is shared between crash points.

mod choice;
mod copy_run;
mod count;
mod crash_point;
mod domain;
mod durable;
mod event;
mod groups;
mod line;
mod order;
mod overlay;
mod part;
mod partial;
mod search;
mod settings;
mod tangle;
#[cfg(test)]
mod testing;

pub use choice::{Choice, StateCount};
pub use crash_point::CrashPoint;
pub use domain::Domain;
pub use durable::{Media, NotAStateId, StateId};
pub use event::{DrainKind, Event, EventKind, FlushKind, LINE, Origin, SECTOR, StorePath, WORD};
pub use groups::Group;
pub use overlay::Overlay;
pub use part::Part;
pub use partial::Partial;
pub use settings::{Granularity, ModelFaults, Platform, Region, Settings};
