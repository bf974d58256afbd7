//! `pmemsim replay --console`: a shell in the recovered machine, on this terminal.

use anyhow::bail;
use explore::Scenario;
use explore::console::PROGRAMS;
use explore::machines::Machines;
use images::Cache;
use vmm::Stop;

use crate::boot::{LOOK, SLICE, WHILE_TYPING};
use crate::say::{self, note};
use crate::terminal::{self, Input, Key};
use crate::typing::Typing;

/// Recovers these media in a machine like the scenario's that has a shell, too, and stays in it until it ends.
pub fn open(scenario: &Scenario, seed: u64, media: &[u8], poisoned: &[u64]) -> anyhow::Result<()> {
    let mut scenario = scenario.clone();
    let there = |name: &&str| scenario.machine.programs.iter().any(|known| known == name);
    let missing: Vec<String> =
        PROGRAMS.iter().filter(|name| !there(name)).map(|name| (*name).to_owned()).collect();
    scenario.machine.programs.extend(missing);
    let machines = Machines::prepare(&scenario, &Cache::open()?, seed)?;
    let (mut machine, said) = explore::console::open(&scenario, &machines, media, poisoned)?;
    say::print_text(&said)?;
    note!("--- a shell in the recovered machine; exit leaves it");
    let mut input = Input::open();
    let mut typing = Typing::new(true);
    loop {
        let fed = typing.feed(&mut machine);
        let stop = machine.run(if typing.is_empty() { SLICE } else { WHILE_TYPING });
        say::print_bytes(&machine.take_console())?;
        let mut keys = input.typed();
        match stop {
            Stop::Budget | Stop::Event(_) | Stop::Symbol(_) | Stop::DebugExit(_) => {}
            // The shell has ended.
            Stop::Call(_) | Stop::PowerOff => return Ok(()),
            Stop::Idle if keys.is_empty() && !fed => match input.wait(LOOK) {
                Some(typed) => keys = typed,
                None if typing.has_ended() => return Ok(()),
                None => {}
            },
            Stop::Idle => {}
            Stop::Reset => bail!("the guest reset the machine"),
            Stop::Shutdown => bail!("triple fault at {:#x}", machine.cpu_state().rip()),
            Stop::Unsupported { rip, what } => bail!("the guest needs {what} at {rip:#x}"),
            Stop::Engine(why) => bail!("the engine cannot go on: {why}"),
            Stop::Undecided { .. } | Stop::UndecidedDevice { .. } => bail!("something is undecided"),
        }
        for key in keys {
            match key {
                Key::Bytes(bytes) => typing.add(&bytes),
                Key::Quit => return Ok(()),
                Key::PowerCut | Key::Help => terminal::help(),
            }
        }
        if input.has_ended() {
            typing.end();
        }
    }
}
