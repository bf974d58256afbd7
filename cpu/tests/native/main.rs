//! Compares the software processor with the one that runs this test, instruction by instruction.
//!
//! Every user-mode form that CPUID offers is made from iced's tables with random operands, registers and memory, and
//! executed on both: registers, defined flags, x87 and SSE state, memory and exceptions must agree.
//!
//! - `PMEMSIM_NATIVE_CASES`: how many cases of 64-bit code, spread over all forms (default 200000); of 32-bit and of
//!   16-bit code a fifth each.
//! - `PMEMSIM_NATIVE_FILTER`: only some forms, e.g. `sse`, `x87`, `integer`, `cvt,round`, `Addps_xmm` (see `forms`).
//! - `PMEMSIM_NATIVE_SEED`: another sample (default 1).
//! - `PMEMSIM_NATIVE_BITS`: code of 64, 32 or 16 bits only.
//! - `PMEMSIM_NATIVE_LIST`: set, `docs/cpu-coverage.md` is written instead of checked.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code)] // Executes chosen instructions natively: signals, fixed mappings.

mod case;
mod cases;
mod coverage;
mod descriptors;
mod features;
mod forms;
mod guest;
mod host;
mod operands;
mod random;
mod raw;
mod report;
mod skips;
mod transcendental;
mod x87;

use std::collections::{BTreeMap, HashMap};

use iced_x86::Mnemonic;

use case::LAYOUT;
use cases::Made;
use features::Offered;
use guest::Guest;
use host::Host;
use operands::Form;
use random::Random;
use skips::Verdict;

/// Mismatches after which the comparison gives up.
const ENOUGH: usize = 20;
/// Mismatches of one mnemonic that are shown and counted: more would hide the others.
const OF_ONE: usize = 2;
/// Of 100 cases so many are random bytes.
const RAW_PERCENT: u64 = 15;
/// For so many cases of 64-bit code there is one of 32-bit and one of 16-bit code.
const LEGACY_SHARE: u64 = 5;
/// Cases that start from the same random memory, but for what they put there themselves.
const SAME_MEMORY: u64 = 64;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// Both processors, and what came out so far.
struct Comparison {
    host: Host,
    guests: [(&'static str, Guest); 2],
    ours: Offered,
    hosts: Offered,
    run: u64,
    skipped: BTreeMap<&'static str, u64>,
    mismatches: usize,
    of_mnemonic: HashMap<Mnemonic, usize>,
}

impl Comparison {
    fn new() -> Comparison {
        let mut usual = Guest::new(false);
        let ours = Offered::new(|leaf| usual.cpuid(leaf));
        Comparison {
            host: Host::new(LAYOUT),
            guests: [("usual", usual), ("general", Guest::new(true))],
            ours,
            hosts: Offered::new(|leaf| {
                let answer = std::arch::x86_64::__cpuid_count(leaf, 0);
                [answer.eax, answer.ebx, answer.ecx, answer.edx]
            }),
            run: 0,
            skipped: BTreeMap::new(),
            mismatches: 0,
            of_mnemonic: HashMap::new(),
        }
    }

    /// Executes a case on both sides.
    fn compare(&mut self, made: &Made, bits: u32) {
        let differences = match skips::verdict(made, bits, &self.ours, &self.hosts) {
            Verdict::Skip(why) => {
                *self.skipped.entry(why).or_default() += 1;
                return;
            }
            Verdict::Undefined => Some((case::Outcome::default(), self.executed_although_not_offered(made))),
            Verdict::Compare => self.differences(made, bits),
        };
        let Some((host, differences)) = differences else {
            *self.skipped.entry("the model does not support it").or_default() += 1;
            return;
        };
        self.run += 1;
        let seen = self.of_mnemonic.entry(made.instruction.mnemonic()).or_default();
        if !differences.is_empty() && *seen < OF_ONE {
            *seen += 1;
            self.mismatches += 1;
            eprintln!("{}", report::describe(&made.case, &made.instruction, &host, &differences));
        }
    }

    fn differences(&mut self, made: &Made, bits: u32) -> Option<(case::Outcome, Vec<String>)> {
        let mut host = self.host.run(&made.case);
        let mut all = Vec::new();
        for (handlers, guest) in &mut self.guests {
            let mut ours = guest.run(&made.case)?;
            skips::forgive(made, bits, &mut host, &mut ours);
            let differences = report::differences(&host, &ours);
            all.extend(differences.into_iter().map(|line| format!("{handlers} handler: {line}")));
        }
        Some((host, all))
    }

    fn executed_although_not_offered(&mut self, made: &Made) -> Vec<String> {
        let outcomes = self.guests.iter_mut().filter_map(|(_, guest)| guest.run(&made.case));
        // Its bytes may go on where nothing is, or behind the end of the segment.
        let ends = skips::leaves_code_segment(&made.case);
        let fetched = |outcome: &case::Outcome| {
            outcome.vector == 14 && outcome.cr2 == LAYOUT.code.end || ends && outcome.vector == 13
        };
        outcomes
            .filter(|outcome| outcome.vector != 6 && !fetched(outcome))
            .map(|outcome| format!("not offered by CPUID, but vector {}", outcome.vector))
            .collect()
    }
}

/// Compares `cases` of the forms in code of `bits` that the filter names.
fn compare_code(comparison: &mut Comparison, bits: u32, cases: u64, filter: &str, random: &mut Random) {
    let forms = forms::named(forms::offered(&comparison.ours, bits), filter);
    assert!(!forms.is_empty(), "no form's name contains {filter:?}");
    let mut memory = vec![0; LAYOUT.memory_len()];
    let mut not_made = HashMap::new();
    for n in 0..cases {
        if n % SAME_MEMORY == 0 {
            memory.chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&random.next().to_le_bytes()));
        }
        let form = forms[n as usize % forms.len()];
        let made = if (filter.is_empty() || filter == "raw") && random.percent(RAW_PERCENT) {
            Some(cases::of_random_bytes(bits, &memory, random))
        } else {
            let made = (0..20).find_map(|_| cases::of_form(form, &memory, random));
            let (tried, failed): &mut (u32, u32) = not_made.entry(form).or_default();
            *tried += 1;
            *failed += made.is_none() as u32;
            made
        };
        if let Some(made) = made {
            comparison.compare(&made, bits);
            if comparison.mismatches == ENOUGH {
                break;
            }
        }
    }
    let never: Vec<Form> =
        not_made.iter().filter(|(_, (tried, failed))| tried == failed).map(|(form, _)| *form).collect();
    let skipped = std::mem::take(&mut comparison.skipped);
    let all_skipped: u64 = skipped.values().sum();
    let (run, mismatches) = (std::mem::take(&mut comparison.run), comparison.mismatches);
    eprintln!(
        "{bits}-bit code: {run} cases of {} forms, {all_skipped} skipped, {mismatches} mismatches",
        forms.len()
    );
    for (why, count) in &skipped {
        eprintln!("{count:8} skipped: {why}");
    }
    assert_eq!(mismatches, 0, "see above: host first, then ours");
    assert!(never.is_empty(), "no case could be made of {never:?}");
    assert!((run + all_skipped) * 10 >= cases * 9, "only {run} of {cases} cases could be made");
}

#[test]
fn every_offered_form_does_what_hardware_does() {
    let filter = std::env::var("PMEMSIM_NATIVE_FILTER").unwrap_or_default();
    let cases = setting("PMEMSIM_NATIVE_CASES", 200_000);
    let sizes = match setting("PMEMSIM_NATIVE_BITS", 0) {
        0 => vec![(64, cases), (32, cases / LEGACY_SHARE), (16, cases / LEGACY_SHARE)],
        bits => vec![(bits as u32, cases)],
    };
    let mut comparison = Comparison::new();
    let mut random = Random::new(setting("PMEMSIM_NATIVE_SEED", 1));
    for (bits, cases) in sizes {
        compare_code(&mut comparison, bits, cases, &filter, &mut random);
    }
    transcendental::check(&mut comparison.host, &mut comparison.guests[0].1);
}
