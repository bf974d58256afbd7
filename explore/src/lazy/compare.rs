//! Lazy exploration against recovering crash states one by one: every state has to come out as the leaf says that
//! stands for it, to the last byte of what is found and of what the guest says.

use persist::Choice;

use super::recovery::{Checks, Leaf, Recovery};
use super::search::{Limits, search};
use super::{SETS, Searched};
use crate::options::RunOptions;
use crate::points::Point;
use crate::recover::{Outcome, Worker};
use crate::run::prepare;
use crate::scenario::Scenario;
use crate::target::{HostError, Laboratory};

/// What a comparison showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Crash points compared.
    pub points: u64,
    /// Of these, those of which every state was recovered.
    pub complete: u64,
    /// States recovered one by one.
    pub states: u64,
    /// Leaves that stand for them.
    pub leaves: u64,
    /// What differs, in words.
    pub differences: Vec<String>,
}

/// A leaf, with the lines that are known there.
type Known = (Vec<(u64, [u8; 64])>, Leaf);

/// Compares at every crash point: all states of those with `most` or fewer, as many chosen by chance of the others.
/// `only` names the points by the number of events before them; empty for all.
pub fn compare<L: Laboratory>(
    scenario: &Scenario,
    laboratory: &L,
    options: &RunOptions,
    most: u64,
    only: &[u64],
) -> Result<Comparison, HostError> {
    let run = prepare(scenario, laboratory, options, &mut Vec::new())?;
    let mut worker = Worker::new(scenario, laboratory)?;
    let mut comparison = Comparison::default();
    let wanted = run.points.points.iter().filter(|point| only.is_empty() || only.contains(&point.events));
    for point in wanted {
        let media = &point.media;
        let mut leaves: Vec<Known> = Vec::new();
        let mut checks = Checks::default();
        let mut recovery = Recovery::begin(&mut worker, &mut checks, media, point.told())?;
        let limits = Limits { branches: run.branches(), sets: SETS };
        let searched = search(&mut recovery, media.partial(), limits, &|| false, |known, leaf| {
            leaves.push((known.known().map(|(line, content)| (line, *content)).collect(), leaf));
            Ok(())
        })?;
        comparison.points += 1;
        comparison.leaves += leaves.len() as u64;
        let count = media.count();
        let choices: Vec<Choice> = if count.exact && count.states <= u128::from(most) {
            comparison.complete += 1;
            media.all().collect()
        } else {
            let random = (0..most).map(|number| media.random(run.seed() ^ point.events, number));
            [media.nothing(), media.everything()].into_iter().chain(random).collect()
        };
        for choice in choices {
            comparison.states += 1;
            let difference = differs(&run.model.media, &mut worker, point, &choice, &leaves, searched)?;
            comparison.differences.extend(difference.map(|what| {
                format!("behind {} events, state {}: {what}", point.events, media.state_id(&choice))
            }));
        }
    }
    Ok(comparison)
}

/// How the state comes out another way than the leaf says that stands for it.
fn differs<L: Laboratory>(
    initial: &std::sync::Arc<dyn persist::Media>,
    worker: &mut Worker<L>,
    point: &Point,
    choice: &Choice,
    leaves: &[Known],
    searched: Searched,
) -> Result<Option<String>, HostError> {
    let content = point.media.content(choice);
    let line = |addr: u64| content.line(addr).copied().unwrap_or_else(|| initial.line(addr));
    let agrees = |known: &&Known| known.0.iter().all(|(addr, content)| line(*addr) == *content);
    let mut agreeing = leaves.iter().filter(agrees);
    let Some((known, leaf)) = agreeing.next() else {
        let missing = searched.cut.is_none();
        return Ok(missing.then(|| "no leaf stands for it".to_owned()));
    };
    if agreeing.next().is_some() {
        return Ok(Some("two leaves stand for it".to_owned()));
    }
    let lazily = match leaf.outcome.tree() {
        Some(tree) => leaf.outcome.with_tree(tree.filled(&content, |addr| initial.line(addr))),
        None => leaf.outcome.clone(),
    };
    let recovered = worker.recover(&content, point.told(), &[], None)?;
    let what = if lazily.digest() != recovered.outcome.digest() {
        format!("found {}, lazily {}", words(&recovered.outcome), words(&lazily))
    } else if leaf.console != recovered.console {
        format!("the console says {:?}, lazily {:?}", recovered.console, leaf.console)
    } else {
        return Ok(None);
    };
    let lines: Vec<String> = known.iter().map(|(line, _)| format!("{line:#x}")).collect();
    Ok(Some(format!("{what} (known: {})", lines.join(" "))))
}

fn words(outcome: &Outcome) -> String {
    format!("{} {:?}", outcome.words(), outcome.shape())
}
