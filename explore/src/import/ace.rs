//! Workloads of ACE in CrashMonkey's j-lang: lists of paths and operations in sections.
//!
//! What the words mean is taken from CrashMonkey's adapter (`ace/cmAdapter.py` in <https://github.com/utsaslab/crashmonkey>), which
//! makes C++ of them. Files are named without their slashes there: `Afoo` is `A/foo`. Descriptors stay on their
//! file when that is renamed.

use std::collections::BTreeMap;

use super::{ImportError, Machine, Text};

/// What `fsetxattr` sets: the adapter says so.
const XATTR: (&str, &str) = ("user.xattr1", "val1");
/// Where the mount point is in the guest: symbolic links name it.
const MOUNT: &str = guest_protocol::MOUNT;

/// The workload as a scenario: its text. What `# setup` does is durable before the power can be cut.
pub fn scenario(file: &str, workload: &str, machine: &Machine) -> Result<String, ImportError> {
    let mut reader =
        Reader { file, paths: BTreeMap::new(), exists: BTreeMap::new(), open: BTreeMap::new(), maps: 0 };
    let mut text = Text::new(file, machine, "A workload of ACE.", "from_marker = 1\n");
    let mut section = None;
    let mut runs = false;
    for (number, line) in (1..).zip(workload.lines()) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix('#').map(str::trim) {
            let next = Section::named(name).ok_or_else(|| {
                reader.error(
                    number,
                    format!("{name:?} is no section: write # define, # declare, # setup or # run"),
                )
            })?;
            if next == Section::Run && !std::mem::replace(&mut runs, true) {
                text.step(number, "sync = true");
                text.step(number, "marker = 1");
            }
            section = Some(next);
            continue;
        }
        match section {
            Some(Section::Define) => reader.define(line),
            Some(Section::Declare) => (),
            Some(Section::Setup | Section::Run) => reader.operation(number, line, &mut text)?,
            None => return Err(reader.error(number, "stands in no section: begin with # define".to_owned())),
        }
    }
    if !runs {
        return Err(reader.error(workload.lines().count().max(1), "has no section # run".to_owned()));
    }
    text.finish()
}

#[derive(Clone, Copy, PartialEq)]
enum Section {
    Define,
    Declare,
    Setup,
    Run,
}

impl Section {
    fn named(name: &str) -> Option<Section> {
        match name {
            "define" => Some(Section::Define),
            "declare" => Some(Section::Declare),
            "setup" => Some(Section::Setup),
            "run" => Some(Section::Run),
            _ => None,
        }
    }
}

struct Reader<'a> {
    file: &'a str,
    /// Paths by the names without slashes.
    paths: BTreeMap<String, String>,
    /// What exists: whether it is a directory.
    exists: BTreeMap<String, bool>,
    /// Where the file of an open descriptor is now, by the name under which it was opened.
    open: BTreeMap<String, String>,
    maps: usize,
}

impl Reader<'_> {
    fn error(&self, line: usize, what: String) -> ImportError {
        ImportError { file: self.file.to_owned(), line, what }
    }

    fn define(&mut self, path: &str) {
        // `test` is the mount point itself.
        let path_of = if path == "test" { "." } else { path };
        self.paths.insert(path.replace('/', ""), path_of.to_owned());
    }

    fn path(&self, line: usize, name: &str) -> Result<String, ImportError> {
        let known = self.paths.get(&name.replace('/', "")).cloned();
        known.ok_or_else(|| self.error(line, format!("{name:?} is not among the paths of # define")))
    }

    /// The file of a descriptor.
    fn opened(&self, line: usize, name: &str) -> Result<String, ImportError> {
        let open = self.open.get(&name.replace('/', "")).cloned();
        open.ok_or_else(|| self.error(line, format!("{name:?} is not open here")))
    }

    fn operation(&mut self, line: usize, text: &str, steps: &mut Text) -> Result<(), ImportError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let word = |at: usize| {
            words.get(at).copied().ok_or_else(|| {
                self.error(line, format!("{:?} needs more than {} arguments", words[0], words.len() - 1))
            })
        };
        let number = |at: usize| {
            let word = word(at)?;
            word.parse::<u64>().map_err(|_| self.error(line, format!("{word:?} is no number of bytes")))
        };
        match words[0] {
            "none" | "declare" => {}
            "sync" => steps.step(line, "sync = true"),
            "checkpoint" => {
                let marker = number(1)?.saturating_add(1);
                steps.step(line, &format!("marker = {marker}"));
            }
            "mkdir" => {
                let path = self.path(line, word(1)?)?;
                steps.step(line, &format!("mkdir = {path:?}"));
                self.exists.insert(path, true);
            }
            "open" => {
                let (name, flags) = (word(1)?.to_owned(), word(2)?.to_owned());
                self.open_file(line, &name, &flags, steps)?;
            }
            "opendir" => {
                let name = word(1)?.to_owned();
                let path = self.path(line, &name)?;
                self.open.insert(name.replace('/', ""), path);
            }
            "close" => {
                let name = word(1)?.replace('/', "");
                self.open.remove(&name);
            }
            "remove" | "unlink" | "rmdir" => {
                let path = self.path(line, word(1)?)?;
                steps.step(line, &format!("unlink = {path:?}"));
                self.exists.remove(&path);
            }
            "truncate" => {
                let (path, size) = (self.path(line, word(1)?)?, number(2)?);
                steps.step(line, &format!("truncate = {{ file = {path:?}, size = {size} }}"));
            }
            "write" | "dwrite" => {
                let (path, at, bytes) = (self.opened(line, word(1)?)?, number(2)?, number(3)?);
                steps.step(line, &format!("write = {{ file = {path:?}, at = {at}, bytes = {bytes} }}"));
                // Opened with O_SYNC.
                if words[0] == "dwrite" {
                    steps.step(line, &format!("fsync = {path:?}"));
                }
            }
            "mmapwrite" => {
                let (path, at, bytes) = (self.opened(line, word(1)?)?, number(2)?, number(3)?);
                self.mmapwrite(line, &path, at, bytes, steps)?;
            }
            "falloc" => {
                let (path, at, bytes) = (self.opened(line, word(1)?)?, number(3)?, number(4)?);
                let mode = mode_of(word(2)?).ok_or_else(|| {
                    self.error(line, format!("{:?} is no mode of fallocate that is known here", words[2]))
                })?;
                steps.step(
                    line,
                    &format!(
                        "fallocate = {{ file = {path:?}, at = {at}, bytes = {bytes}, mode = \"{mode}\" }}"
                    ),
                );
            }
            "rename" | "link" => {
                let (from, to) = (self.path(line, word(1)?)?, self.path(line, word(2)?)?);
                steps.step(line, &format!("{} = {{ from = {from:?}, to = {to:?} }}", words[0]));
                self.moved(&from, &to, words[0] == "rename");
            }
            "symlink" => {
                let (target, path) = (self.path(line, word(1)?)?, self.path(line, word(2)?)?);
                steps.step(line, &format!("symlink = {{ target = \"{MOUNT}/{target}\", path = {path:?} }}"));
                self.exists.insert(path, false);
            }
            "fsync" | "fdatasync" => {
                let path = self.opened(line, word(1)?)?;
                let is_file = self.exists.get(&path) == Some(&false);
                let call = if is_file { words[0] } else { "fsync" };
                steps.step(line, &format!("{call} = {path:?}"));
            }
            "fsetxattr" => {
                let (path, (name, value)) = (self.opened(line, word(1)?)?, XATTR);
                steps.step(
                    line,
                    &format!("setxattr = {{ path = {path:?}, name = \"{name}\", value = \"{value}\" }}"),
                );
            }
            "removexattr" => {
                let path = self.path(line, word(1)?)?;
                steps.step(line, &format!("removexattr = {{ path = {path:?}, name = \"{}\" }}", XATTR.0));
            }
            other => {
                return Err(self.error(line, format!(
                    "{other:?} is no operation that is known here: these are mkdir, open, opendir, close, remove, unlink, rmdir, truncate, write, dwrite, mmapwrite, falloc, rename, link, symlink, fsync, fdatasync, sync, fsetxattr, removexattr, checkpoint, none"
                )));
            }
        }
        Ok(())
    }

    fn open_file(
        &mut self,
        line: usize,
        name: &str,
        flags: &str,
        steps: &mut Text,
    ) -> Result<(), ImportError> {
        let path = self.path(line, name)?;
        let has = |flag: &str| flags.split('|').any(|one| one.trim() == flag);
        match self.exists.get(&path) {
            Some(false) if has("O_TRUNC") => {
                steps.step(line, &format!("truncate = {{ file = {path:?}, size = 0 }}"));
            }
            Some(_) => (),
            None if path == "." => (),
            None if has("O_CREAT") => {
                steps.step(line, &format!("create = {{ file = {path:?} }}"));
                self.exists.insert(path.clone(), false);
            }
            None => {
                return Err(
                    self.error(line, format!("{path:?} does not exist here, and O_CREAT is not given"))
                );
            }
        }
        self.open.insert(name.replace('/', ""), path);
        Ok(())
    }

    /// fallocate, a mapping from the beginning of the file, stores, msync of two pages, munmap: as the adapter does it.
    fn mmapwrite(
        &mut self,
        line: usize,
        path: &str,
        at: u64,
        bytes: u64,
        steps: &mut Text,
    ) -> Result<(), ImportError> {
        let end = at.checked_add(bytes).filter(|_| bytes > 0);
        let end = end.ok_or_else(|| self.error(line, format!("{bytes} bytes at {at} cannot be mapped")))?;
        self.maps += 1;
        let map = format!("m{}", self.maps);
        let from = at / 4096 * 4096;
        let synced = (8192 + at - from).min(end - from);
        steps.step(line, &format!("fallocate = {{ file = {path:?}, at = {at}, bytes = {bytes} }}"));
        steps.step(line, &format!("map = {{ file = {path:?}, as = \"{map}\", size = {end} }}"));
        steps.step(line, &format!("store = {{ map = \"{map}\", at = {at}, bytes = {bytes} }}"));
        steps.step(line, &format!("msync = {{ map = \"{map}\", at = {from}, bytes = {synced} }}"));
        steps.step(line, &format!("munmap = \"{map}\""));
        Ok(())
    }

    fn moved(&mut self, from: &str, to: &str, gone: bool) {
        let below = format!("{from}/");
        let kinds: Vec<(String, bool)> = self
            .exists
            .iter()
            .filter(|(path, _)| *path == from || path.starts_with(&below))
            .map(|(path, directory)| (path.clone(), *directory))
            .collect();
        for (path, directory) in kinds {
            if gone {
                self.exists.remove(&path);
            }
            self.exists.insert(format!("{to}{}", &path[from.len()..]), directory);
        }
        if gone {
            for path in self.open.values_mut() {
                if path == from || path.starts_with(&below) {
                    *path = format!("{to}{}", &path[from.len()..]);
                }
            }
        }
    }
}

/// The mode of fallocate, as scenarios name it.
fn mode_of(flags: &str) -> Option<&'static str> {
    let mut flags: Vec<&str> = flags.split('|').map(str::trim).collect();
    flags.sort_unstable();
    match flags[..] {
        ["0"] => Some("allocate"),
        ["FALLOC_FL_KEEP_SIZE"] => Some("keep-size"),
        ["FALLOC_FL_KEEP_SIZE", "FALLOC_FL_PUNCH_HOLE"] => Some("punch-hole"),
        ["FALLOC_FL_ZERO_RANGE"] => Some("zero-range"),
        ["FALLOC_FL_KEEP_SIZE", "FALLOC_FL_ZERO_RANGE"] => Some("zero-range-keep-size"),
        ["FALLOC_FL_COLLAPSE_RANGE"] => Some("collapse-range"),
        ["FALLOC_FL_INSERT_RANGE"] => Some("insert-range"),
        _ => None,
    }
}
