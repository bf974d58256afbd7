//! How long recovering takes: for `pmemsim bench`. The figures are of the host, so no report has them.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::conversation::{Conversation, Limits};
use crate::effort::own_memory;
use crate::options::RunOptions;
use crate::oracle::acknowledged::Acknowledged;
use crate::record::prepared;
use crate::recover::{Worker, look};
use crate::run::prepare;
use crate::scenario::Scenario;
use crate::target::{HostError, Laboratory, Target};

/// One recovery, measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Pages that going back to the base snapshot restored.
    pub pages: usize,
    /// Time for going back.
    pub back: Duration,
    /// Time for the recovery: attach, mount, observe, unmount, check.
    pub recovery: Duration,
}

/// Records the scenario, then recovers the contents of its crash points, everything in flight included, one after
/// the other: `each` on each of `jobs` machines. Returns all recoveries, the time from the first to the last, and the
/// bytes of memory that one machine had for itself then.
pub fn recoveries<L: Laboratory>(
    scenario: &Scenario,
    laboratory: &L,
    jobs: usize,
    each: usize,
) -> Result<(Vec<Measured>, Duration, u64), HostError> {
    let options = RunOptions::default();
    let run = prepare(scenario, laboratory, &options, &mut Vec::new())?;
    let contents: Vec<_> =
        run.points.points.iter().map(|point| point.media.content(&point.media.everything())).collect();
    if contents.is_empty() {
        return Err(HostError("the scenario has no crash points".to_owned()));
    }
    let told = Acknowledged::default();
    let (ready, done) = (Barrier::new(jobs.max(1)), Barrier::new(jobs.max(1)));
    let before = own_memory().unwrap_or(0);
    let most = AtomicU64::new(0);
    let one_machine = || -> Result<(Vec<Measured>, Duration), HostError> {
        // The first recovery of a machine decodes code and faults its memory in.
        let worker = Worker::new(scenario, laboratory)
            .and_then(|mut worker| worker.recover(&contents[0], &told, &[], None).map(|_| worker));
        ready.wait();
        let started = Instant::now();
        let recover = |worker: &mut Worker<L>, content| {
            let started = Instant::now();
            let pages = worker.rewind();
            let back = started.elapsed();
            worker.recover(content, &told, &[], None)?;
            Ok(Measured { pages, back, recovery: started.elapsed() - back })
        };
        let mut measured = Vec::new();
        let worker = worker.and_then(|mut worker| {
            for content in contents.iter().cycle().take(each) {
                measured.push(recover(&mut worker, content)?);
            }
            Ok(worker)
        });
        let took = started.elapsed();
        // While all machines are there.
        done.wait();
        most.fetch_max(own_memory().unwrap_or(0), Ordering::Relaxed);
        done.wait();
        worker.map(|_| (measured, took))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(one_machine)).collect();
        let (mut all, mut longest) = (Vec::new(), Duration::ZERO);
        for thread in threads {
            let (measured, took) = thread.join().expect("a recovery does not panic")?;
            all.extend(measured);
            longest = longest.max(took);
        }
        let of_one = most.load(Ordering::Relaxed).saturating_sub(before) / jobs.max(1) as u64;
        Ok((all, longest, of_one))
    })
}

/// What a guest did, and how long that took.
#[derive(Clone, Copy, Debug)]
pub struct GuestWork {
    /// Instructions retired.
    pub instructions: u64,
    /// By the clock that was asked.
    pub time: Duration,
}

/// Records the scenario, then lets one machine recover the contents of its crash points, everything in flight
/// included, one after the other, *with its events recorded*: attach, mount, observe, unmount. Neither going back nor
/// the checker on the host is in the figures.
pub fn traced_recoveries<L: Laboratory>(
    scenario: &Scenario,
    laboratory: &L,
    each: usize,
    clock: &dyn Fn() -> Duration,
) -> Result<Vec<GuestWork>, HostError> {
    let options = RunOptions::default();
    let run = prepare(scenario, laboratory, &options, &mut Vec::new())?;
    let contents: Vec<_> =
        run.points.points.iter().map(|point| point.media.content(&point.media.everything())).collect();
    let mut target = prepared(laboratory)?;
    target.set_tracing(true);
    target.push();
    let recover = |content: &persist::Overlay| {
        target.rewind();
        content.lines().iter().for_each(|(address, line)| target.write_pmem(*address, line));
        let (before, started) = (target.retired(), clock());
        let limits = Limits::of_recovery(&scenario.limits);
        let found = look(scenario, &Acknowledged::default(), &mut Conversation::new(&mut target, limits));
        let work = GuestWork { instructions: target.retired() - before, time: clock() - started };
        target.take_events();
        match found {
            Ok(None) => Ok(work),
            Ok(Some(why)) => Err(HostError(why)),
            Err(trouble) => Err(HostError(format!("{trouble:?}"))),
        }
    };
    contents.iter().cycle().take(each).map(recover).collect()
}
