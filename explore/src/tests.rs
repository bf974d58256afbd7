//! The whole way on the toy machine: every scenario that comes with the program, and everything that breaks the tool.

use std::path::PathBuf;

use persist::Platform;

use crate::options::{RunOptions, Sabotage};
use crate::replay::{replay, scenario_of};
use crate::report::{Report, Verdict};
use crate::run::run;
use crate::scenario::{Explore, Scenario};
use crate::target::Health;
use crate::toy::ToyLaboratory;
use crate::verdict::Class;

fn shipped(name: &str) -> Scenario {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(format!("{name}.toml"));
    Scenario::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn scenario(steps: &str) -> Scenario {
    let text = format!(
        "name = \"test\"\n[machine]\nkernel = \"debian-6.1\"\n[[nvdimm]]\nsize = \"16M\"\n[filesystem]\ntype = \"ext4\"\n{steps}"
    );
    Scenario::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"))
}

fn run_with(scenario: &Scenario, options: &RunOptions) -> Report {
    run(scenario, &ToyLaboratory::new(), options, &|_| ()).expect("a toy has no host trouble")
}

fn explore(scenario: &Scenario) -> Report {
    run_with(scenario, &RunOptions { jobs: 2, ..RunOptions::default() })
}

fn sabotaged(name: &str, sabotage: Sabotage) -> Report {
    run_with(&shipped(name), &RunOptions { jobs: 2, sabotage: Some(sabotage), ..RunOptions::default() })
}

/// A report with a finding.
pub(crate) fn a_report() -> Report {
    static REPORT: std::sync::OnceLock<Report> = std::sync::OnceLock::new();
    REPORT.get_or_init(|| explore(&shipped("controls/no-clwb"))).clone()
}

#[test]
fn the_scenarios_keep_their_promises() {
    for name in ["map-sync-ext4", "fsync-ext4"] {
        let report = explore(&shipped(name));
        assert_eq!(report.verdict, Verdict::Kept, "{report}");
        assert!(
            report.counts.promises_judged == report.counts.promises && report.counts.states_distinct > 20,
            "{report}"
        );
    }
}

#[test]
fn every_control_is_found_and_its_repaired_twin_is_fine() {
    for name in ["no-clwb", "no-fence", "no-map-sync", "barrier0", "skipped-zeroing", "relies-on-lock"] {
        let control = shipped(&format!("controls/{name}"));
        let report = explore(&control);
        assert_eq!(report.verdict, Verdict::Expected, "{report}");
        let denied = RunOptions { jobs: 2, deny: control.expect.clone(), ..RunOptions::default() };
        let unexpected = run_with(&Scenario { expect: Vec::new(), ..control }, &denied);
        assert_eq!(unexpected.verdict, Verdict::Violated, "{unexpected}");
        let repaired = explore(&shipped(&format!("controls/repaired/{name}-repaired")));
        assert_eq!(repaired.verdict, Verdict::Kept, "{repaired}");
    }
}

#[test]
fn a_finding_names_the_store_that_was_not_flushed_with_its_stack() {
    let report = explore(&shipped("controls/no-clwb"));
    let finding = &report.findings[0];
    assert_eq!((finding.class, finding.smallest.lost.len()), (Class::Lost, 1), "{report}");
    assert_eq!(finding.stores[0].lacked, "never flushed");
    assert!(finding.stores[0].file.as_ref().is_some_and(|file| file.starts_with("a at ")), "{report}");
    assert!(!finding.stores[0].stack.is_empty(), "{report}");
    let report = explore(&shipped("controls/no-fence"));
    assert!(report.findings[0].stores[0].lacked.contains("not fenced"), "{report}");
}

#[test]
fn what_only_strict_fences_find_relies_on_a_lock_and_is_not_lost() {
    let mut control = shipped("controls/relies-on-lock");
    let report = explore(&control);
    assert!(report.findings.iter().all(|finding| finding.class == Class::ReliesOnLock), "{report}");
    assert!(report.findings[0].text.starts_with("lost if only SFENCE and MFENCE made durable"), "{report}");
    assert!(
        report.findings[0].stores[0].lacked.starts_with("drained by a locked instruction (event "),
        "{report}"
    );
    assert!(report.points.iter().flat_map(|point| &point.found).all(|class| *class == Class::ReliesOnLock));
    control.expect.clear();
    assert_eq!(explore(&control).verdict, Verdict::Kept, "it is reported, and no violation");
    control.crash.strict_fences = false;
    let plain = explore(&control);
    assert!(plain.verdict == Verdict::Kept && plain.findings.is_empty(), "{plain}");
    let asked = run_with(&control, &RunOptions { strict_fences: true, ..RunOptions::default() });
    assert_eq!(asked.findings, report.findings);
}

#[test]
fn what_is_found_without_strict_fences_stays_what_it_is() {
    for name in ["no-clwb", "no-fence", "no-map-sync", "barrier0", "skipped-zeroing"] {
        let control = shipped(&format!("controls/{name}"));
        let strict = RunOptions { jobs: 2, strict_fences: true, budget: Some(1000), ..RunOptions::default() };
        let strict = run_with(&control, &strict);
        let plain = run_with(&control, &RunOptions { jobs: 2, budget: Some(1000), ..RunOptions::default() });
        let classes = |report: &Report| -> std::collections::BTreeSet<_> {
            let others = report.findings.iter().filter(|finding| finding.class != Class::ReliesOnLock);
            others
                .map(|finding| (finding.class, finding.promise.as_ref().map(|promise| promise.text.clone())))
                .collect()
        };
        assert_eq!(classes(&strict), classes(&plain), "{strict}");
    }
}

#[test]
fn a_control_that_is_fine_is_no_success() {
    let repaired = shipped("controls/repaired/no-clwb-repaired");
    let report = explore(&Scenario { expect: vec![Class::Lost], ..repaired });
    assert_eq!(report.verdict, Verdict::Violated, "{report}");
}

#[test]
fn each_way_to_break_the_tool_turns_a_scenario_red() {
    for (name, sabotage) in [
        ("controls/no-clwb", Sabotage::StoresAreDurable),
        ("map-sync-ext4", Sabotage::IgnoreSfence),
        ("controls/no-fence", Sabotage::PromisesDrain),
        ("map-sync-ext4", Sabotage::SkipOracle),
    ] {
        let report = sabotaged(name, sabotage);
        assert_ne!(report.verdict.exit_code(), 0, "{sabotage:?}: {report}");
    }
}

#[test]
fn reports_do_not_depend_on_the_number_of_jobs() {
    for name in ["map-sync-ext4", "controls/barrier0"] {
        let one = run_with(&shipped(name), &RunOptions { jobs: 1, ..RunOptions::default() });
        let two = run_with(&shipped(name), &RunOptions { jobs: 2, ..RunOptions::default() });
        assert_eq!(one.to_json(), two.to_json());
        assert_eq!(Report::from_json(&one.to_json()), Ok(one));
    }
}

#[test]
fn a_finding_can_be_replayed() {
    for name in
        ["controls/no-clwb", "controls/barrier0", "controls/skipped-zeroing", "controls/relies-on-lock"]
    {
        let report = explore(&shipped(name));
        let scenario = crate::replay::scenario_of(&report).expect("the report carries its scenario");
        for finding in &report.findings {
            let replayed = crate::replay(&report, &finding.id, &scenario, &ToyLaboratory::new())
                .unwrap_or_else(|why| panic!("{why}"));
            assert!(
                replayed.faults.iter().any(|fault| fault.starts_with(finding.class.name())),
                "{:?}",
                replayed.faults
            );
        }
    }
}

#[test]
fn a_report_carries_the_mutant_and_the_kernel_that_were_asked_for() {
    let mut scenario = shipped("proving-ground/sync-fault-hole");
    scenario.override_kernel("mutants-6.12", None);
    let scenario = scenario.with_mutant("no-zeroing").unwrap();
    // The toy is no kernel and has no such bug: what must be found is not.
    let report = explore(&scenario);
    assert_eq!(report.verdict, Verdict::Violated, "{report}");
    assert!(report.to_string().starts_with("sync-fault-hole, mutant no-zeroing: "), "{report}");
    let again = scenario_of(&Report::from_json(&report.to_json()).unwrap()).unwrap();
    assert_eq!((again.machine, again.expect), (scenario.machine, scenario.expect));
}

#[test]
fn without_a_promise_or_a_crash_point_nothing_is_concluded() {
    let report = explore(&scenario("[[step]]\ncreate = { file = \"a\" }\n"));
    assert_eq!(report.verdict, Verdict::Inconclusive, "{report}");
    let report = explore(&scenario(
        "[[step]]\ncreate = { file = \"a\" }\n[[step]]\nfsync = \"a\"\n[crash]\npoints = []\n",
    ));
    assert_eq!(report.verdict, Verdict::Inconclusive, "{report}");
    let report = explore(&scenario(
        "[[step]]\ncreate = { file = \"a\" }\n[[step]]\nfsync = \"a\"\n[crash]\npoints = [\"promises\", \"symbol:no_such_function\"]\n",
    ));
    assert_eq!(report.verdict, Verdict::Inconclusive, "{report}");
}

#[test]
fn a_guest_that_oopses_is_a_finding() {
    let mut oopses =
        scenario("mount = \"oops\"\n[[step]]\ncreate = { file = \"a\" }\n[[step]]\nfsync = \"a\"\n");
    let report = explore(&oopses);
    assert_eq!(
        (report.verdict, report.findings[0].class),
        (Verdict::Violated, Class::GuestCrash),
        "{report}"
    );
    oopses.filesystem.mount = String::new();
    assert_eq!(explore(&oopses).verdict, Verdict::Kept);
}

#[test]
fn damage_that_the_checker_finds_is_corrupt_and_a_checker_that_fails_is_inconclusive() {
    let scenario = scenario("[[step]]\ncreate = { file = \"a\" }\n[[step]]\nfsync = \"a\"\n");
    let with = |health: Health| {
        let mut laboratory = ToyLaboratory::new();
        laboratory.health = health;
        run(&scenario, &laboratory, &RunOptions::default(), &|_| ()).expect("a toy has no host trouble")
    };
    let damaged = with(Health::Damaged("free blocks count wrong".to_owned()));
    assert!(
        damaged.verdict == Verdict::Violated
            && damaged.findings.iter().any(|finding| finding.class == Class::Corrupt),
        "{damaged}"
    );
    assert_eq!(with(Health::Unknown("killed".to_owned())).verdict, Verdict::Inconclusive);
}

#[test]
fn a_waived_promise_is_not_judged_and_an_added_one_is() {
    let steps = |more: &str| {
        scenario(&format!(
            "[[step]]\ncreate = {{ file = \"a\" }}\n[[step]]\nwrite = {{ file = \"a\", bytes = 100 }}\n{more}"
        ))
    };
    assert_eq!(explore(&steps("[[step]]\nfsync = \"a\"\nwaive = true\n")).verdict, Verdict::Inconclusive);
    let report = explore(&steps("[[step]]\npromise = { contents = { file = \"a\" } }\n"));
    assert_eq!((report.verdict, report.findings[0].class), (Verdict::Violated, Class::Lost), "{report}");
    let report = explore(&steps(
        "[[step]]\nfsync = \"a\"\nwaive = true\n[[step]]\npromise = { contents = { file = \"a\" } }\n",
    ));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
}

#[test]
fn a_guest_that_hangs_or_floods_its_console_is_a_finding() {
    for (how, word) in [("hang", "no progress"), ("flood", "console output")] {
        let steps =
            format!("mount = \"{how}\"\n[[step]]\ncreate = {{ file = \"a\" }}\n[[step]]\nfsync = \"a\"\n");
        let report = explore(&scenario(&steps));
        assert_eq!(
            (report.verdict, report.findings[0].class),
            (Verdict::Violated, Class::GuestCrash),
            "{report}"
        );
        assert!(report.findings[0].text.contains(word), "{report}");
    }
}

fn on(name: &str, platform: Platform) -> Scenario {
    let mut scenario = shipped(name);
    scenario.expect.clear();
    scenario.override_platform(platform).unwrap_or_else(|why| panic!("{why}"));
    scenario
}

#[test]
fn where_the_caches_are_saved_a_flush_may_be_forgotten_but_no_fence() {
    let flushless = explore(&on("controls/no-clwb", Platform::Eadr));
    assert_eq!(flushless.verdict, Verdict::Kept, "{flushless}");
    let fenceless = explore(&on("controls/no-fence", Platform::Eadr));
    assert_eq!(fenceless.verdict, Verdict::Violated, "{fenceless}");
    let stores = &fenceless.findings[0].stores;
    assert!(stores[0].lacked.starts_with("in the store buffer"), "{fenceless}");
    assert_eq!((fenceless.settings.platform.as_str(), fenceless.settings.store_buffer), ("eadr", Some(112)));
    let mut unbuffered = on("controls/no-fence", Platform::Eadr);
    unbuffered.crash.store_buffer = 0;
    let report = explore(&unbuffered);
    assert_eq!(report.verdict, Verdict::Kept, "nothing is buffered: {report}");
}

#[test]
fn without_flush_hints_nothing_outlives_a_lost_write_pending_queue() {
    let report = explore(&on("map-sync-ext4", Platform::AdrLost));
    assert_eq!(report.verdict, Verdict::Violated, "{report}");
    let lacked = |store: &crate::report::StoreReport| store.lacked.contains("no flush hint");
    assert!(report.findings.iter().flat_map(|finding| &finding.stores).any(lacked), "{report}");
}

#[test]
fn when_only_the_guest_crashes_every_store_is_there() {
    let mut scenario = on("controls/no-clwb", Platform::HostSurvives);
    assert_eq!(explore(&scenario).verdict, Verdict::Kept);
    // Each store is a crash point of its own: more than a small budget takes.
    scenario.crash.budget = 3;
    let bounded = explore(&scenario);
    assert!(bounded.counts.crash_points_left_out > 0 && !bounded.counts.exhaustive, "{bounded}");
    assert!(bounded.to_string().contains("events with crash points of their own left out"), "{bounded}");
    assert!(bounded.points.iter().all(|point| point.in_flight == 0), "{bounded}");
}

#[test]
fn a_replay_keeps_the_platform_that_was_asked_for() {
    let report = explore(&on("controls/no-fence", Platform::Eadr));
    let report = Report::from_json(&report.to_json()).unwrap_or_else(|why| panic!("{why}"));
    let scenario = scenario_of(&report).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(scenario.regions[0].platform, Platform::Eadr);
    let id = &report.findings[0].id;
    let replayed =
        replay(&report, id, &scenario, &ToyLaboratory::new()).unwrap_or_else(|why| panic!("{why}"));
    assert!(replayed.faults.iter().any(|fault| fault.starts_with("lost")), "{replayed:?}");
}

#[test]
fn a_platform_that_no_region_can_have_is_refused() {
    let refused = shipped("fsync-ext4").override_platform(Platform::VirtioPmem).unwrap_err();
    assert!(refused.contains("[[virtio_pmem]]"), "{refused}");
}

fn lazily(scenario: &Scenario) -> Report {
    run_with(scenario, &RunOptions { jobs: 2, explore: Some(Explore::Lazy), ..RunOptions::default() })
}

#[test]
fn lazily_every_control_is_found_and_what_keeps_its_promises_is_fine() {
    for name in ["map-sync-ext4", "fsync-ext4"] {
        let report = lazily(&shipped(name));
        assert!(report.verdict == Verdict::Kept && report.counts.exhaustive, "{report}");
        assert!(report.counts.promises_judged == report.counts.promises, "{report}");
    }
    for name in ["no-clwb", "no-fence", "no-map-sync", "barrier0", "skipped-zeroing", "relies-on-lock"] {
        let report = lazily(&shipped(&format!("controls/{name}")));
        assert!(report.verdict == Verdict::Expected && report.counts.exhaustive, "{report}");
        let repaired = lazily(&shipped(&format!("controls/repaired/{name}-repaired")));
        assert!(repaired.verdict == Verdict::Kept && repaired.counts.exhaustive, "{repaired}");
    }
}

#[test]
fn what_a_sample_finds_is_found_lazily() {
    for name in ["no-clwb", "no-fence", "no-map-sync", "barrier0", "skipped-zeroing", "relies-on-lock"] {
        let control = shipped(&format!("controls/{name}"));
        let found = |report: &Report| -> std::collections::BTreeSet<_> {
            let findings = report.findings.iter();
            findings
                .map(|finding| (finding.class, finding.promise.as_ref().map(|it| it.text.clone())))
                .collect()
        };
        let (sampled, lazy) = (explore(&control), lazily(&control));
        assert!(found(&sampled).is_subset(&found(&lazy)), "{sampled}{lazy}");
    }
}

#[test]
fn lazy_reports_do_not_depend_on_the_number_of_jobs_and_say_what_was_bounded() {
    for (name, budget) in
        [("map-sync-ext4", None), ("controls/barrier0", None), ("controls/barrier0", Some(150))]
    {
        let with = |jobs| {
            let options = RunOptions { jobs, budget, explore: Some(Explore::Lazy), ..RunOptions::default() };
            run_with(&shipped(name), &options)
        };
        let (one, two) = (with(1), with(2));
        assert_eq!(one.to_json(), two.to_json());
        assert_eq!(Report::from_json(&one.to_json()), Ok(one.clone()));
        let bounded =
            one.points.iter().filter(|point| point.search.as_ref().is_some_and(|it| !it.exhaustive)).count();
        assert_eq!(one.counts.exhaustive, bounded == 0);
        assert_eq!(
            one.to_string().contains("more than"),
            bounded > 0 || one.counts.states_exist.contains("more")
        );
    }
    let mut control = shipped("controls/barrier0");
    control.crash.branches = 2;
    let bounded = lazily(&control);
    assert!(
        !bounded.counts.exhaustive && bounded.to_string().contains("more than 2 ways to recover"),
        "{bounded}"
    );
    assert_eq!(bounded.verdict, Verdict::Expected, "what is bounded is sampled, too: {bounded}");
}

#[test]
fn a_lazy_finding_can_be_replayed_and_a_broken_tool_is_noticed() {
    for name in ["controls/no-clwb", "controls/barrier0", "controls/relies-on-lock"] {
        let report = lazily(&shipped(name));
        let scenario = scenario_of(&report).expect("the report carries its scenario");
        for finding in &report.findings {
            let replayed = replay(&report, &finding.id, &scenario, &ToyLaboratory::new())
                .unwrap_or_else(|why| panic!("{why}"));
            let same = |fault: &String| fault.starts_with(finding.class.name());
            assert!(replayed.faults.iter().any(same), "{:?}", replayed.faults);
        }
    }
    for (name, sabotage) in [
        ("controls/no-clwb", Sabotage::StoresAreDurable),
        ("map-sync-ext4", Sabotage::IgnoreSfence),
        ("controls/no-fence", Sabotage::PromisesDrain),
        ("map-sync-ext4", Sabotage::SkipOracle),
    ] {
        let options =
            RunOptions { sabotage: Some(sabotage), explore: Some(Explore::Lazy), ..RunOptions::default() };
        let report = run_with(&shipped(name), &options);
        assert_ne!(report.verdict.exit_code(), 0, "{sabotage:?}: {report}");
    }
}

/// Steps with two markers around a store; and the crash points that these rules choose, by number of events.
fn chosen(rules: &str) -> Report {
    let text = "[[step]]\ncreate = { file = \"a\", size = \"4K\" }\n[[step]]\nmap = { file = \"a\", as = \"m\", sync = true }\n\
                [[step]]\nmarker = 1\n[[step]]\nstore = { map = \"m\", at = 0, bytes = 64 }\nflush = \"clwb\"\nfence = \"sfence\"\n\
                promise = \"contents\"\n[[step]]\nmarker = 2\n";
    explore(&scenario(&format!("{text}[crash]\npoints = [{rules}]\n")))
}

#[test]
fn every_rule_for_crash_points_leads_to_points_named_by_it() {
    for rule in ["durable", "promises", "fences", "every", "between:1-2", "every:W2", "event:3", "sample:5"] {
        let report = chosen(&format!("{rule:?}"));
        let named = |point: &&crate::report::PointReport| point.reasons == [rule];
        assert!(report.points.iter().filter(named).count() > 0, "{rule}: {report}");
        assert_eq!(report.points.iter().filter(named).count(), report.points.len(), "{rule}");
    }
    let points = |rules: &str| chosen(rules).points;
    let every = points("\"every\"");
    for rule in ["durable", "promises", "fences", "between:1-2", "every:W2"] {
        let missing = points(&format!("{rule:?}")).len() > every.len();
        assert!(!missing, "every point of {rule} is one of all, or equal to one");
    }
}

#[test]
fn rules_that_lead_nowhere_make_a_run_inconclusive() {
    for (rule, why) in [
        ("flushes", "no such point"),
        ("between:2-1", "marker 1 comes before marker 2"),
        ("between:1-7", "did not come to marker 7"),
        ("event:1000000", "the recording has"),
    ] {
        let report = chosen(&format!("\"promises\", {rule:?}"));
        assert_eq!(report.verdict, Verdict::Inconclusive);
        assert!(report.inconclusive.iter().any(|said| said.contains(why)), "{rule}: {report}");
    }
}
