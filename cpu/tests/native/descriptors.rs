//! The descriptors that a case's selectors name, the same on both sides: those that Linux gives every program in its
//! GDT, and an LDT of our own.

use super::case::LAYOUT;

/// 32-bit code, flat: Linux's `__USER32_CS`.
pub const CODE32: u16 = 0x23;
/// Data, flat: `__USER_DS`.
pub const DATA: u16 = 0x2b;
/// 64-bit code: `__USER_CS`.
pub const CODE64: u16 = 0x33;

/// The GDT as far as a program can see into it: (selector without RPL, descriptor). `arch/x86/include/asm/segment.h`
pub const GDT: [(u16, u64); 6] = [
    (0x08, 0x00cf_9b00_0000_ffff),
    (0x10, 0x00af_9b00_0000_ffff),
    (0x18, 0x00cf_9300_0000_ffff),
    (0x20, 0x00cf_fb00_0000_ffff),
    (0x28, 0x00cf_f300_0000_ffff),
    (0x30, 0x00af_fb00_0000_ffff),
];

/// One segment of the LDT, DPL 3, accessed: what `modify_ldt` can make.
#[derive(Clone, Copy)]
pub struct Local {
    pub base: u32,
    pub limit: u32,
    /// 0 data, 1 expand-down data, 2 code, 3 conforming code.
    pub kind: u32,
    /// Data that cannot be written, code that cannot be read.
    pub restricted: bool,
    pub big: bool,
    pub in_pages: bool,
    pub absent: bool,
}

const PLAIN: Local =
    Local { base: 0, limit: 0, kind: 0, restricted: false, big: true, in_pages: false, absent: false };
const EXPAND_DOWN: u32 = 1;
const CODE_KIND: u32 = 2;
const CONFORMING: u32 = 3;

/// Segments of 64 KiB have the layout's code and its data in their middle.
const CODE_WINDOW: u32 = LAYOUT.code.start as u32 - 0x8000;
const DATA_WINDOW: u32 = LAYOUT.data.start as u32 - 0x8000;

/// The LDT.
pub const LDT: [Local; 13] = [
    Local { base: CODE_WINDOW, limit: 0xffff, kind: CODE_KIND, big: false, ..PLAIN },
    Local { base: CODE_WINDOW, limit: 0xffff, kind: CODE_KIND, ..PLAIN },
    Local { base: DATA_WINDOW, limit: 0xffff, big: false, ..PLAIN },
    Local { base: 0x1000_0000, limit: 0xf_ffff, in_pages: true, ..PLAIN },
    Local { base: LAYOUT.data.start as u32, limit: 0x1ffe, ..PLAIN },
    Local { base: LAYOUT.data.start as u32, limit: 0xfff, kind: EXPAND_DOWN, ..PLAIN },
    Local { base: DATA_WINDOW, limit: 0x8fff, kind: EXPAND_DOWN, big: false, ..PLAIN },
    Local { limit: 0xf_ffff, in_pages: true, restricted: true, ..PLAIN },
    Local { limit: 0xf_ffff, in_pages: true, restricted: true, kind: CODE_KIND, ..PLAIN },
    // Linux lets no program have conforming code that is present.
    Local { limit: 0xf_ffff, in_pages: true, kind: CONFORMING, absent: true, ..PLAIN },
    Local { limit: 0xf_ffff, in_pages: true, absent: true, ..PLAIN },
    Local { limit: 0xf_ffff, in_pages: true, kind: CODE_KIND, absent: true, ..PLAIN },
    Local { base: LAYOUT.code.start as u32, limit: 0x17ff, kind: CODE_KIND, ..PLAIN },
];

/// Selectors of [`LDT`] that cases start with.
pub const CODE16_LOCAL: u16 = local(0);
pub const CODE32_LOCAL: u16 = local(1);
/// Data in 64 KiB around the layout's; as a stack it has 16-bit pointers.
pub const DATA16_LOCAL: u16 = local(2);
/// Data with a base.
pub const DATA_BASED: u16 = local(3);
/// Data with a limit in the middle of the layout's.
pub const DATA_LIMITED: u16 = local(4);
pub const EXPAND_DOWN32: u16 = local(5);
pub const EXPAND_DOWN16: u16 = local(6);
pub const DATA_READ_ONLY: u16 = local(7);
/// Code that ends in the middle of the layout's.
pub const CODE32_LIMITED: u16 = local(12);

const fn local(index: u16) -> u16 {
    (index << 3) | 7
}

impl Local {
    /// As it stands in the table. SDM vol. 3, figure 3-8.
    pub fn descriptor(&self) -> u64 {
        let (base, limit) = (self.base as u64, self.limit as u64);
        let code = self.kind >= CODE_KIND;
        let second = (self.kind & 1) as u64;
        let kind = 1 | (!self.restricted as u64) << 1 | second << 2 | (code as u64) << 3;
        let access = kind | 1 << 4 | 3 << 5 | (!self.absent as u64) << 7;
        let flags = (self.big as u64) << 2 | (self.in_pages as u64) << 3;
        limit & 0xffff
            | (base & 0xff_ffff) << 16
            | access << 40
            | (limit >> 16 & 0xf) << 48
            | flags << 52
            | base >> 24 << 56
    }
}

/// The descriptor that a selector names, if there is one.
pub fn descriptor(selector: u16) -> Option<u64> {
    let index = (selector >> 3) as usize;
    if selector & 4 != 0 {
        return LDT.get(index).map(Local::descriptor);
    }
    GDT.iter().find(|(known, _)| *known == selector & !7).map(|(_, descriptor)| *descriptor)
}

/// Base address of the segment that a selector names, 0 for none.
pub fn base(selector: u16) -> u64 {
    descriptor(selector).map_or(0, |raw| raw >> 16 & 0xff_ffff | raw >> 56 << 24)
}

/// Last offset in the segment that a selector names, 0 for none.
pub fn limit(selector: u16) -> u32 {
    let raw = descriptor(selector).unwrap_or(0);
    let limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
    if raw >> 55 & 1 != 0 { limit << 12 | 0xfff } else { limit }
}

/// Size of the code in a segment: 16, 32 or 64.
pub fn code_bits(selector: u16) -> u32 {
    match descriptor(selector).unwrap_or(0) >> 53 & 3 {
        0 => 16,
        1 => 64,
        _ => 32,
    }
}

/// Size of the stack pointer in a segment: 16 or 32. In 64-bit mode it does not count.
pub fn stack_bits(selector: u16) -> u32 {
    if descriptor(selector).unwrap_or(0) >> 54 & 1 == 0 { 16 } else { 32 }
}
