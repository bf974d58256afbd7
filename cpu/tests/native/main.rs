//! Compares the software processor with the one that runs this test, instruction by instruction.
//!
//! Every user-mode form that CPUID offers is made from iced's tables with random operands, registers and memory, and
//! executed on both: registers, defined flags, x87 and SSE state, memory and exceptions must agree.
//!
//! - `PMEMSIM_NATIVE_CASES`: how many cases, spread over all forms (default 200000).
//! - `PMEMSIM_NATIVE_FILTER`: only some forms, e.g. `sse`, `x87`, `integer`, `cvt,round`, `Addps_xmm` (see `forms`).
//! - `PMEMSIM_NATIVE_SEED`: another sample (default 1).

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code)] // Executes chosen instructions natively: signals, fixed mappings.

mod case;
mod cases;
mod forms;
mod guest;
mod host;
mod random;
mod report;
mod skips;
mod x87;

use std::collections::HashMap;

use case::LAYOUT;
use guest::Guest;
use host::Host;
use random::Random;

/// Mismatches after which the comparison gives up.
const ENOUGH: usize = 20;
/// Mismatches of one mnemonic that are shown and counted: more would hide the others.
const OF_ONE: usize = 2;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

#[test]
fn every_offered_form_does_what_hardware_does() {
    let filter = std::env::var("PMEMSIM_NATIVE_FILTER").unwrap_or_default();
    let forms = forms::forms(&filter);
    assert!(!forms.is_empty(), "no form's name contains {filter:?}");
    let cases = setting("PMEMSIM_NATIVE_CASES", 200_000);
    let mut random = Random::new(setting("PMEMSIM_NATIVE_SEED", 1));
    let mut host = Host::new(LAYOUT);
    let mut guests = [("usual", Guest::new(false)), ("general", Guest::new(true))];
    let (mut run, mut skipped, mut mismatches) = (0, 0, 0);
    let mut of_mnemonic = HashMap::new();
    for n in 0..cases {
        let code = forms[n as usize % forms.len()];
        let Some((case, instruction)) = (0..20).find_map(|_| cases::case(code, &mut random)) else {
            continue;
        };
        if skips::case(&instruction, &case).is_some() {
            skipped += 1;
            continue;
        }
        let mut native = host.run(&case);
        run += 1;
        let differences: Vec<String> = guests
            .iter_mut()
            .flat_map(|(handlers, guest)| {
                let mut ours = guest.run(&case);
                skips::forgive(&instruction, &mut native, &mut ours);
                let differences = report::differences(&native, &ours);
                differences.into_iter().map(move |line| format!("{handlers} handler: {line}"))
            })
            .collect();
        let seen: &mut usize = of_mnemonic.entry(instruction.mnemonic()).or_default();
        if !differences.is_empty() && *seen < OF_ONE {
            *seen += 1;
            eprintln!("{}", report::describe(&case, &instruction, &native, &differences));
            mismatches += 1;
            if mismatches == ENOUGH {
                break;
            }
        }
    }
    eprintln!("{run} cases of {} forms, {skipped} skipped, {mismatches} mismatches", forms.len());
    assert_eq!(mismatches, 0, "see above: host first, then ours");
    assert!((run + skipped) * 10 >= cases * 9, "only {run} of {cases} cases could be made");
}
