//! `pmemsim replay`: a finding of a report once more.

use std::path::PathBuf;

use anyhow::Context;
use explore::Report;
use explore::debug::{Part, debug};
use explore::machines::Machines;
use explore::replay::scenario_of;
use explore::report::Finding;
use images::Cache;

use crate::failure::Usage;
use crate::say::{self, say};
use crate::{console, gdb};

/// Recreates the smallest state of a finding, recovers it, and shows what the guest said.
#[derive(clap::Args)]
pub struct Replay {
    /// What `pmemsim run --json` wrote
    report: PathBuf,
    /// Which finding, as the report names it
    id: String,
    /// Name of the scenario, when several in the report have a finding of that name
    #[arg(long)]
    scenario: Option<String>,
    /// Write the media of the first region, as the power cut left them
    #[arg(long)]
    image: Option<PathBuf>,
    /// Leave you in the recovered machine: a shell on its serial console, the file system mounted
    #[arg(long, conflicts_with = "gdb")]
    console: bool,
    /// Serve the gdb protocol on this port of 127.0.0.1 (0: one that is free), for the recovery; it goes backward, too
    #[arg(long, value_name = "PORT")]
    gdb: Option<u16>,
    /// With --gdb: the recording instead
    #[arg(long, requires = "gdb")]
    recording: bool,
}

impl Replay {
    /// The exit code is 1 when the finding shows again, 3 when it does not.
    pub fn run(self) -> anyhow::Result<u8> {
        let text = std::fs::read_to_string(&self.report).map_err(|why| self.bad_report(&why.to_string()))?;
        let reports = Report::all_from_json(&text).map_err(|why| self.bad_report(&why))?;
        let report = self.select(reports)?;
        let scenario = scenario_of(&report)?;
        let machines = Machines::prepare(&scenario, &Cache::open()?, report.settings.seed)?;
        if let Some(port) = self.gdb {
            let part = if self.recording { Part::Recording } else { Part::Recovery };
            debug(&report, &self.id, &scenario, &machines, part, &mut gdb::listen(port)?)?;
            return Ok(0);
        }
        let replayed = explore::replay(&report, &self.id, &scenario, &machines)?;
        say::heard(say!("{}", replayed.outcome));
        for fault in &replayed.faults {
            say::heard(say!("{fault}"));
        }
        if !replayed.console.is_empty() {
            say::heard(say!("--- console\n{}", replayed.console.trim_end()));
        }
        if let (Some(path), Some(image)) = (&self.image, &replayed.image) {
            std::fs::write(path, image)
                .with_context(|| format!("cannot write the media to {}", path.display()))?;
        }
        if self.console {
            let media = replayed.image.as_deref().ok_or_else(|| {
                Usage(
                    "--console: the guest crashed while the scenario was recorded: nothing recovers"
                        .to_owned(),
                )
            })?;
            console::open(&scenario, report.settings.seed, media, &replayed.poisoned)?;
        }
        Ok(if replayed.faults.is_empty() { crate::failure::TROUBLE } else { 1 })
    }

    /// The report that has the finding.
    fn select(&self, reports: Vec<Report>) -> Result<Report, Usage> {
        let path = self.report.display();
        let named = |report: &Report| self.scenario.as_ref().is_none_or(|name| *name == report.scenario);
        let findings = reports.iter().flat_map(|report| {
            let ids = report.findings.iter().flat_map(Finding::replayable).map(|(id, _)| id);
            ids.map(move |id| format!("{id} of {}", report.scenario))
        });
        let known = findings.collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "no findings" } else { &known };
        let has = |report: &Report| {
            report.findings.iter().flat_map(Finding::replayable).any(|(id, _)| id == self.id)
        };
        let mut having = reports.into_iter().filter(|report| named(report) && has(report));
        let Some(report) = having.next() else {
            return Err(Usage(format!("report {path}: no finding {:?}; it has {known}", self.id)));
        };
        if having.next().is_some() {
            return Err(Usage(format!(
                "report {path}: several scenarios have a finding {:?}; give one by --scenario: {known}",
                self.id
            )));
        }
        let of_recording = report.findings.iter().any(|one| one.id == self.id && one.is_of_recording());
        if self.image.is_some() && of_recording {
            let why = "the guest crashed while recording, before any power cut: there are no media to write";
            return Err(Usage(format!("--image: {why}; leave it out")));
        }
        Ok(report)
    }

    fn bad_report(&self, why: &str) -> Usage {
        let path = self.report.display();
        Usage(format!("report {path}: {why}; give a file that `pmemsim run --json` wrote"))
    }
}
