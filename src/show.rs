//! `pmemsim report`: reports that were written as JSON, in another form.

use std::path::PathBuf;

use explore::Report;

use crate::failure::Usage;
use crate::output::Output;
use crate::run::print;

/// Shows JSON reports again: as text, as a page for a browser, as JUnit. Nothing is run.
///
/// Exit codes are those of `run`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  pmemsim report shard-*.json --html out      # one page for several reports
  pmemsim report new.json --baseline old.json # only new findings fail")]
pub struct Show {
    /// What `pmemsim run --json`, `merge`, `sequences` or `import` wrote
    #[arg(required = true)]
    reports: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Show {
    /// The exit code is that of the worst.
    pub fn run(self) -> anyhow::Result<u8> {
        let mut reports = Vec::new();
        for path in &self.reports {
            let bad = |why: String| {
                Usage(format!(
                    "report {}: {why}; give a file that `pmemsim run --json` wrote",
                    path.display()
                ))
            };
            let text = std::fs::read_to_string(path).map_err(|why| bad(why.to_string()))?;
            reports.extend(Report::all_from_json(&text).map_err(bad)?);
        }
        let writer = self.output.open()?;
        writer.write(&reports, reports.len())?;
        for report in &reports {
            print(report);
            writer.tell(report, None);
        }
        Ok(writer.exit_code(&reports, &[]))
    }
}
