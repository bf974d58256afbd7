//! Power cuts during recovery, on the toy file system with its journal.

use proptest::prelude::*;

use crate::options::RunOptions;
use crate::replay::{replay, scenario_of};
use crate::report::{Report, Verdict};
use crate::run::run;
use crate::scenario::{Explore, Scenario};
use crate::toy::ToyLaboratory;
use crate::verdict::Class;

/// Two files, promised one after the other, with a journal to be replayed.
fn scenario(mount: &str, crash: &str) -> Scenario {
    let steps = [
        "create = { file = \"a\", size = \"100\" }",
        "fsync = \"a\"",
        "rename = { from = \"a\", to = \"b\" }",
    ];
    let more = ["fsync = \"b\"", "create = { file = \"c\", size = \"5\" }", "fsync = \"c\""];
    let steps: String = steps.iter().chain(&more).map(|step| format!("[[step]]\n{step}\n")).collect();
    let text = format!(
        "name = \"test\"\n[machine]\nkernel = \"debian-6.1\"\n[[nvdimm]]\nsize = \"16M\"\n[filesystem]\ntype = \"ext4\"\n\
         mount = \"journal,{mount}\"\n{steps}{crash}"
    );
    Scenario::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"))
}

fn explored(scenario: &Scenario, options: &RunOptions) -> Report {
    run(scenario, &ToyLaboratory::new(), options, &|_| ()).expect("a toy has no host trouble")
}

fn with(in_recovery: u32, explore: Explore, jobs: usize) -> RunOptions {
    RunOptions { in_recovery: Some(in_recovery), explore: Some(explore), jobs, ..RunOptions::default() }
}

fn lost(report: &Report) -> bool {
    report.findings.iter().any(|finding| matches!(finding.class, Class::Lost | Class::Corrupt))
}

#[test]
fn a_fault_in_replay_is_found_when_the_power_goes_again_and_only_then() {
    for explore in [Explore::Sample, Explore::Lazy] {
        let faulty = scenario("replay-no-flush", "");
        let once = explored(&faulty, &with(0, explore, 2));
        assert_eq!(once.verdict, Verdict::Kept, "{once}");
        let twice = explored(&faulty, &with(1, explore, 2));
        assert!(twice.verdict == Verdict::Violated && lost(&twice), "{twice}");
        assert!(twice.findings.iter().all(|finding| finding.earlier.len() == 1), "{twice}");
        let sound = explored(&scenario("", ""), &with(1, explore, 2));
        assert_eq!(sound.verdict, Verdict::Kept, "{sound}");
        assert!(sound.in_recovery[0].is_exhaustive() && sound.in_recovery[0].crash_points > 4, "{sound}");
    }
}

#[test]
fn a_plant_in_the_recording_of_the_recovery_is_found() {
    let planted = scenario("", "[crash]\nin_recovery = 1\nexplore = \"lazy\"\n[plant]\ndrop = \"replay\"\n");
    let report = explored(&planted, &RunOptions::default());
    assert!(report.verdict == Verdict::Violated && lost(&report), "{report}");
    let without = explored(&planted, &with(0, Explore::Lazy, 1));
    assert_eq!(without.verdict, Verdict::Inconclusive, "what was to be dropped was not there: {without}");
}

#[test]
fn a_finding_names_both_power_cuts_and_shows_again() {
    let report = explored(&scenario("replay-no-flush", ""), &with(1, Explore::Lazy, 1));
    let report = Report::from_json(&report.to_json()).expect("a report can be read");
    for finding in &report.findings {
        let cuts: Vec<String> = finding
            .earlier
            .iter()
            .chain([&finding.smallest])
            .map(|cut| format!("{}-{}", cut.events, cut.state))
            .collect();
        assert_eq!(finding.id, cuts.join("+"));
        let again = scenario_of(&report).expect("the scenario is in the report");
        let replayed =
            replay(&report, &finding.id, &again, &ToyLaboratory::new()).expect("it can be replayed");
        assert!(replayed.faults.iter().any(|fault| fault.ends_with(&finding.text)), "{replayed:?}");
    }
    assert!(!report.findings.is_empty());
}

#[test]
fn the_power_goes_three_times_and_a_report_does_not_depend_on_the_jobs() {
    let scenario = scenario("", "[crash]\nin_recovery_states = 3\n");
    let report = explored(&scenario, &with(2, Explore::Lazy, 1));
    assert_eq!((report.verdict, report.in_recovery.len()), (Verdict::Kept, 2), "{report}");
    // Recovering once more does what recovering once does, so that there is nothing new.
    let [once, twice] = &report.in_recovery[..] else { panic!("{report}") };
    assert!(once.crash_points > 0 && twice.crash_points_equal >= once.crash_points, "{report}");
    assert_eq!(report.to_json(), explored(&scenario, &with(2, Explore::Lazy, 3)).to_json());
}

#[test]
fn the_budget_bounds_recoveries_of_recoveries() {
    let scenario = scenario("", "");
    let options = RunOptions { budget: Some(40), ..with(1, Explore::Lazy, 1) };
    let report = explored(&scenario, &options);
    // Every crash point is searched a little.
    let level = &report.in_recovery[0];
    assert!(!level.is_exhaustive() && level.recoveries <= 40 + level.crash_points, "{report}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_sampling_finds_of_a_recovery_lazy_exploration_finds(
        fault in any::<bool>(), states in 1_u64..6, depth in 1_u32..3,
    ) {
        let mount = if fault { "replay-no-flush" } else { "" };
        let scenario = scenario(mount, &format!("[crash]\nin_recovery_states = {states}\nbudget = 4000\n"));
        let sampled = explored(&scenario, &with(depth, Explore::Sample, 1));
        let lazy = explored(&scenario, &with(depth, Explore::Lazy, 1));
        prop_assert!(!lost(&sampled) || lost(&lazy), "{}{}", sampled, lazy);
        prop_assert!(fault || !lost(&lazy), "{}", lazy);
    }
}
