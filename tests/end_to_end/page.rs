//! The page for a browser, in a browser.

use std::path::Path;
use std::process::Command;

use explore::{Report, html};

use crate::support::{jobs, run, scenario};

/// Opens the page in headless Chromium; returns what became of it, and what was written to the console of the page.
fn open(page: &Path) -> (String, Vec<String>) {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    let console = errors.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    (String::from_utf8_lossy(&output.stdout).into_owned(), console)
}

fn shown(reports: &[Report]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let page = directory.path().join("index.html");
    std::fs::write(&page, html::page(reports)).expect("the page is written");
    let (document, console) = open(&page);
    assert!(console.is_empty(), "{console:?}");
    document
}

#[test]
#[ignore = "needs chromium: apt-get install -y chromium"]
fn a_report_opens_without_an_error_and_shows_its_finding() {
    let report = run(&scenario("controls/no-clwb"), &jobs(2));
    let finding = report.findings[0].clone();
    let document = shown(std::slice::from_ref(&report));
    assert!(document.contains("Found lost, torn-sector, as expected"));
    assert!(document.contains(&finding.text) && document.contains(&finding.id));
    for word in
        ["never flushed", "CLWB, CLFLUSHOPT or CLFLUSH of the line", "pmemsim replay report.json", "<canvas"]
    {
        assert!(document.contains(word), "{word}");
    }
    // Thousands of findings: the first of them are shown, the others on demand.
    let numbered = (0..5000).map(|number| explore::report::Finding {
        id: format!("{}-{number}", finding.smallest.events),
        ..finding.clone()
    });
    let large = Report { findings: numbered.collect(), ..report };
    let document = shown(&[large]);
    assert_eq!(document.matches("<article").count(), 50);
    assert!(document.contains("Show 50 more"));
}
