//! How many million instructions a second the software processor executes, and how that compares with QEMU.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use explore::Scenario;
use explore::bench::traced_recoveries;
use explore::machines::Machines;
use guest_protocol::{Command, EXERCISE_COPY, Exercise};
use images::{Cache, Kernel};
use serde_json::{Value, json};

use super::{
    clock,
    guest::{Guest, Work, config},
    qemu::Qemu,
};
use crate::say::{Unheard, say};

/// Exercises: name, what, rounds that take about a second, bytes that a round copies.
const EXERCISES: [(&str, Exercise, u64, usize); 5] = [
    ("user integer loop", Exercise::Integers, 6_000, 0),
    ("memcpy, REP MOVSB", Exercise::CopyBytes, 30_000, EXERCISE_COPY),
    ("memcpy, SSE", Exercise::CopyWide, 10_000, EXERCISE_COPY),
    ("system calls", Exercise::Calls, 400_000, 0),
    ("read /dev/zero, 4 KiB", Exercise::Reads, 200_000, 4096),
];
/// Exercises that the price of tracing is measured with; a slice is this part of the rounds above.
const SLICES: u64 = 8;

/// What `pmemsim bench cpu` takes.
#[derive(clap::Args)]
pub struct Cpu {
    /// debian-6.1, debian-6.12, or a path to a vmlinux or bzImage
    #[arg(long, default_value = "debian-6.1")]
    kernel: String,
    /// The scenario whose crash points are recovered
    #[arg(long, default_value = "scenarios/map-sync-ext4.toml")]
    scenario: PathBuf,
    /// Boots and exercises of which the median is told
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Recoveries
    #[arg(long, default_value_t = 30)]
    recoveries: usize,
    /// Pairs of slices with and without tracing
    #[arg(long, default_value_t = 31)]
    pairs: usize,
    /// Leave QEMU out
    #[arg(long)]
    no_qemu: bool,
    /// Writes the figures here, too
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Cpu {
    /// Returns the exit code.
    pub fn measure(&self, cache: &Cache) -> anyhow::Result<u8> {
        let kernel = Kernel::get(cache, &self.kernel)?;
        say!("kernel {}; events recorded throughout; times are CPU time", kernel.release)?;
        say!("{:28}{:>12}{:>10}{:>10}{:>10}{:>10}", "", "M instr.", "s", "s (wall)", "MIPS", "MB/s")?;
        let boots = self.boots(&kernel)?;
        let mut rows = boots.rows();
        rows.iter().try_for_each(Row::print)?;
        let mut exercised = self.exercises(&kernel)?;
        exercised.push(self.recoveries(cache)?);
        exercised.iter().try_for_each(Row::print)?;
        rows.extend(exercised);
        let ratios = boots.ratios();
        for (name, mips, seconds) in &ratios {
            say!("boot against {name}: {mips:.2} of its MIPS, {seconds:.2} of its time")?;
        }
        let tracing = self.tracing(&kernel)?;
        for (name, percent) in &tracing {
            say!("tracing costs {percent:+.1} % of {name}")?;
        }
        if let Some(path) = &self.json {
            let report = json!({
                "kernel": kernel.release,
                "qemu": boots.version,
                "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
                "boot_ratios": ratios.iter().map(|(name, mips, seconds)| {
                    json!({ "against": name, "mips": mips, "seconds": seconds })
                }).collect::<Vec<_>>(),
                "tracing": tracing.iter().map(|(name, percent)| {
                    json!({ "work": name, "percent": percent, "pairs": self.pairs })
                }).collect::<Vec<_>>(),
            });
            write(path, &report)?;
        }
        Ok(0)
    }

    /// Boots here and under QEMU in turns.
    fn boots(&self, kernel: &Kernel) -> anyhow::Result<Boots> {
        let config = config(kernel, true)?;
        let directory = tempfile::tempdir()?;
        let qemu = if self.no_qemu { None } else { Qemu::prepare(directory.path(), &config)? };
        match &qemu {
            None => say!("without QEMU: it is not installed, or not wanted")?,
            Some(qemu) if !qemu.has_plugin() => say!("without the plugin: there is no C compiler (cc)")?,
            Some(_) => {}
        }
        let (mut own, mut plain, mut plugin) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds.max(1) {
            own.push(Guest::boot(&config, true)?.1);
            let Some(qemu) = &qemu else { continue };
            plain.push(qemu.boot(false)?);
            if qemu.has_plugin() {
                plugin.push(qemu.boot(true)?);
            }
        }
        let plugin: Vec<Work> = plugin.iter().map(|boot| boot.work(0)).collect();
        let counted = median(&plugin).map_or(0, |work| work.instructions);
        let plain: Vec<Work> = plain.iter().map(|boot| boot.work(counted)).collect();
        Ok(Boots {
            own: median(&own).context("at least one boot")?,
            plain: median(&plain),
            plugin: median(&plugin),
            version: qemu.map(|qemu| qemu.version),
        })
    }

    fn exercises(&self, kernel: &Kernel) -> anyhow::Result<Vec<Row>> {
        let mut guest = Guest::boot(&config(kernel, true)?, true)?.0;
        guest.ready()?;
        guest.perform(&Command::Attach { region: 0 })?;
        let mut rows = Vec::new();
        for (name, what, rounds, bytes) in EXERCISES {
            let command = Command::Exercise { what, rounds };
            let works: Vec<Work> =
                (0..self.rounds.max(1)).map(|_| guest.perform(&command)).collect::<anyhow::Result<_>>()?;
            let work = median(&works).context("at least one round")?;
            rows.push(Row { name: name.to_owned(), work, bytes: bytes as u64 * rounds });
        }
        Ok(rows)
    }

    /// Attach, mount, observe and unmount, from crash states of the scenario.
    fn recoveries(&self, cache: &Cache) -> anyhow::Result<Row> {
        let scenario = Scenario::load(&self.scenario)?;
        let machines = Machines::prepare(&scenario, cache, scenario.crash.seed)?;
        let time = || clock::of_this_thread().unwrap_or_default();
        let works = traced_recoveries(&scenario, &machines, self.recoveries + 1, &time)?;
        // The first one decodes code and faults memory in.
        let works = works.get(1..).unwrap_or_default();
        let time: Duration = works.iter().map(|work| work.time).sum();
        let instructions = works.iter().map(|work| work.instructions).sum();
        let name = format!("{} ext4 recoveries", works.len());
        Ok(Row { name, work: Work { instructions, time, wall: Duration::ZERO }, bytes: 0 })
    }

    /// The same work in two machines in turns. In one an NVDIMM is attached, events are recorded and the kernel's
    /// copies are told apart; the other has no NVDIMM and records nothing. None of the work touches persistent
    /// memory. Per cent that the first takes longer for an instruction: the median over all pairs.
    fn tracing(&self, kernel: &Kernel) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let mut traced = Guest::boot(&config(kernel, true)?, true)?.0;
        traced.ready()?;
        traced.perform(&Command::Attach { region: 0 })?;
        let mut bare = Guest::boot(&config(kernel, false)?, false)?.0;
        bare.ready()?;
        let mut costs = Vec::new();
        for (name, what, rounds, _) in EXERCISES {
            let command = Command::Exercise { what, rounds: rounds / SLICES };
            let mut ratios = Vec::new();
            for pair in 0..self.pairs.max(1) + 1 {
                let (with, without) = if pair % 2 == 0 {
                    let with = traced.perform(&command)?;
                    (with, bare.perform(&command)?)
                } else {
                    let without = bare.perform(&command)?;
                    (traced.perform(&command)?, without)
                };
                ratios.push(without.mips() / with.mips());
            }
            // The first pair decodes code and faults memory in.
            let ratios = &mut ratios[1..];
            ratios.sort_by(f64::total_cmp);
            costs.push((name, (ratios[ratios.len() / 2] - 1.0) * 100.0));
        }
        Ok(costs)
    }
}

/// One line of the table.
struct Row {
    name: String,
    work: Work,
    /// Copied or filled.
    bytes: u64,
}

impl Row {
    fn megabytes_a_second(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.bytes as f64 / 1e6 / self.work.time.as_secs_f64())
    }

    fn print(&self) -> Result<(), Unheard> {
        let Work { instructions, time, wall } = self.work;
        let wall = if wall.is_zero() { String::new() } else { format!("{:.2}", wall.as_secs_f64()) };
        let mips = if instructions == 0 { String::new() } else { format!("{:.1}", self.work.mips()) };
        let bytes = self.megabytes_a_second().map_or(String::new(), |bytes| format!("{bytes:.0}"));
        let millions = instructions as f64 / 1e6;
        say!("{:28}{millions:>12.1}{:>10.2}{wall:>10}{mips:>10}{bytes:>10}", self.name, time.as_secs_f64())
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "instructions": self.work.instructions,
            "seconds": self.work.time.as_secs_f64(),
            "wall_seconds": self.work.wall.as_secs_f64(),
            "mips": self.work.mips(),
            "megabytes_a_second": self.megabytes_a_second(),
        })
    }
}

struct Boots {
    own: Work,
    /// Under QEMU. Instructions are those that the plugin counted, 0 without it.
    plain: Option<Work>,
    plugin: Option<Work>,
    version: Option<String>,
}

impl Boots {
    fn rows(&self) -> Vec<Row> {
        let named = [
            ("boot to the agent", Some(self.own)),
            ("boot, QEMU TCG", self.plain),
            ("boot, QEMU TCG with plugin", self.plugin),
        ];
        let row =
            |(name, work): (&str, Option<Work>)| Some(Row { name: name.to_owned(), work: work?, bytes: 0 });
        named.into_iter().filter_map(row).collect()
    }

    /// Own MIPS and own CPU seconds, divided by QEMU's.
    fn ratios(&self) -> Vec<(&'static str, f64, f64)> {
        let named = [("QEMU TCG", self.plain), ("QEMU TCG with the plugin", self.plugin)];
        let ratio = |(name, other): (&'static str, Option<Work>)| {
            let other = other.filter(|other| other.instructions > 0)?;
            Some((
                name,
                self.own.mips() / other.mips(),
                self.own.time.as_secs_f64() / other.time.as_secs_f64(),
            ))
        };
        named.into_iter().filter_map(ratio).collect()
    }
}

/// The work with the median time.
fn median(works: &[Work]) -> Option<Work> {
    let mut works = works.to_vec();
    works.sort_by_key(|work| work.time);
    works.get(works.len() / 2).copied()
}

fn write(path: &Path, report: &Value) -> anyhow::Result<()> {
    std::fs::write(path, format!("{report:#}\n")).with_context(|| path.display().to_string())
}
