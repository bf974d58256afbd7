//! Tests of other tools, and the verdicts that these define.

use explore::import::vinter::{self, Source};
use explore::import::{Machine, Verdict, ace, verdicts};
use explore::verdict::Class;
use explore::{Report, Scenario};

use crate::support::{jobs, machines, run};

fn vinter(test: &str) -> Verdict {
    let vm = include_str!("../../scenarios/imported/vm_ext4.yaml");
    let (vm, test) = (Source { name: "vm_ext4.yaml", text: vm }, Source { name: "test.yaml", text: test });
    let test = vinter::read(vm, test, "debian-6.1").unwrap_or_else(|error| panic!("{error}"));
    let machines = machines(&test.scenario, test.scenario.crash.seed);
    let verdicts = verdicts(&test, &machines, &jobs(1)).unwrap().unwrap();
    let [verdict] = &verdicts[..] else { panic!("one pair of checkpoints: {verdicts:?}") };
    verdict.clone()
}

#[test]
fn vinters_verdicts_are_those_that_it_defines() {
    let synced = vinter(include_str!("../../scenarios/imported/rename-synced.yaml"));
    assert!(synced.has_single_final_state() && synced.is_atomic() && synced.passes(), "{synced}");
    assert_eq!(synced.states, 2, "old and new: {synced}");
    let overwritten = vinter(include_str!("../../scenarios/imported/overwritten.yaml"));
    assert!(overwritten.states > 2 && !overwritten.is_atomic() && !overwritten.passes(), "{overwritten}");
}

fn workload(mount: &str) -> Report {
    let workload = include_str!("../../scenarios/imported/rename-fsync.jlang");
    let machine = Machine { kernel: "debian-6.1".into(), filesystem: "ext4".into(), mount: mount.to_owned() };
    let text =
        ace::scenario("rename-fsync.jlang", workload, &machine).unwrap_or_else(|error| panic!("{error}"));
    run(&Scenario::parse(&text, "rename-fsync.jlang").unwrap(), &jobs(2))
}

#[test]
fn a_workload_of_ace_passes_and_fails_where_the_journal_has_no_barriers() {
    let passed = workload("dax=always");
    assert_eq!(passed.verdict, explore::Verdict::Kept, "{passed}");
    assert!(passed.findings.iter().all(|finding| !finding.class.is_violation()), "{passed}");
    let failed = workload("dax=always,barrier=0");
    assert_eq!(failed.verdict, explore::Verdict::Violated, "{failed}");
    let classes: Vec<Class> = failed.findings.iter().map(|finding| finding.class).collect();
    assert!(classes.contains(&Class::Corrupt) || classes.contains(&Class::Lost), "{failed}");
}
