//! `pmemsim replay`: a finding of a report once more.

use std::path::PathBuf;

use anyhow::Context;
use explore::Report;
use explore::machines::Machines;
use explore::replay::scenario_of;
use images::Cache;

use crate::failure::Usage;

/// Recreates the smallest state of a finding, recovers it, and shows what the guest said.
#[derive(clap::Args)]
pub struct Replay {
    /// Report of `pmemsim run --json`
    report: PathBuf,
    /// Which finding, as the report names it
    id: String,
    /// Write the media of the first region, as the power cut left them
    #[arg(long)]
    image: Option<PathBuf>,
}

impl Replay {
    /// The exit code is 1 when the finding shows again, 3 when it does not.
    pub fn run(self) -> anyhow::Result<u8> {
        let text = std::fs::read_to_string(&self.report).map_err(|why| self.bad_report(&why.to_string()))?;
        let report = Report::from_json(&text).map_err(|why| self.bad_report(&why))?;
        let scenario = scenario_of(&report)?;
        let machines = Machines::prepare(&scenario, &Cache::open()?, report.settings.seed)?;
        let replayed = explore::replay(&report, &self.id, &scenario, &machines)?;
        println!("{}", replayed.outcome);
        for fault in &replayed.faults {
            println!("{fault}");
        }
        if !replayed.console.is_empty() {
            println!("--- console\n{}", replayed.console.trim_end());
        }
        if let Some(path) = &self.image {
            std::fs::write(path, &replayed.image)
                .with_context(|| format!("cannot write the media to {}", path.display()))?;
        }
        Ok(if replayed.faults.is_empty() { crate::failure::TROUBLE } else { 1 })
    }
    fn bad_report(&self, why: &str) -> Usage {
        let path = self.report.display();
        Usage(format!("report {path}: {why}; give a file that `pmemsim run --json` wrote"))
    }
}
