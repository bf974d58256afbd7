//! Kernels that are wrong on purpose must be found, and the same kernels without the bug must be silent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use explore::{Scenario, Verdict};

use crate::support::{jobs, run};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The scenarios of the proving ground, in the order of their names.
fn scenarios() -> Vec<Scenario> {
    let entries = std::fs::read_dir(repository("scenarios/proving-ground")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| Scenario::load(path).unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// The names that a patch gives to its mutants.
fn of_patch(series: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(repository(&format!("guest/kernel/mutants-{series}.patch"))).unwrap();
    let names = text.lines().filter(|line| line.starts_with("+\t[MUTANT_"));
    names
        .filter_map(|line| line.split('"').nth(1))
        .filter(|name| *name != "none")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_mutant_is_in_both_kernels_and_in_the_table_and_every_scenario_names_ones_that_are() {
    let known = of_patch("6.1");
    assert!(known.len() >= 16, "{known:?}");
    assert_eq!(known, of_patch("6.12"));
    let table = std::fs::read_to_string(repository("docs/mutants.md")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    assert_eq!(rows.map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>(), known);
    for scenario in scenarios() {
        for mutant in &scenario.mutants {
            assert!(known.contains(&mutant.name), "{}: {}", scenario.name, mutant.name);
        }
    }
}

#[test]
#[ignore = "builds a kernel from its source, and does 45 runs: ten minutes the first time"]
fn every_mutant_of_the_proving_ground_is_found_and_the_kernel_without_is_silent() {
    for scenario in scenarios() {
        let report = run(&scenario, &jobs(2));
        assert_eq!(report.verdict, Verdict::Kept, "{report}");
        for mutant in &scenario.mutants {
            let report = run(&scenario.clone().with_mutant(&mutant.name).unwrap(), &jobs(2));
            assert_eq!(report.verdict, Verdict::Expected, "{report}");
        }
    }
}
