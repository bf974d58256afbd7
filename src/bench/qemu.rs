//! The same kernel, initramfs and command line under QEMU's TCG, plain and with a plugin that is called for every store.
//!
//! What differs: QEMU's machine is a PC with PCI, firmware and devices of its own, entered through PVH behind SeaBIOS;
//! its guest has no TSC deadline timer and no RDSEED; its time is the host's. So the kernel executes other instructions, and
//! more of them. Times run from starting the process to the agent's first message on the console.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vmm::MachineConfig;

use super::{clock, guest::Work};

const PROGRAM: &str = "qemu-system-x86_64";
const PLUGIN: &str = include_str!("qemu_plugin.c");
/// What the agent says where nobody answers at the control port.
const REACHED: &str = "agent: nobody answers";
/// A boot that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// The simulator's own processor, as far as TCG has it.
const CPU: &str = "qemu64,vendor=GenuineIntel,family=6,model=54,stepping=1,-svm,-hypervisor,+ssse3,+sse4.1,+sse4.2,\
                   +popcnt,+cx16,+fsgsbase,+erms,+clflushopt,+clwb,+smap,+smep,+rdrand,+rdtscp,+pdpe1gb";

/// QEMU with all it needs in one directory.
pub struct Qemu {
    directory: PathBuf,
    command_line: String,
    /// As `--version` says it.
    pub version: String,
    plugin: Option<PathBuf>,
}

/// One boot.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    pub time: Duration,
    pub wall: Duration,
    /// Instructions and stores up to the agent's call, counted by the plugin.
    pub counted: Option<(u64, u64)>,
}

impl Boot {
    /// As [`Work`], with instructions that another boot counted where this one did not.
    pub fn work(&self, instructions: u64) -> Work {
        let instructions = self.counted.map_or(instructions, |(instructions, _)| instructions);
        Work { instructions, time: self.time, wall: self.wall }
    }
}

impl Qemu {
    /// Lays kernel and initramfs out in `directory` and builds the plugin. `None` when QEMU is not installed.
    pub fn prepare(directory: &Path, config: &MachineConfig) -> anyhow::Result<Option<Qemu>> {
        let Ok(version) = Command::new(PROGRAM).arg("--version").output() else { return Ok(None) };
        let version = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
        fs::write(directory.join("vmlinux"), &config.kernel)?;
        fs::write(directory.join("initrd"), &config.initrd)?;
        let (directory, command_line) = (directory.to_owned(), config.command_line.clone());
        let plugin = build_plugin(&directory)?;
        Ok(Some(Qemu { directory, command_line, version, plugin }))
    }

    /// Whether there is a plugin. There is none without a C compiler.
    pub fn has_plugin(&self) -> bool {
        self.plugin.is_some()
    }

    /// Boots to the agent, with the plugin or without.
    pub fn boot(&self, with_plugin: bool) -> anyhow::Result<Boot> {
        let counts = self.directory.join("counts");
        let mut command = Command::new(PROGRAM);
        command
            .args(["-machine", "pc,nvdimm=on", "-m", "256M,slots=2,maxmem=1G", "-cpu", CPU])
            .args(["-object", "memory-backend-ram,id=m0,size=64M", "-device", "nvdimm,memdev=m0"])
            .args(["-accel", "tcg,thread=single", "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio", "-append", &self.command_line])
            .arg("-kernel")
            .arg(self.directory.join("vmlinux"))
            .arg("-initrd")
            .arg(self.directory.join("initrd"));
        if let Some(plugin) = self.plugin.as_ref().filter(|_| with_plugin) {
            let argument = format!("{},out={}", plugin.display(), counts.display());
            command.args(["-plugin", &argument]);
        }
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context(PROGRAM)?;
        let reached = wait_for_agent(&mut child).and_then(|()| {
            let wall = started.elapsed();
            Ok(Boot { time: clock::of_process(child.id())?, wall, counted: None })
        });
        if reached.is_ok() {
            // The plugin writes its counts when QEMU ends: the agent powers off.
            wait_for_end(&mut child)?;
        }
        // Already gone, or to go.
        let _ = child.kill();
        child.wait()?;
        let mut boot = reached?;
        if with_plugin {
            let text = fs::read_to_string(&counts).context("the plugin's counts")?;
            let mut numbers = text.split_whitespace().map(str::parse);
            let (Some(instructions), Some(stores)) = (numbers.next(), numbers.next()) else {
                bail!("the plugin's counts are {text:?}")
            };
            boot.counted = Some((instructions?, stores?));
        }
        Ok(boot)
    }
}

/// `None` when there is no C compiler.
fn build_plugin(directory: &Path) -> anyhow::Result<Option<PathBuf>> {
    let (source, library) = (directory.join("plugin.c"), directory.join("plugin.so"));
    fs::write(&source, PLUGIN)?;
    let compiler =
        Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
    match compiler {
        Err(_) => Ok(None),
        Ok(output) if output.status.success() => Ok(Some(library)),
        Ok(output) => bail!("the plugin does not compile:\n{}", String::from_utf8_lossy(&output.stderr)),
    }
}

fn wait_for_agent(child: &mut Child) -> anyhow::Result<()> {
    let output = child.stdout.take().context("QEMU has no output")?;
    let (sender, lines) = mpsc::channel();
    // Reads on behind the line that is waited for, so that QEMU never blocks.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                continue;
            }
        }
    });
    let started = Instant::now();
    let mut said = Vec::new();
    while let Ok(line) = lines.recv_timeout(PATIENCE.saturating_sub(started.elapsed())) {
        if line.contains(REACHED) {
            return Ok(());
        }
        said.push(line);
    }
    bail!("the kernel does not reach the agent under QEMU:\n{}", said.join("\n"))
}

fn wait_for_end(child: &mut Child) -> anyhow::Result<()> {
    let started = Instant::now();
    while child.try_wait()?.is_none() && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
