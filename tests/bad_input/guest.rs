//! Guests that misbehave while the scenario is recorded: a finding of the class guest-crash, exit code 1. And images
//! that only mkfs can refuse, on the same machine.

use std::sync::Once;

use crate::support::{Bench, Outcome, SCENARIO};

/// The scenario on a machine that has a shell, whose programs may say as much as they like. With hardware-reduced ACPI
/// Linux resets by EFI (reboot_init), which this machine does not have, unless it is told to do it by ACPI.
fn with_shell(script: &str) -> String {
    let append = "sysrq_always_enabled=1 printk.devkmsg=on reboot=acpi";
    let machine = format!("[machine]\nprograms = [\"dash\"]\nappend = \"{append}\"");
    let step = format!("[[step]]\nexec = ['dash', '-c', '{script}']\n[crash]");
    SCENARIO.replace("[machine]", &machine).replace("[crash]", &step)
}

fn run(text: &str) -> Outcome {
    run_in(&Bench::new(), text, &[])
}

fn run_in(bench: &Bench, text: &str, options: &[&str]) -> Outcome {
    static BOOTED: Once = Once::new();
    // The control: the same machine with a program that behaves. It makes the base snapshot for the others.
    BOOTED.call_once(|| {
        let kept = Bench::new().run_text(&with_shell("echo all is well"));
        assert_eq!(kept.code, Some(0), "stdout:\n{}\nstderr:\n{}", kept.stdout, kept.stderr);
    });
    bench.write("scenario.toml", text);
    bench.pmemsim(&[&["run", "scenario.toml"], options].concat())
}

#[test]
fn a_panic_is_found() {
    let bench = Bench::new();
    let panicked = run_in(&bench, &with_shell("echo c > /proc/sysrq-trigger"), &["--json", "report.json"]);
    panicked.finds_guest_crash(&["while recording", "Kernel panic", "console of the recording"]);
    let replayed = bench.pmemsim(&["replay", "report.json", "recording"]);
    assert_eq!(replayed.code, Some(1), "{}{}", replayed.stdout, replayed.stderr);
    assert!(replayed.stdout.contains("guest-crash: while recording: "), "{}", replayed.stdout);
    // A list of reports is searched; what two of them have must be told apart.
    let report = std::fs::read_to_string(bench.path("report.json")).unwrap();
    bench.write("list.json", format!("[{report},{report}]"));
    let replay = |id: &str| bench.pmemsim(&["replay", "list.json", id]);
    replay("recording").refuses(&["several scenarios", "--scenario", "recording of good"]);
    replay("12-ab").refuses(&["no finding \"12-ab\"", "recording of good"]);
    let image = bench.pmemsim(&["replay", "report.json", "recording", "--image", "media"]);
    image.refuses(&["--image", "before any power cut"]);
}

#[test]
fn a_guest_that_goes_away_is_found() {
    run(&with_shell("echo b > /proc/sysrq-trigger"))
        .finds_guest_crash(&["while recording", "reset the machine"]);
    let off = run(&with_shell("echo o > /proc/sysrq-trigger; while :; do :; done"));
    off.finds_guest_crash(&["while recording", "powered the machine off"]);
}

#[test]
fn a_flooded_console_is_found() {
    let line = "flood ".repeat(40);
    let flood = run(&with_shell(&format!("while :; do echo \"<1>{line}\"; done > /dev/kmsg")));
    flood.finds_guest_crash(&["while recording", "bytes of console output"]);
}

#[test]
fn a_guest_that_makes_no_progress_is_found() {
    let endless = with_shell("while :; do :; done");
    let limited = endless.replace("[crash]", "[limits]\ninstructions = 100000000\n[crash]");
    run(&limited).finds_guest_crash(&["while recording", "no progress within 100000000 instructions"]);
}

#[test]
fn options_that_mkfs_refuses_name_the_key() {
    let with_mkfs = |arguments: &str| {
        let mount = format!("mkfs = [{arguments}]\nmount");
        run(&with_shell("exit").replace("mount", &mount))
    };
    with_mkfs("\"-O\", \"nonsense\"").refuses(&[
        "scenario.toml:10: mkfs",
        "-O nonsense",
        "Invalid filesystem option",
    ]);
    with_mkfs("\"-b\", \"1024\"").refuses(&["scenario.toml:10: mkfs", "-b", "leave it out"]);
    with_mkfs("\"-E\", \"offset=0\"").refuses(&["scenario.toml:10: mkfs", "offset=0", "leave it out"]);
}
