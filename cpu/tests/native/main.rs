//! Compares the software processor with the one that runs this test, instruction by instruction.
//!
//! Every user-mode form that CPUID offers is made from iced's tables with random operands, registers and memory, and
//! executed on both: registers, defined flags, x87 and SSE state, memory and exceptions must agree.
//!
//! - `PMEMSIM_NATIVE_CASES`: how many cases, spread over all forms (default 200000).
//! - `PMEMSIM_NATIVE_FILTER`: only forms whose iced name contains this, e.g. `cvt` or `Addps_xmm`.
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

use case::LAYOUT;
use guest::Guest;
use host::Host;
use random::Random;

/// Mismatches after which the comparison gives up.
const ENOUGH: usize = 20;

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
    let (mut host, mut guest) = (Host::new(LAYOUT), Guest::new());
    let (mut run, mut mismatches) = (0, 0);
    for n in 0..cases {
        let code = forms[n as usize % forms.len()];
        let Some((case, instruction)) = (0..20).find_map(|_| cases::case(code, &mut random)) else { continue };
        let (mut native, mut ours) = (host.run(&case), guest.run(&case));
        skips::forgive(&instruction, &mut native, &mut ours);
        run += 1;
        let differences = report::differences(&native, &ours);
        if !differences.is_empty() {
            eprintln!("{}", report::describe(&case, &instruction, &native, &differences));
            mismatches += 1;
            if mismatches == ENOUGH {
                break;
            }
        }
    }
    eprintln!("{run} cases of {} forms, {mismatches} mismatches", forms.len());
    assert_eq!(mismatches, 0, "see above: host first, then ours");
    assert!(run * 10 >= cases * 9, "only {run} of {cases} cases could be made");
}
