//! The file system as the steps leave it, while a scenario is being read: finds steps that make no sense and writes
//! the [`History`].

use std::collections::BTreeMap;

use guest_protocol::Pattern;

use super::history::{
    AttributeChange, BEFORE, ContentChange, FileHistory, FileId, FileKind, History, Loss, NameChange,
    Promise, SizeChange, Term, Unit,
};
use crate::scenario::{MetadataPolicy, NamesPolicy, OracleOptions};

/// A step that makes no sense: the key that is wrong and why.
pub(crate) struct Refusal {
    pub key: &'static str,
    pub what: String,
}

pub(super) fn refuse<T>(key: &'static str, what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { key, what: what.into() })
}

/// A mapping of a file.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub file: FileId,
    pub at: u64,
    pub len: u64,
}

/// The file system as the steps so far leave it.
#[derive(Default)]
pub(crate) struct Model {
    pub history: History,
    names: BTreeMap<String, FileId>,
    maps: BTreeMap<String, Mapping>,
    policy: NamesPolicy,
}

impl Model {
    pub fn new(options: OracleOptions) -> Model {
        let metadata_is_ordered =
            options.names == NamesPolicy::Journal && options.metadata == MetadataPolicy::Ordered;
        let history = History { metadata_is_ordered, ..History::default() };
        Model { history, policy: options.names, ..Model::default() }
    }

    fn change_names(&mut self, command: usize, sets: Vec<(String, Option<FileId>)>) {
        for (path, to) in &sets {
            match to {
                Some(file) => self.names.insert(path.clone(), *file),
                None => self.names.remove(path),
            };
        }
        self.history.names.push(NameChange { command, sets });
    }

    /// A path of a step: relative, plain, below an existing directory.
    fn check_path(&self, key: &'static str, path: &str) -> Result<(), Refusal> {
        if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse(
                key,
                format!(
                    "{path:?} is not a path below the mount point: write names joined by /, without a leading /"
                ),
            );
        }
        match path.rsplit_once('/') {
            Some((parent, _)) if !self.is_directory(parent) => {
                refuse(key, format!("{path:?}: no step makes the directory {parent:?} before this one"))
            }
            _ => Ok(()),
        }
    }

    fn is_directory(&self, path: &str) -> bool {
        self.names.get(path).is_some_and(|file| self.history.files[file.0].kind == FileKind::Directory)
    }

    /// Whatever is at the path.
    pub fn entry(&self, key: &'static str, path: &str) -> Result<FileId, Refusal> {
        match self.names.get(path) {
            Some(file) => Ok(*file),
            None => refuse(key, format!("{path:?} does not exist here: no step before this one creates it")),
        }
    }

    /// The regular file at the path.
    pub fn file(&self, key: &'static str, path: &str) -> Result<FileId, Refusal> {
        let file = self.entry(key, path)?;
        match self.history.files[file.0].kind {
            FileKind::Regular | FileKind::Foreign => Ok(file),
            _ => refuse(key, format!("{path:?} is not a regular file")),
        }
    }

    pub fn size(&self, file: FileId) -> u64 {
        self.history.files[file.0].sizes.last().map_or(0, |change| change.to)
    }

    fn add(&mut self, kind: FileKind) -> FileId {
        self.history.files.push(FileHistory {
            kind,
            contents: Vec::new(),
            sizes: Vec::new(),
            attributes: Vec::new(),
            losses: Vec::new(),
        });
        FileId(self.history.files.len() - 1)
    }

    fn add_named(
        &mut self,
        command: usize,
        key: &'static str,
        path: &str,
        kind: FileKind,
    ) -> Result<(), Refusal> {
        self.check_path(key, path)?;
        if self.names.contains_key(path) {
            return refuse(key, format!("{path:?} exists already"));
        }
        let file = self.add(kind);
        self.change_names(command, vec![(path.to_owned(), Some(file))]);
        Ok(())
    }

    pub fn mkdir(&mut self, command: usize, path: &str) -> Result<(), Refusal> {
        self.add_named(command, "mkdir", path, FileKind::Directory)
    }

    pub fn symlink(&mut self, command: usize, target: &str, path: &str) -> Result<(), Refusal> {
        self.add_named(command, "symlink", path, FileKind::Symlink { target: target.to_owned() })
    }

    pub fn create(&mut self, command: usize, path: &str, size: Option<u64>) -> Result<(), Refusal> {
        self.add_named(command, "create", path, FileKind::Regular)?;
        match size {
            Some(size) => self.truncate(command, path, size),
            None => Ok(()),
        }
    }

    /// A device of `size` bytes, all zero, that is there from the beginning; what programs store there is theirs to check. Returns
    /// the promise that it is.
    pub fn device(&mut self, name: &str, size: u64, has_programs: bool) -> u32 {
        let file = self.add(if has_programs { FileKind::Foreign } else { FileKind::Regular });
        self.change_names(BEFORE, vec![(name.to_owned(), Some(file))]);
        self.history.files[file.0].sizes.push(SizeChange { command: BEFORE, to: size, gradual: false });
        let terms = vec![Term::Size { file, upto: 1 }, Term::Names(vec![0])];
        self.promise(0, format!("{name} is a device of {size} bytes"), terms, Vec::new())
    }

    /// A file that a program made.
    pub fn adopt(&mut self, command: usize, path: &str) -> Result<FileId, Refusal> {
        if let Some(file) = self.names.get(path) {
            return Ok(*file);
        }
        if !self.history.programs_ran {
            return self.entry("promise", path);
        }
        let file = self.add(FileKind::Foreign);
        self.change_names(command, vec![(path.to_owned(), Some(file))]);
        Ok(file)
    }

    fn grow(&mut self, command: usize, file: FileId, to: u64, gradual: bool) {
        if to > self.size(file) {
            self.history.files[file.0].sizes.push(SizeChange { command, to, gradual });
        }
    }

    fn change_content(&mut self, file: FileId, change: ContentChange) {
        if change.len > 0 {
            self.history.files[file.0].contents.push(change);
        }
    }

    /// Returns the offset at which the bytes go.
    pub fn write(
        &mut self,
        command: usize,
        path: &str,
        at: Option<u64>,
        len: u64,
        pattern: Pattern,
    ) -> Result<u64, Refusal> {
        let file = self.file("file", path)?;
        let at = at.unwrap_or_else(|| self.size(file));
        let end = end_of("bytes", at, len)?;
        self.change_content(file, ContentChange { command, at, len, pattern, unit: Unit::Byte });
        self.grow(command, file, end, true);
        Ok(at)
    }

    /// The media loses bytes of the file: whole lines of it.
    pub fn lose(&mut self, command: usize, path: &str, at: u64, len: u64) -> Result<(), Refusal> {
        let file = self.file("file", path)?;
        let (size, foreign) = (self.size(file), self.history.files[file.0].kind == FileKind::Foreign);
        let end = end_of("bytes", at, len)?;
        if len == 0 || end > size && !foreign {
            let what =
                format!("bytes {at:#x} to {end:#x} of {path:?} do not exist here: its size is {size:#x}");
            return refuse("bytes", what);
        }
        let (start, end) = (at & !63, end.next_multiple_of(64));
        let history = &mut self.history.files[file.0];
        let upto = history.contents.len();
        history.losses.push(Loss { command, at: start, len: end - start, upto });
        Ok(())
    }

    pub fn truncate(&mut self, command: usize, path: &str, size: u64) -> Result<(), Refusal> {
        let file = self.file("file", path)?;
        let old = self.size(file);
        if end_of("size", size, 0)? < old {
            self.change_content(
                file,
                ContentChange {
                    command,
                    at: size,
                    len: old - size,
                    pattern: Pattern::Zero,
                    unit: Unit::Byte,
                },
            );
        }
        if size != old {
            self.history.files[file.0].sizes.push(SizeChange { command, to: size, gradual: false });
        }
        Ok(())
    }

    pub fn allocate(&mut self, command: usize, path: &str, at: u64, len: u64) -> Result<(), Refusal> {
        let file = self.file("file", path)?;
        let end = end_of("bytes", at, len)?;
        self.grow(command, file, end, true);
        Ok(())
    }

    /// Zeroes a range; `grows` when it may extend the file.
    pub fn zero(
        &mut self,
        command: usize,
        path: &str,
        at: u64,
        len: u64,
        grows: bool,
    ) -> Result<(), Refusal> {
        let file = self.file("file", path)?;
        let end = end_of("bytes", at, len)?;
        let end = if grows { end } else { end.min(self.size(file)) };
        let len = end.saturating_sub(at);
        self.change_content(
            file,
            ContentChange { command, at, len, pattern: Pattern::Zero, unit: Unit::Byte },
        );
        self.grow(command, file, end, true);
        Ok(())
    }

    pub fn rename(&mut self, command: usize, from: &str, to: &str) -> Result<(), Refusal> {
        let file = self.entry("from", from)?;
        self.check_path("to", to)?;
        if to.starts_with(&format!("{from}/")) {
            return refuse("to", format!("{to:?} lies below {from:?}"));
        }
        if self.names.get(to) == Some(&file) {
            return refuse("to", format!("{to:?} is the same file as {from:?}: rename would do nothing"));
        }
        if self.names.contains_key(to) && self.is_directory(to) != self.is_directory(from) {
            return refuse("to", format!("{to:?} and {from:?} are not both directories or both not"));
        }
        self.check_empty("to", to)?;
        let mut sets = vec![(from.to_owned(), None), (to.to_owned(), Some(file))];
        for (path, file) in self.below(from) {
            sets.push((format!("{to}{}", &path[from.len()..]), Some(file)));
            sets.push((path, None));
        }
        self.change_names(command, sets);
        Ok(())
    }

    fn below(&self, directory: &str) -> Vec<(String, FileId)> {
        let prefix = format!("{directory}/");
        self.names
            .iter()
            .filter(|(path, _)| path.starts_with(&prefix))
            .map(|(path, file)| (path.clone(), *file))
            .collect()
    }

    fn check_empty(&self, key: &'static str, path: &str) -> Result<(), Refusal> {
        if self.below(path).is_empty() {
            Ok(())
        } else {
            refuse(key, format!("the directory {path:?} is not empty"))
        }
    }

    pub fn link(&mut self, command: usize, from: &str, to: &str) -> Result<(), Refusal> {
        let file = self.file("from", from)?;
        self.check_path("to", to)?;
        if self.names.contains_key(to) {
            return refuse("to", format!("{to:?} exists already"));
        }
        self.change_names(command, vec![(to.to_owned(), Some(file))]);
        Ok(())
    }

    pub fn unlink(&mut self, command: usize, path: &str) -> Result<(), Refusal> {
        self.entry("unlink", path)?;
        self.check_empty("unlink", path)?;
        self.change_names(command, vec![(path.to_owned(), None)]);
        Ok(())
    }

    /// Maps `len` bytes of the file from `at`, or what is left of it. Returns the length.
    pub fn map(&mut self, name: &str, path: &str, at: u64, len: Option<u64>) -> Result<u64, Refusal> {
        let file = self.file("file", path)?;
        if self.maps.contains_key(name) {
            return refuse("as", format!("the mapping {name:?} exists already"));
        }
        if !at.is_multiple_of(4096) {
            return refuse("at", format!("{at:#x} is not a multiple of 4096"));
        }
        let size = self.size(file);
        let len = len.unwrap_or_else(|| size.saturating_sub(at));
        let foreign = self.history.files[file.0].kind == FileKind::Foreign;
        if len == 0 || (!foreign && end_of("size", at, len)? > size.next_multiple_of(4096)) {
            return refuse(
                "map",
                format!(
                    "bytes {at:#x} to {:#x} of {path:?} do not exist here: its size is {size:#x}",
                    at.saturating_add(len)
                ),
            );
        }
        self.maps.insert(name.to_owned(), Mapping { file, at, len });
        Ok(len)
    }

    /// A range of a mapping; the rest of it when `len` is `None`.
    pub fn range(&self, name: &str, at: u64, len: Option<u64>) -> Result<(Mapping, u64), Refusal> {
        let Some(mapping) = self.maps.get(name) else {
            return refuse("map", format!("no mapping {name:?} exists here: map a file first"));
        };
        let len = len.unwrap_or_else(|| mapping.len.saturating_sub(at));
        if len == 0 || end_of("bytes", at, len)? > mapping.len {
            return refuse(
                "bytes",
                format!(
                    "bytes {at:#x} to {:#x} lie outside of the mapping {name:?} of {:#x} bytes",
                    at.saturating_add(len),
                    mapping.len
                ),
            );
        }
        Ok((mapping.clone(), len))
    }

    /// Some mapping, for commands that need any.
    pub fn any_map(&self) -> Option<&str> {
        self.maps.keys().next().map(String::as_str)
    }

    pub fn unmap(&mut self, name: &str) -> Result<(), Refusal> {
        match self.maps.remove(name) {
            Some(_) => Ok(()),
            None => refuse("munmap", format!("no mapping {name:?} exists here")),
        }
    }

    pub fn store(
        &mut self,
        command: usize,
        name: &str,
        at: u64,
        len: u64,
        pattern: Pattern,
    ) -> Result<(), Refusal> {
        let (mapping, len) = self.range(name, at, Some(len))?;
        let at = mapping.at + at;
        if at + len > self.size(mapping.file) && self.history.files[mapping.file.0].kind == FileKind::Regular
        {
            return refuse(
                "bytes",
                format!("bytes {at:#x} to {:#x} of the file lie behind its end", at + len),
            );
        }
        self.change_content(mapping.file, ContentChange { command, at, len, pattern, unit: Unit::Word });
        Ok(())
    }

    /// Writes down a promise and returns its number.
    fn promise(
        &mut self,
        step: usize,
        text: String,
        terms: Vec<Term>,
        stores: Vec<(usize, u64, u64)>,
    ) -> u32 {
        self.history.promises.push(Promise { step, text, terms, stores });
        self.history.promises.len() as u32 - 1
    }

    pub fn set_attribute(
        &mut self,
        command: usize,
        path: &str,
        name: &str,
        value: Vec<u8>,
    ) -> Result<(), Refusal> {
        let file = self.entry("path", path)?;
        self.check_attribute(file, path, name)?;
        let change = AttributeChange { command, name: name.to_owned(), value: Some(value) };
        self.history.files[file.0].attributes.push(change);
        Ok(())
    }

    pub fn remove_attribute(&mut self, command: usize, path: &str, name: &str) -> Result<(), Refusal> {
        let file = self.entry("path", path)?;
        self.check_attribute(file, path, name)?;
        let attributes = &mut self.history.files[file.0].attributes;
        let last = attributes.iter().rev().find(|change| change.name == name);
        if last.is_none_or(|change| change.value.is_none()) {
            return refuse("name", format!("{path:?} has no extended attribute {name:?} here"));
        }
        attributes.push(AttributeChange { command, name: name.to_owned(), value: None });
        Ok(())
    }

    fn check_attribute(&self, file: FileId, path: &str, name: &str) -> Result<(), Refusal> {
        let of_user = name.strip_prefix("user.");
        if of_user.or(name.strip_prefix("trusted.")).is_none_or(str::is_empty) {
            return refuse("name", format!("{name:?} is no name here: write user.NAME or trusted.NAME"));
        }
        if of_user.is_some() && matches!(self.history.files[file.0].kind, FileKind::Symlink { .. }) {
            return refuse("name", format!("{path:?} is a symbolic link: these have no user attributes"));
        }
        Ok(())
    }

    /// Everything that a sync of the file alone promises of it, names aside.
    fn whole_file(&self, file: FileId) -> [Term; 3] {
        let [content, size] = self.whole_content(file);
        [content, size, self.attributes_of(file)]
    }

    fn attributes_of(&self, file: FileId) -> Term {
        Term::Attributes { file, upto: self.history.files[file.0].attributes.len() }
    }

    fn whole_content(&self, file: FileId) -> [Term; 2] {
        let history = &self.history.files[file.0];
        [
            Term::Content { file, at: 0, len: u64::MAX, upto: history.contents.len() },
            Term::Size { file, upto: history.sizes.len() },
        ]
    }

    /// Changes of names that a sync of the file brings along; only its creation unless `all`.
    fn names_with(&self, file: FileId, all: bool) -> Term {
        let mut names = self.history.names_of(file);
        match self.policy {
            NamesPolicy::Posix => names.clear(),
            NamesPolicy::Journal if all => (),
            NamesPolicy::Journal => names.truncate(1),
        }
        Term::Names(names)
    }

    pub fn promise_fsync(&mut self, step: usize, path: &str) -> Result<u32, Refusal> {
        let file = self.entry("fsync", path)?;
        let text = format!("fsync of {path}");
        let terms = match self.history.files[file.0].kind {
            FileKind::Directory => {
                let inside = |child: &str| child.rsplit_once('/').map_or("", |(parent, _)| parent) == path;
                let mut names = self.names_where(inside);
                names.extend(match self.names_with(file, true) {
                    Term::Names(own) => own,
                    _ => Vec::new(),
                });
                vec![Term::Names(names), self.attributes_of(file)]
            }
            _ => self.whole_file(file).into_iter().chain([self.names_with(file, true)]).collect(),
        };
        Ok(self.promise(step, text, terms, Vec::new()))
    }

    /// fsync of the mount point itself.
    pub fn promise_fsync_root(&mut self, step: usize) -> u32 {
        let names = self.names_where(|child| !child.contains('/'));
        self.promise(step, "fsync of the root directory".to_owned(), vec![Term::Names(names)], Vec::new())
    }

    fn names_where(&self, wanted: impl Fn(&str) -> bool) -> Vec<usize> {
        let changes = self.history.names.iter().enumerate();
        changes
            .filter(|(_, change)| change.sets.iter().any(|(path, _)| wanted(path)))
            .map(|(index, _)| index)
            .collect()
    }

    pub fn promise_fdatasync(&mut self, step: usize, path: &str) -> Result<u32, Refusal> {
        let file = self.file("fdatasync", path)?;
        let terms = self.whole_content(file).into_iter().chain([self.names_with(file, false)]).collect();
        Ok(self.promise(step, format!("fdatasync of {path}"), terms, Vec::new()))
    }

    pub fn promise_sync(&mut self, step: usize, call: &str) -> u32 {
        let files = (0..self.history.files.len()).map(FileId);
        let mut terms: Vec<Term> = files.flat_map(|file| self.whole_file(file)).collect();
        terms.push(Term::Names((0..self.history.names.len()).collect()));
        self.promise(step, call.to_owned(), terms, Vec::new())
    }

    /// What the steps left in a range of a mapping.
    pub fn promise_mapped(
        &mut self,
        step: usize,
        name: &str,
        at: u64,
        len: u64,
        by: &str,
    ) -> Result<u32, Refusal> {
        let (mapping, len) = self.range(name, at, Some(len))?;
        let (file, at) = (mapping.file, mapping.at + at);
        let upto = self.history.files[file.0].contents.len();
        let stores = self.history.files[file.0].contents.iter().filter(|change| {
            change.unit == Unit::Word && change.at < at + len && at < change.at + change.len
        });
        let stores = stores.map(|change| (change.command, change.at, change.len)).collect();
        let text = format!("{by} of {} bytes {at:#x} to {:#x}", self.history.first_name(file), at + len);
        let terms = vec![Term::Content { file, at, len, upto }, self.names_with(file, false)];
        Ok(self.promise(step, text, terms, stores))
    }

    /// An author's word about the content of a file; with `pattern` he also says what it is.
    pub fn promise_contents(
        &mut self,
        step: usize,
        command: usize,
        path: &str,
        at: u64,
        len: Option<u64>,
        pattern: Option<Pattern>,
    ) -> Result<u32, Refusal> {
        let file = self.adopt(command, path)?;
        let len = len.unwrap_or_else(|| self.size(file).saturating_sub(at));
        let end = end_of("bytes", at, len)?;
        if len == 0 || (self.history.files[file.0].kind == FileKind::Regular && end > self.size(file)) {
            return refuse(
                "bytes",
                format!("bytes {at:#x} to {end:#x} do not exist in {path:?} of {:#x} bytes", self.size(file)),
            );
        }
        if let Some(pattern) = pattern {
            self.change_content(file, ContentChange { command, at, len, pattern, unit: Unit::Word });
        }
        let upto = self.history.files[file.0].contents.len();
        let terms = vec![Term::Content { file, at, len, upto }, Term::Names(self.history.names_of(file))];
        Ok(self.promise(step, format!("promise of {path} bytes {at:#x} to {end:#x}"), terms, Vec::new()))
    }

    /// An author's word that a name exists, or that it does not.
    pub fn promise_name(
        &mut self,
        step: usize,
        command: usize,
        path: &str,
        exists: bool,
    ) -> Result<u32, Refusal> {
        if exists {
            self.adopt(command, path)?;
        } else if self.names.contains_key(path) {
            return refuse("absent", format!("{path:?} exists here"));
        }
        let names = self.names_where(|name| name == path);
        if names.is_empty() {
            return refuse("absent", format!("no step ever makes {path:?}"));
        }
        let text = format!("promise that {path} {}", if exists { "exists" } else { "is gone" });
        Ok(self.promise(step, text, vec![Term::Names(names)], Vec::new()))
    }
}

fn end_of(key: &'static str, at: u64, len: u64) -> Result<u64, Refusal> {
    match at.checked_add(len) {
        Some(end) if end < 1 << 44 => Ok(end),
        _ => refuse(key, "larger than any file here: 16 TiB is the limit"),
    }
}
