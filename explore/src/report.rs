//! What a run found, in a form that is the same for every run of the same inputs: no time, path or job count.

use persist::{Granularity, Platform, StateId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::again::report::{LevelReport, RootReport};
pub use crate::contents::{ContentReport, LineReport};
use crate::scenario::Explore;
pub use crate::schema::schema;
use crate::shard::ShardReport;
pub use crate::timeline::{FaultSpan, FunctionReport, StepSpan, TimelineReport, WindowSpan};
use crate::verdict::Class;

/// Version of the form of [`Report`]. It grows with every change of the form.
pub const REPORT: u32 = 2;
/// The oldest version that is read: what it lacks is left out.
const OLDEST: u32 = 1;
/// What names a crash while the scenario was recorded, or what else shows in the recording, instead of a state.
pub(crate) const RECORDING: &str = "recording";

/// What a run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Version of this form: [`REPORT`].
    pub version: u32,
    /// Name of the scenario.
    pub scenario: String,
    /// The scenario itself, as TOML.
    pub text: String,
    /// What the scenario says must be found, and nothing else.
    pub expect: Vec<Class>,
    /// In one word.
    pub verdict: Verdict,
    /// Why nothing can be concluded; empty when something can.
    pub inconclusive: Vec<String>,
    /// How persistence was modelled.
    pub settings: Settings,
    /// How much there was, and how much was tried.
    pub counts: Counts,
    /// What must not be, by class.
    pub findings: Vec<Finding>,
    /// Power cuts during recovery: recoveries behind one power cut, behind two, and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_recovery: Vec<LevelReport>,
    /// Faults that waited for the journal, where the recording shows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultReport>,
    /// Warnings of the kernel and the file system while recording.
    pub recording_warnings: Vec<String>,
    /// What the canary showed.
    pub canary: String,
    /// Every crash point.
    pub points: Vec<PointReport>,
    /// What happened while the scenario was recorded; not in reports of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<TimelineReport>,
    /// What was run.
    pub provenance: Vec<(String, String)>,
    /// BLAKE3 of all recorded events.
    pub trace: String,
    /// The part of the work that this is of, and all its results; none when it is of everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<ShardReport>,
}

/// A run in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every promise that was judged was kept.
    Kept,
    /// Exactly what the scenario expects was found.
    Expected,
    /// A promise was broken, or what the scenario expects was not found.
    Violated,
    /// Nothing can be concluded.
    Inconclusive,
    /// The work of one shard is done, and nothing was found that is not expected. What follows from all shards together
    /// is for `pmemsim merge` to say.
    Part,
}

impl Verdict {
    /// Exit code of the command.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Kept | Verdict::Expected | Verdict::Part => 0,
            Verdict::Violated => 1,
            Verdict::Inconclusive => 3,
        }
    }
}

/// How persistence was modelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What the platform saves; of each region in turn where they differ.
    pub platform: String,
    /// The platform that was asked for instead of the scenario's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub platform_override: Option<Platform>,
    /// The kernel that was asked for instead of the scenario's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_override: Option<String>,
    /// Directory of the modules of that kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules_override: Option<String>,
    /// The bug that the kernel has on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
    /// What persists as one.
    #[schemars(with = "String")]
    pub granularity: Granularity,
    /// Whether a non-temporal store waits for earlier cached ones of its line.
    pub nt_evicts: bool,
    /// Whether only SFENCE and MFENCE make durable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict_fences: bool,
    /// Depth of the store buffer, in parts of stores: where the caches are saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_buffer: Option<u32>,
    /// Whether what a device flush covered that failed stays lost although a later one succeeds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed_flush_loses: bool,
    /// Whether it was recorded on KVM: a sample, which cannot be reproduced. Stores are known as sectors that had changed
    /// when the machine was looked at; what they held in between was not tried.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sampled: bool,
    /// Seed of the machine and of all choices.
    pub seed: u64,
    /// How crash states were found.
    #[serde(default)]
    pub explore: Explore,
    /// Ways that recovery from one crash point could go, at most: when exploring lazily.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branches: Option<u64>,
    /// How often the power was cut again while recovering.
    #[serde(default, skip_serializing_if = "is_none")]
    pub in_recovery: u32,
    /// States to recover in all, at most.
    pub budget: u64,
    /// States of one crash point, at most.
    pub states_per_point: u64,
}

fn is_none(number: &u32) -> bool {
    *number == 0
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A fault that waited for the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultReport {
    /// Number of the event with which it begins.
    pub event: u64,
    /// Bytes that the entry maps which it sets; 0 if it sets none.
    pub size: u64,
    /// Lines that the kernel flushes in it.
    pub flushed: u64,
    /// Of these, lines that had nothing volatile in them.
    pub redundant: u64,
}

/// How much there was, and how much was tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Events recorded.
    pub events: u64,
    /// Promises made.
    pub promises: u64,
    /// Promises that were judged in at least one state.
    pub promises_judged: u64,
    /// Lines by which programs acknowledged something.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub acknowledged: u64,
    /// Of these, those that the check program was told of in at least one state.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub acknowledged_judged: u64,
    /// Crash points explored.
    pub crash_points: u64,
    /// Crash points left out because another is the same.
    pub crash_points_equal: u64,
    /// Events that make something durable, each with crash points of its own, that were not explored: there are too many.
    /// Where the caches are saved, every store is one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub crash_points_left_out: u64,
    /// Crash states that exist at all points together; as text, for the number may be huge.
    pub states_exist: String,
    /// Logarithm to base 2 of that number.
    pub states_exist_log2: f64,
    /// False when there are at least that many.
    pub states_exist_exact: bool,
    /// States chosen.
    pub states_chosen: u64,
    /// Of these, distinct by content: each was recovered once.
    pub states_distinct: u64,
    /// Of the chosen, equal by content to another.
    pub states_equal: u64,
    /// Of the chosen, left out because the budget was used up.
    pub states_left_out: u64,
    /// Ways that recovery went, when exploring lazily: each to its end, once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recoveries: u64,
    /// Crash points of which every state was covered, when exploring lazily.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub points_exhaustive: u64,
    /// Judgements: a content against what may be found at a crash point.
    pub judged: u64,
    /// Whether every state that exists was recovered, or stood for by one that was.
    pub exhaustive: bool,
}

/// One crash point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PointReport {
    /// How many events had happened.
    pub events: u64,
    /// The rules that chose it.
    pub reasons: Vec<String>,
    /// Fault and window, as in `fault 2 W3`.
    pub window: Option<String>,
    /// The step under way.
    pub step: Option<String>,
    /// Parts in flight.
    pub in_flight: u64,
    /// Logarithm to base 2 of the number of states.
    pub log2: f64,
    /// Distinct contents recovered and judged here.
    pub judged: u64,
    /// Promises that hold here.
    pub promises: u64,
    /// Classes found here.
    pub found: Vec<Class>,
    /// How completely it was searched, when exploring lazily.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchReport>,
    /// What came back, by path: size and allocated bytes; one for each outcome, at most four.
    pub outcomes: Vec<String>,
}

/// How completely a crash point was searched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchReport {
    /// Ways that recovery went.
    pub recoveries: u64,
    /// Whether these are all: then they stand for every state.
    pub exhaustive: bool,
    /// Why not, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounded: Option<String>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Names it for a replay: `EVENTS-STATE`, or `recording` for a crash while the scenario was recorded. Where the power
    /// went several times, one for each, with `+` between them.
    pub id: String,
    /// Its class.
    pub class: Class,
    /// What is wrong, in the smallest state.
    pub text: String,
    /// The promise that was broken, if one was.
    pub promise: Option<PromiseReport>,
    /// Distinct contents that show it.
    pub states: u64,
    /// Crash points that show it.
    pub points: u64,
    /// The power cuts before, the first one first, when it shows in a recovery that was cut in its turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<SmallestState>,
    /// Of the states, those that were taken to have this cause without being tried.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub untried: u64,
    /// The smallest state that shows it.
    pub smallest: SmallestState,
    /// The store that makes the difference; `None` when nothing in flight does, or when it was not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<CauseReport>,
    /// What else comes of the same cause, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub symptoms: Vec<SymptomReport>,
    /// The bytes of the file that shows it, when content is what is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentReport>,
    /// Lines of persistent memory that the smallest state lacks, the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<LineReport>,
    /// The stores behind it.
    pub stores: Vec<StoreReport>,
    /// What the guest said from attach to verdict.
    pub console: String,
}

impl Finding {
    /// Whether it shows while the scenario is recorded, as a crash of the guest does: then there is no crash state.
    pub fn is_of_recording(&self) -> bool {
        self.id == RECORDING
    }

    /// Its classes: its own, and those of its other symptoms.
    pub fn classes(&self) -> impl Iterator<Item = Class> {
        std::iter::once(self.class).chain(self.symptoms.iter().map(|symptom| symptom.class))
    }

    /// Its smallest states by the names by which they are replayed: its own, and those of its other symptoms.
    pub fn replayable(&self) -> impl Iterator<Item = (&str, &SmallestState)> {
        let others = self.symptoms.iter().map(|symptom| (symptom.id.as_str(), &symptom.smallest));
        std::iter::once((self.id.as_str(), &self.smallest)).chain(others)
    }
}

/// Another symptom of a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SymptomReport {
    /// Names it for a replay: `EVENTS-STATE`.
    pub id: String,
    /// Its class.
    pub class: Class,
    /// What is wrong, in the smallest state.
    pub text: String,
    /// The promise that was broken, if one was.
    pub promise: Option<PromiseReport>,
    /// Distinct contents that show it.
    pub states: u64,
    /// Crash points that show it.
    pub points: u64,
    /// The smallest state that shows it.
    pub smallest: SmallestState,
}

/// The earliest store that the smallest state lacks and with which, and what has to come before it, the fault is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CauseReport {
    /// Number of its event.
    pub event: u64,
    /// The instruction: function and offset, or its address in user space.
    pub at: String,
    /// The step under way.
    pub step: Option<String>,
}

/// A promise, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromiseReport {
    /// What was promised.
    pub text: String,
    /// Line of the scenario.
    pub line: u64,
    /// Number of the event from which on it held.
    pub event: u64,
}

/// A crash state with as little lost as still shows what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmallestState {
    /// The crash point: how many events had happened.
    pub events: u64,
    /// The content.
    #[schemars(with = "String")]
    pub state: StateId,
    /// Parts in flight.
    pub in_flight: u64,
    /// Lines, and whole sectors that the kernel copied, that lack something.
    #[serde(default)]
    pub lost_lines: u64,
    /// The parts that did not reach the media, by index among those in flight.
    pub lost: Vec<u64>,
}

/// A store behind a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreReport {
    /// Number of its event; of the first of several that are alike.
    pub event: u64,
    /// How many stores in a row are alike.
    pub count: u64,
    /// Guest-physical address of the first byte.
    pub address: u64,
    /// Bytes, of all together.
    pub bytes: u64,
    /// What it lacked: never flushed, not fenced, or nothing.
    pub lacked: String,
    /// What would have made it durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// The instruction: function and offset, or its address in user space.
    pub at: String,
    /// File and offset, when a step stored it.
    pub file: Option<String>,
    /// The step under way.
    pub step: Option<String>,
    /// The call stack, innermost first.
    pub stack: Vec<String>,
}

impl Report {
    /// The report as JSON, with a newline at its end.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("a report has only text, numbers and lists");
        json.push('\n');
        json
    }

    /// Reads a report.
    pub fn from_json(json: &str) -> Result<Report, String> {
        let value = serde_json::from_str(json).map_err(|why| format!("not a report: {why}"))?;
        Report::from_value(value)
    }

    /// Reads a report, or a list of several, as `pmemsim run --json` writes them.
    pub fn all_from_json(json: &str) -> Result<Vec<Report>, String> {
        match serde_json::from_str(json).map_err(|why| format!("not a report: {why}"))? {
            serde_json::Value::Array(list) if list.is_empty() => {
                Err("not a report: an empty list".to_owned())
            }
            serde_json::Value::Array(list) => list.into_iter().map(Report::from_value).collect(),
            one => Report::from_value(one).map(|report| vec![report]),
        }
    }

    /// The version first: another one has other fields.
    fn from_value(value: serde_json::Value) -> Result<Report, String> {
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if !(u64::from(OLDEST)..=u64::from(REPORT)).contains(&version) => {
                return Err(format!(
                    "version {version} of reports is not known: this program reads versions {OLDEST} to {REPORT}"
                ));
            }
            _ => (),
        }
        serde_json::from_value(value).map_err(|why| format!("not a report: {why}"))
    }

    /// The classes that were found and count: violations, and what is denied or expected.
    pub(crate) fn verdict(&self, deny: &[Class]) -> Verdict {
        let mut found: Vec<Class> = self.findings.iter().flat_map(Finding::classes).collect();
        found.retain(|class| class.is_violation() || deny.contains(class) || self.expect.contains(class));
        found.sort();
        found.dedup();
        let mut expect = self.expect.clone();
        expect.sort();
        expect.dedup();
        if self.shard.is_some() {
            // What is expected and not found here may be found elsewhere.
            return match (found.iter().all(|class| expect.contains(class)), self.inconclusive.is_empty()) {
                (false, _) => Verdict::Violated,
                (true, false) => Verdict::Inconclusive,
                (true, true) => Verdict::Part,
            };
        }
        match (expect.is_empty(), found == expect, self.inconclusive.is_empty()) {
            (true, false, _) => Verdict::Violated,
            (_, _, false) => Verdict::Inconclusive,
            (true, true, true) => Verdict::Kept,
            (false, true, true) => Verdict::Expected,
            (false, false, true) => Verdict::Violated,
        }
    }
}
