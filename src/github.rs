//! Annotations for GitHub Actions: findings appear at the line of the scenario whose promise was broken.
//!
//! The form is that of GitHub's workflow commands: `::error file=F,line=L,title=T::TEXT`, with `%`, line ends, and in
//! properties `:` and `,` too, written as percent and two hexadecimal digits.

use std::fmt::Write;
use std::path::Path;

use explore::baseline::Baseline;
use explore::report::Finding;
use explore::{Report, Verdict};

/// Whether this runs in GitHub Actions.
pub fn is_here() -> bool {
    std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true")
}

/// The annotations of a report, one a line. What was expected is not annotated.
pub fn annotations(report: &Report, file: Option<&Path>, baseline: Option<&Baseline>) -> String {
    let mut text = String::new();
    if report.verdict == Verdict::Inconclusive {
        let why = report.inconclusive.join("; ");
        annotate(&mut text, "error", file, None, &format!("{}: inconclusive", report.scenario), &why);
    }
    if report.verdict == Verdict::Violated && !report.expect.is_empty() {
        let expected: Vec<&str> = report.expect.iter().map(|class| class.name()).collect();
        let why = format!("exactly this was expected: {}", expected.join(", "));
        annotate(&mut text, "error", file, None, &format!("{}: violated", report.scenario), &why);
    }
    if !report.expect.is_empty() {
        return text;
    }
    for finding in &report.findings {
        let line = finding.promise.as_ref().map(|promise| promise.line);
        let title = format!("{}: {}", report.scenario, finding.class);
        annotate(&mut text, level(report, finding, baseline), file, line, &title, &message(finding));
    }
    text
}

fn level(report: &Report, finding: &Finding, baseline: Option<&Baseline>) -> &'static str {
    match finding.classes().any(|class| class.is_violation()) {
        true if baseline.is_some_and(|baseline| baseline.knows(report, finding)) => "notice",
        true => "error",
        false => "warning",
    }
}

fn message(finding: &Finding) -> String {
    let promise =
        finding.promise.as_ref().map_or(String::new(), |promise| format!("\nbroken: {}", promise.text));
    let store = finding.stores.first();
    let store = store.map_or(String::new(), |store| format!("\nstore by {}: {}", store.at, store.lacked));
    format!("{}{promise}{store}\nreplay: pmemsim replay REPORT {}", finding.text, finding.id)
}

fn annotate(
    out: &mut String,
    level: &str,
    file: Option<&Path>,
    line: Option<u64>,
    title: &str,
    message: &str,
) {
    let file = file.map_or(String::new(), |file| format!("file={},", property(&file.display().to_string())));
    let line = line.map_or(String::new(), |line| format!("line={line},"));
    let _ = writeln!(out, "::{level} {file}{line}title={}::{}", property(title), data(message));
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_command_is_escaped() {
        let mut text = String::new();
        annotate(&mut text, "error", Some(Path::new("a,b.toml")), Some(3), "x: lost", "100 %\nlost");
        assert_eq!(text, "::error file=a%2Cb.toml,line=3,title=x%3A lost::100 %25%0Alost\n");
    }
}
