//! How often x87's transcendental instructions give another last place than hardware does.

use iced_x86::Code;

use super::{
    case::{Fx, LAYOUT},
    cases::{self, LONGEST},
    guest::Guest,
    host::Host,
    operands::Form,
    random::Random,
    x87::order,
};

/// Instances of each instruction that are compared.
pub const INSTANCES: u64 = 2000;
/// Of the random numbers that they are made from.
pub const SEED: u64 = 20_261_123;
/// What `MEASURED` was measured on.
pub const HOST: &str = "an AMD EPYC (family 25, model 1)";
/// Each instruction, and how many of its instances gave another last place than `HOST`. None was further off.
pub const MEASURED: [(Code, u64); 8] = [
    (Code::Fsin, 11),
    (Code::Fcos, 16),
    (Code::Fsincos, 19),
    (Code::Fptan, 58),
    (Code::Fpatan, 39),
    (Code::F2xm1, 64),
    (Code::Fyl2x, 37),
    (Code::Fyl2xp1, 55),
];

/// Compares results and holds them against [`MEASURED`]: other processors may differ twice as often.
pub fn check(host: &mut Host, guest: &mut Guest) {
    let mut random = Random::new(SEED);
    let mut found = Vec::new();
    for (code, measured) in MEASURED {
        let mut different = 0;
        for _ in 0..INSTANCES {
            let distance = distance(code, host, guest, &mut random);
            assert!(distance <= 1, "{code:?} is off by {distance} in the last place");
            different += distance;
        }
        eprintln!("{code:?}: {different} of {INSTANCES} differ in the last place, {measured} did on {HOST}");
        found.push((code, different, measured));
    }
    let often =
        found.into_iter().filter(|(_, different, measured)| *different > 2 * measured + INSTANCES / 100);
    let often: Vec<_> = often.map(|(code, ..)| code).collect();
    assert!(often.is_empty(), "far more often than measured: {often:?}");
}

/// How many numbers the results of both are apart, for operands of which the result is rounded.
fn distance(code: Code, host: &mut Host, guest: &mut Guest, random: &mut Random) -> u64 {
    let memory = vec![0; LAYOUT.memory_len()];
    let made = std::iter::repeat_with(|| cases::of_form(Form { code, bits: 64 }, &memory, random));
    let fits = |made: &cases::Made| {
        made.instruction.code() == code && made.case.at + LONGEST as u64 * 2 < LAYOUT.code.end
    };
    let mut case = made.flatten().find(fits).expect("there are instances").case;
    case.rflags = 0;
    case.fx = Fx::default();
    case.fx.set_control(0x37f);
    // Six registers are free for results.
    case.fx.set_tags(3);
    case.fx.set_mxcsr(0x1f80);
    case.fx.set_st(0, operand(code, random));
    case.fx.set_st(1, number(random, 0x3fff - 20, 40));
    let (theirs, ours) = (host.run(&case), guest.run(&case).expect("it can be executed"));
    assert_eq!((theirs.vector, ours.vector), (3, 3), "{code:?}");
    let apart = |n| order(theirs.fx.st(n)).abs_diff(order(ours.fx.st(n))) as u64;
    apart(0).max(apart(1))
}

/// A value of ST0 for which `code` is defined.
fn operand(code: Code, random: &mut Random) -> u128 {
    match code {
        Code::F2xm1 => number(random, 0x3fff - 30, 30),
        Code::Fyl2xp1 => number(random, 0x3ffd - 30, 30),
        // Of a positive number.
        Code::Fyl2x => number(random, 0x3fff - 20, 40) & !(1 << 79),
        _ => number(random, 0x3fff - 20, 40),
    }
}

/// A normal number with one of `count` exponents.
fn number(random: &mut Random, exponent: u64, count: u64) -> u128 {
    let sign = u128::from(random.next() & 1) << 79;
    sign | u128::from(exponent + random.below(count)) << 64 | 1 << 63 | u128::from(random.next() >> 1)
}
