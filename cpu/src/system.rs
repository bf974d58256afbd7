//! Which handler executes which system instruction, and those that fit nowhere else: flags, HLT, time, randomness.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use crate::{
    Bus, Cpu, Fault, control, cpuid, debug, far, fast_calls, flush,
    integer::LazyFlags,
    io, msr, nmi,
    op::{Handler, Op},
    registers::*,
    tables,
};

/// The handler of a system instruction; `None` for all others.
pub(crate) fn handler<B: Bus>(i: &Instruction) -> Option<Handler<B>> {
    if let Some(handler) = register_move(i) {
        return Some(handler);
    }
    if crate::decode::is_hint(i.mnemonic()) {
        return Some(nothing);
    }
    Some(match i.mnemonic() {
        Mnemonic::Nop | Mnemonic::Lfence => nothing,
        Mnemonic::Pause => pause,
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => undefined,
        Mnemonic::Monitor | Mnemonic::Mwait | Mnemonic::Xgetbv | Mnemonic::Xsetbv => undefined,
        Mnemonic::Rsm => undefined,
        Mnemonic::Hlt => halt,
        Mnemonic::Cli => clear_interrupts,
        Mnemonic::Sti => set_interrupts,
        Mnemonic::Clac => clear_ac,
        Mnemonic::Stac => set_ac,
        Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => push_flags,
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => pop_flags,
        Mnemonic::Rdtsc | Mnemonic::Rdtscp => read_time,
        Mnemonic::Rdpmc => read_counter,
        Mnemonic::Rdrand | Mnemonic::Rdseed => random,
        Mnemonic::Cpuid => cpuid::execute,
        Mnemonic::Rdmsr => msr::rdmsr,
        Mnemonic::Wrmsr => msr::wrmsr,
        Mnemonic::Rdfsbase | Mnemonic::Rdgsbase => msr::read_base,
        Mnemonic::Wrfsbase | Mnemonic::Wrgsbase => msr::write_base,
        Mnemonic::Swapgs => msr::swapgs,
        Mnemonic::Invlpg => control::invlpg,
        Mnemonic::Clts => control::clts,
        Mnemonic::Lmsw => control::lmsw,
        Mnemonic::Smsw => control::smsw,
        Mnemonic::Lgdt | Mnemonic::Lidt => tables::load_table,
        Mnemonic::Sgdt | Mnemonic::Sidt => tables::store_table,
        Mnemonic::Lldt | Mnemonic::Ltr => tables::load_system_segment,
        Mnemonic::Sldt | Mnemonic::Str => tables::store_system_segment,
        Mnemonic::Lar | Mnemonic::Lsl => tables::load_rights,
        Mnemonic::Verr | Mnemonic::Verw => tables::verify,
        Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss => {
            tables::load_far_pointer
        }
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => flush::flush_line,
        Mnemonic::Sfence | Mnemonic::Mfence => flush::fence,
        Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => flush::write_back_all,
        Mnemonic::Invd => flush::invalidate_all,
        Mnemonic::In => io::input,
        Mnemonic::Out => io::output,
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd if is_port_string(i) => io::input_string,
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd if is_port_string(i) => io::output_string,
        Mnemonic::Int | Mnemonic::Int3 | Mnemonic::Into => far::interrupt,
        Mnemonic::Int1 => far::debug_interrupt,
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => nmi::interrupt_return,
        Mnemonic::Retf => far::far_return,
        Mnemonic::Syscall => fast_calls::syscall,
        Mnemonic::Sysret | Mnemonic::Sysretq => fast_calls::sysret,
        Mnemonic::Sysenter => fast_calls::sysenter,
        Mnemonic::Sysexit | Mnemonic::Sysexitq => fast_calls::sysexit,
        Mnemonic::Jmp if is_far(i) => far::far_jump,
        Mnemonic::Call if is_far(i) => far::far_call,
        _ => return None,
    })
}

/// MOV, PUSH and POP of segment, control and debug registers.
fn register_move<B: Bus>(i: &Instruction) -> Option<Handler<B>> {
    if !matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Push | Mnemonic::Pop) || i.op_count() == 0 {
        return None;
    }
    let register = |n: u32| if i.op_kind(n) == OpKind::Register { i.op_register(n) } else { Register::None };
    let (first, second) = (register(0), if i.op_count() > 1 { register(1) } else { Register::None });
    Some(match i.mnemonic() {
        Mnemonic::Push if first.is_segment_register() => tables::push_segment,
        Mnemonic::Pop if first.is_segment_register() => tables::pop_segment,
        _ if first.is_segment_register() => tables::load_segment_register,
        _ if second.is_segment_register() => tables::store_segment_register,
        _ if first.is_cr() => control::write_control,
        _ if second.is_cr() => control::read_control,
        _ if first.is_dr() => debug::write_register,
        _ if second.is_dr() => debug::read_register,
        _ if first.is_tr() || second.is_tr() => undefined,
        _ => return None,
    })
}

/// Refuses what mode or privilege forbid whatever the operand is, as the handlers do before they look at it.
pub(crate) fn check_allowed<B: Bus>(cpu: &Cpu<B>, i: &Instruction) -> Result<(), Fault> {
    use Mnemonic as M;
    let mnemonic = i.mnemonic();
    let needs_descriptors = matches!(
        mnemonic,
        M::Lldt | M::Ltr | M::Sldt | M::Str | M::Lar | M::Lsl | M::Verr | M::Verw | M::Arpl
    );
    if needs_descriptors && !cpu.protected() {
        return Err(Fault::UD);
    }
    match mnemonic {
        M::Lgdt | M::Lidt | M::Lldt | M::Ltr | M::Lmsw => cpu.require_cpl0(),
        _ => Ok(()),
    }
}

fn is_far(i: &Instruction) -> bool {
    use Code as C;
    matches!(
        i.code(),
        C::Jmp_ptr1616
            | C::Jmp_ptr1632
            | C::Jmp_m1616
            | C::Jmp_m1632
            | C::Jmp_m1664
            | C::Call_ptr1616
            | C::Call_ptr1632
            | C::Call_m1616
            | C::Call_m1632
            | C::Call_m1664
    )
}

fn is_port_string(i: &Instruction) -> bool {
    i.is_string_instruction()
}

fn nothing<B: Bus>(_: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    Ok(())
}

/// A processor that spins lets others go on. Alone it has nobody to wait for.
fn pause<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    if !cpu.parked.is_empty() {
        cpu.paused = true;
        cpu.boundary = true;
    }
    Ok(())
}

fn undefined<B: Bus>(_: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    Err(Fault::UD)
}

/// The instruction of a handler that is only installed together with it.
pub(crate) fn full<B: Bus>(op: &Op<B>) -> Result<&Instruction, Fault> {
    op.full.as_deref().map(|full| &full.instruction).ok_or(Fault::UD)
}

impl<B: Bus> Cpu<B> {
    /// RFLAGS with the arithmetic flags folded in.
    pub(crate) fn rflags(&self) -> u64 {
        self.flags.fold(self.state.rflags)
    }

    /// Replaces the bits of RFLAGS in `mask`.
    pub(crate) fn set_rflags(&mut self, value: u64, mask: u64) {
        let before = self.rflags();
        let after = before & !mask | value & mask | RFLAGS_RESERVED_ONE;
        self.state.rflags = after;
        self.flags = LazyFlags::load(after);
        self.privilege_changed();
        if after & RFLAGS_RF != 0 {
            self.boundary = true;
        }
        if after & (RFLAGS_IF | RFLAGS_TF) & !before != 0 {
            self.boundary = true;
            self.interrupt_check = true;
        }
    }

    /// The bits of RFLAGS that POPF and IRET may change at this privilege.
    pub(crate) fn changeable_flags(&self) -> u64 {
        let always = RFLAGS_ARITHMETIC | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_AC | RFLAGS_ID;
        let cpl = u64::from(self.state.cpl());
        let interrupts = if cpl <= self.iopl() { RFLAGS_IF } else { 0 };
        always | interrupts | if cpl == 0 { RFLAGS_IOPL } else { 0 }
    }

    /// I/O privilege level.
    pub(crate) fn iopl(&self) -> u64 {
        (self.state.rflags & RFLAGS_IOPL) >> 12
    }

    /// #GP(0) unless at CPL 0.
    pub(crate) fn require_cpl0(&self) -> Result<(), Fault> {
        if self.state.cpl() == 0 { Ok(()) } else { Err(Fault::GP0) }
    }

    /// The next number of the RDRAND generator (splitmix64, Steele, Lea and Flood, OOPSLA 2014).
    fn next_random(&mut self) -> u64 {
        self.state.random = self.state.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Writes a general register named by iced, zero-extending 32-bit ones.
    pub(crate) fn set_gpr(&mut self, register: Register, value: u64) {
        let kept = &mut self.state.regs[register.number()];
        *kept = match register.size() {
            2 => *kept & !0xffff | value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }
}

fn halt<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    cpu.require_cpl0()?;
    cpu.state.halted = true;
    cpu.boundary = true;
    Ok(())
}

fn clear_interrupts<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    if u64::from(cpu.state.cpl()) > cpu.iopl() {
        return Err(Fault::GP0);
    }
    cpu.state.rflags &= !RFLAGS_IF;
    Ok(())
}

fn set_interrupts<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    if u64::from(cpu.state.cpl()) > cpu.iopl() {
        return Err(Fault::GP0);
    }
    if cpu.state.rflags & RFLAGS_IF == 0 {
        cpu.state.rflags |= RFLAGS_IF;
        cpu.state.interrupt_shadow = true;
        cpu.boundary = true;
        cpu.interrupt_check = true;
    }
    Ok(())
}

fn clear_ac<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    if cpu.state.cpl() != 0 {
        return Err(Fault::UD);
    }
    cpu.state.rflags &= !RFLAGS_AC;
    cpu.privilege_changed();
    Ok(())
}

fn set_ac<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    if cpu.state.cpl() != 0 {
        return Err(Fault::UD);
    }
    cpu.state.rflags |= RFLAGS_AC;
    cpu.privilege_changed();
    Ok(())
}

fn flags_size<B: Bus>(op: &Op<B>) -> Result<u64, Fault> {
    Ok(match full(op)?.mnemonic() {
        Mnemonic::Pushf | Mnemonic::Popf => 2,
        Mnemonic::Pushfd | Mnemonic::Popfd => 4,
        _ => 8,
    })
}

fn push_flags<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let size = flags_size(op)?;
    let flags = cpu.rflags() & !(RFLAGS_RF | RFLAGS_VM);
    cpu.push_value(bus, flags, size)
}

fn pop_flags<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let size = flags_size(op)?;
    let value = cpu.stack_value(bus, 0, size)?;
    cpu.move_stack(size);
    let mut mask = cpu.changeable_flags();
    if size == 2 {
        mask &= 0xffff;
    }
    cpu.set_rflags(value, mask);
    Ok(())
}

fn read_time<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    if cpu.state.cr4 & CR4_TSD != 0 && cpu.state.cpl() != 0 {
        return Err(Fault::GP0);
    }
    let tsc = cpu.state.tsc();
    cpu.state.regs[0] = tsc & 0xffff_ffff;
    cpu.state.regs[2] = tsc >> 32;
    if full(op)?.mnemonic() == Mnemonic::Rdtscp {
        cpu.state.regs[1] = cpu.state.tsc_aux & 0xffff_ffff;
    }
    Ok(())
}

/// CPUID leaf 0xA says that there are no counters.
fn read_counter<B: Bus>(_: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    Err(Fault::GP0)
}

fn random<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let register = full(op)?.op0_register();
    let value = cpu.next_random();
    cpu.set_gpr(register, value);
    let flags = cpu.rflags() & !RFLAGS_ARITHMETIC | 1;
    cpu.set_rflags(flags, RFLAGS_ARITHMETIC);
    Ok(())
}
