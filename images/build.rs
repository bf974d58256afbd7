//! Builds the guest agent as a static program for the guest, so that this crate can embed it.
//!
//! A plain dependency on `guest-agent` would build it with the host's flags. Cargo is run once more instead, with
//! flags of its own and a target directory inside OUT_DIR (the outer cargo holds the lock of the usual one).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let workspace = here.parent().expect("images lies in the workspace").to_path_buf();
    let out = PathBuf::from(variable("OUT_DIR"));
    for source in ["guest/agent", "guest/protocol", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let target_dir = out.join("agent");
    let status = agent_build(&workspace, &target_dir).status().expect("cargo can be started");
    assert!(
        status.success(),
        "building the guest agent failed; it needs the Rust target {TARGET} and a static glibc (Debian: libc6-dev)"
    );
    let program = target_dir.join(TARGET).join("release/guest-agent");
    fs::copy(&program, out.join("guest-agent")).expect("the built agent can be copied");
}

fn agent_build(workspace: &Path, target_dir: &Path) -> Command {
    let mut cargo = Command::new(variable("CARGO"));
    // What the outer build is (clippy, coverage, a wrapper) must not reach the inner one.
    for name in
        ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"]
    {
        cargo.env_remove(name);
    }
    // Paths of this machine must not reach the program: guests would differ from checkout to checkout.
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_string(),
        "-Crelocation-model=static".to_string(),
        // Reports walk the agent's stack by them (explore/src/user_stack.rs).
        "-Cforce-frame-pointers=yes".to_string(),
        format!("--remap-path-prefix={}=pmemsim", workspace.display()),
    ];
    let home =
        env::var("CARGO_HOME").ok().or_else(|| env::var("HOME").ok().map(|home| format!("{home}/.cargo")));
    flags.extend(home.map(|home| format!("--remap-path-prefix={home}=cargo")));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo
        .args(["build", "--release", "--target", TARGET, "--package", "guest-agent", "--target-dir"])
        .arg(target_dir);
    cargo.arg("--manifest-path").arg(workspace.join("guest/agent/Cargo.toml"));
    for setting in [
        "panic=\"abort\"",
        "opt-level=\"s\"",
        "lto=\"fat\"",
        "codegen-units=1",
        "debug=0",
        // The names of functions stay: reports tell who made a store.
        "strip=\"debuginfo\"",
    ] {
        cargo.args(["--config", &format!("profile.release.{setting}")]);
    }
    cargo
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
