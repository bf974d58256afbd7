//! The persistency model once more, straight from its words and as slowly as they come: a list of parts, who comes
//! before whom, and what a drain covers. Shares nothing with the crate but the events.

mod platforms;

use std::collections::{BTreeMap, BTreeSet};

use persist::{DrainKind, Event, EventKind, FlushKind, Granularity, Platform, Settings, StorePath};

/// Which store a part belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Event(usize),
    Rep(u8, u64),
}

/// A part, with its bytes by address.
pub struct Part {
    pub bytes: BTreeMap<u64, u8>,
    pub non_temporal: bool,
    /// A whole sector of a kernel copy.
    sector: bool,
    store: Store,
    /// Index of the store's event, of the last one of a whole sector.
    event: usize,
    vcpu: u8,
    /// Whether a processor wrote it, not an agent.
    processor: bool,
}

impl Part {
    fn line(&self) -> u64 {
        self.bytes.keys().next().expect("parts have bytes") / 64
    }

    /// Whether they share a byte; a part has no holes.
    fn overlaps(&self, other: &Part) -> bool {
        let (first, last) = self.ends();
        let (other_first, other_last) = other.ends();
        first <= other_last && other_first <= last
    }

    fn ends(&self) -> (u64, u64) {
        let ends = self.bytes.keys().next().zip(self.bytes.keys().next_back());
        ends.map(|(first, last)| (*first, *last)).expect("parts have bytes")
    }
}

/// The parts of an execution so far.
pub struct Reference {
    nt_evicts: bool,
    platform: Platform,
    /// Under `virtio-pmem`: the event from which on everybody sees the part.
    visible: Vec<Option<usize>>,
    /// In coherence order.
    pub parts: Vec<Part>,
    pub durable: BTreeSet<usize>,
    /// Under strict fences: what any other drain than a fence has covered.
    pub handed_over: BTreeSet<usize>,
}

/// What becomes of the store of an event in a kernel copy.
#[derive(Clone, Copy, PartialEq)]
enum InCopy {
    /// An ordinary store.
    Ordinary,
    /// One of those that make a whole sector; the last of them is this event.
    Whole { last: usize },
    /// The copy may still go on to fill the sector.
    Open,
}

impl Reference {
    pub fn run(events: &[Event], settings: Settings) -> Self {
        let copies = match settings.granularity {
            Granularity::Sector if settings.platform != Platform::HostSurvives => copies(events),
            _ => vec![InCopy::Ordinary; events.len()],
        };
        platforms::run(events, &copies, settings)
    }

    /// As `adr` has it.
    fn adr(events: &[Event], copies: &[InCopy], settings: Settings) -> Self {
        let Settings { granularity, nt_evicts, strict_fences, .. } = settings;
        let mut this = Self {
            nt_evicts,
            platform: Platform::Adr,
            visible: Vec::new(),
            parts: Vec::new(),
            durable: BTreeSet::new(),
            handed_over: BTreeSet::new(),
        };
        let mut targets: BTreeMap<u8, BTreeSet<usize>> = BTreeMap::new();
        // Parts under CLFLUSH with the processor and how many of its instructions were retired.
        let mut clflush: Vec<(u8, u64, BTreeSet<usize>)> = Vec::new();
        for (index, event) in events.iter().enumerate() {
            let vcpu = event.origin.vcpu;
            let told = matches!(event.kind, EventKind::Promise { .. } | EventKind::Marker { .. });
            let (own, others): (Vec<_>, Vec<_>) = clflush.into_iter().partition(|(cpu, _, _)| *cpu == vcpu);
            clflush = others;
            for (_, retired, parts) in own {
                // The instruction by which the guest talks to the simulator is not one of the machine.
                if event.origin.retired - retired > u64::from(told) {
                    this.make_durable(parts);
                } else {
                    clflush.push((vcpu, event.origin.retired, parts));
                }
            }
            match &event.kind {
                EventKind::Store { addr, bytes, path } => {
                    let bytes = (*addr..).zip(bytes.iter().copied()).collect();
                    match copies[index] {
                        InCopy::Ordinary => this.append(index, vcpu, bytes, *path, granularity),
                        InCopy::Whole { last } if last == index => this.append_sector(events, copies, index),
                        InCopy::Whole { .. } | InCopy::Open => {}
                    }
                }
                EventKind::Flush { addr, kind } => {
                    let cached = this.numbers(|part| !part.non_temporal && part.line() == addr / 64);
                    targets.entry(vcpu).or_default().extend(&cached);
                    if *kind == FlushKind::Clflush {
                        clflush.push((vcpu, event.origin.retired, cached));
                    }
                }
                EventKind::Drain(kind) => {
                    let mut pending = targets.remove(&vcpu).unwrap_or_default();
                    pending.extend(this.numbers(|part| part.non_temporal && part.vcpu == vcpu));
                    if *kind == DrainKind::WriteBackAll {
                        pending.extend(this.held_by(vcpu));
                    }
                    if strict_fences && !matches!(kind, DrainKind::Sfence | DrainKind::Mfence) {
                        let handed_over = this.with_predecessors(pending);
                        this.handed_over.extend(handed_over);
                    } else {
                        this.make_durable(pending);
                        let handed_over = this.handed_over.clone();
                        this.make_durable(handed_over);
                    }
                }
                _ => {}
            }
        }
        this
    }

    fn numbers(&self, of: impl Fn(&Part) -> bool) -> BTreeSet<usize> {
        (0..self.parts.len()).filter(|&number| of(&self.parts[number])).collect()
    }

    /// Cached parts of the lines whose last cached store was this processor's.
    fn held_by(&self, vcpu: u8) -> BTreeSet<usize> {
        self.numbers(|part| {
            let last =
                self.parts.iter().rev().find(|other| !other.non_temporal && other.line() == part.line());
            !part.non_temporal && last.is_some_and(|last| last.processor && last.vcpu == vcpu)
        })
    }

    fn append(
        &mut self,
        index: usize,
        vcpu: u8,
        bytes: BTreeMap<u64, u8>,
        path: StorePath,
        granularity: Granularity,
    ) {
        let non_temporal = path == StorePath::NonTemporal;
        let rep = matches!(path, StorePath::CachedRep(_));
        let unit = if non_temporal || rep || granularity == Granularity::Word { 8 } else { 64 };
        let store = match path {
            StorePath::CachedRep(number) => Store::Rep(vcpu, number),
            _ => Store::Event(index),
        };
        let mut pieces: BTreeMap<u64, BTreeMap<u64, u8>> = BTreeMap::new();
        for (addr, byte) in bytes {
            pieces.entry(addr / unit).or_default().insert(addr, byte);
        }
        let processor = path != StorePath::Agent;
        for bytes in pieces.into_values() {
            let (sector, event) = (false, index);
            self.parts.push(Part { bytes, non_temporal, sector, store, event, vcpu, processor });
        }
    }

    fn append_sector(&mut self, events: &[Event], copies: &[InCopy], last: usize) {
        let mut bytes = BTreeMap::new();
        for (event, _) in events.iter().zip(copies).filter(|(_, copy)| **copy == InCopy::Whole { last }) {
            if let EventKind::Store { addr, bytes: written, .. } = &event.kind {
                bytes.extend((*addr..).zip(written.iter().copied()));
            }
        }
        let vcpu = events[last].origin.vcpu;
        let (non_temporal, sector, processor) = (true, true, true);
        let store = Store::Event(last);
        self.parts.push(Part { bytes, non_temporal, sector, store, event: last, vcpu, processor });
    }

    /// Whether `later` comes after `earlier`, which stands before it in coherence order.
    pub fn comes_after(&self, later: usize, earlier: usize) -> bool {
        let (one, two) = (&self.parts[earlier], &self.parts[later]);
        let same_line = !one.sector && !two.sector && one.line() == two.line();
        let cached = !one.non_temporal && !two.non_temporal && one.store != two.store;
        let evicted = self.nt_evicts && !one.non_temporal && two.non_temporal;
        one.overlaps(two) || same_line && (cached || evicted) || self.comes_after_elsewhere(later, earlier)
    }

    /// The set with all that comes before its parts.
    pub fn with_predecessors(&self, mut set: BTreeSet<usize>) -> BTreeSet<usize> {
        for later in (0..self.parts.len()).rev() {
            if set.contains(&later) {
                set.extend((0..later).filter(|&earlier| self.comes_after(later, earlier)));
            }
        }
        set
    }

    /// Of every part, itself and all that comes before.
    pub fn predecessors(&self) -> Vec<BTreeSet<usize>> {
        let mut all: Vec<BTreeSet<usize>> = Vec::new();
        for later in 0..self.parts.len() {
            let mut before = BTreeSet::from([later]);
            for earlier in (0..later).filter(|&earlier| self.comes_after(later, earlier)) {
                before.extend(&all[earlier]);
            }
            all.push(before);
        }
        all
    }

    pub fn is_closed(&self, set: &BTreeSet<usize>) -> bool {
        self.with_predecessors(set.clone()) == *set
    }

    fn make_durable(&mut self, parts: BTreeSet<usize>) {
        let all = self.with_predecessors(parts);
        self.durable.extend(all);
    }

    /// The parts that are not durable, in coherence order.
    pub fn in_flight(&self) -> Vec<usize> {
        (0..self.parts.len()).filter(|number| !self.durable.contains(number)).collect()
    }

    /// Content over zeros after the parts of a set and the durable ones were applied in list order.
    pub fn content(&self, set: &BTreeSet<usize>) -> BTreeMap<u64, u8> {
        let mut content = BTreeMap::new();
        for (number, part) in self.parts.iter().enumerate() {
            if set.contains(&number) || self.durable.contains(&number) {
                content.extend(&part.bytes);
            }
        }
        content.retain(|_, byte| *byte != 0);
        content
    }
}

/// Looks ahead from every first store of a sector by a kernel copy whether the copy fills it.
fn copies(events: &[Event]) -> Vec<InCopy> {
    let mut copies = vec![InCopy::Ordinary; events.len()];
    for first in 0..events.len() {
        let Some((sector, _)) = copy_store(&events[first]).filter(|(addr, _)| addr % 512 == 0) else {
            continue;
        };
        if copies[first] != InCopy::Ordinary {
            continue;
        }
        let (members, end) = follow(events, first, sector);
        let fate = match end {
            End::Whole => InCopy::Whole { last: members[members.len() - 1] },
            End::Open => InCopy::Open,
            End::Short => InCopy::Ordinary,
        };
        members.into_iter().for_each(|member| copies[member] = fate);
    }
    copies
}

enum End {
    Whole,
    Short,
    Open,
}

/// Follows a copy from its first store in a sector: the stores that belong together, and how it ends.
fn follow(events: &[Event], first: usize, sector: u64) -> (Vec<usize>, End) {
    let copy = events[first].origin;
    let mut members = Vec::new();
    let mut next = sector;
    for (index, event) in events.iter().enumerate().skip(first) {
        let same = (event.origin.vcpu, event.origin.copy_call) == (copy.vcpu, copy.copy_call);
        if let Some((_, len)) =
            copy_store(event).filter(|&(addr, len)| same && addr == next && len <= sector + 512 - next)
        {
            members.push(index);
            next += len;
            if next == sector + 512 {
                return (members, End::Whole);
            }
            continue;
        }
        let written = |addr: u64, len: u64| addr / 64 * 64 < next && addr + len > sector;
        let beside = match &event.kind {
            EventKind::Store { addr, bytes, .. } => written(*addr, bytes.len() as u64),
            _ => false,
        };
        if beside || event.origin.vcpu == copy.vcpu && shows_the_end(event) {
            return (members, End::Short);
        }
    }
    (members, End::Open)
}

/// Whether an event of the copying processor cannot be an interrupt within the copy.
fn shows_the_end(event: &Event) -> bool {
    let kind = match &event.kind {
        EventKind::Store { path, .. } => *path != StorePath::Agent,
        EventKind::Flush { .. } | EventKind::FlushHint { .. } | EventKind::DeviceFlushSubmitted { .. } => {
            true
        }
        EventKind::Drain(kind) => matches!(kind, DrainKind::Sfence | DrainKind::Mfence),
        _ => false,
    };
    kind || event.origin.cpl != 0
}

fn copy_store(event: &Event) -> Option<(u64, u64)> {
    match &event.kind {
        EventKind::Store { addr, bytes, path: StorePath::NonTemporal }
            if event.origin.cpl == 0 && event.origin.copy_call != 0 =>
        {
            Some((*addr, bytes.len() as u64))
        }
        _ => None,
    }
}
