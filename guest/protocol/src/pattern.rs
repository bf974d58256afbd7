//! Contents that both sides can compute: what a store writes, and what a promise expects.

use serde::{Deserialize, Serialize};

/// A rule that gives every byte of a file its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pattern {
    /// All zero.
    Zero,
    /// One byte everywhere.
    Byte(u8),
    /// Every aligned 8-byte word is different from every other word of the file, from zero and from the words of
    /// every other tag (0 to 4095).
    Seq(u16),
}

impl Pattern {
    /// The aligned little-endian word at byte `offset` of the file (rounded down to 8).
    pub fn word(self, offset: u64) -> u64 {
        match self {
            Pattern::Zero => 0,
            Pattern::Byte(byte) => u64::from_ne_bytes([byte; 8]),
            Pattern::Seq(tag) => 0x5e << 56 | u64::from(tag & 0xfff) << 44 | (offset >> 3) & 0xfff_ffff_ffff,
        }
    }

    /// The byte at `offset` of the file.
    pub fn byte(self, offset: u64) -> u8 {
        self.word(offset).to_le_bytes()[(offset % 8) as usize]
    }

    /// Fills `buffer` with what stands at `offset` of the file.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        for (at, byte) in (offset..).zip(buffer) {
            *byte = self.byte(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_different_tags_and_offsets_differ() {
        let mut seen = std::collections::HashSet::new();
        for tag in 0..8 {
            for offset in (0..4096).step_by(8) {
                assert!(seen.insert(Pattern::Seq(tag).word(offset)));
            }
        }
    }

    #[test]
    fn filling_at_an_odd_offset_agrees_with_the_words() {
        let mut bytes = [0; 32];
        Pattern::Seq(3).fill(5, &mut bytes);
        assert_eq!(bytes[3..11], Pattern::Seq(3).word(8).to_le_bytes());
    }
}
