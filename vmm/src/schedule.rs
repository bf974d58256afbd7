//! Whose turn it is: a seeded round robin over the processors that have something to execute.
//!
//! One processor executes at a time, for a slice of instructions whose length is drawn from the seed, and then it is
//! the next one's turn. Where slices end decides which of the possible interleavings happens: the same seed gives the
//! same one, another seed another. Most slices are a few thousand instructions; some are a few instructions, so that
//! another processor also gets in between two that belong together.
//!
//! Time is the sum of what all processors retired, and what was skipped while all of them were halted. So it never
//! goes back for a guest that moves between processors, and it does not depend on which processor executed; that a
//! machine with four busy processors gets a quarter of the work of each done in the same time costs nobody anything.

use serde::{Deserialize, Serialize};

/// A slice has 1 to so many instructions.
const LONGEST: u64 = 8192;
/// One of so many slices is short.
const SHORT_ONE_OF: u64 = 16;
/// A short slice has 1 to so many instructions.
const LONGEST_SHORT: u64 = 32;

/// What is left of the current slice, and where the lengths of the next ones come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    random: u64,
    /// Instructions that the selected processor may still retire in its slice.
    left: u64,
}

impl Schedule {
    pub(crate) fn new(seed: u64) -> Schedule {
        Schedule { random: seed, left: 0 }
    }

    /// Whose turn it is, of processors 0 to `count` - 1, after `current` if its slice is over or it cannot run.
    /// `None` if none can.
    pub(crate) fn turn(&self, current: u8, count: u8, can_run: impl Fn(u8) -> bool) -> Option<u8> {
        if self.left > 0 && can_run(current) {
            return Some(current);
        }
        (1..=count).map(|step| (current + step) % count).find(|&vcpu| can_run(vcpu))
    }

    /// Instructions that are left of the slice of the processor whose turn it is; `changed` if it was another one's
    /// before.
    pub(crate) fn slice(&mut self, changed: bool) -> u64 {
        if changed || self.left == 0 {
            self.left = self.draw();
        }
        self.left
    }

    /// The selected processor retired so many instructions.
    pub(crate) fn retired(&mut self, count: u64) {
        self.left = self.left.saturating_sub(count);
    }

    /// The selected processor gives up the rest of its slice.
    pub(crate) fn give_up(&mut self) {
        self.left = 0;
    }

    fn draw(&mut self) -> u64 {
        let number = self.next_random();
        let longest = if number.is_multiple_of(SHORT_ONE_OF) { LONGEST_SHORT } else { LONGEST };
        1 + (number >> 32) % longest
    }

    /// splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_round_and_skip_who_cannot_run() {
        let mut schedule = Schedule::new(1);
        assert_eq!(schedule.turn(0, 4, |_| true), Some(1), "nobody has a slice yet");
        schedule.slice(true);
        assert_eq!(schedule.turn(1, 4, |_| true), Some(1), "its slice is not over");
        assert_eq!(schedule.turn(1, 4, |vcpu| vcpu != 1), Some(2));
        schedule.give_up();
        assert_eq!(schedule.turn(3, 4, |vcpu| vcpu != 0), Some(1));
        assert_eq!(schedule.turn(3, 4, |vcpu| vcpu == 3), Some(3));
        assert_eq!(schedule.turn(3, 4, |_| false), None);
    }

    #[test]
    fn a_slice_cut_in_pieces_is_as_long_as_one_in_a_whole() {
        let mut schedule = Schedule::new(1);
        let length = schedule.slice(true);
        schedule.retired(length - 1);
        assert_eq!(schedule.slice(false), 1);
        schedule.retired(1);
        assert_eq!(schedule.turn(0, 2, |_| true), Some(1));
    }

    #[test]
    fn lengths_follow_the_seed_and_some_are_short() {
        let lengths = |seed| {
            let mut schedule = Schedule::new(seed);
            (0..1000).map(|_| schedule.slice(true)).collect::<Vec<_>>()
        };
        assert_eq!(lengths(1), lengths(1));
        assert_ne!(lengths(1), lengths(2));
        let short = lengths(1).iter().filter(|&&length| length <= LONGEST_SHORT).count();
        assert!((20..200).contains(&short), "{short}");
        assert!(lengths(1).iter().all(|length| (1..=LONGEST).contains(length)));
    }
}
