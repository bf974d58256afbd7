//! Call gates: of 16 and 32 bits outside of long mode, of 64 bits in it. SDM vol. 3, sections 5.8.3 to 5.8.5.

use crate::{
    Bus, Cpu, Fault, Segment,
    far::enter,
    registers::*,
    segments::{Descriptor, gp},
    stack::Stack,
    state::REG_RIP,
    tlb::Privilege,
    traps::null_stack,
};

/// A call gate, its own rights checked.
pub(crate) struct CallGate {
    pub selector: u16,
    pub target: u64,
    /// Bytes of what is pushed: 2, 4 or 8.
    size: u64,
    /// Values copied from the caller's stack.
    parameters: u64,
}

impl<B: Bus> Cpu<B> {
    /// The call gate that the selector of a far JMP or CALL names.
    pub(crate) fn call_gate(
        &mut self,
        bus: &mut B,
        descriptor: Descriptor,
        selector: u16,
    ) -> Result<CallGate, Fault> {
        let kind = descriptor.access() & 0x1f;
        let is_task = matches!(kind, 1 | 3 | 5 | 9 | 0xb);
        let is_call_gate = kind == 0xc || kind == 4 && !self.long_mode();
        let hidden = descriptor.dpl() < self.state.cpl().max(selector as u8 & 3);
        let busy = matches!(kind, 3 | 0xb);
        let is_usable_task = is_task && !busy && !self.long_mode();
        if hidden || !is_call_gate && !is_usable_task {
            return Err(gp(selector));
        }
        if !descriptor.has(ACCESS_PRESENT) {
            return Err(Fault::coded(11, selector & !3));
        }
        if is_task {
            self.unsupported = Some("task switch by a far jump or call");
            return Err(Fault::UD);
        }
        let raw = descriptor.raw;
        let low = raw & 0xffff;
        let middle = raw >> 32 & 0xffff_0000;
        let (target, size) = match (self.long_mode(), kind) {
            (true, _) => (low | middle | self.upper_half(bus, descriptor, selector)?, 8),
            (false, 4) => (low, 2),
            (false, _) => (low | middle, 4),
        };
        let parameters = if size == 8 { 0 } else { raw >> 32 & 0x1f };
        Ok(CallGate { selector: (raw >> 16) as u16, target, size, parameters })
    }

    /// Bits 63 to 32 of a 64-bit call gate's offset, in place. Its second half must not look like a descriptor.
    fn upper_half(&mut self, bus: &mut B, descriptor: Descriptor, selector: u16) -> Result<u64, Fault> {
        let (_, limit) = self.descriptor_table(selector)?;
        if u32::from(selector & !7) + 15 > limit {
            return Err(gp(selector));
        }
        let upper = u64::from_le_bytes(self.read_system(bus, descriptor.at.wrapping_add(8))?);
        if upper >> 40 & 0x1f != 0 { Err(gp(selector)) } else { Ok(upper << 32) }
    }

    /// The code segment that a call gate leads to; whether CPL and DPL allow it is the caller's to see.
    pub(crate) fn gate_segment(&mut self, bus: &mut B, gate: &CallGate) -> Result<Descriptor, Fault> {
        if gate.selector & !3 == 0 {
            return Err(Fault::GP0);
        }
        let descriptor = self.descriptor(bus, gate.selector)?;
        let is_code = descriptor.has(ACCESS_NOT_SYSTEM | ACCESS_CODE);
        let is_64_bit = descriptor.has(ACCESS_LONG) && !descriptor.has(ACCESS_BIG);
        if !is_code || self.long_mode() && !is_64_bit || descriptor.dpl() > self.state.cpl() {
            return Err(gp(gate.selector));
        }
        Ok(descriptor)
    }

    /// CALL through a gate, to the same or an inner privilege.
    pub(crate) fn call_through_gate(&mut self, bus: &mut B, gate: &CallGate) -> Result<(), Fault> {
        let descriptor = self.gate_segment(bus, gate)?;
        if !descriptor.has(ACCESS_PRESENT) {
            return Err(Fault::coded(11, gate.selector & !3));
        }
        let segment = descriptor.segment(gate.selector);
        let inner = !descriptor.has(ACCESS_CONFORMING) && descriptor.dpl() < self.state.cpl();
        if inner {
            return self.call_inner(bus, gate, descriptor, segment);
        }
        self.check_target(&segment, gate.target)?;
        self.mark_accessed(bus, descriptor)?;
        let back = [u64::from(self.state.segments[CS].selector), self.state.regs[REG_RIP]];
        let mut stack = self.current_stack();
        if gate.size == 8 {
            // The pushes are already those of 64-bit mode.
            (stack.bits, stack.pointer) = (64, self.state.regs[RSP]);
        }
        let pointer = self.push_all(bus, &stack, &back, gate.size)?;
        enter(self, segment, gate.target);
        self.set_stack_pointer(pointer);
        Ok(())
    }

    fn call_inner(
        &mut self,
        bus: &mut B,
        gate: &CallGate,
        descriptor: Descriptor,
        segment: Segment,
    ) -> Result<(), Fault> {
        let cpl = descriptor.dpl();
        let stack = if gate.size == 8 {
            Stack {
                segment: null_stack(cpl),
                bits: 64,
                pointer: self.long_inner_stack(bus, 0, cpl, 0)?,
                privilege: Privilege::Supervisor,
                outside: Fault::SS0,
            }
        } else {
            self.inner_stack(bus, cpl, 0)?
        };
        self.check_target(&segment, gate.target)?;
        let mut values = vec![u64::from(self.state.segments[SS].selector), self.state.regs[RSP]];
        for n in (0..gate.parameters).rev() {
            values.push(self.stack_value(bus, n * gate.size, gate.size)?);
        }
        values.extend([u64::from(self.state.segments[CS].selector), self.state.regs[REG_RIP]]);
        let pointer = self.push_all(bus, &stack, &values, gate.size)?;
        self.mark_accessed(bus, descriptor)?;
        self.state.segments[SS] = stack.segment;
        self.state.regs[REG_RIP] = gate.target;
        self.set_code_segment(segment, cpl);
        self.set_stack_pointer(pointer);
        Ok(())
    }
}
