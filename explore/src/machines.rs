//! Real machines: kernel, initramfs and images by name, the base snapshot, and the `vmm` crate's machine.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use images::{Cache, Checker, Device, Filesystem, FilesystemKind, ImageSpec, Initramfs, Kernel};
use vmm::unwind::{End, OrcTable, Registers, unwind};
use vmm::{Engine, FlushFault, KvmCounts, Machine, MachineConfig, Snapshot, Symbols, VirtioPmem};

use crate::base_snapshot::base_snapshot;
use crate::kernel_lines::KernelLines;
use crate::scenario::{Claim, Interface, Scenario};
use crate::target::{Checked, Health, HostError, Laboratory, Region, Stop, Target};
use crate::user_files;
use crate::user_programs::UserPrograms;
use crate::user_stack::{Agent, saved_registers};
use crate::user_unwind::UserRegisters;

/// What every kernel is told: no self tests that cost a second, addresses as linked, warnings on the console, and to
/// reset by the register of the ACPI tables (else Linux tries firmware calls that are not there).
///
/// The initcalls left out have nothing to do with storage and cost 86 M instructions of a 6.1 boot and 289 M of a
/// 6.12 one: names of enum values in trace events, the noise source of the jitter random number generator (RDRAND is
/// there), and the functions that BPF programs may call.
pub const COMMAND_LINE: &str = "console=ttyS0 cryptomgr.notests=1 nokaslr quiet loglevel=5 reboot=acpi \
     initcall_blacklist=trace_eval_init,jent_mod_init,kfunc_init,bpf_prog_test_run_init,bpf_key_sig_kfuncs_init,\
bpf_rstat_kfunc_init,bpf_tcp_ca_kfunc_init,cubictcp_register";
/// Kernel copies into persistent memory whose stores belong together. The last two are one: it has the last name in 6.12.117, and
/// the other one in 6.1 (arch/x86/lib/copy_user_uncached_64.S).
pub const COPY_FUNCTIONS: [&str; 3] = ["__memcpy_flushcache", "__copy_user_nocache", "copy_to_nontemporal"];

/// Why there is no machine for a scenario.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kernel, programs or images cannot be had.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// The machine cannot be built.
    #[error(transparent)]
    Machine(#[from] vmm::Error),
    /// The kernel does not come up to the agent.
    #[error("the kernel {kernel} does not reach the agent: {why}\n{console}")]
    Boot {
        /// As the scenario names it.
        kernel: String,
        /// What happened instead.
        why: String,
        /// The end of what it said.
        console: String,
    },
    /// The base snapshot cannot be kept.
    #[error("the base snapshot {path} cannot be written: {why}")]
    Snapshot {
        /// Where.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl Error {
    /// Exit code of the command: 2 for what the user can put right, 3 for trouble on the host.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Images(_) | Error::Machine(_) | Error::Boot { .. } => 2,
            Error::Snapshot { .. } => 3,
        }
    }
}

/// Machines for one scenario, all from one base snapshot.
pub struct Machines {
    /// What the scenario is recorded on.
    engine: Engine,
    snapshot: Snapshot,
    symbols: Symbols,
    images: Vec<Arc<Vec<u8>>>,
    /// What goes wrong with the flushes of which region, while the scenario is recorded.
    faults: Vec<(usize, Vec<FlushFault>)>,
    /// The first region's content, as the checker compares with it.
    base: Arc<[u8]>,
    device: Device,
    /// `None` where there is no file system.
    filesystem: Option<FilesystemKind>,
    copies: Vec<Range<u64>>,
    tables: Vec<OrcTable>,
    /// Of a kernel that was built with debug information.
    lines: KernelLines,
    agent: Agent,
    programs: UserPrograms,
    cache: Cache,
    checkers: Mutex<Vec<Checker>>,
    provenance: Vec<(String, String)>,
}

impl Machines {
    /// Gets everything that the scenario names, and boots its kernel up to the agent unless that was done before.
    pub fn prepare(scenario: &Scenario, cache: &Cache, seed: u64) -> Result<Machines, Error> {
        Machines::on(Engine::Software, scenario, cache, seed)
    }

    /// As [`Machines::prepare`]; the scenario is recorded on this engine. Everything else is done on the software engine,
    /// by processors that the other one has, too.
    pub fn on(engine: Engine, scenario: &Scenario, cache: &Cache, seed: u64) -> Result<Machines, Error> {
        let kernel = match &scenario.machine.modules {
            Some(modules) => Kernel::from_file(scenario.machine.kernel.as_ref(), Some(modules.as_ref()))?,
            None => Kernel::get(cache, &scenario.machine.kernel)?,
        };
        let regions = Regions::of(scenario);
        let filesystem = filesystem_of(scenario);
        let mut wanted =
            images::pmem_modules(!regions.virtio_pmem.is_empty(), !regions.legacy_pmem.is_empty());
        if scenario.regions.iter().any(|region| region.namespace == images::Namespace::Devdax) {
            wanted.extend(images::DEVDAX_MODULES);
        }
        wanted.extend(filesystem.map(FilesystemKind::module));
        let modules = kernel.modules(&wanted)?;
        let mut initramfs = Initramfs::new();
        let mut provenance = vec![
            ("pmemsim".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("kernel".to_owned(), scenario.machine.kernel.clone()),
            ("kernel release".to_owned(), kernel.release.clone()),
            ("kernel build id".to_owned(), kernel.build_id.clone()),
        ];
        provenance.extend(
            kernel.package.iter().map(|package| ("kernel package".to_owned(), package.version.clone())),
        );
        for program in &scenario.machine.programs {
            let package = initramfs.program(cache, program)?;
            provenance.push((program.clone(), package.version));
        }
        user_files::add(scenario, cache, &mut initramfs, &mut provenance)?;
        initramfs.modules(modules.clone());
        let command_line = format!("{COMMAND_LINE} {}", scenario.machine.append).trim_end().to_owned();
        provenance.push(("command line".to_owned(), command_line.clone()));
        let config = MachineConfig {
            kernel: kernel.vmlinux,
            initrd: initramfs.finish(),
            modules: Vec::new(),
            command_line,
            memory: scenario.machine.memory.0,
            cpus: scenario.machine.cpus,
            nvdimms: regions.nvdimms,
            virtio_pmem: regions.virtio_pmem,
            legacy_pmem: regions.legacy_pmem,
            seed,
            protocol: vmm::BootProtocol::default(),
        };
        let (snapshot, symbols) = base_snapshot(cache, engine, &scenario.machine.kernel, &config)?;
        let contents = Contents::make(scenario, cache, &mut provenance)?;
        if filesystem.is_some_and(|kind| !Checker::tells_reads(kind)) {
            let said = "not known: ptrace is forbidden on this host, so it counts as having read everything";
            provenance.push((format!("reads of {}'s checker", scenario.filesystem.kind), said.to_owned()));
        }
        // A kernel without unwind tables has no stacks in its reports.
        let mut tables: Vec<OrcTable> = OrcTable::from_vmlinux(&config.kernel).into_iter().collect();
        tables.extend(
            modules
                .iter()
                .filter_map(|module| OrcTable::from_module(&module.ko, &module.name, &symbols).ok()),
        );
        Ok(Machines {
            engine,
            copies: COPY_FUNCTIONS.iter().filter_map(|name| symbols.range(name)).collect(),
            snapshot,
            symbols,
            base: contents.images[0].as_slice().into(),
            images: contents.images,
            device: contents.device,
            filesystem,
            faults: regions.faults,
            tables,
            lines: KernelLines::of(&config.kernel),
            agent: Agent::new(images::AGENT),
            programs: UserPrograms::new(initramfs.files()),
            cache: cache.clone(),
            checkers: Mutex::default(),
            provenance,
        })
    }
}

/// What the scenario's file system is; `None` where there is none, but a device-dax device.
fn filesystem_of(scenario: &Scenario) -> Option<FilesystemKind> {
    FilesystemKind::from_name(&scenario.filesystem.kind)
}

/// Regions as the machine is configured with them, and the faults to be injected later: the base snapshot has none.
#[derive(Default)]
struct Regions {
    nvdimms: Vec<vmm::Nvdimm>,
    virtio_pmem: Vec<VirtioPmem>,
    legacy_pmem: Vec<u64>,
    faults: Vec<(usize, Vec<FlushFault>)>,
}

impl Regions {
    fn of(scenario: &Scenario) -> Regions {
        let mut regions = Regions::default();
        for (index, region) in scenario.regions.iter().enumerate() {
            let size = region.size.0;
            match &region.interface {
                Interface::Nvdimm { flush_hints, labels, topology, .. } => {
                    regions.nvdimms.push(vmm::Nvdimm {
                        size,
                        flush_hints: *flush_hints,
                        labels: *labels,
                        persistence: region.claim().map(Claim::capability).unwrap_or_default(),
                        media_errors: scenario.media_errors,
                        dimms: topology.dimms,
                        smart: topology.smart,
                        not_armed: !topology.armed,
                        proximity: topology.proximity,
                    })
                }
                Interface::VirtioPmem { faults } => {
                    regions.virtio_pmem.push(VirtioPmem { size, faults: Vec::new() });
                    regions.faults.push((index, faults.clone()));
                }
                Interface::Legacy => regions.legacy_pmem.push(size),
            }
        }
        regions
    }
}

/// What the regions hold at first.
struct Contents {
    images: Vec<Arc<Vec<u8>>>,
    /// What the file system is on.
    device: Device,
}

impl Contents {
    fn make(
        scenario: &Scenario,
        cache: &Cache,
        provenance: &mut Vec<(String, String)>,
    ) -> Result<Contents, Error> {
        let first = &scenario.regions[0];
        let device = Device::of(first.namespace, first.size.0)?;
        let mut contents = Contents { images: Vec::new(), device };
        for (number, region) in scenario.regions.iter().enumerate() {
            let namespace = region.namespace;
            let kind = filesystem_of(scenario).filter(|_| number == 0);
            let filesystem = kind.map(|kind| Filesystem { kind, mkfs: scenario.filesystem.mkfs.clone() });
            let image = images::pmem_image(cache, &ImageSpec { size: region.size.0, namespace, filesystem })?;
            provenance.extend(image.package.map(|package| (package.name, package.version)));
            contents.images.push(Arc::new(image.bytes));
        }
        // Label areas begin empty, and come behind all regions.
        let areas = scenario.regions.iter().map(|region| region.label_areas()).sum();
        let empty = Arc::new(vec![0; vmm::LABELS_SIZE as usize]);
        contents.images.extend(std::iter::repeat_n(empty, areas));
        Ok(contents)
    }
}

impl Machines {
    /// Lends a checker that nobody else uses.
    fn with_checker<T>(
        &self,
        kind: FilesystemKind,
        work: impl FnOnce(&mut Checker) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        let lock = || self.checkers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let free = lock().pop();
        let mut checker = match free {
            Some(checker) => checker,
            None => Checker::new(&self.cache, kind, Arc::clone(&self.base), self.device)
                .map_err(|why| HostError(why.to_string()))?,
        };
        let result = work(&mut checker);
        lock().push(checker);
        result
    }
}

fn health(checked: images::Result<images::Fsck>) -> Health {
    match checked {
        Ok(fsck) if fsck.clean => Health::Clean,
        Ok(fsck) => {
            Health::Damaged(format!("{} ends with {}: {}", fsck.command, fsck.code, fsck.output.trim()))
        }
        Err(why) => Health::Unknown(why.to_string()),
    }
}

impl Laboratory for Machines {
    type Target = Machine;

    fn start(&self) -> Result<Machine, HostError> {
        let mut machine = self.snapshot.machine().map_err(|why| HostError(why.to_string()))?;
        machine.set_copy_functions(&self.copies);
        Ok(machine)
    }

    fn start_recording(&self) -> Result<Machine, HostError> {
        if self.engine == Engine::Software {
            return self.start();
        }
        let failed = |why: vmm::Error| HostError(why.to_string());
        let mut machine = self.snapshot.machine().map_err(failed)?;
        machine.set_engine(self.engine).map_err(failed)?;
        Ok(machine)
    }

    fn samples(&self) -> bool {
        self.engine == Engine::Kvm
    }

    fn account(&self, machine: &Machine) -> Vec<(String, String)> {
        let said = machine.kvm_counts().map(|it| {
            let KvmCounts { exits, assists, assisted_instructions, forgotten } = it;
            let said = format!(
                "{exits} exits, {assists} assists with {assisted_instructions} instructions, page tables forgotten \
                 {forgotten} times"
            );
            ("kvm".to_owned(), said)
        });
        said.into_iter().collect()
    }

    fn inject_faults(&self, machine: &mut Machine) {
        for (region, faults) in &self.faults {
            machine.set_flush_faults(*region, faults);
        }
    }

    fn scratch(&self) -> PathBuf {
        self.cache.root().join("tmp")
    }

    fn images(&self) -> &[Arc<Vec<u8>>] {
        &self.images
    }

    fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.address(name)
    }

    fn function_at(&self, address: u64) -> Option<(String, u64)> {
        let of_agent = || self.agent.function_at(address).map(|(name, offset)| (name.to_owned(), offset));
        self.symbols.find(address).map(|(symbol, offset)| (symbol.name.clone(), offset)).or_else(of_agent)
    }

    fn check(&self, changed: &[(u64, Vec<u8>)]) -> Result<Health, HostError> {
        // What is on a device without a file system is the promises' matter alone.
        let Some(kind) = self.filesystem else { return Ok(Health::Clean) };
        self.with_checker(kind, |checker| {
            Ok(health(checker.check(changed.iter().map(|(offset, page)| (*offset, page.as_slice())))))
        })
    }

    fn check_and_tell(&self, changed: &[(u64, Vec<u8>)]) -> Result<Checked, HostError> {
        let Some(kind) = self.filesystem else {
            return Ok(Checked { health: Health::Clean, read: Vec::new() });
        };
        self.with_checker(kind, |checker| {
            let pages = changed.iter().map(|(offset, page)| (*offset, page.as_slice()));
            Ok(match checker.check_and_tell(pages) {
                Ok((fsck, read)) => Checked { health: health(Ok(fsck)), read },
                Err(why) => Checked { health: health(Err(why)), read: Vec::new() },
            })
        })
    }

    fn stack(&self, machine: &Machine) -> Vec<String> {
        let state = machine.cpu_state();
        let (rsp, rbp) = (state.regs[4], state.regs[5]);
        let read = |address: u64| {
            let mut word = [0; 8];
            machine.read_guest(address, &mut word).ok()?;
            Some(u64::from_le_bytes(word))
        };
        if state.cpl() == 3 && self.agent.is_running(state.rip(), &read) {
            return self.agent.stack(state.rip(), rbp, &read);
        }
        if state.cpl() == 3 {
            let general = std::array::from_fn(|number| state.regs[number]);
            return self.programs.stack(UserRegisters::new(state.rip(), &general), &read);
        }
        let stack = unwind(&self.tables, Registers::from(&state), &read);
        let frames = stack.frames(&self.symbols);
        // A call is one byte in front of where it returns to; the first frame is an instruction, whose line is that of the byte
        // in front of it as often as not.
        let places: Vec<u64> = frames.iter().map(|frame| frame.address.wrapping_sub(1)).collect();
        let lines = self.lines.find(&places);
        let mut frames: Vec<String> =
            frames.iter().zip(lines).map(|(frame, line)| format!("{frame}{line}")).collect();
        if let End::User { rip } = stack.end {
            frames.extend(match saved_registers(rip, rsp, &read) {
                Some(registers) if !self.agent.is_running(rip, &read) => {
                    self.programs.stack(registers, &read)
                }
                _ => self.agent.stack_behind_kernel(rip, rsp, &read),
            });
        }
        frames
    }

    fn provenance(&self) -> Vec<(String, String)> {
        self.provenance.clone()
    }
}

impl Target for Machine {
    fn run(&mut self, budget: u64) -> Stop {
        // KVM has nanoseconds. An instruction has ten of them, about what it takes the software engine.
        let budget = if self.engine() == Engine::Kvm { budget.saturating_mul(10) } else { budget };
        loop {
            return match Machine::run(self, budget) {
                vmm::Stop::Call(call) => {
                    Stop::Call { number: call.number, first: call.first, second: call.second }
                }
                vmm::Stop::Budget => Stop::Budget,
                vmm::Stop::Event(seq) => Stop::Event(seq),
                vmm::Stop::Idle => Stop::Ended("the machine halted for ever"),
                vmm::Stop::PowerOff => Stop::Ended("the guest powered the machine off"),
                vmm::Stop::Reset => Stop::Ended("the guest reset the machine"),
                vmm::Stop::Shutdown => Stop::Ended("triple fault"),
                vmm::Stop::Unsupported { rip, what } => Stop::Unsupported(format!("{what} at {rip:#x}")),
                vmm::Stop::Engine(why) => Stop::Unsupported(why),
                vmm::Stop::Undecided { lines } => Stop::Undecided { lines },
                vmm::Stop::UndecidedDevice { address } => {
                    Stop::Unsupported(format!("a device that reads undecided bytes at {address:#x}"))
                }
                vmm::Stop::Symbol(_) | vmm::Stop::DebugExit(_) => continue,
            };
        }
    }
    fn retired(&self) -> u64 {
        Machine::retired(self)
    }
    fn answer(&mut self, value: i64) {
        Machine::answer(self, value);
    }
    fn read_guest(&self, address: u64, buffer: &mut [u8]) -> bool {
        Machine::read_guest(self, address, buffer).is_ok()
    }
    fn write_guest(&mut self, address: u64, bytes: &[u8]) -> bool {
        Machine::write_guest(self, address, bytes).is_ok()
    }
    fn translate(&self, address: u64) -> Option<u64> {
        Machine::translate(self, address)
    }
    fn regions(&self) -> Vec<Region> {
        let regions = Machine::regions(self).iter();
        regions.map(|region| Region { base: region.base, size: region.size, dimm: region.dimm }).collect()
    }
    fn read_pmem(&self, address: u64, buffer: &mut [u8]) {
        Machine::read_pmem(self, address, buffer);
    }
    fn write_pmem(&mut self, address: u64, bytes: &[u8]) {
        Machine::write_pmem(self, address, bytes);
    }
    fn set_poisoned(&mut self, lines: &[u64]) {
        Machine::set_poisoned(self, lines);
    }
    fn is_poisoned(&self) -> bool {
        !Machine::poisoned(self).is_empty()
    }
    fn poison(&mut self, address: u64, len: u64) -> Result<(), HostError> {
        Machine::poison(self, address, len).map_err(|why| HostError(why.to_string()))
    }
    fn push(&mut self) {
        Machine::push(self);
    }
    fn rewind(&mut self) -> usize {
        Machine::rewind(self)
    }
    fn pop(&mut self) -> usize {
        Machine::pop(self)
    }
    fn set_undecided(&mut self, lines: &[(u64, u64)]) -> Result<(), HostError> {
        Machine::set_undecided(self, lines).map_err(|why| HostError(why.to_string()))
    }
    fn decide(&mut self, line: u64, mask: u64, content: &[u8; 64]) {
        Machine::decide(self, line, mask, content);
    }
    fn origins(&self, address: u64, len: usize) -> Vec<(usize, u64)> {
        Machine::origins(self, address, len)
    }
    fn undecided_runs(&self, address: u64, len: usize) -> Vec<(usize, usize, u64)> {
        Machine::undecided_runs(self, address, len)
    }
    fn changed(&self) -> Vec<u64> {
        self.changed_pmem()
    }
    fn set_tracing(&mut self, on: bool) {
        Machine::set_tracing(self, on);
    }
    fn set_store_buffer_events(&mut self, on: bool) {
        Machine::set_store_buffer_events(self, on);
    }
    fn take_events(&mut self) -> Vec<persist::Event> {
        Machine::take_events(self)
    }
    fn event_count(&self) -> u64 {
        Machine::event_count(self)
    }
    fn stop_at_event(&mut self, seq: Option<u64>) {
        Machine::stop_at_event(self, seq);
    }
    fn set_watched(&mut self, addresses: &[u64]) {
        Machine::set_watched(self, addresses);
    }
    fn take_console(&mut self) -> Vec<u8> {
        Machine::take_console(self)
    }
}
