//! The user's own programs: what they acknowledge, and check programs that say whether it is there.

use explore::machines::Machines;
use explore::verdict::Class;
use explore::{Report, RunOptions, Scenario, Verdict};
use images::Cache;

use crate::support::{jobs, run, scenario};

/// A scenario in which a shell appends numbers to a file, and prints each; `sync` makes each durable before.
fn numbers(sync: &str, check: &str) -> Scenario {
    let text = format!(
        r#"
name = "numbers"
[machine]
kernel = "debian-6.1"
programs = ["dash", "coreutils", "grep"]
[[nvdimm]]
size = "32M"
[filesystem]
type = "ext4"
mount = "dax=always"
[[step]]
exec = ["dash", "-c", "for n in 1 2; do echo $n >> numbers; {sync}; echo $n; done"]
acknowledge = "stdout"
[check]
command = ["dash", "-c", '{check}']
[crash]
explore = "sample"
points = ["promises"]
states = 4
[limits]
instructions = 100000000
"#
    );
    Scenario::parse(&text, "numbers").unwrap_or_else(|error| panic!("{error}"))
}

const ALL_THERE: &str = "while read -r n; do grep -sqx $n numbers || { echo $n is missing; exit 1; }; done";

fn classes(report: &Report) -> Vec<Class> {
    report.findings.iter().map(|finding| finding.class).collect()
}

#[test]
fn lines_that_a_shell_prints_are_acknowledgements_and_are_kept_with_sync_only() {
    let kept = run(&numbers("sync numbers", ALL_THERE), &jobs(1));
    assert_eq!(kept.verdict, Verdict::Kept, "{kept}");
    assert_eq!((kept.counts.acknowledged, kept.counts.acknowledged_judged), (2, 2), "{kept}");
    let lost = run(&numbers("true", ALL_THERE), &jobs(1));
    assert_eq!((lost.verdict, classes(&lost)), (Verdict::Violated, vec![Class::Lost]), "{lost}");
    assert!(lost.findings[0].text.contains("exit code 1: 1 is missing"), "{lost}");
    let promise = lost.findings[0].promise.as_ref().expect("what was acknowledged");
    assert!(promise.text.contains("acknowledged, the last one"), "{lost}");
}

#[test]
fn check_programs_that_see_nothing_or_do_not_end_prove_nothing() {
    let inconclusive = |check: &str, why: &str| {
        let report = run(&numbers("sync numbers", check), &jobs(1));
        assert_eq!(report.verdict, Verdict::Inconclusive, "{report}");
        let said = report.inconclusive.join("\n") + &report.canary;
        assert!(said.contains(why), "{said}");
    };
    inconclusive("true", "misses nothing when told of 2 acknowledgements where there were");
    inconclusive("exit 7", "although the power has not been cut, the check program ends with exit code 7");
    inconclusive(
        "kill -SEGV $$",
        "although the power has not been cut, the check program is killed by signal 11",
    );
    inconclusive("no-such-program", "cannot run what it needs (exit code 127)");
    inconclusive(
        "while :; do :; done",
        "does not come to its end: no progress within 100000000 instructions",
    );
}

#[test]
fn a_check_program_that_crashes_on_what_is_left_is_a_finding() {
    let report = run(&numbers("true", "grep -q 2 numbers || kill -SEGV $$"), &jobs(1));
    assert_eq!((report.verdict, classes(&report)), (Verdict::Violated, vec![Class::Corrupt]), "{report}");
    assert!(report.findings[0].text.contains("killed by signal 11"), "{report}");
}

/// What is said when the program of the first step is this one.
fn recorded(program: &str) -> Report {
    let mut scenario = numbers("true", "true");
    let text = scenario.text.replace("for n in 1 2; do echo $n >> numbers; true; echo $n; done", program);
    scenario = Scenario::parse(&text, "numbers").unwrap_or_else(|error| panic!("{error}"));
    run(&scenario, &jobs(1))
}

#[test]
fn a_recorded_program_that_fails_or_does_not_end_is_told_with_its_step() {
    let failed = recorded("echo no room for it >&2; exit 3");
    assert_eq!(failed.verdict, Verdict::Inconclusive, "{failed}");
    let why = failed.inconclusive.join(" ");
    assert!(why.contains("the step of line 11") && why.contains("ends with exit code 3"), "{why}");
    assert!(why.contains("the console says last: no room for it"), "{why}");
    let killed = recorded("kill -KILL $$").inconclusive.join(" ");
    assert!(killed.contains("is killed by signal 9"), "{killed}");
    let endless = recorded("while :; do :; done");
    assert_eq!(classes(&endless), [Class::GuestCrash], "{endless}");
    let text = &endless.findings[0].text;
    assert!(text.contains("no progress within 100000000 instructions, in the step of line 11"), "{text}");
}

#[test]
fn what_was_acknowledged_before_the_file_system_was_full_is_kept() {
    let program = "n=1; while echo $n >> numbers && head -c 1000000 /dev/zero > fill$n && sync numbers fill$n; do echo $n; n=$((n+1)); done 2> /dev/null; test $n -gt 1";
    let text = numbers("true", ALL_THERE).text;
    let text = text
        .replace("for n in 1 2; do echo $n >> numbers; true; echo $n; done", program)
        .replace("size = \"32M\"", "size = \"16M\"")
        .replace("instructions = 100000000", "instructions = 1000000000");
    let scenario = Scenario::parse(&text, "full").unwrap_or_else(|error| panic!("{error}"));
    let report = run(&scenario, &jobs(1));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.counts.acknowledged_judged > 1, "{report}");
}

#[test]
fn a_program_that_the_guest_cannot_run_is_told_before_it_boots() {
    let directory = std::env::temp_dir();
    let refused = |files: &str, run: &str| {
        let text = format!(
            "name = \"a\"\n[machine]\nkernel = \"debian-6.1\"\nfiles = [{files}]\n[[nvdimm]]\nsize = \"32M\"\n\
             [filesystem]\ntype = \"ext4\"\n[[step]]\nexec = [\"{run}\"]\n"
        );
        let scenario = Scenario::parse(&text, "a.toml").unwrap_or_else(|error| panic!("{error}"));
        match Machines::prepare(&scenario, &Cache::open().expect("a cache directory"), 1) {
            Ok(_) => panic!("{files} {run} is not refused"),
            Err(why) => why.to_string(),
        }
    };
    let this = std::env::current_exe().expect("this test has a path");
    let dynamic = format!("{{ to = \"/a\", from = \"{}\" }}", this.display());
    let why = refused(&dynamic, "/a");
    assert!(why.contains("libc.so.6") && why.contains("which the guest does not have"), "{why}");
    let mut foreign = images::AGENT.to_vec();
    foreign[18] = 183;
    let place = directory.join(format!("pmemsim-foreign-{}", std::process::id()));
    std::fs::write(&place, foreign).expect("the directory for temporary files can be written");
    let why = refused(&format!("{{ to = \"/a\", from = \"{}\" }}", place.display()), "/a");
    std::fs::remove_file(&place).expect("it was written");
    assert!(why.contains("is for another processor (AArch64)"), "{why}");
    assert!(refused("", "/usr/bin/sqlite3").contains("is not in the guest: name its Debian package"));
    assert!(refused("{ to = \"/a\", from = \"/no/such/file\" }", "/a").contains("cannot be read"));
    let broken = "{ to = \"/a\", c = \"tests/end_to_end/programs/broken.c\" }";
    assert!(refused(broken, "/a").contains("cc cannot compile it"), "{}", refused(broken, "/a"));
}

/// Of the shipped scenario: what it expects is found, and a store of the program's own is told with its line.
fn is_found(name: &str, place: &str) {
    is_found_with(name, place, &jobs(2));
}

fn is_found_with(name: &str, place: &str, options: &RunOptions) {
    let scenario = scenario(&format!("programs/{name}"));
    let report = run(&scenario, options);
    assert_eq!(report.verdict, Verdict::Expected, "{report}");
    let stores = report.findings.iter().flat_map(|finding| &finding.stores);
    let frames: Vec<&String> = stores.flat_map(|store| &store.stack).collect();
    assert!(frames.iter().any(|frame| frame.contains(place)), "{frames:#?}");
}

fn is_kept(name: &str) {
    let report = run(&scenario(&format!("programs/{name}")), &jobs(2));
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
}

#[test]
fn a_log_in_c_keeps_what_it_acknowledges_and_a_forgotten_flush_is_found_with_its_line() {
    is_kept("log");
    is_found("log-forgotten-flush", "[log] at guest/workloads/log.c:");
}

#[test]
fn a_log_on_a_device_keeps_what_it_acknowledges_and_a_record_that_is_not_persisted_is_found() {
    is_kept("devdax-log");
    let few = RunOptions { budget: Some(20), ..jobs(2) };
    is_found_with("devdax-log-forgotten-persist", "[pmem2_log] at guest/workloads/pmem2_log.c:", &few);
}

#[test]
#[ignore = "takes minutes"]
fn every_other_program_that_is_wrong_is_found_and_the_right_ones_are_not() {
    for name in ["log-missing-fence", "log-flush-after-publish"] {
        is_found(name, "[log] at guest/workloads/log.c:");
    }
    for name in ["pmem-log-forgotten-persist", "pmem-log-missing-drain", "pmem-log-flush-after-publish"] {
        is_found(name, "[pmem_log] at guest/workloads/pmem_log.c:");
    }
    is_found("pmem2-log-missing-drain", "[pmem2_log] at guest/workloads/pmem2_log.c:");
    for name in [
        "sqlite-wal-off",
        "sqlite-delete-off",
        "sqlite-delete-full",
        "lmdb",
        "lmdb-nosync",
        "leveldb-nosync",
        "redis-appendfsync-no",
        "obj-list-no-tx-add",
        "devdax-obj-list-no-tx-add",
    ] {
        let report = run(&scenario(&format!("programs/{name}")), &jobs(2));
        assert_eq!(report.verdict, Verdict::Expected, "{report}");
    }
    for name in [
        "sqlite-wal-full",
        "sqlite-delete-extra",
        "leveldb",
        "redis",
        "pmem-log",
        "pmem2-log",
        "obj-list",
        "devdax-obj-list",
    ] {
        is_kept(name);
    }
}
