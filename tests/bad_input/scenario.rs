//! Scenarios that make no sense: the error names file, line and key.

use crate::support::{Bench, SCENARIO};

#[test]
fn sizes_that_no_machine_has_are_refused() {
    let bench = Bench::new();
    bench.run_changed("\"16M\"", "\"17M\"").refuses(&["scenario.toml:5: size", "multiple of 2M"]);
    bench.run_changed("\"16M\"", "16777217").refuses(&["scenario.toml:5: size", "multiple of 2M"]);
    bench.run_changed("\"16M\"", "\"0\"").refuses(&["scenario.toml:5: size", "16M to 16G"]);
    bench.run_changed("\"16M\"", "\"16Q\"").refuses(&["scenario.toml:5: size", "16Q", "\"64M\""]);
    bench
        .run_changed("\"16M\"", "\"99999999999G\"")
        .refuses(&["scenario.toml:5: size", "is not a number of bytes"]);
    let memory = |size: &str| bench.run_changed("[machine]", &format!("[machine]\nmemory = \"{size}\""));
    memory("100001K").refuses(&["scenario.toml:3: memory", "multiple of"]);
    memory("1M").refuses(&["scenario.toml:3: memory", "from"]);
    memory("4G").refuses(&["scenario.toml:3: memory", "to 3G"]);
}

#[test]
fn unknown_keys_and_words_are_refused() {
    let bench = Bench::new();
    let machine = bench.run_changed("[machine]", "[machine]\ncolour = \"red\"");
    machine.refuses(&["scenario.toml:3: colour", "unknown field", "memory"]);
    bench.run_changed("create =", "creat =").refuses(&[
        "scenario.toml:10: creat",
        "unknown field",
        "`create`",
    ]);
    bench.run_changed("file = \"a\",", "path = \"a\",").refuses(&["scenario.toml:10: path", "`file`"]);
    bench.run_changed("clwb", "clwbb").refuses(&["scenario.toml:15: flush", "clwbb", "`clwb`"]);
    bench.run_changed("\"ext4\"", "\"ext3\"").refuses(&["scenario.toml:7: type: \"ext3\"", "write \"ext4\""]);
    bench.run_changed("\"promises\"", "\"often\"").refuses(&["scenario.toml:19: points", "often", "durable"]);
    bench.run_changed("\"promises\"", "\"window:W10\"").refuses(&["scenario.toml:19: points", "W0 to W9"]);
    bench.run_changed("name =", "expect = \"broken\"\nname =").refuses(&[
        "scenario.toml:1: expect",
        "broken",
        "`lost`",
        "`guest-crash`",
    ]);
    let platform = |word: &str| bench.run_changed("\"16M\"", &format!("\"16M\"\nplatform = \"{word}\""));
    platform("battery").refuses(&["scenario.toml:6: platform", "battery", "`eadr`"]);
    platform("virtio-pmem").refuses(&["scenario.toml:6: platform", "[[virtio_pmem]]"]);
    bench.run_changed("budget = 2", "budget = 0").refuses(&["scenario.toml:20: budget", "at least 1"]);
}

#[test]
fn steps_that_make_no_sense_are_refused() {
    let bench = Bench::new();
    let two = bench.run_changed("create =", "mkdir = \"d\"\ncreate =");
    two.refuses(&["scenario.toml:9: step", "mkdir, create", "one [[step]] for each"]);
    bench
        .run_changed("create = { file = \"a\", size = \"64K\" }", "")
        .refuses(&["scenario.toml:9: step", "no action"]);
    let outside = bench.run_changed("at = 0, bytes = 64", "at = \"60K\", bytes = \"8K\"");
    outside.refuses(&["scenario.toml:14: bytes", "outside of the mapping", "0x10000"]);
    bench.run_changed("map = \"m\"", "map = \"n\"").refuses(&["scenario.toml:14: map", "no mapping \"n\""]);
    bench
        .run_changed("{ file = \"a\", as", "{ file = \"b\", as")
        .refuses(&["scenario.toml:12", "\"b\" does not exist"]);
}

#[test]
fn a_promise_about_a_file_that_is_never_made_is_refused() {
    let bench = Bench::new();
    for promise in ["contents = { file = \"ghost\" }", "exists = \"ghost\"", "absent = \"ghost\""] {
        let step = format!("[[step]]\npromise = {{ {promise} }}\n[crash]");
        bench.run_changed("[crash]", &step).refuses(&["scenario.toml:19: ", "ghost"]);
    }
    bench
        .run_changed("[crash]", "[[step]]\nfsync = \"ghost\"\n[crash]")
        .refuses(&["scenario.toml:19: fsync", "ghost"]);
}

#[test]
fn namespaces_that_cannot_be_are_refused() {
    let bench = Bench::new();
    let nvdimm = |rest: &str| bench.run_changed("size = \"16M\"", rest);
    nvdimm("size = \"16M\"\nnamespace = \"block\"").refuses(&[
        "scenario.toml:6: namespace",
        "block",
        "`btt`",
    ]);
    nvdimm("size = \"16M\"\nnamespace = \"btt\"")
        .refuses(&["scenario.toml:5: size", "at least 16781312 bytes"]);
    let sectors =
        |bytes: &str| nvdimm(&format!("size = \"18M\"\nnamespace = \"btt\"\nsector_size = {bytes}"));
    sectors("1024").refuses(&["scenario.toml:7: sector_size", "512 or 4096"]);
    sectors("-1").refuses(&["scenario.toml:7: sector_size"]);
    nvdimm("size = \"16M\"\nsector_size = 512")
        .refuses(&["scenario.toml:6: sector_size", "namespace = \"btt\""]);
    let dax = nvdimm("size = \"18M\"\nnamespace = \"btt\"");
    dax.refuses(&["mount", "no DAX"]);
    let virtio = bench.run_changed("[[nvdimm]]\n", "[[virtio_pmem]]\nnamespace = \"btt\"\n");
    virtio.refuses(&["scenario.toml:5: namespace", "virtio-pmem cannot have a BTT"]);
}

#[test]
fn a_device_without_a_file_system_is_mapped_and_nothing_else() {
    let bench = Bench::new();
    let device = |steps: &str| {
        let text = format!(
            "name = \"d\"\n[machine]\nkernel = \"debian-6.1\"\n[[nvdimm]]\nsize = \"16M\"\nnamespace = \"devdax\"\n{steps}"
        );
        bench.run_text(&text)
    };
    device("[filesystem]\ntype = \"ext4\"").refuses(&["scenario.toml:7: filesystem", "no file system"]);
    device("[[step]]\ncreate = { file = \"a\" }").refuses(&["scenario.toml:8: create", "map \"dax0.0\""]);
    let map = |rest: &str| device(&format!("[[step]]\nmap = {{ file = \"dax0.0\", as = \"m\"{rest} }}"));
    map("").refuses(&["scenario.toml:8: map", "align = \"2M\""]);
    map(", align = \"2M\", size = \"1M\"").refuses(&["scenario.toml:8: map", "0x100000", "units of 2M"]);
    map(", align = \"2M\", size = \"16M\"").refuses(&["scenario.toml:8: map", "0xe00000"]);
    bench
        .run_changed("[filesystem]\ntype = \"ext4\"\nmount = \"dax=always\"\n", "")
        .refuses(&["filesystem", "there is none"]);
}

#[test]
fn text_that_is_no_scenario_is_refused() {
    let bench = Bench::new();
    bench.run_text("").refuses(&["scenario.toml:1", "name"]);
    bench.run_text("{\"name\": 1}").refuses(&["scenario.toml:1"]);
    bench.run_text(&SCENARIO[..SCENARIO.len() / 2]).refuses(&["scenario.toml:"]);
    bench.write("latin.toml", b"name = \"\xff\xfe\"");
    bench.pmemsim(&["run", "latin.toml"]).refuses(&["latin.toml", "UTF-8"]);
    bench.pmemsim(&["run", "missing.toml"]).refuses(&["missing.toml", "No such file"]);
    bench.pmemsim(&["run", "."]).refuses(&[".:1: scenario", "directory"]);
}

#[test]
fn every_prefix_of_a_scenario_is_read_without_panic() {
    for end in 0..SCENARIO.len() {
        // What is whole already may be a scenario.
        let _ = explore::Scenario::parse(&SCENARIO[..end], "prefix.toml");
    }
}

#[test]
fn machines_that_cannot_be_built_name_the_key() {
    let bench = Bench::new();
    let hints = bench.run_changed("size = \"16M\"", "size = \"16M\"\nflush_hints = 40");
    hints.refuses(&["scenario.toml:6: flush_hints", "at most 16"]);
    let long = format!("[machine]\nappend = \"{}\"", "x".repeat(3000));
    bench.run_changed("[machine]", &long).refuses(&["scenario.toml:3: append", "2047"]);
    let program = bench.run_changed("[machine]", "[machine]\nprograms = [\"../x\"]");
    program.refuses(&["scenario.toml:3: programs", "../x", "name of a Debian package"]);
}
