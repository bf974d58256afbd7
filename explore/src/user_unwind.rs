//! One frame of a user stack further out, by call frame information.

use addr2line::gimli::EndianSlice;
use addr2line::gimli::{
    BaseAddresses, CfaRule, EhFrame, LittleEndian, Register, RegisterRule, UnwindContext, UnwindSection,
    X86_64,
};

use crate::user_stack::Read;

/// End of the user's half of the linear addresses (Intel SDM volume 1, 3.3.7.1).
const USER_END: u64 = 1 << 47;

/// Registers of a user program, as far as stacks depend on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserRegisters {
    pub rip: u64,
    /// By their DWARF numbers (System V ABI, x86-64 supplement, figure 3.36): RAX, RDX, RCX, RBX, RSI, RDI, RBP, RSP, R8 to
    /// R15.
    pub general: [u64; 16],
}

impl UserRegisters {
    /// From the sixteen in the order of their encoding: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub(crate) fn new(rip: u64, encoded: &[u64; 16]) -> UserRegisters {
        const ENCODED: [usize; 16] = [0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
        UserRegisters { rip, general: ENCODED.map(|number| encoded[number]) }
    }
}

/// The call frame information of one program.
pub(crate) struct Frames<'a> {
    section: EhFrame<EndianSlice<'a, LittleEndian>>,
    bases: BaseAddresses,
}

impl<'a> Frames<'a> {
    /// From its section `.eh_frame`, and where that is linked to.
    pub(crate) fn new(address: u64, section: &'a [u8]) -> Frames<'a> {
        let bases = BaseAddresses::default().set_eh_frame(address);
        Frames { section: EhFrame::new(section, LittleEndian), bases }
    }

    /// The registers as the caller of this function will find them. `linked` is where the program is executing, as linked.
    pub(crate) fn caller(&self, registers: &UserRegisters, linked: u64, read: Read) -> Option<UserRegisters> {
        let mut context = UnwindContext::new();
        let row = self
            .section
            .unwind_info_for_address(&self.bases, &mut context, linked, EhFrame::cie_from_offset)
            .ok()?;
        let value = |register: Register| registers.general.get(usize::from(register.0)).copied();
        let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else { return None };
        let frame = value(*register)?.checked_add_signed(*offset)?;
        let restored = |register: Register| match row.register(register) {
            Some(RegisterRule::Offset(offset)) => read(frame.checked_add_signed(offset)?),
            Some(RegisterRule::Undefined | RegisterRule::SameValue) | None => value(register),
            Some(_) => None,
        };
        let mut caller = UserRegisters { rip: restored(X86_64::RA)?, ..*registers };
        for register in [X86_64::RBX, X86_64::RBP, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15] {
            caller.general[usize::from(register.0)] = restored(register).unwrap_or(0);
        }
        caller.general[usize::from(X86_64::RSP.0)] = frame;
        // Outer frames are higher up; anything else is no stack.
        let inside = registers.general[usize::from(X86_64::RSP.0)] < frame && frame < USER_END;
        (inside && caller.rip != 0).then_some(caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_get_their_dwarf_numbers() {
        let encoded: [u64; 16] = std::array::from_fn(|number| number as u64);
        let registers = UserRegisters::new(7, &encoded);
        let of = |register: Register| registers.general[usize::from(register.0)];
        assert_eq!((of(X86_64::RSP), of(X86_64::RBP), of(X86_64::RDI), of(X86_64::R12)), (4, 5, 7, 12));
        assert_eq!((of(X86_64::RCX), of(X86_64::RDX), registers.rip), (1, 2, 7));
    }

    #[test]
    fn what_is_no_call_frame_information_has_no_callers() {
        for section in [&[][..], &[0; 4], &[0xff; 64]] {
            let frames = Frames::new(0x1000, section);
            assert_eq!(frames.caller(&UserRegisters::default(), 0x2000, &|_| Some(0)), None);
        }
    }
}
