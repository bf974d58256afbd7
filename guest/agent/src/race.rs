//! Two threads on one mapping at the same time: one takes a fault, the other comes while the kernel is at it.
#![allow(unsafe_code)] // A thread that a signal hits is ended by hand.

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, Ordering};

use guest_protocol::{Op, Reply};

use crate::commands::Outcome;
use crate::files::errno;
use crate::{signals, straight};

/// What the second thread is at; the number of a signal that ended it, negative.
static STATE: AtomicI32 = AtomicI32::new(ABSENT);
const ABSENT: i32 = 0;
const READY: i32 = 1;
const GO: i32 = 2;
const DONE: i32 = 3;

thread_local! {
    static IS_SECOND: Cell<bool> = const { Cell::new(false) };
}

/// Runs `first` here, and `second` in another thread, which waits `delay` rounds of a loop from the moment before
/// `first` begins. Both work on the mapping at `address`, whose first byte has `offset` in the file. The caller checked
/// that all operations lie in the mapping.
#[inline(never)]
pub fn run(first: &[Op], second: &[Op], delay: u64, address: u64, offset: u64) -> Outcome {
    STATE.store(ABSENT, Ordering::Release);
    let second = second.to_vec();
    // It is not joined: a signal may end it without anybody unwinding it.
    let spawned = std::thread::Builder::new().spawn(move || {
        IS_SECOND.set(true);
        STATE.store(READY, Ordering::Release);
        while STATE.load(Ordering::Acquire) != GO {
            std::hint::spin_loop();
        }
        for _ in 0..delay {
            std::hint::spin_loop();
        }
        straight::run(&second, address, offset);
        STATE.store(DONE, Ordering::Release);
    });
    spawned.map_err(errno("clone"))?;
    while STATE.load(Ordering::Acquire) != READY {
        std::thread::yield_now();
    }
    STATE.store(GO, Ordering::Release);
    let outcome = signals::guarded(|| straight::run(first, address, offset));
    loop {
        match STATE.load(Ordering::Acquire) {
            DONE => return outcome,
            signal if signal < 0 => return outcome.and(Err(Reply::Signal { signal: -signal })),
            _ => std::thread::yield_now(),
        }
    }
}

/// In a signal handler: ends the calling thread if it is the second one of a race.
pub fn end_second(signal: i32) {
    if IS_SECOND.get() {
        STATE.store(-signal, Ordering::Release);
        // SAFETY: exit(2) ends this thread alone; nothing of it is used any more, and nobody joins it.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
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
        let address = memory.as_mut_ptr() as u64;
        assert_eq!(run(&store(0), &store(16), 100, address, 0), Ok(()));
        // SAFETY: it lives, and both threads are done with it.
        let found = unsafe { std::ptr::read_volatile(&raw const memory) };
        assert_eq!(found, [0x0707_0707_0707_0707, 0, 0x0707_0707_0707_0707]);
    }

    #[test]
    fn a_signal_in_the_second_thread_ends_the_command_and_not_the_agent() {
        let _alone = signals::ALONE.lock();
        signals::install();
        let nothing = crate::sys::reserve(4096).unwrap() as u64;
        assert_eq!(run(&[], &store(0), 0, nothing, 0), Err(Reply::Signal { signal: libc::SIGSEGV }));
    }
}
