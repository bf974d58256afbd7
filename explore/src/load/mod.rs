//! Random load on a file system, from a seed: the operations of fsstress (names, links, attributes, sizes) and of fsx
//! (writes, truncation, holes, mappings) in one sequence, on few files, with what makes them durable in between.
//!
//! An operation that makes no sense where it comes (a name that is not there) is not part of the sequence: the model of
//! the scenario refuses it, and another one is drawn. So every step of a load succeeds, and each is judged.

mod operations;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use self::operations::Draw;
use crate::scenario::{Scenario, ScenarioError};

/// What a load runs on, and how much of it there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// `ext4` or `xfs`
    pub filesystem: String,
    /// As a scenario names it.
    pub kernel: String,
    /// Operations.
    pub operations: usize,
    /// What they are drawn from.
    pub seed: u64,
}

/// Operations that are drawn for one that is taken, at most.
const TRIES: usize = 200;

impl Load {
    /// The load as a scenario, which cuts the power at every flush of the device and at every promise.
    ///
    /// # Errors
    /// When the text without any operation is no scenario: the kernel's or the file system's name is wrong.
    pub fn scenario(&self) -> Result<Scenario, ScenarioError> {
        let mut text = self.head();
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let name = self.name();
        let mut scenario = Scenario::parse(&text, &name)?;
        for number in 0..self.operations {
            let mut draw = Draw { random: &mut random, number };
            let taken = (0..TRIES).find_map(|_| {
                let longer = format!("{text}{}", draw.steps());
                Scenario::parse(&longer, &name).ok().map(|scenario| (longer, scenario))
            });
            let Some((longer, longer_scenario)) = taken else { break };
            (text, scenario) = (longer, longer_scenario);
        }
        Ok(scenario)
    }

    /// `load FILESYSTEM SEED`
    pub fn name(&self) -> String {
        format!("load {} {}", self.filesystem, self.seed)
    }

    fn head(&self) -> String {
        // The smallest regions that these file systems fit on.
        let (size, mkfs) = match self.filesystem.as_str() {
            "xfs" => ("18M", "mkfs = [\"-l\", \"su=4096\"]\n"),
            _ => ("16M", ""),
        };
        format!(
            "name = \"{}\"\ndescription = \"A random load: {} operations of seed {}.\"\n\n[machine]\nkernel = \"{}\"\n\n[[nvdimm]]\nsize = \"{size}\"\n\n[filesystem]\ntype = \"{}\"\n{mkfs}mount = \"dax=always\"\n\n[crash]\npoints = [\"durable\", \"promises\"]\nfrom_marker = 1\nexplore = \"sample\"\nbudget = 200\nstates = 4\nseed = {}\n\n[[step]]\nmkdir = \"d\"\n\n[[step]]\nsync = true\n\n[[step]]\nmarker = 1\n",
            self.name(),
            self.operations,
            self.seed,
            self.kernel,
            self.filesystem,
            self.seed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(seed: u64) -> Load {
        Load { filesystem: "ext4".to_owned(), kernel: "debian-6.1".to_owned(), operations: 40, seed }
    }

    #[test]
    fn a_seed_gives_the_same_load_every_time_and_another_seed_another_one() {
        let text = |seed| load(seed).scenario().unwrap().text;
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }

    #[test]
    fn a_load_has_as_many_operations_as_are_asked_for_and_promises_something() {
        for seed in 0..20 {
            let scenario = load(seed).scenario().unwrap();
            assert!(scenario.steps.len() >= 43, "seed {seed}: {} steps", scenario.steps.len());
            assert!(!scenario.history.promises.is_empty(), "seed {seed}");
        }
    }
}
