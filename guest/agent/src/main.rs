//! The first program of the guest: prepares it, then does what the simulator wants.
//!
//! Single-threaded on purpose, but for `race.rs`. Without the simulator's control port (in QEMU, say) it does the commands in /script
//! and prints the replies: see `script.rs`.

mod boot;
mod commands;
mod exercise;
mod files;
mod host;
mod maps;
mod nd;
mod observe;
mod programs;
mod race;
mod script;
mod signals;
mod straight;
mod sys;

use guest_protocol::{Command, call};
use host::Host;

fn main() {
    if let Err(why) = run() {
        println!("agent: {why}");
    }
    sys::power_off();
}

#[inline(never)]
fn run() -> Result<(), String> {
    boot::mount_system()?;
    boot::load_modules()?;
    sys::allow_ports().map_err(|error| format!("the control port cannot be used: {error}"))?;
    signals::install();
    let mut host = Host::new().map_err(|error| format!("no memory for messages: {error}"))?;
    if !host.hello()? {
        return script::run(&mut host);
    }
    host.send_symbols()?;
    host.call(call::SNAPSHOT_HERE, 0, 0);
    let mut guest = commands::Guest::default();
    loop {
        let command = host.next()?;
        let last = command == Command::PowerOff;
        let reply = guest.execute(&mut host, &command);
        sys::reap();
        host.done(&reply);
        if last {
            return Ok(());
        }
    }
}
