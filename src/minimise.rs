//! `pmemsim minimise`: a scenario made smaller while it shows the same.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use explore::machines::Machines;
use explore::minimise::{MinimiseError, minimise};
use explore::verdict::Class;
use explore::{RunOptions, Scenario};
use images::Cache;

use crate::failure::Usage;
use crate::interrupt::Interruption;
use crate::output::{check_writable, write_json};
use crate::run::{class, processors};
use crate::say::{self, note};

/// Makes a scenario smaller while it shows the same class of finding: fewer steps, then smaller sizes. Prints a scenario that
/// is ready to be run, and expects what it shows.
#[derive(clap::Args)]
pub struct Minimise {
    /// The scenario file
    scenario: PathBuf,
    /// The class that it must go on showing; default: the worst that it shows
    #[arg(long, value_parser = class)]
    class: Option<Class>,
    /// Scenarios to try at most
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    tries: u64,
    /// Write the scenario to this file instead of to the terminal
    #[arg(long)]
    output: Option<PathBuf>,
    /// Write the report of the smallest scenario as JSON: `pmemsim replay` takes it
    #[arg(long)]
    json: Option<PathBuf>,
    /// Machines that recover at the same time; default: one per processor
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Everything random comes from here, instead of from the scenario
    #[arg(long)]
    seed: Option<u64>,
}

impl Minimise {
    /// Looks for the smallest one and prints it.
    pub fn run(self) -> anyhow::Result<u8> {
        let scenario = Scenario::load(&self.scenario).map_err(|why| Usage(why.to_string()))?;
        if let Some(path) = &self.json {
            check_writable("--json", path)?;
        }
        if let Some(path) = &self.output {
            let opened = std::fs::File::options().create(true).append(true).open(path);
            opened.with_context(|| format!("cannot write {}", path.display()))?;
        }
        let interruption = Interruption::listen()?;
        let started = Instant::now();
        let options = RunOptions {
            seed: self.seed,
            jobs: self.jobs.map_or_else(processors, usize::from),
            interrupted: Some(interruption.flag()),
            ..RunOptions::default()
        };
        let machines =
            Machines::prepare(&scenario, &Cache::open()?, self.seed.unwrap_or(scenario.crash.seed))?;
        let say = |tries, steps| note!("try {tries}: {steps} steps");
        let found = minimise(&scenario, &machines, &options, self.class, self.tries, &say);
        let found = found.map_err(|why| match why {
            MinimiseError::Host(why) => anyhow::Error::new(why),
            why => anyhow::Error::new(Usage(format!("{}: {why}", self.scenario.display()))),
        })?;
        match &self.output {
            Some(path) => std::fs::write(path, &found.text)
                .with_context(|| format!("cannot write {}", path.display()))?,
            None => say::print_text(&found.text)?,
        }
        if let Some(path) = &self.json {
            write_json(path, std::slice::from_ref(&found.report), 1)?;
        }
        note!(
            "{}: {} of {} steps, {} tries, {:.1} s",
            found.class,
            found.after,
            found.before,
            found.tries,
            started.elapsed().as_secs_f64()
        );
        let shown = found.report.findings.iter().find(|it| it.classes().any(|class| class == found.class));
        if let Some(finding) = shown {
            let state = &finding.smallest;
            let (lost, lines) = (state.lost.len(), state.lost_lines);
            note!("{}: {lost} of {} parts in flight lost, in {lines} lines", finding.id, state.in_flight);
        }
        Ok(0)
    }
}
