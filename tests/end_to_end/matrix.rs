//! Cells of the matrix of synchronous faults on a stock kernel.

use explore::{Scenario, Verdict, matrix};

use crate::support::{jobs, run};

fn cell(name: &str) -> Scenario {
    let cells = matrix::cells();
    let cell = cells.iter().find(|cell| cell.name() == name).unwrap_or_else(|| panic!("no cell {name}"));
    cell.scenario("debian-6.1").unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_fault_on_a_hole_of_ext4_keeps_what_was_promised_at_every_window() {
    let report = run(&cell("ext4 pte hole adr"), &jobs(2));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.counts.exhaustive, "{report}");
    assert!(report.faults.iter().all(|fault| fault.size == 4096 && fault.redundant == 0), "{report}");
    assert_eq!(report.faults.len(), 1, "{report}");
}

#[test]
fn a_huge_fault_of_xfs_keeps_what_was_promised_at_every_window() {
    let report = run(&cell("xfs pmd hole adr"), &jobs(2));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.faults.iter().all(|fault| fault.size == 2 << 20 && fault.redundant == 0), "{report}");
    assert_eq!(report.faults.len(), 1, "{report}");
}

#[test]
fn a_cell_whose_fault_goes_another_way_than_it_is_named_is_inconclusive() {
    let text = cell("ext4 pte hole adr").text.replace(r#"fault = { size = "4K""#, r#"fault = { size = "2M""#);
    let report = run(&Scenario::parse(&text, "misnamed").unwrap(), &jobs(2));
    assert_eq!(report.verdict, Verdict::Inconclusive, "{report}");
    let why = "was to take a synchronous fault of 2 MiB, but took a synchronous fault of 4 KiB";
    assert!(report.inconclusive.iter().any(|reason| reason.contains(why)), "{report}");
}
