//! One life of a booted machine, from its start to its end or to a power cut.

use std::str::FromStr;

use anyhow::bail;
use pmemsim::{PowerSupply, Survives};
use vmm::{Engine, Machine, Stop};

use crate::boot::{Boot, LOOK, SLICE, WHILE_TYPING};
use crate::interrupt;
use crate::say::{self, note};
use crate::terminal::{self, Input, Key};
use crate::typing::Typing;

/// How it has ended.
pub enum Ended {
    /// By itself, or because it was asked to: with this exit code.
    Exit(u8),
    /// By a power cut.
    PowerCut,
}

/// Where the power is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutAt {
    /// Behind so many events of persistent memory.
    Event(u64),
    /// Behind so many instructions.
    Instruction(u64),
    /// When the guest has written this to its console.
    Output(String),
}

impl FromStr for CutAt {
    type Err = String;

    fn from_str(text: &str) -> Result<CutAt, String> {
        let bad =
            || format!("{text:?} is no place: write event:N, instruction:N or output:TEXT, with N from 1");
        let (kind, value) = text.split_once(':').ok_or_else(bad)?;
        let number = || value.parse().ok().filter(|number| *number > 0).ok_or_else(bad);
        match kind {
            "event" => Ok(CutAt::Event(number()?)),
            "instruction" => Ok(CutAt::Instruction(number()?)),
            "output" if !value.is_empty() => Ok(CutAt::Output(value.to_owned())),
            _ => Err(bad()),
        }
    }
}

/// A machine that runs, and what is known of it.
pub struct Session<'m> {
    machine: &'m mut Machine,
    cut_at: Option<CutAt>,
    typing: &'m mut Typing,
    /// Knows what survives, where that may be asked.
    power: Option<PowerSupply>,
    /// The end of what the guest has said.
    said: String,
}

impl<'m> Session<'m> {
    /// Of a machine that has not run. Events are followed if power cuts are `wanted`.
    pub fn new(
        machine: &'m mut Machine,
        typing: &'m mut Typing,
        cut_at: Option<CutAt>,
        wanted: bool,
    ) -> Session<'m> {
        let power = wanted.then(|| {
            machine.set_tracing(true);
            PowerSupply::of(machine)
        });
        if let Some(CutAt::Event(number)) = cut_at {
            machine.stop_at_event(Some(number - 1));
        }
        Session { machine, cut_at, typing, power, said: String::new() }
    }

    /// The content of every region behind a power cut.
    pub fn survivors(&self, survives: Survives) -> Vec<Vec<u8>> {
        self.power.as_ref().map(|power| power.media(survives)).unwrap_or_default()
    }

    /// Runs until it ends.
    pub fn run(&mut self, boot: &Boot, input: &mut Input) -> anyhow::Result<Ended> {
        let mut left = boot.timeout.unwrap_or(u64::MAX);
        loop {
            let fed = self.typing.feed(self.machine);
            let slice = if self.typing.is_empty() { SLICE } else { WHILE_TYPING };
            let slice = left.min(slice).min(self.until_cut());
            let before = spent(self.machine);
            let stop = self.machine.run(slice);
            left = left.saturating_sub(spent(self.machine) - before);
            self.follow()?;
            let mut keys = input.typed();
            if self.is_cut(&stop) {
                return Ok(Ended::PowerCut);
            }
            match stop {
                Stop::Budget | Stop::Idle if interrupt::asked() => {
                    bail!("interrupted after {}", limit(self.machine))
                }
                Stop::Budget if left == 0 => bail!("stopped after {}", limit(self.machine)),
                Stop::Budget | Stop::Event(_) | Stop::Symbol(_) => {}
                // Nobody is at the control port: the agent does what /script says.
                Stop::Call(_) => {}
                Stop::DebugExit(value) if boot.debug_exit => return Ok(Ended::Exit((2 * value + 1) as u8)),
                Stop::DebugExit(_) => {}
                Stop::PowerOff => return Ok(Ended::Exit(0)),
                Stop::Reset => bail!("the guest reset the machine"),
                Stop::Shutdown => bail!("triple fault at {:#x}", self.machine.cpu_state().rip()),
                Stop::Idle if keys.is_empty() && !fed => match input.wait(LOOK) {
                    Some(typed) => keys = typed,
                    // It is told so first.
                    None if !self.typing.has_ended() => {}
                    None => bail!("the guest is halted for good"),
                },
                Stop::Idle => {}
                Stop::Engine(why) => bail!("the engine cannot go on: {why}"),
                Stop::Undecided { .. } | Stop::UndecidedDevice { .. } => bail!("something is undecided"),
                Stop::Unsupported { rip, what } => bail!("the guest needs {what} at {rip:#x}"),
            }
            for key in keys {
                match key {
                    Key::Bytes(bytes) => self.typing.add(&bytes),
                    Key::Quit => return Ok(Ended::Exit(0)),
                    Key::PowerCut if self.power.is_some() => return Ok(Ended::PowerCut),
                    Key::PowerCut => {
                        note!("\r\npmemsim: KVM does not tell what is in flight: no power cuts\r")
                    }
                    Key::Help => terminal::help(),
                }
            }
            if input.has_ended() {
                self.typing.end();
            }
        }
    }

    /// Takes what the machine has said and done.
    fn follow(&mut self) -> anyhow::Result<()> {
        let said = self.machine.take_console();
        say::print_bytes(&said)?;
        // They are in the hash, too.
        let events = self.machine.take_events();
        if let Some(power) = &mut self.power {
            events.iter().for_each(|event| power.apply(event));
        }
        if let Some(CutAt::Output(text)) = &self.cut_at {
            self.said.push_str(&String::from_utf8_lossy(&said));
            // What may still become the text.
            let keep = self.said.len().saturating_sub(text.len() + said.len());
            let keep = (keep..=self.said.len()).find(|at| self.said.is_char_boundary(*at)).unwrap_or(0);
            self.said.drain(..keep);
        }
        Ok(())
    }

    /// Instructions until the power is cut, if that is where it is.
    fn until_cut(&self) -> u64 {
        match self.cut_at {
            Some(CutAt::Instruction(number)) => number.saturating_sub(self.machine.retired()).max(1),
            _ => u64::MAX,
        }
    }

    fn is_cut(&self, stop: &Stop) -> bool {
        match &self.cut_at {
            Some(CutAt::Event(number)) => matches!(stop, Stop::Event(seq) if *seq + 1 >= *number),
            Some(CutAt::Instruction(number)) => self.machine.retired() >= *number,
            Some(CutAt::Output(text)) => self.said.contains(text.as_str()),
            None => false,
        }
    }
}

/// What --timeout counts.
fn spent(machine: &Machine) -> u64 {
    match machine.engine() {
        Engine::Software => machine.retired(),
        Engine::Kvm => machine.time(),
    }
}

fn limit(machine: &Machine) -> String {
    match machine.engine() {
        Engine::Software => format!("{} instructions", machine.retired()),
        Engine::Kvm => format!("{} ms", machine.time() / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_power_cuts_are_read_and_nonsense_is_refused() {
        assert_eq!("event:7".parse(), Ok(CutAt::Event(7)));
        assert_eq!("instruction:1000".parse(), Ok(CutAt::Instruction(1000)));
        assert_eq!("output:# done: 1".parse(), Ok(CutAt::Output("# done: 1".to_owned())));
        for text in ["", "event", "event:", "event:0", "event:x", "output:", "key:p"] {
            assert!(text.parse::<CutAt>().is_err(), "{text}");
        }
    }
}
