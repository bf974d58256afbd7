//! Where reports go besides the terminal: JSON, a page for a browser, JUnit, annotations of GitHub. And what they mean for
//! the exit code when it is known already what is wrong.

use std::path::{Path, PathBuf};

use anyhow::Context;
use explore::baseline::Baseline;
use explore::verdict::Class;
use explore::{Report, html};

use crate::failure::Usage;
use crate::run::severity;
use crate::say::{self, note};
use crate::{github, junit};

/// Files to write, and what was found before.
#[derive(clap::Args)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Write the report as JSON, a list when there are several scenarios (`pmemsim schema` says its form)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page for a browser into this directory: index.html, which needs no network, and report.json
    #[arg(long, value_name = "DIR")]
    html: Option<PathBuf>,
    /// Write JUnit XML: a test suite for each scenario
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Let only findings fail that this earlier JSON report does not have
    #[arg(long, value_name = "REPORT")]
    baseline: Option<PathBuf>,
}

impl Output {
    /// Reads the baseline, and makes sure that everything can be written: that should not show after an hour.
    pub fn open(&self) -> anyhow::Result<Writer<'_>> {
        if let Some(directory) = &self.html {
            let made = std::fs::create_dir_all(directory);
            made.map_err(|why| {
                Usage(format!("--html {}: {why}; give a directory that can be made", directory.display()))
            })?;
            check_writable("--html", &directory.join(PAGE))?;
        }
        for (option, path) in [("--json", &self.json), ("--junit", &self.junit)] {
            path.as_ref().map_or(Ok(()), |path| check_writable(option, path))?;
        }
        let baseline = self.baseline.as_deref().map(read_baseline).transpose()?;
        Ok(Writer { output: self, baseline })
    }
}

const PAGE: &str = "index.html";

fn read_baseline(path: &Path) -> Result<Baseline, Usage> {
    let bad = |why: String| {
        Usage(format!("--baseline {}: {why}; give what `pmemsim run --json` wrote", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|why| bad(why.to_string()))?;
    Ok(Baseline::new(&Report::all_from_json(&text).map_err(bad)?))
}

/// Writes reports as they come.
pub struct Writer<'o> {
    output: &'o Output,
    baseline: Option<Baseline>,
}

impl Writer<'_> {
    /// Writes the reports of a run of so many scenarios; those of the last may not be there yet.
    pub fn write(&self, reports: &[Report], of: usize) -> anyhow::Result<()> {
        if let Some(path) = &self.output.json {
            write_json(path, reports, of)?;
        }
        if let Some(directory) = &self.output.html {
            write_json(&directory.join("report.json"), reports, of)?;
            put(&directory.join(PAGE), &html::page(reports))?;
        }
        if let Some(path) = &self.output.junit {
            put(path, &junit::xml(reports, self.baseline.as_ref())?)?;
        }
        Ok(())
    }

    /// Says what GitHub and the baseline have to know of a report. `file` is where its scenario stands.
    pub fn tell(&self, report: &Report, file: Option<&Path>) {
        if github::is_here() {
            say::heard(say::print_text(&github::annotations(report, file, self.baseline.as_ref())));
        }
        let Some(baseline) = &self.baseline else { return };
        let known = report.findings.iter().filter(|finding| baseline.knows(report, finding)).count();
        let new = report.findings.len() - known;
        note!("{}: {known} findings are in the baseline, {new} are new", report.scenario);
    }

    /// The exit code of all together. `deny` are the classes that count besides violations.
    pub fn exit_code(&self, reports: &[Report], deny: &[Class]) -> u8 {
        let of = |report: &Report| match &self.baseline {
            Some(baseline) if baseline.excuses(report, deny) => (0, 0),
            _ => severity(report.verdict),
        };
        reports.iter().map(of).max().map_or(0, |(_, code)| code)
    }
}

/// A file that cannot be written should not show after an hour.
pub fn check_writable(option: &str, path: &Path) -> Result<(), Usage> {
    let opened = std::fs::File::options().create(true).append(true).open(path);
    opened.map(drop).map_err(|why| {
        Usage(format!("{option} {}: {why}; give a file in a directory that can be written", path.display()))
    })
}

/// Writes the reports of a run of so many scenarios; those of the last may not be there yet.
pub fn write_json(path: &Path, reports: &[Report], of: usize) -> anyhow::Result<()> {
    let json = match reports {
        [report] if of == 1 => report.to_json(),
        several => {
            let each: Vec<String> = several.iter().map(Report::to_json).collect();
            format!("[{}]", each.join(","))
        }
    };
    put(path, &json)
}

fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write the report to {}", path.display()))
}
