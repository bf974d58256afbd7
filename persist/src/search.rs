//! Order-closed sets that give some lines the contents that are known of them.
//!
//! As in counting, a walk along the parts keeps of every set of those walked so far only what matters to the parts to
//! come: what is missing, and which bytes of the known lines are not as they have to be, or not yet. A byte that is
//! wrong and that no later part covers ends the walk of that set.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use crate::choice::StateCount;
use crate::count::LIMIT;

/// Parts in an order that none comes after a later one, and what they come after.
pub(crate) trait Orders {
    /// What of the parts walked so far is missing from a set.
    type Missing: Clone + Ord;

    /// Nothing is.
    fn start(&self) -> Self::Missing;

    /// What is missing behind part `index` from a set that contains it or does not; `None` when it may not.
    fn step(&self, index: usize, missing: &Self::Missing, included: bool) -> Option<Self::Missing>;
}

/// What a part does to one known line: which bytes it covers, and which of them it makes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touch {
    pub(crate) line: usize,
    pub(crate) mask: u64,
    pub(crate) wrong: u64,
}

/// Bytes that are not as they have to be, by known line.
type Wrong = SmallVec<[u64; 4]>;

/// A search for sets that leave no byte of the known lines wrong.
pub(crate) struct Search<'a, O> {
    orders: &'a O,
    /// What each part does.
    touches: Vec<SmallVec<[Touch; 1]>>,
    /// Bytes that parts behind the one with the same index cover.
    later: Vec<Wrong>,
    start: Wrong,
}

impl<'a, O: Orders> Search<'a, O> {
    /// `start` are the bytes that are wrong without any part.
    pub(crate) fn new(orders: &'a O, start: &[u64], touches: Vec<SmallVec<[Touch; 1]>>) -> Self {
        let mut covered: Wrong = SmallVec::from_elem(0, start.len());
        let mut later = Vec::with_capacity(touches.len());
        for touched in touches.iter().rev() {
            later.push(covered.clone());
            touched.iter().for_each(|touch| covered[touch.line] |= touch.mask);
        }
        later.reverse();
        Self { orders, touches, later, start: SmallVec::from_slice(start) }
    }

    fn step(&self, index: usize, state: &State<O>, included: bool) -> Option<State<O>> {
        let missing = self.orders.step(index, &state.0, included)?;
        let mut wrong = state.1.clone();
        if included {
            for touch in &self.touches[index] {
                wrong[touch.line] = wrong[touch.line] & !touch.mask | touch.wrong;
            }
        }
        let hopeless = wrong.iter().zip(&self.later[index]).any(|(wrong, later)| wrong & !later != 0);
        (!hopeless).then_some((missing, wrong))
    }

    fn start(&self) -> Option<State<O>> {
        let possible = !self.touches.is_empty() || self.start.iter().all(|wrong| *wrong == 0);
        possible.then(|| (self.orders.start(), self.start.clone()))
    }

    /// How many sets there are.
    pub(crate) fn count(&self) -> StateCount {
        let mut states: BTreeMap<State<O>, StateCount> =
            self.start().into_iter().map(|start| (start, StateCount::ONE)).collect();
        let mut exact = true;
        for index in 0..self.touches.len() {
            let mut next: BTreeMap<State<O>, StateCount> = BTreeMap::new();
            for (state, count) in states {
                for state in [true, false].into_iter().filter_map(|with| self.step(index, &state, with)) {
                    let known = next.entry(state).or_insert(StateCount::ZERO);
                    *known = known.plus(count);
                }
            }
            while next.len() > LIMIT {
                next.pop_last();
                exact = false;
            }
            states = next;
        }
        let count = states.into_values().fold(StateCount::ZERO, StateCount::plus);
        StateCount { exact: exact && count.exact, ..count }
    }

    /// Whether there is one; `None` when telling takes more than `limit` that differ.
    pub(crate) fn any(&self, limit: usize) -> Option<bool> {
        let contents = self.contents([0; 64], limit, |_, _| ())?;
        Some(!contents.is_empty())
    }

    /// Every content that the sets give one more line, whose content is `content` without any part. `apply` writes
    /// the part with the given index. `None` when it takes more than `limit` sets that differ.
    pub(crate) fn contents(
        &self,
        content: [u8; 64],
        limit: usize,
        apply: impl Fn(usize, &mut [u8; 64]),
    ) -> Option<BTreeSet<[u8; 64]>> {
        let mut states: BTreeSet<(State<O>, [u8; 64])> =
            self.start().into_iter().map(|start| (start, content)).collect();
        for index in 0..self.touches.len() {
            let mut next = BTreeSet::new();
            for (state, content) in states {
                if let Some(state) = self.step(index, &state, true) {
                    let mut content = content;
                    apply(index, &mut content);
                    next.insert((state, content));
                }
                next.extend(self.step(index, &state, false).map(|state| (state, content)));
            }
            if next.len() > limit {
                return None;
            }
            states = next;
        }
        Some(states.into_iter().map(|(_, content)| content).collect())
    }

    /// One set, as whether it contains each part. Of two sets, the one that contains the first part in which they
    /// differ comes first; this is the first of all.
    pub(crate) fn first(&self) -> Option<Vec<bool>> {
        let mut path = vec![self.start()?];
        let mut taken: Vec<bool> = Vec::new();
        // From which no set was found.
        let mut dead: BTreeSet<(usize, State<O>)> = BTreeSet::new();
        // Whether the part is to be tried without being there.
        let mut without = false;
        while taken.len() < self.touches.len() {
            let index = taken.len();
            let tried = if without { &[false][..] } else { &[true, false] };
            let found = tried.iter().find_map(|included| {
                let state = self.step(index, path.last()?, *included)?;
                (!dead.contains(&(index + 1, state.clone()))).then_some((*included, state))
            });
            match found {
                Some((included, state)) => {
                    taken.push(included);
                    path.push(state);
                    without = false;
                }
                None => {
                    dead.insert((index, path.pop()?));
                    // The part before goes. If it was not there either, what it leads to is dead now.
                    taken.pop()?;
                    without = true;
                }
            }
        }
        Some(taken)
    }
}

/// What is missing, and which bytes are wrong.
type State<O> = (<O as Orders>::Missing, Wrong);
