//! A finding once more: the same recording, the same state, the same recovery.

use persist::Choice;

use crate::again;
use crate::conversation::Trouble;
use crate::options::RunOptions;
use crate::recover::Worker;
use crate::report::{Report, SmallestState};
use crate::run::{Run, prepare};
use crate::scenario::{Scenario, ScenarioError};
use crate::target::{HostError, Laboratory};
use crate::torn;
use crate::verdict::Class;

/// What a replay shows.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// What must not be, in words; empty when nothing is wrong.
    pub faults: Vec<String>,
    /// What came back, in words.
    pub outcome: String,
    /// What the guest said.
    pub console: String,
    /// Addresses of the lines that the media had lost then, ascending.
    pub poisoned: Vec<u64>,
    /// The media of the first region as they were before recovery; `None` when the guest crashed while recording.
    pub image: Option<Vec<u8>>,
}

/// Why a replay is not possible.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The report has no such finding.
    #[error("the report has no finding {0:?}: its findings are {1}")]
    NoFinding(String, String),
    /// The scenario in the report makes no sense.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The execution is gone.
    #[error(
        "this was recorded on KVM, which never does the same again: record it with --engine software for a replay"
    )]
    Sampled,
    /// The recording is not the one of the report.
    #[error(
        "this is another execution than the reported one ({0}): kernel, images and seed must be the same"
    )]
    Other(String),
    /// The host.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Reads the scenario that a report carries, with the platform, the kernel and the mutant that were asked for.
pub fn scenario_of(report: &Report) -> Result<Scenario, ScenarioError> {
    let mut scenario = Scenario::parse(&report.text, &report.scenario)?;
    let wrong =
        |key: &str, what| ScenarioError { file: report.scenario.clone(), line: 1, key: key.to_owned(), what };
    if let Some(platform) = report.settings.platform_override {
        scenario.override_platform(platform).map_err(|what| wrong("platform_override", what))?;
    }
    if let Some(kernel) = &report.settings.kernel_override {
        scenario.override_kernel(kernel, report.settings.modules_override.as_deref());
    }
    if let Some(mutant) = &report.settings.mutant {
        scenario = scenario.with_mutant(mutant).map_err(|what| wrong("mutant", what))?;
    }
    Ok(scenario)
}

/// A recording that was made again, and a state of it by crash point and choice.
type Found<'a, L> = (Run<'a, L>, Option<(usize, Choice)>);

/// Records the scenario once more and finds the smallest state of a finding in it; there is none when the guest crashed
/// meanwhile.
pub(crate) fn recreate<'a, L: Laboratory>(
    report: &Report,
    id: &str,
    scenario: &'a Scenario,
    laboratory: &'a L,
    options: &'a RunOptions,
) -> Result<Found<'a, L>, ReplayError> {
    let all =
        || report.findings.iter().flat_map(|it| it.replayable().map(move |(id, state)| (id, it, state)));
    let Some((_, finding, smallest)) = all().find(|(known, ..)| *known == id) else {
        let known = all().map(|(known, ..)| known).collect::<Vec<_>>().join(", ");
        return Err(ReplayError::NoFinding(id.to_owned(), known));
    };
    if report.settings.sampled {
        return Err(ReplayError::Sampled);
    }
    let mut run = prepare(scenario, laboratory, options, &mut Vec::new())?;
    if run.trace() != report.trace {
        return Err(ReplayError::Other("the recorded events differ".to_owned()));
    }
    if finding.is_of_recording() {
        return Ok((run, None));
    }
    for cut in &finding.earlier {
        let (point, choice) = find(&run, cut)?;
        run = again::recovery_from(&run, point, &choice)?;
    }
    let found = find(&run, smallest)?;
    Ok((run, Some(found)))
}

/// The options of the run that a report is of, as far as recording and crash points depend on them.
pub(crate) fn options_of(report: &Report) -> RunOptions {
    RunOptions {
        granularity: Some(report.settings.granularity),
        nt_evicts: report.settings.nt_evicts,
        strict_fences: report.settings.strict_fences,
        seed: Some(report.settings.seed),
        ..RunOptions::default()
    }
}

/// Records the scenario once more, recreates the smallest state of a finding and recovers it. `laboratory` must be for [`scenario_of`] the report.
pub fn replay<L: Laboratory>(
    report: &Report,
    id: &str,
    scenario: &Scenario,
    laboratory: &L,
) -> Result<Replayed, ReplayError> {
    let options = options_of(report);
    let (run, found) = recreate(report, id, scenario, laboratory, &options)?;
    let Some((point, choice)) = found else { return Ok(recorded(&run)) };
    let media = &run.points.points[point].media;
    let content = media.content(&choice);
    let mut image = laboratory.images().first().map_or(Vec::new(), |image| image.to_vec());
    let region = laboratory.start()?;
    let base = crate::target::Target::regions(&region).first().map_or(0, |region| region.base);
    for (address, line) in content.lines() {
        if let Some(at) = address.checked_sub(base).map(|at| at as usize).filter(|at| at + 64 <= image.len())
        {
            image[at..at + 64].copy_from_slice(line);
        }
    }
    let told = run.points.points[point].told();
    let recovered = torn::recover(&mut Worker::new(scenario, laboratory)?, media, &choice, told)?;
    let faults = run.faults(&recovered.outcome, point);
    let outcome = recovered.outcome.words().to_owned();
    Ok(Replayed {
        poisoned: content.poisoned().to_vec(),
        faults: faults
            .into_iter()
            .map(|fault| format!("{}: {}", run.points.points[point].class_of(&fault, &choice), fault.text))
            .collect(),
        outcome,
        console: recovered.console,
        image: Some(image),
    })
}

/// The state that a report names.
fn find<L: Laboratory>(run: &Run<L>, state: &SmallestState) -> Result<(usize, Choice), ReplayError> {
    // Of several points behind the same events none differ in what is in flight.
    let point = run.points.points.iter().position(|point| point.events == state.events);
    let point =
        point.ok_or_else(|| ReplayError::Other(format!("no crash point behind {} events", state.events)))?;
    let media = &run.points.points[point].media;
    let choice = media.without(state.lost.iter().map(|index| *index as usize));
    if media.state_id(&choice) != state.state {
        return Err(ReplayError::Other("the state has another content".to_owned()));
    }
    Ok((point, choice))
}

/// What the recording itself shows.
fn recorded<L: Laboratory>(run: &Run<L>) -> Replayed {
    let (faults, outcome) = match &run.recording.trouble {
        Some(Trouble::Crash(why)) => {
            let fault = format!("{}: while recording: {why}", Class::GuestCrash);
            (vec![fault], "the guest crashed while the scenario was recorded")
        }
        _ => (Vec::new(), "the scenario was recorded without a crash"),
    };
    let console = run.recording.console.clone();
    Replayed { faults, outcome: outcome.to_owned(), console, image: None, poisoned: Vec::new() }
}
