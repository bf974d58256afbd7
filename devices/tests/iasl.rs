//! ACPICA's disassembler and compiler agree with our tables.
//!
//! iasl is in Debian's acpica-tools. Without it these tests say so and check nothing.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use devices::acpi::{Config, Nvdimm, PlatformCapability, build};
use devices::map;

fn iasl_is_here() -> bool {
    let here = Command::new("iasl").arg("-v").output().is_ok();
    if !here {
        // Not eprintln: the harness would swallow it.
        let said =
            "SKIPPED: iasl is not installed (apt-get install acpica-tools), ACPI tables were not checked\n";
        std::io::stderr().write_all(said.as_bytes()).expect("standard error takes a line");
    }
    here
}

/// Runs iasl in `dir` and returns what it printed. Whatever it complains about fails the test.
fn iasl(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("iasl").args(arguments).current_dir(dir).output().expect("iasl runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "iasl {arguments:?}: {said}");
    for line in said.lines() {
        let tallies_nothing = line.contains("0 Errors, 0 Warnings");
        let complains = ["error", "warning", "invalid", "incorrect", "unknown"]
            .iter()
            .any(|word| line.to_ascii_lowercase().contains(word));
        assert!(!complains || tallies_nothing, "iasl {arguments:?}: {said}");
    }
    said
}

fn config() -> Config {
    let nvdimm = |index: usize, hints| Nvdimm {
        base: map::pmem_base(256 << 20) + ((index as u64) << 30),
        size: 64 << 20,
        handle: map::nvdimm_handle(index),
        flush_hints: map::flush_hints(index, hints),
        others: if index == 0 { vec![map::nvdimm_handle(3)] } else { Vec::new() },
        labels: hints == 2,
        smart: hints == 1,
        armed: index != 1,
        proximity: (index == 1).then_some(2),
        capability: PlatformCapability::MemoryController,
    };
    Config {
        cpus: 2,
        ram: vec![(0, 256 << 20)],
        nvdimms: vec![nvdimm(0, 2), nvdimm(1, 0), nvdimm(2, 1)],
        media_errors: true,
        virtio_devices: 2,
    }
}

/// Writes every table with a header to `dir` and disassembles it; returns the .dsl by signature.
fn disassemble(dir: &Path) -> impl Fn(&str) -> (PathBuf, String) {
    let tables = build(&config()).expect("tables");
    for (_, table) in tables.blobs.iter().filter(|(at, _)| *at != tables.rsdp) {
        let signature = String::from_utf8_lossy(&table[..4]).into_owned();
        fs::write(dir.join(format!("{signature}.dat")), table).expect("a table is written");
        iasl(dir, &["-d", &format!("{signature}.dat")]);
    }
    let dir = dir.to_path_buf();
    move |signature| {
        let path = dir.join(format!("{signature}.dsl"));
        let text = fs::read_to_string(&path).expect("a disassembly");
        // It has no name for Hyper-V's family of NVDIMM functions.
        let text = text.replace("/* Unknown UUID */", "");
        for complaint in ["Incorrect", "Invalid", "Unknown", "ERROR", "Error", "Warning", "should be"] {
            assert!(!text.contains(complaint), "{signature}: {complaint} in\n{text}");
        }
        (path, text)
    }
}

/// Values of every field called `name` in a disassembled data table, in order.
fn fields<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let value = |line: &'a str| {
        let (label, value) = line
            .split_once("] ")
            .map_or((line, ""), |(_, rest)| rest.split_once(" : ").unwrap_or((rest, "")));
        (label.trim() == name).then_some(value.trim())
    };
    text.lines().filter_map(value).collect()
}

#[test]
fn data_tables_disassemble_and_compile() {
    if !iasl_is_here() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disassembly = disassemble(dir.path());
    for signature in ["XSDT", "FACP", "APIC", "NFIT", "SRAT"] {
        let (path, _) = disassembly(signature);
        iasl(dir.path(), &["-p", "recompiled", path.to_str().expect("a UTF-8 path")]);
        let recompiled = fs::read(dir.path().join("recompiled.aml")).expect("a compiled table");
        let mut original = fs::read(dir.path().join(format!("{signature}.dat"))).expect("our table");
        // The compiler signs as the creator, which changes the checksum too.
        original[9] = recompiled[9];
        original[28..36].copy_from_slice(&recompiled[28..36]);
        assert!(original == recompiled, "{signature}: iasl compiles it to other bytes");
    }
}

#[test]
fn nfit_says_what_we_meant() {
    if !iasl_is_here() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_, nfit) = disassemble(dir.path())("NFIT");
    println!("{nfit}");
    assert_eq!(fields(&nfit, "Range Index").len(), 7, "three ranges, four devices that name them");
    assert_eq!(fields(&nfit, "Region Type GUID"), ["66F0D379-B4F3-4074-AC43-0D3318B78CDB"; 3]);
    assert_eq!(
        fields(&nfit, "Address Range Base"),
        ["0000000100000000", "0000000140000000", "0000000180000000"]
    );
    assert_eq!(fields(&nfit, "Address Range Length"), ["0000000004000000"; 3]);
    assert_eq!(fields(&nfit, "Memory Map Attribute"), ["0000000000008008"; 3]);
    let sizes = ["0000000002000000", "0000000002000000", "0000000004000000", "0000000004000000"];
    assert_eq!(fields(&nfit, "Region Size"), sizes);
    assert_eq!(fields(&nfit, "Region Offset")[..2], ["0000000000000000", "0000000000001000"]);
    assert_eq!(fields(&nfit, "Interleave Ways"), ["0002", "0002", "0001", "0001"]);
    assert_eq!(fields(&nfit, "Line Size"), ["00001000"]);
    assert_eq!(fields(&nfit, "Proximity Domain"), ["00000000", "00000002", "00000000"]);
    let handles = ["00000001", "00000004", "00000001", "00000002", "00000003", "00000003"];
    assert_eq!(fields(&nfit, "Device Handle"), handles);
    assert_eq!(fields(&nfit, "Hint Count"), ["0002", "0001"]);
    assert_eq!(fields(&nfit, "Hint Address"), ["00000000FD000000", "00000000FD000040", "00000000FD002000"]);
    assert_eq!(fields(&nfit, "Highest Capability"), ["01"]);
    assert_eq!(fields(&nfit, "Capabilities (decoded below)"), ["00000002"]);
}

#[test]
fn dsdt_disassembles_and_compiles() {
    if !iasl_is_here() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (path, dsdt) = disassemble(dir.path())("DSDT");
    let found = [
        "Name (_S5",
        "EisaId (\"PNP0501\")",
        "\"ACPI0012\"",
        "Device (NV02)",
        "Name (_ADR, 0x03)",
        "Method (FUNC, 3,",
        "\"LNRO0005\"",
        "Device (VIO1)",
        "0xFD201000,         // Address Base",
        "Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive",
        "0x00000011,",
    ];
    for expected in found {
        assert!(dsdt.contains(expected), "no {expected} in\n{dsdt}");
    }
    iasl(dir.path(), &[path.to_str().expect("a UTF-8 path")]);
}
