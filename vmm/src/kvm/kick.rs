//! What gets a processor out of KVM_RUN in time: a timer of this thread, whose signal is blocked everywhere else.
//!
//! No handler is installed: the signal stays pending until it is fetched. One that comes before KVM_RUN begins ends it at
//! once, so there is no gap in which it could be lost.

#![allow(unsafe_code)] // Timers and signal masks of POSIX have no safe form in the crates that we use.

use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use kvm_ioctls::VcpuFd;

use super::KvmError;

/// KVM_SET_SIGNAL_MASK: `_IOW(0xae, 0x8b, struct kvm_signal_mask)`, whose set comes behind its four bytes.
const SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;

/// The argument of [`SET_SIGNAL_MASK`]: the kernel's sigset_t has 64 bits.
#[repr(C, packed)]
struct SignalMask {
    len: u32,
    set: u64,
}

/// The signal. The C library keeps the first two real-time signals for itself.
fn signal() -> i32 {
    libc::SIGRTMIN() + 4
}

/// Blocks the signal on this thread, and has a timer that sends it here, until it is dropped on the same thread.
pub(super) struct Kick {
    timer: libc::timer_t,
    /// The thread's mask before.
    before: libc::sigset_t,
    armed: Option<u64>,
}

impl Kick {
    pub(super) fn new() -> Result<Kick, KvmError> {
        // SAFETY: sigevent is plain data for which all zeros is a value.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal();
        // SAFETY: gettid has no preconditions.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are valid for writes of a sigset_t; pthread_sigmask fills the second one.
        let before = unsafe {
            let blocked = set();
            if libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, before.as_mut_ptr()) != 0 {
                return Err(KvmError::last("pthread_sigmask"));
            }
            before.assume_init()
        };
        let mut timer = std::ptr::null_mut();
        // SAFETY: `event` and `timer` are valid for the call.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) } != 0 {
            let error = KvmError::last("timer_create");
            restore(&before);
            return Err(error);
        }
        Ok(Kick { timer, before, armed: None })
    }

    /// KVM_RUN of this processor lets the signal through, and what this thread lets through otherwise.
    pub(super) fn listen(&self, vcpu: &VcpuFd) -> Result<(), KvmError> {
        let mut open = self.before;
        // SAFETY: `open` is a valid set; the kernel's is its first 64 bits, which are there: it has 1024.
        let set = unsafe {
            libc::sigdelset(&mut open, signal());
            std::ptr::from_ref(&open).cast::<u64>().read()
        };
        let mask = SignalMask { len: 8, set };
        // SAFETY: the kernel reads `len` bytes behind the first four, which are there.
        if unsafe { libc::ioctl(vcpu.as_raw_fd(), SET_SIGNAL_MASK, &mask) } != 0 {
            return Err(KvmError::last("KVM_SET_SIGNAL_MASK"));
        }
        Ok(())
    }

    /// The signal comes at time `at`, which is in `nanoseconds`.
    pub(super) fn arm(&mut self, at: u64, nanoseconds: u64) {
        if self.armed == Some(at) {
            return;
        }
        self.armed = Some(at);
        // SAFETY: itimerspec is plain data.
        let mut when: libc::itimerspec = unsafe { std::mem::zeroed() };
        let nanoseconds = nanoseconds.max(1);
        when.it_value.tv_sec = (nanoseconds / 1_000_000_000) as libc::time_t;
        when.it_value.tv_nsec = (nanoseconds % 1_000_000_000) as libc::c_long;
        // SAFETY: the timer is ours and alive.
        unsafe { libc::timer_settime(self.timer, 0, &when, std::ptr::null_mut()) };
    }

    /// Takes the signal if it has come.
    pub(super) fn fetch(&mut self) {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set is valid; nobody wants to know more about the signal.
        while unsafe { libc::sigtimedwait(&set(), std::ptr::null_mut(), &now) } == signal() {
            self.armed = None;
        }
    }
}

impl Drop for Kick {
    fn drop(&mut self) {
        // SAFETY: the timer is ours, and nobody uses it any more.
        unsafe { libc::timer_delete(self.timer) };
        self.fetch();
        restore(&self.before);
    }
}

/// The set of the signal alone.
fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset fills the set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal());
        set.assume_init()
    }
}

fn restore(mask: &libc::sigset_t) {
    // SAFETY: `mask` is a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}
