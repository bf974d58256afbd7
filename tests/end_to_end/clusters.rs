//! A Slurm of one node, on this host: the shards of a run as a job array. Not run by itself: it starts daemons, as root.
//!
//! ```sh
//! apt-get install -y --no-install-recommends munge slurm-wlm
//! cargo test --release --test end_to_end clusters -- --ignored
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::parts::SCENARIO;

/// What a daemon may take to start, and the jobs to end.
const PATIENCE: Duration = Duration::from_secs(180);

/// The daemons, in a directory of their own. They end with it.
struct Slurm {
    directory: tempfile::TempDir,
    daemons: Vec<Child>,
}

impl Slurm {
    fn start() -> Slurm {
        let directory = tempfile::tempdir().expect("a directory");
        let mut slurm = Slurm { directory, daemons: Vec::new() };
        let path = |name: &str| slurm.path(name).display().to_string();
        let root = slurm.directory.path();
        std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).expect("it is ours");
        for name in ["state", "spool", "results"] {
            std::fs::create_dir(root.join(name)).expect("it is new");
        }
        // One host trusts itself with any key.
        std::fs::write(root.join("key"), [7; 1024]).expect("to write");
        std::fs::set_permissions(root.join("key"), PermissionsExt::from_mode(0o600)).expect("it is ours");
        let host = Command::new("hostname").arg("-s").output().expect("a host has a name");
        let host = String::from_utf8_lossy(&host.stdout).trim().to_owned();
        let directory = root.display();
        let config = format!(
            "ClusterName=pmemsim\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n\
             AuthType=auth/munge\nAuthInfo=socket={directory}/socket\nCredType=cred/munge\n\
             SlurmctldPort=46817\nSlurmdPort=46818\nStateSaveLocation={directory}/state\n\
             SlurmdSpoolDir={directory}/spool\nSlurmctldPidFile={directory}/slurmctld.pid\n\
             SlurmdPidFile={directory}/slurmd.pid\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
             JobAcctGatherType=jobacct_gather/none\nSelectType=select/cons_tres\n\
             SelectTypeParameters=CR_Core\nReturnToService=2\nMpiDefault=none\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000\n\
             PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP\n"
        );
        std::fs::write(root.join("slurm.conf"), config).expect("to write");
        std::fs::write(root.join("cgroup.conf"), "CgroupPlugin=cgroup/v1\n").expect("to write");
        let files = ["socket", "key", "log", "pid", "seed"].map(path);
        let munged = ["--socket", "--key-file", "--log-file", "--pid-file", "--seed-file"];
        let mut arguments = vec!["--foreground".to_owned(), "--force".to_owned()];
        arguments.extend(munged.iter().zip(files).map(|(option, file)| format!("{option}={file}")));
        slurm.daemon("munged", &arguments);
        let socket = slurm.path("socket");
        slurm.wait("munged", || socket.exists());
        let config = slurm.path("slurm.conf").display().to_string();
        slurm.daemon("slurmctld", &["-D".to_owned(), "-f".to_owned(), config.clone()]);
        slurm.daemon("slurmd", &["-D".to_owned(), "-f".to_owned(), config]);
        slurm.wait("slurmd", || {
            let nodes = slurm.command("sinfo", &["--noheader", "--format=%T"]);
            String::from_utf8_lossy(&nodes.stdout).trim() == "idle"
        });
        slurm
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn daemon(&mut self, program: &str, arguments: &[String]) {
        let log = || std::fs::File::create(self.path(&format!("{program}.log"))).expect("to write");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log()).stderr(log());
        let child = command.spawn().unwrap_or_else(|why| {
            panic!("{program}: {why}: apt-get install -y --no-install-recommends munge slurm-wlm")
        });
        self.daemons.push(child);
    }

    fn wait(&self, program: &str, there: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !there() {
            let log = std::fs::read_to_string(self.path(&format!("{program}.log"))).unwrap_or_default();
            assert!(Instant::now() < end, "{program} does not come up:\n{log}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A command of Slurm's.
    fn command(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.path("slurm.conf")).env("PMEMSIM", env!("CARGO_BIN_EXE_pmemsim"));
        command.args(arguments).output().unwrap_or_else(|why| panic!("{program}: {why}"))
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

#[test]
#[ignore = "starts the daemons of Slurm, as root"]
fn a_job_array_of_slurm_says_what_one_run_says() {
    let slurm = Slurm::start();
    let (scenario, results) = (slurm.path("parts.toml"), slurm.path("results"));
    std::fs::write(&scenario, SCENARIO).expect("to write");
    let job = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clusters/slurm.sh").display().to_string();
    let output = format!("--output={}/%a.log", results.display());
    let (scenario, results) = (scenario.display().to_string(), results.display().to_string());
    let done = slurm.command("sbatch", &["--wait", "--array=1-3", &output, &job, &scenario, &results]);
    let logs: Vec<String> = (1..=3)
        .map(|shard| std::fs::read_to_string(format!("{results}/{shard}.log")).unwrap_or_default())
        .collect();
    assert!(done.status.success(), "{logs:#?}{}", String::from_utf8_lossy(&done.stderr));
    let (merged, whole) = (slurm.path("merged.json"), slurm.path("whole.json"));
    let mut merge = Command::new(env!("CARGO_BIN_EXE_pmemsim"));
    merge.arg("merge").args((1..=3).map(|shard| format!("{results}/shard-{shard}.json")));
    assert!(merge.arg("--json").arg(&merged).status().expect("it runs").success());
    let mut run = Command::new(env!("CARGO_BIN_EXE_pmemsim"));
    assert!(run.args(["run", &scenario, "--json"]).arg(&whole).status().expect("it runs").success());
    let read = |path: &Path| std::fs::read(path).expect("it was written");
    assert!(read(&merged) == read(&whole), "the reports differ");
}
