//! The fuzz targets without a fuzzer: everything that was ever found, and a seeded sample of mutated inputs.
//!
//! - `PMEMSIM_FUZZ_CASES`: how many mutated inputs of each target (default: a few seconds' worth).
//! - `PMEMSIM_FUZZ_SEED`: another sample (default 1).

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;
mod mutate;

use std::path::Path;

use fuzz::{TARGETS, Target, input::Random};

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target {name:?}"))
}

/// Runs an input; shows it as it would stand in fuzz/regressions when it breaks a promise.
fn run(target: &Target, what: &str, data: &[u8]) {
    let outcome = std::panic::catch_unwind(|| (target.run)(data));
    if outcome.is_err() {
        let hex: Vec<String> = data.iter().map(|byte| format!("{byte:02x}")).collect();
        let lines: Vec<String> = hex.chunks(32).map(|line| line.join(" ")).collect();
        panic!("target {}, {what}:\n{}\n", target.name, lines.join("\n"));
    }
}

/// Every file of fuzz/regressions/NAME: hexadecimal bytes, and comments from `#` to the end of the line.
fn replay(target: &Target) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions").join(target.name);
    let Ok(entries) = std::fs::read_dir(&directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        run(target, &path.display().to_string(), &bytes(&text));
    }
}

fn bytes(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let digits: Vec<u8> =
        lines.flat_map(str::chars).filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Inputs found before and a sample of new ones.
fn exercise(name: &str) {
    let target = target(name);
    replay(target);
    let seeds = (target.seeds)();
    for (n, seed) in seeds.iter().enumerate() {
        run(target, &format!("seed {n}"), seed);
    }
    let mut random = Random(setting("PMEMSIM_FUZZ_SEED").unwrap_or(1));
    for n in 0..setting("PMEMSIM_FUZZ_CASES").unwrap_or(target.cases) {
        let data = mutate::mutated(&seeds, &mut random);
        run(target, &format!("mutated input {n}"), &data);
    }
}

#[test]
fn code_of_any_kind_stays_in_its_machine_and_all_handlers_agree() {
    exercise("execute");
}

#[test]
fn machines_repeat_whatever_they_did_and_never_panic() {
    exercise("machine");
}

#[test]
fn payload_files_are_errors_or_machines() {
    exercise("payload");
}

#[test]
fn snapshot_files_are_errors_or_machines() {
    exercise("snapshot");
}

#[test]
fn kernel_files_are_errors_or_kernels() {
    exercise("kernel");
}

#[test]
fn module_files_are_errors_or_modules() {
    exercise("module");
}

#[test]
fn tables_and_stacks_of_any_kind_unwind_to_an_end() {
    exercise("unwind");
}

#[test]
fn packages_are_errors_or_files() {
    exercise("package");
}

#[test]
fn what_apt_prints_is_taken_or_left() {
    exercise("index");
}

#[test]
fn scenarios_are_errors_or_scenarios() {
    exercise("scenario");
}

#[test]
fn reports_are_errors_or_read_as_they_were_written() {
    exercise("report");
}

#[test]
fn guests_may_say_anything() {
    exercise("conversation");
}
