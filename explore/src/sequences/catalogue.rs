//! The operations that sequences are made of, on a small tree of files.

/// Steps that make the tree, which is durable before a sequence begins: files with one name and with two, with holes,
/// in the root and in a directory; an empty directory; an extended attribute.
pub(super) const TREE: [&str; 12] = [
    r#"mkdir = "A""#,
    r#"mkdir = "B""#,
    r#"create = { file = "foo" }"#,
    r#"write = { file = "foo", at = 0, bytes = "12K", pattern = "byte:0x66" }"#,
    r#"link = { from = "foo", to = "hard" }"#,
    r#"setxattr = { path = "foo", name = "user.old", value = "before" }"#,
    r#"create = { file = "bar" }"#,
    r#"write = { file = "bar", at = 0, bytes = 5000 }"#,
    r#"create = { file = "A/foo" }"#,
    r#"write = { file = "A/foo", at = 0, bytes = 4096 }"#,
    r#"create = { file = "sparse", size = "16K" }"#,
    "sync = true",
];

/// What makes a sequence durable, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Nothing: all of it is old or new.
    Nothing,
    /// fsync(2) of the file or directory that the operation is about.
    Fsync,
    /// fdatasync(2) of it.
    Fdatasync,
    /// fsync(2) of the directory whose names the operation changes.
    Directory,
    /// sync(2)
    Sync,
}

impl Persistence {
    pub fn name(self) -> &'static str {
        match self {
            Persistence::Nothing => "nothing",
            Persistence::Fsync => "fsync",
            Persistence::Fdatasync => "fdatasync",
            Persistence::Directory => "fsync-dir",
            Persistence::Sync => "sync",
        }
    }
}

use Persistence::{Directory, Fdatasync, Fsync, Nothing, Sync};

/// One operation.
pub(super) struct Operation {
    pub name: &'static str,
    /// Actions of steps; `%` is the number of the operation in its sequence.
    pub steps: &'static [&'static str],
    /// What fsync is about, by the name that it has behind the operation, or its directory where it has none.
    pub subject: &'static str,
    /// What makes it durable, alone: the first of these when it ends a longer sequence.
    pub persistence: &'static [Persistence],
}

impl Operation {
    /// The directory that has the subject's name.
    pub fn directory(&self) -> &'static str {
        self.subject.rsplit_once('/').map_or(".", |(directory, _)| directory)
    }
}

const fn operation(
    name: &'static str,
    steps: &'static [&'static str],
    subject: &'static str,
    persistence: &'static [Persistence],
) -> Operation {
    Operation { name, steps, subject, persistence }
}

/// Every operation.
pub(super) const OPERATIONS: [Operation; 43] = [
    // Names.
    operation("create-new", &[r#"create = { file = "new" }"#], "new", &[Fsync, Directory]),
    operation("create-A/new", &[r#"create = { file = "A/new" }"#], "A/new", &[Fsync, Sync]),
    operation("mkdir-C", &[r#"mkdir = "C""#], "C", &[Fsync, Directory]),
    operation("mkdir-A/C", &[r#"mkdir = "A/C""#], "A/C", &[Fsync]),
    operation("symlink-short", &[r#"symlink = { target = "foo", path = "short" }"#], "short", &[Directory]),
    operation("symlink-long", &[LONG_SYMLINK], "A/long", &[Directory]),
    operation("link-bar", &[r#"link = { from = "bar", to = "bar2" }"#], "bar2", &[Fsync, Directory]),
    operation("link-bar-A", &[r#"link = { from = "bar", to = "A/bar" }"#], "A/bar", &[Fsync]),
    operation("unlink-bar", &[r#"unlink = "bar""#], "bar", &[Directory, Sync]),
    operation("unlink-hard", &[r#"unlink = "hard""#], "hard", &[Directory]),
    operation("unlink-A/foo", &[r#"unlink = "A/foo""#], "A/foo", &[Directory]),
    operation("rmdir-B", &[r#"unlink = "B""#], "B", &[Directory]),
    operation("rename", &[r#"rename = { from = "bar", to = "baz" }"#], "baz", &[Fsync, Directory]),
    operation("rename-into", &[r#"rename = { from = "bar", to = "A/bar" }"#], "A/bar", &[Fsync, Sync]),
    operation("rename-over", &[r#"rename = { from = "bar", to = "A/foo" }"#], "A/foo", &[Fsync, Nothing]),
    operation(
        "rename-over-linked",
        &[r#"rename = { from = "bar", to = "foo" }"#],
        "foo",
        &[Fsync, Directory],
    ),
    operation("rename-dir", &[r#"rename = { from = "A", to = "C" }"#], "C", &[Fsync, Directory]),
    operation("rename-dir-over", &[r#"rename = { from = "A", to = "B" }"#], "B", &[Fsync, Sync]),
    // Extended attributes.
    operation(
        "setxattr",
        &[r#"setxattr = { path = "bar", name = "user.new", value = "1" }"#],
        "bar",
        &[Fsync],
    ),
    operation("setxattr-large", &[LARGE_XATTR], "bar", &[Fsync]),
    operation("setxattr-again", &[XATTR_AGAIN], "foo", &[Fsync, Sync]),
    operation(
        "setxattr-dir",
        &[r#"setxattr = { path = "A", name = "user.new", value = "1" }"#],
        "A",
        &[Fsync],
    ),
    operation("removexattr", &[r#"removexattr = { path = "foo", name = "user.old" }"#], "foo", &[Fsync]),
    // Sizes.
    operation("truncate", &[r#"truncate = { file = "bar", size = 100 }"#], "bar", &[Fsync, Fdatasync]),
    operation("truncate-all", &[r#"truncate = { file = "bar", size = 0 }"#], "bar", &[Fsync]),
    operation("truncate-up", &[r#"truncate = { file = "bar", size = "64K" }"#], "bar", &[Fdatasync]),
    operation("truncate-linked", &[r#"truncate = { file = "foo", size = 5000 }"#], "foo", &[Fsync]),
    operation("truncate-sparse", &[r#"truncate = { file = "sparse", size = 8292 }"#], "sparse", &[Fsync]),
    // Content.
    operation(
        "append",
        &[r#"write = { file = "bar", append = true, bytes = 3000 }"#],
        "bar",
        &[Fsync, Fdatasync],
    ),
    operation(
        "overwrite",
        &[r#"write = { file = "foo", at = 100, bytes = 5000 }"#],
        "foo",
        &[Fdatasync, Sync],
    ),
    operation(
        "write-hole",
        &[r#"write = { file = "sparse", at = "4K", bytes = 4096 }"#],
        "sparse",
        &[Fdatasync, Fsync],
    ),
    operation("write-behind", &[r#"write = { file = "bar", at = 20000, bytes = 100 }"#], "bar", &[Fdatasync]),
    operation("allocate", &[r#"fallocate = { file = "bar", at = "8K", bytes = "8K" }"#], "bar", &[Fsync]),
    operation(
        "allocate-hole",
        &[r#"fallocate = { file = "sparse", at = "4K", bytes = "8K" }"#],
        "sparse",
        &[Fsync],
    ),
    operation("keep-size", &[KEEP_SIZE], "bar", &[Fsync]),
    operation("punch-hole", &[PUNCH_HOLE], "foo", &[Fsync, Fdatasync]),
    operation("zero-range", &[ZERO_RANGE], "foo", &[Fsync]),
    operation("collapse-range", &[COLLAPSE_RANGE], "foo", &[Fsync]),
    operation("insert-range", &[INSERT_RANGE], "foo", &[Fsync]),
    // Mappings.
    operation(
        "mmap-hole",
        &[MAP_SPARSE, r#"store = { map = "m%", at = 4096, bytes = 256 }"#, MSYNC],
        "sparse",
        &[Nothing],
    ),
    operation(
        "mmap-linked",
        &[MAP_FOO, r#"store = { map = "m%", at = 64, bytes = 512 }"#, MSYNC],
        "foo",
        &[Nothing],
    ),
    operation(
        "mmap",
        &[MAP_FOO, r#"store = { map = "m%", at = 64, bytes = 512 }"#],
        "foo",
        &[Fsync, Nothing],
    ),
    operation("map-sync", &[MAP_SYNC, STORE_SYNC], "sparse", &[Nothing]),
];

const LONG_SYMLINK: &str = r#"symlink = { target = "a-target-that-does-not-fit-into-an-inode-of-ext4-and-so-needs-a-block-of-its-own", path = "A/long" }"#;
const LARGE_XATTR: &str =
    r#"setxattr = { path = "bar", name = "user.large", value = "0123456789", bytes = 1000 }"#;
const XATTR_AGAIN: &str = r#"setxattr = { path = "foo", name = "user.old", value = "another" }"#;
const KEEP_SIZE: &str = r#"fallocate = { file = "bar", at = "8K", bytes = "8K", mode = "keep-size" }"#;
const PUNCH_HOLE: &str = r#"fallocate = { file = "foo", at = 100, bytes = 6000, mode = "punch-hole" }"#;
const ZERO_RANGE: &str = r#"fallocate = { file = "foo", at = 2048, bytes = 4096, mode = "zero-range" }"#;
const COLLAPSE_RANGE: &str = r#"fallocate = { file = "foo", at = 0, bytes = "4K", mode = "collapse-range" }"#;
const INSERT_RANGE: &str = r#"fallocate = { file = "foo", at = "4K", bytes = "4K", mode = "insert-range" }"#;
const MAP_SPARSE: &str = r#"map = { file = "sparse", as = "m%" }"#;
const MAP_FOO: &str = r#"map = { file = "foo", as = "m%" }"#;
const MAP_SYNC: &str = r#"map = { file = "sparse", as = "m%", sync = true }"#;
const MSYNC: &str = r#"msync = { map = "m%" }"#;
const STORE_SYNC: &str = "store = { map = \"m%\", at = 8192, bytes = 256 }\nflush = \"clwb\"\nfence = \"sfence\"\npromise = \"contents\"";
