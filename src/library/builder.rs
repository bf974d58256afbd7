//! What a machine is to be.

use std::path::PathBuf;

use guest_protocol::Command;
use images::{Cache, Filesystem, FilesystemKind, ImageSpec, Initramfs, Kernel, Namespace};
use vmm::{BootProtocol, MachineConfig, Nvdimm, VirtioPmem};

use super::Error;
use super::machine::Machine;

/// Instructions that a machine may execute, unless it is told otherwise.
const LIMIT: u64 = 20_000_000_000;

/// A machine to be described: kernel, memory, regions of persistent memory, and what the guest does.
///
/// The guest attaches all regions, mounts the file system if there is one, executes a shell, and switches off.
#[derive(Clone, Debug)]
pub struct Builder {
    kernel: String,
    modules: Option<PathBuf>,
    append: String,
    memory: u64,
    cpus: u8,
    seed: u64,
    limit: u64,
    nvdimms: Vec<(u64, Vec<u8>)>,
    virtio_pmem: Vec<(u64, Vec<u8>)>,
    filesystem: Option<(FilesystemKind, String)>,
    programs: Vec<String>,
    script: String,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            kernel: "debian-6.1".to_owned(),
            modules: None,
            append: String::new(),
            memory: 256 << 20,
            cpus: 1,
            seed: 1,
            limit: LIMIT,
            nvdimms: Vec::new(),
            virtio_pmem: Vec::new(),
            filesystem: None,
            programs: vec!["dash".to_owned(), "coreutils".to_owned()],
            script: String::new(),
        }
    }
}

impl Builder {
    /// The kernel: a name that scenarios know (`debian-6.1`), or a path to a vmlinux or bzImage.
    pub fn kernel(mut self, name: &str) -> Builder {
        name.clone_into(&mut self.kernel);
        self
    }

    /// Directory below which the modules of a kernel given by its path are.
    pub fn modules(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.modules = Some(directory.into());
        self
    }

    /// More for the kernel command line.
    pub fn append(mut self, text: &str) -> Builder {
        text.clone_into(&mut self.append);
        self
    }

    /// RAM in bytes; 256 MiB without.
    pub fn memory(mut self, bytes: u64) -> Builder {
        self.memory = bytes;
        self
    }

    /// Processors; one without, eight at most.
    pub fn cpus(mut self, number: u8) -> Builder {
        self.cpus = number;
        self
    }

    /// Everything random in the guest comes from here.
    pub fn seed(mut self, seed: u64) -> Builder {
        self.seed = seed;
        self
    }

    /// Instructions that it may execute in all.
    pub fn limit(mut self, instructions: u64) -> Builder {
        self.limit = instructions;
        self
    }

    /// An NVDIMM of so many bytes (a multiple of 2 MiB), zeroed.
    pub fn nvdimm(mut self, size: u64) -> Builder {
        self.nvdimms.push((size, Vec::new()));
        self
    }

    /// An NVDIMM that holds this.
    pub fn nvdimm_with(mut self, image: Vec<u8>) -> Builder {
        self.nvdimms.push((image.len() as u64, image));
        self
    }

    /// A virtio-pmem device with so many bytes (a multiple of 2 MiB), zeroed.
    pub fn virtio_pmem(mut self, size: u64) -> Builder {
        self.virtio_pmem.push((size, Vec::new()));
        self
    }

    /// Makes a file system on the first NVDIMM, in an fsdax namespace, which the guest mounts on /mnt/pmem with these
    /// options.
    pub fn filesystem(mut self, kind: FilesystemKind, mount: &str) -> Builder {
        self.filesystem = Some((kind, mount.to_owned()));
        self
    }

    /// A program from Debian that the guest has: `PACKAGE`, `PACKAGE/PROGRAM`. It always has dash and coreutils.
    pub fn program(mut self, name: &str) -> Builder {
        self.programs.push(name.to_owned());
        self
    }

    /// What the guest's shell does.
    pub fn sh(mut self, script: &str) -> Builder {
        script.clone_into(&mut self.script);
        self
    }

    /// Gets kernel and programs, from Debian if they are not in the cache, and makes the machine.
    ///
    /// # Errors
    /// [`Error::Images`] when something cannot be had, [`Error::Machine`] for a machine that cannot be.
    pub fn build(self) -> Result<Machine, Error> {
        let cache = Cache::open()?;
        let kernel = match &self.modules {
            Some(modules) => Kernel::from_file(self.kernel.as_ref(), Some(modules))?,
            None => Kernel::get(&cache, &self.kernel)?,
        };
        let initrd = self.initramfs(&cache, &kernel)?;
        let mut media: Vec<Vec<u8>> =
            self.nvdimms.iter().chain(&self.virtio_pmem).map(|(_, image)| image.clone()).collect();
        if let (Some((kind, _)), Some((size, _))) = (&self.filesystem, self.nvdimms.first()) {
            let filesystem = Some(Filesystem { kind: *kind, mkfs: Vec::new() });
            let spec = ImageSpec { size: *size, namespace: Namespace::Fsdax, filesystem };
            media[0] = images::pmem_image(&cache, &spec)?.bytes;
        }
        let nvdimm = |(size, _): &(u64, Vec<u8>)| Nvdimm { size: *size, ..Nvdimm::default() };
        let device = |(size, _): &(u64, Vec<u8>)| VirtioPmem { size: *size, faults: Vec::new() };
        let config = MachineConfig {
            kernel: kernel.vmlinux,
            initrd,
            modules: Vec::new(),
            command_line: format!("{} {}", explore::machines::COMMAND_LINE, self.append)
                .trim_end()
                .to_owned(),
            memory: self.memory,
            cpus: self.cpus,
            nvdimms: self.nvdimms.iter().map(nvdimm).collect(),
            virtio_pmem: self.virtio_pmem.iter().map(device).collect(),
            legacy_pmem: Vec::new(),
            seed: self.seed,
            protocol: BootProtocol::default(),
        };
        Machine::new(config, &media, self.limit)
    }

    fn initramfs(&self, cache: &Cache, kernel: &Kernel) -> Result<Vec<u8>, Error> {
        let mut initramfs = Initramfs::new();
        let mut wanted = images::pmem_modules(!self.virtio_pmem.is_empty(), false);
        wanted.extend(self.filesystem.as_ref().map(|(kind, _)| kind.module()));
        initramfs.modules(kernel.modules(&wanted)?);
        for program in &self.programs {
            initramfs.program(cache, program)?;
        }
        let regions = self.nvdimms.len() + self.virtio_pmem.len();
        let mut script: Vec<Command> =
            (0..regions).map(|region| Command::Attach { region: region as u32 }).collect();
        if let Some((kind, options)) = &self.filesystem {
            // Both modules are called as their file systems are.
            let fs = kind.module().to_owned();
            script.push(Command::Mount { region: 0, fs, options: options.clone() });
        }
        let argv = ["/bin/dash", "-c", &self.script].map(str::to_owned).to_vec();
        script.push(Command::Exec { argv });
        initramfs.file("/script", 0o644, postcard::to_stdvec(&script)?)?;
        Ok(initramfs.finish())
    }
}
