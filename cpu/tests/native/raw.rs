//! Instructions that no table made: random bytes, and prefixes in odd places.

use super::{cases::LONGEST, random::Random};

const LEGACY: [u8; 11] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];

fn prefix(bits: u32, random: &mut Random) -> u8 {
    match bits {
        64 if random.percent(40) => 0x40 | random.below(16) as u8,
        _ => random.pick(&LEGACY),
    }
}

/// Puts prefixes before an instruction: redundant ones, contradicting ones, REX before a legacy prefix, LOCK where it
/// is not allowed; sometimes so many that the instruction becomes too long.
pub fn add_prefixes(bytes: &mut Vec<u8>, bits: u32, random: &mut Random) {
    let count = if random.percent(5) { LONGEST as u64 - random.below(5) } else { 1 + random.below(3) };
    for _ in 0..count {
        bytes.insert(0, prefix(bits, random));
    }
}

/// Up to a few prefixes, an opcode of any table, and enough random bytes to follow it.
pub fn bytes(bits: u32, random: &mut Random) -> Vec<u8> {
    let prefixes = random.pick(&[0, 0, 0, 1, 1, 1, 2, 2, 3, 4]);
    let prefixes = if random.percent(2) { 8 + random.below(8) } else { prefixes };
    let mut bytes: Vec<u8> = (0..prefixes).map(|_| prefix(bits, random)).collect();
    match random.below(20) {
        0..9 => {}
        9..16 => bytes.push(0x0f),
        16 => bytes.extend([0x0f, 0x38]),
        17 => bytes.extend([0x0f, 0x3a]),
        _ => bytes.push(0xd8 + random.below(8) as u8),
    }
    while bytes.len() < LONGEST + 1 {
        bytes.push(random.next() as u8);
    }
    bytes
}
