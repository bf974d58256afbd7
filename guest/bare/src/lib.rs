//! A payload for the bare machine. It tells on the serial line what the boot loader gave it, or tries what only a
//! kernel may do, and ends by the debug-exit port. Its command line says which.
//!
//! It runs alone on the machine, at CPL 0, on identity-mapped memory: the usual reasons why code is unsafe do not
//! apply, and everything here is.

#![cfg_attr(not(test), no_std)]

mod boot;
mod cases;
mod harness;
mod memory;
mod ports;
mod start;

use boot::Given;
use harness::report::Report;
use ports::print;

/// What the payload exits with when it could not do what it was told.
const FAILED: u32 = 1;

/// Called by `start` in long mode, with EAX and EBX as the boot loader left them.
#[unsafe(no_mangle)]
extern "C" fn bare_main(magic: u32, info: u32) -> ! {
    let given = Given::read(magic, info);
    let mut words = given.arguments();
    let status = match words.next() {
        None | Some("given") => given.tell(),
        Some("exit") => words.next().and_then(|word| word.parse().ok()).unwrap_or(FAILED),
        Some("privileged") => {
            let mut report = Report { only: "", all: false };
            for word in words {
                match word.strip_prefix("only=") {
                    Some(name) => report.only = name,
                    None => report.all |= word == "all",
                }
            }
            // No interrupt of a device must come between.
            for port in [0x21, 0xa1] {
                ports::write(port, 0xff);
            }
            cases::run(&report);
            0
        }
        Some(word) => {
            print!("there is no program {word}\n");
            FAILED
        }
    };
    ports::exit(status)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    print!("panic: {info}\n");
    ports::exit(FAILED)
}
