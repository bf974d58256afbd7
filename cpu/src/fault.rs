//! Exceptions as values: every handler returns one instead of its result.

use std::num::NonZeroU32;

/// An exception that an instruction raises. SDM vol. 3, chapter 6. The faulting address of #PF is in `State::cr2`
/// by the time the fault is returned.
///
/// Packed into 32 bits so that `Result<u64, Fault>` travels in two registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fault(NonZeroU32);

const PRESENT: u32 = 1 << 31;
const HAS_CODE: u32 = 1 << 30;

impl Fault {
    /// Divide error.
    pub const DE: Fault = Fault::plain(0);
    /// Debug exception.
    pub const DB: Fault = Fault::plain(1);
    /// Breakpoint (INT3): a trap, RIP points behind it.
    pub const BP: Fault = Fault::plain(3);
    /// Overflow (INTO).
    pub const OF: Fault = Fault::plain(4);
    /// BOUND range exceeded.
    pub const BR: Fault = Fault::plain(5);
    /// Invalid opcode.
    pub const UD: Fault = Fault::plain(6);
    /// Device not available.
    pub const NM: Fault = Fault::plain(7);
    /// x87 floating-point error.
    pub const MF: Fault = Fault::plain(16);
    /// Alignment check.
    pub const AC: Fault = Fault::coded(17, 0);
    /// Machine check.
    pub const MC: Fault = Fault::plain(18);
    /// SIMD floating-point exception.
    pub const XM: Fault = Fault::plain(19);
    /// General protection with error code 0.
    pub const GP0: Fault = Fault::coded(13, 0);
    /// Stack fault with error code 0.
    pub const SS0: Fault = Fault::coded(12, 0);

    /// No exception: the instruction would use undecided bytes. It ends the run instead of being raised.
    pub(crate) const UNDECIDED: Fault = Fault::plain(0xff);

    /// An exception without an error code.
    pub const fn plain(vector: u8) -> Fault {
        match NonZeroU32::new(PRESENT | vector as u32) {
            Some(bits) => Fault(bits),
            None => unreachable!(),
        }
    }

    /// An exception that pushes an error code.
    pub const fn coded(vector: u8, code: u16) -> Fault {
        match NonZeroU32::new(PRESENT | HAS_CODE | (code as u32) << 8 | vector as u32) {
            Some(bits) => Fault(bits),
            None => unreachable!(),
        }
    }

    /// Vector, 0 to 31.
    pub const fn vector(self) -> u8 {
        self.0.get() as u8
    }

    /// The error code that is pushed, if this exception has one.
    pub const fn code(self) -> Option<u16> {
        if self.0.get() & HAS_CODE != 0 { Some((self.0.get() >> 8) as u16) } else { None }
    }
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code() {
            Some(code) => write!(f, "vector {} code {code:#x}", self.vector()),
            None => write!(f, "vector {}", self.vector()),
        }
    }
}
