//! The `pmemsim` command: arguments, progress, exit codes.

// They panic when nobody reads: `say` has what does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod boot;
mod console;
mod doctor;
#[cfg(test)]
mod documentation;
mod engine;
mod failure;
mod gdb;
mod github;
mod images;
mod import;
mod interrupt;
mod junit;
mod media;
mod merge;
mod minimise;
mod output;
mod payload;
mod progress;
mod replay;
mod run;
mod say;
mod schema;
mod sequences;
mod session;
mod shell;
mod show;
mod size;
mod suite;
mod table;
mod teller;
mod terminal;
mod typing;

use std::process::ExitCode;

use clap::Parser;

/// Boots an unmodified Linux kernel on simulated persistent memory, cuts the power anywhere, and verifies what was
/// promised durable.
///
/// Exit codes: 0 all promises kept, 1 a violation, 2 bad usage or scenario, 3 inconclusive or host trouble.
#[derive(Parser)]
#[command(version, name = "pmemsim")]
#[command(after_help = "Examples:
  pmemsim run scenarios/map-sync-ext4.toml --html out
  pmemsim replay out/report.json ID --console
  pmemsim boot --kernel debian-6.12 --nvdimm 64M")]
enum Command {
    Run(run::Run),
    Merge(merge::Merge),
    Report(show::Show),
    Table(table::Table),
    Replay(replay::Replay),
    Sequences(sequences::Sequences),
    Minimise(minimise::Minimise),
    Import(import::Import),
    Boot(boot::Boot),
    Images(images::Images),
    Bench(bench::Bench),
    Doctor(doctor::Doctor),
    Schema(schema::Schema),
    Completions(shell::Completions),
    Man(shell::Man),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Run(run) => run.run(),
        Command::Merge(merge) => merge.run(),
        Command::Report(show) => show.run(),
        Command::Table(table) => table.run(),
        Command::Replay(replay) => replay.run(),
        Command::Sequences(sequences) => sequences.run(),
        Command::Minimise(minimise) => minimise.run(),
        Command::Import(import) => import.run(),
        Command::Boot(boot) => boot.run(),
        Command::Images(images) => images.run(),
        Command::Bench(bench) => bench.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Schema(schema) => schema.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if !failure::is_quiet(&error) {
                say::note!("pmemsim: {}", failure::message(&error));
            }
            ExitCode::from(failure::exit_code(&error))
        }
    }
}
