//! `pmemsim table`: what came of the matrix of synchronous faults, from reports.

use std::path::PathBuf;

use anyhow::Context;
use explore::{Report, matrix};

use crate::failure::Usage;
use crate::say;

/// Prints a table of what came of the matrix of synchronous faults, as Markdown, from the reports of its shards and of
/// several kernels. Of a cell that was run several times, the last report counts.
#[derive(clap::Args)]
pub struct Table {
    /// Reports of `pmemsim run --suite ... --json`
    #[arg(required = true)]
    reports: Vec<PathBuf>,
}

impl Table {
    /// Prints it.
    pub fn run(self) -> anyhow::Result<u8> {
        let mut reports = Vec::new();
        for path in &self.reports {
            let json = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the reports of {}", path.display()))?;
            let read = Report::all_from_json(&json);
            reports.extend(read.map_err(|why| Usage(format!("{}: {why}", path.display())))?);
        }
        say::print_text(&matrix::table(&reports))?;
        Ok(0)
    }
}
