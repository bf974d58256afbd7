//! Without a simulator: does the commands in /script (postcard, a list of them) and prints what came of each, so that
//! the agent can be tried in any virtual machine. Digests of file contents are 64-bit FNV-1a.

use std::fs;

use guest_protocol::Command;

use crate::commands::Guest;
use crate::host::Host;
use crate::sys;

pub fn run(host: &mut Host) -> Result<(), String> {
    let bytes =
        fs::read("/script").map_err(|_| "nobody answers at the control port, and there is no /script")?;
    let commands: Vec<Command> = postcard::from_bytes(&bytes).map_err(|error| format!("/script: {error}"))?;
    let mut guest = Guest::default();
    for command in &commands {
        let reply = guest.execute(host, command);
        sys::reap();
        println!("script: {command:?} -> {reply:?}");
    }
    println!("script: end");
    Ok(())
}

/// FNV-1a of the bytes.
pub fn digest(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
