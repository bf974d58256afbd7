//! A scenario recorded on the host's processor.

use std::io::Write;

use explore::Verdict;
use explore::machines::{Error, Machines};
use images::Cache;
use vmm::Engine;

use crate::support::{jobs, scenario};

#[test]
fn a_scenario_recorded_on_kvm_comes_to_its_verdict_and_is_marked_as_a_sample() {
    let scenario = scenario("virtio-pmem-ext4");
    let options = jobs(2);
    assert_eq!(scenario.refuses_samples(&options), None);
    let cache = Cache::open().expect("a cache directory");
    let machines = match Machines::on(Engine::Kvm, &scenario, &cache, scenario.crash.seed) {
        Ok(machines) => machines,
        Err(Error::Machine(vmm::Error::Kvm(why))) => {
            // Not println: the harness would swallow it.
            let said = format!("SKIPPED: {why}\n");
            return std::io::stderr().write_all(said.as_bytes()).expect("standard error takes a line");
        }
        Err(other) => panic!("{other}"),
    };
    let report = explore::run(&scenario, &machines, &options, &|_| ()).unwrap();
    assert_eq!(report.verdict, Verdict::Kept, "{report}");
    assert!(report.counts.promises_judged == 5 && report.counts.states_distinct >= 20, "{report}");
    assert!(report.settings.sampled && !report.counts.exhaustive, "{report}");
    assert!(report.to_string().contains("sampled, not reproducible"), "{report}");
    assert!(report.provenance.iter().any(|(what, _)| what == "kvm"), "{report}");
    let error = explore::replay(&report, "1-0", &scenario, &machines).unwrap_err().to_string();
    assert!(error.contains("1-0"), "{error}");
}
