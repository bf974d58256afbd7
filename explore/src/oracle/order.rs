//! Metadata as a whole: names, sizes, links and extended attributes have to be what they were between two of the
//! changes that the steps made, or in the middle of a gradual one.
//!
//! A file system that journals its metadata commits changes in the order in which they were made: jbd2 puts them into
//! transactions that become durable one after the other, XFS into checkpoints of its log. So if one is there, all
//! before it are, also those of other files; and what a promise covers brings all before it along.

use std::collections::BTreeMap;

use super::expectation::{Expectation, FileExpectation};
use super::history::{FileId, FileKind};
use super::judge::{Attributes, Entry, Fault, Tree};
use crate::verdict::Class;

/// What the steps did to metadata, in order, as far as it has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub changes: Vec<Change>,
    /// So many of the changes are there.
    pub promised: usize,
    /// The promise that says so.
    pub promise: Option<u32>,
}

/// One change of metadata: there as a whole, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// What each path means from then on.
    Names(Vec<(String, Option<FileId>)>),
    Size {
        file: FileId,
        to: u64,
        /// Sizes in between may be seen before it is complete.
        gradual: bool,
    },
    /// An extended attribute has this value, or is gone.
    Attribute { file: FileId, name: String, value: Option<Vec<u8>> },
}

/// The metadata between two changes.
#[derive(Default)]
struct Metadata<'a> {
    names: BTreeMap<&'a str, FileId>,
    sizes: BTreeMap<FileId, u64>,
    attributes: BTreeMap<FileId, BTreeMap<&'a str, &'a [u8]>>,
}

impl<'a> Metadata<'a> {
    fn apply(&mut self, change: &'a Change) {
        match change {
            Change::Names(sets) => sets.iter().for_each(|(path, to)| {
                match to {
                    Some(file) => self.names.insert(path, *file),
                    None => self.names.remove(path.as_str()),
                };
            }),
            Change::Size { file, to, .. } => {
                self.sizes.insert(*file, *to);
            }
            Change::Attribute { file, name, value } => {
                let attributes = self.attributes.entry(*file).or_default();
                match value {
                    Some(value) => attributes.insert(name, value),
                    None => attributes.remove(name.as_str()),
                };
            }
        }
    }

    /// Names of a file; of a directory, those that its `.` and the `..` of the directories in it add.
    fn links(&self, files: &[FileExpectation], path: &str, file: FileId) -> u64 {
        if files[file.0].kind != FileKind::Directory {
            return self.names.values().filter(|other| **other == file).count() as u64;
        }
        let inside = |child: &str| child.rsplit_once('/').is_some_and(|(parent, _)| parent == path);
        let directories =
            self.names.iter().filter(|(child, of)| inside(child) && files[of.0].kind == FileKind::Directory);
        2 + directories.count() as u64
    }

    fn size_fits(&self, file: FileId, found: u64, next: Option<&Change>) -> bool {
        let size = self.sizes.get(&file).copied().unwrap_or(0);
        let between = match next {
            Some(Change::Size { file: of, to, gradual: true }) if *of == file => {
                (size.min(*to)..=size.max(*to)).contains(&found)
            }
            _ => false,
        };
        size == found || between
    }

    /// How the tree differs from this, with `next` perhaps under way.
    fn differences(&self, files: &[FileExpectation], next: Option<&Change>, tree: &Tree) -> Vec<String> {
        let mut differences = Vec::new();
        for (path, file) in &self.names {
            let Some(entry) = tree.0.get(*path) else {
                differences.push(format!("{path} is missing"));
                continue;
            };
            differences.extend(self.entry_differs(files, next, path, *file, entry));
        }
        let more = tree.0.keys().filter(|path| !self.names.contains_key(path.as_str()));
        differences.extend(more.map(|path| format!("{path} is there")));
        differences
    }

    fn entry_differs(
        &self,
        files: &[FileExpectation],
        next: Option<&Change>,
        path: &str,
        file: FileId,
        entry: &Entry,
    ) -> Option<String> {
        let kind = &files[file.0].kind;
        let attributes = match (kind, entry) {
            // Another fault tells of that.
            (_, Entry::Unreadable { .. }) => return None,
            (FileKind::Regular, Entry::File { size, attributes, .. }) => {
                if !self.size_fits(file, *size, next) {
                    return Some(format!("{path} has {size:#x} bytes"));
                }
                attributes
            }
            (FileKind::Directory, Entry::Directory { attributes })
            | (FileKind::Symlink { .. }, Entry::Symlink { attributes, .. }) => attributes,
            _ => return Some(format!("{path} is something else")),
        };
        self.attributes_differ(files, path, file, attributes)
    }

    fn attributes_differ(
        &self,
        files: &[FileExpectation],
        path: &str,
        file: FileId,
        found: &Attributes,
    ) -> Option<String> {
        let links = self.links(files, path, file);
        if found.links != links {
            return Some(format!("{path} has {} links, not {links}", found.links));
        }
        let none = BTreeMap::new();
        let wanted = self.attributes.get(&file).unwrap_or(&none);
        let of =
            |name: &str| found.xattrs.iter().find(|(other, _)| other == name).map(|(_, value)| &value[..]);
        if let Some((name, _)) = wanted.iter().find(|(name, value)| of(name) != Some(**value)) {
            let how = if of(name).is_none() { "lacks" } else { "has another value of" };
            return Some(format!("{path} {how} the extended attribute {name}"));
        }
        let more = found.xattrs.iter().find(|(name, _)| !wanted.contains_key(name.as_str()));
        more.map(|(name, _)| format!("{path} has the extended attribute {name}"))
    }
}

/// What must not be about the metadata as a whole.
pub(super) fn judge_order(expectation: &Expectation, tree: &Tree) -> Option<Fault> {
    let order = expectation.order.as_ref()?;
    let mut metadata = Metadata::default();
    // The moment that fits best: how many changes are there, and how it differs.
    let mut best: Option<(usize, Vec<String>)> = None;
    let mut was_so = false;
    for done in 0..=order.changes.len() {
        if done > 0 {
            metadata.apply(&order.changes[done - 1]);
        }
        let next = order.changes.get(done);
        let differences = metadata.differences(&expectation.files, next, tree);
        if done < order.promised {
            was_so |= differences.is_empty();
        } else if differences.is_empty() {
            return None;
        } else if best.as_ref().is_none_or(|(_, best)| differences.len() <= best.len()) {
            best = Some((done, differences));
        }
    }
    let (done, differences) = best?;
    let of = order.changes.len();
    let differences = differences.join(", ");
    let (class, promise, text) = if was_so {
        (Class::Lost, order.promise, format!("the metadata is as before the promise: {differences}"))
    } else {
        let text = format!(
            "the metadata is as at no moment: after {done} of {of} changes it would be so, but {differences}"
        );
        (Class::NotAtomic, None, text)
    };
    Some(Fault { class, promise, subject: "metadata".to_owned(), range: None, text })
}
