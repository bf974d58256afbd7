//! `pmemsim run --suite`: many scenarios that belong together, and a table of what came of them.

mod files;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use explore::load::Load;
use explore::machines::Machines;
use explore::sequences::run_all;
use explore::{Report, RunOptions, Scenario, matrix};
use images::Cache;

use self::files::{KNOWN_TESTS, PROVING_GROUND};
use crate::failure::{TROUBLE, Usage};
use crate::interrupt::Interruption;
use crate::output::{Output, check_writable};
use crate::say::{self, note, say};
use crate::teller::Teller;

/// Operations of a random load.
const OPERATIONS: usize = 24;

/// Scenarios that belong together.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Synchronous faults: every file system, page size, situation and platform
    Matrix,
    /// What tests of xfstests are about, done at every crash point, and random loads
    KnownTests,
    /// The scenarios of the mutants, each without and with every mutant if the kernel has them, and the matrix
    ProvingGround,
}

/// What is asked for of a suite.
#[derive(clap::Args)]
pub struct Options {
    /// Scenarios that belong together, instead of files; --shard is then every N-th of them, beginning with the I-th
    #[arg(long, value_enum, conflicts_with_all = ["scenarios", "mutants", "mutant", "platform", "resume", "engine", "crash_in_recovery"])]
    pub suite: Option<Suite>,
    /// Only scenarios of the suite that have this in their names, or all of these words
    #[arg(long, requires = "suite")]
    only: Option<String>,
    /// Only says what scenarios the suite has
    #[arg(long, requires = "suite")]
    list: bool,
    /// Random loads of the suite known-tests on each file system
    #[arg(long, requires = "suite", default_value_t = 4, value_parser = clap::value_parser!(u64).range(..=10_000))]
    loads: u64,
    /// Write what came of the matrix to this file, as Markdown
    #[arg(long, requires = "suite")]
    table: Option<PathBuf>,
}

/// The same, with what other options say.
pub struct Asked<'a> {
    pub options: &'a Options,
    pub kernel: Option<&'a str>,
    pub modules: Option<&'a str>,
    pub output: &'a Output,
}

/// Scenarios of one machine, with the same regions and the same file system.
type Group = Vec<Scenario>;

/// Runs a suite. The exit code is that of the worst.
pub fn run(suite: Suite, asked: &Asked, options: &RunOptions) -> anyhow::Result<u8> {
    let groups = chosen(suite, asked, options)?;
    let all: Vec<&Scenario> = groups.iter().flatten().collect();
    if asked.options.list {
        all.iter().try_for_each(|scenario| say!("{}", name_of(scenario)))?;
        return Ok(0);
    }
    let writer = asked.output.open()?;
    if let Some(path) = &asked.options.table {
        check_writable("--table", path)?;
    }
    let interruption = Interruption::listen()?;
    let options = RunOptions { shard: None, interrupted: Some(interruption.flag()), ..options.clone() };
    let cache = Cache::open()?;
    let teller = Teller::default();
    let mut told = 0;
    for group in &groups {
        let started = Instant::now();
        run_group(group, &cache, &options, &|number, report| {
            // A run that was ended early says nothing of its scenario.
            if !interruption.asked() {
                teller.tell(told + number, report);
            }
        })?;
        if interruption.asked() {
            break;
        }
        told += group.len();
        let took = started.elapsed().as_secs_f64();
        note!("{told} of {} scenarios: the last {} took {took:.1} s", all.len(), group.len());
        // What is told is there to be kept.
        interruption.keep();
    }
    let reports = teller.into_reports();
    let table = matrix::table(&reports);
    if suite != Suite::KnownTests {
        say::heard(say!("{table}"));
    }
    writer.write(&reports, all.len())?;
    reports.iter().for_each(|report| writer.tell(report, None));
    if let Some(path) = &asked.options.table {
        std::fs::write(path, &table)
            .with_context(|| format!("cannot write the table to {}", path.display()))?;
    }
    if reports.len() < all.len() {
        note!("interrupted: {} of {} scenarios were run", reports.len(), all.len());
        return Ok(TROUBLE);
    }
    Ok(writer.exit_code(&reports, &options.deny))
}

/// Runs one scenario by all machines, or several at the same time.
fn run_group(
    group: &Group,
    cache: &Cache,
    options: &RunOptions,
    each: &(dyn Fn(usize, Report) + Sync),
) -> anyhow::Result<()> {
    let seed = options.seed.unwrap_or(group[0].crash.seed);
    let machines = Machines::prepare(&group[0], cache, seed)?;
    let options = RunOptions { effort: Arc::default(), ..options.clone() };
    if let [scenario] = &group[..] {
        each(0, explore::run(scenario, &machines, &options, &|_| ())?);
        return Ok(());
    }
    let scenarios: Vec<&Scenario> = group.iter().collect();
    Ok(run_all(&scenarios, &machines, &options, each)?)
}

/// What is run, in order.
fn chosen(suite: Suite, asked: &Asked, options: &RunOptions) -> anyhow::Result<Vec<Group>> {
    let mut groups = Vec::new();
    let usual = if suite == Suite::ProvingGround { "mutants-6.1" } else { "debian-6.1" };
    let kernel = asked.kernel.unwrap_or(usual);
    match suite {
        Suite::Matrix => groups.extend(cells(kernel)?),
        Suite::ProvingGround => {
            groups.extend(mutants(kernel)?);
            groups.extend(cells(kernel)?);
        }
        Suite::KnownTests => {
            groups.extend(files(KNOWN_TESTS, kernel)?);
            groups.extend(loads(asked.options.loads, kernel)?);
        }
    }
    if let (Some(kernel), Some(modules)) = (asked.kernel, asked.modules) {
        groups.iter_mut().flatten().for_each(|scenario| scenario.override_kernel(kernel, Some(modules)));
    }
    let mut number = 0;
    for group in &mut groups {
        group.retain(|scenario| {
            let wanted = asked.options.only.as_ref();
            let named = wanted.is_none_or(|wanted| is_named(&name_of(scenario), wanted));
            let mine = named && options.shard.is_none_or(|shard| shard.has(number));
            number += usize::from(named);
            mine
        });
    }
    groups.retain(|group| !group.is_empty());
    if groups.is_empty() {
        let what = "the suite has no such scenario: see --list for what --only can name";
        return Err(Usage(what.to_owned()).into());
    }
    Ok(groups)
}

/// The cells of the matrix, by machine.
fn cells(kernel: &str) -> anyhow::Result<Vec<Group>> {
    let cells = matrix::cells();
    let of_machine = cells.chunk_by(|one, other| one.machine() == other.machine());
    let group =
        |cells: &[matrix::Cell]| cells.iter().map(|cell| cell.scenario(kernel)).collect::<Result<_, _>>();
    Ok(of_machine.map(group).collect::<Result<_, _>>()?)
}

/// The scenarios of the mutants; with each mutant, too, where the kernel has them.
fn mutants(kernel: &str) -> anyhow::Result<Vec<Group>> {
    let mut groups = Vec::new();
    for scenario in files(PROVING_GROUND, kernel)?.into_iter().flatten() {
        groups.push(vec![scenario.clone()]);
        if scenario.machine.kernel.starts_with("mutants-") {
            for mutant in &scenario.mutants {
                let mutated = scenario.clone().with_mutant(&mutant.name).map_err(Usage)?;
                groups.push(vec![mutated]);
            }
        }
    }
    Ok(groups)
}

/// Scenarios of a folder, each a group of its own.
fn files(folder: &[(&str, &str)], kernel: &str) -> anyhow::Result<Vec<Group>> {
    let mut groups = Vec::new();
    for (file, text) in folder {
        let mut scenario = Scenario::parse(text, file)?;
        if scenario.machine.kernel != kernel {
            scenario.override_kernel(kernel, None);
        }
        groups.push(vec![scenario]);
    }
    Ok(groups)
}

/// Random loads, by file system.
fn loads(seeds: u64, kernel: &str) -> anyhow::Result<Vec<Group>> {
    let group = |filesystem: &str| {
        let load = |seed| Load {
            filesystem: filesystem.to_owned(),
            kernel: kernel.to_owned(),
            operations: OPERATIONS,
            seed,
        };
        (1..=seeds).map(|seed| load(seed).scenario()).collect::<Result<Group, _>>()
    };
    Ok(["ext4", "xfs"].into_iter().map(group).collect::<Result<_, _>>()?)
}

/// Whether the name has the text in it, or every word of it among its own.
fn is_named(name: &str, wanted: &str) -> bool {
    name.contains(wanted) || wanted.split(' ').all(|word| name.split(' ').any(|own| own == word))
}

fn name_of(scenario: &Scenario) -> String {
    let mutant = scenario.mutant.as_ref().map_or(String::new(), |mutant| format!(", mutant {mutant}"));
    format!("{}{mutant}", scenario.name)
}
