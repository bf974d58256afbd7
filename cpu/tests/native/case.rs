//! One instruction with its inputs, and what came out.

use std::ops::Range;

use super::random::Random;

/// Where things are in memory: the same linear addresses on the host and in the guest.
#[derive(Clone)]
pub struct Layout {
    /// Around the others; whatever else lies in it is not present.
    pub reserved: Range<u64>,
    /// Readable, writable and executable, full of breakpoints.
    pub code: Range<u64>,
    /// Readable and writable.
    pub data: Range<u64>,
    /// Readable; directly behind `data`.
    pub read_only: Range<u64>,
    /// Readable and writable; directly behind `read_only`.
    pub tail: Range<u64>,
}

/// The one layout. All addresses fit into 31 bits, so that every form of addressing reaches them.
pub const LAYOUT: Layout = Layout {
    reserved: 0x2000_0000..0x2040_0000,
    code: 0x2001_0000..0x2001_3000,
    data: 0x2020_0000..0x2020_3000,
    read_only: 0x2020_3000..0x2020_4000,
    tail: 0x2020_4000..0x2020_5000,
};

/// Every byte of the read-only page.
pub const READ_ONLY_BYTE: u8 = 0xcc;
/// A breakpoint: every byte of code but the instruction.
pub const BREAKPOINT: u8 = 0xcc;

/// Stands in [`Outcome::vector`] for a case that did not end.
pub const ENDLESS: u8 = 0xff;

impl Layout {
    /// What instructions may write, in the order in which [`Case::memory`] has it.
    pub fn writable(&self) -> [Range<u64>; 3] {
        [self.data.clone(), self.tail.clone(), self.code.clone()]
    }

    /// Bytes of [`Case::memory`].
    pub fn memory_len(&self) -> usize {
        self.writable().iter().map(|range| (range.end - range.start) as usize).sum()
    }

    /// The place in [`Case::memory`] of a linear address.
    pub fn offset(&self, linear: u64) -> Option<usize> {
        let mut before = 0;
        for range in self.writable() {
            if range.contains(&linear) {
                return Some(before + (linear - range.start) as usize);
            }
            before += (range.end - range.start) as usize;
        }
        None
    }

    /// The linear address of a place in [`Case::memory`].
    pub fn linear(&self, offset: usize) -> u64 {
        let mut left = offset as u64;
        for range in self.writable() {
            if left < range.end - range.start {
                return range.start + left;
            }
            left -= range.end - range.start;
        }
        panic!("{offset:#x} lies behind the memory")
    }
}

/// x87, MMX and SSE registers as FXSAVE stores them (SDM vol. 1, table 10-2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fx(pub [u8; 512]);

impl Default for Fx {
    fn default() -> Self {
        Fx([0; 512])
    }
}

impl Fx {
    /// x87 and SSE state: exceptions masked most of the time, any rounding, sometimes an exception pending.
    pub fn choose(random: &mut Random) -> Fx {
        const SUMMARY: u16 = 1 << 7 | 1 << 15;
        let mut fx = Fx::default();
        let masks = if random.percent(90) { 0x3f } else { random.next() as u16 & 0x3f };
        let precision = random.pick(&[0, 0x200, 0x300, 0x300, 0x300]);
        fx.set_control(0x40 | masks | precision | (random.next() as u16 & 0xc00));
        let raised = match random.below(20) {
            0..10 => 0,
            10 => random.next() as u16 & 0x3f,
            _ => random.next() as u16 & masks,
        };
        let summary = if raised & !masks & 0x3f != 0 { SUMMARY } else { 0 };
        fx.set_status(random.next() as u16 & 0x7f40 & !SUMMARY | raised | summary);
        let any = random.next() as u8;
        fx.set_tags(random.pick(&[0xff, 0xff, 0xff, 0, any]));
        let mxcsr_masks = if random.percent(90) { 0x1f80 } else { random.next() as u32 & 0x1f80 };
        let control = random.pick(&[0, 0, 0, 0x2000, 0x4000, 0x6000, 0x40, 0x8000, 0x8040, 0x6040, 0xc000]);
        let flags = if random.percent(70) { 0 } else { random.next() as u32 & 0x3f };
        fx.set_mxcsr(mxcsr_masks | control | flags);
        for n in 0..8 {
            fx.set_st(n, random.extended());
        }
        for n in 0..16 {
            fx.set_xmm(n, random.vector());
        }
        fx
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("N bytes")
    }

    pub fn control(&self) -> u16 {
        u16::from_le_bytes(self.bytes(0))
    }
    pub fn status(&self) -> u16 {
        u16::from_le_bytes(self.bytes(2))
    }
    /// Abridged: bit n set when register Rn is not empty.
    pub fn tags(&self) -> u8 {
        self.0[4]
    }
    /// Opcode of the last instruction.
    pub fn opcode(&self) -> u16 {
        u16::from_le_bytes(self.bytes(6))
    }
    /// Address of the last instruction.
    pub fn instruction_pointer(&self) -> u64 {
        u64::from_le_bytes(self.bytes(8))
    }
    /// Address of its operand.
    pub fn data_pointer(&self) -> u64 {
        u64::from_le_bytes(self.bytes(16))
    }
    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.bytes(24))
    }
    /// ST(n), 80 bits.
    pub fn st(&self, n: usize) -> u128 {
        u128::from_le_bytes(self.bytes(32 + 16 * n)) & ((1 << 80) - 1)
    }
    pub fn xmm(&self, n: usize) -> u128 {
        u128::from_le_bytes(self.bytes(160 + 16 * n))
    }

    pub fn set_control(&mut self, value: u16) {
        self.0[0..2].copy_from_slice(&value.to_le_bytes());
    }
    pub fn set_status(&mut self, value: u16) {
        self.0[2..4].copy_from_slice(&value.to_le_bytes());
    }
    pub fn set_tags(&mut self, value: u8) {
        self.0[4] = value;
    }
    pub fn set_opcode(&mut self, value: u16) {
        self.0[6..8].copy_from_slice(&value.to_le_bytes());
    }
    pub fn set_pointers(&mut self, instruction: u64, data: u64) {
        self.0[8..16].copy_from_slice(&instruction.to_le_bytes());
        self.0[16..24].copy_from_slice(&data.to_le_bytes());
    }
    pub fn set_mxcsr(&mut self, value: u32) {
        self.0[24..28].copy_from_slice(&value.to_le_bytes());
    }
    pub fn set_st(&mut self, n: usize, value: u128) {
        self.0[32 + 16 * n..][..16].copy_from_slice(&value.to_le_bytes());
    }
    pub fn set_xmm(&mut self, n: usize, value: u128) {
        self.0[160 + 16 * n..][..16].copy_from_slice(&value.to_le_bytes());
    }
}

/// One instruction and everything it can see.
#[derive(Clone)]
pub struct Case {
    /// The instruction.
    pub code: Vec<u8>,
    /// Linear address of the instruction.
    pub at: u64,
    /// ES, CS, SS, DS, FS, GS: selectors of `descriptors`.
    pub selectors: [u16; 6],
    /// Bases of FS and GS when their selectors are null.
    pub bases: [u64; 2],
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8-R15
    pub regs: [u64; 16],
    pub rflags: u64,
    pub fx: Fx,
    /// What is writable: see [`Layout::writable`].
    pub memory: Vec<u8>,
}

impl Case {
    /// Stores bytes as far as they lie in what is writable.
    pub fn poke(&mut self, linear: u64, bytes: &[u8]) {
        for (n, byte) in bytes.iter().enumerate() {
            if let Some(offset) = LAYOUT.offset(linear.wrapping_add(n as u64)) {
                self.memory[offset] = *byte;
            }
        }
    }

    /// Reads `N` bytes; what is not writable reads as the read-only page does.
    pub fn peek<const N: usize>(&self, linear: u64) -> [u8; N] {
        std::array::from_fn(|n| {
            let offset = LAYOUT.offset(linear.wrapping_add(n as u64));
            offset.map_or(READ_ONLY_BYTE, |offset| self.memory[offset])
        })
    }
}

/// What is left behind.
#[derive(Default)]
pub struct Outcome {
    /// The exception that ended it: 3 when the instruction completed and the breakpoint behind it (or at its target)
    /// was reached.
    pub vector: u8,
    pub error: u64,
    pub cr2: u64,
    pub rip: u64,
    /// As [`Case::selectors`].
    pub selectors: [u16; 6],
    /// Of FS and GS.
    pub bases: [u64; 2],
    pub regs: [u64; 16],
    pub rflags: u64,
    pub fx: Fx,
    /// As [`Case::memory`].
    pub memory: Vec<u8>,
}

impl Outcome {
    /// The place of `linear` in memory, where it is writable.
    pub fn byte(&mut self, linear: u64) -> Option<&mut u8> {
        LAYOUT.offset(linear).map(|offset| &mut self.memory[offset])
    }
}
