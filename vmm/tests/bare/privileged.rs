//! What only a kernel may do. Our outcomes are held against a text that was reviewed case by case with the SDM, and
//! against QEMU where it is installed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use vmm::BootProtocol;

use crate::{deviations, payload, qemu};

/// Name of the environment variable that writes the expectation anew.
const REFRESH: &str = "PMEMSIM_REFRESH";
/// Groups of more cases than this stand in the expectation by their number and a digest of their lines.
const LONGEST_GROUP: usize = 200;

/// What our processor does, a line a case.
fn ours() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let line = "bare.elf privileged all";
        payload::output(&payload::config(payload::bytes(), BootProtocol::Multiboot, line, &[]), 0)
    })
}

/// Where this processor and the SDM agree, as reviewed. A payload that changes, or another assembler, changes digests:
/// the comparison beside QEMU then shows whether that is all.
#[test]
fn privileged_instructions_do_what_the_manual_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bare/privileged.txt");
    let now = summary(ours());
    if std::env::var_os(REFRESH).is_some() {
        let beside = qemu::version().unwrap_or("nothing".to_owned());
        std::fs::write(&path, format!("# Compared case by case with {beside}\n{now}")).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    let expected_lines: Vec<&str> = expected.lines().filter(|line| !line.starts_with('#')).collect();
    let now_lines: Vec<&str> = now.lines().collect();
    let wanting: Vec<String> = expected_lines
        .iter()
        .filter(|line| !now_lines.contains(line))
        .map(|line| format!("expected {line}"))
        .chain(
            now_lines
                .iter()
                .filter(|line| !expected_lines.contains(line))
                .map(|line| format!("but is   {line}")),
        )
        .collect();
    assert!(
        wanting.is_empty(),
        "outcomes changed. Where the new ones are right by the SDM, run with {REFRESH}=1:\n{}",
        wanting.join("\n")
    );
}

/// Every case beside QEMU. Where the two differ the SDM decides, and [`deviations`] says why QEMU is wrong.
#[test]
fn privileged_instructions_do_what_qemu_does() {
    let Some(version) = qemu::version_or_say() else { return };
    let theirs = qemu::output(payload::file(), "privileged", None, 0);
    let ours: HashMap<&str, &str> = ours().lines().map(|line| (name(line), line)).collect();
    let cases = theirs.lines().count();
    assert!(cases > 40_000, "{cases} cases");
    let pairs: Vec<(&str, &str)> =
        theirs.lines().map(|line| (ours.get(name(line)).copied().unwrap_or("(nothing)"), line)).collect();
    let differing: Vec<(&str, &str)> = pairs.into_iter().filter(|(ours, theirs)| ours != theirs).collect();
    let judged = deviations::judge(&differing);
    println!("{cases} cases beside {version}: {} differ by known deviations of QEMU", judged.known);
    assert!(
        judged.unknown.is_empty(),
        "{} cases differ from {version}:\n{}",
        judged.unknown.len(),
        judged.unknown[..judged.unknown.len().min(100)].join("\n")
    );
    assert!(judged.unused.is_empty(), "{version} no longer deviates so: {:#?}", judged.unused);
}

/// What a case is called.
pub fn name(line: &str) -> &str {
    line.split(": ").next().unwrap_or(line)
}

/// The lines, but for large groups, of which only their number and a digest remain.
fn summary(lines: &str) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in lines.lines() {
        let group = line.split(' ').next().unwrap_or(line);
        match groups.last_mut() {
            Some((last, lines)) if *last == group => lines.push(line),
            _ => groups.push((group, vec![line])),
        }
    }
    let mut text = String::new();
    for (group, lines) in groups {
        if lines.len() > LONGEST_GROUP {
            let digest = crc32fast::hash(lines.join("\n").as_bytes());
            text += &format!("{group}: {} cases, digest {digest:08x}\n", lines.len());
        } else {
            lines.iter().for_each(|line| text += &format!("{line}\n"));
        }
    }
    text
}
