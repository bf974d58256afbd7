//! The control and status register of SSE arithmetic. SDM vol. 1, sections 10.2.3, 11.5 and 11.6.

/// Invalid operation.
pub(super) const IE: u32 = 1 << 0;
/// Denormal operand.
pub(super) const DE: u32 = 1 << 1;
/// Division by zero.
pub(super) const ZE: u32 = 1 << 2;
/// Overflow.
pub(super) const OE: u32 = 1 << 3;
/// Underflow.
pub(super) const UE: u32 = 1 << 4;
/// Inexact result.
pub(super) const PE: u32 = 1 << 5;
/// All six exception flags; their masks are the same bits seven higher.
const EXCEPTIONS: u32 = IE | DE | ZE | OE | UE | PE;
const MASK_SHIFT: u32 = 7;
const DENORMALS_ARE_ZEROS: u32 = 1 << 6;
const ROUNDING_SHIFT: u32 = 13;
const FLUSH_TO_ZERO: u32 = 1 << 15;

/// The bits of MXCSR that exist: setting another one is #GP. FXSAVE stores this as MXCSR_MASK.
pub(super) const WRITABLE: u32 = 0xffff;

/// How a result that does not fit is rounded: MXCSR.RC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    NearestEven,
    Down,
    Up,
    TowardZero,
}

impl Rounding {
    /// From the two bits of MXCSR.RC or of ROUNDSS's immediate.
    pub fn from_bits(bits: u32) -> Rounding {
        match bits & 3 {
            0 => Rounding::NearestEven,
            1 => Rounding::Down,
            2 => Rounding::Up,
            _ => Rounding::TowardZero,
        }
    }
}

/// MXCSR while one instruction executes: how it must compute, and what it has raised so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mxcsr {
    value: u32,
    /// Exceptions of the current step.
    raised: u32,
    /// A step had an unmasked exception.
    faulted: bool,
}

impl Mxcsr {
    pub fn new(value: u32) -> Mxcsr {
        Mxcsr { value, raised: 0, faulted: false }
    }

    pub fn rounding(&self) -> Rounding {
        Rounding::from_bits(self.value >> ROUNDING_SHIFT)
    }

    /// Whether an inexact result rounded to nearest changes nothing: PE is masked and stands already.
    pub fn rounds_to_nearest_unseen(&self) -> bool {
        const RELEVANT: u32 = 3 << ROUNDING_SHIFT | PE << MASK_SHIFT | PE;
        self.value & RELEVANT == PE << MASK_SHIFT | PE
    }

    pub fn denormals_are_zeros(&self) -> bool {
        self.value & DENORMALS_ARE_ZEROS != 0
    }

    /// Whether tiny results become 0: only while underflow is masked.
    pub fn flushes_to_zero(&self) -> bool {
        self.value & FLUSH_TO_ZERO != 0 && self.masks(UE)
    }

    /// Whether `exception` is masked.
    pub fn masks(&self, exception: u32) -> bool {
        self.value >> MASK_SHIFT & exception != 0
    }

    /// Notes exceptions of one element.
    pub fn raise(&mut self, exceptions: u32) {
        self.raised |= exceptions;
    }

    /// Ends a step of an instruction that computes in several (DPPS). If one raised before computing (IE, DE, ZE) is
    /// unmasked, those raised by computing are not reported: there was no result. After a step with an unmasked
    /// exception nothing more happens.
    pub fn end_step(&mut self) {
        let raised = std::mem::take(&mut self.raised);
        if self.faulted {
            return;
        }
        let unmasked = !(self.value >> MASK_SHIFT) & EXCEPTIONS;
        let before = raised & (IE | DE | ZE);
        let flags = if before & unmasked != 0 { before } else { raised };
        self.value |= flags;
        self.faulted = flags & unmasked != 0;
    }

    /// The register's new value, and whether an unmasked exception keeps the result from being written.
    pub fn finish(mut self) -> (u32, bool) {
        self.end_step();
        (self.value, self.faulted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_MASKED: u32 = 0x1f80;

    #[test]
    fn masked_exceptions_stick_and_do_not_fault() {
        let mut mxcsr = Mxcsr::new(ALL_MASKED | PE);
        mxcsr.raise(OE);
        assert_eq!(mxcsr.finish(), (ALL_MASKED | PE | OE, false));
    }

    #[test]
    fn an_unmasked_exception_before_computing_hides_those_of_the_result() {
        let mut mxcsr = Mxcsr::new(ALL_MASKED & !(DE << 7));
        mxcsr.raise(DE | PE | UE);
        assert_eq!(mxcsr.finish(), (ALL_MASKED & !(DE << 7) | DE, true));
    }

    #[test]
    fn an_unmasked_exception_of_the_result_hides_nothing() {
        let mut mxcsr = Mxcsr::new(ALL_MASKED & !(PE << 7));
        mxcsr.raise(DE | PE);
        assert_eq!(mxcsr.finish(), (ALL_MASKED & !(PE << 7) | PE | DE, true));
    }

    #[test]
    fn nothing_happens_after_a_step_with_an_unmasked_exception() {
        let mut mxcsr = Mxcsr::new(ALL_MASKED & !(IE << 7));
        mxcsr.raise(PE);
        mxcsr.end_step();
        mxcsr.raise(IE | PE);
        mxcsr.end_step();
        mxcsr.raise(DE);
        let (value, faulted) = mxcsr.finish();
        assert_eq!((value & EXCEPTIONS, faulted), (IE | PE, true));
    }

    #[test]
    fn flushing_needs_underflow_masked() {
        assert!(Mxcsr::new(ALL_MASKED | FLUSH_TO_ZERO).flushes_to_zero());
        assert!(!Mxcsr::new(ALL_MASKED & !(UE << 7) | FLUSH_TO_ZERO).flushes_to_zero());
    }
}
