//! A set of the 256 interrupt vectors: IRR, ISR and TMR are one each.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VectorSet([u64; 4]);

impl VectorSet {
    pub fn set(&mut self, vector: u8, present: bool) {
        let bit = 1 << (vector & 63);
        let word = &mut self.0[usize::from(vector >> 6)];
        *word = if present { *word | bit } else { *word & !bit };
    }

    pub fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0
    }

    pub fn highest(&self) -> Option<u8> {
        let word = self.0.iter().rposition(|&word| word != 0)?;
        Some(word as u8 * 64 + 63 - self.0[word].leading_zeros() as u8)
    }

    /// Register `index` (0 to 7) of the eight that show the set.
    pub fn register(&self, index: u64) -> u32 {
        (self.0[(index as usize / 2) & 3] >> (32 * (index & 1))) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_is_the_last_set_vector() {
        let mut set = VectorSet::default();
        assert_eq!(set.highest(), None);
        for vector in [0, 63, 64, 255] {
            set.set(vector, true);
            assert_eq!(set.highest(), Some(vector));
        }
        set.set(255, false);
        assert_eq!(set.highest(), Some(64));
        assert!(set.contains(63) && !set.contains(62));
        assert_eq!((set.register(0), set.register(1), set.register(2)), (1, 1 << 31, 1));
    }
}
