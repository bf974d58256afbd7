//! Kernels, images and reports that are not what they should be, and arguments that mean nothing.

use crate::support::{Bench, SCENARIO, vmlinux};

#[test]
fn a_truncated_kernel_is_refused() {
    let bench = Bench::new();
    let whole = std::fs::read(vmlinux()).unwrap();
    for cut in [10, 100, 4096, 1 << 20, whole.len() / 2] {
        let path = bench.write("kernel", &whole[..cut]);
        bench.run_changed("debian-6.1", &path).refuses(&[
            "scenario.toml:3: kernel",
            &path,
            "is not a usable kernel",
        ]);
    }
    let path = bench.write("kernel", &whole[..whole.len() / 2]);
    bench.pmemsim(&["boot", "--kernel", &path]).refuses(&[&path, "truncated"]);
}

#[test]
fn a_truncated_bzimage_is_refused() {
    let bench = Bench::new();
    // The header of a bzImage whose payload is cut off: setup_sects, "HdrS", version, payload_offset, payload_length.
    let mut image = vec![0; 4096];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&1_000_000u32.to_le_bytes());
    for cut in [0x203, 0x24e, 1024, 4096] {
        let path = bench.write("bzImage", &image[..cut]);
        bench.run_changed("debian-6.1", &path).refuses(&[
            "scenario.toml:3: kernel",
            &path,
            "is not a usable kernel",
        ]);
    }
    let path = bench.write("bzImage", &image);
    bench.pmemsim(&["boot", "--kernel", &path]).refuses(&[&path, "truncated"]);
}

#[test]
fn what_is_no_kernel_is_refused() {
    let bench = Bench::new();
    for bytes in [&b"Is this a kernel?\n"[..], b"", &[0; 8192]] {
        let path = bench.write("kernel", bytes);
        bench.run_changed("debian-6.1", &path).refuses(&["scenario.toml:3: kernel", &path, "nor a bzImage"]);
    }
    // A program is an ELF file, too.
    let program = env!("CARGO_BIN_EXE_pmemsim");
    bench.run_changed("debian-6.1", program).refuses(&["scenario.toml:3: kernel"]);
    bench.run_changed("debian-6.1", "/missing/kernel").refuses(&[
        "scenario.toml:3: kernel",
        "/missing/kernel",
        "No such",
    ]);
    let directory = bench.dir.path().display().to_string();
    bench.run_changed("debian-6.1", &directory).refuses(&[
        "scenario.toml:3: kernel",
        &directory,
        "directory",
    ]);
    for name in ["debian-5.10", "nonsense", "debian-6.1@_"] {
        bench.run_changed("debian-6.1", name).refuses(&["scenario.toml:3: kernel", name, "give debian-6.1"]);
    }
}

#[test]
fn unreadable_images_are_refused() {
    let bench = Bench::new();
    bench.pmemsim(&["boot", "--initrd", "missing.cpio"]).refuses(&["--initrd missing.cpio", "No such file"]);
    bench.pmemsim(&["boot", "--initrd", "."]).refuses(&["--initrd .", "directory"]);
    let kernel = vmlinux().display().to_string();
    let modules = bench.pmemsim(&["boot", "--kernel", &kernel, "--modules", "missing"]);
    modules.refuses(&["missing", "No such file"]);
}

#[test]
fn payloads_that_cannot_be_loaded_are_refused() {
    let bench = Bench::new();
    let multiboot = |flags: u32| {
        // The header, and addresses whose entry is not in what they load.
        let checksum = 0x1bad_b002u32.wrapping_add(flags).wrapping_neg();
        let words = [0x1bad_b002, flags, checksum, 0x10_0000, 0x10_0000, 0, 0, 5];
        bench.write("payload", words.map(u32::to_le_bytes).concat())
    };
    let boot = |path: &str, more: &[&str]| bench.pmemsim(&[&["boot", "--kernel", path], more].concat());
    let path = multiboot(0);
    boot(&path, &[]).refuses(&[&path, "no ELF file", "link it as an ELF executable"]);
    boot(&path, &["--modules", "."]).refuses(&["--modules", "did you mean --module?"]);
    boot(&path, &["--module", "missing.txt x"]).refuses(&["--module missing.txt", "No such file"]);
    boot(&path, &["--initrd", "missing"]).refuses(&["--initrd missing", "No such file"]);
    boot(&multiboot(0x100), &[]).refuses(&[&path, "flags 0x100", "only bits 0 to 2 and 16"]);
    boot(&multiboot(1 << 16), &[]).refuses(&[&path, "not in what is loaded"]);
    // An ELF file for a 32-bit ARM.
    let mut elf = b"\x7fELF\x01\x01\x01".to_vec();
    elf.resize(52, 0);
    elf[16..20].copy_from_slice(&[2, 0, 40, 0]);
    let path = bench.write("payload", &elf);
    boot(&path, &[]).refuses(&[&path, "machine 40", "build it for i386"]);
    bench.pmemsim(&["boot", "--module", "x"]).refuses(&["--module", "Linux takes no modules"]);
}

#[test]
fn odd_sizes_on_the_command_line_are_refused() {
    let bench = Bench::new();
    let initrd = bench.write("initrd", "");
    let boot = |option: &str, value: &str| bench.pmemsim(&["boot", "--initrd", &initrd, option, value]);
    boot("--nvdimm", "17M").refuses(&["NVDIMM 0", "multiple of 2 MiB"]);
    boot("--nvdimm", "17X").refuses(&["--nvdimm", "17X", "64M"]);
    boot("--memory", "100000001").refuses(&["memory of 100000001 bytes", "multiple of 1 MiB"]);
    boot("--memory", "1G1").refuses(&["--memory", "1G1"]);
}

#[test]
fn arguments_without_meaning_are_refused() {
    let bench = Bench::new();
    let scenario = bench.write("good.toml", SCENARIO);
    for (option, value, word) in [
        ("--seed", "x", "--seed"),
        ("--granularity", "page", "sector, line or word"),
        ("--platform", "battery", "adr, eadr, adr-lost"),
        ("--platform", "virtio-pmem", "[[virtio_pmem]]"),
        ("--mutant", "no-zeroing", "it has none"),
        ("--kernel", "debian-2.6", "unknown kernel"),
        ("--deny", "nonsense", "torn-sector"),
        ("--budget", "0", "--budget"),
        ("--jobs", "0", "--jobs"),
        ("--json", "missing/report.json", "--json missing/report.json"),
    ] {
        bench.pmemsim(&["run", &scenario, option, value]).refuses(&[word]);
    }
    bench.pmemsim(&["run"]).refuses(&["SCENARIO"]);
    bench.pmemsim(&["walk"]).refuses(&["walk"]);
}

#[test]
fn what_is_no_report_cannot_be_replayed() {
    let bench = Bench::new();
    let replay = |report: &str| bench.pmemsim(&["replay", report, "1"]);
    replay("missing.json").refuses(&["missing.json", "No such file"]);
    for (text, word) in [
        ("", "report"),
        ("{", "report"),
        ("[]", "report"),
        ("{\"version\": 77}", "version 77"),
        ("[{\"version\": 77}]", "version 77"),
    ] {
        let path = bench.write("report.json", text);
        replay(&path).refuses(&[&path, word, "run --json"]);
    }
}
