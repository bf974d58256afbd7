//! Reports as JUnit XML: a test suite for each scenario, in it a test for the verdict and one for each finding. What is
//! known by a baseline is skipped.

use anyhow::Context;
use explore::baseline::Baseline;
use explore::report::Finding;
use explore::{Report, Verdict};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

/// The XML. It has no times and no host: the same for every run of the same inputs.
pub fn xml(reports: &[Report], baseline: Option<&Baseline>) -> anyhow::Result<String> {
    let mut all = quick_junit::Report::new("pmemsim");
    all.add_test_suites(reports.iter().map(|report| suite(report, baseline)));
    all.to_string().context("the report cannot be written as XML")
}

fn suite(report: &Report, baseline: Option<&Baseline>) -> TestSuite {
    let name = match &report.settings.mutant {
        Some(mutant) => format!("{}, mutant {mutant}", report.scenario),
        None => report.scenario.clone(),
    };
    let mut suite = TestSuite::new(name.as_str());
    let mut verdict = test("verdict", &name, status(report, baseline));
    verdict.set_system_out(report.to_string());
    suite.add_test_case(verdict);
    // What is expected is no failure, and the verdict says whether it was found.
    if report.expect.is_empty() {
        suite.add_test_cases(
            report.findings.iter().map(|finding| of_finding(report, finding, &name, baseline)),
        );
    }
    suite
}

fn status(report: &Report, baseline: Option<&Baseline>) -> TestCaseStatus {
    match report.verdict {
        Verdict::Kept | Verdict::Expected | Verdict::Part => TestCaseStatus::success(),
        // Findings have tests of their own; what is known by the baseline does not fail.
        Verdict::Violated
            if report.expect.is_empty() && baseline.is_some_and(|it| it.excuses(report, &[])) =>
        {
            TestCaseStatus::success()
        }
        Verdict::Violated => non_success(
            NonSuccessKind::Failure,
            "violated",
            "a promise was broken, or what is expected was not found",
        ),
        Verdict::Inconclusive => {
            non_success(NonSuccessKind::Error, "inconclusive", &report.inconclusive.join("; "))
        }
    }
}

fn of_finding(report: &Report, finding: &Finding, suite: &str, baseline: Option<&Baseline>) -> TestCase {
    let known = baseline.is_some_and(|baseline| baseline.knows(report, finding));
    let status = if known {
        let mut skipped = TestCaseStatus::skipped();
        skipped.set_message("known by the baseline");
        skipped
    } else if finding.classes().any(|class| class.is_violation()) {
        non_success(NonSuccessKind::Failure, finding.class.name(), &finding.text)
    } else {
        TestCaseStatus::success()
    };
    let mut test = test(&format!("{} {}", finding.class, finding.id), suite, status);
    test.set_system_out(finding.to_text());
    test
}

fn test(name: &str, suite: &str, status: TestCaseStatus) -> TestCase {
    let mut test = TestCase::new(name, status);
    test.set_classname(format!("pmemsim.{suite}"));
    test
}

fn non_success(kind: NonSuccessKind, class: &str, message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(class).set_message(message);
    status
}
