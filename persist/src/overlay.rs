//! Contents of the media.

use crate::part::line_of;

/// A content of the media, as the lines in which it differs from the initial media.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Overlay {
    pub(crate) lines: Vec<(u64, [u8; 64])>,
    pub(crate) poisoned: Vec<u64>,
}

impl Overlay {
    /// (address, content) of every line that differs, sorted by address.
    pub fn lines(&self) -> &[(u64, [u8; 64])] {
        &self.lines
    }

    /// The initial media, but for lines whose content it has lost: addresses, multiples of 64, ascending.
    pub fn poisoning(lines: Vec<u64>) -> Overlay {
        Overlay { lines: Vec::new(), poisoned: lines }
    }

    /// Addresses of the lines whose content the media has lost, ascending. What [`Overlay::lines`] says of them means nothing.
    pub fn poisoned(&self) -> &[u64] {
        &self.poisoned
    }

    /// Content of the line that holds `addr`; `None` when it is as on the initial media.
    pub fn line(&self, addr: u64) -> Option<&[u8; 64]> {
        let position = self.lines.binary_search_by_key(&line_of(addr), |line| line.0).ok()?;
        Some(&self.lines[position].1)
    }
}
