//! A machine with a hook at every event of persistent memory.

use std::ops::Range;

use persist::Event;
use vmm::{FlushAction, FlushFault, MachineConfig, Stop};

use super::Error;
use super::builder::Builder;
use super::power::{PowerSupply, Survives};

/// What is to happen behind an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The machine goes on.
    Continue,
    /// The power goes.
    Cut,
    /// The machine goes on, and the next flush that a guest asks of any virtio-pmem device fails.
    FailNextFlush,
}

/// Why a machine has stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The hook has cut the power behind the event with this number.
    Cut(u64),
    /// The guest has switched the machine off, or reset it, or halted it for ever.
    Off,
    /// It has executed as many instructions as it may: [`Builder::limit`].
    Limit,
}

impl End {
    /// Whether the hook has cut the power.
    pub fn is_cut(&self) -> bool {
        matches!(self, End::Cut(_))
    }
}

/// A machine with persistent memory, on the software engine: the same inputs give the same events.
pub struct Machine {
    inner: vmm::Machine,
    config: MachineConfig,
    power: PowerSupply,
    console: Vec<u8>,
    limit: u64,
}

impl Machine {
    /// A machine to be described.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A machine with this content of its regions. Regions that have none are zero.
    pub(super) fn new(config: MachineConfig, media: &[Vec<u8>], limit: u64) -> Result<Machine, Error> {
        let mut inner = vmm::Machine::new(&config)?;
        let regions = inner.regions().to_vec();
        for (number, (region, image)) in regions.iter().zip(media).enumerate() {
            if !image.is_empty() && image.len() as u64 != region.size {
                return Err(Error::Image { region: number, size: region.size, image: image.len() as u64 });
            }
            inner.write_pmem(region.base, image);
        }
        inner.set_tracing(true);
        Ok(Machine { power: PowerSupply::of(&inner), inner, config, console: Vec::new(), limit })
    }

    /// Runs until the hook cuts the power or the guest ends. The hook is called behind every event, in order.
    ///
    /// # Errors
    /// [`Error::Guest`] when the guest needs what the machine does not have.
    pub fn run(&mut self, mut on_event: impl FnMut(&Event) -> Then) -> Result<End, Error> {
        loop {
            self.inner.stop_at_event(Some(self.inner.event_count()));
            let left = self.limit.saturating_sub(self.inner.retired());
            let stop = self.inner.run(left);
            self.console.extend(self.inner.take_console());
            for event in self.inner.take_events() {
                self.power.apply(&event);
                match on_event(&event) {
                    Then::Continue => (),
                    Then::Cut => return Ok(End::Cut(event.seq)),
                    Then::FailNextFlush => self.fail_next_flush(),
                }
            }
            match stop {
                // Nobody is at the control port: the agent does what its script says.
                Stop::Event(_) | Stop::Symbol(_) | Stop::Call(_) | Stop::DebugExit(_) => (),
                Stop::PowerOff | Stop::Reset | Stop::Idle => return Ok(End::Off),
                Stop::Budget => return Ok(End::Limit),
                Stop::Shutdown => return Err(Error::Guest("triple fault".to_owned())),
                Stop::Unsupported { rip, what } => return Err(Error::Guest(format!("{what} at {rip:#x}"))),
                Stop::Engine(why) => return Err(Error::Guest(why)),
                Stop::Undecided { .. } | Stop::UndecidedDevice { .. } => {
                    return Err(Error::Guest("something is undecided".to_owned()));
                }
            }
        }
    }

    fn fail_next_flush(&mut self) {
        // Counted from 1 from now on; regions of other kinds take no faults.
        let fault = FlushFault { which: Some(1), action: FlushAction::Fail };
        for region in 0..self.inner.regions().len() {
            self.inner.set_flush_faults(region, &[fault]);
        }
    }

    /// What the guest has written to its serial console.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&self.console).into_owned()
    }

    /// Guest-physical ranges of the regions of persistent memory.
    pub fn regions(&self) -> &[Range<u64>] {
        self.power.regions()
    }

    /// The content of every region if the power goes now.
    pub fn media(&self, survives: Survives) -> Vec<Vec<u8>> {
        self.power.media(survives)
    }

    /// The same machine, switched on again with what the power cut has left.
    ///
    /// # Errors
    /// [`Error::Machine`] when the host has no memory for it.
    pub fn reboot(self, survives: Survives) -> Result<Machine, Error> {
        let media = self.media(survives);
        Machine::new(self.config, &media, self.limit)
    }
}
