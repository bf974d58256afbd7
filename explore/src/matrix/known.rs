//! What stock kernels are known to do wrong in cells of the matrix, each written up on a page of its own.

use super::Cell;
use super::axes::FileSystem::{self, Ext4, Ext4FastCommit, Ext4NoJournal, Xfs};
use super::axes::Platform::{self, AdrLost, VirtioPmem};
use super::axes::{Other, Page};

/// Cells in which the same is found for the same reason.
pub(super) struct Known {
    /// The end of the names of the kernels: `-6.1`, or a whole name. None when all that were tried have it.
    series: Option<&'static str>,
    filesystem: FileSystem,
    /// All platforms when empty.
    platforms: &'static [Platform],
    which: fn(&Cell) -> bool,
    /// Exactly these classes are found.
    pub classes: &'static [&'static str],
    /// Below docs/.
    pub page: &'static str,
    /// The situations, for people.
    situations: &'static str,
}

const XFS_SYNC: &str = "findings/xfs-sync-misses-map-sync.md";
const SYNC: &str = "findings/ext4-no-journal-sync.md";
const FDATASYNC: &str = "findings/ext4-no-journal-fdatasync.md";
const PREFLUSH: &str = "findings/virtio-pmem-preflush.md";

/// The first that fits a cell holds.
pub(super) const KNOWN: [Known; 11] = [
    Known {
        series: None,
        filesystem: Xfs,
        platforms: &[],
        which: |cell| ["then-sync", "then-syncfs"].contains(&cell.situation.name),
        classes: &["lost"],
        page: XFS_SYNC,
        situations: "then-sync, then-syncfs",
    },
    Known {
        series: Some("mutants-6.1"),
        filesystem: Ext4NoJournal,
        platforms: &[AdrLost, VirtioPmem],
        which: |_| true,
        classes: &["lost"],
        page: FDATASYNC,
        situations: "all",
    },
    Known {
        series: Some("-6.1"),
        filesystem: Ext4NoJournal,
        platforms: &[VirtioPmem],
        which: |cell| cell.page == Page::Pmd && cell.situation.other != Other::Nobody,
        classes: &["lost", "corrupt"],
        page: FDATASYNC,
        situations: "pmd two-processes, two-threads",
    },
    Known {
        series: Some("-6.1"),
        filesystem: Ext4NoJournal,
        platforms: &[AdrLost, VirtioPmem],
        which: |_| true,
        classes: &["lost"],
        page: FDATASYNC,
        situations: "all others",
    },
    Known {
        series: Some("-6.12"),
        filesystem: Ext4NoJournal,
        platforms: &[VirtioPmem],
        which: |cell| cell.page == Page::Pmd && cell.situation.other == Other::Nobody,
        classes: &["corrupt"],
        page: SYNC,
        situations: "pmd committed, read-first",
    },
    Known {
        series: Some("mutants-6.1"),
        filesystem: Ext4,
        platforms: &[VirtioPmem],
        which: |cell| cell.page == Page::Pmd && cell.situation.name == "hole",
        classes: &["corrupt", "stale"],
        page: PREFLUSH,
        situations: "pmd hole",
    },
    preflush(Ext4, has_open_metadata, &["corrupt"], "all others but committed"),
    preflush(Ext4FastCommit, shrinks, &["lost"], "re-extended"),
    preflush(Ext4FastCommit, has_open_metadata, &["stale"], "all others but committed"),
    preflush(Xfs, shrinks, &["lost"], "re-extended"),
    preflush(Xfs, has_open_metadata, &["stale"], "all others but committed"),
];

/// What becomes durable in front of what it has to wait for, on virtio-pmem.
const fn preflush(
    filesystem: FileSystem,
    which: fn(&Cell) -> bool,
    classes: &'static [&'static str],
    situations: &'static str,
) -> Known {
    Known {
        series: Some("-6.1"),
        filesystem,
        platforms: &[VirtioPmem],
        which,
        classes,
        page: PREFLUSH,
        situations,
    }
}

/// The file had content that was durable.
fn shrinks(cell: &Cell) -> bool {
    cell.situation.name == "re-extended"
}

fn has_open_metadata(cell: &Cell) -> bool {
    cell.situation.synchronous
}

impl Known {
    /// What is known of this cell on this kernel.
    pub fn of(cell: &Cell, kernel: &str) -> Option<&'static Known> {
        KNOWN.iter().find(|known| {
            let platforms = known.platforms;
            // A release may be said behind an `@`. What is a path is a kernel of the user's, of which nothing is known.
            let name = kernel.split('@').next().unwrap_or_default();
            known.series.is_none_or(|series| !name.contains('/') && name.ends_with(series))
                && known.filesystem == cell.filesystem
                && (platforms.is_empty() || platforms.contains(&cell.platform))
                && (known.which)(cell)
        })
    }

    /// `FILESYSTEM SITUATIONS, PLATFORMS, SERIES`, for people.
    pub fn cells(&self) -> String {
        let platforms: String = self.platforms.iter().flat_map(|platform| [", ", platform.name()]).collect();
        let series = self.series.map_or(String::new(), |series| format!(", {}", series.trim_matches('-')));
        format!("{} {}{platforms}{series}", self.filesystem.name(), self.situations)
    }
}
