//! The cache directory: trees of files that are written whole, checked when read, and made anew when damaged.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// The cache directory of pmemsim. Several processes may use one at the same time.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// Name of the file in a tree that lists its files: `BLAKE3 PATH` a line.
const LIST: &str = ".list";
/// How long a lock is waited for without a word.
const PATIENCE: Duration = Duration::from_secs(2);

impl Cache {
    /// The user's: `$XDG_CACHE_HOME/pmemsim` or `~/.cache/pmemsim`.
    ///
    /// # Errors
    /// [`Error::NoCacheDirectory`] without either variable; [`Error::CacheDirectory`], [`Error::DiskFull`] when it cannot be
    /// made.
    pub fn open() -> Result<Cache> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let base = base.or_else(|| variable("HOME").map(|home| home.join(".cache")));
        Cache::at(&base.ok_or(Error::NoCacheDirectory)?.join("pmemsim"))
    }

    /// A cache in `root`, made when it is not there.
    ///
    /// # Errors
    /// [`Error::CacheDirectory`], [`Error::DiskFull`].
    pub fn at(root: &Path) -> Result<Cache> {
        create_dir(root).map_err(Error::cache(root))?;
        let root = root.canonicalize().map_err(Error::io("open", root))?;
        Ok(Cache { root })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Says on stderr what takes time. Never on stdout: that is for results.
    pub(crate) fn say(&self, text: &str) {
        let _ = writeln!(io::stderr(), "pmemsim: {text}");
    }

    /// Holds the lock `name` until the returned file is dropped. Threads of one process exclude each other, too.
    ///
    /// # Errors
    /// [`Error::CacheDirectory`], [`Error::DiskFull`], [`Error::Io`].
    pub fn lock(&self, name: &str) -> Result<File> {
        let (file, path) = self.open_lock(name)?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(PATIENCE / 200),
                Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            }
        }
        self.say(&format!("waiting for another pmemsim, which works on {name}"));
        file.lock().map_err(Error::io("lock", &path))?;
        Ok(file)
    }

    /// The file of a lock that is not held yet, and its path.
    fn open_lock(&self, name: &str) -> Result<(File, PathBuf)> {
        let dir = self.root.join("locks");
        let path = dir.join(name);
        // Whatever is written here is written under a lock: a cache that is read-only shows first at this.
        let open = || File::options().create(true).append(true).open(&path).map_err(Error::io("open", &path));
        let file = create_dir(&dir).and_then(|()| open()).map_err(Error::cache(&self.root))?;
        Ok((file, path))
    }

    /// Keeps the trees of a kind from being removed until the returned file is dropped.
    fn keep(&self, kind: &str) -> Result<File> {
        let (file, path) = self.open_lock(kind)?;
        file.lock_shared().map_err(Error::io("lock", &path))?;
        Ok(file)
    }

    /// A directory for work in progress, gone when dropped. On the same file system as everything else here.
    pub(crate) fn scratch(&self) -> Result<tempfile::TempDir> {
        let dir = self.root.join("tmp");
        create_dir(&dir)?;
        tempfile::tempdir_in(&dir).map_err(Error::io("make a directory in", &dir))
    }

    /// Writes `bytes` to `path` (below the root) so that it is there whole or not at all, also after a crash.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let dir = path.parent().unwrap_or(&self.root);
        create_dir(dir)?;
        let fail = || Error::io("write", path);
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(fail())?;
        file.write_all(bytes).map_err(fail())?;
        file.as_file().sync_all().map_err(fail())?;
        file.persist(path).map_err(|error| fail()(error.error))?;
        Ok(())
    }

    /// The tree `kind`/`key`. When it is missing or damaged, `make` fills an empty directory with it.
    pub(crate) fn tree(&self, kind: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<Tree> {
        let _kept = self.keep(kind)?;
        // One is made while others of its kind are used: a kernel takes minutes.
        let _lock = self.lock(&format!("{kind}-{key}"))?;
        let place = self.root.join(kind).join(key);
        if place.exists() {
            match Tree::open(&place) {
                Ok(tree) => return Ok(tree),
                Err(_) => self.say(&format!("{} is damaged; making it anew", place.display())),
            }
            fs::remove_dir_all(&place).map_err(Error::io("remove", &place))?;
        }
        let scratch = self.scratch()?;
        make(scratch.path())?;
        write_list(scratch.path())?;
        create_dir(&self.root.join(kind))?;
        fs::rename(scratch.path(), &place).map_err(Error::io("write", &place))?;
        Tree::open(&place)
    }

    /// Removes a part of the cache, when it is there.
    pub(crate) fn remove(&self, kind: &str) -> Result<()> {
        let _lock = self.lock(kind)?;
        let path = self.root.join(kind);
        if path.exists() { fs::remove_dir_all(&path).map_err(Error::io("remove", &path)) } else { Ok(()) }
    }

    /// Removes what is soon there again: base snapshots, which take a boot, and downloaded packages that are unpacked
    /// already. Whoever uses a snapshot keeps it. Returns the bytes freed.
    ///
    /// # Errors
    /// [`Error::Io`], and those of [`Cache::lock`].
    pub fn prune(&self) -> Result<u64> {
        let mut freed = 0;
        for kind in ["snapshots", "debs"] {
            let path = self.root.join(kind);
            if path.exists() {
                freed += size_of(&path)?;
                self.remove(kind)?;
            }
        }
        Ok(freed)
    }

    /// Removes everything but the locks; returns the bytes freed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clean(&self) -> Result<u64> {
        let mut freed = 0;
        for path in entries(&self.root)? {
            if path.file_name().is_some_and(|name| name == "locks") {
                continue;
            }
            freed += size_of(&path)?;
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(Error::io("remove", &path))?;
        }
        Ok(freed)
    }
}

/// A directory in the cache whose files are what they were when it was made.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    files: BTreeSet<PathBuf>,
}

impl Tree {
    /// Checks that every file of the list is there and unchanged.
    fn open(root: &Path) -> Result<Tree> {
        let path = root.join(LIST);
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let mut files = BTreeSet::new();
        for line in text.lines() {
            let (hash, name) = line.split_once(' ').ok_or_else(|| damaged(&path))?;
            let file = root.join(name);
            let bytes = fs::read(&file).map_err(Error::io("read", &file))?;
            if blake3::hash(&bytes).to_hex().as_str() != hash {
                return Err(damaged(&file));
            }
            files.insert(PathBuf::from(name));
        }
        Ok(Tree { root: root.to_path_buf(), files })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Paths of all files, relative to the root, in byte order. Symbolic links are not among them.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// The file's bytes.
    pub(crate) fn read(&self, name: &Path) -> Result<Vec<u8>> {
        let path = self.root.join(name);
        fs::read(&path).map_err(Error::io("read", &path))
    }
}

fn damaged(path: &Path) -> Error {
    Error::io("use", path)(io::Error::new(
        io::ErrorKind::InvalidData,
        "its contents changed since it was made",
    ))
}

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("make the directory", path))
}

/// What is in the directory, in byte order of the names.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let fail = || Error::io("list", dir);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail())? {
        paths.push(entry.map_err(fail())?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Regular files below `dir`, relative to it, in byte order. Symbolic links are not followed.
pub(crate) fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(next) = left.pop() {
        for path in entries(&next)? {
            let kind = path.symlink_metadata().map_err(Error::io("look at", &path))?.file_type();
            if kind.is_dir() {
                left.push(path);
            } else if kind.is_file() {
                found.push(path.strip_prefix(dir).expect("it lies below").to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes of the file, or of everything below the directory.
pub(crate) fn size_of(path: &Path) -> Result<u64> {
    let data = path.symlink_metadata().map_err(Error::io("look at", path))?;
    if !data.is_dir() {
        return Ok(data.len());
    }
    let mut sum = 0;
    for file in files_below(path)? {
        let file = path.join(file);
        sum += file.symlink_metadata().map_err(Error::io("look at", &file))?.len();
    }
    Ok(sum)
}

fn write_list(dir: &Path) -> Result<()> {
    let mut text = String::new();
    for name in files_below(dir)? {
        let path = dir.join(&name);
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io("write", &path))?;
        text += &format!("{} {}\n", blake3::hash(&bytes).to_hex(), name.display());
    }
    let path = dir.join(LIST);
    let write = || {
        let mut file = File::create(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(Error::io("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_one(text: &'static str) -> impl FnOnce(&Path) -> Result<()> {
        move |dir| fs::write(dir.join("one"), text).map_err(Error::io("write", dir))
    }

    #[test]
    fn a_tree_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        cache.tree("things", "key", make_one("first")).unwrap();
        let again = cache.tree("things", "key", |_| panic!("it is there already")).unwrap();
        assert_eq!(again.read(Path::new("one")).unwrap(), b"first");
        assert_eq!(again.files().collect::<Vec<_>>(), [Path::new("one")]);
    }

    #[test]
    fn a_tree_is_there_while_another_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        cache.tree("things", "key", make_one("first")).unwrap();
        let make = |dir: &Path| {
            // Were there one lock for all things, this would wait for itself.
            cache.tree("things", "key", |_| panic!("it is there already"))?;
            make_one("second")(dir)
        };
        let other = cache.tree("things", "other", make).unwrap();
        assert_eq!(other.read(Path::new("one")).unwrap(), b"second");
    }

    #[test]
    fn a_tree_with_changed_contents_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let tree = cache.tree("things", "key", make_one("first")).unwrap();
        fs::write(tree.root().join("one"), "fir").unwrap();
        let again = cache.tree("things", "key", make_one("second")).unwrap();
        assert_eq!(again.read(Path::new("one")).unwrap(), b"second");
    }

    #[test]
    fn a_tree_with_a_missing_file_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let tree = cache.tree("things", "key", make_one("first")).unwrap();
        fs::remove_file(tree.root().join("one")).unwrap();
        let again = cache.tree("things", "key", make_one("second")).unwrap();
        assert_eq!(again.read(Path::new("one")).unwrap(), b"second");
    }

    #[test]
    fn a_failed_make_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let failed = cache.tree("things", "key", |_| Err(Error::NoCacheDirectory));
        assert!(matches!(failed, Err(Error::NoCacheDirectory)));
        assert!(!dir.path().join("things/key").exists());
    }

    #[test]
    fn cleaning_frees_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        cache.tree("things", "key", make_one("first")).unwrap();
        assert!(cache.clean().unwrap() >= 5);
        assert!(!dir.path().join("things").exists());
    }
}
