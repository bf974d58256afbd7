//! The control port: calls to the simulator.
#![allow(unsafe_code)] // OUT is an instruction that Rust does not have.

use std::arch::asm;
use std::fs::File;
use std::io::{self, Read};

use guest_protocol::{Command, MAX_ACKNOWLEDGEMENT, MAX_MESSAGE, Observation, PORT, Reply, VERSION, call};
use serde::Serialize;

use crate::{script, sys};

/// The simulator, and the buffer for messages to and from it.
pub struct Host {
    buffer: &'static mut [u8],
    /// False when nobody answers at the port: what would be said to the simulator is printed.
    there: bool,
}

/// One call. Needs I/O privilege (see [`sys::allow_ports`]).
pub fn raw_call(number: u32, first: u64, second: u64) -> i64 {
    let answer: i64;
    // SAFETY: the simulator reads the buffer that the arguments tell, and for NEXT writes into it; both lie in memory
    // that the caller may use so. Without a simulator the instruction does nothing.
    unsafe {
        asm!("out dx, eax", inout("rax") u64::from(number) => answer, in("dx") PORT, in("rdi") first, in("rsi") second,
             options(nostack, preserves_flags));
    }
    answer
}

impl Host {
    pub fn new() -> io::Result<Host> {
        Ok(Host { buffer: sys::resident(MAX_MESSAGE)?, there: false })
    }

    /// Whether a simulator is there. An error when it speaks another version.
    pub fn hello(&mut self) -> Result<bool, String> {
        match raw_call(call::HELLO, u64::from(VERSION), 0) {
            0 => self.there = true,
            // Nobody changed RAX.
            answer if answer == i64::from(call::HELLO) => self.there = false,
            answer => return Err(format!("the simulator does not speak version {VERSION}: {answer}")),
        }
        Ok(self.there)
    }

    /// A call whose answer does not matter.
    pub fn call(&self, number: u32, first: u64, second: u64) {
        if self.there {
            raw_call(number, first, second);
        }
    }

    /// Sends /proc/kallsyms, in pieces of whole lines.
    pub fn send_symbols(&mut self) -> Result<(), String> {
        let fail = |error: io::Error| format!("/proc/kallsyms: {error}");
        let mut file = File::open("/proc/kallsyms").map_err(fail)?;
        let mut filled = 0;
        loop {
            let count = file.read(&mut self.buffer[filled..]).map_err(fail)?;
            filled += count;
            if count > 0 && filled < self.buffer.len() {
                continue;
            }
            let lines =
                self.buffer[..filled].iter().rposition(|byte| *byte == b'\n').map_or(filled, |at| at + 1);
            if lines > 0 {
                self.send(call::KALLSYMS, lines);
            }
            self.buffer.copy_within(lines..filled, 0);
            filled -= lines;
            if count == 0 {
                self.call(call::KALLSYMS, 0, 0);
                return Ok(());
            }
        }
    }

    /// What the simulator wants next.
    pub fn next(&mut self) -> Result<Command, String> {
        let length = self.send(call::NEXT, self.buffer.len());
        let message = usize::try_from(length).ok().and_then(|length| self.buffer.get(..length));
        let message = message.ok_or_else(|| format!("the simulator has no command: {length}"))?;
        postcard::from_bytes(message).map_err(|error| format!("a command cannot be read: {error}"))
    }

    pub fn done(&mut self, reply: &Reply) {
        let short = Reply::Bad { why: "the reply is too long to be sent".into() };
        let length = [reply, &short].into_iter().find_map(|reply| self.encode(reply));
        self.send(call::DONE, length.unwrap_or(0));
    }

    /// One [`call::ACKNOWLEDGE`].
    pub fn acknowledge(&mut self, line: &[u8]) {
        if !self.there {
            println!("acknowledged {}", String::from_utf8_lossy(line));
            return;
        }
        let length = line.len().min(MAX_ACKNOWLEDGEMENT);
        self.buffer[..length].copy_from_slice(&line[..length]);
        self.send(call::ACKNOWLEDGE, length);
    }

    pub fn observe(&mut self, observation: &Observation) {
        if !self.there {
            println!("observed {observation:?}");
            return;
        }
        match self.encode(observation) {
            Some(length) => {
                self.send(call::OBSERVE, length);
            }
            None => println!("agent: an observation is too long to be sent"),
        }
    }

    /// Length of the message in the buffer, none when it does not fit.
    fn encode(&mut self, message: &impl Serialize) -> Option<usize> {
        postcard::to_slice(message, self.buffer).ok().map(|bytes| bytes.len())
    }

    /// Without a simulator: prints what a mapped file holds.
    pub fn print_digest(&self, address: u64, size: u64) {
        if !self.there {
            // SAFETY: the caller mapped `size` bytes there and loaded from each page.
            let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, size as usize) };
            println!("digest {:016x}", script::digest(bytes.iter().copied()));
        }
    }

    /// A call about the first `length` bytes of the buffer.
    fn send(&mut self, number: u32, length: usize) -> i64 {
        if self.there { raw_call(number, self.buffer.as_mut_ptr() as u64, length as u64) } else { 0 }
    }
}
