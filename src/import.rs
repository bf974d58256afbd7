//! `pmemsim import`: tests of other tools.

use std::path::{Path, PathBuf};

use anyhow::Context;
use explore::import::vinter::{self, Source};
use explore::import::{Machine, ace, verdicts};
use explore::machines::Machines;
use explore::{Report, RunOptions, Scenario, Verdict};
use images::Cache;

use crate::failure::{TROUBLE, Usage};
use crate::output::{check_writable, write_json};
use crate::run::severity;
use crate::say::{self, say};

/// Runs tests of other tools, and gives the verdicts that these define.
#[derive(clap::Args)]
pub struct Import {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(clap::Subcommand)]
enum Tool {
    Ace(Ace),
    Vinter(Vinter),
}

impl Import {
    /// Runs them. The exit code is that of the worst.
    pub fn run(self) -> anyhow::Result<u8> {
        match self.tool {
            Tool::Ace(ace) => ace.run(),
            Tool::Vinter(vinter) => vinter.run(),
        }
    }
}

/// Where tests are run, as far as their files do not say it.
#[derive(clap::Args)]
struct Where {
    /// The kernel, as scenarios name it
    #[arg(long, default_value = "debian-6.1")]
    kernel: String,
    /// Machines that recover at the same time; default: one per processor
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

impl Where {
    fn options(&self) -> RunOptions {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        RunOptions { jobs: self.jobs.map_or(processors, usize::from), ..RunOptions::default() }
    }
}

/// Workloads of ACE for CrashMonkey, in j-lang. A workload passes when everything is there that was synced before a checkpoint,
/// in every crash state.
#[derive(clap::Args)]
struct Ace {
    /// Files in j-lang
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    place: Where,
    /// The file system: ext4 or xfs
    #[arg(long, default_value = "ext4", value_parser = ["ext4", "xfs"])]
    filesystem: String,
    /// Options of mount
    #[arg(long, default_value = "dax=always")]
    mount: String,
    /// Only write the scenarios into this directory: `pmemsim run` takes them
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Write the reports as JSON, as `run` does
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Ace {
    fn run(self) -> anyhow::Result<u8> {
        let machine = Machine {
            kernel: self.place.kernel.clone(),
            filesystem: self.filesystem.clone(),
            mount: self.mount.clone(),
        };
        // All are read first: a mistake in the last should not show after an hour.
        let scenarios = self.files.iter().map(|file| read(file, &machine)).collect::<Result<Vec<_>, _>>()?;
        if let Some(directory) = &self.keep {
            return keep(directory, &self.files, &scenarios).map(|()| 0);
        }
        if let Some(path) = &self.json {
            check_writable("--json", path)?;
        }
        let options = self.place.options();
        let machines = Machines::prepare(&scenarios[0], &Cache::open()?, scenarios[0].crash.seed)?;
        let mut reports: Vec<Report> = Vec::new();
        for (file, scenario) in self.files.iter().zip(&scenarios) {
            let report = explore::run(scenario, &machines, &options, &|_| ())?;
            say::heard(say!("{}: {}", file.display(), crash_monkey(report.verdict)));
            say::heard(say::print_text(&report.to_string()));
            reports.push(report);
        }
        if let Some(path) = &self.json {
            write_json(path, &reports, scenarios.len())?;
        }
        Ok(reports.iter().map(|report| severity(report.verdict)).max().map_or(0, |(_, code)| code))
    }
}

/// Tests of Vinter: the file of the machine and that of the test. Says, from checkpoint to checkpoint, whether there is a single
/// final state, and whether what is done in between is atomic. The exit code is 0 when both hold everywhere, 1 when
/// not, 3 when the test cannot be judged.
#[derive(clap::Args)]
struct Vinter {
    /// YAML of the machine
    vm: PathBuf,
    /// YAML of the test
    test: PathBuf,
    #[command(flatten)]
    place: Where,
    /// Crash states of one crash point at most, instead of Vinter's 20
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    states: Option<u64>,
    /// Only write the scenario that is recorded to this file
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Vinter {
    fn run(self) -> anyhow::Result<u8> {
        let (vm_name, test_name) = (self.vm.display().to_string(), self.test.display().to_string());
        let (vm, test) = (text_of(&self.vm)?, text_of(&self.test)?);
        let (vm, test) = (Source { name: &vm_name, text: &vm }, Source { name: &test_name, text: &test });
        let mut test =
            vinter::read(vm, test, &self.place.kernel).map_err(|error| Usage(error.to_string()))?;
        test.scenario.crash.states = self.states.unwrap_or(test.scenario.crash.states);
        if let Some(path) = &self.keep {
            let written = std::fs::write(path, &test.scenario.text);
            return written.map(|()| 0).with_context(|| format!("cannot write {}", path.display()));
        }
        let machines = Machines::prepare(&test.scenario, &Cache::open()?, test.scenario.crash.seed)?;
        say::heard(say!("{test_name}"));
        match verdicts(&test, &machines, &self.place.options())? {
            Ok(verdicts) => {
                verdicts.iter().for_each(|verdict| say::heard(say!("  {verdict}")));
                Ok(u8::from(!verdicts.iter().all(|verdict| verdict.passes())))
            }
            Err(why) => {
                say::heard(say!("  inconclusive: {why}"));
                Ok(TROUBLE)
            }
        }
    }
}

/// How CrashMonkey calls it.
fn crash_monkey(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Kept | Verdict::Expected | Verdict::Part => "passed",
        Verdict::Violated => "failed",
        Verdict::Inconclusive => "inconclusive",
    }
}

fn text_of(file: &Path) -> Result<String, Usage> {
    std::fs::read_to_string(file).map_err(|why| Usage(format!("{}: {why}", file.display())))
}

fn read(file: &Path, machine: &Machine) -> anyhow::Result<Scenario> {
    let name = file.display().to_string();
    let text = ace::scenario(&name, &text_of(file)?, machine).map_err(|error| Usage(error.to_string()))?;
    Ok(Scenario::parse(&text, &name)?)
}

fn keep(directory: &Path, files: &[PathBuf], scenarios: &[Scenario]) -> anyhow::Result<()> {
    let failed = || format!("cannot write scenarios to {}", directory.display());
    std::fs::create_dir_all(directory).with_context(failed)?;
    for (file, scenario) in files.iter().zip(scenarios) {
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        std::fs::write(directory.join(format!("{name}.toml")), &scenario.text).with_context(failed)?;
    }
    Ok(())
}
