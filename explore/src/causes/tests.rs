use crate::options::RunOptions;
use crate::replay::{replay, scenario_of};
use crate::report::Report;
use crate::run::run;
use crate::scenario::Scenario;
use crate::toy::ToyLaboratory;
use crate::verdict::Class;

fn explore(steps: &str) -> Report {
    let text = format!(
        "name = \"test\"\n[machine]\nkernel = \"debian-6.1\"\n[[nvdimm]]\nsize = \"16M\"\n[filesystem]\ntype = \"ext4\"\n\
         [[step]]\ncreate = {{ file = \"a\", size = \"16K\" }}\n[[step]]\nmap = {{ file = \"a\", as = \"m\", sync = true }}\n{steps}"
    );
    let scenario = Scenario::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"));
    run(&scenario, &ToyLaboratory::new(), &RunOptions::default(), &|_| ()).expect("a toy has no host trouble")
}

/// Makes the page present, so that nothing but the user's stores is in flight behind it.
const FIRST: &str = "[[step]]\nstore = { map = \"m\", at = 64, bytes = 8 }\nflush = \"clwb\"\nfence = \"sfence\"\npromise = \"contents\"\n";
const UNFLUSHED: &str =
    "[[step]]\nstore = { map = \"m\", at = 0, bytes = 8 }\nfence = \"sfence\"\npromise = \"contents\"\n";

#[test]
fn promises_that_one_lost_store_breaks_are_one_finding() {
    let half =
        |at| format!("[[step]]\npromise = {{ contents = {{ file = \"a\", at = {at}, bytes = 4 }} }}\n");
    let store = UNFLUSHED
        .replace("promise = \"contents\"\n", "")
        .replace("bytes = 8", "bytes = 8, pattern = \"byte:9\"");
    let report = explore(&format!("{FIRST}{store}{}{}", half(0), half(4)));
    let [finding] = &report.findings[..] else { panic!("{report}") };
    let [symptom] = &finding.symptoms[..] else { panic!("{report}") };
    assert_eq!((finding.class, symptom.class), (Class::Lost, Class::Lost), "{report}");
    assert_ne!(finding.promise, symptom.promise);
    let cause = finding.cause.as_ref().expect("the store is named");
    assert_eq!(cause.event, finding.stores[0].event, "{report}");
    assert!(cause.step.as_ref().is_some_and(|step| step.contains("store 0x0+0x8")), "{report}");
    assert_eq!((finding.smallest.lost.len(), finding.smallest.lost_lines), (1, 1), "{report}");
    assert!(finding.points > symptom.points.min(finding.points - 1), "of both together: {report}");
    assert!(report.to_string().contains("from the same cause, lost: "), "{report}");
    let scenario = scenario_of(&report).expect("the report carries its scenario");
    for (id, _) in finding.replayable() {
        let replayed =
            replay(&report, id, &scenario, &ToyLaboratory::new()).unwrap_or_else(|why| panic!("{why}"));
        assert!(replayed.faults.iter().any(|fault| fault.starts_with("lost")), "{replayed:?}");
    }
}

#[test]
fn stores_of_two_steps_are_two_findings() {
    let other = UNFLUSHED.replace("at = 0,", "at = 128,");
    let report = explore(&format!("{FIRST}{UNFLUSHED}{other}"));
    let steps: Vec<&str> =
        report.findings.iter().filter_map(|finding| finding.cause.as_ref()?.step.as_deref()).collect();
    assert!(report.findings.len() == 2 && steps.len() == 2 && steps[0] != steps[1], "{report}");
    assert!(report.findings.iter().all(|finding| finding.smallest.lost.len() == 1), "{report}");
}

#[test]
fn one_fault_with_two_causes_is_two_findings_that_share_out_its_states() {
    let both = format!(
        "{FIRST}{}{}[[step]]\npromise = {{ contents = {{ file = \"a\" }} }}\n",
        UNFLUSHED.replace("promise = \"contents\"\n", ""),
        UNFLUSHED.replace("promise = \"contents\"\n", "").replace("at = 0,", "at = 128,")
    );
    let report = explore(&both);
    let [first, second] = &report.findings[..] else { panic!("{report}") };
    assert_eq!(first.promise, second.promise);
    assert_ne!(first.cause, second.cause);
    assert!(first.untried == 0 && second.untried == 0, "{report}");
}

#[test]
fn what_shows_with_everything_there_has_no_store_behind_it() {
    let report = explore(
        "[[step]]\nfsync = \"a\"\n[[step]]\nmunmap = \"m\"\n[[step]]\nmap = { file = \"a\", as = \"n\" }\n\
         [[step]]\nstore = { map = \"n\", at = 0, bytes = 8 }\nflush = \"clwb\"\nfence = \"sfence\"\npromise = \"contents\"\n",
    );
    let lost = report.findings.iter().find(|finding| finding.class == Class::Lost).expect("it is lost");
    assert!(lost.cause.is_none() && lost.smallest.lost.is_empty(), "{report}");
}
