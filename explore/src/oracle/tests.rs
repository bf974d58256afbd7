//! What may be found, and what is called how when it may not.

use guest_protocol::{Command, Op, Pattern};

use super::expectation::{Expectation, Timeline, expect};
use super::judge::{Attributes, Entry, Fault, Tree, judge};
use crate::scenario::Scenario;
use crate::verdict::Class;

/// Every command takes ten events; a promise holds from its command's end.
struct Case {
    scenario: Scenario,
    timeline: Timeline,
}

fn case(steps: &str) -> Case {
    case_on("[filesystem]\ntype = \"ext4\"", steps)
}

fn case_on(what: &str, steps: &str) -> Case {
    let text = format!(
        "name = \"test\"\n[machine]\nkernel = \"debian-6.1\"\n[[nvdimm]]\nsize = \"16M\"\n{what}\n{steps}"
    );
    let scenario = Scenario::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"));
    let mut timeline = Timeline::default();
    for (at, planned) in (0..).step_by(10).zip(&scenario.commands) {
        timeline.commands.push((at, at + 10));
        let mut promised = |id: u32| {
            timeline.promises.insert(id, at + 10);
        };
        match &planned.command {
            Command::Promise { id } => promised(*id),
            Command::Run { ops, .. } => ops.iter().for_each(|op| {
                if let Op::Promise(id) = op {
                    promised(*id)
                }
            }),
            _ => (),
        }
    }
    Case { scenario, timeline }
}

impl Case {
    /// Behind `events` events.
    fn at(&self, events: u64) -> Expectation {
        expect(&self.scenario.history, &self.timeline, events)
    }

    /// Behind everything.
    fn end(&self) -> Expectation {
        self.at(self.timeline.commands.len() as u64 * 10)
    }
}

fn file(content: Vec<u8>) -> Entry {
    linked(content, 1)
}

fn linked(content: Vec<u8>, links: u64) -> Entry {
    let attributes = Attributes { links, xattrs: Vec::new() };
    Entry::File {
        size: content.len() as u64,
        allocated: 4096,
        attributes,
        content,
        open: Vec::new(),
        unreadable: Vec::new(),
    }
}

fn tree(entries: &[(&str, Entry)]) -> Tree {
    Tree(entries.iter().map(|(path, entry)| ((*path).to_owned(), entry.clone())).collect())
}

fn bytes(pattern: Pattern, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    pattern.fill(0, &mut bytes);
    bytes
}

fn classes(faults: &[Fault]) -> Vec<Class> {
    faults.iter().map(|fault| fault.class).collect()
}

const WRITTEN: &str = "[[step]]\ncreate = { file = \"a\" }\n[[step]]\nwrite = { file = \"a\", bytes = 64, pattern = \"seq:1\" }\n";

#[test]
fn before_any_promise_a_file_may_be_missing_empty_or_partly_written() {
    let end = case(WRITTEN).end();
    let whole = bytes(Pattern::Seq(1), 64);
    let mut half = whole.clone();
    half[32..].fill(0);
    for entries in [
        vec![],
        vec![("a", file(vec![]))],
        vec![("a", file(half))],
        vec![("a", file(whole[..20].to_vec()))],
        vec![("a", file(whole))],
    ] {
        assert_eq!(judge(&end, &tree(&entries)), []);
    }
    assert_eq!(classes(&judge(&end, &tree(&[("a", file(vec![7; 64]))]))), [Class::Stale]);
    assert_eq!(classes(&judge(&end, &tree(&[("a", file(vec![0; 65]))]))), [Class::Stale]);
    assert_eq!(classes(&judge(&end, &tree(&[("b", file(vec![]))]))), [Class::Stale]);
    let named = judge(&end, &tree(&[("a\u{1b}[2J", file(vec![]))]));
    let told: Vec<&str> =
        named.iter().filter(|fault| fault.class == Class::Stale).map(|fault| &*fault.text).collect();
    assert_eq!(told, [r#""a\u{1b}[2J" is there, but no step made it"#]);
}

#[test]
fn fsync_promises_name_size_and_content() {
    let end = case(&format!("{WRITTEN}[[step]]\nfsync = \"a\"\n")).end();
    let whole = bytes(Pattern::Seq(1), 64);
    assert_eq!(judge(&end, &tree(&[("a", file(whole.clone()))])), []);
    let mut flipped = whole.clone();
    flipped[40] ^= 0xff;
    for found in [
        vec![],
        vec![("a", file(vec![0; 64]))],
        vec![("a", file(whole[..20].to_vec()))],
        vec![("a", file(flipped))],
    ] {
        let faults = judge(&end, &tree(&found));
        assert!(
            !faults.is_empty()
                && faults.iter().all(|fault| fault.class == Class::Lost && fault.promise == Some(0)),
            "{faults:?}"
        );
    }
}

#[test]
fn posix_promises_names_by_the_directory_only() {
    let case = case(&format!(
        "{WRITTEN}[[step]]\nfsync = \"a\"\n[[step]]\nfsync = \".\"\n[oracle]\nnames = \"posix\"\n"
    ));
    assert_eq!(judge(&case.at(40), &tree(&[])), []);
    assert_eq!(classes(&judge(&case.at(60), &tree(&[]))), [Class::Lost]);
}

#[test]
fn promised_content_that_is_written_again_is_old_or_new() {
    let again = case(&format!("{WRITTEN}[[step]]\nfsync = \"a\"\n[[step]]\nwrite = {{ file = \"a\", bytes = 32, pattern = \"seq:2\" }}\n")).end();
    let (old, new) = (bytes(Pattern::Seq(1), 64), bytes(Pattern::Seq(2), 64));
    let mixed = [&new[..13], &old[13..]].concat();
    assert_eq!(judge(&again, &tree(&[("a", file(mixed))])), []);
    let beyond = [&new[..40], &old[40..]].concat();
    assert_eq!(classes(&judge(&again, &tree(&[("a", file(beyond))]))), [Class::Lost]);
    let zero = [&[0; 8], &old[8..]].concat();
    assert_eq!(classes(&judge(&again, &tree(&[("a", file(zero))]))), [Class::Lost]);
}

#[test]
fn words_stored_through_a_mapping_do_not_tear() {
    let mapped = "[[step]]\ncreate = { file = \"a\", size = 64 }\n[[step]]\nfsync = \"a\"\n[[step]]\nmap = { file = \"a\", as = \"m\", sync = true }\n";
    let end =
        case(&format!("{mapped}[[step]]\nstore = {{ map = \"m\", bytes = 64, pattern = \"seq:1\" }}\n"))
            .end();
    let new = bytes(Pattern::Seq(1), 64);
    let words = [&new[..8], &[0; 8], &new[16..]].concat();
    assert_eq!(judge(&end, &tree(&[("a", file(words))])), []);
    let torn = [&new[..8], &[0; 4], &new[12..]].concat();
    assert_eq!(classes(&judge(&end, &tree(&[("a", file(torn))]))), [Class::NotAtomic]);
}

#[test]
fn a_rename_is_old_or_new_but_never_neither_or_both() {
    let steps =
        format!("{WRITTEN}[[step]]\nfsync = \"a\"\n[[step]]\nrename = {{ from = \"a\", to = \"b\" }}\n");
    let end = case(&steps).end();
    let content = || file(bytes(Pattern::Seq(1), 64));
    assert_eq!(judge(&end, &tree(&[("a", content())])), []);
    assert_eq!(judge(&end, &tree(&[("b", content())])), []);
    assert_eq!(classes(&judge(&end, &tree(&[]))), [Class::NotAtomic]);
    assert_eq!(classes(&judge(&end, &tree(&[("a", content()), ("b", content())]))), [Class::NotAtomic]);
    assert_eq!(classes(&judge(&end, &tree(&[("b", file(vec![0; 64]))]))), [Class::Lost]);
    let promised = case(&format!("{steps}[[step]]\nfsync = \"b\"\n")).end();
    assert_eq!(classes(&judge(&promised, &tree(&[("a", content())]))), [Class::Lost, Class::Lost]);
}

#[test]
fn a_rename_over_a_file_keeps_one_of_the_two_contents() {
    let new = "[[step]]\ncreate = { file = \"n\" }\n[[step]]\nwrite = { file = \"n\", bytes = 64, pattern = \"seq:2\" }\n[[step]]\nfsync = \"n\"\n";
    let end = case(&format!(
        "{WRITTEN}[[step]]\nfsync = \"a\"\n{new}[[step]]\nrename = {{ from = \"n\", to = \"a\" }}\n"
    ))
    .end();
    let (old, new) = (file(bytes(Pattern::Seq(1), 64)), file(bytes(Pattern::Seq(2), 64)));
    assert_eq!(judge(&end, &tree(&[("a", old.clone()), ("n", new.clone())])), []);
    assert_eq!(judge(&end, &tree(&[("a", new.clone())])), []);
    assert!(!judge(&end, &tree(&[("a", old)])).is_empty());
    assert!(!judge(&end, &tree(&[("n", new)])).is_empty());
    assert_eq!(classes(&judge(&end, &tree(&[("a", file(vec![0; 64]))]))), [Class::Lost]);
}

#[test]
fn an_unlink_that_is_promised_stays() {
    let case = case(
        "[[step]]\ncreate = { file = \"a\" }\n[[step]]\nsync = true\n[[step]]\nunlink = \"a\"\n[[step]]\nsync = true\n",
    );
    assert_eq!(judge(&case.at(31), &tree(&[("a", file(vec![]))])), []);
    assert_eq!(judge(&case.at(31), &tree(&[])), []);
    assert_eq!(classes(&judge(&case.at(60), &tree(&[("a", file(vec![]))]))), [Class::Lost]);
}

#[test]
fn a_file_that_was_shrunk_may_be_short_or_long_but_not_between() {
    let end = case(&format!(
        "{WRITTEN}[[step]]\nfsync = \"a\"\n[[step]]\ntruncate = {{ file = \"a\", size = 16 }}\n"
    ))
    .end();
    let whole = bytes(Pattern::Seq(1), 64);
    assert_eq!(judge(&end, &tree(&[("a", file(whole.clone()))])), []);
    assert_eq!(judge(&end, &tree(&[("a", file(whole[..16].to_vec()))])), []);
    assert!(!judge(&end, &tree(&[("a", file(whole[..40].to_vec()))])).is_empty());
}

#[test]
fn what_a_program_made_is_judged_only_by_what_an_author_promises() {
    let end = case("[[step]]\nexec = [\"program\"]\n[[step]]\npromise = { contents = { file = \"p\", bytes = 8, pattern = \"byte:0x41\" } }\n").end();
    assert_eq!(
        judge(&end, &tree(&[("p", file(b"AAAAAAAAwhatever".to_vec())), ("other", file(vec![1]))])),
        []
    );
    assert_eq!(classes(&judge(&end, &tree(&[("p", file(b"AAAABAAA".to_vec()))]))), [Class::Lost]);
    assert_eq!(classes(&judge(&end, &tree(&[]))), [Class::Lost]);
}

#[test]
fn what_a_program_stores_to_a_device_is_not_judged_and_what_nobody_stores_is_zero() {
    let device = |byte| tree(&[("dax0.0", file(vec![byte; (16 << 20) - images::DATA_OFFSET as usize]))]);
    let untouched = case_on("namespace = \"devdax\"", "[[step]]\nmarker = 1\n").end();
    assert_eq!(judge(&untouched, &device(0)), []);
    assert_eq!(classes(&judge(&untouched, &device(1))), [Class::Stale]);
    let by_program = case_on("namespace = \"devdax\"", "[[step]]\nexec = [\"program\"]\n").end();
    assert_eq!(judge(&by_program, &device(1)), []);
    assert_eq!(classes(&judge(&by_program, &tree(&[]))), [Class::Lost]);
}

fn with_xattr(entry: Entry, name: &str, value: &[u8]) -> Entry {
    let Entry::File { size, allocated, mut attributes, content, open, unreadable } = entry else {
        return entry;
    };
    attributes.xattrs.push((name.to_owned(), value.to_vec()));
    Entry::File { size, allocated, attributes, content, open, unreadable }
}

fn directory(links: u64) -> Entry {
    Entry::Directory { attributes: Attributes { links, xattrs: Vec::new() } }
}

#[test]
fn changes_of_metadata_are_there_in_their_order() {
    let steps = "[[step]]\nmkdir = \"d\"\n[[step]]\ncreate = { file = \"a\" }\n[[step]]\ncreate = { file = \"d/b\" }\n";
    let end = case(steps).end();
    let (d, a, b) = (("d", directory(2)), ("a", file(vec![])), ("d/b", file(vec![])));
    for kept in [vec![], vec![d.clone()], vec![d.clone(), a.clone()], vec![d.clone(), a.clone(), b.clone()]] {
        assert_eq!(judge(&end, &tree(&kept)), []);
    }
    // The directory, and what is in it, but not what was made in between.
    let without = tree(&[d.clone(), b.clone()]);
    assert_eq!(classes(&judge(&end, &without)), [Class::NotAtomic]);
    let any_order = case(&format!("{steps}[oracle]\nmetadata = \"any-order\"\n")).end();
    assert_eq!(judge(&any_order, &without), []);
    // A promise brings along what was made before.
    let promised = case(&format!("{steps}[[step]]\nfsync = \"d/b\"\n")).end();
    let faults = judge(&promised, &tree(&[d, b.clone()]));
    assert_eq!(classes(&faults), [Class::NotAtomic]);
    assert_eq!(judge(&promised, &tree(&[("d", directory(2)), a.clone(), b])), []);
}

#[test]
fn a_promise_of_a_later_change_covers_the_earlier_ones_of_other_files() {
    let steps = "[[step]]\ncreate = { file = \"a\" }\n[[step]]\nsync = true\n[[step]]\nunlink = \"a\"\n[[step]]\ncreate = { file = \"b\" }\n[[step]]\nfsync = \"b\"\n";
    let end = case(steps).end();
    assert_eq!(judge(&end, &tree(&[("b", file(vec![]))])), []);
    let both = judge(&end, &tree(&[("a", file(vec![])), ("b", file(vec![]))]));
    assert_eq!(classes(&both), [Class::NotAtomic]);
}

#[test]
fn links_are_as_many_as_names() {
    let steps =
        format!("{WRITTEN}[[step]]\nfsync = \"a\"\n[[step]]\nlink = {{ from = \"a\", to = \"b\" }}\n");
    let end = case(&steps).end();
    let whole = || bytes(Pattern::Seq(1), 64);
    assert_eq!(judge(&end, &tree(&[("a", linked(whole(), 1))])), []);
    assert_eq!(judge(&end, &tree(&[("a", linked(whole(), 2)), ("b", linked(whole(), 2))])), []);
    assert_eq!(classes(&judge(&end, &tree(&[("a", linked(whole(), 2))]))), [Class::NotAtomic]);
}

#[test]
fn a_directory_counts_the_directories_in_it() {
    let end = case("[[step]]\nmkdir = \"d\"\n[[step]]\nmkdir = \"d/e\"\n[[step]]\nsync = true\n").end();
    assert_eq!(judge(&end, &tree(&[("d", directory(3)), ("d/e", directory(2))])), []);
    assert!(!judge(&end, &tree(&[("d", directory(2)), ("d/e", directory(2))])).is_empty());
}

#[test]
fn an_extended_attribute_is_old_or_new_and_lost_once_it_was_promised() {
    let set = |value: &str| {
        format!("[[step]]\nsetxattr = {{ path = \"a\", name = \"user.x\", value = \"{value}\" }}\n")
    };
    let steps = format!(
        "[[step]]\ncreate = {{ file = \"a\" }}\n{}[[step]]\nfsync = \"a\"\n{}",
        set("old"),
        set("new")
    );
    let end = case(&steps).end();
    let with = |value: &[u8]| tree(&[("a", with_xattr(file(vec![]), "user.x", value))]);
    assert_eq!(judge(&end, &with(b"old")), []);
    assert_eq!(judge(&end, &with(b"new")), []);
    assert_eq!(classes(&judge(&end, &with(b"odd"))), [Class::NotAtomic]);
    assert_eq!(classes(&judge(&end, &tree(&[("a", file(vec![]))]))), [Class::Lost]);
    let removed = "[[step]]\nremovexattr = { path = \"a\", name = \"user.x\" }\n[[step]]\nsync = true\n";
    let end = case(&format!("{steps}{removed}")).end();
    assert_eq!(judge(&end, &tree(&[("a", file(vec![]))])), []);
    assert_eq!(classes(&judge(&end, &with(b"new"))), [Class::Lost]);
}

#[test]
fn a_range_that_is_collapsed_or_inserted_moves_what_lies_behind() {
    let filled = "[[step]]\ncreate = { file = \"a\" }\n[[step]]\nwrite = { file = \"a\", at = 0, bytes = 4096, pattern = \"byte:0x41\" }\n[[step]]\nwrite = { file = \"a\", at = 4096, bytes = 8192, pattern = \"byte:0x42\" }\n[[step]]\nfsync = \"a\"\n";
    let blocks = |text: &str| {
        text.bytes().flat_map(|byte| [if byte == b'0' { 0 } else { byte }; 4096]).collect::<Vec<u8>>()
    };
    let one = |text: &str| tree(&[("a", file(blocks(text)))]);
    let fallocate = |mode: &str| {
        format!("{filled}[[step]]\nfallocate = {{ file = \"a\", at = 0, bytes = 4096, mode = \"{mode}\" }}\n")
    };
    let end = case(&fallocate("collapse-range")).end();
    assert_eq!(judge(&end, &one("ABB")), []);
    assert_eq!(judge(&end, &one("BB")), []);
    assert!(!judge(&end, &one("CB")).is_empty());
    let synced = |mode: &str| case(&format!("{}[[step]]\nfsync = \"a\"\n", fallocate(mode))).end();
    assert_eq!(judge(&synced("collapse-range"), &one("BB")), []);
    assert!(!judge(&synced("collapse-range"), &one("AB")).is_empty());
    assert_eq!(judge(&synced("insert-range"), &one("0ABB")), []);
    assert!(!judge(&synced("insert-range"), &one("AABB")).is_empty());
}
