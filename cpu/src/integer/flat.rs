//! Specialised handlers of the forms that 32-bit code executes most, with 32-bit addresses in flat segments.
//!
//! A segment is flat as long as every access to it is allowed; the base may be anything. Which segments are loaded is
//! known only when the instruction executes: where they are not flat, the general handler takes over.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::{
    alu::{self, Binary, Unary},
    arithmetic::binary_of,
    data::condition_code,
    flags::{LazyFlags, sign_extend},
    operand::{load, number, register, set_register, store},
};
use crate::{
    Bus, Cpu, Fault,
    op::{Handler, Op},
    registers::{ACCESS_BIG, CS, RSP, SS},
    segments::{is_roomy, segment_index},
    state::{REG_RIP, REG_ZERO},
};

/// The operands of one instruction, in 32-bit code.
pub(crate) struct Flat<B: Bus> {
    /// The specialised handler.
    pub run: Handler<B>,
    /// What to do where segments are not flat.
    general: Handler<B>,
    base: u8,
    index: u8,
    scale: u8,
    /// Index into `State::segments`.
    segment: u8,
    /// Size of the operation in bits.
    bits: u8,
    /// Size of the source of an extending move in bits.
    source_bits: u8,
    /// The register operand, or the condition of a jump.
    register: u8,
    /// What is computed.
    binary: Binary,
    displacement: u32,
    /// Sign-extended immediate, or the distance of a jump.
    imm: u64,
}

/// The specialised form of `i`, an instruction of 32-bit code, if there is one. `general` executes it otherwise.
pub(crate) fn specialise<B: Bus>(i: &Instruction, general: Handler<B>) -> Option<Flat<B>> {
    use Mnemonic::*;
    let kind = |n: u32| if n < i.op_count() { i.op_kind(n) } else { OpKind::FarBranch16 };
    let is_low = |n| kind(n) == OpKind::Register && is_low_part(i.op_register(n));
    let is_memory = |n| kind(n) == OpKind::Memory && has_32_bit_address(i);
    let is_immediate = |n| n < i.op_count() && i.try_immediate(n).is_ok();
    let is_near = kind(0) == OpKind::NearBranch32;
    if i.has_lock_prefix() {
        return None;
    }
    let (run, register): (Handler<B>, Option<u32>) = match i.mnemonic() {
        Mov if is_low(0) && is_memory(1) => (mov_load, Some(0)),
        Mov if is_memory(0) && is_low(1) => (mov_store, Some(1)),
        Mov if is_memory(0) && is_immediate(1) => (mov_store_immediate, None),
        Movzx if is_low(0) && is_memory(1) => (movzx_load, Some(0)),
        Movsx if is_low(0) && is_memory(1) => (movsx_load, Some(0)),
        Add | Or | Adc | Sbb | And | Sub | Xor | Cmp if is_low(0) && is_memory(1) => (binary_load, Some(0)),
        Cmp | Test if is_memory(0) && is_low(1) => (compare, Some(1)),
        Cmp | Test if is_memory(0) && is_immediate(1) => (compare_immediate, None),
        Add | Or | Adc | Sbb | And | Sub | Xor if is_memory(0) && is_low(1) => (binary_store, Some(1)),
        Add | Or | Adc | Sbb | And | Sub | Xor if is_memory(0) && is_immediate(1) => {
            (binary_store_immediate, None)
        }
        Inc if is_memory(0) => (increment, None),
        Dec if is_memory(0) => (decrement, None),
        Lea if is_low(0) && is_memory(1) => (lea, Some(0)),
        Push if i.stack_pointer_increment() == -4 && is_low(0) => (push, Some(0)),
        Push if i.stack_pointer_increment() == -4 && is_immediate(0) => (push_immediate, None),
        Pop if i.stack_pointer_increment() == 4 && is_low(0) => (pop, Some(0)),
        Jmp if is_near => (jump, None),
        Call if is_near => (call, None),
        Ret if i.code() == iced_x86::Code::Retnd => (ret, None),
        _ if is_near && i.is_jcc_short_or_near() => (jump_if, None),
        _ => return None,
    };
    let none = REG_ZERO as u8;
    let part = |register: Register| if register == Register::None { none } else { number(register) };
    let memory = (0..i.op_count()).find(|n| kind(*n) == OpKind::Memory);
    let size = |n: u32| match kind(n) {
        OpKind::Register => i.op_register(n).size(),
        OpKind::Memory => i.memory_size().size(),
        _ => 4,
    };
    let imm = if is_near {
        i.near_branch_target().wrapping_sub(i.next_ip())
    } else {
        (0..i.op_count()).find_map(|n| i.try_immediate(n).ok()).unwrap_or(0)
    };
    Some(Flat {
        run,
        general,
        base: part(i.memory_base()),
        index: part(i.memory_index()),
        scale: i.memory_index_scale().trailing_zeros() as u8,
        segment: memory.map_or(SS, |_| segment_index(i.memory_segment())) as u8,
        bits: size(0) as u8 * 8,
        source_bits: size(1) as u8 * 8,
        register: match register {
            Some(n) => number(i.op_register(n)),
            None if is_near => condition_code(i),
            None => 0,
        },
        binary: if i.mnemonic() == Test { Binary::And } else { binary_of(i.mnemonic()) },
        displacement: i.memory_displacement32(),
        imm,
    })
}

/// AL to DIL and the like, but not AH to BH.
fn is_low_part(register: Register) -> bool {
    register.is_gpr() && !(Register::AH..=Register::BH).contains(&register)
}

fn has_32_bit_address(i: &Instruction) -> bool {
    match (i.memory_base(), i.memory_index()) {
        (Register::None, Register::None) => i.memory_displ_size() == 4,
        (Register::None, register) | (register, _) => register.is_gpr32(),
    }
}

impl<B: Bus> Flat<B> {
    /// Offset of the memory operand.
    #[inline(always)]
    fn offset(&self, cpu: &Cpu<B>) -> u64 {
        let regs = &cpu.state.regs;
        let scaled = regs[self.index as usize] << (self.scale & 3);
        regs[self.base as usize].wrapping_add(scaled).wrapping_add(self.displacement.into()) & 0xffff_ffff
    }

    /// Linear address of the memory operand, if its segment is flat.
    #[inline(always)]
    fn address(&self, cpu: &Cpu<B>) -> Option<u64> {
        let segment = &cpu.state.segments[self.segment as usize];
        is_roomy(segment).then(|| self.offset(cpu).wrapping_add(segment.base) & 0xffff_ffff)
    }

    fn bits(&self) -> u32 {
        self.bits.into()
    }

    fn value(&self, cpu: &Cpu<B>) -> u64 {
        register(cpu, self.bits(), self.register)
    }

    fn set(&self, cpu: &mut Cpu<B>, value: u64) {
        set_register(cpu, self.bits(), self.register, value);
    }

    /// Where a near branch goes, if the code segment reaches there.
    #[inline(always)]
    fn target(&self, cpu: &Cpu<B>) -> Result<u64, Fault> {
        reachable(cpu, cpu.state.regs[REG_RIP].wrapping_add(self.imm) & 0xffff_ffff)
    }
}

#[inline(always)]
fn reachable<B: Bus>(cpu: &Cpu<B>, target: u64) -> Result<u64, Fault> {
    if target <= u64::from(cpu.state.segments[CS].limit) { Ok(target) } else { Err(Fault::GP0) }
}

/// ESP and its linear address less `below`, if the stack is flat and 32 bits wide.
#[inline(always)]
fn stack<B: Bus>(cpu: &Cpu<B>, below: u64) -> Option<(u64, u64)> {
    let segment = &cpu.state.segments[SS];
    let pointer = cpu.state.regs[RSP].wrapping_sub(below) & 0xffff_ffff;
    let is_flat = is_roomy(segment) && segment.access & ACCESS_BIG != 0;
    is_flat.then(|| (pointer, pointer.wrapping_add(segment.base) & 0xffff_ffff))
}

/// A handler: `$flat` is the form, `$address` where its operand is.
macro_rules! on_memory {
    ($name:ident, |$cpu:ident, $bus:ident, $flat:ident, $address:ident| $body:expr) => {
        fn $name<B: Bus>($cpu: &mut Cpu<B>, $bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
            let Some($flat) = flat(op) else { return Err(Fault::UD) };
            let Some($address) = $flat.address($cpu) else { return ($flat.general)($cpu, $bus, op) };
            $body
        }
    };
}

/// A handler: `$pointer` is ESP less `$below`, `$address` where that is.
macro_rules! on_stack {
    ($name:ident, $below:expr, |$cpu:ident, $bus:ident, $flat:ident, $pointer:ident, $address:ident| $body:expr) => {
        fn $name<B: Bus>($cpu: &mut Cpu<B>, $bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
            let Some($flat) = flat(op) else { return Err(Fault::UD) };
            let Some(($pointer, $address)) = stack($cpu, $below) else {
                return ($flat.general)($cpu, $bus, op);
            };
            $body
        }
    };
}

on_memory!(mov_load, |cpu, bus, flat, address| {
    let value = load(cpu, bus, flat.bits(), address)?;
    flat.set(cpu, value);
    Ok(())
});

on_memory!(movzx_load, |cpu, bus, flat, address| {
    let value = load(cpu, bus, flat.source_bits.into(), address)?;
    flat.set(cpu, value);
    Ok(())
});

on_memory!(movsx_load, |cpu, bus, flat, address| {
    let value = load(cpu, bus, flat.source_bits.into(), address)?;
    flat.set(cpu, sign_extend(flat.source_bits.into(), value));
    Ok(())
});

on_memory!(mov_store, |cpu, bus, flat, address| store(cpu, bus, flat.bits(), address, flat.value(cpu)));

on_memory!(mov_store_immediate, |cpu, bus, flat, address| store(cpu, bus, flat.bits(), address, flat.imm));

on_memory!(binary_load, |cpu, bus, flat, address| {
    let b = load(cpu, bus, flat.bits(), address)?;
    let a = flat.value(cpu);
    let result = alu::binary(flat.binary, &mut cpu.flags, flat.bits(), a, b);
    if flat.binary != Binary::Cmp {
        flat.set(cpu, result);
    }
    Ok(())
});

on_memory!(compare, |cpu, bus, flat, address| {
    let a = load(cpu, bus, flat.bits(), address)?;
    let b = flat.value(cpu);
    alu::binary(flat.binary, &mut cpu.flags, flat.bits(), a, b);
    Ok(())
});

on_memory!(compare_immediate, |cpu, bus, flat, address| {
    let a = load(cpu, bus, flat.bits(), address)?;
    alu::binary(flat.binary, &mut cpu.flags, flat.bits(), a, flat.imm);
    Ok(())
});

on_memory!(binary_store, |cpu, bus, flat, address| {
    let b = flat.value(cpu);
    modify(cpu, bus, flat.bits(), address, |flags, a| alu::binary(flat.binary, flags, flat.bits(), a, b))
});

on_memory!(binary_store_immediate, |cpu, bus, flat, address| {
    modify(cpu, bus, flat.bits(), address, |flags, a| {
        alu::binary(flat.binary, flags, flat.bits(), a, flat.imm)
    })
});

on_memory!(increment, |cpu, bus, flat, address| {
    modify(cpu, bus, flat.bits(), address, |flags, a| alu::unary(Unary::Inc, flags, flat.bits(), a))
});

on_memory!(decrement, |cpu, bus, flat, address| {
    modify(cpu, bus, flat.bits(), address, |flags, a| alu::unary(Unary::Dec, flags, flat.bits(), a))
});

/// Reads, then writes what `change` makes of it; `change` runs only when nothing can fault any more.
fn modify<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    bits: u32,
    address: u64,
    change: impl FnOnce(&mut LazyFlags, u64) -> u64,
) -> Result<(), Fault> {
    cpu.check_writable(bus, address, bits as usize / 8)?;
    let old = load(cpu, bus, bits, address)?;
    let new = change(&mut cpu.flags, old);
    store(cpu, bus, bits, address, new)
}

fn lea<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let Some(flat) = flat(op) else { return Err(Fault::UD) };
    let offset = flat.offset(cpu);
    flat.set(cpu, offset);
    Ok(())
}

on_stack!(push, 4, |cpu, bus, flat, pointer, address| {
    let value = register(cpu, 32, flat.register);
    store(cpu, bus, 32, address, value)?;
    cpu.state.regs[RSP] = pointer;
    Ok(())
});

on_stack!(push_immediate, 4, |cpu, bus, flat, pointer, address| {
    store(cpu, bus, 32, address, flat.imm)?;
    cpu.state.regs[RSP] = pointer;
    Ok(())
});

on_stack!(pop, 0, |cpu, bus, flat, pointer, address| {
    let value = load(cpu, bus, 32, address)?;
    set_register(cpu, 32, RSP as u8, pointer.wrapping_add(4));
    set_register(cpu, 32, flat.register, value);
    Ok(())
});

on_stack!(call, 4, |cpu, bus, flat, pointer, address| {
    let target = flat.target(cpu)?;
    let back = cpu.state.regs[REG_RIP];
    store(cpu, bus, 32, address, back)?;
    cpu.state.regs[RSP] = pointer;
    cpu.state.regs[REG_RIP] = target;
    Ok(())
});

on_stack!(ret, 0, |cpu, bus, _flat, pointer, address| {
    let target = load(cpu, bus, 32, address)?;
    cpu.state.regs[REG_RIP] = reachable(cpu, target)?;
    set_register(cpu, 32, RSP as u8, pointer.wrapping_add(4));
    Ok(())
});

fn jump<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let Some(flat) = flat(op) else { return Err(Fault::UD) };
    cpu.state.regs[REG_RIP] = flat.target(cpu)?;
    Ok(())
}

fn jump_if<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let Some(flat) = flat(op) else { return Err(Fault::UD) };
    if cpu.flags.condition(flat.register) {
        cpu.state.regs[REG_RIP] = flat.target(cpu)?;
    }
    Ok(())
}

#[inline(always)]
fn flat<B: Bus>(op: &Op<B>) -> Option<&Flat<B>> {
    op.full.as_deref()?.flat.as_deref()
}
