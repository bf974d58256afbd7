//! Recovering crash states: what going back costs, how many recoveries a second, and what memory a worker has.

use std::path::Path;

use explore::Scenario;
use explore::bench::recoveries;
use explore::machines::Machines;
use images::Cache;

use crate::say::say;

pub fn measure(cache: &Cache, scenario: &Path, jobs: &[usize], each: usize) -> anyhow::Result<u8> {
    let scenario = Scenario::load(scenario)?;
    let machines = Machines::prepare(&scenario, cache, scenario.crash.seed)?;
    for &jobs in jobs {
        let (mut measured, took, memory) = recoveries(&scenario, &machines, jobs, each)?;
        let a_second = measured.len() as f64 / took.as_secs_f64();
        measured.sort_by_key(|one| one.back);
        let Some(median) = measured.get(measured.len() / 2) else { return Ok(crate::failure::USAGE) };
        say!("recoveries      {} with {jobs} jobs: {a_second:.1} a second", measured.len())?;
        say!("going back      {} pages in {} us (median)", median.pages, median.back.as_micros())?;
        measured.sort_by_key(|one| one.recovery);
        say!("one recovery    {:.1} ms (median)", measured[measured.len() / 2].recovery.as_secs_f64() * 1e3)?;
        say!("one worker      {} MiB of memory for itself, beyond what all share", memory >> 20)?;
    }
    Ok(0)
}
