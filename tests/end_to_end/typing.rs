//! What is piped into `pmemsim boot` is typed to the guest: all of it, however early it comes.

use std::io::{Seek, Write};
use std::process::{Command, Stdio};

/// Far more than the serial port holds.
const LINES: usize = 120;

#[test]
fn every_line_reaches_the_shell_and_the_end_of_the_input_ends_it() {
    let mut typed = tempfile::tempfile().unwrap();
    for line in 0..LINES {
        writeln!(typed, "echo line-$(({line} + 1000))").unwrap();
    }
    typed.rewind().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmemsim"));
    command.args(["boot", "--append", "quiet"]).stdin(Stdio::from(typed));
    let output = command.output().unwrap();
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let said: Vec<&str> = console.lines().filter_map(|line| line.strip_prefix("# line-")).collect();
    let wanted: Vec<String> = (0..LINES).map(|line| (line + 1000).to_string()).collect();
    assert_eq!(said, wanted, "{console}");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
