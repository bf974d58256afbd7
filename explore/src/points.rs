//! Crash points: behind which events the power is cut, and what may be in flight there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use persist::{Choice, CrashPoint, Domain, DrainKind, EventKind, Media, StateId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::events::Events;
use crate::model::Model;
use crate::oracle::acknowledged::Acknowledged;
use crate::oracle::expectation::{Expectation, expect};
use crate::oracle::judge::Fault;
use crate::record::Recording;
use crate::scenario::{PointRule, Scenario};
use crate::target::Region;
use crate::verdict::Class;
use crate::windows;

/// The images of all regions, as the persistence model asks for them.
pub(crate) struct Images {
    pub regions: Vec<Region>,
    pub images: Vec<Arc<Vec<u8>>>,
}

impl Media for Images {
    fn line(&self, addr: u64) -> [u8; 64] {
        let mut line = [0; 64];
        for (region, image) in self.regions.iter().zip(&self.images) {
            if let Some(at) = addr.checked_sub(region.base).filter(|at| at + 64 <= region.size) {
                line.copy_from_slice(&image[at as usize..][..64]);
            }
        }
        line
    }
}

/// One crash point.
pub(crate) struct Point {
    /// How many events have happened.
    pub events: u64,
    /// The rules that chose it.
    pub reasons: BTreeSet<String>,
    pub media: CrashPoint,
    /// Under strict fences, what could be on the media without them.
    pub without_strict: Option<CrashPoint>,
    pub expectation: Arc<Expectation>,
    /// The fault, by index, and the window of it in which the point lies.
    pub window: Option<(usize, u8)>,
}

impl Point {
    /// What the check program is told of what was acknowledged.
    pub fn told(&self) -> &Acknowledged {
        &self.expectation.told
    }

    /// Whether the state lacks something that is durable unless only SFENCE and MFENCE count.
    pub fn is_only_strict(&self, choice: &Choice) -> bool {
        self.without_strict.is_some() && self.media.handed_over().iter().any(|index| !choice.contains(index))
    }

    /// The class of a fault that the state shows.
    pub fn class_of(&self, fault: &Fault, choice: &Choice) -> Class {
        if self.is_only_strict(choice) { Class::ReliesOnLock } else { fault.class }
    }

    /// The state with everything that is durable unless only SFENCE and MFENCE count.
    pub fn with_handed_over(&self, choice: &Choice) -> Choice {
        self.media.closure(choice.iter().chain(self.media.handed_over().iter()))
    }

    /// A choice of [`Point::without_strict`] as one of [`Point::media`].
    pub fn under_strict(&self, choice: &Choice) -> Choice {
        let handed_over = self.media.handed_over();
        // What is handed over is in flight under strict fences only; the rest is the same, in the same order.
        let others = (0..self.media.in_flight().len()).filter(|index| !handed_over.contains(*index));
        let chosen = others.enumerate().filter(|(other, _)| choice.contains(*other)).map(|(_, index)| index);
        self.media.closure(chosen.chain(handed_over.iter()))
    }
}

/// What a recording offers to be explored.
pub(crate) struct Points {
    pub points: Vec<Point>,
    /// Crash points that are the same as another in all that matters.
    pub equal: usize,
    /// What makes something durable, and stores that do so by themselves, that were left out, for there are too many.
    pub left_out: usize,
    pub faults: Vec<windows::Fault>,
    /// Rules that lead nowhere.
    pub unresolved: Vec<String>,
}

/// Finds the crash points of a recording.
pub(crate) fn find(scenario: &Scenario, recording: &Recording, model: &Model) -> Points {
    let faults = match recording.watched.is_empty() {
        true => Vec::new(),
        false => windows::faults(&recording.watched, &windows::marks(recording.events.iter())),
    };
    let Wanted { events: wanted, unresolved, left_out } = wanted(scenario, recording, &faults, model);
    let mut domain = model.domain();
    let mut plain = model.settings.strict_fences.then(|| model.without_strict().domain());
    let mut points: Vec<Point> = Vec::new();
    let mut seen: BTreeMap<Key, usize> = BTreeMap::new();
    let mut equal = 0;
    let mut happened = recording.events.iter().peekable();
    for (events, reasons) in wanted {
        while let Some(event) = happened.next_if(|event| event.seq < events) {
            domain.apply(&event);
            plain.iter_mut().for_each(|domain| {
                domain.apply(&event);
            });
        }
        let media = domain.crash_point();
        let expectation = expect(&scenario.history, &recording.timeline, events);
        let window =
            faults.iter().enumerate().find_map(|(index, fault)| Some((index, fault.window_at(events)?)));
        let key = key(&media, &expectation, window);
        if let Some(&same) = seen.get(&key) {
            points[same].reasons.extend(reasons);
            equal += 1;
            continue;
        }
        seen.insert(key, points.len());
        let without_strict = plain.as_ref().map(Domain::crash_point);
        points.push(Point {
            events,
            reasons,
            media,
            without_strict,
            expectation: Arc::new(expectation),
            window,
        });
    }
    Points { points, equal, left_out, faults, unresolved }
}

/// What makes two crash points the same: the durable content, the parts in flight, and what may be found.
type Key = (StateId, [u8; 32]);

pub(crate) fn key(media: &CrashPoint, expectation: &Expectation, window: Option<(usize, u8)>) -> Key {
    let mut hash = blake3::Hasher::new();
    for part in media.in_flight() {
        hash.update(&part.event.to_le_bytes());
        hash.update(&part.addr.to_le_bytes());
        hash.update(&[u8::from(part.handed_over_by.is_some())]);
    }
    hash.update(format!("{expectation:?} {window:?}").as_bytes());
    (media.durable_id(), *hash.finalize().as_bytes())
}

/// Where the power is to be cut.
#[derive(Default)]
struct Wanted {
    /// Every number of events at which a rule wants it, with the rules.
    events: BTreeMap<u64, BTreeSet<String>>,
    /// Rules that lead nowhere.
    unresolved: Vec<String>,
    left_out: usize,
}

impl Wanted {
    /// Leaves out what lies in front of a marker. That itself is a crash point, and so is the end of the recording.
    fn begin_at(&mut self, marker: u32, events: &Events) {
        let Some(begin) = events.iter().find(|event| event.kind == EventKind::Marker { id: marker }) else {
            return self.unresolved.push(format!("marker {marker}: the recording did not come to it"));
        };
        self.events = self.events.split_off(&begin.seq);
        let last = events.last_seq().map_or(0, |seq| seq + 1);
        for (events, reason) in [(begin.seq + 1, format!("marker {marker}")), (last, "end".to_owned())] {
            self.events.entry(events).or_default().insert(reason);
        }
    }
}

/// Crash points of the rule `durable`, if the budget is smaller: more than anybody explores, and few enough to be in memory.
const MOST_DURABLE: u64 = 10_000;

/// Applies every rule.
fn wanted(scenario: &Scenario, recording: &Recording, faults: &[windows::Fault], model: &Model) -> Wanted {
    let growth = model.growth(&recording.events);
    let stores = behind_marker(scenario, recording, &growth.stores);
    let kept = some(stores, scenario.crash.budget, scenario.crash.seed);
    let mut wanted = Wanted { left_out: stores.len() - kept.len(), ..Wanted::default() };
    let mut grows = growth.events;
    grows.extend(kept);
    grows.sort_unstable();
    for rule in &scenario.crash.points {
        let found = of_rule(rule, scenario, recording, faults, &grows, &mut wanted.left_out);
        match found {
            Ok(found) if found.is_empty() => {
                wanted.unresolved.push(format!("{rule}: no such point in this run"));
            }
            Ok(found) => found.into_iter().for_each(|events| {
                wanted.events.entry(events).or_default().insert(rule.to_string());
            }),
            Err(why) => wanted.unresolved.push(format!("{rule}: {why}")),
        }
    }
    if let Some(marker) = scenario.crash.from_marker {
        wanted.begin_at(marker, &recording.events);
    }
    wanted
}

/// In front of and behind what makes something durable. The last moment before has the most in flight; the first one after it is
/// when something can be promised.
fn durable(scenario: &Scenario, recording: &Recording, grows: &[u64], left_out: &mut usize) -> Vec<u64> {
    let grows = behind_marker(scenario, recording, grows);
    let kept = some(grows, scenario.crash.budget.max(MOST_DURABLE), scenario.crash.seed);
    *left_out += grows.len() - kept.len();
    kept.iter().flat_map(|seq| [*seq, seq + 1]).collect()
}

/// Of these events those that have a crash point from the marker on at which crash points begin, if there is one.
fn behind_marker<'a>(scenario: &Scenario, recording: &Recording, events: &'a [u64]) -> &'a [u64] {
    let Some(id) = scenario.crash.from_marker.filter(|_| !events.is_empty()) else { return events };
    let begin = recording.events.iter().find(|event| event.kind == EventKind::Marker { id });
    &events[events.partition_point(|seq| begin.as_ref().is_some_and(|begin| seq + 1 < begin.seq))..]
}

/// At most `limit` of these, chosen by the seed, in order.
fn some(all: &[u64], limit: u64, seed: u64) -> Vec<u64> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if all.len() <= limit {
        return all.to_vec();
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut left = all.to_vec();
    for at in 0..limit {
        let other = at + (random.next_u64() % (left.len() - at) as u64) as usize;
        left.swap(at, other);
    }
    left.truncate(limit);
    left
}

fn of_rule(
    rule: &PointRule,
    scenario: &Scenario,
    recording: &Recording,
    faults: &[windows::Fault],
    grows: &[u64],
    left_out: &mut usize,
) -> Result<Vec<u64>, String> {
    let events = &recording.events;
    let last = events.last_seq().map_or(0, |seq| seq + 1);
    match rule {
        PointRule::Durable => Ok(durable(scenario, recording, grows, left_out)),
        PointRule::Promises => {
            let acknowledged = recording.timeline.acknowledged.iter().map(|it| it.events);
            Ok(recording.timeline.promises.values().copied().chain(acknowledged).collect())
        }
        PointRule::Event(event) if *event < last => Ok(vec![event + 1]),
        PointRule::Event(_) => Err(format!("the recording has {last} events")),
        PointRule::Sample(count) => {
            let mut random = ChaCha8Rng::seed_from_u64(scenario.crash.seed);
            Ok((0..*count).map(|_| random.next_u64() % (last + 1)).collect())
        }
        PointRule::Symbol(name) => {
            let Some(wanted) = recording.watched.iter().position(|watched| watched == name) else {
                return Err("the kernel has no function of this name".to_owned());
            };
            let calls =
                events.iter().filter(|event| event.kind == EventKind::Symbol { index: wanted as u32 });
            Ok(calls.map(|event| event.seq).collect())
        }
        PointRule::Fences => {
            Ok(around(events, |kind| matches!(kind, EventKind::Drain(DrainKind::Sfence | DrainKind::Mfence))))
        }
        PointRule::Flushes => Ok(around(events, |kind| {
            matches!(
                kind,
                EventKind::FlushHint { .. }
                    | EventKind::DeviceFlushSubmitted { .. }
                    | EventKind::DeviceFlushCompleted { .. }
            )
        })),
        PointRule::Every => Ok((0..=last).collect()),
        PointRule::Between(first, second) => {
            let marker = |id: u32| {
                let marker = events.iter().find(|event| event.kind == EventKind::Marker { id });
                marker
                    .map(|event| event.seq)
                    .ok_or_else(|| format!("the recording did not come to marker {id}"))
            };
            let (from, to) = (marker(*first)?, marker(*second)?);
            if from > to {
                return Err(format!("marker {second} comes before marker {first}"));
            }
            Ok((from + 1..=to).collect())
        }
        PointRule::EveryOfWindow(number) => {
            Ok(windows_of(*number, recording, faults)?.into_iter().flatten().collect())
        }
        PointRule::Window(number) => {
            let windows = windows_of(*number, recording, faults)?.into_iter();
            Ok(windows
                .flat_map(|window| {
                    let inside = grows
                        .iter()
                        .flat_map(|seq| [*seq, seq + 1])
                        .filter(|events| window.contains(events))
                        .collect::<Vec<_>>();
                    [*window.start(), *window.end()].into_iter().chain(inside)
                })
                .collect())
        }
    }
}

/// In front of and behind every event of some kind.
fn around(events: &Events, wanted: impl Fn(&EventKind) -> bool) -> Vec<u64> {
    let found = events.iter().filter(|event| wanted(&event.kind));
    found.flat_map(|event| [event.seq, event.seq + 1]).collect()
}

/// The window with this number of every fault that has it: numbers of events that have happened.
fn windows_of(
    number: u8,
    recording: &Recording,
    faults: &[windows::Fault],
) -> Result<Vec<RangeInclusive<u64>>, String> {
    let missing = windows::unresolved(&recording.watched);
    if !missing.is_empty() {
        return Err(format!("the kernel has no function {}", missing.join(", ")));
    }
    Ok(faults.iter().filter_map(|fault| fault.window(number)).collect())
}
