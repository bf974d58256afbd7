//! Ctrl-C: a run ends at its next look, and says how far it got.

use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::signal::register_signal_handler;

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    ASKED.store(true, Ordering::Relaxed);
}

/// From now on SIGINT is noted, and does nothing else. It gets a processor out of KVM_RUN.
pub fn listen() -> std::io::Result<()> {
    register_signal_handler(libc::SIGINT, note)
        .map_err(|error| std::io::Error::from_raw_os_error(error.errno()))
}

/// Whether it has come.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
