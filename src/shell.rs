//! `pmemsim completions` and `pmemsim man`: what shells and man(1) want to know of the command line.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::say;

/// Prints completions for a shell.
#[derive(clap::Args)]
#[command(
    after_help = "Example: pmemsim completions bash > ~/.local/share/bash-completion/completions/pmemsim"
)]
pub struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    /// Returns the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Command::command(), "pmemsim", &mut script);
        say::print_bytes(&script)?;
        Ok(0)
    }
}

/// Writes the manual pages, one for each command, into a directory.
#[derive(clap::Args)]
pub struct Man {
    /// Where to; it is made if need be
    directory: PathBuf,
}

impl Man {
    /// Returns the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        let say = || format!("cannot write manual pages to {}", self.directory.display());
        std::fs::create_dir_all(&self.directory).with_context(say)?;
        clap_mangen::generate_to(crate::Command::command(), &self.directory).with_context(say)?;
        Ok(0)
    }
}
