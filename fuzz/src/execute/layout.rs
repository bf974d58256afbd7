//! The machine that a fuzzed program finds: modes, tables, handlers, and registers that point at interesting places.
//!
//! Guest-physical pages: 0 the real-mode vectors, 1-4 paging structures, 5 GDT, LDT and TSS, 6 IDT, 7 handlers,
//! 8 kernel stack, 9 user stack, 10-11 code, 16-19 data, 24-31 free; persistent memory from [`super::bus::PMEM`].

use cpu::{REG_RIP, Segment, State, TableRegister};

use super::super::input::Random;
use super::bus::{PAGES, PMEM, PMEM_PAGES};
use super::memory::PAGE;

/// Content of all pages, those of persistent memory behind RAM.
pub type Image = Vec<[u8; PAGE]>;

/// The modes that programs start in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Long,
    LongUser,
    Compatibility,
    CompatibilityUser,
    Protected32,
    Protected32User,
    Protected32Paged,
    Protected32Pae,
    Protected16,
    Real,
    Virtual8086,
}

impl Mode {
    /// Half of all bytes mean 64-bit code.
    pub fn from_byte(byte: u8) -> Mode {
        match byte % 20 {
            0 => Mode::Compatibility,
            1 => Mode::CompatibilityUser,
            2 => Mode::Protected32,
            3 => Mode::Protected32User,
            4 => Mode::Protected32Paged,
            5 => Mode::Protected32Pae,
            6 => Mode::Protected16,
            7 => Mode::Real,
            8 => Mode::Virtual8086,
            9..13 => Mode::LongUser,
            _ => Mode::Long,
        }
    }

    /// Bits of the code segment's operands.
    pub fn bits(self) -> u32 {
        match self {
            Mode::Long | Mode::LongUser => 64,
            Mode::Protected16 | Mode::Real | Mode::Virtual8086 => 16,
            _ => 32,
        }
    }

    fn is_long(self) -> bool {
        matches!(self, Mode::Long | Mode::LongUser | Mode::Compatibility | Mode::CompatibilityUser)
    }

    fn is_user(self) -> bool {
        matches!(self, Mode::LongUser | Mode::CompatibilityUser | Mode::Protected32User | Mode::Virtual8086)
    }
}

/// Pages with paging structures.
pub const PAGING: std::ops::RangeInclusive<usize> = 1..=4;
const TABLES: u64 = 0x1000;
const GDT: u64 = 0x5000;
const GDT_BYTES: u64 = 0x100;
const LDT: u64 = 0x5100;
const TSS: u64 = 0x5200;
const TSS_BYTES: u32 = 0x68;
const IDT: u64 = 0x6000;
const HANDLERS: u64 = 0x7000;
const KERNEL_STACK: u64 = 0x9000;
const USER_STACK: u64 = 0xa000;
/// Where programs start.
pub const CODE: u64 = 0xaf00;
/// The last byte that programs may have.
pub const CODE_END: u64 = 0xbff0;
/// Where handlers of exceptions without and with an error code, and of everything else, stand.
const SKIP: u64 = HANDLERS;
const SKIP_CODED: u64 = HANDLERS + 0x10;
const RETURN: u64 = HANDLERS + 0x20;

/// Selectors.
const CODE64: u16 = 0x08;
const DATA: u16 = 0x10;
const CODE32: u16 = 0x18;
const USER_CODE32: u16 = 0x2b;
const USER_DATA: u16 = 0x33;
const USER_CODE64: u16 = 0x3b;
const TASK: u16 = 0x40;
const CODE16: u16 = 0x50;
const DATA16: u16 = 0x58;
const LOCAL: u16 = 0x60;

/// Descriptors in order of their selectors.
const DESCRIPTORS: [u64; 22] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_9b00_0000_ffff,
    0x0040_9300_4000_0fff,
    0x00cf_fb00_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
    TSS << 16 & 0xff_ffff_0000 | 0x0000_8b00_0000_0000 | (TSS_BYTES as u64 - 1),
    0,
    0x000f_9b00_0000_ffff,
    0x000f_9300_0000_ffff,
    LDT << 16 & 0xff_ffff_0000 | 0x0000_8200_0000_00ff,
    0,
    // A 64-bit call gate to CODE64.
    RETURN & 0xffff | (CODE64 as u64) << 16 | 0x0000_ec00_0000_0000,
    0,
    // Conforming code, data that is not present, data that grows down, execute-only code.
    0x00cf_9f00_0000_ffff,
    0x00cf_7300_0000_ffff,
    0x00cf_9700_0000_0003,
    0x00cf_9900_0000_ffff,
    // A 32-bit call gate and a task gate.
    RETURN & 0xffff | (CODE32 as u64) << 16 | 0x0000_ec02_0000_0000,
    (TASK as u64) << 16 | 0x0000_e500_0000_0000,
];

/// Fills memory for a mode. `marked` sets all accessed and dirty bits.
pub fn image(mode: Mode, marked: bool, random: &mut Random) -> Image {
    let mut image = vec![[0; PAGE]; PAGES];
    for page in (16..20).chain(32..PAGES) {
        for quad in image[page].chunks_exact_mut(8) {
            quad.copy_from_slice(&interesting(random).to_le_bytes());
        }
    }
    match mode {
        Mode::Protected32Paged => tables32(&mut image),
        Mode::Protected32Pae => tables64(&mut image, true),
        _ => tables64(&mut image, false),
    }
    if marked {
        mark(&mut image, if mode == Mode::Protected32Paged { 4 } else { 8 });
    }
    for (index, descriptor) in DESCRIPTORS.into_iter().enumerate() {
        put(&mut image, GDT + 8 * index as u64, &descriptor.to_le_bytes());
        put(&mut image, LDT + 8 * index as u64, &descriptor.to_le_bytes());
    }
    if mode.is_long() {
        for slot in 0..10 {
            // RSP0 to RSP2 and IST1 to IST7.
            let stack = KERNEL_STACK - if slot > 3 { 0x800 } else { 0 };
            put(&mut image, TSS + 4 + 8 * slot + if slot > 2 { 8 } else { 0 }, &stack.to_le_bytes());
        }
    } else {
        put(&mut image, TSS + 4, &(KERNEL_STACK as u32).to_le_bytes());
        put(&mut image, TSS + 8, &DATA.to_le_bytes());
    }
    handlers(mode, &mut image);
    image
}

/// Gates, and code that goes on behind the first byte of what faulted.
fn handlers(mode: Mode, image: &mut Image) {
    let code: [&[u8]; 3] = match mode {
        _ if mode.is_long() => [
            &[0x48, 0xff, 0x04, 0x24, 0x48, 0xcf],
            &[0x48, 0x83, 0xc4, 8, 0x48, 0xff, 0x04, 0x24, 0x48, 0xcf],
            &[0x48, 0xcf],
        ],
        Mode::Real | Mode::Protected16 => [
            &[0x55, 0x89, 0xe5, 0xff, 0x46, 2, 0x5d, 0xcf],
            &[0x83, 0xc4, 2, 0x55, 0x89, 0xe5, 0xff, 0x46, 2, 0x5d, 0xcf],
            &[0xcf],
        ],
        _ => [&[0xff, 0x04, 0x24, 0xcf], &[0x83, 0xc4, 4, 0xff, 0x04, 0x24, 0xcf], &[0xcf]],
    };
    for (at, code) in [SKIP, SKIP_CODED, RETURN].into_iter().zip(code) {
        put(image, at, code);
    }
    for vector in 0..256 {
        let coded = matches!(vector, 8 | 10..=14 | 17 | 21) && mode != Mode::Real;
        let target = match vector {
            3 | 4 | 32.. => RETURN,
            _ if coded => SKIP_CODED,
            _ => SKIP,
        };
        let dpl = if matches!(vector, 3 | 4 | 32..=128) { 0x6000 } else { 0 };
        let stack = if matches!(vector, 2 | 8 | 18) { 1 } else { 0 };
        let low = |selector: u16, kind: u64| target & 0xffff | u64::from(selector) << 16 | (kind | dpl) << 32;
        match mode {
            _ if mode.is_long() => {
                put(image, IDT + 16 * vector, &(low(CODE64, 0x8e00) | stack << 32).to_le_bytes());
            }
            Mode::Real => put(image, 4 * vector, &(target as u32).to_le_bytes()),
            Mode::Protected16 => put(image, IDT + 8 * vector, &low(CODE16, 0x8600).to_le_bytes()),
            _ => put(image, IDT + 8 * vector, &low(CODE32, 0x8e00).to_le_bytes()),
        }
    }
}

/// What the linear page `page` (of 512) maps: a page-table entry.
fn entry(page: u64) -> u64 {
    const PRESENT: u64 = 1;
    const WRITABLE: u64 = 2;
    const USER: u64 = 4;
    const GLOBAL: u64 = 0x100;
    const NO_EXECUTE: u64 = 1 << 63;
    let user = PRESENT | WRITABLE | USER;
    match page {
        0..=8 => page << 12 | PRESENT | WRITABLE,
        9..=31 => page << 12 | user,
        0x40..=0x43 => (PMEM + page - 0x40) << 12 | user,
        0x44 => 0xfee0_0000 | user | 0x10,
        // Other names of a page of data, of the code, of persistent memory and of a paging structure.
        0x46 => 0x10_000 | user | GLOBAL,
        0x47 => 0xa_000 | user,
        0x48 => PMEM << 12 | user,
        0x49 => 0x4_000 | user,
        // Supervisor, read-only, not executable.
        0x4a => 0x11_000 | PRESENT | WRITABLE,
        0x4b => 0x12_000 | PRESENT | USER,
        0x4c => 0x13_000 | user | NO_EXECUTE,
        0x4d => (PMEM + 1) << 12 | PRESENT | USER,
        0x1ff => 0x13_000 | user,
        _ => 0,
    }
}

/// Four-level tables, or with `pae` their two inner levels behind four pointers.
fn tables64(image: &mut Image, pae: bool) {
    const LARGE: u64 = 0x80;
    let pointer = if pae { 1 } else { 7 };
    let mut put_entry =
        |table: u64, index: u64, entry: u64| put(image, table + 8 * index, &entry.to_le_bytes());
    if pae {
        for index in 0..4 {
            put_entry(TABLES, index, 0x3000 | pointer);
        }
    } else {
        put_entry(TABLES, 0, 0x2000 | pointer);
        put_entry(TABLES, 511, 0x2000 | pointer);
        put_entry(0x2000, 0, 0x3000 | pointer);
        put_entry(0x2000, 511, 0x3000 | pointer);
        put_entry(0x2000, 1, LARGE | pointer);
    }
    put_entry(0x3000, 0, 0x4000 | 7);
    put_entry(0x3000, 511, 0x4000 | 7);
    put_entry(0x3000, 1, LARGE | 7);
    for page in 0..512 {
        put_entry(0x4000, page, entry(page));
    }
}

/// Two-level tables.
fn tables32(image: &mut Image) {
    let mut put_entry =
        |table: u64, index: u64, entry: u64| put(image, table + 4 * index, &(entry as u32).to_le_bytes());
    put_entry(TABLES, 0, 0x4007);
    put_entry(TABLES, 1, 0x87);
    put_entry(TABLES, 1023, 0x4007);
    for page in 0..512 {
        put_entry(0x4000, page, entry(page));
    }
    put_entry(0x4000, 1023, entry(0x1ff));
}

/// Sets the accessed and dirty bits of all present entries, which have `size` bytes.
fn mark(image: &mut Image, size: usize) {
    for table in &mut image[PAGING] {
        for entry in table.chunks_exact_mut(size).filter(|entry| entry[0] & 1 != 0) {
            entry[0] |= 0x60;
        }
    }
}

/// Writes guest-physical RAM.
pub fn put(image: &mut Image, at: u64, bytes: &[u8]) {
    for (at, byte) in (at as usize..).zip(bytes) {
        if let Some(page) = image.get_mut(at / PAGE) {
            page[at % PAGE] = *byte;
        }
    }
}

/// A value worth having in a register or in memory: mostly an address.
fn interesting(random: &mut Random) -> u64 {
    let page = match random.below(16) {
        0..6 => 16 + random.below(4),
        6..9 => 0x40 + random.below(PMEM_PAGES as u64),
        9 => 0x46 + random.below(8),
        10 => 0x44,
        11 => 10,
        12 => return random.below(64).wrapping_sub(16),
        13 => return 1 << random.below(64),
        14 => return random.pick(&[0x8000_0000_0000, u64::MAX, 0xffff_ffff, 0x20_0000, 0x4000_0000]),
        _ => return random.next(),
    };
    let offset = match random.below(4) {
        0 => random.pick(&[0u64, 1, 0xff8, 0xffc, 0xfff, 0xff0, 0x7c]),
        1 => random.below(512) * 8,
        2 => random.below(256) * 16,
        _ => random.below(4096),
    };
    page << 12 | offset
}

/// The processor at the first byte of the program.
pub fn state(mode: Mode, flags: u8, random: &mut Random, mut state: State) -> State {
    for register in 0..16 {
        state.regs[register] = interesting(random);
    }
    for register in &mut state.xmm {
        *register = u128::from(interesting(random)) << 64 | u128::from(random.next());
    }
    for register in &mut state.x87.regs {
        *register = u128::from(random.next() & 0xffff) << 64 | u128::from(random.next() | 1 << 63);
    }
    state.x87.tags = random.next() as u8;
    state.x87.control = random.pick(&[0x37f, 0x27f, 0x340, 0x37f]);
    state.mxcsr = random.pick(&[0x1f80, 0x1f80, 0x1f80, 0x9fc0, 0x3f80, 0x0000]);
    state.regs[4] = if mode.is_user() { USER_STACK } else { KERNEL_STACK } - 0x100;
    state.regs[REG_RIP] = CODE;
    state.rflags = 2 | random.next() & 0x8d5;
    state.rflags |= u64::from(flags & 2) << 8;
    if flags & 0x1c == 0x1c {
        state.rflags |= random.pick(&[1 << 8, 1 << 10, 1 << 14, 1 << 18, 3 << 12]);
    }
    state.cr0 = 0x8001_0033;
    state.cr3 = TABLES;
    state.cr4 = 0x1_06b0 | random.pick(&[0, 0, 0, 1 << 21, 1 << 20, 3 << 20, 4]);
    state.efer = 0xd01;
    state.star = u64::from(CODE64) << 32 | u64::from(USER_CODE32) << 48;
    state.lstar = RETURN;
    state.cstar = RETURN;
    state.fmask = 0x4_7700;
    state.sysenter = [CODE64.into(), KERNEL_STACK, RETURN];
    state.gdtr = TableRegister { base: GDT, limit: GDT_BYTES as u16 - 1 };
    state.idtr = TableRegister { base: IDT, limit: 0xfff };
    state.ldtr = Segment { selector: LOCAL, base: LDT, limit: 0xff, access: 0x82 };
    state.tr = Segment { selector: TASK, base: TSS, limit: TSS_BYTES - 1, access: 0x8b };
    segments(mode, &mut state);
    state.segments[4].base = interesting(random) & 0xffff_ffff;
    state.segments[5].base = interesting(random) & 0xffff_ffff;
    match mode {
        Mode::Protected32 | Mode::Protected32User | Mode::Protected16 => state.cr0 = 0x0001_0033,
        Mode::Real => (state.cr0, state.idtr) = (0x0001_0030, TableRegister { base: 0, limit: 0x3ff }),
        Mode::Protected32Paged => state.cr4 &= !0x20,
        Mode::Virtual8086 => state.rflags |= 1 << 17 | 3 << 12,
        _ => {}
    }
    if !mode.is_long() {
        state.efer = 0x801;
        for register in &mut state.regs {
            *register &= 0xffff_ffff;
        }
    }
    state
}

/// Segment registers as a mode has them.
fn segments(mode: Mode, state: &mut State) {
    let flat = |selector, access| Segment { selector, base: 0, limit: u32::MAX, access };
    let small = |selector, base, access| Segment { selector, base, limit: 0xffff, access };
    let (code, data) = match mode {
        Mode::Long => (flat(CODE64, 0xa09b), flat(DATA, 0xc093)),
        Mode::LongUser => (flat(USER_CODE64, 0xa0fb), flat(USER_DATA, 0xc0f3)),
        Mode::CompatibilityUser | Mode::Protected32User => {
            (flat(USER_CODE32, 0xc0fb), flat(USER_DATA, 0xc0f3))
        }
        Mode::Protected16 => (small(CODE16, 0, 0x9b), small(DATA16, 0, 0x93)),
        Mode::Real => (small(0, 0, 0x9b), small(0x1000, 0x1_0000, 0x93)),
        Mode::Virtual8086 => (small(0, 0, 0xfb), small(0x1000, 0x1_0000, 0xf3)),
        _ => (flat(CODE32, 0xc09b), flat(DATA, 0xc093)),
    };
    state.segments = [data; 6];
    state.segments[1] = code;
    if matches!(mode, Mode::Real | Mode::Virtual8086) {
        state.segments[2] = Segment { selector: 0, base: 0, ..data };
    }
}
