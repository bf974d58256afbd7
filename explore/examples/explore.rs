//! Development driver.
fn main() {
    let mut json = None;
    let mut options = explore::RunOptions { jobs: 2, ..Default::default() };
    for arg in std::env::args().skip(1) {
        if let Some(j) = arg.strip_prefix("--jobs=") { options.jobs = j.parse().unwrap(); continue; }
        if let Some(j) = arg.strip_prefix("--json=") { json = Some(j.to_owned()); continue; }
        if let Some(j) = arg.strip_prefix("--budget=") { options.budget = Some(j.parse().unwrap()); continue; }
        let scenario = explore::Scenario::load(arg.as_ref()).unwrap();
        let start = std::time::Instant::now();
        let cache = images::Cache::open().unwrap();
        let machines = explore::machines::Machines::prepare(&scenario, &cache, scenario.crash.seed).unwrap_or_else(|e| panic!("{e}"));
        eprintln!("prepared {:?}", start.elapsed());
        let report = explore::run(&scenario, &machines, &options, &|p| eprintln!("{:?} {p:?}", start.elapsed())).unwrap();
        println!("{report}");
        eprintln!("{:?}", start.elapsed());
        if let Some(j) = &json { std::fs::write(j, report.to_json()).unwrap(); }
    }
}
