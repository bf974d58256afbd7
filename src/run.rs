//! `pmemsim run`: scenarios to verdicts.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use explore::effort::Effort;
use explore::ledger::Journal;
use explore::machines::Machines;
use explore::scenario::{Explore, MOST_IN_RECOVERY};
use explore::shard::Shard;
use explore::verdict::Class;
use explore::{Progress, Report, RunOptions, Scenario, Verdict};
use images::Cache;
use persist::{Granularity, Platform};

use crate::engine::EngineName;
use crate::failure::{TROUBLE, Usage, in_scenario};
use crate::interrupt::Interruption;
use crate::output::Output;
use crate::progress::Line;
use crate::say::{self, note};
use crate::size::Size;
use crate::suite;

/// Version of this program.
pub const CODE: &str = env!("PMEMSIM_CODE");

/// Runs scenarios: boots the kernel, does the steps, cuts the power at every crash point, recovers, judges.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  pmemsim run scenarios/map-sync-ext4.toml                 # is what is promised there?
  pmemsim run scenarios/controls/no-clwb.toml --html out   # a page for a browser in out/index.html
  pmemsim run mine.toml --kernel ../linux/vmlinux          # on a kernel of yours
  pmemsim run *.toml --junit r.xml --baseline known.json   # in CI: only new findings fail")]
pub struct Run {
    /// Scenario files
    #[arg(required_unless_present = "suite")]
    scenarios: Vec<PathBuf>,
    #[command(flatten)]
    suite: suite::Options,
    /// What the scenario is recorded on: software (deterministic, sees every store), or kvm (the host's processor; sees which
    /// sectors have changed at device flushes and promises: for virtio-pmem; the report is a sample and cannot be reproduced)
    #[arg(long, value_enum, default_value_t)]
    engine: EngineName,
    /// What persists as one, instead of what the scenario says: sector, line or word
    #[arg(long, value_parser = granularity)]
    granularity: Option<Granularity>,
    /// What the platform saves when the power goes, instead of what the scenario says: adr, eadr, adr-lost, virtio-pmem,
    /// or host-survives
    #[arg(long, value_parser = platform)]
    platform: Option<Platform>,
    /// The kernel, instead of the scenario's: a name that scenarios know, a vmlinux or bzImage, or the directory in which
    /// you have built one
    #[arg(long)]
    kernel: Option<String>,
    /// Directory below which the modules of that kernel are, when it is given by its path
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<String>,
    /// Runs each scenario also once for every mutant that it names: on a kernel with that bug, which must be found
    #[arg(long)]
    mutants: bool,
    /// Runs the scenarios on a kernel with this bug only; it must be found
    #[arg(long, conflicts_with = "mutants")]
    mutant: Option<String>,
    /// A non-temporal store waits for earlier cached stores of its line
    #[arg(long)]
    nt_evicts: bool,
    /// Only SFENCE and MFENCE make durable: what relies on a LOCK or another drain is found, as relies-on-lock
    #[arg(long)]
    strict_fences: bool,
    /// Everything random comes from here, instead of from the scenario
    #[arg(long)]
    seed: Option<u64>,
    /// Crash states to recover at most, instead of the scenario's number
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    budget: Option<u64>,
    /// How crash states are found, instead of what the scenario says: lazy or sample
    #[arg(long)]
    explore: Option<Explore>,
    /// How often the power is cut again while recovering, instead of what the scenario says: at every crash point of the
    /// recovery of some crash states
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(..=i64::from(MOST_IN_RECOVERY)))]
    crash_in_recovery: Option<u32>,
    /// Machines that recover at the same time; default: one per processor
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Count this class as a violation, too (torn-sector, guest-warning, ...)
    #[arg(long, value_parser = class)]
    deny: Vec<Class>,
    /// Keep results in this file as they come, and take over those that are there: what was ended goes on
    #[arg(long, visible_alias = "journal", value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Do only the I-th of N parts of the work; `pmemsim merge` puts the JSON reports of all together
    #[arg(long, value_name = "I/N", requires = "json")]
    shard: Option<Shard>,
    /// Memory that this process may have for itself, beyond what it shares: fewer machines recover at the same time where
    /// that is not enough for all
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Say how far it is, and how long it may take, also where stderr is no terminal
    #[arg(long)]
    progress: bool,
    #[command(flatten)]
    output: Output,
}

impl Run {
    /// Runs all scenarios. The exit code is that of the worst.
    pub fn run(self) -> anyhow::Result<u8> {
        if let Some(suite) = self.suite.suite {
            let asked = suite::Asked {
                options: &self.suite,
                kernel: self.kernel.as_deref(),
                modules: self.modules.as_deref(),
                output: &self.output,
            };
            return suite::run(suite, &asked, &self.options());
        }
        // All are read first: a mistake in the last should not show after an hour.
        let mut scenarios = Vec::new();
        for path in &self.scenarios {
            scenarios.extend(self.load(path)?.into_iter().map(|scenario| (path, scenario)));
        }
        let options = self.options();
        if self.engine == EngineName::Kvm {
            check_sampled(&scenarios, &options)?;
            self.check_repeatable()?;
        }
        let writer = self.output.open()?;
        let journal = self.journal(&scenarios, &options)?;
        let interruption = Interruption::listen()?;
        let cache = Cache::open()?;
        let mut reports = Vec::new();
        for (index, (path, scenario)) in scenarios.iter().enumerate() {
            let options = RunOptions {
                ledger: journal.as_ref().map(|journal| Arc::new(journal.ledger(index))),
                interrupted: Some(interruption.flag()),
                // Each has its own.
                effort: Arc::default(),
                ..options.clone()
            };
            let started = Instant::now();
            let report = self.run_one(path, scenario, &cache, &options, &interruption)?;
            let took = started.elapsed().as_secs_f64();
            reports.push(report);
            // First to where it stays: whoever reads the text may be gone.
            writer.write(&reports, scenarios.len())?;
            print(&reports[index]);
            writer.tell(&reports[index], Some(path));
            note!("{}: {took:.1} s{}", scenario.name, summary(&options));
            interruption.leave();
            if interruption.asked() {
                let left = scenarios[index + 1..].iter().map(|(_, scenario)| scenario.name.as_str());
                left.for_each(|name| note!("{name}: not run: interrupted"));
                return Ok(TROUBLE);
            }
        }
        Ok(writer.exit_code(&reports, &options.deny))
    }

    /// Where results are kept, if they are.
    fn journal(
        &self,
        scenarios: &[(&PathBuf, Scenario)],
        options: &RunOptions,
    ) -> Result<Option<Arc<Journal>>, Usage> {
        let Some(path) = &self.resume else { return Ok(None) };
        let scenarios: Vec<&Scenario> = scenarios.iter().map(|(_, scenario)| scenario).collect();
        let journal =
            Journal::open(path, &scenarios, options).map_err(|why| Usage(format!("--resume: {why}")))?;
        if !journal.is_empty() {
            note!("{}: {} results are known", path.display(), journal.len());
        }
        if journal.cut() > 0 {
            note!("{}: the last {} bytes were torn, and are left out", path.display(), journal.cut());
        }
        Ok(Some(journal))
    }

    /// What is recorded on KVM is never the same again.
    fn check_repeatable(&self) -> Result<(), Usage> {
        let asked = [("--resume", self.resume.is_some()), ("--shard", self.shard.is_some())];
        asked.iter().find(|(_, asked)| *asked).map_or(Ok(()), |(option, _)| {
            Err(Usage(format!("{option} needs recordings that are always the same: use --engine software")))
        })
    }

    fn run_one(
        &self,
        path: &Path,
        scenario: &Scenario,
        cache: &Cache,
        options: &RunOptions,
        interruption: &Interruption,
    ) -> anyhow::Result<Report> {
        let seed = options.seed.unwrap_or(scenario.crash.seed);
        let machines = Machines::on(self.engine.into(), scenario, cache, seed)
            .map_err(|error| in_scenario(error, path, scenario))?;
        let line = Line::new(&scenario.name, self.progress);
        let show = |progress: Progress| {
            if matches!(progress, Progress::Recorded { .. }) {
                interruption.keep();
            }
            line.show(&progress);
        };
        Ok(explore::run(scenario, &machines, options, &show)?)
    }

    /// The scenario of a file, and with `--mutants` what becomes of it.
    fn load(&self, path: &Path) -> anyhow::Result<Vec<Scenario>> {
        let mut scenario = Scenario::load(path)?;
        if let Some(kernel) = &self.kernel {
            scenario.override_kernel(kernel, self.modules.as_deref());
        }
        if let Some(platform) = self.platform {
            scenario.override_platform(platform).map_err(|why| Usage(format!("--platform: {why}")))?;
        }
        let mutated = |name: &str| {
            scenario.clone().with_mutant(name).map_err(|why| Usage(format!("--mutant {name}: {why}")))
        };
        if let Some(name) = &self.mutant {
            return Ok(vec![mutated(name)?]);
        }
        let names = scenario.mutants.iter().filter(|_| self.mutants).map(|mutant| mutant.name.as_str());
        let mutants = names.map(mutated).collect::<Result<Vec<_>, _>>()?;
        Ok([vec![scenario.clone()], mutants].concat())
    }

    fn options(&self) -> RunOptions {
        RunOptions {
            granularity: self.granularity,
            nt_evicts: self.nt_evicts,
            strict_fences: self.strict_fences,
            seed: self.seed,
            budget: self.budget,
            explore: self.explore,
            in_recovery: self.crash_in_recovery,
            jobs: self.jobs.map_or_else(processors, usize::from),
            deny: self.deny.clone(),
            shard: self.shard,
            memory: self.memory.map(|size| size.0),
            code: CODE.to_owned(),
            ..RunOptions::default()
        }
    }
}

/// What KVM cannot record makes no sense to be run on it.
fn check_sampled(scenarios: &[(&PathBuf, Scenario)], options: &RunOptions) -> Result<(), Usage> {
    let refused =
        scenarios.iter().find_map(|(path, scenario)| Some((path, scenario.refuses_samples(options)?)));
    refused.map_or(Ok(()), |(path, why)| {
        Err(Usage(format!("--engine kvm: {}: {why}, or --engine software", path.display())))
    })
}

/// Prints a report, its first line in the colour of the verdict on a terminal, unless NO_COLOR is set. It is no trouble
/// if nobody reads it to its end.
pub fn print(report: &Report) {
    let plain = report.to_string();
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = match plain.split_once('\n') {
        Some((first, rest)) if wanted && std::io::stdout().is_terminal() => {
            let colour = match report.verdict {
                Verdict::Kept | Verdict::Expected => 32,
                Verdict::Violated => 31,
                Verdict::Inconclusive | Verdict::Part => 33,
            };
            format!("\x1b[1;{colour}m{first}\x1b[0m\n{rest}")
        }
        _ => plain,
    };
    say::heard(say::print_text(&text));
}

/// One machine for each.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What a run cost this host, for people. Begins with a separator.
pub fn summary(options: &RunOptions) -> String {
    let effort = &options.effort;
    let taken = options.ledger.as_ref().map_or(0, |ledger| ledger.taken());
    let taken = if taken > 0 { format!(", {taken} results taken over") } else { String::new() };
    let taken = format!("{taken}{}", recorded(effort));
    let Some(rate) = effort.a_second() else { return taken };
    let workers = effort.workers();
    let s = if workers == 1 { "" } else { "s" };
    format!(
        "{taken}, {} recoveries by {workers} worker{s}, {rate:.1} a second, {} MiB of memory each",
        effort.recoveries(),
        effort.memory_of_worker() >> 20
    )
}

/// How fast it was recorded. Begins with a separator.
fn recorded(effort: &Effort) -> String {
    let (instructions, events) = (effort.instructions() as f64, effort.events() as f64);
    let seconds = effort.recording().as_secs_f64();
    if events == 0.0 || seconds == 0.0 {
        return String::new();
    }
    format!(
        ", {:.1} M instructions and {events} events recorded in {seconds:.1} s ({:.1} M instructions and {:.0} events a second, {:.0} instructions an event)",
        instructions / 1e6,
        instructions / seconds / 1e6,
        events / seconds,
        instructions / events
    )
}

/// Orders verdicts from good to bad, with their exit codes: a violation outweighs an inconclusive run.
pub fn severity(verdict: Verdict) -> (u8, u8) {
    let code = verdict.exit_code();
    (if code == 1 { u8::MAX } else { code }, code)
}

fn granularity(text: &str) -> Result<Granularity, String> {
    match text {
        "sector" => Ok(Granularity::Sector),
        "line" => Ok(Granularity::Line),
        "word" => Ok(Granularity::Word),
        _ => Err(Usage(format!("{text:?} is no granularity: give sector, line or word")).to_string()),
    }
}

fn platform(text: &str) -> Result<Platform, String> {
    let known = Platform::ALL.into_iter().find(|platform| platform.name() == text);
    known.ok_or_else(|| {
        let names = Platform::ALL.map(Platform::name).join(", ");
        Usage(format!("{text:?} is no platform: give one of {names}")).to_string()
    })
}

pub fn class(text: &str) -> Result<Class, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("{text:?} is no class: give one that a report names, torn-sector for instance"))
}
