//! Whether what was found after a power loss is what may be found.

use std::collections::BTreeMap;

pub(crate) use guest_protocol::Attributes;
use guest_protocol::Pattern;
use serde::{Deserialize, Serialize};

use super::expectation::{Expectation, FileExpectation, NameGroup, Segment};
use super::history::{FileId, FileKind};
use super::order::judge_order;
use crate::verdict::Class;

/// What recovery found below the mount point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree(pub BTreeMap<String, Entry>);

/// What recovery found at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    File {
        size: u64,
        allocated: u64,
        attributes: Attributes,
        content: Vec<u8>,
        /// What of the content is not decided: something stands in its place.
        open: Vec<Open>,
        /// Offset and length of what of it cannot be loaded: the media has lost lines of it. Its content is zeros here.
        unreadable: Vec<(u64, u64)>,
    },
    Directory {
        attributes: Attributes,
    },
    Symlink {
        target: String,
        attributes: Attributes,
    },
    Other,
    /// The path is there, but looking at it failed.
    Unreadable {
        call: String,
        errno: i32,
    },
}

impl Entry {
    /// Whether this byte of a file can be loaded.
    pub fn can_be_read(&self, at: u64) -> bool {
        match self {
            Entry::File { unreadable, .. } => {
                !unreadable.iter().any(|&(start, len)| (start..start.saturating_add(len)).contains(&at))
            }
            _ => true,
        }
    }
}

/// Bytes of a content that are what is not decided: those of one line of persistent memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Offset in the content.
    pub at: usize,
    /// Guest-physical address of the first byte, as it was on the media when the power came back.
    pub origin: u64,
    /// Length in bytes.
    pub len: usize,
}

impl Open {
    /// Address of its line.
    pub fn line(&self) -> u64 {
        self.origin & !63
    }
}

/// One thing that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub class: Class,
    /// The promise that is broken, if one is.
    pub promise: Option<u32>,
    /// What it is about: a path, usually.
    pub subject: String,
    /// The file and the range of its bytes, when the fault is one of content.
    pub range: Option<(String, u64, u64)>,
    /// For people.
    pub text: String,
}

/// Everything that must not be, in a fixed order.
pub(crate) fn judge(expectation: &Expectation, tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for group in &expectation.names {
        judge_group(expectation, group, tree, &mut faults);
    }
    if !expectation.programs_ran {
        let known = |path: &String| expectation.names.iter().any(|group| group.paths.contains(path));
        for path in tree.0.keys().filter(|path| !known(path)) {
            faults.push(Fault {
                class: Class::Stale,
                promise: None,
                subject: path.clone(),
                range: None,
                // Damaged directories, and guests that mean it, have names of any bytes, or of none.
                text: format!("{path:?} is there, but no step made it"),
            });
        }
    }
    // Where something is wrong by itself, the order would only say it again.
    if faults.is_empty() {
        faults.extend(judge_order(expectation, tree));
    }
    faults
}

/// The states of the names that may be and that fit what was found, contents aside.
pub(super) fn fitting_states<'a>(
    expectation: &'a Expectation,
    group: &'a NameGroup,
    tree: &'a Tree,
) -> impl Iterator<Item = &'a Vec<Option<FileId>>> {
    let fits = move |state: &&Vec<Option<FileId>>| {
        group.paths.iter().zip(*state).all(|(path, file)| shape_fits(expectation, *file, tree.0.get(path)))
    };
    group.states[group.first_allowed..].iter().filter(fits)
}

/// Finds a state of the names that fits; the one that fits best tells the faults of content.
fn judge_group(expectation: &Expectation, group: &NameGroup, tree: &Tree, faults: &mut Vec<Fault>) {
    let mut best: Option<Vec<Fault>> = None;
    for state in fitting_states(expectation, group, tree) {
        let mut found = Vec::new();
        let mut seen = Vec::new();
        for (path, file) in group.paths.iter().zip(state) {
            if let (Some(file), Some(entry)) = (file, tree.0.get(path))
                && !seen.contains(file)
            {
                seen.push(*file);
                judge_file(&expectation.files[file.0], path, entry, &mut found);
            }
        }
        if best.as_ref().is_none_or(|best| found.len() < best.len()) {
            best = Some(found);
        }
    }
    match best {
        Some(found) => faults.extend(found),
        None => judge_names(expectation, group, tree, faults),
    }
}

/// Whether what was found can be the file at all, its content aside.
fn shape_fits(expectation: &Expectation, file: Option<FileId>, entry: Option<&Entry>) -> bool {
    let Some(file) = file else { return entry.is_none() };
    matches!(
        (&expectation.files[file.0].kind, entry),
        (FileKind::Regular | FileKind::Foreign, Some(Entry::File { .. } | Entry::Unreadable { .. }))
            | (FileKind::Directory, Some(Entry::Directory { .. }))
            | (FileKind::Symlink { .. }, Some(Entry::Symlink { .. }))
            | (FileKind::Foreign, Some(_))
    )
}

/// No allowed state of the names fits: says which name is wrong and how.
fn judge_names(expectation: &Expectation, group: &NameGroup, tree: &Tree, faults: &mut Vec<Fault>) {
    let mut one_is_wrong = false;
    for (at, path) in group.paths.iter().enumerate() {
        let entry = tree.0.get(path);
        let fits = |states: &[Vec<Option<FileId>>]| {
            states.iter().any(|state| shape_fits(expectation, state[at], entry))
        };
        if fits(&group.states[group.first_allowed..]) {
            continue;
        }
        one_is_wrong = true;
        let was_so = fits(&group.states[..group.first_allowed]);
        let class = if was_so || entry.is_none() { Class::Lost } else { Class::Stale };
        let promise = group.promise.filter(|_| class == Class::Lost);
        let text = match entry {
            None => format!("{path} is missing"),
            Some(_) if was_so => format!("{path} is as it was before"),
            Some(_) => format!("{path} is something that no step made of it"),
        };
        faults.push(Fault { class, promise, subject: path.clone(), range: None, text });
    }
    if !one_is_wrong {
        let subject = group.paths.join(", ");
        let there: Vec<&str> =
            group.paths.iter().filter(|path| tree.0.contains_key(*path)).map(String::as_str).collect();
        let text = format!(
            "of {subject} there is {}: neither before nor after any step",
            if there.is_empty() { "none".to_owned() } else { there.join(", ") }
        );
        faults.push(Fault { class: Class::NotAtomic, promise: group.promise, subject, range: None, text });
    }
}

pub(super) fn judge_file(file: &FileExpectation, path: &str, entry: &Entry, faults: &mut Vec<Fault>) {
    let fault = |class, promise, text| Fault { class, promise, subject: path.to_owned(), range: None, text };
    match entry {
        Entry::File { size, content, unreadable, .. } if unreadable.is_empty() => {
            judge_content(file, path, *size, content, faults);
        }
        Entry::File { size, content, unreadable, .. } => {
            judge_content(file, path, *size, &file.filled(content, unreadable), faults);
            for &(at, len) in unreadable {
                let text = format!(
                    "{path} at {at:#x}: {len:#x} bytes cannot be read, the media has lost lines of them"
                );
                let range = Some((path.to_owned(), at, len));
                faults.push(Fault { range, ..fault(Class::Poisoned, None, text) });
            }
        }
        Entry::Unreadable { call, errno } => {
            faults.push(fault(Class::Corrupt, None, format!("{path}: {call} fails with errno {errno}")))
        }
        Entry::Symlink { target: found, .. } => {
            if let FileKind::Symlink { target } = &file.kind
                && target != found
            {
                faults.push(fault(
                    Class::Stale,
                    None,
                    format!("{path} points to {found:?} instead of {target:?}"),
                ));
            }
        }
        Entry::Directory { .. } | Entry::Other => (),
    }
}

impl FileExpectation {
    /// The content with what may be there in place of what cannot be read.
    fn filled(&self, content: &[u8], unreadable: &[(u64, u64)]) -> Vec<u8> {
        let mut content = content.to_vec();
        let size = content.len() as u64;
        for segment in &self.segments {
            let end = segment.at.saturating_add(segment.len);
            for &(at, len) in unreadable {
                let range = at.max(segment.at)..at.saturating_add(len).min(end).min(size);
                if !range.is_empty() {
                    segment.allowed[0]
                        .fill(range.start, &mut content[range.start as usize..range.end as usize]);
                }
            }
        }
        content
    }
}

fn judge_content(file: &FileExpectation, path: &str, size: u64, content: &[u8], faults: &mut Vec<Fault>) {
    let fault = |class, promise, at: u64, len: u64, text| Fault {
        class,
        promise,
        subject: path.to_owned(),
        range: Some((path.to_owned(), at, len)),
        text,
    };
    let size_fits = file.kind == FileKind::Foreign || file.sizes.iter().any(|range| range.contains(&size));
    if !size_fits {
        let smallest = file.sizes.iter().map(|range| *range.start()).min().unwrap_or(0);
        let class = if file.size_promise.is_some() { Class::Lost } else { Class::Stale };
        faults.push(fault(
            class,
            file.size_promise,
            size.min(smallest),
            size.abs_diff(smallest),
            format!("{path} has {size:#x} bytes; it may have {}", ranges(&file.sizes)),
        ));
    }
    for segment in file.segments.iter().filter(|segment| !segment.free) {
        if segment.at >= size {
            if segment.promise.is_some() && !segment.may_be_cut {
                faults.push(fault(
                    Class::Lost,
                    segment.promise,
                    segment.at,
                    segment.len,
                    format!(
                        "{path} ends before its bytes {:#x} to {:#x}",
                        segment.at,
                        segment.at + segment.len
                    ),
                ));
            }
            continue;
        }
        let len = segment.len.min(size - segment.at).min((content.len() as u64).saturating_sub(segment.at));
        let bytes = &content[segment.at as usize..(segment.at + len) as usize];
        if let Some(mismatch) = first_mismatch(segment, bytes) {
            let text = format!(
                "{path} at {:#x}: found {}, may be {}",
                mismatch.at,
                hexadecimal(&mismatch.found),
                mismatch.allowed(segment)
            );
            let promise = segment.promise.filter(|_| mismatch.class != Class::Stale);
            faults.push(fault(mismatch.class, promise, mismatch.at, mismatch.found.len() as u64, text));
        }
    }
}

fn ranges(sizes: &[std::ops::RangeInclusive<u64>]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for range in sizes {
        let text = if range.start() == range.end() {
            format!("{:#x}", range.start())
        } else {
            format!("{:#x} to {:#x}", range.start(), range.end())
        };
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.join(" or ")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

struct Mismatch {
    at: u64,
    found: Vec<u8>,
    class: Class,
}

impl Mismatch {
    fn allowed(&self, segment: &Segment) -> String {
        let one = |pattern: &Pattern| {
            let mut bytes = vec![0; self.found.len()];
            pattern.fill(self.at, &mut bytes);
            hexadecimal(&bytes)
        };
        segment.allowed.iter().map(one).collect::<Vec<_>>().join(" or ")
    }
}

/// The first word, or byte at a ragged edge, that may not be there.
fn first_mismatch(segment: &Segment, bytes: &[u8]) -> Option<Mismatch> {
    if segment.allowed == [Pattern::Zero] && bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    let mut at = segment.at;
    let end = segment.at + bytes.len() as u64;
    while at < end {
        let len = if segment.whole_words && at.is_multiple_of(8) && end - at >= 8 { 8 } else { 1 };
        let found = &bytes[(at - segment.at) as usize..][..len];
        if mismatch_of(segment, at, found).is_some() {
            return Some(mismatch(segment, at, found));
        }
        at += len as u64;
    }
    None
}

fn matches(pattern: Pattern, at: u64, found: &[u8]) -> bool {
    match <[u8; 8]>::try_from(found) {
        Ok(word) => pattern.word(at) == u64::from_le_bytes(word),
        Err(_) => found.iter().zip(at..).all(|(byte, at)| pattern.byte(at) == *byte),
    }
}

/// The class of a word, or byte, that may not be there; `None` when it may.
pub(super) fn mismatch_of(segment: &Segment, at: u64, found: &[u8]) -> Option<Class> {
    let fits = segment.allowed.iter().any(|pattern| matches(*pattern, at, found));
    (!fits).then(|| class_of(segment, at, found))
}

fn mismatch(segment: &Segment, at: u64, found: &[u8]) -> Mismatch {
    Mismatch { at, found: found.to_vec(), class: class_of(segment, at, found) }
}

fn class_of(segment: &Segment, at: u64, found: &[u8]) -> Class {
    let torn = segment.allowed.len() > 1
        && found
            .iter()
            .zip(at..)
            .all(|(byte, at)| segment.allowed.iter().any(|pattern| pattern.byte(at) == *byte));
    let was_so = segment.outdated.iter().any(|pattern| matches(*pattern, at, found));
    if was_so {
        Class::Lost
    } else if torn {
        Class::NotAtomic
    } else if segment.promise.is_some() {
        Class::Lost
    } else {
        Class::Stale
    }
}
