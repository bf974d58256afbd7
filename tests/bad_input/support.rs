//! Running the command, and holding what it says against what a user needs.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A run that takes longer hangs: generous, because the first one boots a kernel.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a scenario needs, and a step whose promise can be judged.
pub const SCENARIO: &str = r#"name = "good"
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
points = ["promises"]
budget = 2
"#;

/// What a command did.
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A directory for one test, and the command run in it.
pub struct Bench {
    pub dir: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// With an empty cache, and no Debian mirror.
    pub fn without_network() -> Bench {
        let mut bench = Bench::new();
        let cache = bench.path("cache");
        std::fs::create_dir(&cache).unwrap();
        bench.set("XDG_CACHE_HOME", &cache.display().to_string());
        for name in ["PMEMSIM_DEBIAN_MIRROR", "PMEMSIM_DEBIAN_SECURITY_MIRROR"] {
            // The discard port: nobody listens there.
            bench.set(name, "http://127.0.0.1:9");
        }
        bench
    }

    pub fn set(&mut self, name: &'static str, value: &str) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_owned()));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    /// Writes the scenario with one thing changed, and runs it.
    pub fn run_changed(&self, from: &str, to: &str) -> Outcome {
        assert!(SCENARIO.contains(from), "{from:?} is not in the scenario");
        self.run_text(&SCENARIO.replacen(from, to, 1))
    }

    pub fn run_text(&self, text: &str) -> Outcome {
        self.write("scenario.toml", text);
        self.pmemsim(&["run", "scenario.toml"])
    }

    pub fn pmemsim(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmemsim"));
        command.args(arguments);
        self.finish(command)
    }

    /// Runs it to its end, which must come.
    pub fn finish(&self, mut command: Command) -> Outcome {
        command.current_dir(self.dir.path()).envs(self.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let started = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if started.elapsed() > PATIENCE => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    panic!("{command:?} does not end; it said:\n{}", stderr.join().unwrap());
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        Outcome { code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Outcome {
    /// Exit code 2, no panic, and an error that holds all of these words.
    #[track_caller]
    pub fn refuses(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.says(words, &self.stderr);
    }

    /// Exit code 1 and a finding of the class guest-crash that holds all of these words.
    #[track_caller]
    pub fn finds_guest_crash(&self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(self.stdout.contains("VIOLATED: guest-crash"), "{}", self.stdout);
        self.says(words, &self.stdout);
    }

    #[track_caller]
    fn says(&self, words: &[&str], text: &str) {
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for word in words {
            assert!(text.contains(word), "{word:?} is missing in:\n{text}");
        }
    }
}

/// The user's cache, as `pmemsim` finds it.
pub fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    base.or_else(|| variable("HOME").map(|home| home.join(".cache"))).unwrap().join("pmemsim")
}

/// The vmlinux of the Debian kernel, fetched when it is not there yet.
pub fn vmlinux() -> PathBuf {
    let package = resolved("debian-6.1");
    cache().join("kernels").join(package).join("vmlinux")
}

/// SHA-256 of the package that a name stands for, fetched when it is not there yet.
pub fn resolved(name: &str) -> String {
    let fetched = Bench::new().pmemsim(&["images", "fetch", name]);
    assert_eq!(fetched.code, Some(0), "{}", fetched.stderr);
    let line = std::fs::read_to_string(cache().join("resolved").join(name)).unwrap();
    line.split_whitespace().nth(2).unwrap().to_owned()
}

/// Bytes in the files of a directory and below.
pub fn bytes_below(path: &Path) -> u64 {
    let data = path.symlink_metadata().unwrap();
    if !data.is_dir() {
        return data.len().next_multiple_of(4096);
    }
    std::fs::read_dir(path).unwrap().map(|entry| bytes_below(&entry.unwrap().path())).sum()
}
