//! The scenarios of suites, as they are in the folders of `scenarios`.

/// `scenarios/proving-ground`: names of the files, and their texts.
pub const PROVING_GROUND: &[(&str, &str)] = &[
    ("append.toml", include_str!("../../scenarios/proving-ground/append.toml")),
    ("checkpoint.toml", include_str!("../../scenarios/proving-ground/checkpoint.toml")),
    ("directory.toml", include_str!("../../scenarios/proving-ground/directory.toml")),
    ("fences.toml", include_str!("../../scenarios/proving-ground/fences.toml")),
    ("flush-hints.toml", include_str!("../../scenarios/proving-ground/flush-hints.toml")),
    ("msync-offset.toml", include_str!("../../scenarios/proving-ground/msync-offset.toml")),
    ("msync.toml", include_str!("../../scenarios/proving-ground/msync.toml")),
    ("overwrite.toml", include_str!("../../scenarios/proving-ground/overwrite.toml")),
    ("replay-flush.toml", include_str!("../../scenarios/proving-ground/replay-flush.toml")),
    ("replay.toml", include_str!("../../scenarios/proving-ground/replay.toml")),
    (
        "sync-fault-fast-commit.toml",
        include_str!("../../scenarios/proving-ground/sync-fault-fast-commit.toml"),
    ),
    (
        "sync-fault-flushes-xfs.toml",
        include_str!("../../scenarios/proving-ground/sync-fault-flushes-xfs.toml"),
    ),
    ("sync-fault-flushes.toml", include_str!("../../scenarios/proving-ground/sync-fault-flushes.toml")),
    ("sync-fault-hole.toml", include_str!("../../scenarios/proving-ground/sync-fault-hole.toml")),
    ("sync-fault-huge.toml", include_str!("../../scenarios/proving-ground/sync-fault-huge.toml")),
    ("sync-fault-race.toml", include_str!("../../scenarios/proving-ground/sync-fault-race.toml")),
    (
        "sync-fault-uncommitted.toml",
        include_str!("../../scenarios/proving-ground/sync-fault-uncommitted.toml"),
    ),
    ("sync-fault-xfs.toml", include_str!("../../scenarios/proving-ground/sync-fault-xfs.toml")),
    ("truncate.toml", include_str!("../../scenarios/proving-ground/truncate.toml")),
    ("virtio-flush.toml", include_str!("../../scenarios/proving-ground/virtio-flush.toml")),
];

/// `scenarios/known-tests`, the same.
pub const KNOWN_TESTS: &[(&str, &str)] = &[
    ("generic-325-xfs.toml", include_str!("../../scenarios/known-tests/generic-325-xfs.toml")),
    ("generic-325.toml", include_str!("../../scenarios/known-tests/generic-325.toml")),
    ("generic-388-xfs.toml", include_str!("../../scenarios/known-tests/generic-388-xfs.toml")),
    ("generic-388.toml", include_str!("../../scenarios/known-tests/generic-388.toml")),
    ("generic-470-xfs.toml", include_str!("../../scenarios/known-tests/generic-470-xfs.toml")),
    ("generic-470.toml", include_str!("../../scenarios/known-tests/generic-470.toml")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_scenario_of_the_folders_is_left_out() {
        for (folder, known) in [("proving-ground", PROVING_GROUND), ("known-tests", KNOWN_TESTS)] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(folder);
            let entries = std::fs::read_dir(folder).unwrap();
            let there = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let known = known.iter().map(|(name, _)| (*name).to_owned());
            assert_eq!(there.collect::<BTreeSet<_>>(), known.collect());
        }
    }
}
