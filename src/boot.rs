//! `pmemsim boot`: a kernel or another payload with its serial console on the terminal.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::bail;
use guest_protocol::Command;
use images::{Cache, Initramfs, Kernel};
use vmm::{BootProtocol, Engine, Machine, MachineConfig, Nvdimm, Stop, VirtioPmem};

use crate::engine::{self, EngineName};
use crate::failure::Usage;
use crate::interrupt;
use crate::payload::{self, Payload};
use crate::size::Size;

/// What the kernel is told when nothing else is asked for: the console, no self tests that cost a second, and to reset by
/// ACPI: with hardware-reduced ACPI it would try EFI, which is not there (reboot_init in arch/x86/kernel/reboot.c).
const COMMAND_LINE: &str = "console=ttyS0 cryptomgr.notests=1 reboot=acpi";
/// Instructions between two looks at the terminal.
pub const SLICE: u64 = 5_000_000;
/// Between two looks whether the user has interrupted a guest that waits for input.
pub const LOOK: Duration = Duration::from_millis(50);

/// Boots a kernel or another payload with its serial console on this terminal; the guest's power-off ends it.
#[derive(clap::Args)]
pub struct Boot {
    /// debian-6.1, debian-6.12, debian-6.1@VERSION, or a path (with a slash) to a vmlinux or bzImage, or to any ELF file
    /// with a multiboot header or a PVH entry
    #[arg(long, default_value = "debian-6.1")]
    kernel: String,
    /// What executes the processors: software (deterministic), or kvm (the host's processor, in real time)
    #[arg(long, value_enum, default_value_t)]
    engine: EngineName,
    /// With --engine kvm: instructions that the software processor executes at most when it does what KVM cannot [default:
    /// 1, but all of supervisor mode where KVM emulates that]
    #[arg(long)]
    assist: Option<u64>,
    /// Directory below which the modules of a kernel given by its path are
    #[arg(long)]
    modules: Option<PathBuf>,
    /// Initramfs; without it one with the pmem modules and a shell from Debian is made. The first module of a payload
    /// that is no Linux kernel
    #[arg(long)]
    initrd: Option<PathBuf>,
    /// "FILE ARGUMENTS": a module for a payload that is no Linux kernel; may be given more than once
    #[arg(long)]
    module: Vec<String>,
    /// More for the kernel command line; all of it for a payload that is no Linux kernel, but for the name of its file
    #[arg(long, default_value = "")]
    append: String,
    /// RAM
    #[arg(long, default_value = "256M")]
    memory: Size,
    /// Processors
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    cpus: u8,
    /// Size of an NVDIMM, zeroed; may be given more than once
    #[arg(long)]
    nvdimm: Vec<Size>,
    /// Size of the memory of a virtio-pmem device, zeroed; may be given more than once
    #[arg(long)]
    virtio_pmem: Vec<Size>,
    /// Size of legacy persistent memory (e820 type 12), zeroed; may be given more than once
    #[arg(long)]
    pmem_legacy: Vec<Size>,
    /// Flush hint addresses of each NVDIMM
    #[arg(long, default_value_t = 1)]
    flush_hints: u32,
    /// Each NVDIMM has a label area, empty
    #[arg(long)]
    labels: bool,
    /// Everything random in the guest comes from here
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Enter by PVH instead of the 64-bit boot protocol of Linux, or multiboot
    #[arg(long)]
    pvh: bool,
    /// Stop after so many instructions; with --engine kvm, after so many nanoseconds
    #[arg(long)]
    timeout: Option<u64>,
    /// Say at the end, on the standard error output, a hash of what the machine did: the order of the processors and
    /// every event of persistent memory
    #[arg(long)]
    trace_hash: bool,
    /// Exit with the value that the guest writes to port 0xf4: 2 * value + 1
    #[arg(long)]
    debug_exit: bool,
    /// Programs from Debian to put into the initramfs
    #[arg(long, value_delimiter = ',', default_value = "dash,coreutils")]
    programs: Vec<String>,
}

impl Boot {
    /// Runs until the guest powers off. Returns the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        let config = self.config()?;
        let mut machine = Machine::on(self.engine.into(), &config).map_err(|error| match error {
            vmm::Error::Payload(_) => anyhow::Error::from(error).context(format!("--kernel {}", self.kernel)),
            other => other.into(),
        })?;
        if let Some(instructions) = self.assist {
            machine.set_assist(instructions);
        }
        if self.trace_hash {
            machine.set_tracing(true);
            machine.start_trace_hash();
        }
        let outcome = self.until_the_end(&mut machine);
        if let Some(counts) = machine.kvm_counts() {
            eprintln!("{}", engine::summary(&machine, counts));
        }
        if let Some(hash) = machine.trace_hash() {
            eprintln!("trace hash {hash} after {} instructions", machine.retired());
        }
        outcome
    }

    fn until_the_end(&self, machine: &mut Machine) -> anyhow::Result<u8> {
        interrupt::listen()?;
        let input = keyboard();
        let mut left = self.timeout.unwrap_or(u64::MAX);
        loop {
            let slice = left.min(SLICE);
            let before = spent(machine);
            let stop = machine.run(slice);
            left = left.saturating_sub(spent(machine) - before);
            // They are in the hash.
            machine.take_events();
            std::io::stdout().write_all(&machine.take_console())?;
            std::io::stdout().flush()?;
            while let Ok(bytes) = input.try_recv() {
                machine.type_console(&bytes);
            }
            match stop {
                Stop::Budget | Stop::Idle if interrupt::asked() => {
                    bail!("interrupted after {}", limit(machine))
                }
                Stop::Budget if left == 0 => bail!("stopped after {}", limit(machine)),
                Stop::Budget | Stop::Event(_) | Stop::Symbol(_) => {}
                // Nobody is at the control port: the agent does what /script says.
                Stop::Call(_) => {}
                Stop::DebugExit(value) if self.debug_exit => return Ok((2 * value + 1) as u8),
                Stop::DebugExit(_) => {}
                Stop::PowerOff => return Ok(0),
                Stop::Reset => bail!("the guest reset the machine"),
                Stop::Shutdown => bail!("triple fault at {:#x}", machine.cpu_state().rip()),
                Stop::Idle => match input.recv_timeout(LOOK) {
                    Ok(bytes) => {
                        machine.type_console(&bytes);
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the guest is halted for good"),
                },
                Stop::Engine(why) => bail!("the engine cannot go on: {why}"),
                Stop::Undecided { .. } | Stop::UndecidedDevice { .. } => bail!("something is undecided"),
                Stop::Unsupported { rip, what } => bail!("the guest needs {what} at {rip:#x}"),
            }
        }
    }

    fn config(&self) -> anyhow::Result<MachineConfig> {
        match Payload::find(&self.kernel, self.pvh)? {
            Some(payload) => self.payload(payload),
            None => self.linux(),
        }
    }

    fn linux(&self) -> anyhow::Result<MachineConfig> {
        if !self.module.is_empty() {
            return Err(Usage("--module: Linux takes no modules; give an --initrd".to_owned()).into());
        }
        let cache = Cache::open()?;
        let kernel = match &self.modules {
            Some(_) => Kernel::from_file(self.kernel.as_ref(), self.modules.as_deref())?,
            None => Kernel::get(&cache, &self.kernel)?,
        };
        let initrd = match &self.initrd {
            Some(path) => std::fs::read(path)
                .map_err(|why| Usage(format!("--initrd {}: {why}; give a cpio archive", path.display())))?,
            None => self.shell(&cache, &kernel)?,
        };
        Ok(MachineConfig {
            kernel: kernel.vmlinux,
            initrd,
            command_line: format!("{COMMAND_LINE} {}", self.append),
            protocol: if self.pvh { BootProtocol::Pvh } else { BootProtocol::Linux64 },
            ..self.machine()
        })
    }

    /// A payload gets what it is given and nothing else.
    fn payload(&self, payload: Payload) -> anyhow::Result<MachineConfig> {
        if self.modules.is_some() {
            return Err(Usage(
                "--modules: the payload is no Linux kernel; did you mean --module?".to_owned(),
            )
            .into());
        }
        let initrd = self.initrd.iter().map(|path| payload::module("--initrd", &path.display().to_string()));
        let modules = self.module.iter().map(|text| payload::module("--module", text));
        Ok(MachineConfig {
            modules: initrd.chain(modules).collect::<Result<_, _>>()?,
            command_line: payload.command_line(&self.kernel, &self.append),
            protocol: payload.protocol,
            kernel: payload.bytes,
            ..self.machine()
        })
    }

    /// The machine, without what runs on it.
    fn machine(&self) -> MachineConfig {
        let nvdimm = |size: &Size| Nvdimm {
            size: size.0,
            flush_hints: self.flush_hints,
            labels: self.labels,
            ..Nvdimm::default()
        };
        let device = |size: &Size| VirtioPmem { size: size.0, faults: Vec::new() };
        MachineConfig {
            kernel: Vec::new(),
            initrd: Vec::new(),
            modules: Vec::new(),
            command_line: String::new(),
            memory: self.memory.0,
            cpus: self.cpus,
            nvdimms: self.nvdimm.iter().map(nvdimm).collect(),
            virtio_pmem: self.virtio_pmem.iter().map(device).collect(),
            legacy_pmem: self.pmem_legacy.iter().map(|size| size.0).collect(),
            seed: self.seed,
            protocol: BootProtocol::default(),
        }
    }

    /// An initramfs with the pmem modules, the programs, and a script for the agent: attach the regions, run a shell,
    /// power off.
    fn shell(&self, cache: &Cache, kernel: &Kernel) -> anyhow::Result<Vec<u8>> {
        let mut initramfs = Initramfs::new();
        let modules = images::pmem_modules(!self.virtio_pmem.is_empty(), !self.pmem_legacy.is_empty());
        initramfs.modules(kernel.modules(&modules)?);
        for program in &self.programs {
            initramfs.program(cache, program)?;
        }
        let regions = self.nvdimm.len() + self.virtio_pmem.len() + self.pmem_legacy.len();
        let mut script: Vec<Command> =
            (0..regions).map(|region| Command::Attach { region: region as u32 }).collect();
        script.push(Command::Exec { argv: vec!["/bin/dash".to_owned(), "-i".to_owned()] });
        initramfs.file("/script", 0o644, postcard::to_stdvec(&script)?)?;
        Ok(initramfs.finish())
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

/// What is typed on the terminal, line by line.
pub fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(len @ 1..) = std::io::stdin().read(&mut buffer) {
            if sender.send(buffer[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}
