//! Block translation tables: sectors that are old or new, also where only words are kept together.

use explore::verdict::Class;
use explore::{Report, RunOptions, Verdict};
use guest_protocol::Command;
use images::{Cache, ImageSpec, Namespace, pmem_image};
use vmm::Nvdimm;

use crate::shell::{console_of, exec, machine};
use crate::support::{jobs, run, scenario};

fn is_kept_in_every_state(report: &Report) {
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.findings.is_empty(), "nothing is torn, either: {report}");
    assert!(report.counts.exhaustive, "{report}");
    assert_eq!(report.counts.promises, report.counts.promises_judged, "{report}");
}

#[test]
fn ext4_on_a_btt_keeps_its_promises_in_every_crash_state() {
    is_kept_in_every_state(&run(&scenario("btt-ext4"), &jobs(2)));
}

#[test]
fn xfs_on_a_btt_keeps_its_promises_in_every_crash_state() {
    is_kept_in_every_state(&run(&scenario("btt-xfs"), &jobs(2)));
}

#[test]
fn what_is_torn_on_a_raw_namespace_is_not_on_a_btt() {
    let mut raw = scenario("controls/no-btt");
    let found = run(&raw, &jobs(2));
    assert_eq!((&found.expect[..], found.verdict), (&[Class::TornSector][..], Verdict::Expected), "{found}");
    raw.expect.clear();
    let denied = RunOptions { deny: vec![Class::TornSector], unexplained: true, ..jobs(2) };
    assert_eq!(run(&raw, &denied).verdict, Verdict::Violated);
    is_kept_in_every_state(&run(&scenario("controls/repaired/no-btt-repaired"), &jobs(2)));
}

#[test]
fn without_its_log_a_btt_is_damaged() {
    let found = run(&scenario("controls/btt-no-log"), &RunOptions { unexplained: true, ..jobs(2) });
    assert_eq!(found.verdict, Verdict::Expected, "{found}");
    is_kept_in_every_state(&run(&scenario("controls/repaired/btt-no-log-repaired"), &jobs(2)));
}

#[test]
#[ignore = "670 recoveries"]
fn a_superblock_of_two_sectors_is_torn_on_a_btt_with_small_ones() {
    let options = RunOptions { unexplained: true, ..jobs(2) };
    let found = run(&scenario("findings/ext4-btt-512"), &options);
    assert_eq!((&found.expect[..], found.verdict), (&[Class::Corrupt][..], Verdict::Expected), "{found}");
}

/// The info blocks of a region with a BTT, without UUID and checksum, and what lies between the data and the second one.
fn bare(region: &[u8]) -> Vec<Vec<u8>> {
    // mapoff of struct btt_sb.
    let map = 4096 + u64::from_le_bytes(region[4096 + 96..][..8].try_into().expect("8 bytes")) as usize;
    let info = |at: usize| [&region[at..at + 16], &region[at + 32..at + 4088]].concat();
    let second = region.len() - 4096;
    vec![info(4096), region[map..second].to_vec(), info(second)]
}

#[test]
fn a_btt_is_laid_out_as_the_kernel_does() {
    let make = "ndctl create-namespace -f -e namespace0.0 -m sector && echo all done";
    let nvdimm = Nvdimm { size: 128 << 20, ..Nvdimm::default() };
    let script = [Command::Attach { region: 0 }, exec(make)];
    let mut machine = machine("debian-6.1", &[nvdimm], &["dash", "ndctl"], &script);
    let console = console_of(&mut machine);
    assert!(console.contains("all done"), "{console}");
    let region = machine.regions()[0];
    let mut theirs = vec![0; region.size as usize];
    machine.read_pmem(region.base, &mut theirs);
    let namespace = Namespace::Btt { sector: 4096 };
    let spec = ImageSpec { size: region.size, namespace, filesystem: None };
    let ours = pmem_image(&Cache::open().expect("a cache directory"), &spec).expect("an image");
    for (ours, theirs) in bare(&ours.bytes).into_iter().zip(bare(&theirs)) {
        let different = (0..ours.len()).find(|at| theirs.get(*at) != ours.get(*at));
        let near = |bytes: &[u8], at: usize| bytes[at & !63..].iter().take(64).copied().collect::<Vec<u8>>();
        let shown = different.map(|at| (at, near(&ours, at), near(&theirs, at)));
        assert!(shown.is_none() && ours.len() == theirs.len(), "ours, then theirs: {shown:x?}");
    }
}
