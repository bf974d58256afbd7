//! What came of the cells, as a table for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::axes::Platform;
use super::known::KNOWN;
use super::{cells, left_out};
use crate::report::{Finding, Report, Verdict};

/// The reports of cells as Markdown: for every kernel a table with a row for each file system, page and situation, and a
/// column for each platform; then what is left out and why. Reports of other scenarios are passed over.
pub fn table(reports: &[Report]) -> String {
    let mut kernels: Vec<String> = Vec::new();
    for report in reports {
        let kernel = kernel_of(report);
        if !kernels.contains(&kernel) {
            kernels.push(kernel);
        }
    }
    let mut text = HEAD.to_owned();
    for kernel in kernels {
        let of_kernel = reports.iter().filter(|report| kernel_of(report) == kernel);
        let outcomes: BTreeMap<&str, &Report> =
            of_kernel.map(|report| (report.scenario.as_str(), report)).collect();
        write_kernel(&mut text, &kernel, &outcomes);
    }
    text.push_str("\n## Known\n\n");
    for known in &KNOWN {
        let (cells, classes, page) = (known.cells(), known.classes.join(", "), known.page);
        let _ = writeln!(text, "- {cells}: {classes}, see [{page}]({page}).");
    }
    text.push_str("\n## Left out\n\n");
    for (what, why) in left_out() {
        let _ = writeln!(text, "- {what}: {why}.");
    }
    text
}

/// What stands above the tables.
const HEAD: &str = "# The matrix of synchronous faults

`pmemsim run --suite matrix` tries synchronous faults: file systems, page sizes, what the fault meets, and platforms, each cell a
scenario of its own. This page was written by `--table`, from the reports. `kept` says that every promise was kept at every crash
point that was tried; in parentheses stands what was found besides and breaks no promise. A cell in which the fault did
not go as it is named - the size of the page, whether it waits for the journal, whether another one came meanwhile - is
`inconclusive`. `-` is no cell.
";
/// The word for a cell without a report.
const NOT_RUN: &str = "not run";

/// The kernel and its version, as the report has it, with the mutant if there is one.
fn kernel_of(report: &Report) -> String {
    let of =
        |key: &str| report.provenance.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let mutant = report.settings.mutant.as_ref().map_or(String::new(), |mutant| format!(", mutant {mutant}"));
    match (of("kernel"), of("kernel release")) {
        (Some(kernel), Some(release)) => format!("{kernel} ({release}){mutant}"),
        _ => format!("a kernel that is not known{mutant}"),
    }
}

fn write_kernel(text: &mut String, kernel: &str, outcomes: &BTreeMap<&str, &Report>) {
    let mut rows: Vec<String> = Vec::new();
    let mut cell_of: BTreeMap<(String, &str), String> = BTreeMap::new();
    let mut all = cells();
    all.sort_by_key(|cell| (cell.filesystem, cell.page));
    for cell in all {
        let row = format!("{} | {} | {}", cell.filesystem.name(), cell.page.name(), cell.situation.name);
        let word = outcomes.get(cell.name().as_str()).map_or(NOT_RUN.to_owned(), |report| word(report));
        if !rows.contains(&row) {
            rows.push(row.clone());
        }
        cell_of.insert((row, cell.platform.name()), word);
    }
    let columns = Platform::ALL.map(Platform::name);
    let _ = writeln!(text, "\n## {kernel}\n\n{}\n", summary(outcomes));
    let _ = writeln!(text, "| file system | page | situation | {} |", columns.join(" | "));
    let _ = writeln!(text, "|---|---|---|{}", "---|".repeat(columns.len()));
    for row in rows {
        let words = columns.map(|platform| cell_of.get(&(row.clone(), platform)).map_or("-", String::as_str));
        if words.iter().all(|word| ["-", NOT_RUN].contains(word)) {
            continue;
        }
        let _ = writeln!(text, "| {row} | {} |", words.join(" | "));
    }
}

fn word(report: &Report) -> String {
    let found: BTreeSet<&str> =
        report.findings.iter().flat_map(Finding::classes).map(|class| class.name()).collect();
    let found = found.into_iter().collect::<Vec<_>>().join(", ");
    match report.verdict {
        Verdict::Expected => format!("{found} (known)"),
        Verdict::Kept | Verdict::Part if found.is_empty() => "kept".to_owned(),
        Verdict::Kept | Verdict::Part => format!("kept ({found})"),
        Verdict::Violated => format!("**{found}**"),
        Verdict::Inconclusive => "inconclusive".to_owned(),
    }
}

fn summary(outcomes: &BTreeMap<&str, &Report>) -> String {
    let count =
        |verdicts: &[Verdict]| outcomes.values().filter(|report| verdicts.contains(&report.verdict)).count();
    let sum = |of: fn(&Report) -> u64| outcomes.values().map(|report| of(report)).sum::<u64>();
    format!(
        "{} cells: {} kept, {} with what is known, {} violated, {} inconclusive. {} crash points, {} of them exhaustive, {} recoveries. {} synchronous faults, in which the kernel flushed {} lines, {} of them with nothing volatile in them.",
        outcomes.len(),
        count(&[Verdict::Kept, Verdict::Part]),
        count(&[Verdict::Expected]),
        count(&[Verdict::Violated]),
        count(&[Verdict::Inconclusive]),
        sum(|report| report.counts.crash_points),
        sum(|report| report.counts.points_exhaustive),
        sum(|report| report.counts.recoveries + report.counts.states_distinct),
        sum(|report| report.faults.len() as u64),
        sum(|report| report.faults.iter().map(|fault| fault.flushed).sum()),
        sum(|report| report.faults.iter().map(|fault| fault.redundant).sum()),
    )
}
