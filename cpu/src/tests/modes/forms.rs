//! Every instruction form of 16-bit and 32-bit code that CPUID offers has a handler.

use std::collections::BTreeMap;

use iced_x86::{Code, Decoder, EncodingKind, Instruction};

use crate::{
    decode::{CodeSize, OPTIONS, has_handler, offered},
    testing::TestBus,
};

/// Forms that no bytes decode to, and why.
const NOT_DECODED: [(&str, &str); 2] = [
    ("Popw_CS", "the 8086's: 0F begins two-byte opcodes since"),
    ("Ud0", "UD0 without a ModRM byte, as processors of other vendors read it"),
];

/// One instruction of each form that some bytes decode to.
fn decodable(bits: u32) -> BTreeMap<Code, Instruction> {
    let mut forms = BTreeMap::new();
    let maps: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
    for prefixes in 0..12 {
        let sizes: [&[u8]; 4] = [&[], &[0x66], &[0x67], &[0x66, 0x67]];
        let repeats: [&[u8]; 3] = [&[], &[0xf2], &[0xf3]];
        for map in maps {
            let mut bytes = [sizes[prefixes % 4], repeats[prefixes / 4], map, &[0; 2]].concat();
            let opcode = bytes.len() - 2;
            bytes.extend([0; 10]);
            for both in 0..=0xffff {
                bytes[opcode] = (both >> 8) as u8;
                bytes[opcode + 1] = both as u8;
                let i = Decoder::new(bits, &bytes, OPTIONS).decode();
                if !i.is_invalid() {
                    forms.insert(i.code(), i);
                }
            }
        }
    }
    forms
}

#[test]
fn every_offered_form_has_a_handler() {
    for (bits, size) in [(16, CodeSize::Bits16), (32, CodeSize::Bits32)] {
        let forms = decodable(bits);
        let without: Vec<&Code> = forms
            .iter()
            .filter(|(_, i)| offered(i) && !has_handler::<TestBus>(i, size))
            .map(|(code, _)| code)
            .collect();
        assert!(without.is_empty(), "{without:?}");

        let missed: Vec<String> = Code::values()
            .filter(|code| exists(*code, bits) && !forms.contains_key(code))
            .map(|code| format!("{code:?}"))
            .filter(|name| NOT_DECODED.iter().all(|(known, _)| name != known))
            .collect();
        assert!(missed.is_empty(), "{missed:?}");
    }
}

/// Whether `code` can be encoded in code of this size and needs nothing that CPUID does not offer. Those that begin with
/// WAIT are two instructions.
fn exists(code: Code, bits: u32) -> bool {
    let info = code.op_code();
    let in_mode = if bits == 16 { info.mode16() } else { info.mode32() };
    let mut i = Instruction::default();
    i.set_code(code);
    in_mode
        && info.is_instruction()
        && !info.fwait()
        && info.encoding() == EncodingKind::Legacy
        && offered(&i)
}
