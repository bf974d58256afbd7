//! The unit's state in memory: the environment of FNSTENV, the state of FNSAVE, and the area of FXSAVE.
//! SDM vol. 1, 8.1.10 and 10.5.1.

use super::format::{Class, Extended};
use super::unit::Unit;
use crate::X87;

/// Bits of MXCSR that exist: what FXSAVE stores as MXCSR_MASK.
pub(super) const MXCSR_MASK: u32 = 0xffff;
/// Length of what FXSAVE writes; the rest of its 512 bytes is reserved or software's.
pub(super) const FXSAVE_WRITTEN: usize = 416;

/// The image of FNSTENV (14 or 28 bytes) or FNSAVE (94 or 108 bytes); the bytes behind `size` stay zero. Protected mode
/// tells pointers with their selectors, which are not kept and read as zero; real mode tells linear addresses.
pub(super) fn environment(unit: &Unit, size: usize, real: bool) -> [u8; 108] {
    let X87 { control, status, opcode, ip, dp, .. } = unit.state;
    let mut image = [0; 108];
    let words = [control, status, full_tags(unit)];
    let header = if has_short_header(size) {
        let upper = |pointer: u64| if real { (pointer >> 4) as u16 & 0xf000 } else { 0 };
        let opcode = if real { opcode } else { 0 };
        let fields = [words[0], words[1], words[2], ip as u16, upper(ip) | opcode, dp as u16, upper(dp)];
        for (bytes, field) in image.chunks_exact_mut(2).zip(fields) {
            bytes.copy_from_slice(&field.to_le_bytes());
        }
        14
    } else {
        let [control, status, tags] = words.map(|word| u32::from(word) | 0xffff_0000);
        let (ip, dp, opcode) = (ip as u32, dp as u32, u32::from(opcode));
        let pointers = if real {
            let lower = |pointer: u32| pointer | 0xffff_0000;
            let upper = |pointer: u32| (pointer >> 16) << 12;
            [lower(ip), upper(ip) | opcode, lower(dp), upper(dp)]
        } else {
            [ip, opcode << 16, dp, 0xffff_0000]
        };
        let fields = [control, status, tags, pointers[0], pointers[1], pointers[2], pointers[3]];
        for (bytes, field) in image.chunks_exact_mut(4).zip(fields) {
            bytes.copy_from_slice(&field.to_le_bytes());
        }
        28
    };
    if size > 28 {
        for (i, bytes) in image[header..header + 80].chunks_exact_mut(10).enumerate() {
            bytes.copy_from_slice(&unit.get(i).bits().to_le_bytes()[..10]);
        }
    }
    image
}

/// Loads the image of FLDENV or FRSTOR.
pub(super) fn load_environment(unit: &mut Unit, image: &[u8], real: bool) {
    let short = has_short_header(image.len());
    let field = |n: usize| if short { word(image, 2 * n).into() } else { doubleword(image, 4 * n) };
    let state = &mut unit.state;
    // Real mode keeps 4 or 16 more bits of each pointer from bit 12 of the next field.
    let pointer = |n| if real { field(n) & 0xffff | field(n + 1) >> 12 << 16 } else { field(n) };
    state.ip = pointer(3).into();
    state.opcode = match (real, short) {
        (true, _) => field(4) as u16 & 0x7ff,
        (false, true) => 0,
        (false, false) => (field(4) >> 16) as u16 & 0x7ff,
    };
    state.dp = pointer(5).into();
    state.tags = (0..8).filter(|i| field(2) >> (2 * i) & 3 != 3).fold(0, |tags, i| tags | 1 << i);
    unit.set_control(field(0) as u16);
    unit.set_status(field(1) as u16);
    let header = if short { 14 } else { 28 };
    if image.len() > header {
        for (i, bytes) in image[header..].chunks_exact(10).take(8).enumerate() {
            unit.state.regs[unit.physical(i)] = register(bytes);
        }
    }
}

/// What FXSAVE writes for the unit: the first 160 bytes, but for MXCSR.
pub(super) fn store_extended(unit: &Unit, wide: bool, area: &mut [u8; FXSAVE_WRITTEN]) {
    let state = &unit.state;
    area[0..2].copy_from_slice(&state.control.to_le_bytes());
    area[2..4].copy_from_slice(&state.status.to_le_bytes());
    area[4] = state.tags;
    area[6..8].copy_from_slice(&state.opcode.to_le_bytes());
    // Without REX.W the upper halves hold selectors, which are not kept.
    let mask = if wide { u64::MAX } else { 0xffff_ffff };
    area[8..16].copy_from_slice(&(state.ip & mask).to_le_bytes());
    area[16..24].copy_from_slice(&(state.dp & mask).to_le_bytes());
    for (i, bytes) in area[32..160].chunks_exact_mut(16).enumerate() {
        bytes.copy_from_slice(&unit.get(i).bits().to_le_bytes());
    }
}

/// Loads what [`store_extended`] wrote.
pub(super) fn load_extended(unit: &mut Unit, wide: bool, area: &[u8; 512]) {
    let mask = if wide { u64::MAX } else { 0xffff_ffff };
    let pointer =
        |at: usize| (u64::from(doubleword(area, at + 4)) << 32 | u64::from(doubleword(area, at))) & mask;
    unit.state.tags = area[4];
    unit.state.opcode = word(area, 6) & 0x7ff;
    unit.state.ip = pointer(8);
    unit.state.dp = pointer(16);
    unit.set_control(word(area, 0));
    unit.set_status(word(area, 2));
    for (i, bytes) in area[32..160].chunks_exact(16).enumerate() {
        unit.state.regs[unit.physical(i)] = register(&bytes[..10]);
    }
}

/// The tag word with two bits a register, from what the registers hold.
fn full_tags(unit: &Unit) -> u16 {
    (0..8).fold(0, |tags, register| {
        let tag = match Extended::from_bits(unit.state.regs[register]).class() {
            _ if unit.state.tags >> register & 1 == 0 => 3,
            Class::Normal => 0,
            Class::Zero => 1,
            _ => 2,
        };
        tags | tag << (2 * register)
    })
}

/// The 14-byte header of the 16-bit operand size.
fn has_short_header(size: usize) -> bool {
    size == 14 || size == 94
}

fn word(image: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([image[at], image[at + 1]])
}

fn doubleword(image: &[u8], at: usize) -> u32 {
    u32::from(word(image, at)) | u32::from(word(image, at + 2)) << 16
}

fn register(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> X87 {
        let mut regs = [0; 8];
        for (i, register) in regs.iter_mut().enumerate() {
            *register = Extended::from_integer(i as i64).bits();
        }
        X87 {
            regs,
            control: 0x27f,
            status: 5 << 11 | 0x4100,
            tags: 0x3b,
            opcode: 0x123,
            ip: 0x8000_0001,
            dp: 77,
        }
    }

    #[test]
    fn saved_state_restores() {
        for size in [94, 108] {
            let image = environment(&Unit::new(example()), size, false);
            let mut unit = Unit::new(X87::default());
            load_environment(&mut unit, &image[..size], false);
            let short = size == 94;
            let opcode = if short { 0 } else { 0x123 };
            let ip = if short { 1 } else { 0x8000_0001 };
            assert_eq!(unit.state, X87 { opcode, ip, ..example() });
        }
    }

    #[test]
    fn saved_state_restores_in_real_mode_with_linear_pointers() {
        for size in [14, 28, 94, 108] {
            let saved = X87 { ip: 0xf_1234, dp: 0x2_0077, ..example() };
            let image = environment(&Unit::new(saved), size, true);
            let mut unit = Unit::new(if size > 28 { X87::default() } else { saved });
            load_environment(&mut unit, &image[..size], true);
            assert_eq!(unit.state, saved, "{size}");
        }
        let short = environment(&Unit::new(X87 { ip: 0xf_1234, dp: 0x2_0077, ..example() }), 14, true);
        assert_eq!(short[6..14], [0x34, 0x12, 0x23, 0xf1, 0x77, 0, 0, 0x20]);
    }

    #[test]
    fn tag_word_is_made_from_contents() {
        // R0 holds zero; R2, R6 and R7 are empty.
        assert_eq!(full_tags(&Unit::new(example())), 0b11_11_00_00_00_11_00_01);
    }

    #[test]
    fn wide_area_keeps_pointers_whole() {
        for wide in [false, true] {
            let saved = X87 { ip: 0xffff_8000_0000_1234, dp: 0x7fff_1234_5678, ..example() };
            let mut area = [0; FXSAVE_WRITTEN];
            store_extended(&Unit::new(saved), wide, &mut area);
            let mut image = [0; 512];
            image[..FXSAVE_WRITTEN].copy_from_slice(&area);
            let mut unit = Unit::new(X87::default());
            load_extended(&mut unit, wide, &image);
            let mask = if wide { u64::MAX } else { 0xffff_ffff };
            assert_eq!(unit.state, X87 { ip: saved.ip & mask, dp: saved.dp & mask, ..saved });
        }
    }
}
