//! Walking the stack by ORC entries. Linux: unwind_next_frame() in arch/x86/kernel/unwind_orc.c.

use super::entry::{Base, Entry, Kind};
use super::table::OrcTable;
use super::{End, Registers, Stack};

/// Stacks deeper than this are cut: the entries, or the stack, are damaged.
const DEEPEST: usize = 512;

/// Offsets in `struct pt_regs`: arch/x86/include/asm/ptrace.h.
const R13: u64 = 16;
const BP: u64 = 32;
const R10: u64 = 56;
const DX: u64 = 96;
const DI: u64 = 112;
/// The part of it that the processor pushes.
const INTERRUPT_FRAME: u64 = 128;
const CS: u64 = 8;
const SP: u64 = 24;

/// Where the registers of the frame are, beyond those that are always tracked.
#[derive(Clone, Copy)]
enum Saved {
    /// Nowhere: calls do not save them.
    Nowhere,
    /// The processor still has them.
    Processor,
    /// In a `struct pt_regs` at this address.
    Memory(u64),
}

struct Walk<'a> {
    tables: &'a [OrcTable],
    read: &'a dyn Fn(u64) -> Option<u64>,
    start: Registers,
    ip: u64,
    sp: u64,
    bp: u64,
    /// `ip` is where the frame was interrupted, not a return address.
    exact: bool,
    saved: Saved,
}

pub(super) fn walk(tables: &[OrcTable], start: Registers, read: &dyn Fn(u64) -> Option<u64>) -> Stack {
    let mut stack = Stack { addresses: Vec::new(), exact: Vec::new(), end: End::Lost };
    if start.user {
        stack.end = End::User { rip: start.rip };
        return stack;
    }
    let Registers { rip: ip, rsp: sp, rbp: bp, .. } = start;
    let mut walk = Walk { tables, read, start, ip, sp, bp, exact: true, saved: Saved::Processor };
    while stack.addresses.len() < DEEPEST {
        stack.addresses.push(walk.ip);
        stack.exact.push(walk.exact);
        match walk.step() {
            Ok(()) => {}
            Err(end) => {
                stack.end = end;
                break;
            }
        }
    }
    stack
}

impl Walk<'_> {
    /// Goes to the caller's frame, or tells why there is none.
    fn step(&mut self) -> Result<(), End> {
        let (entry, guessed) = self.entry();
        if entry.kind == Kind::End {
            return Err(End::Bottom);
        }
        let before = self.sp;
        let sp = self.previous_sp(entry).ok_or(End::Lost)?;
        match entry.kind {
            Kind::Call => {
                self.ip = self.load(sp.wrapping_sub(8))?;
                self.sp = sp;
                self.saved = Saved::Nowhere;
            }
            Kind::Registers => {
                self.interrupt_frame(sp.wrapping_add(INTERRUPT_FRAME))?;
                self.saved = Saved::Memory(sp);
            }
            Kind::Interrupt => self.interrupt_frame(sp)?,
            Kind::Undefined | Kind::End => return Err(End::Lost),
        }
        self.exact = entry.signal;
        match entry.bp {
            Base::Undefined => self.bp = self.saved_register(BP, self.start.rbp).unwrap_or(self.bp),
            Base::PreviousSp => self.bp = self.load(sp.wrapping_add_signed(entry.bp_offset.into()))?,
            Base::Bp => self.bp = self.load(self.bp.wrapping_add_signed(entry.bp_offset.into()))?,
            _ => return Err(End::Lost),
        }
        let gone_wrong = guessed && !self.is_known(self.ip) || entry.kind == Kind::Call && self.sp == before;
        if gone_wrong { Err(End::Lost) } else { Ok(()) }
    }

    /// The entry for the current frame, and whether it is only a guess.
    ///
    /// A return address may lie behind the end of its function, if the call never returns: the call itself counts.
    fn entry(&self) -> (Entry, bool) {
        if self.ip == 0 {
            return (Entry::NULL, false);
        }
        let address = if self.exact { self.ip } else { self.ip - 1 };
        let table = self.tables.iter().find(|table| table.covers(address));
        match table.and_then(|table| table.find(address)) {
            Some(entry) => (entry, false),
            None => (Entry::FRAME_POINTER, true),
        }
    }

    fn is_known(&self, ip: u64) -> bool {
        self.tables.iter().any(|table| table.covers(ip.wrapping_sub(1)))
    }

    /// The location that the entry tells: the caller's stack pointer, or where registers were saved.
    fn previous_sp(&self, entry: Entry) -> Option<u64> {
        let with_offset = |base: u64| base.wrapping_add_signed(entry.sp_offset.into());
        match entry.sp {
            Base::Sp => Some(with_offset(self.sp)),
            Base::Bp => Some(with_offset(self.bp)),
            Base::SpIndirect => (self.read)(self.sp).map(with_offset),
            Base::BpIndirect => (self.read)(with_offset(self.bp)),
            Base::R10 => self.saved_register(R10, self.start.r10),
            Base::R13 => self.saved_register(R13, self.start.r13),
            Base::Di => self.saved_register(DI, self.start.rdi),
            Base::Dx => self.saved_register(DX, self.start.rdx),
            Base::Undefined | Base::PreviousSp => None,
        }
    }

    fn saved_register(&self, offset: u64, of_processor: u64) -> Option<u64> {
        match self.saved {
            Saved::Nowhere => None,
            Saved::Processor => Some(of_processor),
            Saved::Memory(registers) => (self.read)(registers.wrapping_add(offset)),
        }
    }

    /// Takes RIP and RSP from what the processor pushed; user mode ends the walk.
    fn interrupt_frame(&mut self, frame: u64) -> Result<(), End> {
        let rip = self.load(frame)?;
        if self.load(frame.wrapping_add(CS))? & 3 != 0 {
            return Err(End::User { rip });
        }
        self.ip = rip;
        self.sp = self.load(frame.wrapping_add(SP))?;
        Ok(())
    }

    fn load(&self, address: u64) -> Result<u64, End> {
        (self.read)(address).ok_or(End::Lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: std::ops::Range<u64> = 0x1000..0x2000;
    const STACK: u64 = 0x9000;

    fn entry(sp: Base, sp_offset: i16, kind: Kind) -> Entry {
        let signal = matches!(kind, Kind::Registers | Kind::Interrupt);
        Entry { sp_offset, sp, kind, signal, ..Entry::UNDEFINED }
    }

    fn start(rip: u64) -> Registers {
        Registers { rip, rsp: STACK, rbp: 0, ..Registers::default() }
    }

    /// Unwinds with these entries and these words on the stack, lowest address first.
    fn unwind(entries: &[(u64, Entry)], words: &[u64], start: Registers) -> Stack {
        let read = |address: u64| {
            let index = address.checked_sub(STACK)? / 8;
            words.get(index as usize).copied()
        };
        walk(&[OrcTable::for_test(entries, CODE)], start, &read)
    }

    #[test]
    fn calls_are_followed_to_the_end_of_the_stack() {
        let entries = [
            (0x1000, entry(Base::Sp, 24, Kind::Call)),
            (0x1100, entry(Base::Sp, 8, Kind::Call)),
            (0x1200, entry(Base::Undefined, 0, Kind::End)),
        ];
        let stack = unwind(&entries, &[1, 2, 0x1110, 0x1210], start(0x1000));
        assert_eq!(stack.addresses, [0x1000, 0x1110, 0x1210]);
        assert_eq!(stack.end, End::Bottom);
    }

    #[test]
    fn a_return_address_belongs_to_the_call_before_it() {
        // The call at 0x10ff does not return: its return address is the next function's start.
        let entries = [
            (0x1000, entry(Base::Sp, 8, Kind::Call)),
            (0x10f0, entry(Base::Undefined, 0, Kind::End)),
            (0x1100, entry(Base::Undefined, 0, Kind::Undefined)),
        ];
        assert_eq!(unwind(&entries, &[0x1100], start(0x1000)).end, End::Bottom);
        assert_eq!(unwind(&entries, &[], start(0x1100)).end, End::Lost);
    }

    #[test]
    fn frame_pointer_is_restored_and_used() {
        let saving = Entry { bp: Base::PreviousSp, bp_offset: -16, ..entry(Base::Sp, 16, Kind::Call) };
        let entries = [
            (0x1000, saving),
            (0x1100, entry(Base::Bp, 16, Kind::Call)),
            (0x1200, entry(Base::Undefined, 0, Kind::End)),
        ];
        let words = [STACK + 24, 0x1110, 0, 0, 0x1210];
        assert_eq!(unwind(&entries, &words, start(0x1000)).addresses, [0x1000, 0x1110, 0x1210]);
    }

    #[test]
    fn an_exception_leads_back_to_what_it_interrupted() {
        let entries = [
            (0x1000, entry(Base::Sp, 8, Kind::Call)),
            (0x1100, entry(Base::Sp, 0, Kind::Registers)),
            (0x1200, entry(Base::Bp, 16, Kind::Call)),
            (0x1300, entry(Base::Undefined, 0, Kind::End)),
        ];
        let mut words = vec![0x1105];
        let mut registers = [0u64; 21];
        registers[4] = STACK + 22 * 8; // RBP
        registers[16] = 0x1200; // RIP: exact, so that 0x11ff must not count.
        registers[17] = 0x10; // CS
        registers[19] = STACK + 22 * 8; // RSP
        words.extend(registers);
        words.extend([0, 0x1301]);
        let stack = unwind(&entries, &words, start(0x1000));
        assert_eq!(stack.addresses, [0x1000, 0x1105, 0x1200, 0x1301]);
        assert_eq!(stack.exact, [true, false, true, false]);
        assert_eq!(stack.end, End::Bottom);
    }

    #[test]
    fn user_mode_ends_the_stack_and_tells_where() {
        let entries = [(0x1000, entry(Base::Sp, 0, Kind::Interrupt))];
        let stack = unwind(&entries, &[0x55_5555, 0x33, 0x202, 0x7ff0, 0x2b], start(0x1000));
        assert_eq!(stack.addresses, [0x1000]);
        assert_eq!(stack.end, End::User { rip: 0x55_5555 });
        let user = Registers { user: true, ..start(0x44_4444) };
        assert_eq!(unwind(&entries, &[], user).end, End::User { rip: 0x44_4444 });
    }

    #[test]
    fn stacks_are_switched_through_a_word_in_memory() {
        let entries = [
            (0x1000, entry(Base::SpIndirect, 8, Kind::Call)),
            (0x1100, entry(Base::BpIndirect, -8, Kind::Call)),
            (0x1200, entry(Base::Undefined, 0, Kind::End)),
        ];
        let words = [STACK + 24, 0, 0, 0x1110, STACK + 48, 0x1210];
        let start = Registers { rbp: STACK + 40, ..start(0x1000) };
        assert_eq!(unwind(&entries, &words, start).addresses, [0x1000, 0x1110, 0x1210]);
    }

    #[test]
    fn registers_of_the_processor_hold_until_the_first_call() {
        let entries = [(0x1000, entry(Base::R10, 0, Kind::Call)), (0x1100, entry(Base::R13, 0, Kind::Call))];
        let start = Registers { r10: STACK + 8, ..start(0x1000) };
        let stack = unwind(&entries, &[0x1110], start);
        assert_eq!((stack.addresses, stack.end), (vec![0x1000, 0x1110], End::Lost));
    }

    #[test]
    fn a_stack_that_cannot_be_read_or_does_not_move_is_lost() {
        let stuck = [(0x1000, entry(Base::Sp, 0, Kind::Call))];
        let read = |_| Some(0x1010);
        let stack = walk(&[OrcTable::for_test(&stuck, CODE)], start(0x1000), &read);
        assert_eq!((stack.addresses.len(), stack.end), (1, End::Lost));
        let unreadable = [(0x1000, entry(Base::Sp, 8, Kind::Call))];
        assert_eq!(unwind(&unreadable, &[], start(0x1000)).end, End::Lost);
    }

    #[test]
    fn endless_stacks_are_cut() {
        let entries = [(0x1000, entry(Base::Sp, 8, Kind::Call))];
        let stack = walk(&[OrcTable::for_test(&entries, CODE)], start(0x1000), &|_| Some(0x1010));
        assert_eq!((stack.addresses.len(), stack.end), (DEEPEST, End::Lost));
    }

    #[test]
    fn code_without_entries_is_taken_to_have_a_frame_pointer() {
        let entries = [(0x1000, entry(Base::Undefined, 0, Kind::End))];
        let generated = Registers { rbp: STACK, ..start(0x5000) };
        let stack = unwind(&entries, &[0, 0x1010], generated);
        assert_eq!((stack.addresses, stack.end), (vec![0x5000, 0x1010], End::Bottom));
        let stack = unwind(&entries, &[0, 0x6000], generated);
        assert_eq!((stack.addresses, stack.end), (vec![0x5000], End::Lost));
    }
}
