//! `pmemsim sequences`: short sequences of file system operations, all within bounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use explore::machines::Machines;
use explore::scenario::Explore;
use explore::sequences::{Bounds, Sequence, run_all};
use explore::shard::Shard;
use explore::verdict::Class;
use explore::{Report, RunOptions, Scenario, Verdict};
use images::Cache;

use crate::failure::Usage;
use crate::output::Output;
use crate::run::class;
use crate::say::{self, Unheard, note, say};
use crate::teller::Teller;

/// Tries short sequences of file system operations: all of one operation, or of two, each followed by what makes it
/// durable, on a small tree of files. The power is cut everywhere from the first operation on.
///
/// Prints a line for each sequence, its findings in full, and a table. Exit codes are those of `run`.
#[derive(clap::Args)]
pub struct Sequences {
    /// Operations in each sequence
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    operations: u8,
    /// The file system: ext4 or xfs
    #[arg(long, default_value = "ext4", value_parser = ["ext4", "xfs"])]
    filesystem: String,
    /// The kernel, as scenarios name it
    #[arg(long, default_value = "debian-6.1")]
    kernel: String,
    /// Only every N-th sequence, beginning with the I-th: I/N
    #[arg(long)]
    shard: Option<Shard>,
    /// Only sequences that have this in their names
    #[arg(long)]
    only: Option<String>,
    /// Only says what sequences there are
    #[arg(long)]
    list: bool,
    /// Sequences that run at the same time; default: one per processor
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Everything random comes from here
    #[arg(long)]
    seed: Option<u64>,
    /// How crash states are found, instead of lazily: lazy or sample
    #[arg(long)]
    explore: Option<Explore>,
    /// Crash states to recover at most, of each sequence
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    budget: Option<u64>,
    /// Count this class as a violation, too (torn-sector, guest-warning, ...)
    #[arg(long, value_parser = class)]
    deny: Vec<Class>,
    /// Write the sequences as scenarios into this directory
    #[arg(long)]
    keep: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Sequences {
    /// Runs them. The exit code is that of the worst.
    pub fn run(self) -> anyhow::Result<u8> {
        let sequences = self.chosen()?;
        if let Some(directory) = &self.keep {
            keep(directory, &sequences)?;
        }
        if self.list {
            sequences.iter().try_for_each(|sequence| say!("{}", sequence.scenario.name))?;
            return Ok(0);
        }
        let writer = self.output.open()?;
        let started = Instant::now();
        let options = self.options();
        let seed = options.seed.unwrap_or(sequences[0].scenario.crash.seed);
        let machines = Machines::prepare(&sequences[0].scenario, &Cache::open()?, seed)?;
        note!(
            "{} sequences; the machine is ready after {:.1} s",
            sequences.len(),
            started.elapsed().as_secs_f64()
        );
        let scenarios: Vec<&Scenario> = sequences.iter().map(|sequence| &sequence.scenario).collect();
        let teller = Teller::default();
        run_all(&scenarios, &machines, &options, &|number, report| teller.tell(number, report))?;
        let reports = teller.into_reports();
        say::heard(print_table(&sequences, &reports));
        note!("{} sequences: {:.1} s", reports.len(), started.elapsed().as_secs_f64());
        writer.write(&reports, scenarios.len())?;
        Ok(writer.exit_code(&reports, &self.deny))
    }

    fn chosen(&self) -> Result<Vec<Sequence>, Usage> {
        let bounds = Bounds {
            operations: self.operations,
            filesystem: self.filesystem.clone(),
            kernel: self.kernel.clone(),
            crash: None,
        };
        let named = |sequence: &Sequence| {
            self.only.as_ref().is_none_or(|wanted| sequence.scenario.name.contains(wanted.as_str()))
        };
        let all = bounds.sequences().into_iter().filter(named).enumerate();
        let mine = all.filter(|(number, _)| self.shard.is_none_or(|shard| shard.has(*number)));
        let chosen: Vec<Sequence> = mine.map(|(_, sequence)| sequence).collect();
        if chosen.is_empty() {
            let what = "there is no such sequence: see pmemsim sequences --list for what --only can name";
            return Err(Usage(what.to_owned()));
        }
        Ok(chosen)
    }

    fn options(&self) -> RunOptions {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        RunOptions {
            seed: self.seed,
            budget: self.budget,
            explore: self.explore,
            jobs: self.jobs.map_or(processors, usize::from),
            deny: self.deny.clone(),
            ..RunOptions::default()
        }
    }
}

/// Writes every sequence as a scenario file.
fn keep(directory: &Path, sequences: &[Sequence]) -> anyhow::Result<()> {
    let failed = || format!("cannot write scenarios to {}", directory.display());
    std::fs::create_dir_all(directory).with_context(failed)?;
    for sequence in sequences {
        let words: String = sequence.scenario.name.replace(", ", "--").replace([' ', '/'], "-");
        std::fs::write(directory.join(format!("{words}.toml")), &sequence.scenario.text)
            .with_context(failed)?;
    }
    Ok(())
}

/// What came of the sequences, by the operation that they end with.
#[derive(Default)]
struct Row {
    sequences: usize,
    kept: usize,
    violated: usize,
    inconclusive: usize,
    points: u64,
    exhaustive: u64,
}

impl Row {
    fn add(&mut self, report: &Report) {
        self.sequences += 1;
        match report.verdict {
            Verdict::Kept | Verdict::Expected | Verdict::Part => self.kept += 1,
            Verdict::Violated => self.violated += 1,
            Verdict::Inconclusive => self.inconclusive += 1,
        }
        self.points += report.counts.crash_points;
        self.exhaustive += report.counts.points_exhaustive;
    }

    fn print(&self, name: &str) -> Result<(), Unheard> {
        say!(
            "{name:<20} {:>9} {:>6} {:>8} {:>12} {:>12} {:>10}",
            self.sequences,
            self.kept,
            self.violated,
            self.inconclusive,
            self.points,
            self.exhaustive
        )
    }
}

fn print_table(sequences: &[Sequence], reports: &[Report]) -> Result<(), Unheard> {
    let mut order: Vec<&str> = Vec::new();
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut all = Row::default();
    for (sequence, report) in sequences.iter().zip(reports) {
        if !rows.contains_key(sequence.operation) {
            order.push(sequence.operation);
        }
        rows.entry(sequence.operation).or_default().add(report);
        all.add(report);
    }
    say!(
        "\n{:<20} {:>9} {:>6} {:>8} {:>12} {:>12} {:>10}",
        "operation",
        "sequences",
        "kept",
        "violated",
        "inconclusive",
        "crash points",
        "exhaustive"
    )?;
    order.iter().try_for_each(|name| rows[name].print(name))?;
    all.print("all")
}
