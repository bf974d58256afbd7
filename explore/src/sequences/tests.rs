//! That the sequences are those that they are said to be.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn bounds(operations: u8, filesystem: &str) -> Bounds {
    Bounds { operations, filesystem: filesystem.to_owned(), kernel: "debian-6.1".to_owned(), crash: None }
}

#[test]
fn every_operation_makes_sense_alone() {
    for filesystem in ["ext4", "xfs"] {
        let bounds = bounds(1, filesystem);
        for operation in &OPERATIONS {
            for persistence in operation.persistence {
                let scenario = bounds.scenario(&[(operation, *persistence)]);
                assert!(scenario.is_ok(), "{}: {}", operation.name, scenario.unwrap_err());
            }
        }
        let alone: usize = OPERATIONS.iter().map(|operation| operation.persistence.len()).sum();
        assert_eq!(bounds.sequences().len(), alone);
    }
}

#[test]
fn sequences_have_names_of_their_own() {
    for operations in [1, 2] {
        let sequences = bounds(operations, "ext4").sequences();
        let names: BTreeSet<&str> =
            sequences.iter().map(|sequence| sequence.scenario.name.as_str()).collect();
        assert_eq!(names.len(), sequences.len());
    }
}

#[test]
fn of_two_operations_those_are_left_out_that_miss_their_files() {
    let sequences = bounds(2, "ext4").sequences();
    let names: BTreeSet<&str> = sequences.iter().map(|sequence| sequence.scenario.name.as_str()).collect();
    assert!(names.contains("create-new, link-bar fsync"));
    assert!(names.contains("create-new fsync, rename-over fsync"));
    assert!(!names.iter().any(|name| name.starts_with("unlink-bar") && name.contains(", append")));
    // Every operation begins some and ends some.
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    sequences.iter().for_each(|sequence| *ends.entry(sequence.operation).or_default() += 1);
    assert_eq!(ends.len(), OPERATIONS.len());
}
