//! Whoever reads what is printed may be gone, and a disk may be full.

use std::fs::File;
use std::io::pipe;
use std::process::{Command, Stdio};

use crate::support::{Bench, SCENARIO};

/// What a shell says of a program that SIGPIPE has ended.
const UNHEARD: i32 = 141;

/// The exit code where nobody reads either output.
fn unread(bench: &Bench, arguments: &[&str]) -> Option<i32> {
    let closed = || {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmemsim"));
    command.args(arguments).current_dir(bench.dir.path());
    command.stdin(Stdio::null()).stdout(closed()).stderr(closed()).status().unwrap().code()
}

#[test]
fn what_only_prints_ends_when_nobody_reads() {
    let bench = Bench::new();
    for arguments in [&["schema"][..], &["doctor"], &["images", "list"], &["completions", "bash"], &["boot"]]
    {
        assert_eq!(unread(&bench, arguments), Some(UNHEARD), "{arguments:?}");
    }
    assert_eq!(unread(&bench, &["run", "--suite", "matrix", "--list"]), Some(UNHEARD));
}

#[test]
fn a_verdict_is_the_exit_code_also_when_nobody_reads_it() {
    let bench = Bench::new();
    bench.write("scenario.toml", SCENARIO);
    assert_eq!(unread(&bench, &["run", "scenario.toml", "--progress", "--json", "report.json"]), Some(0));
    assert_eq!(unread(&bench, &["report", "report.json", "--baseline", "report.json"]), Some(0));
    assert_eq!(unread(&bench, &["run", "missing.toml"]), Some(2));
    assert_eq!(unread(&bench, &["images", "fetch", "nonsense-6.1/"]), Some(2));
}

#[test]
fn a_full_disk_is_told() {
    let bench = Bench::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmemsim"));
    command.arg("schema").stdout(File::options().write(true).open("/dev/full").unwrap());
    let output = command.current_dir(bench.dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("standard output: No space left") && said.contains("direct it"), "{said}");
}
