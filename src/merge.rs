//! `pmemsim merge`: what shards found, as one run.

use std::path::{Path, PathBuf};

use explore::machines::Machines;
use explore::replay::scenario_of;
use explore::shard::{Gathered, gather};
use explore::{Report, RunOptions};
use images::Cache;

use crate::failure::{Usage, in_scenario};
use crate::output::Output;
use crate::progress::Line;
use crate::run::{CODE, print, processors, summary};
use crate::say::note;

/// Puts together what the shards of a run found: says what a single run would have said. Records the scenario once
/// more; what the shards did is not done again.
#[derive(clap::Args)]
pub struct Merge {
    /// What every shard wrote with `pmemsim run --shard I/N --json`
    #[arg(required = true)]
    reports: Vec<PathBuf>,
    /// Machines that recover at the same time where something is left to do; default: one per processor
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    output: Output,
}

impl Merge {
    /// The exit code is that of the whole run.
    pub fn run(self) -> anyhow::Result<u8> {
        let mut reports = Vec::new();
        for path in &self.reports {
            reports.extend(read(path)?);
        }
        let gathered = gather(reports, CODE).map_err(|why| Usage(why.to_string()))?;
        let writer = self.output.open()?;
        let cache = Cache::open()?;
        let merged = gathered.into_iter().map(|gathered| self.merge(gathered, &cache));
        let merged = merged.collect::<anyhow::Result<Vec<Report>>>()?;
        writer.write(&merged, merged.len())?;
        for report in &merged {
            print(report);
            writer.tell(report, None);
        }
        Ok(writer.exit_code(&merged, &[]))
    }

    fn merge(&self, gathered: Gathered, cache: &Cache) -> anyhow::Result<Report> {
        let Gathered { report, options } = gathered;
        let options = RunOptions { jobs: self.jobs.map_or_else(processors, usize::from), ..options };
        let scenario = scenario_of(&report)?;
        let machines = Machines::prepare(&scenario, cache, report.settings.seed)
            .map_err(|error| in_scenario(error, Path::new(&report.scenario), &scenario))?;
        let line = Line::new(&scenario.name, false);
        let merged = explore::run(&scenario, &machines, &options, &|progress| line.show(&progress))?;
        drop(line);
        note!("{}: merged{}", scenario.name, summary(&options));
        Ok(merged)
    }
}

fn read(path: &Path) -> Result<Vec<Report>, Usage> {
    let bad = |why: String| {
        Usage(format!("{}: {why}; give what `pmemsim run --shard --json` wrote", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|why| bad(why.to_string()))?;
    Report::all_from_json(&text).map_err(bad)
}
