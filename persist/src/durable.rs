//! The durable content, shared between all crash points of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::LINE;

/// Lines of one page.
const PAGE: u64 = 64 * LINE;
/// Pages that share one node: 2 MiB.
const NODE: u64 = 512 * PAGE;

/// What the media held before the first event.
pub trait Media: Send + Sync {
    /// Content of the line at `addr` (aligned). Asked for lines that events name; what lies outside of the media may
    /// read as anything, but always as the same.
    fn line(&self, addr: u64) -> [u8; 64];
}

/// Name of a media content: equal for equal contents, at whatever crash point of whatever run over the same initial
/// media.
///
/// It is the sum, modulo 2^128, of the first 128 bits of BLAKE3 over (address as little-endian u64, content) of every
/// line that differs from the initial media, and of the first 128 bits of BLAKE3 over (address as little-endian u64) of
/// every poisoned line. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StateId(pub(crate) u128);

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<StateId> for String {
    fn from(id: StateId) -> Self {
        id.to_string()
    }
}

/// A text is no state id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a state id: it takes 32 hexadecimal digits")]
pub struct NotAStateId(String);

impl FromStr for StateId {
    type Err = NotAStateId;

    fn from_str(text: &str) -> Result<Self, NotAStateId> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        value.map(StateId).ok_or_else(|| NotAStateId(text.to_owned()))
    }
}

impl TryFrom<String> for StateId {
    type Error = NotAStateId;

    fn try_from(text: String) -> Result<Self, NotAStateId> {
        text.parse()
    }
}

/// What a line that differs from the initial media adds to the id of a state.
pub(crate) fn line_id(addr: u64, content: &[u8; 64]) -> u128 {
    let mut input = [0; 72];
    input[..8].copy_from_slice(&addr.to_le_bytes());
    input[8..].copy_from_slice(content);
    let hash = blake3::hash(&input);
    u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"))
}

/// What a poisoned line adds to the id of a state.
fn poison_id(addr: u64) -> u128 {
    let hash = blake3::hash(&addr.to_le_bytes());
    u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes"))
}

/// Lines of one page, in order; bit n of `present` is set for the line at n * 64.
#[derive(Clone, Default)]
struct Page {
    present: u64,
    lines: Vec<[u8; 64]>,
}

impl Page {
    /// Where the line with this number is, or would be.
    fn position(&self, number: u64) -> (bool, usize) {
        let before = self.present & ((1 << number) - 1);
        (self.present >> number & 1 == 1, before.count_ones() as usize)
    }

    fn get(&self, number: u64) -> Option<&[u8; 64]> {
        let (present, position) = self.position(number);
        present.then(|| &self.lines[position])
    }

    fn set(&mut self, number: u64, content: Option<[u8; 64]>) {
        let (present, position) = self.position(number);
        match (present, content) {
            (true, Some(content)) => self.lines[position] = content,
            (true, None) => {
                self.lines.remove(position);
                self.present &= !(1 << number);
            }
            (false, Some(content)) => {
                self.lines.insert(position, content);
                self.present |= 1 << number;
            }
            (false, None) => {}
        }
    }
}

type Node = BTreeMap<u64, Arc<Page>>;

/// Every line whose durable content differs from the initial media.
///
/// A clone shares all pages; a change afterwards copies one page and the list of one 2 MiB node.
#[derive(Clone, Default)]
pub(crate) struct DurableLines {
    nodes: BTreeMap<u64, Arc<Node>>,
    /// Lines whose content is lost.
    poisoned: Arc<BTreeSet<u64>>,
    id: u128,
}

impl DurableLines {
    pub(crate) fn get(&self, addr: u64) -> Option<[u8; 64]> {
        let page = self.nodes.get(&(addr / NODE))?.get(&(addr / PAGE))?;
        page.get(addr % PAGE / LINE).copied()
    }

    /// Sets the content of a line; `None` when it equals the initial media.
    pub(crate) fn set(&mut self, addr: u64, content: Option<[u8; 64]>) {
        let id = |content: &[u8; 64]| line_id(addr, content);
        self.id = self.id.wrapping_sub(self.get(addr).as_ref().map_or(0, id));
        self.id = self.id.wrapping_add(content.as_ref().map_or(0, id));
        let node = Arc::make_mut(self.nodes.entry(addr / NODE).or_default());
        let page = Arc::make_mut(node.entry(addr / PAGE).or_default());
        page.set(addr % PAGE / LINE, content);
    }

    /// The content of a line is lost, or no longer. Returns whether that is new.
    pub(crate) fn set_poisoned(&mut self, addr: u64, lost: bool) -> bool {
        if self.poisoned.contains(&addr) == lost {
            return false;
        }
        let poisoned = Arc::make_mut(&mut self.poisoned);
        if lost {
            poisoned.insert(addr);
            self.id = self.id.wrapping_add(poison_id(addr));
        } else {
            poisoned.remove(&addr);
            self.id = self.id.wrapping_sub(poison_id(addr));
        }
        true
    }

    /// Lines whose content is lost, ascending.
    pub(crate) fn poisoned(&self) -> Vec<u64> {
        self.poisoned.iter().copied().collect()
    }

    /// Sum of [`line_id`] over all lines and of [`poison_id`] over those that are poisoned.
    pub(crate) fn id(&self) -> u128 {
        self.id
    }

    /// Every line, sorted by address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &[u8; 64])> {
        self.nodes.values().flat_map(|node| node.iter()).flat_map(|(&number, page)| {
            let present = (0..64).filter(|line| page.present >> line & 1 == 1);
            present.zip(&page.lines).map(move |(line, content)| (number * PAGE + line * LINE, content))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_sorted_and_go_when_they_are_as_they_were() {
        let mut lines = DurableLines::default();
        let addresses = [NODE * 3 + PAGE + LINE, 0, NODE - LINE, PAGE + LINE * 63, PAGE];
        for (&addr, byte) in addresses.iter().zip(1..) {
            lines.set(addr, Some([byte; 64]));
        }
        let snapshot = lines.clone();
        let all: Vec<(u64, u8)> = lines.iter().map(|(addr, content)| (addr, content[0])).collect();
        let expected =
            [(0, 2), (PAGE, 5), (PAGE + LINE * 63, 4), (NODE - LINE, 3), (NODE * 3 + PAGE + LINE, 1)];
        assert_eq!(all, expected);
        for addr in addresses {
            lines.set(addr, None);
        }
        assert_eq!((lines.iter().count(), lines.id()), (0, 0));
        assert_eq!(snapshot.iter().count(), 5);
        assert_eq!(snapshot.get(PAGE), Some([5; 64]));
        assert_eq!(snapshot.get(PAGE + LINE), None);
    }

    #[test]
    fn ids_are_read_back_as_they_are_written() {
        let id = StateId(0x0123_4567_89ab_cdef_0000_0000_0000_0042);
        assert_eq!(id.to_string(), "0123456789abcdef0000000000000042");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "42", "+123456789abcdef0000000000000042", "x123456789abcdef0000000000000042"] {
            assert!(text.parse::<StateId>().is_err(), "{text:?}");
        }
    }
}
