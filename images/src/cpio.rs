//! The "newc" cpio archive that the kernel unpacks into its root
//! (Documentation/driver-api/early-userspace/buffer-format.rst). The same entries give the same bytes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::cache::create_dir;
use crate::error::{Error, Result};

/// A tree of files in the making; parents are added by themselves. Paths have no leading slash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    data: Vec<u8>,
}

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

impl Archive {
    pub(crate) fn directory(&mut self, path: &str) {
        self.add(path, DIRECTORY | 0o755, (0, 0), Vec::new());
    }

    pub(crate) fn file(&mut self, path: &str, permissions: u32, data: Vec<u8>) {
        self.add(path, FILE | permissions & 0o7777, (0, 0), data);
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.add(path, SYMLINK | 0o777, (0, 0), target.as_bytes().to_vec());
    }

    pub(crate) fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.add(path, CHARACTER | 0o600, (major, minor), Vec::new());
    }

    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), data: Vec<u8>) {
        for (at, _) in path.match_indices('/') {
            let directory = Entry { mode: DIRECTORY | 0o755, device: (0, 0), data: Vec::new() };
            self.entries.entry(path[..at].to_string()).or_insert(directory);
        }
        self.entries.insert(path.to_string(), Entry { mode, device, data });
    }

    /// Every file, by its path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let is_file = |entry: &Entry| entry.mode & 0o170_000 == FILE;
        let files = self.entries.iter().filter(move |(_, entry)| is_file(entry));
        files.map(|(path, entry)| (path.as_str(), entry.data.as_slice()))
    }

    /// Paths of everything.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether something is at the path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Writes files, links and directories below `root`.
    pub(crate) fn unpack(&self, root: &Path) -> Result<()> {
        for (path, entry) in &self.entries {
            let place = root.join(path);
            let fail = Error::io("write", &place);
            match entry.mode & 0o170_000 {
                DIRECTORY => create_dir(&place)?,
                SYMLINK => symlink(OsStr::from_bytes(&entry.data), &place).map_err(fail)?,
                FILE => {
                    let permissions = fs::Permissions::from_mode(entry.mode & 0o7777);
                    fs::write(&place, &entry.data)
                        .and_then(|()| fs::set_permissions(&place, permissions))
                        .map_err(fail)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The archive: entries in byte order of their paths, so that a directory stands before what is in it.
    pub(crate) fn finish(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            write(&mut bytes, inode, path, entry);
        }
        write(&mut bytes, 0, "TRAILER!!!", &Entry { mode: 0, device: (0, 0), data: Vec::new() });
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

fn write(bytes: &mut Vec<u8>, inode: u32, path: &str, entry: &Entry) {
    let links = if entry.mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
    let size = u32::try_from(entry.data.len()).expect("a file in an initramfs is smaller than 4 GiB");
    let name = path.len() as u32 + 1;
    // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    let fields = [inode, entry.mode, 0, 0, links, 0, size, 0, 0, entry.device.0, entry.device.1, name, 0];
    bytes.extend(b"070701");
    for field in fields {
        bytes.extend(format!("{field:08x}").as_bytes());
    }
    bytes.extend(path.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(&entry.data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mode, path and data of every entry.
    fn read(mut bytes: &[u8]) -> Vec<(u32, String, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |at: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * at..14 + 8 * at]).unwrap();
                u32::from_str_radix(text, 16).unwrap() as usize
            };
            let (mode, size, name) = (field(1), field(6), field(11));
            let path = String::from_utf8(bytes[110..110 + name - 1].to_vec()).unwrap();
            let start = (110 + name).next_multiple_of(4);
            if path == "TRAILER!!!" {
                return entries;
            }
            entries.push((mode as u32, path, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn entries_come_back_sorted_with_their_parents() {
        let mut archive = Archive::default();
        archive.file("b/c/d", 0o755, b"12345".to_vec());
        archive.symlink("a", "b/c");
        archive.character_device("dev/console", 5, 1);
        let found = read(&archive.finish());
        let paths: Vec<_> = found.iter().map(|(mode, path, _)| (path.as_str(), *mode)).collect();
        let expected = [
            ("a", 0o120_777),
            ("b", 0o040_755),
            ("b/c", 0o040_755),
            ("b/c/d", 0o100_755),
            ("dev", 0o040_755),
            ("dev/console", 0o020_600),
        ];
        assert_eq!(paths, expected);
        assert_eq!(found[0].2, b"b/c");
        assert_eq!(found[3].2, b"12345");
    }

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let (mut one, mut two) = (Archive::default(), Archive::default());
        one.file("x/a", 0o644, vec![1]);
        one.file("x/b", 0o644, vec![2]);
        two.file("x/b", 0o644, vec![2]);
        two.file("x/a", 0o644, vec![1]);
        assert_eq!(one.finish(), two.finish());
    }
}
