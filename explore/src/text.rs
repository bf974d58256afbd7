//! A report as text for a terminal: the verdict first.

use std::fmt::{self, Display, Formatter};

use crate::report::{FaultReport, Finding, Report, SmallestState, StoreReport, SymptomReport, Verdict};
use crate::scenario::Explore;
use crate::verdict::Class;

/// Bounded crash points that are listed.
const BOUNDED: usize = 8;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let found: Vec<&str> = self
            .findings
            .iter()
            .flat_map(Finding::classes)
            .map(Class::name)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
        let expected = self.expect.iter().map(|class| class.name()).collect::<Vec<_>>().join(", ");
        let mutant =
            self.settings.mutant.as_ref().map_or(String::new(), |mutant| format!(", mutant {mutant}"));
        let shard = self.shard.as_ref().map_or(String::new(), |shard| format!(", shard {}", shard.shard));
        let name = format!("{}{mutant}{shard}", self.scenario);
        match self.verdict {
            Verdict::Kept => writeln!(f, "{name}: all promises kept")?,
            Verdict::Expected => writeln!(f, "{name}: found {found}, as expected")?,
            Verdict::Violated if self.expect.is_empty() => writeln!(f, "{name}: VIOLATED: {found}")?,
            Verdict::Violated => writeln!(f, "{name}: VIOLATED: expected {expected}, found {found}")?,
            Verdict::Inconclusive => writeln!(f, "{name}: INCONCLUSIVE")?,
            Verdict::Part => {
                writeln!(f, "{name}: found {found}; pmemsim merge says what follows from all shards")?
            }
        }
        for why in &self.inconclusive {
            writeln!(f, "  inconclusive: {why}")?;
        }
        self.write_counts(f)?;
        self.write_faults(f)?;
        writeln!(f, "  canary: {}", self.canary)?;
        for warning in &self.recording_warnings {
            writeln!(f, "  warning while recording: {warning}")?;
        }
        for finding in &self.findings {
            writeln!(f)?;
            write_finding(f, finding, self.settings.sampled)?;
        }
        Ok(())
    }
}

impl Report {
    fn write_counts(&self, f: &mut Formatter) -> fmt::Result {
        let counts = &self.counts;
        let settings = &self.settings;
        let left_out = match counts.crash_points_left_out {
            0 => String::new(),
            events => format!(", {events} events with crash points of their own left out"),
        };
        let strict = if settings.strict_fences { ", strict fences" } else { "" };
        let loses = if settings.failed_flush_loses { ", a failed flush loses" } else { "" };
        writeln!(
            f,
            "  {} {:?}{strict}{loses}, seed {}",
            settings.platform, settings.granularity, settings.seed
        )?;
        if settings.sampled {
            writeln!(
                f,
                "  recorded on KVM: sampled, not reproducible; contents of sectors between two looks were not tried"
            )?;
        }
        writeln!(
            f,
            "  {} events, {} promises, {} crash points ({} more equal to one of them{})",
            counts.events, counts.promises, counts.crash_points, counts.crash_points_equal, left_out
        )?;
        let least = if counts.states_exist_exact || counts.states_exist.starts_with("more") {
            ""
        } else {
            "at least "
        };
        let claim = if counts.exhaustive { "exhaustive for this execution" } else { "a bounded choice" };
        if settings.explore == Explore::Lazy {
            writeln!(
                f,
                "  states: {least}{} exist (2^{:.1}); {} recoveries, {} states judged: {claim}",
                counts.states_exist, counts.states_exist_log2, counts.recoveries, counts.states_distinct
            )?;
            self.write_searches(f)?;
            self.write_judgements(f)?;
            return self.write_in_recovery(f);
        }
        writeln!(
            f,
            "  states: {least}{} exist (2^{:.1}), {} chosen, {} distinct and recovered, {} equal by content, {} left out by the budget of {}: {claim}",
            counts.states_exist,
            counts.states_exist_log2,
            counts.states_chosen,
            counts.states_distinct,
            counts.states_equal,
            counts.states_left_out,
            settings.budget
        )?;
        self.write_judgements(f)?;
        self.write_in_recovery(f)
    }

    /// What came of cutting the power again.
    fn write_in_recovery(&self, f: &mut Formatter) -> fmt::Result {
        for (level, number) in self.in_recovery.iter().zip(1..) {
            let not_fine = match level.not_fine {
                0 => String::new(),
                states => format!(", {states} of them not fine already"),
            };
            writeln!(
                f,
                "  power cut in recovery ({number}): {} recoveries recorded{not_fine}, {} differ in what they write, {} cut",
                level.recorded,
                level.different,
                level.roots.len()
            )?;
            let claim =
                if level.is_exhaustive() { "exhaustive for these recoveries" } else { "a bounded choice" };
            writeln!(
                f,
                "    {} crash points ({} more equal to one of them), {} exhaustive; {} recoveries, {} states judged: {claim}",
                level.crash_points,
                level.crash_points_equal,
                level.points_exhaustive,
                level.recoveries,
                level.states
            )?;
            let bounded = level.roots.iter().flat_map(|root| {
                root.bounded.iter().map(move |(events, why)| (root.cuts.last(), events, why))
            });
            for (cut, events, why) in bounded.clone().take(BOUNDED) {
                let state = cut.map_or(String::new(), |cut| cut.state.to_string());
                writeln!(f, "    behind {events} events of the recovery from state {state}: {why}")?;
            }
            match bounded.count().saturating_sub(BOUNDED) {
                0 => (),
                more => writeln!(f, "    and {more} more bounded: see the JSON report")?,
            }
        }
        Ok(())
    }

    /// What faults there were that waited for the journal.
    fn write_faults(&self, f: &mut Formatter) -> fmt::Result {
        let sum = |of: fn(&FaultReport) -> u64| self.faults.iter().map(of).sum::<u64>();
        let huge = self.faults.iter().filter(|fault| fault.size > 4096).count();
        match self.faults.len() {
            0 => Ok(()),
            faults => writeln!(
                f,
                "  synchronous faults: {faults}, {huge} of them huge; {} lines flushed by the kernel in them, {} with nothing volatile in them",
                sum(|fault| fault.flushed),
                sum(|fault| fault.redundant)
            ),
        }
    }

    fn write_judgements(&self, f: &mut Formatter) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "  {} judgements, {} of {} promises judged{}",
            counts.judged,
            counts.promises_judged,
            counts.promises,
            match counts.acknowledged {
                0 => String::new(),
                all => format!(", {} of {all} acknowledgements", counts.acknowledged_judged),
            }
        )
    }

    /// Which crash points were searched in full, and which were not.
    fn write_searches(&self, f: &mut Formatter) -> fmt::Result {
        let points = self.counts.crash_points;
        writeln!(
            f,
            "  crash points: {} exhaustive, {} bounded",
            self.counts.points_exhaustive,
            points - self.counts.points_exhaustive
        )?;
        let bounded = self.points.iter().filter_map(|point| {
            let search = point.search.as_ref()?;
            Some((point, search.recoveries, search.bounded.as_ref()?))
        });
        for (point, recoveries, why) in bounded.clone().take(BOUNDED) {
            writeln!(
                f,
                "    behind {} events: {} parts in flight, 2^{:.1} states, {recoveries} recoveries: {why}",
                point.events, point.in_flight, point.log2
            )?;
        }
        match bounded.count().saturating_sub(BOUNDED) {
            0 => (),
            more => writeln!(f, "    and {more} more bounded: see the JSON report")?,
        }
        let counts = &self.counts;
        match counts.states_chosen {
            0 => Ok(()),
            chosen => writeln!(
                f,
                "  sampled at bounded points: {chosen} chosen, {} equal by content, {} left out by the budget of {}",
                counts.states_equal, counts.states_left_out, self.settings.budget
            ),
        }
    }
}

impl Finding {
    /// The finding as in the text of its report.
    pub fn to_text(&self) -> String {
        struct Text<'a>(&'a Finding);
        impl Display for Text<'_> {
            fn fmt(&self, f: &mut Formatter) -> fmt::Result {
                write_finding(f, self.0, false)
            }
        }
        Text(self).to_string()
    }
}

fn write_finding(f: &mut Formatter, finding: &Finding, sampled: bool) -> fmt::Result {
    writeln!(f, "{}: {}", finding.class, finding.text)?;
    if let Some(promise) = &finding.promise {
        writeln!(f, "  broken: {} (line {}, event {})", promise.text, promise.line, promise.event)?;
    }
    let smallest = &finding.smallest;
    if finding.is_of_recording() {
        writeln!(f, "  behind {} events", smallest.events)?;
    } else {
        for cut in &finding.earlier {
            writeln!(
                f,
                "  the power goes behind {} events, {} of {} parts in flight lost (state {}), and again in recovery:",
                cut.events,
                cut.lost.len(),
                cut.in_flight,
                cut.state
            )?;
        }
        writeln!(
            f,
            "  in {} states at {} crash points; smallest: behind {} events, {}",
            finding.states,
            finding.points,
            smallest.events,
            lost(smallest)
        )?;
        if finding.untried > 0 {
            writeln!(f, "  of these states {} were not tried for another cause", finding.untried)?;
        }
    }
    if let Some(cause) = &finding.cause {
        writeln!(f, "  cause: the store of event {}: with it there, this is gone", cause.event)?;
    }
    for store in &finding.stores {
        write_store(f, store)?;
    }
    if !finding.is_of_recording() && smallest.lost.is_empty() && finding.stores.is_empty() {
        writeln!(
            f,
            "  no store in flight is behind it: what is missing was in memory only, as changes of names and sizes may be"
        )?;
    }
    let console: Vec<&str> = finding.console.lines().rev().take(12).collect();
    if !console.is_empty() {
        let of = if finding.is_of_recording() { "recording" } else { "recovery" };
        writeln!(f, "  console of the {of}:")?;
        for line in console.iter().rev() {
            writeln!(f, "    {line}")?;
        }
    }
    if sampled {
        writeln!(f, "  {}: cannot be replayed", finding.id)?;
    } else {
        writeln!(f, "  replay: pmemsim replay REPORT {}", finding.id)?;
    }
    finding.symptoms.iter().try_for_each(|symptom| write_symptom(f, symptom))
}

/// Another symptom of the same cause.
fn write_symptom(f: &mut Formatter, symptom: &SymptomReport) -> fmt::Result {
    writeln!(f, "  from the same cause, {}: {}", symptom.class, symptom.text)?;
    if let Some(promise) = &symptom.promise {
        writeln!(f, "    broken: {} (line {}, event {})", promise.text, promise.line, promise.event)?;
    }
    let smallest = &symptom.smallest;
    writeln!(
        f,
        "    in {} states at {} crash points; smallest: {}, {}",
        symptom.states,
        symptom.points,
        symptom.id,
        lost(smallest)
    )
}

/// What a state lacks.
fn lost(smallest: &SmallestState) -> String {
    let lines = match smallest.lost_lines {
        0 => String::new(),
        1 => ", one line".to_owned(),
        lines => format!(", {lines} lines"),
    };
    format!("{} of {} parts in flight lost{lines}", smallest.lost.len(), smallest.in_flight)
}

fn write_store(f: &mut Formatter, store: &StoreReport) -> fmt::Result {
    let several = if store.count > 1 {
        format!("{} stores from event {}", store.count, store.event)
    } else {
        format!("store, event {}", store.event)
    };
    let file = store.file.as_ref().map_or(String::new(), |file| format!(" ({file})"));
    writeln!(f, "  {several}: {} bytes at {:#x}{file}, {}", store.bytes, store.address, store.lacked)?;
    let step = store.step.as_ref().map_or(String::new(), |step| format!(", in {step}"));
    writeln!(f, "    by {}{step}", store.at)?;
    for frame in &store.stack {
        writeln!(f, "      {frame}")?;
    }
    Ok(())
}
