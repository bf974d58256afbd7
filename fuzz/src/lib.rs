//! Bodies of the fuzz targets: plain functions of bytes that panic when a promise is broken.
//!
//! `fuzz_targets/` gives them to libFuzzer; `tests/fuzzing` of the workspace includes this file and replays what was
//! found, with any Rust and without a fuzzer. See docs/fuzzing.md.

mod elf;
pub mod execute;
pub mod input;
pub mod machine;
pub mod readers;

/// Something that is fuzzed.
pub struct Target {
    /// As in `cargo fuzz run NAME` and in `regressions/NAME`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many mutated inputs the tests try.
    pub cases: u64,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "execute", run: execute::run, seeds: execute::seeds, cases: 4000 },
    Target { name: "machine", run: machine::machine, seeds: machine::machine_seeds, cases: 300 },
    Target { name: "payload", run: machine::payload, seeds: machine::payload_seeds, cases: 300 },
    Target { name: "snapshot", run: machine::snapshot, seeds: machine::snapshot_seeds, cases: 300 },
    Target { name: "kernel", run: readers::kernel, seeds: readers::kernel_seeds, cases: 3000 },
    Target { name: "module", run: readers::module, seeds: readers::module_seeds, cases: 3000 },
    Target { name: "unwind", run: readers::unwind, seeds: readers::unwind_seeds, cases: 3000 },
    Target { name: "package", run: readers::package, seeds: readers::package_seeds, cases: 3000 },
    Target { name: "index", run: readers::index, seeds: readers::index_seeds, cases: 10_000 },
    Target { name: "scenario", run: readers::scenario, seeds: readers::scenario_seeds, cases: 3000 },
    Target { name: "report", run: readers::report, seeds: readers::report_seeds, cases: 3000 },
    Target {
        name: "conversation",
        run: readers::conversation,
        seeds: readers::conversation_seeds,
        cases: 10_000,
    },
];
