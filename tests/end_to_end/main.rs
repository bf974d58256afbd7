//! The main job on real kernels: boot, record, cut, recover, judge.

mod btt;
mod checks;
mod clusters;
mod comparison;
mod controls;
mod debugger;
mod firmware;
mod handover;
mod imported;
mod inside_the_fault;
mod labels;
mod lazily;
mod map_sync;
mod mutants;
mod parts;
mod platforms;
mod poison;
mod processors;
mod programs;
mod recovery;
mod sabotage;
mod sampled;
mod sequences;
mod support;
mod virtio;
mod xfs;
