//! The log of `guest/workloads/log.c` in Rust: the example of docs/programs.md.
//!
//!     log append FILE COUNT [forgotten-flush]
//!     log check FILE
//!
//! Records are appended to a file that is mapped with MAP_SYNC, and each is acknowledged when it is durable. `check` reads
//! what was acknowledged from its standard input; exit code 0 says that all of it is there.
#![allow(unsafe_code, missing_docs)] // Mapped memory, and instructions that Rust does not have.

use std::arch::asm;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use pmemsim_guest::Simulator;

const SIZE: usize = 64 << 10;
const LINE: usize = 64;
/// Bytes of a record.
const RECORD: usize = 128;

/// A file mapped with MAP_SYNC. Its first line holds how many records there are; they follow.
struct Log {
    start: *mut u8,
}

impl Log {
    fn create(path: &str) -> io::Result<Log> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(SIZE as u64)?;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, protection, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Log { start: start.cast() })
        }
    }

    #[inline(never)]
    fn append(&self, number: u64, flushed: bool) {
        let at = LINE + (number as usize - 1) * RECORD;
        assert!(at + RECORD <= SIZE, "the log is full");
        for (word, offset) in record(number).into_iter().zip((at..).step_by(8)) {
            self.store(offset, word);
        }
        if flushed {
            self.flush(at, RECORD);
            fence();
        }
        self.store(0, number);
        self.flush(0, 8);
        fence();
    }

    #[inline(never)]
    fn store(&self, at: usize, word: u64) {
        // SAFETY: `at` is a multiple of 8 within the mapping, which starts a page.
        unsafe { self.start.add(at).cast::<u64>().write_volatile(word) }
    }

    fn flush(&self, at: usize, len: usize) {
        for line in (at / LINE * LINE..at + len).step_by(LINE) {
            // SAFETY: the address lies within the mapping; nothing of Rust's changes.
            unsafe { asm!("clwb [{}]", in(reg) self.start.add(line), options(nostack, preserves_flags)) }
        }
    }
}

fn fence() {
    // SAFETY: it has no operands.
    unsafe { asm!("sfence", options(nostack, preserves_flags)) }
}

/// The words of a record.
fn record(number: u64) -> [u64; RECORD / 8] {
    std::array::from_fn(|at| number << 8 | at as u64)
}

fn append(path: &str, count: u64, flushed: bool) -> Result<(), String> {
    let simulator = Simulator::open().map_err(|refused| format!("{refused:?}"))?;
    let log = Log::create(path).map_err(|why| format!("{path}: {why}"))?;
    for number in 1..=count {
        log.append(number, flushed);
        simulator.acknowledge(&number.to_string());
    }
    Ok(())
}

fn check(path: &str) -> Result<(), String> {
    let acknowledged = io::stdin().lock().lines().map_while(Result::ok).count() as u64;
    let content = match File::open(path) {
        Err(_) if acknowledged == 0 => return Ok(()),
        Err(why) => return Err(format!("{path}: {why}")),
        Ok(_) => std::fs::read(path).map_err(|why| format!("{path}: {why}"))?,
    };
    let words: Vec<u64> =
        content.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default())).collect();
    let there = words.first().copied().unwrap_or(0);
    if there < acknowledged {
        return Err(format!("{there} records, but {acknowledged} were acknowledged"));
    }
    for number in 1..=there {
        let at = (LINE + (number as usize - 1) * RECORD) / 8;
        if words.get(at..at + RECORD / 8) != Some(&record(number)) {
            return Err(format!("record {number} is not whole"));
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["append", path, count] => append(path, count.parse().unwrap_or(0), true),
        ["append", path, count, "forgotten-flush"] => append(path, count.parse().unwrap_or(0), false),
        ["check", path] => check(path),
        _ => Err("usage: log append FILE COUNT [forgotten-flush] | log check FILE".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}
