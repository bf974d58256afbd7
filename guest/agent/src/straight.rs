//! Straight-line code on pmem. Between its operations there is no LOCK, XCHG, system call or allocation: each of
//! them would drain what is meant to stay pending. Every access to pmem is one instruction, written down as such.
//! Functions that are not inlined are the frames of call stacks in reports.
#![allow(unsafe_code)] // Stores, flushes and fences have to be these very instructions.

use std::arch::asm;

use guest_protocol::{Fence, Flush, Op, Pattern, call};

use crate::host::raw_call;

const LINE: u64 = 64;
const PAGE: u64 = 4096;

/// Runs the operations on the mapping at `address`, whose first byte has `offset` in the file. The caller checked that
/// all of them lie in the mapping.
#[inline(never)]
pub fn run(ops: &[Op], address: u64, offset: u64) {
    for op in ops {
        match *op {
            Op::Store { at, len, pattern } => store(address + at, offset + at, len, pattern),
            Op::StoreNonTemporal { at, len, pattern } => {
                store_non_temporal(address + at, offset + at, len, pattern)
            }
            Op::Flush { at, len, with } => flush(address + at, len, with),
            Op::Fence(fence) => execute_fence(fence),
            Op::Promise(id) => {
                raw_call(call::PROMISE, u64::from(id), 0);
            }
            Op::Marker(id) => {
                raw_call(call::MARKER, u64::from(id), 0);
            }
        }
    }
}

/// Copies one byte of every page of the range to nowhere. Nothing is done with it: a simulator that has left open what
/// the byte is need not decide that, as it would for a load.
#[inline(never)]
pub fn touch(address: u64, len: u64) {
    let end = address + len;
    let mut at = address;
    while at < end {
        let mut nowhere = 0u8;
        // SAFETY: the range is mapped, and reading changes nothing in it; RDI points at a byte of ours, and the ABI has
        // DF clear. A signal is caught by the caller's guard.
        unsafe {
            asm!("movsb", inout("rsi") at => _, inout("rdi") &raw mut nowhere => _, options(nostack, preserves_flags))
        };
        at = (at & !(PAGE - 1)) + PAGE;
    }
}

#[inline(never)]
fn store(address: u64, offset: u64, len: u64, pattern: Pattern) {
    let mut step = 0;
    while step < len {
        if (address + step).is_multiple_of(8) && len - step >= 8 {
            store_word(address + step, pattern.word(offset + step));
            step += 8;
        } else {
            store_byte(address + step, pattern.byte(offset + step));
            step += 1;
        }
    }
}

/// Address and length are multiples of 8.
#[inline(never)]
fn store_non_temporal(address: u64, offset: u64, len: u64, pattern: Pattern) {
    for step in (0..len).step_by(8) {
        store_word_non_temporal(address + step, pattern.word(offset + step));
    }
}

/// Flushes every line that holds some of the bytes.
#[inline(never)]
fn flush(address: u64, len: u64, with: Flush) {
    let start = address & !(LINE - 1);
    for line in (start..address + len).step_by(LINE as usize) {
        flush_line(line, with);
    }
}

fn store_word(address: u64, value: u64) {
    // SAFETY: the address lies in a mapping of a file, which no reference of Rust points into.
    unsafe {
        asm!("mov qword ptr [{at}], {value}", at = in(reg) address, value = in(reg) value, options(nostack, preserves_flags))
    };
}

fn store_byte(address: u64, value: u8) {
    // SAFETY: as store_word.
    unsafe {
        asm!("mov byte ptr [{at}], {value}", at = in(reg) address, value = in(reg_byte) value, options(nostack, preserves_flags))
    };
}

fn store_word_non_temporal(address: u64, value: u64) {
    // SAFETY: as store_word. That the store is weakly ordered is what is asked for.
    unsafe {
        asm!("movnti qword ptr [{at}], {value}", at = in(reg) address, value = in(reg) value, options(nostack, preserves_flags))
    };
}

fn flush_line(address: u64, with: Flush) {
    // SAFETY: flushing changes no memory; the address lies in a mapping.
    unsafe {
        match with {
            Flush::Clflush => {
                asm!("clflush byte ptr [{}]", in(reg) address, options(nostack, preserves_flags))
            }
            Flush::Clflushopt => {
                asm!("clflushopt byte ptr [{}]", in(reg) address, options(nostack, preserves_flags))
            }
            Flush::Clwb => asm!("clwb byte ptr [{}]", in(reg) address, options(nostack, preserves_flags)),
        }
    }
}

#[inline(never)]
fn execute_fence(fence: Fence) {
    // SAFETY: fences change no memory; the locked instruction changes a word of its own.
    unsafe {
        match fence {
            Fence::Sfence => asm!("sfence", options(nostack, preserves_flags)),
            Fence::Mfence => asm!("mfence", options(nostack, preserves_flags)),
            Fence::Lfence => asm!("lfence", options(nostack, preserves_flags)),
            Fence::Lock => {
                let mut word = 0_u64;
                asm!("lock inc qword ptr [{}]", in(reg) &raw mut word, options(nostack));
            }
        }
    }
}
