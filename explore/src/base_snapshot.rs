//! The base snapshot: a kernel booted once, to where the agent waits with nothing attached, kept in the cache.

use std::path::Path;

use guest_protocol::{VERSION, call};
use images::Cache;
use vmm::{Engine, Machine, MachineConfig, Snapshot, Symbols};

use crate::machines::Error;
use crate::target::{Stop, Target};

/// Instructions within which a kernel must reach the agent and send its symbols.
const BOOT_BUDGET: u64 = 20_000_000_000;
/// Calls of the control port that are more than enough until then.
const MAX_BOOT_CALLS: usize = 100_000;
/// Base snapshots that stay in the cache.
const KEPT: usize = 12;
/// Most that the kernel's symbols may take, as text.
const LARGEST_KALLSYMS: usize = 256 << 20;

/// The machine with the agent waiting, and the kernel's symbols: from the cache, or booted now.
pub(crate) fn base_snapshot(
    cache: &Cache,
    engine: Engine,
    kernel: &str,
    config: &MachineConfig,
) -> Result<(Snapshot, Symbols), Error> {
    let mut key = blake3::Hasher::new();
    key.update(&(config.kernel.len() as u64).to_le_bytes()).update(&config.kernel);
    key.update(&(config.initrd.len() as u64).to_le_bytes()).update(&config.initrd);
    // The agent may be the same while the machine is not: a snapshot belongs to one program.
    let rest = format!(
        "{} {VERSION} {} {} {} {:?} {:?} {:?} {}",
        env!("CARGO_PKG_VERSION"),
        config.command_line,
        config.memory,
        config.cpus,
        config.nvdimms,
        config.virtio_pmem,
        config.legacy_pmem,
        config.seed
    );
    key.update(rest.as_bytes());
    if engine == Engine::Kvm {
        // Another host has other processors.
        key.update(format!("{:?}", Machine::on(engine, config)?.cpu_state().model).as_bytes());
    }
    key.update(&program_id());
    let key = key.finalize().to_hex();
    // Who else needs the same one waits for it here, instead of booting, too.
    let _one = cache.lock(&format!("snapshot-{}", &key[..2]))?;
    let place = cache.root().join("snapshots").join(&key[..32]);
    if let Some(known) = read_snapshot(&place) {
        return Ok(known);
    }
    let (machine, symbols) = boot(engine, kernel, config)?;
    let written = write_snapshot(&place, &machine, &symbols);
    let snapshot = written.map_err(|why| Error::Snapshot { path: place.clone(), why })?;
    Ok((snapshot, symbols))
}

/// Size and time of this program: another build may boot another way.
fn program_id() -> Vec<u8> {
    let metadata = std::env::current_exe().and_then(std::fs::metadata);
    let modified = metadata.and_then(|metadata| Ok((metadata.len(), metadata.modified()?)));
    modified.map(|it| format!("{it:?}").into_bytes()).unwrap_or_default()
}

fn read_snapshot(place: &Path) -> Option<(Snapshot, Symbols)> {
    let symbols = postcard::from_bytes(&std::fs::read(place.join("symbols")).ok()?).ok()?;
    let snapshot = Snapshot::open(&place.join("machine")).ok()?;
    // A damaged file is made anew.
    snapshot.machine().ok()?;
    // Used is as good as new: those that nobody asks for go first. Without a right to say so it is only older.
    let _ = std::fs::File::open(place).and_then(|it| it.set_modified(std::time::SystemTime::now()));
    Some((snapshot, symbols))
}

/// Leaves room for one more among the snapshots that were used last. Whoever holds one open keeps it.
fn prune(snapshots: &Path) {
    let Ok(entries) = std::fs::read_dir(snapshots) else { return };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    let surplus = (found.len() + 1).saturating_sub(KEPT);
    for (_, path) in found.into_iter().take(surplus) {
        // Another process may be faster: what is gone is gone.
        let _ = std::fs::remove_dir_all(path);
    }
}

/// Writes beside the place first, so that it is there whole or not at all. It is opened there: from then on it does not
/// matter who removes it.
fn write_snapshot(place: &Path, machine: &Machine, symbols: &Symbols) -> Result<Snapshot, String> {
    place.parent().into_iter().for_each(prune);
    let scratch = place.with_extension(format!("{}", std::process::id()));
    let say = |why: std::io::Error| why.to_string();
    std::fs::create_dir_all(&scratch).map_err(say)?;
    machine.save(&scratch.join("machine")).map_err(|why| why.to_string())?;
    let symbols = postcard::to_stdvec(symbols).map_err(|why| why.to_string())?;
    std::fs::write(scratch.join("symbols"), symbols).map_err(say)?;
    let snapshot = Snapshot::open(&scratch.join("machine")).map_err(|why| why.to_string())?;
    if place.exists() {
        std::fs::remove_dir_all(place).map_err(say)?;
    }
    std::fs::rename(&scratch, place).map_err(say)?;
    Ok(snapshot)
}

/// Boots the kernel until the agent waits for its first command.
fn boot(engine: Engine, kernel: &str, config: &MachineConfig) -> Result<(Machine, Symbols), Error> {
    let mut machine = Machine::on(engine, config)?;
    machine.set_engine(Engine::Software)?;
    let mut kallsyms = Vec::new();
    let outcome = boot_to_agent(&mut machine, &mut kallsyms);
    let console = String::from_utf8_lossy(&machine.take_console()).into_owned();
    match outcome {
        Ok(()) => Ok((machine, Symbols::from_kallsyms(&String::from_utf8_lossy(&kallsyms)))),
        Err(why) => {
            let lines: Vec<&str> = console.lines().collect();
            Err(Error::Boot {
                kernel: kernel.to_owned(),
                why,
                console: lines[lines.len().saturating_sub(20)..].join("\n"),
            })
        }
    }
}

fn boot_to_agent(machine: &mut Machine, kallsyms: &mut Vec<u8>) -> Result<(), String> {
    for _ in 0..MAX_BOOT_CALLS {
        let left = BOOT_BUDGET.saturating_sub(machine.retired());
        match Target::run(machine, left) {
            Stop::Call { number: call::HELLO, first, .. } => {
                let known = first == u64::from(VERSION);
                machine.answer(if known { 0 } else { -1 });
                if !known {
                    return Err(format!("the agent speaks version {first} of the protocol, not {VERSION}"));
                }
            }
            Stop::Call { number: call::KALLSYMS, first, second } => {
                let len =
                    usize::try_from(second).ok().filter(|len| *len <= LARGEST_KALLSYMS - kallsyms.len());
                let len = len.ok_or("the kernel has too many symbols")?;
                let start = kallsyms.len();
                kallsyms.resize(start + len, 0);
                machine.read_guest(first, &mut kallsyms[start..]).map_err(|why| why.to_string())?;
                machine.answer(0);
            }
            Stop::Call { number: call::SNAPSHOT_HERE, .. } if machine.pmem_written() => {
                return Err("it stores to persistent memory before any region is attached".to_owned());
            }
            Stop::Call { number: call::SNAPSHOT_HERE, .. } => return Ok(()),
            Stop::Call { number: call::LOG, .. } => machine.answer(0),
            Stop::Call { number, .. } => return Err(format!("it made call {number}")),
            Stop::Budget => return Err(format!("no progress within {BOOT_BUDGET} instructions")),
            Stop::Ended(how) => return Err(how.to_owned()),
            Stop::Unsupported(what) => return Err(format!("the machine does not offer {what}")),
            Stop::Undecided { .. } => return Err("something is undecided".to_owned()),
            Stop::Event(_) => (),
        }
    }
    Err(format!("more than {MAX_BOOT_CALLS} calls of the control port"))
}
