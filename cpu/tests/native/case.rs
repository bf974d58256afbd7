//! One instruction with its inputs, and what came out.

use std::ops::Range;

/// Where things are in memory: the same linear addresses on the host and in the guest.
#[derive(Clone)]
pub struct Layout {
    /// Around the others; whatever else lies in it is not present.
    pub reserved: Range<u64>,
    /// Readable, writable and executable, full of breakpoints.
    pub code: Range<u64>,
    /// Readable and writable.
    pub data: Range<u64>,
    /// Readable.
    pub read_only: Range<u64>,
}

/// The one layout. All addresses fit into 31 bits, so that every form of addressing reaches them.
pub const LAYOUT: Layout = Layout {
    reserved: 0x2000_0000..0x2040_0000,
    code: 0x2001_0000..0x2001_4000,
    data: 0x2020_0000..0x2020_3000,
    read_only: 0x2020_5000..0x2020_6000,
};

impl Layout {
    /// Bytes of code.
    pub fn code_len(&self) -> usize {
        (self.code.end - self.code.start) as usize
    }

    /// Bytes of data.
    pub fn data_len(&self) -> usize {
        (self.data.end - self.data.start) as usize
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
pub struct Case {
    pub code: Vec<u8>,
    pub rip: u64,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8-R15
    pub regs: [u64; 16],
    pub rflags: u64,
    pub gs_base: u64,
    pub fx: Fx,
    /// Content of the layout's data.
    pub data: Vec<u8>,
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
    pub regs: [u64; 16],
    pub rflags: u64,
    pub fx: Fx,
    pub memory: Vec<u8>,
}
