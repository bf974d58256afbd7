//! What becomes of the files of other tools.

use super::*;
use crate::scenario::Scenario;

fn machine() -> Machine {
    Machine { kernel: "debian-6.1".into(), filesystem: "ext4".into(), mount: "dax=always".into() }
}

fn steps(workload: &str) -> Vec<String> {
    let text = ace::scenario("w", workload, &machine()).unwrap_or_else(|error| panic!("{error}"));
    Scenario::parse(&text, "w").unwrap().steps.into_iter().map(|step| step.text).collect()
}

fn error(workload: &str) -> String {
    ace::scenario("w", workload, &machine()).unwrap_err().to_string()
}

const DEFINE: &str = "# define\ntest\nA\nA/foo\nfoo\nbar\n# declare\nlocal_checkpoint\n";

#[test]
fn a_workload_of_ace_becomes_steps() {
    let steps = steps(&format!(
        "{DEFINE}# setup\nmkdir A 0777\n# run\nopen Afoo O_RDWR|O_CREAT 0777\nwrite Afoo 0 4096\nrename Afoo foo\nfsync Afoo\ncheckpoint 1\nclose Afoo\n"
    ));
    let expected =
        ["mkdir A", "promise 0", "marker", "create A/foo", "write A/foo 0x0+0x1000", "rename A/foo to foo"];
    assert!(steps.iter().zip(expected).all(|(step, wanted)| step.starts_with(wanted)), "{steps:?}");
    // The descriptor is still that of the file.
    assert!(steps[6].contains("promise"), "{steps:?}");
}

#[test]
fn every_operation_of_ace_is_known() {
    let steps = steps(&format!(
        "{DEFINE}# setup\n# run\nmkdir A 0777\nopen foo O_RDWR|O_CREAT 0777\nwrite foo 0 8192\ndwrite foo 0 4096\nmmapwrite foo 4096 5000\nfalloc foo FALLOC_FL_ZERO_RANGE|FALLOC_FL_KEEP_SIZE 0 4096\nfalloc foo 0 0 20000\ntruncate foo 100\nlink foo Afoo\nsymlink foo bar\nremove bar\nfsetxattr foo\nremovexattr foo\nfdatasync foo\nopendir test 0777\nfsync test\nunlink foo\nunlink Afoo\nrmdir A\nnone\nsync\ncheckpoint 1\n"
    ));
    assert!(steps.len() > 25, "{steps:?}");
}

#[test]
fn what_is_wrong_with_a_workload_is_told_with_its_line() {
    for (workload, line) in [
        ("mkdir A 0777\n", "w:1: stands in no section"),
        ("# define\nA\n# walk\n", "w:3: \"walk\" is no section"),
        ("# define\nA\n", "w:2: has no section # run"),
    ] {
        assert!(error(workload).starts_with(line), "{}", error(workload));
    }
    for (run, what) in [
        ("mkdir B 0777", "\"B\" is not among the paths"),
        ("write foo 0 10", "\"foo\" is not open"),
        ("open foo O_RDWR 0777", "\"foo\" does not exist here"),
        ("mknod foo 0777 0", "\"mknod\" is no operation"),
        ("mkdir", "\"mkdir\" needs more than 0 arguments"),
        ("truncate foo x", "\"x\" is no number"),
        ("rmdir A", "\"A\" does not exist here"),
    ] {
        let error = error(&format!("{DEFINE}# setup\n# run\n{run}\n"));
        assert!(error.starts_with(&format!("w:11: {what}")), "{error}");
    }
}

const VM: &str = include_str!("../../../scenarios/imported/vm_ext4.yaml");
const TEST: &str = include_str!("../../../scenarios/imported/rename-synced.yaml");

fn vinter(vm: &str, test: &str) -> Result<vinter::Test, String> {
    let (vm, test) = (vinter::Source { name: "vm", text: vm }, vinter::Source { name: "test", text: test });
    vinter::read(vm, test, "debian-6.1").map_err(|error| error.to_string())
}

#[test]
fn a_test_of_vinter_becomes_programs_and_markers() {
    let test = vinter(VM, TEST).unwrap();
    assert_eq!(test.range, (1, 2));
    let steps: Vec<&str> = test.scenario.steps.iter().map(|step| step.text.as_str()).collect();
    let mount = guest_protocol::MOUNT;
    assert_eq!(steps[0], format!("exec /bin/sh -c dd if=/dev/zero of={mount}/file bs=4096 count=2 && sync"));
    assert_eq!(steps[2], format!("exec /bin/sh -c mv {mount}/file {mount}/renamed && sync"));
    assert!(
        steps[1].starts_with("marker") && steps[3].starts_with("marker") && steps.len() == 4,
        "{steps:?}"
    );
    assert_eq!(test.scenario.filesystem.kind, "ext4");
    assert!(test.scenario.filesystem.mkfs.is_empty(), "blocks have this size anyway");
    assert_eq!(test.scenario.filesystem.mount, "dax");
}

#[test]
fn what_is_wrong_with_a_test_of_vinter_is_told_with_its_line() {
    let with = |from: &str, to: &str| vinter(VM, &TEST.replace(from, to)).unwrap_err();
    for (from, to, what) in [
        ("[1, 2]", "[1, 3]", "test:3: checkpoint_range: there is no \"hypercall checkpoint 3\""),
        ("[1, 2]", "[2, 1]", "test:3: checkpoint_range: [2, 1] has nothing"),
        ("checkpoint 2", "checkpoint 1", "test:2: trace_cmd_suffix: checkpoint 1 is there twice"),
        ("checkpoint 2", "dance", "test:2: trace_cmd_suffix: \"hypercall dance\""),
        ("ls /mnt", "reboot", "test:4: \"reboot\" in a dump command"),
    ] {
        assert!(with(from, to).starts_with(what), "{}", with(from, to));
    }
    assert!(with("dump_cmd_suffix:", "other:").starts_with("test:"));
    assert!(with("[1, 2]", "[1, 2").starts_with("test:"));
    let bad_vm = vinter(&VM.replace("mkfs.ext4", "mkfs.nova"), TEST).unwrap_err();
    assert!(bad_vm.starts_with("vm:3: trace_cmd_prefix: the file system \"nova\""), "{bad_vm}");
    assert!(vinter(&VM.replace("256M", "lots"), TEST).unwrap_err().starts_with("vm:8: mem: \"lots\""));
}
