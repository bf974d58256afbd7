//! A part of a suite, as a CI job of many runs it.

use std::process::Command;

/// Every 74th of the 370 cells, beginning with the twentieth: five machines, of four platforms, two of them with known findings.
const SHARD: &str = "20/74";

#[test]
fn a_shard_of_the_matrix_is_kept_and_says_so_in_its_exit_code_in_junit_and_in_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmemsim"));
        command.args(arguments);
        command
    };
    let json = path("shard.json").display().to_string();
    let suite = ["run", "--suite", "matrix", "--shard", SHARD, "--json", &json];
    let list = command(&suite).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let cells: Vec<&str> = list.lines().collect();
    assert_eq!(cells.len(), 5, "{list}");

    let mut run = command(&suite);
    let run = run.arg("--junit").arg(path("junit.xml")).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stdout));

    let junit = std::fs::read_to_string(path("junit.xml")).unwrap();
    let junit = quick_junit::Report::deserialize_from_str(&junit).unwrap();
    let suites: Vec<&str> = junit.test_suites.iter().map(|suite| suite.name.as_str()).collect();
    assert_eq!(suites, cells);
    assert_eq!((junit.failures, junit.errors), (0, 0));

    let table = command(&["table", &json]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("\n5 cells: "), "{table}");
    assert!(table.contains(" 0 violated, 0 inconclusive."), "{table}");
}
