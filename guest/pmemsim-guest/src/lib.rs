//! Talking to the simulator from a program in the guest: what `guest/workloads/pmemsim.h` is for C.
//!
//! A call is one OUT to a port; it drains nothing: no store is flushed or fenced by it. Only for programs that run in the
//! simulator: on a real machine the port is whoever's it is.
#![no_std]
#![allow(unsafe_code)] // OUT and system calls are instructions that Rust does not have.

use core::arch::asm;

/// The I/O port of the control port.
const PORT: u16 = 0x0d50;
const MARKER: u32 = 6;
const LOG: u32 = 9;
const ACKNOWLEDGE: u32 = 10;

/// The simulator. There is one for a thread that has the right to use the port.
#[derive(Debug)]
pub struct Simulator(());

/// The kernel does not give the right to use the port: errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub i32);

impl Simulator {
    /// Asks the kernel for the port: ioperm(2), which takes CAP_SYS_RAWIO. Threads made later inherit the right.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn open() -> Result<Simulator, Refused> {
        /// Number of ioperm(2) (arch/x86/entry/syscalls/syscall_64.tbl).
        const IOPERM: u64 = 173;
        let result: i64;
        // SAFETY: the system call touches no memory of ours.
        unsafe {
            asm!("syscall", inout("rax") IOPERM => result, in("rdi") u64::from(PORT), in("rsi") 4_u64, in("rdx") 1_u64,
                 out("rcx") _, out("r11") _, options(nostack));
        }
        if result == 0 { Ok(Simulator(())) } else { Err(Refused(-result as i32)) }
    }

    /// What this line of text says is promised from here on: the check program is told it behind every later power cut.
    /// At most 4096 bytes are.
    pub fn acknowledge(&self, line: &str) {
        call(ACKNOWLEDGE, line.as_ptr() as u64, line.len() as u64);
    }

    /// A moment by which scenarios name crash points: `from_marker`, `between:A-B`.
    pub fn marker(&self, number: u32) {
        call(MARKER, u64::from(number), 0);
    }

    /// A line among what the console says.
    pub fn log(&self, line: &str) {
        call(LOG, line.as_ptr() as u64, line.len() as u64);
    }
}

fn call(number: u32, first: u64, second: u64) {
    // SAFETY: the simulator reads the text that the arguments tell, and writes nothing. A `Simulator` is proof of the
    // right to use the port.
    unsafe {
        asm!("out dx, eax", inout("rax") u64::from(number) => _, in("dx") PORT, in("rdi") first, in("rsi") second,
             options(nostack, preserves_flags));
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::call;

    #[test]
    fn the_numbers_are_those_of_the_protocol() {
        assert_eq!(super::PORT, guest_protocol::PORT);
        assert_eq!(
            (super::MARKER, super::LOG, super::ACKNOWLEDGE),
            (call::MARKER, call::LOG, call::ACKNOWLEDGE)
        );
    }

    #[test]
    fn the_header_for_c_has_the_same_numbers() {
        let header = include_str!("../../workloads/pmemsim.h");
        let has = |name: &str, value: u64| {
            let decimal = std::format!("PMEMSIM_{name} = {value},");
            let hexadecimal = std::format!("PMEMSIM_{name} = {value:#06x},");
            assert!(header.contains(&decimal) || header.contains(&hexadecimal), "{decimal}");
        };
        has("PORT", u64::from(guest_protocol::PORT));
        has("MARKER", u64::from(call::MARKER));
        has("LOG", u64::from(call::LOG));
        has("ACKNOWLEDGE", u64::from(call::ACKNOWLEDGE));
        has("MAX_ACKNOWLEDGEMENT", guest_protocol::MAX_ACKNOWLEDGEMENT as u64);
    }

    extern crate std;
}
