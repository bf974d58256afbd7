//! A recording or a recovery under a debugger that can go backward, too.
//!
//! A machine does the same again from the same state, so where it was is a number of instructions since the beginning.
//! To go back is to go to the snapshot level that was opened there, and forward again by counting.

use crate::conversation::{Conversation, Limits};
use crate::record::{drive_on, prepared};
use crate::recover::{Worker, look};
use crate::replay::{ReplayError, options_of, recreate};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::target::{HostError, Laboratory, Region, Stop, Target};

/// What is debugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The scenario, from where the agent waits for its first command.
    Recording,
    /// The recovery of a finding's smallest state, from where the agent waits with what the power cut left.
    Recovery,
}

/// Why the machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is at the beginning.
    Begin,
    /// It is where it was to go.
    There,
    /// [`Debugger::stops_here`].
    Wanted,
    /// [`Debugger::interrupts`].
    Interrupted,
    /// Its history has come to an end.
    End,
}

/// Where to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// One instruction forward.
    Step,
    /// One back.
    StepBack,
    /// Forward until something stops it.
    Forward,
    /// Back until something stops it.
    Back,
    /// The debugger leaves.
    Leave,
}

/// Looks at a machine while it goes on.
pub trait Debugger<T> {
    /// Whether it is to be asked behind every instruction. That takes time.
    fn looks(&self) -> bool;
    /// The history begins again, for the first time or because it goes back.
    fn begins(&mut self, machine: &T);
    /// Whether the machine is to stand here; an instruction has just been executed. Never called when it stands.
    fn stops_here(&mut self, machine: &T) -> bool;
    /// Whether it is to stand at once.
    fn interrupts(&mut self) -> bool;
    /// It stands, behind so many instructions since the beginning.
    fn stands(&mut self, machine: &T, instructions: u64, why: Why) -> Go;
}

/// Instructions between two looks whether the debugger interrupts.
const SLICE: u64 = 1_000_000;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// To stand behind so many instructions, and to say why.
    To(u64, Why),
    Forward,
    /// To find the last place before so many instructions where it would have been stopped.
    Find(u64, Option<u64>),
    /// To begin again, with the plan then.
    Again(Restart),
    Leave,
}

/// What is done when it has begun again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    To(u64, Why),
    Find(u64),
}

/// A machine, and the debugger that looks at it.
struct Stepped<'t, T> {
    target: &'t mut T,
    debugger: &'t mut dyn Debugger<T>,
    begin: u64,
    /// Whether nothing has been executed yet since it began.
    fresh: bool,
    plan: Plan,
}

/// Debugs a part of what led to a finding. `laboratory` must be for [`crate::replay::scenario_of`] the report.
pub fn debug<L: Laboratory>(
    report: &Report,
    id: &str,
    scenario: &Scenario,
    laboratory: &L,
    part: Part,
    debugger: &mut dyn Debugger<L::Target>,
) -> Result<(), ReplayError> {
    let options = options_of(report);
    let (run, found) = recreate(report, id, scenario, laboratory, &options)?;
    match part {
        Part::Recording => {
            let mut target = prepared(laboratory)?;
            laboratory.inject_faults(&mut target);
            target.push();
            until_left(&mut target, debugger, |stepped| {
                stepped.target.rewind();
                drive_on(scenario, laboratory, stepped, None, &mut |_, _| None);
            });
        }
        Part::Recovery => {
            let (point, choice) = found
                .ok_or_else(|| HostError("there is no recovery: the guest crashed while recording".into()))?;
            let point = &run.points.points[point];
            let content = point.media.content(&choice);
            let mut worker = Worker::new(scenario, laboratory)?;
            until_left(&mut worker.target, debugger, |stepped| {
                stepped.target.rewind();
                for (address, line) in content.lines() {
                    stepped.target.write_pmem(*address, line);
                }
                stepped.target.set_poisoned(content.poisoned());
                let limits = Limits::of_recovery(&scenario.limits);
                let _ = look(scenario, point.told(), &mut Conversation::new(stepped, limits));
            });
        }
    }
    Ok(())
}

/// Lives through a history again and again, until the debugger leaves.
fn until_left<T: Target>(
    target: &mut T,
    debugger: &mut dyn Debugger<T>,
    mut live: impl FnMut(&mut Stepped<T>),
) {
    let begin = target.retired();
    let mut stepped = Stepped { target, debugger, begin, fresh: true, plan: Plan::To(0, Why::Begin) };
    loop {
        stepped.fresh = true;
        live(&mut stepped);
        match stepped.plan {
            Plan::Leave => return,
            Plan::Again(_) => (),
            Plan::Find(_, found) => stepped.found(found),
            Plan::To(..) | Plan::Forward => stepped.stand(Why::End),
        }
        // At the end there is nothing further.
        while matches!(stepped.plan, Plan::Forward | Plan::To(..)) {
            stepped.stand(Why::End);
        }
        stepped.plan = match stepped.plan {
            Plan::Again(Restart::To(place, why)) => Plan::To(place, why),
            Plan::Again(Restart::Find(before)) => Plan::Find(before, None),
            _ => return,
        };
    }
}

impl<T: Target> Stepped<'_, T> {
    fn now(&self) -> u64 {
        self.target.retired() - self.begin
    }

    /// Asks the debugger where to go.
    fn stand(&mut self, why: Why) {
        let now = self.now();
        self.plan = match self.debugger.stands(self.target, now, why) {
            Go::Step => Plan::To(now + 1, Why::There),
            Go::Forward => Plan::Forward,
            Go::StepBack if now > 0 => Plan::Again(Restart::To(now - 1, Why::There)),
            Go::Back if now > 0 && self.debugger.looks() => Plan::Again(Restart::Find(now)),
            Go::StepBack | Go::Back => Plan::Again(Restart::To(0, Why::Begin)),
            Go::Leave => Plan::Leave,
        };
    }

    /// The search for the last place where it would have been stopped is over.
    fn found(&mut self, place: Option<u64>) {
        self.plan = Plan::Again(match place {
            Some(place) => Restart::To(place, Why::Wanted),
            None => Restart::To(0, Why::Begin),
        });
    }

    /// Whether it goes on from here, once everything that the plan says has been done.
    fn goes_on(&mut self) -> bool {
        loop {
            match self.plan {
                Plan::To(place, why) if self.now() == place => self.stand(why),
                Plan::Find(before, found) if self.now() >= before => self.found(found),
                Plan::Again(_) | Plan::Leave => return false,
                _ => return true,
            }
        }
    }

    /// Instructions until the next look.
    fn step(&self) -> u64 {
        let looks = self.debugger.looks() && matches!(self.plan, Plan::Forward | Plan::Find(..));
        match self.plan {
            _ if looks => 1,
            Plan::To(place, _) => (place - self.now()).min(SLICE),
            _ => SLICE,
        }
    }

    /// Behind instructions that were executed: whether the debugger wants it to stand.
    fn look(&mut self) {
        let now = self.now();
        match &mut self.plan {
            Plan::Forward if self.debugger.looks() && self.debugger.stops_here(self.target) => {
                self.stand(Why::Wanted);
            }
            Plan::Find(before, found) if now < *before && self.debugger.stops_here(self.target) => {
                *found = Some(now);
            }
            _ => (),
        }
        if self.plan == Plan::Forward && self.debugger.interrupts() {
            self.stand(Why::Interrupted);
        }
    }
}

impl<T: Target> Target for Stepped<'_, T> {
    fn run(&mut self, budget: u64) -> Stop {
        let mut left = budget;
        if std::mem::take(&mut self.fresh) {
            self.debugger.begins(self.target);
        }
        loop {
            if !self.goes_on() {
                return Stop::Ended("the debugger goes elsewhere");
            }
            if left == 0 {
                return Stop::Budget;
            }
            let (before, step) = (self.target.retired(), self.step().min(left));
            let stop = self.target.run(step);
            let retired = self.target.retired() - before;
            left -= retired.min(left);
            if retired > 0 {
                self.look();
            }
            if stop != Stop::Budget {
                return stop;
            }
        }
    }

    fn retired(&self) -> u64 {
        self.target.retired()
    }
    fn answer(&mut self, value: i64) {
        self.target.answer(value);
    }
    fn read_guest(&self, address: u64, buffer: &mut [u8]) -> bool {
        self.target.read_guest(address, buffer)
    }
    fn write_guest(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.target.write_guest(address, bytes)
    }
    fn translate(&self, address: u64) -> Option<u64> {
        self.target.translate(address)
    }
    fn regions(&self) -> Vec<Region> {
        self.target.regions()
    }
    fn read_pmem(&self, address: u64, buffer: &mut [u8]) {
        self.target.read_pmem(address, buffer);
    }
    fn write_pmem(&mut self, address: u64, bytes: &[u8]) {
        self.target.write_pmem(address, bytes);
    }
    fn set_poisoned(&mut self, lines: &[u64]) {
        self.target.set_poisoned(lines);
    }
    fn is_poisoned(&self) -> bool {
        self.target.is_poisoned()
    }
    fn poison(&mut self, address: u64, len: u64) -> Result<(), HostError> {
        self.target.poison(address, len)
    }
    fn push(&mut self) {
        self.target.push();
    }
    fn rewind(&mut self) -> usize {
        self.target.rewind()
    }
    fn pop(&mut self) -> usize {
        self.target.pop()
    }
    fn changed(&self) -> Vec<u64> {
        self.target.changed()
    }
    fn set_tracing(&mut self, on: bool) {
        self.target.set_tracing(on);
    }
    fn set_store_buffer_events(&mut self, on: bool) {
        self.target.set_store_buffer_events(on);
    }
    fn take_events(&mut self) -> Vec<persist::Event> {
        self.target.take_events()
    }
    fn event_count(&self) -> u64 {
        self.target.event_count()
    }
    fn stop_at_event(&mut self, seq: Option<u64>) {
        self.target.stop_at_event(seq);
    }
    fn set_watched(&mut self, addresses: &[u64]) {
        self.target.set_watched(addresses);
    }
    fn take_console(&mut self) -> Vec<u8> {
        self.target.take_console()
    }
}
