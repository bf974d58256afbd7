//! Two threads, or two processes, on one mapping at the same time: one takes a fault, the other comes while the kernel is
//! at it.
#![allow(unsafe_code)] // A word that processes share.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use guest_protocol::{Op, Reply};

use crate::commands::Outcome;
use crate::files::errno;
use crate::{signals, straight, sys};

/// What the second one is at; the number of a signal that ended it, negative.
const ABSENT: i32 = 0;
const READY: i32 = 1;
const GO: i32 = 2;
const DONE: i32 = 3;

/// Where that stands: in memory that processes share. Made by the first race.
static STATE: OnceLock<&'static AtomicI32> = OnceLock::new();

thread_local! {
    static IS_SECOND: Cell<bool> = const { Cell::new(false) };
}

/// Where a mapping is: its address, and the offset in the file of its first byte.
#[derive(Clone, Copy)]
pub struct Place {
    pub address: u64,
    pub offset: u64,
}

/// Runs `first` here, and `second` in another thread, which waits `delay` rounds of a loop from the moment before
/// `first` begins. The caller checked that all operations lie in the mapping.
#[inline(never)]
pub fn in_threads(first: &[Op], second: &[Op], delay: u64, place: Place) -> Outcome {
    let state = begin()?;
    let second = second.to_vec();
    // It is not joined: a signal may end it without anybody unwinding it.
    let spawned = std::thread::Builder::new().spawn(move || be_second(state, &second, delay, place));
    spawned.map_err(errno("clone"))?;
    be_first(state, first, place)
}

/// The same with a process of its own, which has page tables of its own.
#[inline(never)]
pub fn in_processes(first: &[Op], second: &[Op], delay: u64, place: Place) -> Outcome {
    let state = begin()?;
    let child = sys::fork().map_err(errno("fork"))?;
    if child == 0 {
        be_second(state, second, delay, place);
        sys::exit_thread();
    }
    let outcome = be_first(state, first, place);
    sys::wait_for(child);
    outcome
}

/// The word, with nobody in the race yet.
fn begin() -> Result<&'static AtomicI32, Reply> {
    let state = match STATE.get() {
        Some(state) => state,
        None => {
            let page = sys::shared_page().map_err(errno("mmap"))?;
            // SAFETY: the page is ours, aligned, readable and writable, is never unmapped, and nothing else refers to it.
            let state = unsafe { AtomicI32::from_ptr(page as *mut i32) };
            STATE.get_or_init(|| state)
        }
    };
    state.store(ABSENT, Ordering::Release);
    Ok(state)
}

fn be_second(state: &AtomicI32, ops: &[Op], delay: u64, place: Place) {
    IS_SECOND.set(true);
    state.store(READY, Ordering::Release);
    while state.load(Ordering::Acquire) != GO {
        std::hint::spin_loop();
    }
    for _ in 0..delay {
        std::hint::spin_loop();
    }
    straight::run(ops, place.address, place.offset);
    state.store(DONE, Ordering::Release);
}

fn be_first(state: &AtomicI32, ops: &[Op], place: Place) -> Outcome {
    while state.load(Ordering::Acquire) != READY {
        std::thread::yield_now();
    }
    state.store(GO, Ordering::Release);
    let outcome = signals::guarded(|| straight::run(ops, place.address, place.offset));
    loop {
        match state.load(Ordering::Acquire) {
            DONE => return outcome,
            signal if signal < 0 => return outcome.and(Err(Reply::Signal { signal: -signal })),
            _ => std::thread::yield_now(),
        }
    }
}

/// In a signal handler: ends the calling thread, or process, if it is the second one of a race.
pub fn end_second(signal: i32) {
    if IS_SECOND.get() {
        if let Some(state) = STATE.get() {
            state.store(-signal, Ordering::Release);
        }
        sys::exit_thread();
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::Pattern;

    use super::*;

    fn store(at: u64) -> Vec<Op> {
        vec![Op::Store { at, len: 8, pattern: Pattern::Byte(7) }]
    }

    #[test]
    fn both_threads_do_their_part() {
        let _alone = signals::ALONE.lock();
        let mut memory = [0u64; 3];
        let place = Place { address: memory.as_mut_ptr() as u64, offset: 0 };
        assert_eq!(in_threads(&store(0), &store(16), 100, place), Ok(()));
        // SAFETY: it lives, and both threads are done with it.
        let found = unsafe { std::ptr::read_volatile(&raw const memory) };
        assert_eq!(found, [0x0707_0707_0707_0707, 0, 0x0707_0707_0707_0707]);
    }

    #[test]
    fn both_processes_do_their_part() {
        let _alone = signals::ALONE.lock();
        let place = Place { address: sys::shared_page().unwrap() as u64, offset: 0 };
        assert_eq!(in_processes(&store(0), &store(16), 100, place), Ok(()));
        // SAFETY: it is mapped, and both processes are done with it.
        let found = unsafe { std::ptr::read_volatile(place.address as *const [u64; 3]) };
        assert_eq!(found, [0x0707_0707_0707_0707, 0, 0x0707_0707_0707_0707]);
    }

    #[test]
    fn a_signal_in_the_second_one_ends_the_command_and_not_the_agent() {
        let _alone = signals::ALONE.lock();
        signals::install();
        let place = Place { address: crate::sys::reserve(4096).unwrap() as u64, offset: 0 };
        let ended = Err(Reply::Signal { signal: libc::SIGSEGV });
        assert_eq!(in_threads(&[], &store(0), 0, place), ended);
        assert_eq!(in_processes(&[], &store(0), 0, place), ended);
    }
}
