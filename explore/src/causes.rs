//! Causes: of what a failing state lacks, the earliest store whose arrival makes the fault go away.

use std::collections::BTreeMap;
use std::rc::Rc;

use persist::{Choice, StateId};

use crate::findings::{Key, key, warnings};
use crate::oracle::judge::Fault;
use crate::recover::Worker;
use crate::run::Run;
use crate::sites::{Site, Sites};
use crate::target::{HostError, Laboratory};
use crate::torn;

/// Recoveries spent on making one finding smaller.
const ATTEMPTS: usize = 40;
/// Recoveries spent on finding the store behind one finding, once it is small.
const FLIPS: usize = 16;
/// Recoveries spent in one run on telling whether further states have a cause that is known.
const ATTRIBUTED: usize = 64;

/// A state that shows a fault.
#[derive(Clone)]
pub(crate) struct Failing {
    pub point: usize,
    pub choice: Choice,
    pub fault: Fault,
}

/// What is behind a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The store of this part in flight, by index, or of another one at its site: with it there, the fault is gone.
    Store { part: usize, site: Site },
    /// Nothing that is in flight: the fault shows with everything there.
    Nothing,
    /// It was not found within the recoveries that may be spent.
    Unknown,
}

/// Tries states that are close to failing ones. What came of a state is kept.
pub(crate) struct Causes<'r, 'a, L: Laboratory> {
    run: &'r Run<'a, L>,
    pub worker: Worker<'a, L>,
    sites: Sites,
    known: BTreeMap<Tried, Rc<Vec<Fault>>>,
    /// Recoveries that may still be spent on further states.
    left: usize,
}

/// A crash point and a state of it; and where copies are torn, the states by which that is told.
type Tried = (usize, StateId, Option<[StateId; 2]>);

impl<'r, 'a, L: Laboratory> Causes<'r, 'a, L> {
    /// `failing` is everything that was found.
    pub fn new<'f>(
        run: &'r Run<'a, L>,
        failing: impl Iterator<Item = (usize, &'f Choice, &'f Fault)>,
    ) -> Result<Self, HostError> {
        let mut known: BTreeMap<Tried, Vec<Fault>> = BTreeMap::new();
        let mut states: BTreeMap<(usize, &Choice), Tried> = BTreeMap::new();
        for (point, choice, fault) in failing {
            let tried = states.entry((point, choice)).or_insert_with(|| tried(run, point, choice));
            known.entry(*tried).or_default().push(fault.clone());
        }
        // Who sees a part of the results only cannot tell what is behind them.
        let looked_at = states.keys().copied().filter(|_| !run.leaves_unexplained());
        let sites = Sites::find(run, looked_at)?;
        let known = known.into_iter().map(|(tried, faults)| (tried, Rc::new(faults))).collect();
        let worker = Worker::new(run.scenario, run.laboratory)?;
        Ok(Causes { run, worker, sites, known, left: ATTRIBUTED })
    }

    /// Whether the state is known, so that nothing has to be recovered to tell what comes of it.
    fn is_known(&self, point: usize, choice: &Choice) -> bool {
        self.known.contains_key(&tried(self.run, point, choice))
    }

    /// The fault, if the state shows it, too.
    fn shows(&mut self, wanted: &Key, point: usize, choice: &Choice) -> Result<Option<Fault>, HostError> {
        let tried = tried(self.run, point, choice);
        let faults = match self.known.get(&tried) {
            Some(faults) => Rc::clone(faults),
            None => {
                let media = &self.run.points.points[point].media;
                let recovered =
                    torn::recover(&mut self.worker, media, choice, self.run.points.points[point].told())?;
                let mut faults = self.run.faults(&recovered.outcome, point);
                faults.extend(warnings(&recovered.warnings));
                let faults = Rc::new(faults);
                self.known.insert(tried, Rc::clone(&faults));
                faults
            }
        };
        Ok(faults.iter().find(|fault| key(fault) == *wanted).cloned())
    }

    /// Looks for the fault in the next state that exists without strict fences.
    pub fn look_without_strict(&mut self, found: &mut Failing) -> Result<(), HostError> {
        let choice = self.run.points.points[found.point].with_handed_over(&found.choice);
        if let Some(fault) = self.shows(&key(&found.fault), found.point, &choice)? {
            (found.choice, found.fault) = (choice, fault);
        }
        Ok(())
    }

    /// Adds what is lost back while the fault stays: whole lines, then parts of lines; halves first, then smaller
    /// pieces.
    pub fn shrink(&mut self, found: &mut Failing) -> Result<(), HostError> {
        let run = self.run;
        let media = &run.points.points[found.point].media;
        // Perhaps it fails with everything there.
        let everything = media.everything();
        if let Some(fault) = self.shows(&key(&found.fault), found.point, &everything)? {
            (found.choice, found.fault) = (everything, fault);
            return Ok(());
        }
        let mut left = ATTEMPTS;
        let mut lines: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for index in lost_of(run, found.point, &found.choice) {
            lines.entry(media.in_flight()[index].line()).or_default().push(index);
        }
        self.shrink_units(found, lines.into_values().collect(), &mut left)?;
        let parts = lost_of(run, found.point, &found.choice);
        self.shrink_units(found, parts.into_iter().map(|index| vec![index]).collect(), &mut left)
    }

    /// Delta debugging over sets of lost parts.
    fn shrink_units(
        &mut self,
        found: &mut Failing,
        mut units: Vec<Vec<usize>>,
        left: &mut usize,
    ) -> Result<(), HostError> {
        let run = self.run;
        let media = &run.points.points[found.point].media;
        let wanted = key(&found.fault);
        let mut pieces = 2;
        while units.len() > 1 && *left > 0 && !run.interrupted() {
            let size = units.len().div_ceil(pieces);
            let chunks = units.len().div_ceil(size);
            let alone = (0..chunks).map(|chunk| (chunk, true));
            let without = (0..chunks).filter(|_| pieces > 2).map(|chunk| (chunk, false));
            let mut smaller = None;
            for (chunk, alone) in alone.chain(without).take(*left) {
                *left -= 1;
                let inside = |at: usize| (at / size == chunk) == alone;
                let kept: Vec<Vec<usize>> =
                    (0..units.len()).filter(|at| inside(*at)).map(|at| units[at].clone()).collect();
                let choice = media.without(kept.iter().flatten().copied());
                if choice.len() > found.choice.len()
                    && let Some(fault) = self.shows(&wanted, found.point, &choice)?
                {
                    (found.choice, found.fault) = (choice, fault);
                    smaller = Some(kept);
                    break;
                }
            }
            match smaller {
                Some(kept) => (units, pieces) = (kept, 2),
                None if size == 1 => break,
                None => pieces = (pieces * 2).min(units.len()),
            }
        }
        Ok(())
    }

    /// The earliest store that the state lacks and whose arrival, with what has to come before it, ends the fault.
    pub fn cause(&mut self, found: &Failing) -> Result<Cause, HostError> {
        let run = self.run;
        let media = &run.points.points[found.point].media;
        let wanted = key(&found.fault);
        let lost = lost_of(run, found.point, &found.choice);
        if lost.is_empty() {
            return Ok(Cause::Nothing);
        }
        for part in lost.into_iter().take(FLIPS) {
            if run.interrupted() {
                break;
            }
            let choice = media.closure(found.choice.iter().chain([part]));
            if self.shows(&wanted, found.point, &choice)?.is_none() {
                return Ok(Cause::Store { part, site: self.site(found.point, part) });
            }
        }
        Ok(Cause::Unknown)
    }

    /// Where a part in flight was stored.
    fn site(&self, point: usize, part: usize) -> Site {
        self.sites.of(self.run, &self.run.points.points[point].media.in_flight()[part])
    }

    /// Whether a cause that is known is that of a further state: with everything there that was stored at its site, the
    /// fault is gone. `None` when that may not be tried any more.
    pub fn is_cause_of(&mut self, cause: &Cause, failing: &Failing) -> Result<Option<bool>, HostError> {
        let run = self.run;
        let media = &run.points.points[failing.point].media;
        let lost = lost_of(run, failing.point, &failing.choice);
        let choice = match cause {
            Cause::Unknown => return Ok(Some(false)),
            Cause::Nothing => media.everything(),
            Cause::Store { site, .. } => {
                let (at_site, elsewhere): (Vec<usize>, Vec<usize>) =
                    lost.into_iter().partition(|part| self.site(failing.point, *part) == *site);
                if at_site.is_empty() || elsewhere.is_empty() {
                    return Ok(Some(!at_site.is_empty()));
                }
                media.closure(failing.choice.iter().chain(at_site))
            }
        };
        if !self.is_known(failing.point, &choice) {
            let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
            self.left = left;
        }
        let shows = self.shows(&key(&failing.fault), failing.point, &choice)?.is_some();
        Ok(Some(shows == (*cause == Cause::Nothing)))
    }
}

/// Parts in flight that a state lacks, by index.
pub(crate) fn lost_of<L: Laboratory>(run: &Run<L>, point: usize, choice: &Choice) -> Vec<usize> {
    let parts = run.points.points[point].media.in_flight().len();
    (0..parts).filter(|index| !choice.contains(*index)).collect()
}

fn tried<L: Laboratory>(run: &Run<L>, point: usize, choice: &Choice) -> Tried {
    let media = &run.points.points[point].media;
    let torn = torn::whole_and_missing(media, choice);
    (point, media.state_id(choice), torn.map(|states| states.map(|state| media.state_id(&state))))
}

#[cfg(test)]
mod tests;
