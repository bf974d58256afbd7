//! A machine whose agent does what the benchmark wants.

use std::time::{Duration, Instant};

use anyhow::bail;
use explore::machines::{COMMAND_LINE, COPY_FUNCTIONS};
use guest_protocol::{Command, Reply, call};
use images::{Initramfs, Kernel, PMEM_MODULES};
use vmm::{BootProtocol, Machine, MachineConfig, Nvdimm, Stop, Symbols};

use super::clock;

/// Instructions that nothing here needs.
const BUDGET: u64 = 20_000_000_000;

/// Instructions, and the time they took.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub instructions: u64,
    /// On a processor of the host.
    pub time: Duration,
    /// By the clock on the wall.
    pub wall: Duration,
}

impl Work {
    /// Million instructions a second, by CPU time.
    pub fn mips(&self) -> f64 {
        self.instructions as f64 / 1e6 / self.time.as_secs_f64()
    }
}

/// The machine of the benchmark: one NVDIMM of 64 MiB, or none.
pub fn config(kernel: &Kernel, nvdimm: bool) -> anyhow::Result<MachineConfig> {
    let mut initramfs = Initramfs::new();
    initramfs.modules(kernel.modules(&PMEM_MODULES)?);
    let nvdimms = nvdimm.then(|| Nvdimm { size: 64 << 20, ..Nvdimm::default() });
    Ok(MachineConfig {
        kernel: kernel.vmlinux.clone(),
        initrd: initramfs.finish(),
        modules: Vec::new(),
        command_line: COMMAND_LINE.to_owned(),
        memory: 256 << 20,
        cpus: 1,
        nvdimms: nvdimms.into_iter().collect(),
        virtio_pmem: Vec::new(),
        legacy_pmem: Vec::new(),
        seed: 1,
        protocol: BootProtocol::default(),
    })
}

pub struct Guest {
    machine: Machine,
    traced: bool,
    last: (u64, u64),
}

impl Guest {
    /// Makes the machine and boots it to the agent's first call, its modules loaded. With `traced` its events are
    /// recorded from the first instruction on.
    pub fn boot(config: &MachineConfig, traced: bool) -> anyhow::Result<(Guest, Work)> {
        let (started, wall) = (clock::of_this_thread()?, Instant::now());
        let mut machine = Machine::new(config)?;
        machine.set_tracing(traced);
        let mut guest = Guest { machine, traced, last: (0, 0) };
        guest.run_to(call::HELLO)?;
        let instructions = guest.machine.retired();
        let work = Work { instructions, time: clock::of_this_thread()? - started, wall: wall.elapsed() };
        Ok((guest, work))
    }

    /// Goes on to where the agent waits for commands. A traced machine then tells the kernel's copies into persistent
    /// memory apart, as recording does.
    pub fn ready(&mut self) -> anyhow::Result<()> {
        let mut kallsyms = Vec::new();
        loop {
            self.machine.answer(0);
            let (number, (first, second)) = self.next_call()?;
            match number {
                call::KALLSYMS => {
                    let start = kallsyms.len();
                    kallsyms.resize(start + second as usize, 0);
                    self.machine.read_guest(first, &mut kallsyms[start..])?;
                }
                call::SNAPSHOT_HERE => break,
                other => bail!("the agent makes call {other} before it is ready"),
            }
        }
        if self.traced {
            let symbols = Symbols::from_kallsyms(&String::from_utf8_lossy(&kallsyms));
            let copies: Vec<_> = COPY_FUNCTIONS.iter().filter_map(|name| symbols.range(name)).collect();
            self.machine.set_copy_functions(&copies);
        }
        self.machine.answer(0);
        Ok(())
    }

    /// Has one command done, and measures from the agent's taking it to its reply.
    pub fn perform(&mut self, command: &Command) -> anyhow::Result<Work> {
        self.run_to(call::NEXT)?;
        let message = postcard::to_stdvec(command)?;
        self.machine.write_guest(self.last.0, &message)?;
        self.machine.answer(message.len() as i64);
        let (started, wall, before) = (clock::of_this_thread()?, Instant::now(), self.machine.retired());
        self.run_to(call::DONE)?;
        let instructions = self.machine.retired() - before;
        let work = Work { instructions, time: clock::of_this_thread()? - started, wall: wall.elapsed() };
        let mut reply = vec![0; self.last.1 as usize];
        self.machine.read_guest(self.last.0, &mut reply)?;
        self.machine.answer(0);
        self.machine.take_events();
        match postcard::from_bytes(&reply)? {
            Reply::Ok => Ok(work),
            other => bail!("{command:?} ends with {other:?}"),
        }
    }

    fn run_to(&mut self, wanted: u32) -> anyhow::Result<()> {
        match self.next_call()? {
            (number, arguments) if number == wanted => {
                self.last = arguments;
                Ok(())
            }
            (other, _) => bail!("the agent makes call {other} instead of {wanted}"),
        }
    }

    fn next_call(&mut self) -> anyhow::Result<(u32, (u64, u64))> {
        match self.machine.run(BUDGET) {
            Stop::Call(call) => Ok((call.number, (call.first, call.second))),
            other => bail!("the agent does not get there: {other:?}"),
        }
    }
}
