//! `pmemsim schema`: the form of JSON reports, as JSON Schema.

use crate::say;

/// Prints the form of JSON reports, as JSON Schema (draft 2020-12).
#[derive(clap::Args)]
pub struct Schema {}

impl Schema {
    /// Returns the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        say::print_text(&explore::report::schema())?;
        Ok(0)
    }
}
