//! `pmemsim bench`: how fast this machine is, here and now.

mod boot;
mod clock;
mod cpu;
mod guest;
mod qemu;
mod restore;

use images::Cache;

/// Measures. Figures are of this host at this moment: compare, do not quote.
#[derive(clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Boot of a kernel: instructions to the agent, and how many million a second
    Boot {
        /// debian-6.1, debian-6.12, or a path to a vmlinux or bzImage
        #[arg(default_value = "debian-6.1")]
        kernel: String,
        /// More for the kernel command line
        #[arg(long, default_value = "")]
        append: String,
        /// Processors
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
        cpus: u8,
    },
    /// Million instructions a second in several kinds of work, and beside QEMU if it is installed
    Cpu(cpu::Cpu),
    /// Recoveries a second (mount, replay of the journal, observe, unmount, check), what going back to the base snapshot
    /// costs, and the memory of a worker
    #[command(visible_alias = "restore")]
    Recover {
        /// The scenario whose crash points are recovered
        #[arg(default_value = "scenarios/map-sync-ext4.toml")]
        scenario: std::path::PathBuf,
        /// Machines that recover at the same time; several numbers are measured one after the other
        #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
        jobs: Vec<usize>,
        /// Recoveries of each machine
        #[arg(long, default_value_t = 50)]
        each: usize,
    },
}

impl Bench {
    /// Returns the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        let cache = Cache::open()?;
        match self.what {
            What::Boot { kernel, append, cpus } => boot::measure(&cache, &kernel, &append, cpus),
            What::Cpu(cpu) => cpu.measure(&cache),
            What::Recover { scenario, jobs, each } => restore::measure(&cache, &scenario, &jobs, each),
        }
    }
}
