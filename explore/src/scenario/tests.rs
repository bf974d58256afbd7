//! Scenarios that make sense, and those that do not.

use guest_protocol::{Command, Fence, Flush, Op, Pattern};

use persist::Platform;

use super::*;
use crate::conversation::Limits;

const HEAD: &str = r#"name = "test"
[machine]
kernel = "debian-6.1"
[[nvdimm]]
size = "64M"
[filesystem]
type = "ext4"
mount = "dax=always"
"#;

fn parse(steps: &str) -> Result<Scenario, ScenarioError> {
    Scenario::parse(&format!("{HEAD}{steps}"), "test.toml")
}

fn error(steps: &str) -> (usize, String, String) {
    let error = parse(steps).expect_err("the scenario makes no sense");
    assert_eq!(error.file, "test.toml");
    (error.line - HEAD.lines().count(), error.key, error.what)
}

fn commands(steps: &str) -> Vec<Command> {
    let scenario = parse(steps).unwrap_or_else(|error| panic!("{error}"));
    scenario.commands.into_iter().map(|planned| planned.command).collect()
}

#[test]
fn the_scenario_of_the_design_is_understood() {
    let commands = commands(
        r#"[[step]]
create = { file = "a", size = "4M" }
[[step]]
map = { file = "a", as = "m", sync = true }
[[step]]
store = { map = "m", at = "0x1000", bytes = "4096", pattern = "seq" }
flush = "clwb"
fence = "sfence"
promise = "contents"
[crash]
points = ["durable", "promises", "window:W2", "symbol:dax_finish_sync_fault"]
budget = 2000
"#,
    );
    assert_eq!(commands[0], Command::Create { path: "a".into(), size: Some(4 << 20) });
    assert_eq!(
        commands[1],
        Command::Map { name: "m".into(), path: "a".into(), at: 0, len: 4 << 20, sync: true, align: 4096 }
    );
    let ops = vec![
        Op::Store { at: 0x1000, len: 4096, pattern: Pattern::Seq(3) },
        Op::Flush { at: 0x1000, len: 4096, with: Flush::Clwb },
        Op::Fence(Fence::Sfence),
        Op::Promise(0),
    ];
    assert_eq!(commands[2], Command::Run { map: "m".into(), ops });
}

#[test]
fn a_sync_is_followed_by_its_promise_unless_waived() {
    let create = "[[step]]\ncreate = { file = \"a\" }\n";
    assert_eq!(
        commands(&format!("{create}[[step]]\nfsync = \"a\"\n"))[1..],
        [Command::Fsync { path: "a".into() }, Command::Promise { id: 0 }]
    );
    assert_eq!(
        commands(&format!("{create}[[step]]\nfsync = \"a\"\nwaive = true\n"))[1..],
        [Command::Fsync { path: "a".into() }]
    );
}

#[test]
fn unknown_keys_and_steps_are_named_with_their_line() {
    let (line, key, what) = error("[[step]]\ncreate = { file = \"a\" }\n[[step]]\nfrobnicate = \"a\"\n");
    assert_eq!((line, key.as_str()), (4, "frobnicate"));
    assert!(what.contains("unknown field"), "{what}");
    let (line, key, _) = error("[[step]]\ncreate = { file = \"a\", colour = 1 }\n");
    assert_eq!((line, key.as_str()), (2, "colour"));
    let (line, key, _) = error("[crash]\nbugdet = 3\n");
    assert_eq!((line, key.as_str()), (2, "bugdet"));
}

#[test]
fn values_that_make_no_sense_are_named_with_their_key() {
    for (steps, line, key) in [
        ("[[step]]\nfsync = \"b\"\n", 2, "fsync"),
        ("[[step]]\npromise = { contents = { file = \"b\" } }\n", 2, "promise"),
        ("[[step]]\npromise = { exists = \"b\" }\n", 2, "promise"),
        ("[[step]]\nstore = { map = \"m\", bytes = 8 }\n", 2, "map"),
        ("[[step]]\ncreate = { file = \"a\", size = \"4x\" }\n", 2, "size"),
        ("[[step]]\ncreate = { file = \"a\", size = -1 }\n", 2, "size"),
        ("[[step]]\ncreate = { file = \"a\" }\n[[step]]\nmap = { file = \"a\", as = \"m\" }\n", 4, "map"),
        ("[[step]]\ncreate = { file = \"../a\" }\n", 2, "create"),
        ("[[step]]\ncreate = { file = \"d/a\" }\n", 2, "create"),
        ("[[step]]\ncreate = { file = \"a\" }\nunlink = \"a\"\n", 1, "step"),
        ("[[step]]\nflush = \"clwb\"\n", 2, "flush"),
        ("[[step]]\nfence = \"sfence\"\n", 2, "fence"),
        ("[[step]]\nfence = \"gate\"\n", 2, "fence"),
        ("[[step]]\nexec = []\n", 2, "exec"),
        ("[[step]]\n", 1, "step"),
        ("[crash]\npoints = [\"window:W99\"]\n", 2, "points"),
        ("[crash]\npoints = [\"every:W10\"]\n", 2, "points"),
        ("[crash]\npoints = [\"between:1\"]\n", 2, "points"),
        ("[crash]\npoints = [\"fence\"]\n", 2, "points"),
        ("[crash]\npoints = [\"always\"]\n", 2, "points"),
        ("[crash]\nbudget = 0\n", 2, "budget"),
        ("[crash]\nseed = 1\nstates = 0\n", 3, "states"),
        ("[crash]\nfrom_marker = 7\n[[step]]\nmarker = 1\n", 2, "from_marker"),
        (
            "[[step]]\nmkdir = \"d\"\n[[step]]\nsetxattr = { path = \"d\", name = \"x\", value = \"1\" }\n",
            4,
            "name",
        ),
        ("[[step]]\nmkdir = \"d\"\n[[step]]\nremovexattr = { path = \"d\", name = \"user.x\" }\n", 4, "name"),
        ("[limits]\ninstructions = 0\n", 2, "instructions"),
        ("[limits]\nconsole = \"0K\"\n", 2, "console"),
        ("[limits]\nconsole = \"4\"\ninstructions = \"4\"\n", 3, "instructions"),
        ("[limits]\nseconds = 1\n", 2, "seconds"),
    ] {
        let (found_line, found_key, what) = error(steps);
        assert_eq!((found_line, found_key.as_str()), (line, key), "{steps}: {what}");
    }
}

#[test]
fn ranges_outside_of_a_mapping_are_refused() {
    let mapped = "[[step]]\ncreate = { file = \"a\", size = 8192 }\n[[step]]\nmap = { file = \"a\", as = \"m\" }\n[[step]]\n";
    let (line, key, _) = error(&format!("{mapped}store = {{ map = \"m\", at = 4096, bytes = 4104 }}\n"));
    assert_eq!((line, key.as_str()), (6, "bytes"));
    let (_, key, _) =
        error(&format!("{mapped}store = {{ map = \"m\", at = 1, bytes = 8 }}\nnon_temporal = true\n"));
    assert_eq!(key, "non_temporal");
    let (_, key, _) = error(&format!("{mapped}store = {{ map = \"m\", at = \"16E\", bytes = 8 }}\n"));
    assert_eq!(key, "at");
}

#[test]
fn a_race_is_one_command_for_two_threads() {
    let mapped = "[[step]]\ncreate = { file = \"a\", size = 8192 }\n[[step]]\nmap = { file = \"a\", as = \"m\" }\n[[step]]\n";
    let store = "store = { map = \"m\", at = 64, bytes = 8, pattern = \"zero\" }\n";
    let race = |at: u64| {
        format!("{mapped}{store}race = {{ at = {at}, bytes = 12, pattern = \"byte:7\", delay = 5 }}\n")
    };
    let op = |at, len, pattern| vec![Op::Store { at, len, pattern }];
    let (first, second) = (op(72, 12, Pattern::Byte(7)), op(64, 8, Pattern::Zero));
    let (map, process) = ("m".to_owned(), false);
    assert_eq!(commands(&race(72))[2], Command::Race { map, first, second, delay: 5, process });
    for at in [56, 60, 64, 71] {
        let (line, key, what) = error(&race(at));
        assert_eq!((line, key.as_str()), (7, "race"), "{at}: {what}");
    }
    assert_eq!(error(&race(8192)).1, "bytes");
    let alone = "[[step]]\ncreate = { file = \"a\" }\nrace = { at = 0, bytes = 8, delay = 5 }\n";
    assert_eq!(error(alone).1, "race");
}

#[test]
fn steps_without_a_tag_of_their_own_are_refused() {
    let create = "[[step]]\ncreate = { file = \"a\" }\n";
    let markers = |count| format!("{create}{}[[step]]\n", "[[step]]\nmarker = 1\n".repeat(count));
    let write = "write = { file = \"a\", bytes = 8 }\n";
    assert!(parse(&format!("{}{write}", markers(4093))).is_ok());
    let (line, key, what) = error(&format!("{}{write}", markers(4094)));
    assert_eq!((line, key.as_str()), (2 * 4094 + 3, "pattern"), "{what}");
    assert!(what.contains("12 bits"), "{what}");
    let tagged = "write = { file = \"a\", bytes = 8, pattern = \"seq:7\" }\n";
    assert!(parse(&format!("{}{tagged}", markers(4094))).is_ok());
}

#[test]
fn limits_are_those_of_the_scenario_or_the_usual_ones() {
    let limits = |steps: &str| {
        let options = parse(steps).unwrap_or_else(|error| panic!("{error}")).limits;
        let (recording, recovery) = (Limits::of_recording(&options), Limits::of_recovery(&options));
        [(recording.instructions, recording.console), (recovery.instructions, recovery.console)]
    };
    assert_eq!(limits(""), [(20_000_000_000, 4 << 20), (2_000_000_000, 1 << 20)]);
    assert_eq!(limits("[limits]\ninstructions = 7\n"), [(7, 4 << 20), (7, 1 << 20)]);
    assert_eq!(limits("[limits]\nconsole = \"2M\"\n"), [(20_000_000_000, 2 << 20), (2_000_000_000, 2 << 20)]);
}

#[test]
fn what_no_machine_has_is_refused_on_the_line_of_its_key() {
    let second = "[[nvdimm]]\nplatform = \"adr\"\n# size = 1\n";
    for (text, line, key) in [
        (HEAD.replace("[machine]", "[machine]\n# memory\nmemory = \"4G\""), 4, "memory"),
        (HEAD.replace("[machine]", "[machine]\nappend = \"cpus\"\ncpus = 9"), 4, "cpus"),
        (HEAD.replace("size = \"64M\"", "platform = \"adr\"\nsize = \"3M\""), 6, "size"),
        (format!("{HEAD}{second}size = \"3M\"\n"), 12, "size"),
        (format!("{HEAD}{second}size = \"64M\"\nflush_hints = 17\n"), 13, "flush_hints"),
        (HEAD.replace("\"ext4\"", "\"btrfs\""), 7, "type"),
        (format!("{HEAD}{}", "[[nvdimm]]\nsize = \"16M\"\n".repeat(8)), 23, "nvdimm"),
    ] {
        let error = Scenario::parse(&text, "test.toml").expect_err(&text);
        assert_eq!((error.line, error.key.as_str()), (line, key), "{error}\n{text}");
    }
    for fine in ["3G", "64M"] {
        let text = HEAD.replace("[machine]", &format!("[machine]\nmemory = \"{fine}\""));
        assert!(Scenario::parse(&text, "test.toml").is_ok(), "{fine}");
    }
}

#[test]
fn odd_sizes_of_memory_and_dimms_are_refused() {
    for (from, to, key) in [
        ("size = \"64M\"", "size = 1000001", "size"),
        ("size = \"64M\"", "size = \"8M\"", "size"),
        ("kernel = \"debian-6.1\"", "kernel = \"debian-6.1\"\nmemory = 12345", "memory"),
        ("kernel = \"debian-6.1\"", "kernel = \"debian-6.1\"\ncpus = 0", "cpus"),
        ("type = \"ext4\"", "type = \"fat\"", "type"),
        ("name = \"test\"", "name = \"test\"\nschema = 2", "schema"),
        ("name = \"test\"", "", ""),
        ("name = \"test\"", "name = \"test\"\nexpect = \"bad\"", "expect"),
        ("size = \"64M\"", "size = \"64M\"\nplatform = \"magic\"", "platform"),
    ] {
        let error = Scenario::parse(&HEAD.replace(from, to), "x").expect_err(to);
        assert!(key.is_empty() || error.key == key, "{to}: {error}");
    }
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_line() {
    let error = Scenario::parse("name = \"a\"\n= 3\n", "x.toml").unwrap_err();
    assert_eq!(error.line, 2, "{error}");
    let missing = Scenario::load(Path::new("/nonexistent/scenario.toml")).unwrap_err();
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
}

const MACHINE: &str = "name = \"test\"\n[machine]\nkernel = \"debian-6.1\"\n[filesystem]\ntype = \"ext4\"\n";

fn regions(tables: &str) -> Result<Vec<Region>, (String, String)> {
    let scenario = Scenario::parse(&format!("{MACHINE}{tables}"), "test.toml");
    scenario.map(|scenario| scenario.regions).map_err(|error| (error.key, error.what))
}

#[test]
fn regions_of_every_kind_are_in_the_order_of_the_kernel() {
    let found = regions(
        "[[pmem_legacy]]\nsize = \"16M\"\n[[virtio_pmem]]\nsize = \"32M\"\nnamespace = \"fsdax\"\n\
         faults = [{ flush = 2, action = \"fail\" }, { action = \"late\", by = 1000 }]\n\
         [[nvdimm]]\nsize = \"64M\"\nflush_hints = 1\n",
    )
    .unwrap();
    let faults = vec![
        vmm::FlushFault { which: Some(2), action: vmm::FlushAction::Fail },
        vmm::FlushFault { which: None, action: vmm::FlushAction::Late(1000) },
    ];
    let kinds: Vec<_> =
        found.into_iter().map(|region| (region.size.0 >> 20, region.namespace, region.interface)).collect();
    assert_eq!(
        kinds,
        [
            (
                64,
                Namespace::Fsdax,
                Interface::Nvdimm {
                    flush_hints: 1,
                    labels: false,
                    poison: Vec::new(),
                    claims: None,
                    topology: Topology::default()
                }
            ),
            (32, Namespace::Fsdax, Interface::VirtioPmem { faults }),
            (16, Namespace::Raw, Interface::Legacy),
        ]
    );
}

#[test]
fn regions_and_faults_that_cannot_be_are_refused() {
    let key = |tables: &str| regions(tables).unwrap_err().0;
    assert_eq!(key(""), "nvdimm");
    assert_eq!(key("[[virtio_pmem]]\nsize = \"3M\"\n"), "size");
    assert_eq!(key(&"[[pmem_legacy]]\nsize = \"16M\"\n".repeat(9)), "pmem_legacy");
    for fault in
        ["{ action = \"late\" }", "{ action = \"fail\", by = 3 }", "{ flush = 0, action = \"fail\" }"]
    {
        assert_eq!(key(&format!("[[virtio_pmem]]\nsize = \"16M\"\nfaults = [{fault}]\n")), "faults");
    }
    assert_eq!(key("[[virtio_pmem]]\nsize = \"16M\"\nflush_hints = 1\n"), "flush_hints");
}

#[test]
fn a_step_that_is_to_fail_makes_neither_mapping_nor_promise() {
    let steps = "[[step]]\ncreate = { file = \"a\", size = \"4K\" }\n\
                 [[step]]\nmap = { file = \"a\", as = \"m\", sync = true }\nfails = \"EOPNOTSUPP\"\n\
                 [[step]]\nmap = { file = \"a\", as = \"m\" }\n\
                 [[step]]\nfsync = \"a\"\nfails = \"EIO\"\n";
    let scenario = parse(steps).unwrap();
    let fails: Vec<_> = scenario.commands.iter().map(|planned| planned.fails).collect();
    assert_eq!(fails, [None, Some(Failure::Errno(95)), None, Some(Failure::Errno(5))]);
    let (_, key, _) = error("[[step]]\nmkdir = \"a\"\nfails = \"EIO\"\n");
    assert_eq!(key, "fails");
}

#[test]
fn a_region_is_on_a_platform_that_it_can_be_on_and_says_so_unless_it_lies() {
    let found = regions(
        "[[nvdimm]]\nsize = \"16M\"\n[[nvdimm]]\nsize = \"16M\"\nplatform = \"eadr\"\n\
         [[nvdimm]]\nsize = \"16M\"\nplatform = \"adr-lost\"\n\
         [[nvdimm]]\nsize = \"16M\"\nclaims = \"eadr\"\n[[nvdimm]]\nsize = \"16M\"\nclaims = \"nothing\"\n\
         [[virtio_pmem]]\nsize = \"16M\"\n[[virtio_pmem]]\nsize = \"16M\"\nplatform = \"host-survives\"\n\
         [[pmem_legacy]]\nsize = \"16M\"\nplatform = \"eadr\"\n",
    )
    .unwrap();
    let found: Vec<_> = found.iter().map(|region| (region.platform, region.claim())).collect();
    assert_eq!(
        found,
        [
            (Platform::Adr, Some(Claim::Adr)),
            (Platform::Eadr, Some(Claim::Eadr)),
            (Platform::AdrLost, Some(Claim::Adr)),
            (Platform::Adr, Some(Claim::Eadr)),
            (Platform::Adr, Some(Claim::Nothing)),
            (Platform::VirtioPmem, None),
            (Platform::HostSurvives, None),
            (Platform::Eadr, None),
        ]
    );
    for wrong in [
        "[[nvdimm]]\nsize = \"16M\"\nplatform = \"virtio-pmem\"\n",
        "[[virtio_pmem]]\nsize = \"16M\"\nplatform = \"adr\"\n",
        "[[pmem_legacy]]\nsize = \"16M\"\nplatform = \"virtio-pmem\"\n",
    ] {
        assert_eq!(regions(wrong).unwrap_err().0, "platform", "{wrong}");
    }
    assert_eq!(regions("[[virtio_pmem]]\nsize = \"16M\"\nclaims = \"adr\"\n").unwrap_err().0, "claims");
}

#[test]
fn the_platform_that_is_asked_for_holds_for_every_region_that_can_have_it() {
    let tables = "[[nvdimm]]\nsize = \"16M\"\nclaims = \"adr\"\n[[virtio_pmem]]\nsize = \"16M\"\n";
    let mut scenario = Scenario::parse(&format!("{MACHINE}{tables}"), "test.toml").unwrap();
    assert_eq!(scenario.platforms(), "adr, virtio-pmem");
    scenario.override_platform(Platform::Eadr).unwrap();
    assert_eq!(scenario.platforms(), "eadr (claims adr), virtio-pmem");
    scenario.override_platform(Platform::HostSurvives).unwrap();
    assert_eq!(scenario.platforms(), "host-survives");
}

/// The error of a scenario whose NVDIMM has these lines, too: line behind `size`, key and text.
fn nvdimm_error(lines: &str) -> (usize, String, String) {
    let text = HEAD.replace("size = \"64M\"\n", &format!("size = \"64M\"\n{lines}\n"));
    let error = Scenario::parse(&text, "test.toml").expect_err("the NVDIMM makes no sense");
    (error.line - 5, error.key, error.what)
}

#[test]
fn an_nvdimm_that_makes_no_sense_is_refused_with_its_line_and_key() {
    for (lines, line, key, said) in [
        ("dimms = 0", 1, "dimms", "1 to 8"),
        ("dimms = 9", 1, "dimms", "1 to 8"),
        ("dimms = 3", 1, "dimms", "multiple of 2M"),
        ("dimms = 2\nflush_hints = 1", 2, "flush_hints", "one DIMM"),
        ("dimms = 2\nplatform = \"adr-lost\"", 2, "platform", "several DIMMs"),
        ("flush_hints = 17", 1, "flush_hints", "at most 16"),
        ("proximity = 0", 1, "proximity", "1 to 7"),
        ("proximity = 8", 1, "proximity", "1 to 7"),
        ("armed = false", 1, "armed", "mount = \"ro\""),
        ("armed = \"no\"", 1, "armed", "boolean"),
        ("poison = [{ at = 0, bytes = 0 }]", 1, "poison", "multiples of 64"),
        ("poison = [{ at = 32, bytes = 64 }]", 1, "poison", "multiples of 64"),
        ("poison = [{ at = 64, bytes = 100 }]", 1, "poison", "multiples of 64"),
        ("poison = [{ at = \"64M\", bytes = 64 }]", 1, "poison", "outside of the region"),
        ("poison = [{ at = \"0xffffffffffffffc0\", bytes = 64 }]", 1, "poison", "outside of the region"),
        ("poison = [{ at = 0, bytes = 128 }, { at = 64, bytes = 64 }]", 1, "poison", "overlap"),
        ("poison = [{ at = 0, bytes = \"2M\" }]", 1, "poison", "1048576"),
        ("poison = [{ at = 0 }]", 1, "poison", "bytes"),
        ("poison = [{ at = 0, bytes = 64, on = 1 }]", 1, "on", "unknown field"),
        ("[[nvdimm]]\nsize = \"3M\"", 2, "size", "multiple of 2M"),
        ("[[nvdimm]]\nsize = \"14M\"", 2, "size", "16M to 16G"),
    ] {
        let (found_line, found_key, what) = nvdimm_error(lines);
        assert_eq!((found_line, found_key.as_str()), (line, key), "{lines}: {what}");
        assert!(what.contains(said), "{lines}: {what}");
    }
    let many: Vec<String> = (0..65).map(|n| format!("{{ at = {}, bytes = 64 }}", n * 128)).collect();
    let (_, key, what) = nvdimm_error(&format!("poison = [{}]", many.join(", ")));
    assert!(key == "poison" && what.contains("at most 64"), "{key}: {what}");
    let (_, key, what) = nvdimm_error(&"[[nvdimm]]\nsize = \"16M\"\n".repeat(8));
    assert!(key == "nvdimm" && what.contains("at most 8"), "{key}: {what}");
}

#[test]
fn poison_of_files_is_asked_for_page_by_page_and_frees_what_it_hits() {
    let created = "[[step]]\ncreate = { file = \"a\", size = \"32K\" }\n[[step]]\n";
    let scenario = parse(&format!("{created}poison = {{ file = \"a\", at = 4000, bytes = 200 }}\n")).unwrap();
    assert!(scenario.media_errors);
    let asked: Vec<_> = scenario.commands.iter().filter_map(|planned| planned.loses.clone()).collect();
    let lost = |at, len, last| Lost { path: "a".to_owned(), at, len, last };
    assert_eq!(asked, [lost(4000, 96, false), lost(4096, 104, true)]);
    assert!(!parse(created.trim_end_matches("[[step]]\n")).unwrap().media_errors);
    for (step, key) in [
        ("poison = { file = \"b\", at = 0, bytes = 64 }", "file"),
        ("poison = { file = \"a\", at = \"32K\", bytes = 64 }", "bytes"),
        ("poison = { file = \"a\", at = 0, bytes = \"257K\" }", "bytes"),
        ("scrub = false", "scrub"),
        ("read = { file = \"a\" }\nfails = \"SIGBUS\"", "fails"),
        ("scrub = true\nfails = \"EIO\"", "fails"),
    ] {
        let (_, found, what) = error(&format!("{created}{step}\n"));
        assert_eq!(found, key, "{step}: {what}");
    }
    let legacy = HEAD.replace("[[nvdimm]]", "[[pmem_legacy]]");
    let why = Scenario::parse(&format!("{legacy}[[step]]\nscrub = true\n"), "test.toml").unwrap_err();
    assert_eq!((why.key.as_str(), why.line), ("scrub", 10));
}
