//! Runs that are ended, killed or divided, on a stock kernel by the command itself: nothing that was finished is lost,
//! and what is said at last is what an undisturbed run says.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use explore::{Report, Verdict};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What is run: a few crash states of a file that is stored to, in a small region.
pub const SCENARIO: &str = r#"name = "parts"
[machine]
kernel = "debian-6.1"
[[nvdimm]]
size = "16M"
[filesystem]
type = "ext4"
mount = "dax=always"
[[step]]
create = { file = "a", size = "64K" }
[[step]]
map = { file = "a", as = "m", sync = true }
[[step]]
store = { map = "m", at = 0, bytes = 64 }
flush = "clwb"
fence = "sfence"
promise = "contents"
[crash]
points = ["durable", "promises"]
budget = 12
explore = "sample"
"#;
/// Ends of a run by force.
const KILLS: usize = 20;

struct Runs {
    directory: tempfile::TempDir,
}

impl Runs {
    fn new() -> Runs {
        let runs = Runs { directory: tempfile::tempdir().expect("a directory") };
        std::fs::write(runs.path("parts.toml"), SCENARIO).expect("to write");
        runs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `pmemsim run` of the scenario with more arguments, the report to this file.
    fn start(&self, json: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmemsim"));
        command.arg("run").arg(self.path("parts.toml"));
        command.args(["--jobs", "2", "--json"]).arg(self.path(json));
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("the command starts")
    }

    fn end(&self, json: &str, arguments: &[&str]) -> (ExitStatus, String) {
        let output = self.start(json, arguments).wait_with_output().expect("the command ends");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn text(&self, json: &str) -> String {
        std::fs::read_to_string(self.path(json)).unwrap_or_else(|why| panic!("{json}: {why}"))
    }
}

/// How many results a run said that it knew.
fn known(stderr: &str) -> usize {
    let line = stderr.lines().find_map(|line| line.strip_suffix(" results are known"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_run_that_is_killed_again_and_again_loses_no_result() {
    let runs = Runs::new();
    runs.end("warm", &[]);
    let started = Instant::now();
    let (status, stderr) = runs.end("whole", &[]);
    let took = started.elapsed();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let journal = runs.path("journal").display().to_string();
    let resume = ["--resume", journal.as_str()];
    let mut random = ChaCha8Rng::seed_from_u64(20);
    let (mut before, mut kills, mut went_on) = (0, 0, 0);
    while kills < KILLS {
        let mut child = runs.start("killed", &resume);
        let moment = Instant::now() + took * (random.next_u64() % 1000) as u32 / 1000;
        while Instant::now() < moment && child.try_wait().expect("it is ours").is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("it is ours");
        let output = child.wait_with_output().expect("it has ended");
        kills += 1;
        let known = known(&String::from_utf8_lossy(&output.stderr));
        // One that was killed very early has not said anything.
        assert!(known == 0 || known >= before, "{before} results were known, now {known} are");
        went_on += usize::from(known > before);
        before = before.max(known);
    }
    assert!(went_on > 0, "no run was killed in the middle");
    let (status, stderr) = runs.end("resumed", &resume);
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(known(&stderr) >= before && before > 0, "{stderr}");
    assert!(runs.text("resumed") == runs.text("whole"), "the reports differ");
    let (status, stderr) = runs.end("other", &["--resume", &journal, "--seed", "3"]);
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("other options") && stderr.contains(&journal), "{stderr}");
}

#[test]
fn ctrl_c_keeps_what_was_found() {
    let runs = Runs::new();
    let journal = runs.path("journal");
    let child = runs.start("ended", &["--resume", &journal.display().to_string(), "--progress"]);
    let grown = || std::fs::metadata(&journal).is_ok_and(|journal| journal.len() > 600);
    let patience = Instant::now() + Duration::from_secs(180);
    while !grown() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    let report = Report::from_json(&runs.text("ended")).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(report.verdict, Verdict::Inconclusive);
    assert!(report.inconclusive.iter().any(|why| why.starts_with("interrupted")), "{report}");
    assert!(stderr.contains("recovering 0/"), "{stderr}");
}

#[test]
fn shards_say_together_what_one_run_says() {
    let runs = Runs::new();
    let (_, stderr) = runs.end("whole", &[]);
    assert!(stderr.contains(" recoveries by ") && stderr.contains(" MiB of memory each"), "{stderr}");
    for shard in ["1/3", "2/3", "3/3"] {
        let (status, stderr) = runs.end(&shard.replace('/', "-of-"), &["--shard", shard]);
        assert_eq!(status.code(), Some(0), "{stderr}");
    }
    let merge = |shards: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmemsim"));
        command.arg("merge").args(shards.iter().map(|shard| runs.path(shard)));
        command.arg("--json").arg(runs.path("merged"));
        command.output().expect("the command runs")
    };
    let merged = merge(&["3-of-3", "1-of-3", "2-of-3"]);
    assert_eq!(merged.status.code(), Some(0), "{}", String::from_utf8_lossy(&merged.stderr));
    assert!(runs.text("merged") == runs.text("whole"), "the reports differ");
    let missing = merge(&["3-of-3", "1-of-3"]);
    assert_eq!(missing.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&missing.stderr);
    assert!(stderr.contains("shard 2/3 of parts: not there"), "{stderr}");
    let whole = merge(&["whole"]);
    assert_eq!(whole.status.code(), Some(2));
}
