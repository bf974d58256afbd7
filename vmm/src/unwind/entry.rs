//! One ORC entry: how to find the caller's frame from a code address on.
//! Linux: arch/x86/include/asm/orc_types.h, struct orc_entry.

/// Bytes of an entry in `.orc_unwind`.
pub(super) const ENTRY_SIZE: usize = 6;

/// A register that a location on the stack is computed from: ORC_REG_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// Unchanged, or unknown.
    Undefined,
    /// The stack pointer the caller had before its call.
    PreviousSp,
    Dx,
    Di,
    Bp,
    Sp,
    R10,
    R13,
    /// The word at BP plus the offset.
    BpIndirect,
    /// The word at SP, plus the offset.
    SpIndirect,
}

/// What lies at the location that an entry finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing is known: what follows cannot be trusted.
    Undefined,
    /// The stack ends here: boot code, the start of a kernel thread.
    End,
    /// A return address below it.
    Call,
    /// A whole `struct pt_regs`.
    Registers,
    /// Only what the processor pushes at an exception: the frame that IRET takes.
    Interrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub sp_offset: i16,
    pub bp_offset: i16,
    pub sp: Base,
    pub bp: Base,
    pub kind: Kind,
    /// The frame found was interrupted: its address is not a return address.
    pub signal: bool,
}

/// How the bits behind the two registers are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Linux 6.1 and before: a two-bit type and an end flag; no `.orc_header`.
    WithEnd,
    /// Linux 6.4 and later: a three-bit type and a signal flag.
    WithSignal,
}

impl Entry {
    /// Reads an entry. A register or type that does not exist makes it [`Kind::Undefined`], at which unwinding stops.
    pub fn parse(bytes: [u8; ENTRY_SIZE], layout: Layout) -> Entry {
        let sp_offset = i16::from_le_bytes([bytes[0], bytes[1]]);
        let bp_offset = i16::from_le_bytes([bytes[2], bytes[3]]);
        let (sp, bp) = (base(bytes[4] & 15), base(bytes[4] >> 4));
        let flags = bytes[5];
        let (kind, signal) = match layout {
            Layout::WithEnd => match (sp, flags & 3, flags & 4 != 0) {
                (Some(Base::Undefined), _, true) => (Kind::End, false),
                (Some(Base::Undefined), _, false) => (Kind::Undefined, false),
                (_, 0, _) => (Kind::Call, false),
                (_, 1, _) => (Kind::Registers, true),
                (_, 2, _) => (Kind::Interrupt, true),
                _ => (Kind::Undefined, false),
            },
            Layout::WithSignal => {
                let kind = match flags & 7 {
                    1 => Kind::End,
                    2 => Kind::Call,
                    3 => Kind::Registers,
                    4 => Kind::Interrupt,
                    _ => Kind::Undefined,
                };
                (kind, flags & 8 != 0)
            }
        };
        match (sp, bp) {
            (Some(sp), Some(bp)) => Entry { sp_offset, bp_offset, sp, bp, kind, signal },
            _ => Entry::UNDEFINED,
        }
    }

    /// Entry of code that nothing is known about.
    pub const UNDEFINED: Entry = Entry {
        sp_offset: 0,
        bp_offset: 0,
        sp: Base::Undefined,
        bp: Base::Undefined,
        kind: Kind::Undefined,
        signal: false,
    };

    /// Code with a frame pointer: what the kernel assumes of generated code (`orc_fp_entry`).
    pub const FRAME_POINTER: Entry = Entry {
        sp_offset: 16,
        bp_offset: -16,
        sp: Base::Bp,
        bp: Base::PreviousSp,
        kind: Kind::Call,
        signal: false,
    };

    /// Address 0, reached by a call of a null pointer (`null_orc_entry`).
    pub const NULL: Entry = Entry { sp_offset: 8, sp: Base::Sp, kind: Kind::Call, ..Entry::UNDEFINED };
}

fn base(number: u8) -> Option<Base> {
    const BASES: [Base; 10] = [
        Base::Undefined,
        Base::PreviousSp,
        Base::Dx,
        Base::Di,
        Base::Bp,
        Base::Sp,
        Base::R10,
        Base::R13,
        Base::BpIndirect,
        Base::SpIndirect,
    ];
    BASES.get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_give_the_same_call_frame() {
        let registers = 5 | 1 << 4;
        let old = Entry::parse([16, 0, 0xf0, 0xff, registers, 0], Layout::WithEnd);
        let new = Entry::parse([16, 0, 0xf0, 0xff, registers, 2], Layout::WithSignal);
        let expected = Entry {
            sp_offset: 16,
            bp_offset: -16,
            sp: Base::Sp,
            bp: Base::PreviousSp,
            kind: Kind::Call,
            signal: false,
        };
        assert_eq!((old, new), (expected, expected));
    }

    #[test]
    fn interrupted_frames_are_told_by_type_or_by_flag() {
        assert!(Entry::parse([0, 0, 0, 0, 5, 2], Layout::WithEnd).signal);
        assert!(Entry::parse([0, 0, 0, 0, 5, 4 | 8], Layout::WithSignal).signal);
        assert!(!Entry::parse([0, 0, 0, 0, 5, 4], Layout::WithSignal).signal);
    }

    #[test]
    fn ends_and_blind_spots_differ() {
        assert_eq!(Entry::parse([0, 0, 0, 0, 0, 4], Layout::WithEnd).kind, Kind::End);
        assert_eq!(Entry::parse([0; 6], Layout::WithEnd).kind, Kind::Undefined);
        assert_eq!(Entry::parse([0, 0, 0, 0, 0, 1], Layout::WithSignal).kind, Kind::End);
        assert_eq!(Entry::parse([0; 6], Layout::WithSignal).kind, Kind::Undefined);
    }

    #[test]
    fn a_register_that_does_not_exist_makes_the_entry_undefined() {
        assert_eq!(Entry::parse([8, 0, 0, 0, 12, 0], Layout::WithEnd), Entry::UNDEFINED);
    }
}
