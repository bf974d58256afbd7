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
    static BOOTED: Once = Once::new();
    // The control: the same machine with a program that behaves. It makes the base snapshot for the others.
    BOOTED.call_once(|| {
        let kept = Bench::new().run_text(&with_shell("echo all is well"));
        assert_eq!(kept.code, Some(0), "stdout:\n{}\nstderr:\n{}", kept.stdout, kept.stderr);
    });
    Bench::new().run_text(text)
}

#[test]
fn a_panic_is_found() {
    run(&with_shell("echo c > /proc/sysrq-trigger")).finds_guest_crash(&["while recording", "Kernel panic"]);
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

/// The budget is 20 G instructions: run it by `cargo test --release --test bad_input -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn a_guest_that_makes_no_progress_is_found() {
    run(&with_shell("while :; do :; done")).finds_guest_crash(&["while recording", "no progress within"]);
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
