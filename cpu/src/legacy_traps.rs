//! Delivery of exceptions and interrupts outside of long mode: through the vectors of real mode, and through the 16-bit
//! and 32-bit gates of protected mode. SDM vol. 3, sections 6.12 and 21.1.4.

use crate::{Bus, Cpu, Fault, registers::*, stack::Stack, state::REG_RIP, tlb::Privilege, traps::Event};

/// An interrupt or trap gate, checked.
struct Gate {
    selector: u16,
    target: u64,
    /// Clears IF.
    interrupt_gate: bool,
    /// Bytes of what is pushed: 2 or 4.
    size: u64,
}

impl<B: Bus> Cpu<B> {
    /// Through the interrupt vector table. Error codes are not pushed.
    pub(crate) fn deliver_real(&mut self, bus: &mut B, event: Event) -> Result<(), Fault> {
        let offset = u16::from(event.vector) * 4;
        if offset + 3 > self.state.idtr.limit {
            return Err(Fault::GP0);
        }
        let at = self.state.idtr.base.wrapping_add(u64::from(offset));
        let [ip_low, ip_high, cs_low, cs_high] = self.read_system(bus, at)?;
        let frame = [self.rflags(), u64::from(self.state.segments[CS].selector), self.state.regs[REG_RIP]];
        let stack = self.current_stack();
        let pointer = self.push_all(bus, &stack, &frame, 2)?;
        self.set_stack_pointer(pointer);
        self.state.rflags &= !(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
        self.state.regs[REG_RIP] = u64::from(u16::from_le_bytes([ip_low, ip_high]));
        self.load_real_segment(CS, u16::from_le_bytes([cs_low, cs_high]));
        self.privilege_changed();
        Ok(())
    }

    /// Through a gate of the IDT, in protected mode that is not long mode.
    pub(crate) fn deliver_protected(&mut self, bus: &mut B, event: Event) -> Result<(), Fault> {
        let external = !event.software as u16;
        let gate = self.legacy_gate(bus, event)?;
        let descriptor = self.handler_segment(bus, gate.selector, external)?;
        let segment = descriptor.segment(gate.selector);
        let cpl = self.state.cpl();
        let new_cpl = if descriptor.has(ACCESS_CONFORMING) { cpl } else { descriptor.dpl() };
        let mut stack = if new_cpl == cpl {
            Stack { outside: Fault::coded(12, external), ..self.current_stack() }
        } else {
            self.inner_stack(bus, new_cpl, external)?
        };
        stack.privilege = if new_cpl == 3 { Privilege::User } else { Privilege::Supervisor };
        if self.check_target(&segment, gate.target).is_err() {
            return Err(Fault::coded(13, external));
        }

        let restart_flag = if event.restarts { RFLAGS_RF } else { 0 };
        let frame = [
            u64::from(self.state.segments[SS].selector),
            self.state.regs[RSP],
            self.rflags() | restart_flag,
            u64::from(self.state.segments[CS].selector),
            self.state.regs[REG_RIP],
            u64::from(event.code.unwrap_or(0)),
        ];
        let first = if new_cpl == cpl { 2 } else { 0 };
        let last = if event.code.is_some() { 6 } else { 5 };
        let pointer = self.push_all(bus, &stack, &frame[first..last], gate.size)?;
        self.mark_accessed(bus, descriptor)?;

        self.state.segments[SS] = stack.segment;
        self.set_stack_pointer(pointer);
        let mut cleared = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM;
        if gate.interrupt_gate {
            cleared |= RFLAGS_IF;
        }
        self.state.rflags &= !cleared;
        self.state.regs[REG_RIP] = gate.target;
        self.set_code_segment(segment, new_cpl);
        Ok(())
    }

    fn legacy_gate(&mut self, bus: &mut B, event: Event) -> Result<Gate, Fault> {
        let code = u16::from(event.vector) << 3 | 2 | !event.software as u16;
        let offset = u16::from(event.vector) * 8;
        if offset + 7 > self.state.idtr.limit {
            return Err(Fault::coded(13, code));
        }
        let at = self.state.idtr.base.wrapping_add(u64::from(offset));
        let raw = u64::from_le_bytes(self.read_system(bus, at)?);
        let kind = (raw >> 40) as u8;
        let is_gate = matches!(kind & 0x1f, 5 | 6 | 7 | 0xe | 0xf);
        if !is_gate || event.software && kind >> 5 & 3 < self.state.cpl() {
            return Err(Fault::coded(13, code));
        }
        if kind & 0x80 == 0 {
            return Err(Fault::coded(11, code));
        }
        if kind & 0x1f == 5 {
            self.unsupported = Some("interrupt through a task gate");
            return Err(Fault::UD);
        }
        let wide = kind & 8 != 0;
        let upper = if wide { raw >> 32 & 0xffff_0000 } else { 0 };
        Ok(Gate {
            selector: (raw >> 16) as u16,
            target: raw & 0xffff | upper,
            interrupt_gate: kind & 1 == 0,
            size: if wide { 4 } else { 2 },
        })
    }
}
