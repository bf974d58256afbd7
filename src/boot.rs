//! `pmemsim boot`: a kernel or another payload with its serial console on the terminal.

use std::path::PathBuf;
use std::time::Duration;

use guest_protocol::Command;
use images::{Cache, Initramfs, Kernel};
use pmemsim::Survives;
use vmm::{BootProtocol, Machine, MachineConfig, Nvdimm, VirtioPmem};

use crate::engine::{self, EngineName};
use crate::failure::Usage;
use crate::interrupt;
use crate::media::{self, Backing};
use crate::payload::{self, Payload};
use crate::say::note;
use crate::session::{CutAt, Ended, Session};
use crate::size::Size;
use crate::terminal::Input;
use crate::typing::Typing;

/// What the kernel is told when nothing else is asked for: the console, no self tests that cost a second, and to reset by
/// ACPI: with hardware-reduced ACPI it would try EFI, which is not there (reboot_init in arch/x86/kernel/reboot.c).
const COMMAND_LINE: &str = "console=ttyS0 cryptomgr.notests=1 reboot=acpi";
/// Instructions between two looks at the terminal.
pub const SLICE: u64 = 5_000_000;
/// Instructions between two looks at the guest while something is typed to it.
pub const WHILE_TYPING: u64 = 200_000;
/// Between two looks whether the user has interrupted a guest that waits for input.
pub const LOOK: Duration = Duration::from_millis(50);

/// Boots a kernel or another payload with its serial console on this terminal; the guest's power-off ends it. Ctrl-A h says
/// what can be typed besides.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  pmemsim boot --nvdimm 64M                                     # a shell; Ctrl-A p cuts the power, Ctrl-A x ends it
  pmemsim boot --nvdimm file=disk.img --power-cut-at output:done
  pmemsim boot --kernel ../linux/vmlinux --modules ../linux --virtio-pmem 64M")]
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
    /// An NVDIMM: a size, zeroed; file=PATH, which gets what is there at the end; file=PATH,copy, which stays as it is. May
    /// be given more than once
    #[arg(long, value_name = "SIZE|file=PATH[,copy]")]
    nvdimm: Vec<Backing>,
    /// The memory of a virtio-pmem device, as for --nvdimm; may be given more than once
    #[arg(long, value_name = "SIZE|file=PATH[,copy]")]
    virtio_pmem: Vec<Backing>,
    /// Legacy persistent memory (e820 type 12), as for --nvdimm; may be given more than once
    #[arg(long, value_name = "SIZE|file=PATH[,copy]")]
    pmem_legacy: Vec<Backing>,
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
    pub timeout: Option<u64>,
    /// Say at the end, on the standard error output, a hash of what the machine did: the order of the processors and
    /// every event of persistent memory
    #[arg(long)]
    trace_hash: bool,
    /// Cut the power there, once, and boot again with what has survived: event:N (behind so many events of persistent
    /// memory), instruction:N, or output:TEXT (when the guest has written this to its console)
    #[arg(long, value_name = "WHERE")]
    power_cut_at: Option<CutAt>,
    /// What of the stores in flight survives a power cut: durable (none), everything, or random (drawn from --seed)
    #[arg(long, value_name = "WHAT", default_value = "durable", value_parser = ["durable", "everything", "random"])]
    survives: String,
    /// Exit with the value that the guest writes to port 0xf4: 2 * value + 1
    #[arg(long)]
    pub debug_exit: bool,
    /// Programs from Debian to put into the initramfs
    #[arg(long, value_delimiter = ',', default_value = "dash,coreutils")]
    programs: Vec<String>,
}

impl Boot {
    /// Runs until the guest powers off. Returns the exit code.
    pub fn run(mut self) -> anyhow::Result<u8> {
        let all = self.nvdimm.iter_mut().chain(&mut self.virtio_pmem).chain(&mut self.pmem_legacy);
        let mut media = all.map(Backing::read).collect::<Result<Vec<_>, _>>()?;
        let payload = Payload::find(&self.kernel, self.pvh)?;
        let mut typing = Typing::new(payload.is_none());
        let config = match payload {
            Some(payload) => self.payload(payload)?,
            None => self.linux()?,
        };
        let backings: Vec<&Backing> =
            self.nvdimm.iter().chain(&self.virtio_pmem).chain(&self.pmem_legacy).collect();
        if self.power_cut_at.is_some() && self.engine == EngineName::Kvm {
            let why = "--power-cut-at: KVM does not tell what is in flight; use --engine software";
            return Err(Usage(why.to_owned()).into());
        }
        interrupt::listen()?;
        let mut input = Input::open();
        let mut cut_at = self.power_cut_at.clone();
        loop {
            let mut machine = self.switch_on(&config, &media)?;
            let wanted = cut_at.is_some() || input.is_terminal() && self.engine == EngineName::Software;
            let mut session = Session::new(&mut machine, &mut typing, cut_at.take(), wanted);
            let outcome = session.run(&self, &mut input);
            let left = match &outcome {
                Ok(Ended::PowerCut) => Some(session.survivors(self.survives())),
                _ => None,
            };
            if let Some(counts) = machine.kvm_counts() {
                note!("{}", engine::summary(&machine, counts));
            }
            if let Some(hash) = machine.trace_hash() {
                note!("trace hash {hash} after {} instructions", machine.retired());
            }
            if let Some(left) = left {
                note!("\npmemsim: the power is cut; the machine boots again with what has survived");
                media = left;
                typing.restart();
                continue;
            }
            // A guest that crashed or was stopped has stored what it has stored, too.
            media::write_back(&backings, &machine)?;
            return Ok(match outcome? {
                Ended::Exit(code) => code,
                Ended::PowerCut => 0,
            });
        }
    }

    /// A machine with these contents of its regions.
    fn switch_on(&self, config: &MachineConfig, media: &[Vec<u8>]) -> anyhow::Result<Machine> {
        let mut machine = Machine::on(self.engine.into(), config).map_err(|error| match error {
            vmm::Error::Payload(_) => anyhow::Error::from(error).context(format!("--kernel {}", self.kernel)),
            other => other.into(),
        })?;
        if let Some(instructions) = self.assist {
            machine.set_assist(instructions);
        }
        let regions = machine.regions().to_vec();
        for (region, content) in regions.iter().zip(media) {
            machine.write_pmem(region.base, content);
        }
        if self.trace_hash {
            machine.set_tracing(true);
            machine.start_trace_hash();
        }
        Ok(machine)
    }

    fn survives(&self) -> Survives {
        match self.survives.as_str() {
            "everything" => Survives::Everything,
            "random" => Survives::Random(self.seed),
            _ => Survives::Durable,
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
        let nvdimm = |backing: &Backing| Nvdimm {
            size: backing.size(),
            flush_hints: self.flush_hints,
            labels: self.labels,
            ..Nvdimm::default()
        };
        let device = |backing: &Backing| VirtioPmem { size: backing.size(), faults: Vec::new() };
        MachineConfig {
            kernel: Vec::new(),
            initrd: Vec::new(),
            modules: Vec::new(),
            command_line: String::new(),
            memory: self.memory.0,
            cpus: self.cpus,
            nvdimms: self.nvdimm.iter().map(nvdimm).collect(),
            virtio_pmem: self.virtio_pmem.iter().map(device).collect(),
            legacy_pmem: self.pmem_legacy.iter().map(Backing::size).collect(),
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
