//! Interleavings: the seed decides them, and nothing else does.

use std::io::Write;

use vmm::{Engine, Error, Machine, Snapshot, Stop};

use crate::guest::{RAM, config_of_two, machine};

/// Each processor counts in a word of RAM that both write, without LOCK, a hundred thousand times: who loses an increment
/// depends on where slices end. Then it increments the word behind it, with LOCK.
const COUNT: &[&[u8]] = &[
    &[0xb9, 0xa0, 0x86, 1, 0],    // mov ecx, 100000
    &[0x48, 0x8b, 0x45, 0x00],    // again: mov rax, [rbp]
    &[0x48, 0xff, 0xc0],          // inc rax
    &[0x48, 0x89, 0x45, 0x00],    // mov [rbp], rax
    &[0xf0, 0x48, 0xff, 0x45, 8], // lock inc qword [rbp + 8]
    &[0xff, 0xc9],                // dec ecx
    &[0x75, 0xec],                // jne again
    &[0xfa, 0xf4],                // cli; hlt
];

fn counting(seed: u64) -> Machine {
    let mut machine = machine(&COUNT.concat(), &COUNT.concat(), seed);
    machine.start_trace_hash();
    machine
}

fn word(machine: &Machine, at: u64) -> u64 {
    let mut bytes = [0; 8];
    machine.read_pmem(at, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// The racing counter, the trace hash and the retired instructions at the end.
fn end(machine: &Machine) -> (u64, String, u64) {
    assert_eq!(word(machine, RAM + 8), 200_000, "LOCK loses nothing");
    (word(machine, RAM), machine.trace_hash().expect("it was started"), machine.retired())
}

#[test]
fn the_same_seed_interleaves_the_same_way_and_another_another_way() {
    let run = |seed| {
        let mut machine = counting(seed);
        assert_eq!(machine.run(100_000_000), Stop::Idle);
        end(&machine)
    };
    let (first, second) = (run(1), run(2));
    assert_eq!(first, run(1));
    assert!(first.0 < 200_000, "a processor got in between a load and a store: {}", first.0);
    assert_ne!(first.0, second.0);
    assert_ne!(first.1, second.1);
}

#[test]
fn where_a_run_is_cut_changes_nothing() {
    let mut whole = counting(3);
    assert_eq!(whole.run(100_000_000), Stop::Idle);
    let mut cut = counting(3);
    let mut budget = 1;
    while cut.run(budget) == Stop::Budget {
        budget = budget * 7 % 5003 + 1;
    }
    assert_eq!(end(&cut), end(&whole));
}

#[test]
fn going_back_repeats_the_interleaving() {
    let mut machine = counting(4);
    assert_eq!(machine.run(500_123), Stop::Budget);
    machine.push();
    assert_eq!(machine.run(100_000_000), Stop::Idle);
    let first = end(&machine);
    machine.rewind();
    assert_eq!(machine.run(100_000_000), Stop::Idle);
    assert_eq!(end(&machine), first);
    machine.pop();
    assert_eq!(machine.run(100_000_000), Stop::Idle);
    assert_eq!(end(&machine), first);
}

#[test]
fn a_saved_machine_goes_on_as_the_one_that_was_saved() {
    let path = std::env::temp_dir().join(format!("pmemsim-processors-{}", std::process::id()));
    let mut machine = counting(5);
    assert_eq!(machine.run(700_321), Stop::Budget);
    machine.save(&path).unwrap_or_else(|error| panic!("{error}"));
    machine.start_trace_hash();
    let mut loaded = Machine::load(&path).unwrap_or_else(|error| panic!("{error}"));
    loaded.start_trace_hash();
    for machine in [&mut machine, &mut loaded] {
        assert_eq!(machine.run(100_000_000), Stop::Idle);
    }
    let _ = std::fs::remove_file(&path);
    assert_eq!(end(&loaded), end(&machine));
}

#[test]
fn machines_can_be_had_of_an_open_snapshot_whose_file_was_removed() {
    let path = std::env::temp_dir().join(format!("pmemsim-removed-{}", std::process::id()));
    counting(5).save(&path).unwrap_or_else(|error| panic!("{error}"));
    let snapshot = Snapshot::open(&path).unwrap_or_else(|error| panic!("{error}"));
    std::fs::remove_file(&path).unwrap();
    let ends = [(); 2].map(|()| {
        let mut machine = snapshot.machine().unwrap_or_else(|error| panic!("{error}"));
        machine.start_trace_hash();
        assert_eq!(machine.run(100_000_000), Stop::Idle);
        end(&machine)
    });
    assert_eq!(ends[0], ends[1]);
    assert!(matches!(Snapshot::open(&path), Err(Error::SnapshotFile { .. })));
}

#[test]
fn an_interrupt_from_another_processor_wakes_one_that_is_halted() {
    // Processor 1: enables its local APIC, loads the interrupt table, halts with interrupts on; its handler says so.
    let handler = 0x31_0000u64;
    let second = [
        &[0xbf, 0, 0, 0xe0, 0xfe][..],               // mov edi, 0xfee00000
        &[0xc7, 0x87, 0xf0, 0, 0, 0, 0xff, 1, 0, 0], // mov dword [rdi + 0xf0], 0x1ff
        &[0xbc, 0, 0xf0, 0x32, 0],                   // mov esp, 0x32f000
        &[0x0f, 0x01, 0x5d, 0x40],                   // lidt [rbp + 0x40]
        &[0xc6, 0x45, 0, 1],                         // mov byte [rbp], 1: ready
        &[0xfb, 0xf4],                               // sti; hlt
        &[0xc6, 0x45, 0x10, 1],                      // mov byte [rbp + 0x10], 1: woken
        &[0xfa, 0xf4],                               // cli; hlt
    ]
    .concat();
    let first = [
        &[0x80, 0x7d, 0, 0, 0x74, 0xfa][..],               // wait for ready
        &[0xb9, 0xa0, 0x86, 1, 0, 0xff, 0xc9, 0x75, 0xfc], // give it time to halt
        &[0xc7, 0x87, 0, 3, 0, 0, 0x40, 0x40, 0, 0],       // mov dword [rdi + 0x300], 0x4040: vector 0x40
        &[0xfa, 0xf4],
    ]
    .concat();
    for seed in 0..4 {
        let mut machine = machine(&first, &second, seed);
        let gate = 0x0000_8e00_0010_0000u64 | handler >> 16 << 48 | handler & 0xffff;
        machine.write_pmem(0x32_0000 + 0x40 * 16, &gate.to_le_bytes());
        machine.write_pmem(RAM + 0x40, &[0xff, 0x0f, 0, 0, 0x32, 0, 0, 0, 0, 0]);
        // inc byte [rbp + 0x11]; iretq
        machine.write_pmem(handler, &[0xfe, 0x45, 0x11, 0x48, 0xcf]);
        assert_eq!(machine.run(10_000_000), Stop::Idle);
        assert_eq!(word(&machine, RAM + 0x10) & 0xffff, 0x101, "seed {seed}");
    }
}

#[test]
fn two_processors_take_turns_on_kvm_whoever_executes_the_kernel() {
    let config = config_of_two(&COUNT.concat(), &COUNT.concat(), 1);
    for help in [None, Some(1)] {
        let mut machine = match Machine::on(Engine::Kvm, &config) {
            Ok(machine) => machine,
            Err(Error::Kvm(why)) => {
                // Not println: the harness would swallow it.
                let said = format!("SKIPPED: {why}\n");
                return std::io::stderr().write_all(said.as_bytes()).expect("standard error takes a line");
            }
            Err(other) => panic!("{other}"),
        };
        help.into_iter().for_each(|instructions| machine.set_assist(instructions));
        assert_eq!(machine.run(120_000_000_000), Stop::Idle, "{:?}", machine.cpu_state());
        assert_eq!(word(&machine, RAM + 8), 200_000, "LOCK loses nothing");
        assert!((1..=200_000).contains(&word(&machine, RAM)));
    }
}
