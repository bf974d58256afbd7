//! One run in several parts, each by a process of its own, on any machine: shards, and what comes of them together.
//!
//! The units of work have an order that is the same in every run of the same inputs; a shard does every N-th. Its
//! report carries their results. To merge is to run once more with all of them known: the recording is made again, the
//! units are taken over, and the findings are made smaller and explained as ever. So what is merged is what a single
//! run says, to the last byte. What only follows from all results together - who gets the rest of a budget, a state
//! that bounded points of two shards have in common - is done then.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ledger::{Key, Ledger, Results};
use crate::options::RunOptions;
use crate::report::Report;
use crate::run::Run;
use crate::target::Laboratory;

/// A part of the work: `index` of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    index: u32,
    of: u32,
}

/// Shards of one run, at most.
const MOST: u32 = 100_000;

impl Shard {
    /// Part `index`, from 1, of `of`. `None` when there is no such part.
    pub fn new(index: u32, of: u32) -> Option<Shard> {
        (1..=of.min(MOST)).contains(&index).then_some(Shard { index, of }).filter(|_| of <= MOST)
    }

    /// Whether it does the unit with this number.
    pub fn has(self, unit: usize) -> bool {
        unit % self.of as usize == self.index as usize - 1
    }
}

impl Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let numbers =
            text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        numbers.and_then(|(index, of)| Shard::new(index, of)).ok_or_else(|| {
            format!("{text:?} is no shard: write I/N, as 1/3, 2/3 and 3/3, with N up to {MOST}")
        })
    }
}

/// What the report of a shard has besides what every report has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShardReport {
    /// Which part of the work this is of.
    pub shard: Shard,
    /// Version of the program.
    pub code: String,
    /// What was asked for, as JSON.
    pub options: serde_json::Value,
    /// The execution, in hexadecimal.
    pub execution: String,
    /// Whether it was interrupted, so that results are missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// Every unit of work with its result, in hexadecimal, by the key of the unit.
    pub results: BTreeMap<String, String>,
}

impl<L: Laboratory> Run<'_, L> {
    /// What a report needs to be merged with those of the other shards.
    pub(crate) fn shard_report(&self) -> Option<ShardReport> {
        let shard = self.options.shard?;
        let results = self.ledger.results();
        Some(ShardReport {
            shard,
            code: self.options.code.clone(),
            options: serde_json::to_value(self.options).expect("options are numbers and words"),
            execution: self.ledger.execution().map_or(String::new(), |key| hexadecimal(&key)),
            interrupted: self.interrupted(),
            results: results.iter().map(|(key, result)| (hexadecimal(key), hexadecimal(result))).collect(),
        })
    }
}

/// Why reports cannot be merged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// One is of a whole run.
    #[error("the report of {0} is no shard's: it is of the whole run already")]
    NoShard(String),
    /// Two are of different runs.
    #[error("shards {0} and {1} of {2} are not of the same run: {3} differs")]
    Foreign(Shard, Shard, String, &'static str),
    /// One was given twice.
    #[error("shard {0} of {1} is there twice")]
    Double(Shard, String),
    /// Some were not given.
    #[error("{} of {scenario}: not there: run {}", plural(missing), told(missing, scenario))]
    Missing {
        /// The scenario.
        scenario: String,
        /// The shards.
        missing: Vec<Shard>,
    },
    /// One was interrupted.
    #[error("shard {0} of {1} was interrupted: run it again to its end")]
    Interrupted(Shard, String),
    /// One is of another version of this program.
    #[error("shard {0} of {1} is of another version of pmemsim: {2}; this is {3}")]
    Code(Shard, String, String, String),
    /// One has been damaged.
    #[error("shard {0} of {1} cannot be read: {2}")]
    Damaged(Shard, String, String),
}

fn plural(shards: &[Shard]) -> String {
    let names = shards.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let more = shards.len().saturating_sub(8);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("shard{} {names}{more}", if shards.len() == 1 { "" } else { "s" })
}

fn told(shards: &[Shard], scenario: &str) -> String {
    shards.first().map_or(String::new(), |shard| format!("{scenario} with --shard {shard} --json FILE, too"))
}

/// All shards of a run: what a run needs that puts them together.
#[derive(Debug)]
pub struct Gathered {
    /// A report of one of them: it carries the scenario.
    pub report: Report,
    /// The options that were given, with all results in the ledger.
    pub options: RunOptions,
}

/// Puts the shards of each run together. `code` is the version of this program.
pub fn gather(reports: Vec<Report>, code: &str) -> Result<Vec<Gathered>, MergeError> {
    let mut runs: Vec<(String, Vec<(Report, ShardReport)>)> = Vec::new();
    for mut report in reports {
        let mutant =
            report.settings.mutant.as_ref().map_or(String::new(), |mutant| format!(", mutant {mutant}"));
        let name = format!("{}{mutant}", report.scenario);
        let Some(shard) = report.shard.take() else { return Err(MergeError::NoShard(name)) };
        match runs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, shards)) => shards.push((report, shard)),
            None => runs.push((name, vec![(report, shard)])),
        }
    }
    runs.into_iter().map(|(name, shards)| gather_one(name, shards, code)).collect()
}

fn gather_one(
    name: String,
    mut shards: Vec<(Report, ShardReport)>,
    code: &str,
) -> Result<Gathered, MergeError> {
    shards.sort_by_key(|(_, shard)| shard.shard);
    check(&name, &shards, code)?;
    let damaged =
        |shard: &ShardReport, what: &str| MergeError::Damaged(shard.shard, name.clone(), what.to_owned());
    let mut known = Results::new();
    for (_, shard) in &shards {
        for (key, result) in &shard.results {
            let key = bytes(key).and_then(|key| Key::try_from(key).ok());
            let (key, result) =
                key.zip(bytes(result)).ok_or_else(|| damaged(shard, "a result is not hexadecimal"))?;
            known.insert(key, result);
        }
    }
    let (report, shard) = shards.swap_remove(0);
    let options: RunOptions =
        serde_json::from_value(shard.options.clone()).map_err(|why| damaged(&shard, &why.to_string()))?;
    let execution = bytes(&shard.execution).and_then(|key| Key::try_from(key).ok());
    let execution = execution.ok_or_else(|| damaged(&shard, "its execution is not hexadecimal"))?;
    let ledger = Arc::new(Ledger::knowing(Some(execution), known));
    Ok(Gathered { report, options: RunOptions { ledger: Some(ledger), code: code.to_owned(), ..options } })
}

/// Whether these are all shards of one run, each once. They are in order.
fn check(name: &str, shards: &[(Report, ShardReport)], code: &str) -> Result<(), MergeError> {
    let (first_report, first) = &shards[0];
    for (report, shard) in shards {
        if shard.code != code {
            return Err(MergeError::Code(shard.shard, name.to_owned(), shard.code.clone(), code.to_owned()));
        }
        let differs = [
            ("the number of shards", shard.shard.of != first.shard.of),
            ("the scenario", report.text != first_report.text),
            (
                "what was asked for",
                shard.options != first.options || report.settings != first_report.settings,
            ),
            ("what was run", report.provenance != first_report.provenance),
            ("the execution", shard.execution != first.execution || report.trace != first_report.trace),
        ];
        if let Some((what, _)) = differs.into_iter().find(|(_, differs)| *differs) {
            return Err(MergeError::Foreign(first.shard, shard.shard, name.to_owned(), what));
        }
        if shard.interrupted {
            return Err(MergeError::Interrupted(shard.shard, name.to_owned()));
        }
    }
    if let Some(pair) = shards.windows(2).find(|pair| pair[0].1.shard == pair[1].1.shard) {
        return Err(MergeError::Double(pair[0].1.shard, name.to_owned()));
    }
    let of = first.shard.of;
    let there = |index: &u32| shards.iter().any(|(_, shard)| shard.shard.index == *index);
    let missing: Vec<Shard> =
        (1..=of).filter(|index| !there(index)).map(|index| Shard { index, of }).collect();
    if missing.is_empty() { Ok(()) } else { Err(MergeError::Missing { scenario: name.to_owned(), missing }) }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.bytes().map(|digit| char::from(digit).to_digit(16).map(|it| it as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
