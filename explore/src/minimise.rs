//! Makes a scenario smaller while it shows the same: fewer steps first, then smaller sizes and offsets.
//!
//! Every try is a scenario of its own: a text without some steps, which is read, recorded and explored as any other. One that
//! makes no sense without what is gone, or is inconclusive, does not show anything. The machine stays the same, so that all
//! tries start from one base snapshot.

use std::fmt::Write;

use toml_edit::{DocumentMut, Item, Value};

use crate::options::RunOptions;
use crate::report::{Report, Verdict};
use crate::run::run;
use crate::scenario::{Bytes, Scenario};
use crate::target::{HostError, Laboratory};
use crate::verdict::Class;

/// What a scenario has become.
#[derive(Clone, Debug)]
pub struct Minimised {
    /// The class of finding that all tries were asked for.
    pub class: Class,
    /// The scenario, ready to be run: it expects what it shows.
    pub text: String,
    /// What running it says.
    pub report: Report,
    /// Steps of the scenario that it was made from.
    pub before: usize,
    /// Steps left.
    pub after: usize,
    /// Scenarios tried, this one and the first included.
    pub tries: u64,
}

/// Why a scenario cannot be made smaller.
#[derive(Debug, thiserror::Error)]
pub enum MinimiseError {
    /// It shows nothing.
    #[error("there is nothing to keep while it gets smaller: {0}")]
    Nothing(String),
    /// The text is no scenario.
    #[error("the scenario cannot be edited: {0}")]
    Text(String),
    /// The host.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// How far it is: tries so far, and steps left.
pub type OnTry<'a> = &'a dyn Fn(u64, usize);

/// Makes a scenario smaller within so many tries. The result still shows a finding of this class; without one, of the worst
/// that the scenario shows. `laboratory` must be for the scenario.
pub fn minimise<L: Laboratory>(
    scenario: &Scenario,
    laboratory: &L,
    options: &RunOptions,
    class: Option<Class>,
    tries: u64,
    on_try: OnTry,
) -> Result<Minimised, MinimiseError> {
    let document: DocumentMut =
        scenario.text.parse().map_err(|why: toml_edit::TomlError| MinimiseError::Text(why.to_string()))?;
    let quick = RunOptions { unexplained: true, ..options.clone() };
    let first = run(scenario, laboratory, &quick, &|_| ())?;
    let class = wanted(&first, class)?;
    let before = steps(&document);
    let mut search =
        Search { laboratory, options: &quick, class, name: &scenario.name, tries: 1, limit: tries, on_try };
    let document = search.drop_steps(document)?;
    let document = search.lower_numbers(document)?;
    let tries = search.tries + 1;
    let (text, report) = finish(scenario, laboratory, options, document.clone(), class, (before, tries))?;
    Ok(Minimised { class, text, report, before, after: steps(&document), tries })
}

/// The class to keep: the one asked for, or the worst that counts.
fn wanted(report: &Report, class: Option<Class>) -> Result<Class, MinimiseError> {
    let shown = |class: Class| report.findings.iter().flat_map(|it| it.classes()).any(|it| it == class);
    let found: Vec<Class> = report.findings.iter().flat_map(|finding| finding.classes()).collect();
    let counting = found.iter().copied().filter(|class| class.is_violation()).min();
    let expected = report.expect.iter().copied().find(|class| shown(*class));
    match class {
        Some(class) if shown(class) => Ok(class),
        Some(class) => Err(MinimiseError::Nothing(format!("the scenario does not show {class}"))),
        None => counting
            .or(expected)
            .or(found.iter().copied().min())
            .ok_or_else(|| MinimiseError::Nothing("the scenario shows no finding".to_owned())),
    }
}

/// Runs the result in full, expecting what it shows.
fn finish<L: Laboratory>(
    scenario: &Scenario,
    laboratory: &L,
    options: &RunOptions,
    mut document: DocumentMut,
    class: Class,
    (before, tries): (usize, u64),
) -> Result<(String, Report), MinimiseError> {
    let read = |text: &str| {
        Scenario::parse(text, &scenario.name).map_err(|why| MinimiseError::Text(why.to_string()))
    };
    let quick = RunOptions { unexplained: true, ..options.clone() };
    let shown = run(&read(&document.to_string())?, laboratory, &quick, &|_| ())?;
    let mut classes: Vec<Class> = shown.findings.iter().flat_map(|finding| finding.classes()).collect();
    classes.retain(|found| found.is_violation() || *found == class);
    classes.sort();
    classes.dedup();
    let expected: toml_edit::Array = classes.iter().map(|class| class.to_string()).collect();
    document["expect"] = Item::Value(Value::Array(expected));
    let mut text = String::new();
    let _ = writeln!(
        text,
        "# Made smaller from {:?} while it showed {class}: {} of {before} steps are left, after {tries} tries.",
        scenario.name,
        steps(&document),
    );
    text += document.to_string().trim_start();
    let report = run(&read(&text)?, laboratory, options, &|_| ())?;
    if report.verdict != Verdict::Expected {
        let what = format!("the smallest scenario does not show the same twice: {report}");
        return Err(MinimiseError::Nothing(what));
    }
    Ok((text, report))
}

fn steps(document: &DocumentMut) -> usize {
    document.get("step").and_then(Item::as_array_of_tables).map_or(0, toml_edit::ArrayOfTables::len)
}

/// The document without steps `from` to `to`.
fn without(document: &DocumentMut, from: usize, to: usize) -> DocumentMut {
    let mut smaller = document.clone();
    if let Some(steps) = smaller.get_mut("step").and_then(Item::as_array_of_tables_mut) {
        (from..to.min(steps.len())).rev().for_each(|step| {
            steps.remove(step);
        });
    }
    smaller
}

struct Search<'a, L> {
    laboratory: &'a L,
    options: &'a RunOptions,
    class: Class,
    name: &'a str,
    tries: u64,
    limit: u64,
    on_try: OnTry<'a>,
}

impl<L: Laboratory> Search<'_, L> {
    /// Whether a scenario still shows the class. What cannot be read, or is inconclusive, does not.
    fn shows(&mut self, document: &DocumentMut) -> Result<bool, MinimiseError> {
        let text = document.to_string();
        let Ok(scenario) = Scenario::parse(&text, self.name) else { return Ok(false) };
        if self.is_over() {
            return Ok(false);
        }
        self.tries += 1;
        (self.on_try)(self.tries, steps(document));
        let report = run(&scenario, self.laboratory, self.options, &|_| ())?;
        let shown = report.findings.iter().flat_map(|finding| finding.classes());
        Ok(report.inconclusive.is_empty() && shown.into_iter().any(|class| class == self.class))
    }

    fn is_over(&self) -> bool {
        let interrupted = self.options.interrupted.as_ref();
        self.tries >= self.limit
            || interrupted.is_some_and(|asked| asked.load(std::sync::atomic::Ordering::Relaxed))
    }

    /// Delta debugging: halves first, then ever smaller runs of steps, the last ones first, until no single one can go.
    fn drop_steps(&mut self, mut document: DocumentMut) -> Result<DocumentMut, MinimiseError> {
        let mut size = steps(&document).div_ceil(2).max(1);
        loop {
            let mut dropped = false;
            let mut end = steps(&document);
            while end > 0 && !self.is_over() {
                let start = end.saturating_sub(size);
                let smaller = without(&document, start, end);
                if self.shows(&smaller)? {
                    (document, dropped) = (smaller, true);
                }
                end = start;
            }
            match size {
                _ if self.is_over() => return Ok(document),
                1 if !dropped => return Ok(document),
                1 => (),
                _ => size = size.div_ceil(2),
            }
        }
    }

    /// Tries smaller numbers of bytes and lower offsets in what the steps do.
    fn lower_numbers(&mut self, mut document: DocumentMut) -> Result<DocumentMut, MinimiseError> {
        for step in 0..steps(&document) {
            for (action, key, values) in numbers(&document, step) {
                for value in values {
                    let mut smaller = document.clone();
                    smaller["step"][step][action.as_str()][key.as_str()] = toml_edit::value(value);
                    if self.shows(&smaller)? {
                        document = smaller;
                        break;
                    }
                }
            }
        }
        Ok(document)
    }
}

/// What may become smaller in a step: action, key, and what to try, the smallest first.
fn numbers(document: &DocumentMut, step: usize) -> Vec<(String, String, Vec<i64>)> {
    let steps = document.get("step").and_then(Item::as_array_of_tables);
    let Some(step) = steps.and_then(|steps| steps.get(step)) else { return Vec::new() };
    let mut found = Vec::new();
    for (action, item) in step.iter() {
        let Some(table) = item.as_inline_table() else { continue };
        for (key, value) in table.iter() {
            let smaller: &[i64] = match key {
                "bytes" => &[8, 64, 512, 4096],
                "size" => &[4096, 16384, 1 << 21],
                "at" => &[0, 64, 4096],
                _ => continue,
            };
            let Some(now) = bytes(value) else { continue };
            let values = smaller.iter().copied().filter(|value| *value < now).collect();
            found.push((action.to_owned(), key.to_owned(), values));
        }
    }
    found
}

/// A number of bytes as scenarios write it: an integer, or text that [`Bytes`] reads.
fn bytes(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number.value()),
        Value::String(text) => i64::try_from(text.value().parse::<Bytes>().ok()?.0).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::ToyLaboratory;

    const LONG: &str = r#"
name = "long" # the name stays
[machine]
kernel = "debian-6.1"
[[nvdimm]]
size = "16M"
[filesystem]
type = "ext4"
[[step]]
create = { file = "other", size = "16K" }
[[step]]
create = { file = "a", size = "16K" }
[[step]]
fsync = "other"
[[step]]
map = { file = "a", as = "m", sync = true }
[[step]]
mkdir = "d"
[[step]]
store = { map = "m", at = 128, bytes = 64 }
flush = "clwb"
fence = "sfence"
promise = "contents"
[[step]]
store = { map = "m", at = 1024, bytes = 256, pattern = "byte:3" }
fence = "sfence"
promise = "contents"
[[step]]
rename = { from = "other", to = "another" }
"#;

    fn smaller(text: &str, tries: u64) -> Result<Minimised, MinimiseError> {
        let scenario = Scenario::parse(text, "long.toml").unwrap_or_else(|error| panic!("{error}"));
        minimise(&scenario, &ToyLaboratory::new(), &RunOptions::default(), None, tries, &|_, _| ())
    }

    #[test]
    fn only_the_steps_that_matter_are_left_and_small() {
        let found = smaller(LONG, 200).expect("it gets smaller");
        assert_eq!((found.class, found.before, found.after), (Class::Lost, 8, 3), "{}", found.text);
        assert_eq!(found.report.verdict, Verdict::Expected);
        for kept in ["# the name stays", "bytes = 8", "size = 4096", "expect = [\"lost\"]"] {
            assert!(found.text.contains(kept), "{kept}: {}", found.text);
        }
        assert!(found.report.findings[0].smallest.lost.len() == 1, "{}", found.report);
        let again = Scenario::parse(&found.text, "again.toml").expect("the text is a scenario");
        let report = run(&again, &ToyLaboratory::new(), &RunOptions::default(), &|_| ()).expect("it runs");
        assert_eq!(report.verdict, Verdict::Expected, "{report}");
    }

    #[test]
    fn tries_are_bounded() {
        let found = smaller(LONG, 3).expect("it gets smaller");
        assert!(found.tries <= 4 && found.after > 3, "{} tries, {} steps", found.tries, found.after);
    }

    #[test]
    fn what_shows_nothing_is_left_alone() {
        let repaired = LONG.replace("byte:3\" }\n", "byte:3\" }\nflush = \"clwb\"\n");
        assert!(matches!(smaller(&repaired, 10), Err(MinimiseError::Nothing(_))));
    }
}
