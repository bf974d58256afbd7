//! Lines that the kernel flushes in a fault that waits for the journal, and those of them that had nothing volatile in
//! them. There is nothing to flush in such a fault: what it zeroes goes around the cache, and nobody has stored to the
//! page yet. Before the entry of the page was kept clean until the fault is over ("dax, iomap: Add support for
//! synchronous faults", Linux 4.15), the fault wrote back the entry that it had just made dirty itself.

use std::collections::BTreeSet;

use persist::{Event, EventKind, LINE, StorePath};

use crate::oracle::judge::Fault;
use crate::report::FaultReport;
use crate::scenario::PageSize;
use crate::verdict::Class;
use crate::windows;

/// Counts the flushes of every fault.
pub(crate) fn count(events: impl IntoIterator<Item = Event>, faults: &[windows::Fault]) -> Vec<FaultReport> {
    let mut counted: Vec<FaultReport> = faults.iter().map(report).collect();
    if faults.is_empty() {
        return counted;
    }
    // Lines of which the cache may have something that the media have not. What is flushed is on its way.
    let mut dirty: BTreeSet<u64> = BTreeSet::new();
    for event in events {
        match &event.kind {
            EventKind::Store { addr, bytes, path } if *path != StorePath::NonTemporal => {
                let last = addr + (bytes.len() as u64).max(1) - 1;
                dirty.extend((addr / LINE..=last / LINE).map(|line| line * LINE));
            }
            EventKind::Flush { addr, .. } => {
                let was_dirty = dirty.remove(addr);
                let in_fault = |fault: &windows::Fault| fault.span.contains(&event.seq);
                if event.origin.cpl == 0
                    && let Some(fault) = faults.iter().position(in_fault)
                {
                    counted[fault].flushed += 1;
                    counted[fault].redundant += u64::from(!was_dirty);
                }
            }
            _ => (),
        }
    }
    counted
}

fn report(fault: &windows::Fault) -> FaultReport {
    let size = fault.size.map_or(0, |size| if size == PageSize::Huge { 2 << 20 } else { 4096 });
    FaultReport { event: *fault.span.start(), size, flushed: 0, redundant: 0 }
}

/// What must not be, in words.
pub(crate) fn fault(counted: &[FaultReport]) -> Option<Fault> {
    let redundant: u64 = counted.iter().map(|fault| fault.redundant).sum();
    let faults = counted.iter().filter(|fault| fault.redundant > 0).count();
    (redundant > 0).then(|| Fault {
        class: Class::RedundantFlush,
        promise: None,
        subject: "recording".to_owned(),
        range: None,
        text: format!(
            "{redundant} lines that had nothing volatile in them are flushed by the kernel in {faults} of {} synchronous faults",
            counted.len()
        ),
    })
}

#[cfg(test)]
mod tests {
    use persist::{FlushKind, Origin};

    use super::*;

    #[test]
    fn a_flush_of_a_line_with_nothing_volatile_in_it_is_redundant_and_counts_in_its_fault_only() {
        let store = |addr, path| EventKind::Store { addr, bytes: [1_u8; 8][..].into(), path };
        let flush = |addr| EventKind::Flush { addr, kind: FlushKind::Clwb };
        let kinds = [
            flush(0),
            store(60, StorePath::Cached),
            store(128, StorePath::NonTemporal),
            flush(0),
            flush(64),
            flush(64),
            flush(128),
            flush(192),
        ];
        let event = |(seq, kind)| Event { seq, origin: Origin::default(), kind };
        let events: Vec<Event> = (0..).zip(kinds).map(event).collect();
        let fault = windows::Fault {
            windows: Default::default(),
            overlap: None,
            span: 1..=6,
            size: Some(PageSize::Small),
        };
        let counted = count(events, &[fault]);
        assert_eq!(counted, [FaultReport { event: 1, size: 4096, flushed: 4, redundant: 2 }]);
        assert!(super::fault(&counted).is_some());
        assert!(super::fault(&[FaultReport { redundant: 0, ..counted[0].clone() }]).is_none());
    }
}
