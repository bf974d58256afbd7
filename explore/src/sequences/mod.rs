//! Short sequences of file system operations, all of them within bounds, each a scenario of its own.
//!
//! The idea is that of ACE, the workload generator of CrashMonkey (Mohan et al., "Finding Crash-Consistency Bugs with
//! Bounded Black-Box Crash Testing", OSDI 2018): bugs show in few operations on few files, each followed by a
//! persistence point. A sequence begins on a small tree of files that is durable. The power is cut from its first
//! operation on.

mod all;
mod catalogue;

use std::fmt::Write;

pub use self::all::run_all;
use self::catalogue::{OPERATIONS, Operation, Persistence, TREE};
use crate::scenario::{Scenario, ScenarioError};

/// What sequences run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Operations in each: 1 or 2.
    pub operations: u8,
    /// `ext4` or `xfs`
    pub filesystem: String,
    /// As a scenario names it.
    pub kernel: String,
    /// The `[crash]` table of the scenarios: where more than what is usual is wanted.
    pub crash: Option<String>,
}

/// One of the sequences.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The operation that it ends with.
    pub operation: &'static str,
    /// What makes that durable, or `nothing`.
    pub persistence: &'static str,
    /// The sequence as a scenario.
    pub scenario: Scenario,
}

/// One operation of a sequence, and what follows on it.
type Part = (&'static Operation, Persistence);

impl Bounds {
    /// All sequences within the bounds, in a fixed order. Those that make no sense are left out: an operation on a file
    /// that the one before has taken away.
    pub fn sequences(&self) -> Vec<Sequence> {
        let alone = |operation: &'static Operation| {
            operation.persistence.iter().map(move |persistence| vec![(operation, *persistence)])
        };
        let all: Vec<Vec<Part>> = match self.operations {
            1 => OPERATIONS.iter().flat_map(alone).collect(),
            _ => OPERATIONS
                .iter()
                .flat_map(|first| OPERATIONS.iter().flat_map(move |second| pairs(first, second)))
                .collect(),
        };
        all.iter().filter_map(|parts| self.sequence(parts)).collect()
    }

    fn sequence(&self, parts: &[Part]) -> Option<Sequence> {
        let scenario = self.scenario(parts).ok()?;
        let (operation, persistence) = parts.last()?;
        Some(Sequence { operation: operation.name, persistence: persistence.name(), scenario })
    }

    fn scenario(&self, parts: &[Part]) -> Result<Scenario, ScenarioError> {
        let name = name_of(parts);
        Scenario::parse(&self.text(&name, parts), &name)
    }

    fn text(&self, name: &str, parts: &[Part]) -> String {
        // The smallest regions that these file systems fit on.
        let (size, mkfs) = if self.filesystem == "xfs" { ("18M", XFS_MKFS) } else { ("16M", "") };
        let crash = self.crash.as_deref().unwrap_or(CRASH);
        let mut text = format!(
            "name = \"{name}\"\ndescription = \"A sequence of pmemsim sequences.\"\n\n[machine]\nkernel = \"{}\"\n\n[[nvdimm]]\nsize = \"{size}\"\n\n[filesystem]\ntype = \"{}\"\n{mkfs}mount = \"dax=always\"\n\n[crash]\npoints = [\"durable\", \"promises\"]\nfrom_marker = 1\n{crash}\n",
            self.kernel, self.filesystem
        );
        let mut step = |action: &str| {
            // Writing to a string never fails.
            let _ = write!(text, "\n[[step]]\n{action}\n");
        };
        TREE.iter().copied().for_each(&mut step);
        step("marker = 1");
        for (number, (operation, persistence)) in (1..).zip(parts) {
            operation.steps.iter().for_each(|action| step(&action.replace('%', &format!("{number}"))));
            match persistence {
                Persistence::Nothing => (),
                Persistence::Fsync => step(&format!("fsync = \"{}\"", operation.subject)),
                Persistence::Fdatasync => step(&format!("fdatasync = \"{}\"", operation.subject)),
                Persistence::Directory => step(&format!("fsync = \"{}\"", operation.directory())),
                Persistence::Sync => step("sync = true"),
            }
        }
        text
    }
}

/// The log is written in units of 4 KiB: fewer stores to tell apart than in 32 KiB.
const XFS_MKFS: &str = "mkfs = [\"-l\", \"su=4096\"]\n";
/// How the crash states of a sequence are found.
const CRASH: &str = "explore = \"lazy\"\nbranches = 64\nbudget = 200\nstates = 8";

/// Two operations, the first of them durable or not. What ends the second is what shows it best.
fn pairs(first: &'static Operation, second: &'static Operation) -> Vec<Vec<Part>> {
    let end = second.persistence[0];
    let durable = first.persistence[0];
    let mut pairs = vec![vec![(first, Persistence::Nothing), (second, end)]];
    if durable != Persistence::Nothing {
        pairs.push(vec![(first, durable), (second, end)]);
    }
    pairs
}

fn name_of(parts: &[Part]) -> String {
    let part = |(operation, persistence): &Part| match persistence {
        Persistence::Nothing => operation.name.to_owned(),
        persistence => format!("{} {}", operation.name, persistence.name()),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
