//! Handlers for scalar floating point, with the operation and the operands resolved at decoding.

use iced_x86::Code;

use super::{
    compare::{flags, scalar},
    float::{self, Double, Single, from_integer, to_integer, with_low},
    hot::{address, x},
    in_mxcsr,
    mxcsr::{Mxcsr, Rounding},
    operands::check_usable,
};
use crate::{
    Bus, Cpu, Fault,
    integer::LazyFlags,
    op::{Handler, Op},
};

/// An operation with an XMM destination, as a type, so that each gets handlers of its own.
trait Scalar {
    /// Bytes of a memory operand: 4 or 8.
    const SIZE: usize;
    fn apply(mxcsr: &mut Mxcsr, a: u128, b: u128) -> u128;
}

macro_rules! operations {
    ($($code:ident => $name:ident: $size:literal, $apply:expr,)*) => {
        $(
            struct $name;
            impl Scalar for $name {
                const SIZE: usize = $size;
                #[inline(always)]
                fn apply(mxcsr: &mut Mxcsr, a: u128, b: u128) -> u128 {
                    let apply: fn(&mut Mxcsr, u128, u128) -> u128 = $apply;
                    apply(mxcsr, a, b)
                }
            }
        )*

        /// The handlers of `code` with a register and with a memory source.
        pub(super) fn handlers<B: Bus>(code: Code) -> Option<[Handler<B>; 2]> {
            match code {
                $(Code::$code => Some([with_register::<B, $name>, with_memory::<B, $name>]),)*
                Code::Comisd_xmm_xmmm64 => Some([compare_register::<B, true>, compare_memory::<B, true>]),
                Code::Ucomisd_xmm_xmmm64 => Some([compare_register::<B, false>, compare_memory::<B, false>]),
                _ => None,
            }
        }
    };
}

operations! {
    Addsd_xmm_xmmm64 => AddDouble: 8, |mxcsr, a, b| scalar::<Double>(mxcsr, a, b, float::add::<Double>),
    Subsd_xmm_xmmm64 => SubtractDouble: 8, |mxcsr, a, b| scalar::<Double>(mxcsr, a, b, float::subtract::<Double>),
    Mulsd_xmm_xmmm64 => MultiplyDouble: 8, |mxcsr, a, b| scalar::<Double>(mxcsr, a, b, float::multiply::<Double>),
    Divsd_xmm_xmmm64 => DivideDouble: 8, |mxcsr, a, b| scalar::<Double>(mxcsr, a, b, float::divide::<Double>),
    Addss_xmm_xmmm32 => AddSingle: 4, |mxcsr, a, b| scalar::<Single>(mxcsr, a, b, float::add::<Single>),
    Subss_xmm_xmmm32 => SubtractSingle: 4, |mxcsr, a, b| scalar::<Single>(mxcsr, a, b, float::subtract::<Single>),
    Mulss_xmm_xmmm32 => MultiplySingle: 4, |mxcsr, a, b| scalar::<Single>(mxcsr, a, b, float::multiply::<Single>),
    Divss_xmm_xmmm32 => DivideSingle: 4, |mxcsr, a, b| scalar::<Single>(mxcsr, a, b, float::divide::<Single>),
}

fn with_register<B: Bus, T: Scalar>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    check_usable(cpu)?;
    let (a, b) = (cpu.state.xmm[x(op.dst)], cpu.state.xmm[x(op.src)]);
    cpu.state.xmm[x(op.dst)] = in_mxcsr(cpu, |mxcsr| T::apply(mxcsr, a, b))?;
    Ok(())
}

fn with_memory<B: Bus, T: Scalar>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    check_usable(cpu)?;
    let address = address(cpu, &op.mem);
    let b = match T::SIZE {
        4 => u32::from_le_bytes(cpu.read(bus, address)?) as u128,
        _ => u64::from_le_bytes(cpu.read(bus, address)?) as u128,
    };
    let a = cpu.state.xmm[x(op.dst)];
    cpu.state.xmm[x(op.dst)] = in_mxcsr(cpu, |mxcsr| T::apply(mxcsr, a, b))?;
    Ok(())
}

fn compare_register<B: Bus, const QUIET_TOO: bool>(
    cpu: &mut Cpu<B>,
    _: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    check_usable(cpu)?;
    compare(cpu, cpu.state.xmm[x(op.dst)], cpu.state.xmm[x(op.src)], QUIET_TOO)
}

fn compare_memory<B: Bus, const QUIET_TOO: bool>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
) -> Result<(), Fault> {
    check_usable(cpu)?;
    let b = u64::from_le_bytes(cpu.read(bus, address(cpu, &op.mem))?) as u128;
    compare(cpu, cpu.state.xmm[x(op.dst)], b, QUIET_TOO)
}

#[inline(always)]
fn compare<B: Bus>(cpu: &mut Cpu<B>, a: u128, b: u128, quiet_too: bool) -> Result<(), Fault> {
    let flags = in_mxcsr(cpu, |mxcsr| flags::<Double>(mxcsr, a, b, quiet_too))?;
    cpu.flags = LazyFlags::load(flags);
    Ok(())
}

/// Conversions between general registers and double precision.
pub(super) fn conversion<B: Bus>(code: Code) -> Option<Handler<B>> {
    let run: Handler<B> = match code {
        Code::Cvtsi2sd_xmm_rm32 => |cpu, _, op| to_double(cpu, op, cpu.state.regs[x(op.src)] as i32 as i64),
        Code::Cvtsi2sd_xmm_rm64 => |cpu, _, op| to_double(cpu, op, cpu.state.regs[x(op.src)] as i64),
        Code::Cvttsd2si_r32_xmmm64 => |cpu, _, op| truncate(cpu, op, 32),
        Code::Cvttsd2si_r64_xmmm64 => |cpu, _, op| truncate(cpu, op, 64),
        _ => return None,
    };
    Some(run)
}

#[inline(always)]
fn to_double<B: Bus>(cpu: &mut Cpu<B>, op: &Op<B>, value: i64) -> Result<(), Fault> {
    check_usable(cpu)?;
    let double = in_mxcsr(cpu, |mxcsr| from_integer::<Double>(mxcsr, value))?;
    cpu.state.xmm[x(op.dst)] = with_low::<Double>(cpu.state.xmm[x(op.dst)], double);
    Ok(())
}

#[inline(always)]
fn truncate<B: Bus>(cpu: &mut Cpu<B>, op: &Op<B>, bits: u32) -> Result<(), Fault> {
    check_usable(cpu)?;
    let double = cpu.state.xmm[x(op.src)] as u64;
    cpu.state.regs[x(op.dst)] =
        in_mxcsr(cpu, |mxcsr| to_integer::<Double>(mxcsr, double, bits, Rounding::TowardZero))?;
    Ok(())
}
