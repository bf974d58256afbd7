//! A cache that is empty, full, or cannot be written.

use std::io::Write;
use std::process::Command;

use crate::support::{Bench, Outcome, SCENARIO, bytes_below, cache, resolved};

#[test]
fn without_a_network_an_empty_cache_is_an_error() {
    let bench = Bench::without_network();
    let words = ["cannot reach the Debian mirror http://127.0.0.1:9", "PMEMSIM_DEBIAN_MIRROR"];
    bench.run_text(SCENARIO).refuses(&words);
    bench.pmemsim(&["images", "fetch", "dash"]).refuses(&words);
    bench.pmemsim(&["boot"]).refuses(&words);
}

#[test]
fn a_cache_that_cannot_be_written_is_an_error() {
    let mut bench = Bench::without_network();
    let file = bench.write("file", "not a directory");
    for place in [&file, "/proc"] {
        bench.set("XDG_CACHE_HOME", place);
        bench.run_text(SCENARIO).refuses(&["cannot use the cache directory", place, "set XDG_CACHE_HOME"]);
    }
}

#[test]
fn a_user_without_a_cache_directory_is_told() {
    let bench = Bench::new();
    bench.write("scenario.toml", SCENARIO);
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmemsim"));
    command.args(["run", "scenario.toml"]).env_remove("HOME").env_remove("XDG_CACHE_HOME");
    bench.finish(command).refuses(&["set XDG_CACHE_HOME or HOME"]);
}

#[test]
fn a_disk_without_room_for_the_index_is_an_error() {
    small_disk(100 << 10, &[], &["no space left on device", "set XDG_CACHE_HOME"]);
}

#[test]
fn a_disk_without_room_for_the_unpacked_kernel_is_an_error() {
    let package = resolved("debian-6.1");
    let debs = std::fs::read_dir(cache().join("debs")).unwrap();
    let mut names = debs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let deb = names.find(|name| name.contains(&package)).expect("the kernel's package");
    small_disk(8 << 20, &[format!("debs/{deb}")], &["no space left on device", "set XDG_CACHE_HOME"]);
}

#[test]
fn a_disk_without_room_for_the_snapshot_is_an_error() {
    let kernel = format!("kernels/{}", resolved("debian-6.1"));
    small_disk(2 << 20, &[kernel], &["snapshot", "No space left on device", "set XDG_CACHE_HOME"]);
}

/// Runs a scenario whose cache has these parts of the user's, and so many bytes free.
#[track_caller]
fn small_disk(free: u64, parts: &[String], words: &[&str]) {
    let mut parts = parts.to_vec();
    if !parts.is_empty() {
        parts.push("resolved".to_owned());
    }
    let size = free + parts.iter().map(|part| bytes_below(&cache().join(part))).sum::<u64>();
    match on_disk(size, &parts) {
        Some(outcome) => outcome.refuses(words),
        None => {
            // Not eprintln: the harness would swallow it.
            let said = format!(
                "SKIPPED: a file system of {size} bytes cannot be mounted here, not even in a user namespace\n"
            );
            std::io::stderr().write_all(said.as_bytes()).expect("standard error takes a line");
        }
    }
}

fn on_disk(size: u64, parts: &[String]) -> Option<Outcome> {
    let mut bench = Bench::without_network();
    let disk = bench.path("cache");
    let mount = format!("mount -t tmpfs -o size={size} tmpfs {}", disk.display());
    let flags: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let works = |flags: &&[&str]| {
        let tried = Command::new("unshare").args(*flags).args(["sh", "-c", &mount]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let flags = flags.into_iter().find(works)?;
    bench.set("XDG_CACHE_HOME", &disk.display().to_string());
    bench.write("scenario.toml", SCENARIO);
    let (from, to) = (cache(), disk.join("pmemsim"));
    let mut script = format!("set -e; {mount}\n");
    for part in parts {
        let place = to.join(part);
        let parent = place.parent().unwrap().display();
        script += &format!("mkdir -p {parent}; cp -r {} {parent}\n", from.join(part).display());
    }
    script += &format!("exec {} run scenario.toml", env!("CARGO_BIN_EXE_pmemsim"));
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", &script]);
    Some(bench.finish(command))
}
