//! Parts in flight that belong together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use crate::part::Part;

/// Parts in flight of one processor that were stored in one epoch, by one call of a kernel copy or by none, and that
/// cover one contiguous range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The processor.
    pub vcpu: u8,
    /// [`crate::Origin::copy_call`] of all parts.
    pub copy_call: u32,
    /// [`Part::epoch`] of all parts.
    pub epoch: u64,
    /// Address of the first byte.
    pub start: u64,
    /// Address behind the last byte.
    pub end: u64,
    /// Indexes of the parts in [`crate::CrashPoint::in_flight`], in event order.
    pub parts: Vec<usize>,
}

/// Groups the parts, in order of their first part.
pub(crate) fn groups(parts: &[Arc<Part>]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // Per kind of group: which starts where.
    let mut starts: HashMap<(u8, u32, u64), BTreeMap<u64, usize>, FxBuildHasher> = HashMap::default();
    for (index, part) in parts.iter().enumerate() {
        let (vcpu, copy_call, epoch) = (part.origin.vcpu, part.origin.copy_call, part.epoch);
        let starts = starts.entry((vcpu, copy_call, epoch)).or_default();
        let below = starts.range(..=part.addr).next_back().map(|(_, &group)| group);
        if let Some(group) = below.map(|group| &mut groups[group]).filter(|group| group.end >= part.addr) {
            group.end = group.end.max(part.end());
            group.parts.push(index);
        } else {
            starts.insert(part.addr, groups.len());
            let (start, end, parts) = (part.addr, part.end(), vec![index]);
            groups.push(Group { vcpu, copy_call, epoch, start, end, parts });
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use crate::testing::Execution;
    use crate::{Granularity, StorePath};

    #[test]
    fn parts_are_grouped_by_processor_call_epoch_and_range() {
        let mut run = Execution::new(Granularity::Line);
        run.cached(0x1000, 1);
        run.cached(0x2000, 1);
        run.cached(0x1001, 1);
        run.origin.copy_call = 3;
        run.store(0x1002, &[1; 70], StorePath::Cached);
        run.origin = crate::Origin { vcpu: 1, ..run.origin };
        run.store(0x3000, &[1; 8], StorePath::NonTemporal);
        run.sfence();
        run.origin.vcpu = 0;
        run.origin.copy_call = 0;
        run.cached(0x1002, 1);
        let found: Vec<_> =
            run.point().groups().into_iter().map(|group| (group.start, group.end, group.parts)).collect();
        let expected = [
            (0x1000, 0x1002, vec![0, 2]),
            (0x2000, 0x2001, vec![1]),
            (0x1002, 0x1048, vec![3, 4]),
            (0x1002, 0x1003, vec![5]),
        ];
        assert_eq!(found, expected);
    }
}
