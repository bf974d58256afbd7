//! A signal during an access to pmem ends the command, not the agent.
#![allow(unsafe_code)] // Signal handlers, and leaving a function from one.

use std::arch::global_asm;
use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;

use guest_protocol::Reply;

use crate::commands::Outcome;
use crate::race;

// agent_guarded(function in RDI, argument in RSI): calls the function and returns 0. The handler below makes it return
// the number of a signal instead, by going to agent_landing with the saved stack pointer.
//
// The frame pointer, the type and the size are for call stacks in reports.
global_asm!(
    ".global agent_guarded",
    ".type agent_guarded, @function",
    "agent_guarded:",
    "push rbp",
    "mov rbp, rsp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 8",
    "mov [rip + {stack}], rsp",
    "mov rax, rdi",
    "mov rdi, rsi",
    "call rax",
    "xor eax, eax",
    ".global agent_landing",
    "agent_landing:",
    "mov qword ptr [rip + {stack}], 0",
    "add rsp, 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    ".size agent_guarded, . - agent_guarded",
    stack = sym STACK,
);

unsafe extern "C" {
    fn agent_guarded(function: extern "C" fn(*mut c_void), argument: *mut c_void) -> c_int;
    fn agent_landing();
}

/// Stack pointer inside agent_guarded, 0 when it is not running.
static mut STACK: u64 = 0;

/// Runs `work`; SIGBUS, SIGSEGV or SIGILL in it end it. It must hold nothing that needs dropping.
#[inline(never)]
pub fn guarded<F: FnOnce() + Copy>(work: F) -> Outcome {
    extern "C" fn call<F: FnOnce() + Copy>(work: *mut c_void) {
        // SAFETY: `guarded` passes a pointer to its F, which is Copy and lives until agent_guarded returns.
        unsafe { work.cast::<F>().read()() }
    }
    let mut work = work;
    // SAFETY: agent_guarded calls `call` once with the pointer it is made for. When a signal cuts it off, frames are
    // left without dropping; F is Copy, so nothing in it needs that. One thread does this, and without nesting.
    match unsafe { agent_guarded(call::<F>, ptr::from_mut(&mut work).cast()) } {
        0 => Ok(()),
        signal => Err(Reply::Signal { signal }),
    }
}

extern "C" fn handler(signal: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    race::end_second(signal);
    // SAFETY: the kernel passes a valid ucontext; STACK is only written by this thread: the other one does not get here.
    unsafe {
        let stack = STACK;
        if stack == 0 {
            // Our own bug: let it end the agent, and with it the guest, visibly.
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        registers[libc::REG_RIP as usize] = agent_landing as *const () as i64;
        registers[libc::REG_RSP as usize] = stack as i64;
        registers[libc::REG_RAX as usize] = i64::from(signal);
    }
}

/// Installs the handlers.
pub fn install() {
    // SAFETY: a zeroed sigaction is valid, the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        for signal in [libc::SIGBUS, libc::SIGSEGV, libc::SIGILL] {
            libc::sigaction(signal, &action, ptr::null_mut());
        }
    }
}

/// One handler and one saved stack serve the whole process: tests that need them take turns.
#[cfg(test)]
pub static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_access_is_a_reply_and_a_good_one_is_not() {
        let _alone = ALONE.lock();
        install();
        let address = crate::sys::reserve(4096).unwrap() as u64;
        let signal = Reply::Signal { signal: libc::SIGSEGV };
        assert_eq!(guarded(|| crate::straight::touch(address, 1)), Err(signal.clone()));
        let here = 5u64;
        assert_eq!(guarded(|| crate::straight::touch(&raw const here as u64, 8)), Ok(()));
        assert_eq!(guarded(|| crate::straight::touch(address, 1)), Err(signal));
    }
}
