use std::collections::BTreeSet;

use super::*;

#[test]
fn every_cell_is_a_scenario_and_has_a_name_of_its_own() {
    let cells = cells();
    for cell in &cells {
        cell.scenario("debian-6.1").unwrap_or_else(|error| panic!("{error}"));
    }
    let names: BTreeSet<String> = cells.iter().map(Cell::name).collect();
    assert_eq!(names.len(), cells.len());
    assert!(names.contains("ext4 pte hole adr") && names.contains("xfs pmd re-extended virtio-pmem"));
}

#[test]
fn cells_of_one_machine_stand_together_and_agree_about_it() {
    let cells = cells();
    let mut seen = BTreeSet::new();
    for group in cells.chunk_by(|one, other| one.machine() == other.machine()) {
        assert!(seen.insert(group[0].machine()), "one group for each machine");
        let first = group[0].scenario("debian-6.1").unwrap();
        for cell in group {
            let scenario = cell.scenario("debian-6.1").unwrap();
            assert_eq!(scenario.machine, first.machine);
            assert_eq!(scenario.regions, first.regions);
            assert_eq!(scenario.filesystem, first.filesystem);
        }
    }
}

#[test]
fn every_fault_is_guarded_and_virtio_pmem_has_to_refuse() {
    for cell in cells() {
        let text = text::of(&cell, "debian-6.1");
        assert!(text.contains("fault = { size = "), "{}", cell.name());
        assert_eq!(text.contains("EOPNOTSUPP"), cell.name().ends_with(" virtio-pmem"), "{}", cell.name());
    }
}

#[test]
fn the_table_says_what_is_left_out_and_why() {
    let table = table(&[]);
    assert!(left_out().iter().all(|(what, why)| table.contains(what) && table.contains(why)), "{table}");
}

#[test]
fn what_is_known_of_a_series_is_not_expected_of_others_and_of_kernels_of_the_users() {
    let expect = |name: &str, kernel: &str| {
        let all = cells();
        let cell = all.iter().find(|cell| cell.name() == name).unwrap();
        cell.scenario(kernel).unwrap().expect.iter().map(|class| class.name()).collect::<Vec<_>>()
    };
    for kernel in ["debian-6.1", "debian-6.1@6.1.0-57-cloud-amd64", "mutants-6.1"] {
        assert_eq!(expect("ext4 pte hole virtio-pmem", kernel), ["corrupt"], "{kernel}");
        assert_eq!(expect("xfs pmd re-extended virtio-pmem", kernel), ["lost"], "{kernel}");
        assert_eq!(expect("ext4-no-journal pmd two-threads adr-lost", kernel), ["lost"], "{kernel}");
    }
    for kernel in ["debian-6.12", "/build/linux-6.1/vmlinux", "../linux-6.1"] {
        assert!(expect("ext4 pte hole virtio-pmem", kernel).is_empty(), "{kernel}");
    }
    assert!(expect("xfs pte committed virtio-pmem", "debian-6.1").is_empty());
    let two_threads = "ext4-no-journal pmd two-threads virtio-pmem";
    assert_eq!(expect(two_threads, "debian-6.1"), ["lost", "corrupt"]);
    assert_eq!(expect(two_threads, "mutants-6.1"), ["lost"]);
    assert_eq!(expect("xfs pte then-sync adr", "debian-6.12"), ["lost"]);
}

#[test]
fn what_is_known_stands_on_a_page_of_the_documentation() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for known in &super::known::KNOWN {
        assert!(docs.join(known.page).is_file(), "{}", known.page);
    }
}
