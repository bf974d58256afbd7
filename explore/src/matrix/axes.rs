//! What the matrix is made of: file systems, pages, situations and platforms.

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileSystem {
    Ext4,
    /// With fast commits.
    Ext4FastCommit,
    /// Without a journal.
    Ext4NoJournal,
    Xfs,
}

impl FileSystem {
    pub const ALL: [FileSystem; 4] =
        [FileSystem::Ext4, FileSystem::Ext4FastCommit, FileSystem::Ext4NoJournal, FileSystem::Xfs];

    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Ext4FastCommit => "ext4-fast-commit",
            FileSystem::Ext4NoJournal => "ext4-no-journal",
            FileSystem::Xfs => "xfs",
        }
    }

    /// As `[filesystem]` has it: the type, and arguments of mkfs. Blocks are aligned to 2 MiB, so that huge faults happen.
    pub fn made(self) -> (&'static str, &'static str) {
        match self {
            FileSystem::Ext4 => ("ext4", r#""-E", "stride=512,stripe_width=512""#),
            FileSystem::Ext4FastCommit => {
                ("ext4", r#""-E", "stride=512,stripe_width=512", "-O", "fast_commit""#)
            }
            FileSystem::Ext4NoJournal => {
                ("ext4", r#""-E", "stride=512,stripe_width=512", "-O", "^has_journal""#)
            }
            FileSystem::Xfs => ("xfs", r#""-d", "su=2m,sw=1", "-l", "su=4096""#),
        }
    }

    pub fn has_journal(self) -> bool {
        self != FileSystem::Ext4NoJournal
    }
}

/// What an entry of the page table maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Page {
    /// 4 KiB
    Pte,
    /// 2 MiB
    Pmd,
}

impl Page {
    pub const ALL: [Page; 2] = [Page::Pte, Page::Pmd];

    pub fn name(self) -> &'static str {
        match self {
            Page::Pte => "pte",
            Page::Pmd => "pmd",
        }
    }

    /// As a step's `fault` has it.
    pub fn size(self) -> &'static str {
        match self {
            Page::Pte => "4K",
            Page::Pmd => "2M",
        }
    }

    /// Bytes of the file.
    pub fn file(self) -> &'static str {
        match self {
            Page::Pte => "16K",
            Page::Pmd => "2M",
        }
    }

    /// Where the page begins to which is stored, and where in the file that is.
    pub fn store_at(self) -> (u64, u64) {
        match self {
            Page::Pte => (0x1000, 0x1440),
            Page::Pmd => (0, 0x12_3440),
        }
    }
}

/// What saves the persistent memory, and how the kernel finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Platform {
    Adr,
    Eadr,
    AdrLost,
    /// A range of e820 type 12.
    E820,
    VirtioPmem,
}

impl Platform {
    pub const ALL: [Platform; 5] =
        [Platform::Adr, Platform::Eadr, Platform::AdrLost, Platform::E820, Platform::VirtioPmem];

    pub fn name(self) -> &'static str {
        match self {
            Platform::Adr => "adr",
            Platform::Eadr => "eadr",
            Platform::AdrLost => "adr-lost",
            Platform::E820 => "e820",
            Platform::VirtioPmem => "virtio-pmem",
        }
    }

    /// The table of its region.
    pub fn region(self) -> &'static str {
        match self {
            Platform::Adr => "[[nvdimm]]\nsize = \"64M\"\nplatform = \"adr\"",
            Platform::Eadr => "[[nvdimm]]\nsize = \"64M\"\nplatform = \"eadr\"",
            Platform::AdrLost => "[[nvdimm]]\nsize = \"64M\"\nplatform = \"adr-lost\"\nflush_hints = 2",
            Platform::E820 => "[[pmem_legacy]]\nsize = \"64M\"",
            Platform::VirtioPmem => "[[virtio_pmem]]\nsize = \"64M\"",
        }
    }

    /// What makes durable, beside a store: flush, fence and promise. None where nothing that a program can do does.
    pub fn beside(self) -> &'static str {
        match self {
            Platform::Adr | Platform::E820 => {
                "\nflush = \"clwb\"\nfence = \"sfence\"\npromise = \"contents\""
            }
            Platform::Eadr => "\nfence = \"sfence\"\npromise = \"contents\"",
            Platform::AdrLost => "\nflush = \"clwb\"\nfence = \"sfence\"",
            Platform::VirtioPmem => "",
        }
    }

    /// Whether a store is promised by what stands beside it; otherwise by msync(2).
    pub fn promises_beside(self) -> bool {
        !matches!(self, Platform::AdrLost | Platform::VirtioPmem)
    }

    /// Whether MAP_SYNC is to be had.
    pub fn maps_sync(self) -> bool {
        self != Platform::VirtioPmem
    }
}

/// Who stores beside the one that is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    Nobody,
    Thread,
    Process,
}

/// What the fault meets, and what comes after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    pub name: &'static str,
    /// Steps whose result is durable before the power can go; `SIZE` is the size of the file.
    pub before: &'static [&'static str],
    /// Steps that are not durable when the fault comes.
    pub open: &'static [&'static str],
    /// Whether the page is loaded from before it is stored to.
    pub reads_first: bool,
    /// Whether the kernel allocates, and zeroes, in the fault.
    pub zeroes: bool,
    /// Whether metadata is open that the fault has to wait for.
    pub synchronous: bool,
    pub other: Other,
    /// What is combined with the mapping: steps behind the first promise. `STORE` is another store that is promised, and
    /// `FAULT` one that takes a fault, `PLAIN` one that is not promised; `MSYNC` is msync(2) of the page.
    pub then: &'static [&'static str],
}

const SPARSE: &[&str] = &[r#"create = { file = "a", size = "SIZE" }"#];
const HOLE: Situation = Situation {
    name: "hole",
    before: SPARSE,
    open: &[],
    reads_first: false,
    zeroes: true,
    synchronous: true,
    other: Other::Nobody,
    then: &[],
};
const WRITTEN: &[&str] = &[
    r#"create = { file = "a" }"#,
    r#"write = { file = "a", at = 0, bytes = "SIZE", pattern = "byte:0x77" }"#,
    // XFS takes sync(2) alone for a reason to wait once more: it leaves ili_fsync_fields as they are.
    r#"fsync = "a""#,
];

/// Situations that a file system with a journal is put into, on every platform.
pub(super) const SITUATIONS: [Situation; 9] = [
    HOLE,
    Situation {
        name: "unwritten",
        before: &[r#"create = { file = "a" }"#, r#"fallocate = { file = "a", at = 0, bytes = "SIZE" }"#],
        ..HOLE
    },
    Situation {
        name: "allocated-uncommitted",
        before: &[r#"create = { file = "a" }"#],
        open: &[r#"write = { file = "a", at = 0, bytes = "SIZE", pattern = "byte:0x77" }"#],
        zeroes: false,
        ..HOLE
    },
    Situation {
        name: "beyond-eof",
        before: &[
            r#"create = { file = "a" }"#,
            r#"fallocate = { file = "a", at = 0, bytes = "SIZE", mode = "keep-size" }"#,
        ],
        open: &[r#"truncate = { file = "a", size = "SIZE" }"#],
        ..HOLE
    },
    Situation { name: "read-first", reads_first: true, ..HOLE },
    Situation {
        name: "re-extended",
        before: WRITTEN,
        open: &[r#"truncate = { file = "a", size = 0 }"#, r#"truncate = { file = "a", size = "SIZE" }"#],
        then: &[r#"fsync = "a""#],
        ..HOLE
    },
    Situation { name: "two-processes", other: Other::Process, ..HOLE },
    Situation { name: "two-threads", other: Other::Thread, ..HOLE },
    COMMITTED,
];

const COMMITTED: Situation =
    Situation { name: "committed", before: WRITTEN, zeroes: false, synchronous: false, ..HOLE };

/// Those of a file system without a journal: nothing is open, for nothing would order it.
pub(super) const WITHOUT_JOURNAL: [Situation; 4] = [
    COMMITTED,
    Situation { name: "read-first", reads_first: true, ..COMMITTED },
    Situation { name: "two-processes", other: Other::Process, ..COMMITTED },
    Situation { name: "two-threads", other: Other::Thread, ..COMMITTED },
];

/// What is combined with a mapping, on the platform `adr`. Those that change no names, and free no blocks, come first.
pub(super) const COMBINATIONS: [Situation; 8] = [
    Situation { name: "then-msync", then: &["PLAIN", "MSYNC"], ..HOLE },
    Situation { name: "then-fsync", then: &["PLAIN", r#"fsync = "a""#], ..HOLE },
    Situation { name: "then-fdatasync", then: &["PLAIN", r#"fdatasync = "a""#], ..HOLE },
    Situation { name: "then-sync", then: &["PLAIN", "sync = true"], ..HOLE },
    Situation { name: "then-syncfs", then: &["PLAIN", "syncfs = true"], ..HOLE },
    Situation { name: "then-remap", then: &[r#"munmap = "m""#, "MAP", "STORE"], ..HOLE },
    Situation {
        name: "then-rename",
        then: &[r#"rename = { from = "a", to = "b" }"#, "STORE", r#"fsync = ".""#],
        ..HOLE
    },
    Situation { name: "then-punch", then: &["PUNCH", "FAULT", r#"fsync = "a""#], ..HOLE },
];

/// How many of the combinations need no journal.
pub(super) const NEED_NO_JOURNAL: usize = 6;

impl Situation {
    /// The same on a file whose blocks and metadata are durable.
    pub fn on_committed(self) -> Situation {
        Situation { before: WRITTEN, zeroes: false, synchronous: false, ..self }
    }
}

/// What is left out, and why.
pub(super) const LEFT_OUT: [(&str, &str); 5] = [
    (
        "ext4-no-journal: whatever allocates, extends, frees or renames",
        "nothing orders metadata without a journal: behind a power loss e2fsck has to mend the bitmaps, and a promise \
         holds only where no metadata is open",
    ),
    (
        "then-...: eadr, adr-lost, e820, virtio-pmem",
        "what is combined with a mapping lies above the platform; the other situations try these",
    ),
    (
        "virtio-pmem: MAP_SYNC",
        "mmap(2) refuses it, which each cell asserts; the same stores are then promised by msync(2)",
    ),
    (
        "adr-lost: the program's own flush as a promise",
        "no flush of a program reaches beyond the write-pending queue: msync(2), which writes the flush hints, promises",
    ),
    (
        "two-processes, two-threads: windows W0 to W8",
        "the windows of two faults lie across each other; the crash points are those of W9 and of what becomes durable",
    ),
];
