//! Development driver.
fn main() {
    let mut json = None;
    let mut kernel = None;
    let mut options = explore::RunOptions { jobs: 2, ..Default::default() };
    for arg in std::env::args().skip(1) {
        if let Some(j) = arg.strip_prefix("--jobs=") {
            options.jobs = j.parse().unwrap();
            continue;
        }
        if let Some(j) = arg.strip_prefix("--json=") {
            json = Some(j.to_owned());
            continue;
        }
        if let Some(j) = arg.strip_prefix("--budget=") {
            options.budget = Some(j.parse().unwrap());
            continue;
        }
        if let Some(j) = arg.strip_prefix("--granularity=") {
            options.granularity = match j {
                "line" => persist::Granularity::Line,
                "word" => persist::Granularity::Word,
                _ => persist::Granularity::Sector,
            };
            continue;
        }
        if let Some(j) = arg.strip_prefix("--sabotage=") {
            options.sabotage = Some(match j {
                "stores" => explore::Sabotage::StoresAreDurable,
                "sfence" => explore::Sabotage::IgnoreSfence,
                "promises" => explore::Sabotage::PromisesDrain,
                _ => explore::Sabotage::SkipOracle,
            });
            continue;
        }
        if let Some(j) = arg.strip_prefix("--kernel=") {
            kernel = Some(j.to_owned());
            continue;
        }
        if let Some(j) = arg.strip_prefix("--replay=") {
            let report = explore::Report::from_json(&std::fs::read_to_string(j).unwrap()).unwrap();
            let scenario = explore::replay::scenario_of(&report).unwrap();
            let cache = images::Cache::open().unwrap();
            let machines = explore::machines::Machines::prepare(&scenario, &cache, scenario.crash.seed)
                .unwrap_or_else(|e| panic!("{e}"));
            for f in &report.findings {
                let r = explore::replay(&report, &f.id, &scenario, &machines).unwrap();
                println!(
                    "{} {} -> {:?} {} image {}",
                    f.id,
                    f.class,
                    r.faults,
                    r.outcome,
                    r.image.map_or(0, |image| image.len())
                );
            }
            continue;
        }
        let mut scenario = explore::Scenario::load(arg.as_ref()).unwrap();
        if let Some(k) = &kernel {
            scenario.machine.kernel = k.clone();
        }
        let start = std::time::Instant::now();
        let cache = images::Cache::open().unwrap();
        let machines = explore::machines::Machines::prepare(&scenario, &cache, scenario.crash.seed)
            .unwrap_or_else(|e| panic!("{e}"));
        eprintln!("prepared {:?}", start.elapsed());
        let report =
            explore::run(&scenario, &machines, &options, &|p| eprintln!("{:?} {p:?}", start.elapsed()))
                .unwrap();
        println!("{report}");
        eprintln!("{:?}", start.elapsed());
        if let Some(j) = &json {
            std::fs::write(j, report.to_json()).unwrap();
        }
    }
}
