//! The stack: how wide its pointer is, where its values lie, and what may be pushed. SDM vol. 1, section 6.2.

use crate::{Bus, Cpu, Fault, Segment, registers::*, segments::fits, tlb::Privilege};

/// A stack that something is pushed on before it becomes the current one.
pub(crate) struct Stack {
    pub segment: Segment,
    /// Bits of the pointer: 16, 32, or 64 without base and limit.
    pub bits: u32,
    pub pointer: u64,
    /// Whose memory it is.
    pub privilege: Privilege,
    /// What a push outside of its segment raises.
    pub outside: Fault,
}

impl Stack {
    /// The pointer after pushing `n` values of `size` bytes and one more.
    fn below(&self, n: usize, size: u64) -> u64 {
        self.pointer.wrapping_sub(size * (n as u64 + 1)) & low_bits(self.bits)
    }

    /// Refuses to push `count` values of `size` bytes where they leave the segment.
    pub(crate) fn check_room(&self, count: usize, size: u64) -> Result<(), Fault> {
        let fits = (0..count).all(|n| self.bits == 64 || fits(&self.segment, self.below(n, size), size));
        if fits { Ok(()) } else { Err(self.outside) }
    }
}

impl<B: Bus> Cpu<B> {
    /// Bits of RSP that address the stack: the segment's B bit decides outside of 64-bit mode.
    #[inline(always)]
    pub(crate) fn stack_bits(&self) -> u32 {
        if self.fetches_64_bit { 64 } else { legacy_stack_bits(&self.state.segments[SS]) }
    }

    /// The stack pointer, as wide as it is.
    pub(crate) fn stack_pointer(&self) -> u64 {
        self.state.regs[RSP] & low_bits(self.stack_bits())
    }

    /// Sets as much of RSP as the stack is wide; 32 bits clear the upper half.
    pub(crate) fn set_stack_pointer(&mut self, pointer: u64) {
        let kept = if self.stack_bits() == 16 { self.state.regs[RSP] & !0xffff } else { 0 };
        self.state.regs[RSP] = kept | pointer & low_bits(self.stack_bits());
    }

    /// Linear address of `len` bytes at stack pointer `pointer`, checked outside of 64-bit mode.
    #[inline(always)]
    pub(crate) fn stack_linear(&self, pointer: u64, len: u64, writes: bool) -> Result<u64, Fault> {
        if self.fetches_64_bit { Ok(pointer) } else { self.segment_linear(SS, pointer, len, writes) }
    }

    /// The value of `size` bytes (2, 4 or 8) that lies `offset` bytes above the top of the stack.
    pub(crate) fn stack_value(&mut self, bus: &mut B, offset: u64, size: u64) -> Result<u64, Fault> {
        let pointer = self.stack_pointer().wrapping_add(offset) & low_bits(self.stack_bits());
        let at = self.stack_linear(pointer, size, false)?;
        Ok(match size {
            2 => u64::from(u16::from_le_bytes(self.read(bus, at)?)),
            4 => u64::from(u32::from_le_bytes(self.read(bus, at)?)),
            _ => u64::from_le_bytes(self.read(bus, at)?),
        })
    }

    /// Pushes one value of `size` bytes (2, 4 or 8).
    pub(crate) fn push_value(&mut self, bus: &mut B, value: u64, size: u64) -> Result<(), Fault> {
        let pointer = self.stack_pointer().wrapping_sub(size) & low_bits(self.stack_bits());
        let at = self.stack_linear(pointer, size, true)?;
        self.write_sized(bus, at, value, size)?;
        self.set_stack_pointer(pointer);
        Ok(())
    }

    /// Adds to the stack pointer.
    pub(crate) fn move_stack(&mut self, by: u64) {
        self.set_stack_pointer(self.stack_pointer().wrapping_add(by));
    }

    /// The stack in use now.
    pub(crate) fn current_stack(&self) -> Stack {
        Stack {
            segment: self.state.segments[SS],
            bits: self.stack_bits(),
            pointer: self.stack_pointer(),
            privilege: self.privilege,
            outside: Fault::SS0,
        }
    }

    /// Pushes values of `size` bytes, the first one first, on a stack: all or none. Returns the pointer behind them,
    /// which the caller makes the stack pointer.
    pub(crate) fn push_all(
        &mut self,
        bus: &mut B,
        stack: &Stack,
        values: &[u64],
        size: u64,
    ) -> Result<u64, Fault> {
        let before = std::mem::replace(&mut self.privilege, stack.privilege);
        let pushed = self.push_checked(bus, stack, values, size);
        self.privilege = before;
        pushed
    }

    fn push_checked(&mut self, bus: &mut B, stack: &Stack, values: &[u64], size: u64) -> Result<u64, Fault> {
        let linear = |n| match stack.bits {
            64 => stack.below(n, size),
            _ => stack.below(n, size).wrapping_add(stack.segment.base) & 0xffff_ffff,
        };
        for n in 0..values.len() {
            if stack.bits != 64 && !fits(&stack.segment, stack.below(n, size), size) {
                return Err(stack.outside);
            }
            self.check_writable(bus, linear(n), size as usize).map_err(|fault| match fault {
                Fault::GP0 => stack.outside,
                fault => fault,
            })?;
        }
        for (n, value) in values.iter().enumerate() {
            self.write_sized(bus, linear(n), *value, size)?;
        }
        Ok(if values.is_empty() { stack.pointer } else { stack.below(values.len() - 1, size) })
    }

    fn write_sized(&mut self, bus: &mut B, at: u64, value: u64, size: u64) -> Result<(), Fault> {
        let bytes = value.to_le_bytes();
        match size {
            2 => self.write(bus, at, [bytes[0], bytes[1]]),
            4 => self.write(bus, at, [bytes[0], bytes[1], bytes[2], bytes[3]]),
            _ => self.write(bus, at, bytes),
        }
    }
}

/// Bits of the stack pointer in a stack segment outside of 64-bit mode.
pub(crate) fn legacy_stack_bits(segment: &Segment) -> u32 {
    if segment.access & ACCESS_BIG != 0 { 32 } else { 16 }
}

/// A mask of 16, 32 or 64 bits.
fn low_bits(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}
