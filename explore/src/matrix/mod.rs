//! The matrix of synchronous faults: file systems, page sizes, situations and platforms, each cell a scenario.
//!
//! What a fault meets decides what the kernel has to make durable before the page can be written: a hole, an unwritten
//! extent, blocks of a transaction that is open, a file whose size is not durable, a page that was mapped for reading.
//! Each cell says how its fault has to go - the size of the page, and whether it waits for the journal; one that went
//! another way is inconclusive.

mod axes;
mod known;
mod table;
mod text;

pub use self::table::table;

use self::axes::{COMBINATIONS, FileSystem, LEFT_OUT, NEED_NO_JOURNAL, Other, Page, Platform, SITUATIONS};
use self::axes::{Situation, WITHOUT_JOURNAL};
use crate::scenario::{Scenario, ScenarioError};

/// One cell.
#[derive(Clone, Debug)]
pub struct Cell {
    filesystem: FileSystem,
    page: Page,
    situation: Situation,
    platform: Platform,
}

impl Cell {
    /// `FILESYSTEM PAGE SITUATION PLATFORM`, in one word each.
    pub fn name(&self) -> String {
        let names = [self.filesystem.name(), self.page.name(), self.situation.name, self.platform.name()];
        names.join(" ")
    }

    /// Cells with the same number are of one machine, with the same regions and the same file system on it.
    pub fn machine(&self) -> u32 {
        let two_processors = u32::from(self.situation.other != Other::Nobody);
        (self.platform as u32 * 2 + two_processors) * 4 + self.filesystem as u32
    }

    /// The cell as a scenario, on this kernel.
    ///
    /// # Errors
    /// When the text is no scenario: a mistake in this module.
    pub fn scenario(&self, kernel: &str) -> Result<Scenario, ScenarioError> {
        Scenario::parse(&text::of(self, kernel), &self.name())
    }
}

/// All cells, in a fixed order: those of one machine stand together.
pub fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for platform in Platform::ALL {
        for filesystem in FileSystem::ALL {
            for page in Page::ALL {
                let cell = |situation: Situation| Cell { filesystem, page, situation, platform };
                cells.extend(situations(filesystem, platform).into_iter().map(cell));
            }
        }
    }
    cells.sort_by_key(Cell::machine);
    cells
}

fn situations(filesystem: FileSystem, platform: Platform) -> Vec<Situation> {
    let combined = platform == Platform::Adr;
    if filesystem.has_journal() {
        let combinations = COMBINATIONS.iter().filter(|_| combined);
        return SITUATIONS.iter().chain(combinations).copied().collect();
    }
    let combinations = COMBINATIONS[..NEED_NO_JOURNAL].iter().filter(|_| combined);
    WITHOUT_JOURNAL
        .iter()
        .copied()
        .chain(combinations.map(|combination| combination.on_committed()))
        .collect()
}

/// What is left out, and why.
pub fn left_out() -> &'static [(&'static str, &'static str)] {
    &LEFT_OUT
}

#[cfg(test)]
mod tests;
