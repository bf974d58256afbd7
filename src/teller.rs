//! Many reports in little: a line for each, in order, and what was found in full.

use std::collections::BTreeMap;
use std::sync::Mutex;

use explore::{Report, Verdict};

use crate::say::{self, say};

/// Prints reports in the order of their scenarios, as soon as it can.
#[derive(Default)]
pub struct Teller {
    state: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    reports: Vec<Report>,
    /// Those that wait for one before them.
    early: BTreeMap<usize, Report>,
}

impl Teller {
    /// Takes the report of the scenario with this number, from any thread.
    pub fn tell(&self, number: usize, report: Report) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.early.insert(number, report);
        loop {
            let next = state.reports.len();
            let Some(report) = state.early.remove(&next) else { break };
            say::heard(say!("{}", line_of(&report)));
            if !matches!(report.verdict, Verdict::Kept) || !report.findings.is_empty() {
                say::heard(say::print_text(&report.to_string()));
            }
            state.reports.push(report);
        }
    }

    /// All of them, in order.
    pub fn into_reports(self) -> Vec<Report> {
        self.state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).reports
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Kept | Verdict::Expected | Verdict::Part => "kept",
        Verdict::Violated => "VIOLATED",
        Verdict::Inconclusive => "INCONCLUSIVE",
    }
}

fn line_of(report: &Report) -> String {
    let counts = &report.counts;
    let recovered = counts.recoveries + counts.states_distinct;
    format!(
        "{:<13} {:<44} {:>3} crash points, {:>3} exhaustive, {:>4} recoveries",
        word(report.verdict),
        report.scenario,
        counts.crash_points,
        counts.points_exhaustive,
        recovered
    )
}
