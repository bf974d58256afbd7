//! Memory operands outside of 64-bit mode: segments there have limits and rights, which are checked before the
//! instruction's handler runs. SDM vol. 3, sections 5.3 to 5.5.
//!
//! Only operands that the encoding names: the stack is checked in `stack`; string instructions, MASKMOVQ and POP ask for
//! what they access themselves.

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess, OpKind,
    Register,
};

use crate::{
    Bus, Cpu, Fault,
    op::{Handler, Op},
    segments::{is_roomy, segment_index},
    sse, system, x87,
};

/// A handler, and the access to memory that must be allowed before it runs.
pub(crate) struct Checked<B: Bus> {
    run: Handler<B>,
    /// Index into `State::segments`.
    segment: usize,
    /// Bytes accessed.
    len: u64,
    writes: bool,
}

/// What `i` needs of [`execute`] when `run` is its handler; `None` if it names no memory or does not access it.
pub(crate) fn checked<B: Bus>(run: Handler<B>, i: &Instruction) -> Option<Checked<B>> {
    let operand = (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory)?;
    let computes_only = matches!(i.mnemonic(), Mnemonic::Lea | Mnemonic::Nop | Mnemonic::Invlpg);
    // Each element of a bit string is checked when it is known which one it is; POP checks after it has read.
    if computes_only
        || i.mnemonic() == Mnemonic::Pop
        || crate::decode::is_hint(i.mnemonic())
        || indexes_bits(i)
    {
        return None;
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info_options(i, InstructionInfoOptions::NO_MEMORY_USAGE);
    let writes = match info.op_access(operand) {
        OpAccess::None | OpAccess::NoMemAccess => return None,
        OpAccess::Read | OpAccess::CondRead => false,
        // It writes only what it changes.
        _ => i.mnemonic() != Mnemonic::Arpl,
    };
    let len = match i.mnemonic() {
        Mnemonic::Bound => 2 * i.op0_register().size(),
        _ => i.memory_size().size(),
    };
    Some(Checked { run, segment: segment_index(i.memory_segment()), len: len.max(1) as u64, writes })
}

/// BT, BTS, BTR and BTC with a register that says how far from the operand's address the bit is.
fn indexes_bits(i: &Instruction) -> bool {
    matches!(i.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && i.op1_kind() == OpKind::Register
}

/// Checks the memory operand, then runs the handler.
pub(crate) fn execute<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let Some(full) = op.full.as_deref() else { return Err(Fault::UD) };
    let Some(Checked { run, segment, len, writes }) = &full.checked else { return Err(Fault::UD) };
    if !is_roomy(&cpu.state.segments[*segment]) {
        let offset = operand_offset(cpu, full);
        if let Err(fault) = cpu.check_segment(*segment, offset, *len, *writes) {
            // What the instruction may not do at all, a unit that is switched off and an operand that is not aligned
            // come first.
            system::check_allowed(cpu, full)?;
            sse::check_usable_by(cpu, full)?;
            x87::check_usable_by(cpu, full)?;
            return Err(fault);
        }
    }
    run(cpu, bus, op)
}

/// Offset of the memory operand in its segment when the instruction begins.
fn operand_offset<B: Bus>(cpu: &Cpu<B>, i: &Instruction) -> u64 {
    let regs = &cpu.state.regs;
    match i.mnemonic() {
        // Its index is AL, where the address computation takes all of RAX.
        Mnemonic::Xlatb => {
            let mask = if i.memory_base() == Register::BX { 0xffff } else { 0xffff_ffff };
            (regs[3].wrapping_add(regs[0] & 0xff)) & mask
        }
        _ => cpu.effective_address(i),
    }
}

/// Whether a handler that was specialised for 64-bit mode does the right thing for `i`, too: everything happens in
/// registers.
pub(crate) fn is_same_in_64_bit_mode(i: &Instruction) -> bool {
    i.flow_control() == FlowControl::Next
        && !i.is_stack_instruction()
        && (0..i.op_count()).all(|n| i.op_kind(n) == OpKind::Register || i.try_immediate(n).is_ok())
}
