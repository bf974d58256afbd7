//! The main job on real kernels: boot, record, cut, recover, judge.

mod clusters;
mod comparison;
mod controls;
mod debugger;
mod handover;
mod imported;
mod inside_the_fault;
mod labels;
mod lazily;
mod map_sync;
mod mutants;
mod page;
mod parts;
mod platforms;
mod processors;
mod programs;
mod recovery;
mod sabotage;
mod sampled;
mod sequences;
mod support;
mod virtio;
mod xfs;
