//! System calls that KVM executed by half.
//!
//! PVM has no hardware below it. It executes SYSCALL of a guest that does not know it so that RIP, RCX and R11 change, the
//! privilege and the segments do not: the processor is in user mode where the kernel begins, and the page fault that it
//! raises there kills the program. So a processor stops where the kernel handles page faults, and if that is one of these
//! it goes back in front of its SYSCALL, for the software processor to execute it.

use cpu::{REG_RIP, Segment, State};

use crate::board::Board;
use crate::software::Software;
use crate::translate::translate;

/// IA32_EFER: SYSCALL is enabled, long mode is active.
const EFER_SCE: u64 = 1;
const EFER_LMA: u64 = 1 << 10;
const PAGE_FAULT: u64 = 14;
/// Bits of a page fault's error code: in user mode, by a fetch.
const USER_FETCH: u64 = 1 << 2 | 1 << 4;
const USER: u64 = 1 << 2;
/// What programs of 64 bits have in CS and SS.
const CODE: u16 = 0xa0fb;
const DATA: u16 = 0xc0f3;
/// RCX, RSP and R11 in [`State::regs`].
const RCX: usize = 1;
const RSP: usize = 4;
const R11: usize = 11;

/// Where a kernel of 64 bits with system calls handles page faults.
pub(super) fn page_fault_handler(state: &State, board: &Board) -> Option<u64> {
    if state.efer & EFER_SCE == 0 || state.efer & EFER_LMA == 0 {
        return None;
    }
    let gate = state.idtr.base.wrapping_add(16 * PAGE_FAULT);
    let [low, high] = [read(board, state, gate)?, read(board, state, gate.wrapping_add(8))?];
    Some(low & 0xffff | low >> 32 & 0xffff_0000 | high << 32)
}

/// Puts a processor that stands in front of the handler because of half a SYSCALL back in front of that.
pub(super) fn undo(software: &mut Software, board: &Board) {
    let mut state = software.cpu.state();
    if undone(&mut state, board).is_some() {
        software.cpu.set_state(state);
    }
}

fn undone(state: &mut State, board: &Board) -> Option<()> {
    let here =
        state.cr2 == state.lstar && state.cpl() == 0 && page_fault_handler(state, board)? == state.rip();
    if !here {
        return None;
    }
    // Error code, RIP, CS, RFLAGS, RSP, SS.
    let word = |at: u64| read(board, state, state.regs[RSP].wrapping_add(8 * at));
    let [code, rip, cs, rsp, ss] = [word(0)?, word(1)?, word(2)?, word(4)?, word(5)?];
    let by_fetch = code & USER_FETCH == USER_FETCH || code & USER != 0 && rip == state.cr2;
    let call = state.regs[RCX].wrapping_sub(2);
    let instruction = read(board, state, call)? & 0xffff;
    if !by_fetch || rip != state.lstar || cs & 3 != 3 || instruction != 0x050f {
        return None;
    }
    let segment =
        |selector: u64, access| Segment { selector: selector as u16, base: 0, limit: u32::MAX, access };
    (state.segments[1], state.segments[2]) = (segment(cs, CODE), segment(ss, DATA));
    (state.regs[REG_RIP], state.regs[RSP]) = (call, rsp);
    state.rflags = state.regs[R11];
    Some(())
}

/// The eight bytes at a linear address.
fn read(board: &Board, state: &State, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    for piece in crate::memory::split(address, 8) {
        let physical = translate(&board.memory, state, address.wrapping_add(piece.start as u64))?;
        board.memory.read(physical, &mut bytes[piece]).then_some(())?;
    }
    Some(u64::from_le_bytes(bytes))
}
