//! Ctrl-C: a boot or a run ends at its next look, and says how far it got.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, siginfo_t};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use vmm_sys_util::signal::register_signal_handler;

use crate::failure::TROUBLE;

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

/// How a run is ended by SIGINT or SIGTERM: at once as long as nothing has been found, then by the flag that it looks
/// at, and at once when the signal comes again.
#[derive(Clone)]
pub struct Interruption {
    at_once: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Interruption {
    /// Takes both signals.
    pub fn listen() -> std::io::Result<Interruption> {
        let at_once = Arc::new(AtomicBool::new(true));
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, TROUBLE.into(), Arc::clone(&at_once))?;
            flag::register(signal, Arc::clone(&at_once))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Interruption { at_once, asked })
    }

    /// From now on there may be something to keep.
    pub fn keep(&self) {
        self.at_once.store(self.asked.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// There is nothing more to keep.
    pub fn leave(&self) {
        self.at_once.store(true, Ordering::Relaxed);
    }

    /// Set when the run has to end.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// Whether the run has to end.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}
