//! Development driver: prints drains and symbols.
use explore::target::{Laboratory, Target};
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let scenario = explore::Scenario::load(path.as_ref()).unwrap();
    let cache = images::Cache::open().unwrap();
    let machines = explore::machines::Machines::prepare(&scenario, &cache, scenario.crash.seed).unwrap();
    let events = explore::debug_events(&scenario, &machines);
    let mut stores = 0;
    for e in events {
        match &e.kind {
            persist::EventKind::Store { .. } | persist::EventKind::Flush { .. } => {
                stores += 1;
                continue;
            }
            _ => (),
        }
        println!(
            "{} (after {stores} stores/flushes) cpl{} {:?} {:?} retired {}",
            e.seq,
            e.origin.cpl,
            machines.function_at(e.origin.rip),
            e.kind,
            e.origin.retired
        );
        stores = 0;
    }
    let _ = machines.start().map(|m| m.event_count());
}
