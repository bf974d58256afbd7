//! What was found before, so that only what is new fails.

use std::collections::BTreeSet;

use crate::report::{Finding, PromiseReport, Report, Verdict};
use crate::verdict::Class;

/// The findings of earlier reports.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    known: BTreeSet<Mark>,
}

/// What makes symptoms of two runs the same: the scenario and mutant, the class, the promise, and what is wrong without
/// its numbers. Addresses, events and states are other ones with every kernel.
type Mark = (String, Option<String>, Class, Option<String>, String);

impl Baseline {
    /// Everything that these reports have found.
    pub fn new(reports: &[Report]) -> Baseline {
        let marks = reports.iter().flat_map(|report| report.findings.iter().flat_map(|it| marks(report, it)));
        Baseline { known: marks.collect() }
    }

    /// Whether everything that the finding shows was found before.
    pub fn knows(&self, report: &Report, finding: &Finding) -> bool {
        marks(report, finding).all(|mark| self.known.contains(&mark))
    }

    /// Whether the report is a violation only by what was found before; `deny` are the classes that count besides
    /// violations. Scenarios that expect something are never excused: they say themselves what must be found.
    pub fn excuses(&self, report: &Report, deny: &[Class]) -> bool {
        let counts =
            |finding: &&Finding| finding.classes().any(|class| class.is_violation() || deny.contains(&class));
        report.verdict == Verdict::Violated
            && report.expect.is_empty()
            && report.findings.iter().filter(counts).all(|finding| self.knows(report, finding))
    }
}

fn marks<'r>(report: &'r Report, finding: &'r Finding) -> impl Iterator<Item = Mark> + 'r {
    let mark = |class, promise: &Option<PromiseReport>, text: &str| {
        let promise = promise.as_ref().map(|promise| promise.text.clone());
        (report.scenario.clone(), report.settings.mutant.clone(), class, promise, without_numbers(text))
    };
    let others = finding.symptoms.iter();
    let others = others.map(move |symptom| mark(symptom.class, &symptom.promise, &symptom.text));
    std::iter::once(mark(finding.class, &finding.promise, &finding.text)).chain(others)
}

/// Every row of numbers as one `N`.
fn without_numbers(text: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in text.split_whitespace() {
        match is_number(word, words.last().copied()) {
            true if words.last() == Some(&"N") => (),
            true => words.push("N"),
            false => words.push(word),
        }
    }
    words.join(" ")
}

/// Whether a word is a number, or bytes in hexadecimal. Of words, only "be" could be a byte: in "may be" it is none.
fn is_number(word: &str, before: Option<&str>) -> bool {
    let digits = word.trim_end_matches([',', ':', ';', ')']);
    let is_hexadecimal = digits.chars().all(|c| c.is_ascii_hexdigit());
    let is_byte = digits.len() == 2 && is_hexadecimal && !(digits == "be" && before == Some("may"));
    word.starts_with(|c: char| c.is_ascii_digit())
        || is_byte
        || is_hexadecimal && digits.contains(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::a_report;

    #[test]
    fn numbers_do_not_make_a_finding_new() {
        let one = "a at 0x78: found 00 00 00, may be 0f 00 5e";
        let other = "a at 0x1000: found 5e 00, may be 00";
        assert_eq!(without_numbers(one), "a at N found N may be N");
        assert_eq!(without_numbers(one), without_numbers(other));
        assert_ne!(without_numbers(one), without_numbers("b at 0x78: found 00 00 00, may be 0f 00 5e"));
    }

    #[test]
    fn only_what_is_new_fails() {
        let known = Report { expect: Vec::new(), verdict: Verdict::Violated, ..a_report() };
        let baseline = Baseline::new(std::slice::from_ref(&known));
        assert!(baseline.excuses(&known, &[]));
        let mut new = known.clone();
        new.findings[0].text = "another file is gone".to_owned();
        assert!(!baseline.excuses(&new, &[]));
        assert!(!Baseline::default().excuses(&known, &[]));
        let inconclusive = Report { verdict: Verdict::Inconclusive, ..known.clone() };
        assert!(!baseline.excuses(&inconclusive, &[]));
        // A control that finds something else than it expects is never fine.
        let control = Report { expect: vec![Class::Corrupt], ..known };
        assert!(!baseline.excuses(&control, &[]));
    }
}
