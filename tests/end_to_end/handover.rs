//! Stock Linux on both engines in turns, and from one process to another.

use std::io::Write;
use std::path::Path;
use std::process::Command as Process;

use guest_protocol::Command;
use images::{Cache, Initramfs, Kernel};
use vmm::{BootProtocol, Engine, Error, Machine, MachineConfig, Stop};

const KERNEL: &str = "debian-6.1";
/// Processes, pipes and files; what it prints begins with OUT. No program that chooses its instructions by CPUID: a KVM that
/// shows the host's there lets it choose some that the software engine has not.
const SCRIPT: &str = "for n in 1 2 3 4 5 6; do seq 1 ${n}00 > /tmp/$n; echo OUT $n $(sort -r /tmp/$n | sum); done; \
     echo OUT $(cat /tmp/? | wc -c) | tr a-z A-Z; (sleep 0.01; echo OUT later) & wait; echo OUT end";
/// More than a boot with its programs takes, in instructions or nanoseconds.
const BUDGET: u64 = 20_000_000_000;
/// The process that goes on with a file finds its name here, and the engine.
const FILE: &str = "PMEMSIM_TEST_HANDOVER";

fn config() -> MachineConfig {
    let cache = Cache::open().expect("a cache directory");
    let kernel = Kernel::get(&cache, KERNEL).unwrap();
    let mut initramfs = Initramfs::new();
    for program in ["dash", "coreutils"] {
        initramfs.program(&cache, program).unwrap();
    }
    let argv = ["/bin/dash", "-c", SCRIPT].map(str::to_owned).to_vec();
    let script = postcard::to_stdvec(&vec![Command::Exec { argv }]).unwrap();
    initramfs.file("/script", 0o644, script).unwrap();
    MachineConfig {
        kernel: kernel.vmlinux,
        initrd: initramfs.finish(),
        modules: Vec::new(),
        command_line: format!("{} quiet", explore::machines::COMMAND_LINE),
        memory: 256 << 20,
        cpus: 1,
        nvdimms: Vec::new(),
        virtio_pmem: Vec::new(),
        legacy_pmem: Vec::new(),
        seed: 1,
        protocol: BootProtocol::Linux64,
    }
}

/// A machine as it is made for KVM; `None` (said loudly) where there is none.
fn machine() -> Option<Machine> {
    match Machine::on(Engine::Kvm, &config()) {
        Ok(machine) => Some(machine),
        Err(Error::Kvm(why)) => {
            // Not println: the harness would swallow it.
            let said = format!("SKIPPED: {why}\n");
            std::io::stderr().write_all(said.as_bytes()).expect("standard error takes a line");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// What the script prints.
fn said(console: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(console);
    text.lines().filter(|line| line.starts_with("OUT")).map(|line| line.trim_end().to_owned()).collect()
}

/// Runs for so long, over calls of the agent, which does as its script says. Whether the guest has powered off.
#[track_caller]
fn run(machine: &mut Machine, budget: u64, console: &mut Vec<u8>) -> bool {
    let stop = machine.run(budget);
    console.extend(machine.take_console());
    match stop {
        Stop::PowerOff => true,
        Stop::Budget | Stop::Call(_) => false,
        other => panic!("{other:?} on {:?}\n{}", machine.engine(), String::from_utf8_lossy(console)),
    }
}

fn to_the_end(machine: &mut Machine, console: &mut Vec<u8>) {
    let (retired, time) = (machine.retired(), machine.time());
    while !run(machine, BUDGET, console) {
        assert!(machine.retired() - retired < BUDGET && machine.time() - time < 10 * BUDGET);
    }
}

/// Numbers that look random and are the same each time.
fn numbers() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(2026u64), |it| {
        Some(it.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .map(|number| number >> 33)
}

/// vmm/tests/engines/handover.rs does the same with small guests, each time.
#[test]
#[ignore = "boots Debian's kernel three times, in real time: minutes on a busy host"]
fn linux_goes_from_one_engine_to_the_other_at_random_counts_and_from_process_to_process() {
    let Some(mut machine) = machine() else { return };
    machine.set_engine(Engine::Software).unwrap();
    machine.push();
    let mut console = Vec::new();
    to_the_end(&mut machine, &mut console);
    let expected = said(&console);
    assert_eq!(expected.len(), 9, "{}", String::from_utf8_lossy(&console));
    let retired = machine.retired();
    machine.pop();

    console.clear();
    let path = std::env::temp_dir().join(format!("pmemsim-handover-{}", std::process::id()));
    let mut resumed = Vec::new();
    let (mut turns, mut numbers) = (0, numbers());
    loop {
        let number = numbers.next().unwrap();
        // Instructions here, nanoseconds there.
        let (next, budget) = match machine.engine() {
            Engine::Software => (Engine::Kvm, 1 + number % (retired / 10)),
            Engine::Kvm => (Engine::Software, 1 + number % 200_000_000),
        };
        if run(&mut machine, budget, &mut console) {
            break;
        }
        turns += 1;
        if resumed.len() < 2 && !said(&console).is_empty() {
            machine.save(&path).unwrap();
            resumed.push([said(&console), in_another_process(&path, next)].concat());
        }
        machine.set_engine(next).unwrap();
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(said(&console), expected, "{}", String::from_utf8_lossy(&console));
    assert!(turns >= 8, "{turns}");
    assert_eq!(resumed, [expected.clone(), expected]);
}

/// What the script prints from there on, in a process of its own and on this engine.
fn in_another_process(path: &Path, engine: Engine) -> Vec<String> {
    let mut process = Process::new(std::env::current_exe().unwrap());
    process.args(["--exact", "handover::goes_on_with_a_file", "--nocapture"]);
    let done = process.env(FILE, format!("{engine:?} {}", path.display())).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    said(&done.stdout)
}

/// The other process; nothing where there is no file to go on with.
#[test]
fn goes_on_with_a_file() {
    let Ok(told) = std::env::var(FILE) else { return };
    let (engine, path) = told.split_once(' ').unwrap();
    let engine = [Engine::Software, Engine::Kvm].into_iter().find(|it| format!("{it:?}") == engine);
    let mut machine = Machine::load(Path::new(path)).unwrap();
    machine.set_engine(engine.unwrap()).unwrap();
    let mut console = Vec::new();
    to_the_end(&mut machine, &mut console);
    println!("\n{}", said(&console).join("\n"));
}
