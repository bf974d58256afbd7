//! Kernels that are wrong on purpose: which of their bugs a scenario must find.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::schema::OneOrMany;
use super::{Scenario, ScenarioError, Source};
use crate::verdict::Class;

/// Classes that must be found in a kernel with a bug; `lost` when nothing is said.
const USUAL: [Class; 1] = [Class::Lost];

/// `[[mutant]]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMutant {
    pub name: toml::Spanned<String>,
    pub expect: Option<OneOrMany>,
    /// What is found instead on some kernel, by its name.
    #[serde(default)]
    pub on: BTreeMap<String, OneOrMany>,
}

/// `[[mutant]]`: a bug that the kernels `mutants-6.1` and `mutants-6.12` have when the parameter `pmemsim.mutant` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name.
    pub name: String,
    /// The classes that must be found, and no others.
    pub expect: Vec<Class>,
    /// The same for kernels on which it is something else, by their names.
    pub on: BTreeMap<String, Vec<Class>>,
}

/// Names are of small letters and hyphens, and no two alike.
pub(super) fn compile(source: &Source, raw: Vec<RawMutant>) -> Result<Vec<Mutant>, ScenarioError> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for RawMutant { name, expect, on } in raw {
        let place = name.span().start;
        let name = name.into_inner();
        let is_tame = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
        if name.is_empty() || !name.bytes().all(is_tame) {
            let what = format!(
                "{name:?}: write small letters and hyphens, as guest/kernel/mutants-6.1.patch has it"
            );
            return Err(source.error(place, "mutant", what));
        }
        if mutants.iter().any(|mutant| mutant.name == name) {
            return Err(source.error(place, "mutant", format!("{name:?} stands there twice")));
        }
        let expect = expect.map_or(USUAL.to_vec(), |classes| classes.0);
        let on = on.into_iter().map(|(kernel, classes)| (kernel, classes.0)).collect();
        mutants.push(Mutant { name, expect, on });
    }
    Ok(mutants)
}

impl Scenario {
    /// The scenario on a kernel with this bug: what must be found is what its `[[mutant]]` says. The parameter reaches
    /// any kernel; one that does not know it is as it always is, and then nothing is found.
    ///
    /// # Errors
    /// In words, when the scenario does not name the bug.
    pub fn with_mutant(mut self, name: &str) -> Result<Scenario, String> {
        let Some(mutant) = self.mutants.iter().find(|mutant| mutant.name == name) else {
            let known: Vec<&str> = self.mutants.iter().map(|mutant| mutant.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("{} has no mutant {name:?}; it has {known}", self.name));
        };
        self.expect = mutant.on.get(&self.machine.kernel).unwrap_or(&mutant.expect).clone();
        self.machine.append =
            format!("{} pmemsim.mutant={name}", self.machine.append).trim_start().to_owned();
        self.mutant = Some(name.to_owned());
        Ok(self)
    }

    /// Uses this kernel instead of the scenario's, with the modules below a directory if it is given by its path.
    pub fn override_kernel(&mut self, kernel: &str, modules: Option<&str>) {
        kernel.clone_into(&mut self.machine.kernel);
        self.machine.modules = modules.map(str::to_owned);
        self.kernel_override = Some(kernel.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: &str = r#"
name = "s"
[machine]
kernel = "mutants-6.1"
append = "quiet"
[[nvdimm]]
size = "16M"
[filesystem]
type = "ext4"
[[step]]
sync = true
"#;

    fn parse(mutants: &str) -> Result<Scenario, ScenarioError> {
        Scenario::parse(&format!("{SCENARIO}{mutants}"), "s.toml")
    }

    #[test]
    fn a_mutant_is_a_parameter_of_the_kernel_and_what_must_be_found() {
        let scenario = parse("[[mutant]]\nname = \"no-zeroing\"\nexpect = \"stale\"").unwrap();
        assert!(scenario.expect.is_empty());
        let mutant = scenario.with_mutant("no-zeroing").unwrap();
        assert_eq!(mutant.machine.append, "quiet pmemsim.mutant=no-zeroing");
        assert_eq!((mutant.expect, mutant.mutant.as_deref()), (vec![Class::Stale], Some("no-zeroing")));
    }

    #[test]
    fn a_mutant_that_the_scenario_does_not_name_is_refused_with_those_that_it_does() {
        let scenario = parse("[[mutant]]\nname = \"copy-head\"").unwrap();
        assert_eq!(scenario.mutants[0].expect, [Class::Lost]);
        assert!(scenario.with_mutant("copy-tail").unwrap_err().contains("it has copy-head"));
    }

    #[test]
    fn what_must_be_found_can_be_another_class_on_another_kernel() {
        let text = "[[mutant]]\nname = \"no-zeroing\"\non = { \"mutants-6.12\" = \"stale\" }";
        let mut scenario = parse(text).unwrap();
        assert_eq!(scenario.clone().with_mutant("no-zeroing").unwrap().expect, [Class::Lost]);
        scenario.override_kernel("mutants-6.12", None);
        assert_eq!(scenario.with_mutant("no-zeroing").unwrap().expect, [Class::Stale]);
    }

    #[test]
    fn names_that_could_be_other_parameters_or_stand_there_twice_are_errors() {
        for name in ["", "a b", "a=b", "A"] {
            let error = parse(&format!("[[mutant]]\nname = {name:?}")).unwrap_err();
            assert_eq!((error.key.as_str(), error.line), ("mutant", 13), "{error}");
        }
        assert!(parse("[[mutant]]\nname = \"a\"\n[[mutant]]\nname = \"a\"").is_err());
    }
}
