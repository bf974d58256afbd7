//! Scenarios that make sense, and those that do not.

use guest_protocol::{Command, Fence, Flush, Op, Pattern};

use super::*;

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
        ("[crash]\npoints = [\"always\"]\n", 2, "points"),
        ("[crash]\nbudget = 0\n", 1, "budget"),
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
fn odd_sizes_of_memory_and_dimms_are_refused() {
    for (from, to, key) in [
        ("size = \"64M\"", "size = 1000001", "size"),
        ("size = \"64M\"", "size = \"8M\"", "size"),
        ("kernel = \"debian-6.1\"", "kernel = \"debian-6.1\"\nmemory = 12345", "memory"),
        ("kernel = \"debian-6.1\"", "kernel = \"debian-6.1\"\ncpus = 2", "cpus"),
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
