//! A scenario: which machine, which file system, what is done, where the power is cut.

mod describe;
mod error;
mod mutants;
mod number;
mod platforms;
mod points;
mod poison;
mod programs;
#[cfg(test)]
mod reference;
mod regions;
mod sampled;
mod schema;
mod shape;
mod step_schema;
mod steps;

use std::path::Path;

use guest_protocol::Command;
pub use images::Namespace;
use toml::Spanned;

pub use self::error::ScenarioError;
pub(crate) use self::error::Source;
pub use self::mutants::Mutant;
pub use self::number::Bytes;
pub use self::platforms::Claim;
pub use self::points::PointRule;
pub use self::regions::{Interface, Region, Topology};
pub use self::schema::{
    Check, Dropped, Filesystem, GuestFile, LimitOptions, Machine, MetadataPolicy, NamesPolicy, OracleOptions,
    Plant, SCHEMA,
};
pub use self::step_schema::{FaultGuard, PageSize};
use crate::oracle::history::History;
use crate::verdict::Class;

/// A scenario that makes sense: all keys known, all ranges inside, all names made before they are used.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name in reports.
    pub name: String,
    /// What it shows, for people.
    pub description: String,
    /// The classes that must be found, and no others; empty when nothing must be found.
    pub expect: Vec<Class>,
    /// `[machine]`
    pub machine: Machine,
    /// Regions of persistent memory in the order of the kernel, at least one; the file system is on the first.
    pub regions: Vec<Region>,
    /// Whether the media of NVDIMMs can lose lines, and firmware and processors tell of it.
    pub media_errors: bool,
    /// The platform that was asked for instead of those of the regions.
    pub platform_override: Option<persist::Platform>,
    /// The kernel that was asked for instead of the scenario's.
    pub kernel_override: Option<String>,
    /// Bugs of kernels that it must find.
    pub mutants: Vec<Mutant>,
    /// The one of them that the kernel has now.
    pub mutant: Option<String>,
    /// `[filesystem]`
    pub filesystem: Filesystem,
    /// `[crash]`
    pub crash: CrashOptions,
    /// `[limits]`
    pub limits: LimitOptions,
    /// `[oracle]`
    pub oracle: OracleOptions,
    /// `[check]`
    pub check: Option<Check>,
    /// `[plant]`
    pub plant: Option<Plant>,
    /// The text it was read from: a report carries it, so that a replay needs nothing else.
    pub text: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) commands: Vec<Planned>,
    pub(crate) history: History,
}

/// One `[[step]]`.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Line of the file, counted from 1.
    pub line: usize,
    /// For people.
    pub text: String,
    /// The fault that it is to take.
    pub fault: Option<FaultGuard>,
}

/// A command for the guest and the step that wants it.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub step: usize,
    pub command: Command,
    /// How it is to fail.
    pub fails: Option<Failure>,
    /// A range of a file in one page, of whose place in persistent memory it asks. What such commands in a row ask of is
    /// lost behind the last one.
    pub loses: Option<Lost>,
}

/// How a step is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Errno(i32),
    Signal(i32),
}

/// Bytes of a file, in one page, that the media is to lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub path: String,
    pub at: u64,
    pub len: u64,
    /// The last one of its step.
    pub last: bool,
}

/// `[crash]`: where the power is cut, and how many states are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashOptions {
    /// Which crash points.
    pub points: Vec<PointRule>,
    /// The marker in front of which there are no crash points.
    pub from_marker: Option<u32>,
    /// How crash states are found.
    pub explore: Explore,
    /// Ways that recovery from one crash point can go before lazy exploration gives up.
    pub branches: u64,
    /// States to recover in all, at most, when sampling.
    pub budget: u64,
    /// States of one crash point, at most, when sampling.
    pub states: u64,
    /// What persists as one.
    pub granularity: persist::Granularity,
    /// Whether only SFENCE and MFENCE make durable.
    pub strict_fences: bool,
    /// Depth of the store buffer under `eadr`, in parts of stores.
    pub store_buffer: u32,
    /// Whether what a device flush covered that failed stays lost although a later one succeeds.
    pub failed_flush_loses: bool,
    /// How often the power is cut again while recovering.
    pub in_recovery: u32,
    /// Of how many crash states the recovery is cut, at most.
    pub in_recovery_states: u64,
    /// Seed of everything chosen by chance.
    pub seed: u64,
}

/// Most that the power is cut again while recovering: each time takes as long as all before, at least.
pub const MOST_IN_RECOVERY: u32 = 4;

impl Default for CrashOptions {
    fn default() -> CrashOptions {
        CrashOptions {
            points: vec![PointRule::Durable, PointRule::Promises],
            from_marker: None,
            explore: Explore::default(),
            branches: 4096,
            budget: 1000,
            states: 64,
            granularity: persist::Granularity::default(),
            strict_fences: false,
            store_buffer: persist::Settings::default().store_buffer,
            failed_flush_loses: false,
            in_recovery: 0,
            in_recovery_states: 16,
            seed: 1,
        }
    }
}

/// How crash states are found.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Explore {
    /// Some of each crash point are chosen, and each is recovered.
    Sample,
    /// Recovery starts with everything undecided that is in flight, and branches over what it takes.
    #[default]
    Lazy,
}

impl std::str::FromStr for Explore {
    type Err = String;

    fn from_str(text: &str) -> Result<Explore, String> {
        match text {
            "sample" => Ok(Explore::Sample),
            "lazy" => Ok(Explore::Lazy),
            _ => Err(format!("unknown exploration {text:?}: write lazy or sample")),
        }
    }
}

impl Scenario {
    /// Reads the scenario file at `path`.
    pub fn load(path: &Path) -> Result<Scenario, ScenarioError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Scenario::parse(&text, &file),
            Err(why) => Err(ScenarioError {
                file,
                line: 1,
                key: "scenario".to_owned(),
                what: format!("cannot be read: {why}"),
            }),
        }
    }

    /// Reads a scenario from its text; `file` names it in errors.
    pub fn parse(text: &str, file: &str) -> Result<Scenario, ScenarioError> {
        let source = Source { file, text };
        let document: schema::Document = toml::from_str(text).map_err(|error| source.toml_error(&error))?;
        if let Some(version) = &document.schema
            && *version.get_ref() != SCHEMA
        {
            return Err(source.error(
                version.span().start,
                "schema",
                format!("version {} is not known: this program reads version {SCHEMA}", version.get_ref()),
            ));
        }
        check_machine(&source, &document)?;
        let regions = regions::compile(&source, &document)?;
        let filesystem = check_filesystem(&source, &document, &regions[0])?;
        check_limits(&source, &document.limits)?;
        let crash = check_crash(&source, &document.crash)?;
        check_marker(&source, &document)?;
        programs::check(&source, &document)?;
        let device = (regions[0].namespace == Namespace::Devdax)
            .then(|| regions[0].size.0.saturating_sub(images::DATA_OFFSET));
        let program = steps::compile(&source, &document.step, document.oracle, device)?;
        let media_errors = media_errors(&source, &document, &regions)?;
        let mutants = mutants::compile(&source, document.mutant)?;
        let expect = document.expect.map_or(Vec::new(), |classes| classes.0);
        Ok(Scenario {
            name: document.name,
            description: document.description,
            expect,
            machine: document.machine,
            regions,
            media_errors,
            platform_override: None,
            kernel_override: None,
            mutants,
            mutant: None,
            filesystem,
            crash,
            limits: document.limits,
            oracle: document.oracle,
            check: document.check,
            plant: document.plant,
            text: text.to_owned(),
            steps: program.steps,
            commands: program.commands,
            history: program.history,
        })
    }
}

/// The ranges are those that machines have (vmm's `MachineConfig`), or narrower.
fn check_machine(source: &Source, document: &schema::Document) -> Result<(), ScenarioError> {
    let wrong = |path: &[&str], what: String| {
        let key = path.last().copied().unwrap_or_default();
        Err(source.error(source.place(path), key, what))
    };
    let memory = document.machine.memory.0;
    if !memory.is_multiple_of(2 << 20) || !(64 << 20..=3 << 30).contains(&memory) {
        let what = format!("{memory} bytes: must be a multiple of 2M, from 64M to 3G");
        return wrong(&["machine", "memory"], what);
    }
    let cpus = document.machine.cpus;
    if !(1..=8).contains(&cpus) {
        return wrong(&["machine", "cpus"], format!("{cpus}: a machine has 1 to 8"));
    }
    Ok(())
}

/// Whether the scenario has media lose lines, or scrubbed, which NVDIMMs alone do.
fn media_errors(
    source: &Source,
    document: &schema::Document,
    regions: &[Region],
) -> Result<bool, ScenarioError> {
    for step in &document.step {
        let asked = [("poison", step.get_ref().poison.is_some()), ("scrub", step.get_ref().scrub.is_some())];
        let Some((key, _)) = asked.into_iter().find(|(_, asked)| *asked) else { continue };
        if !matches!(regions[0].interface, Interface::Nvdimm { .. }) {
            let what =
                "the file system has to be on an [[nvdimm]]: firmware knows of no errors of other regions";
            return Err(source.error(source.find_key(step.span().start, key), key, what));
        }
        return Ok(true);
    }
    Ok(document.nvdimm.iter().any(|nvdimm| nvdimm.get_ref().poison.is_some()))
}

/// What is on the first region, which is a file system unless that is a device-dax device.
fn check_filesystem(
    source: &Source,
    document: &schema::Document,
    region: &Region,
) -> Result<Filesystem, ScenarioError> {
    let wrong = |key: &str, what: &str| Err(source.error(source.place(&["filesystem", key]), key, what));
    let is_device = region.namespace == Namespace::Devdax;
    let filesystem = match &document.filesystem {
        None if is_device => {
            let kind = guest_protocol::DEVDAX.to_owned();
            return Ok(Filesystem { kind, mkfs: Vec::new(), mount: String::new() });
        }
        None => return wrong("filesystem", "there is none: write a table [filesystem] with its type"),
        Some(_) if is_device => {
            return wrong(
                "filesystem",
                "the first region is device-dax, which holds no file system: leave it out",
            );
        }
        Some(filesystem) => filesystem,
    };
    if images::FilesystemKind::from_name(&filesystem.kind).is_none() {
        let what = format!("{:?} is not known: write \"ext4\" or \"xfs\"", filesystem.kind);
        return wrong("type", &what);
    }
    let asks = |option: &str| matches!(option, "dax" | "dax=always");
    if matches!(region.namespace, Namespace::Btt { .. }) && filesystem.mount.split(',').any(asks) {
        return wrong("mount", "the file system is on a BTT, which has no DAX: leave dax out");
    }
    Ok(filesystem.clone())
}

fn check_limits(source: &Source, limits: &LimitOptions) -> Result<(), ScenarioError> {
    let console = limits.console.map(|console| console.0);
    for (key, value) in [("instructions", limits.instructions), ("console", console)] {
        if value == Some(0) {
            return Err(source.error(source.place(&["limits", key]), key, "must be at least 1"));
        }
    }
    Ok(())
}

fn check_marker(source: &Source, document: &schema::Document) -> Result<(), ScenarioError> {
    let Some(marker) = &document.crash.from_marker else { return Ok(()) };
    let number = *marker.get_ref();
    // Programs make markers, too.
    let can_be = |step: &step_schema::RawStep| step.marker == Some(number) || step.exec.is_some();
    if document.step.iter().any(|step| can_be(step.get_ref())) {
        return Ok(());
    }
    let what =
        format!("there is no such marker: write a step marker = {number} where crash points are to begin");
    Err(source.error(marker.span().start, "from_marker", what))
}

fn check_crash(source: &Source, raw: &schema::RawCrash) -> Result<CrashOptions, ScenarioError> {
    let mut crash = CrashOptions::default();
    if let Some(points) = &raw.points {
        let parse = |text: &Spanned<String>| {
            text.get_ref().parse().map_err(|what: String| source.error(text.span().start, "points", what))
        };
        crash.points = points.iter().map(parse).collect::<Result<_, _>>()?;
    }
    crash.from_marker = raw.from_marker.as_ref().map(|marker| *marker.get_ref());
    if let Some(explore) = &raw.explore {
        crash.explore = explore
            .get_ref()
            .parse()
            .map_err(|why: String| source.error(explore.span().start, "explore", why))?;
    }
    crash.branches = raw.branches.unwrap_or(crash.branches);
    crash.budget = raw.budget.unwrap_or(crash.budget);
    crash.states = raw.states.unwrap_or(crash.states);
    crash.granularity = raw.granularity;
    crash.strict_fences = raw.strict_fences;
    crash.store_buffer = raw.store_buffer.unwrap_or(crash.store_buffer);
    crash.failed_flush_loses = raw.failed_flush_loses;
    crash.in_recovery = raw.in_recovery.unwrap_or(crash.in_recovery);
    if crash.in_recovery > MOST_IN_RECOVERY {
        let what = format!("{}: the power is cut {MOST_IN_RECOVERY} times more at most", crash.in_recovery);
        return Err(source.error(source.place(&["crash", "in_recovery"]), "in_recovery", what));
    }
    crash.in_recovery_states = raw.in_recovery_states.unwrap_or(crash.in_recovery_states);
    crash.seed = raw.seed.unwrap_or(crash.seed);
    let counts = [
        ("budget", crash.budget),
        ("states", crash.states),
        ("branches", crash.branches),
        ("in_recovery_states", crash.in_recovery_states),
    ];
    for (key, value) in counts {
        if value == 0 {
            return Err(source.error(source.place(&["crash", key]), key, "must be at least 1"));
        }
    }
    Ok(crash)
}

#[cfg(test)]
mod tests;
