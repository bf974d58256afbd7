//! Crash states of a crash point: which of the parts in flight reached the media.

use persist::{Choice, CrashPoint, Group};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::points::Point;

/// A crash point with this many states or fewer is tried in full.
const FEW: u128 = 16;

/// States of one crash point; under strict fences those that exist without them, too, in turn.
pub(crate) fn of_point(point: &Point, seed: u64, limit: usize) -> Vec<Choice> {
    let strict = choose(&point.media, seed, limit);
    let Some(plain) = &point.without_strict else { return strict };
    if point.media.handed_over().is_empty() {
        return strict;
    }
    let plain = choose(plain, seed, limit);
    let mut both = Vec::new();
    for at in 0..plain.len().max(strict.len()) {
        both.extend(plain.get(at).map(|choice| point.under_strict(choice)));
        both.extend(strict.get(at).cloned());
    }
    both
}

/// States of one crash point, the most telling first; at most `limit`. Two may have equal content.
fn choose(media: &CrashPoint, seed: u64, limit: usize) -> Vec<Choice> {
    let count = media.count();
    if count.exact && count.states <= FEW.min(limit as u128) {
        return media.all().collect();
    }
    let mut chosen = vec![media.nothing(), media.everything()];
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut groups = media.groups();
    order(&mut groups, &mut random);
    // First what tells groups apart, then what tells the parts of a group apart.
    for group in &groups {
        chosen.push(media.without(group.parts.iter().copied()));
        chosen.push(media.closure(group.parts.iter().copied()));
        if chosen.len() >= limit / 2 {
            break;
        }
    }
    for group in groups.iter().filter(|group| group.parts.len() > 1) {
        for part in picks(group, &mut random) {
            chosen.push(media.without([part]));
            chosen.push(media.closure([part]));
        }
        if chosen.len() >= limit * 3 / 4 {
            break;
        }
    }
    chosen.truncate(limit * 3 / 4);
    let missing = limit - chosen.len();
    chosen.extend((0..missing as u64).map(|number| media.random(seed, number)));
    chosen
}

/// The last group, the first, then the others as they fall.
fn order(groups: &mut [Group], random: &mut ChaCha8Rng) {
    let len = groups.len();
    if len < 3 {
        return;
    }
    groups.swap(1, len - 1);
    groups.swap(0, 1);
    for at in 2..len - 1 {
        let other = at + (random.next_u64() % (len - at) as u64) as usize;
        groups.swap(at, other);
    }
}

/// Of a group the first part, the last, and one inside.
fn picks(group: &Group, random: &mut ChaCha8Rng) -> Vec<usize> {
    let len = group.parts.len();
    let mut picks = vec![0, len - 1];
    if len > 2 {
        picks.push(1 + (random.next_u64() % (len as u64 - 2)) as usize);
    }
    picks.into_iter().map(|at| group.parts[at]).collect()
}
