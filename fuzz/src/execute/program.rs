//! Programs: bytes as they come, or only those that are instructions.

use iced_x86::{Decoder, DecoderOptions};

use super::super::input::Input;
use super::layout::{CODE, CODE_END};

/// Bytes that a program may have, less the jump at its end.
const MOST: usize = (CODE_END - CODE) as usize - 8;

/// Prefixes in front of an opcode: none, most of the time.
const PREFIXES: [&[u8]; 16] = [
    &[],
    &[],
    &[],
    &[0x48],
    &[0x48],
    &[0x41],
    &[0x4c],
    &[0x66],
    &[0xf2],
    &[0xf3],
    &[0xf3, 0x48],
    &[0xf0],
    &[0xf0, 0x48],
    &[0x67],
    &[0x65],
    &[0x66, 0x48],
];
/// Opcode maps.
const MAPS: [&[u8]; 8] = [&[], &[], &[], &[], &[0x0f], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];

/// The bytes as they are, then a jump back to their beginning.
pub fn raw(bits: u32, bytes: &[u8]) -> Vec<u8> {
    closed(bits, bytes[..bytes.len().min(MOST)].to_vec())
}

/// Instructions only: of each group of bytes a prefix, a map and an opcode are made; what does not decode is left out.
pub fn valid(bits: u32, input: &mut Input) -> Vec<u8> {
    let mut code = Vec::new();
    while !input.is_empty() && code.len() + 15 < MOST {
        let shape = input.byte();
        let mut bytes = Vec::with_capacity(24);
        bytes.extend(PREFIXES[usize::from(shape % 16)].iter().filter(|byte| bits == 64 || **byte >> 4 != 4));
        bytes.extend(MAPS[usize::from(shape / 16 % 8)]);
        let fixed = bytes.len();
        // Opcode, ModRM, SIB and small displacements; large ones come from what follows.
        bytes.extend(input.take(4));
        let rest = input.0;
        bytes.extend(&rest[..rest.len().min(10)]);
        bytes.truncate(15);
        let mut decoder = Decoder::with_ip(bits, &bytes, 0, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            continue;
        }
        input.take(instruction.len().saturating_sub(fixed + 4));
        code.extend(&bytes[..instruction.len()]);
    }
    closed(bits, code)
}

/// Appends a jump to the first byte.
fn closed(bits: u32, mut code: Vec<u8>) -> Vec<u8> {
    let size = if bits == 16 { 2 } else { 4 };
    let back = -((code.len() + 1 + size) as i32);
    code.push(0xe9);
    code.extend(&back.to_le_bytes()[..size]);
    code
}
