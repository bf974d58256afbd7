//! From bytes to [`Op`]s: iced decodes, and here every instruction finds its handler.

use iced_x86::{CpuidFeature, Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic};

use crate::{
    Bus, Cpu, Fault, integer, legacy,
    op::{Full, Handler, Mem, Op},
    sse, system, x87,
};

/// Instructions that only newer processors read differently: CPUID offers neither BMI1, LZCNT nor WBNOINVD.
pub(crate) const OPTIONS: u32 =
    DecoderOptions::NO_MPFX_0FBC | DecoderOptions::NO_MPFX_0FBD | DecoderOptions::NO_WBNOINVD;

/// Bytes of the longest instruction.
pub(crate) const LONGEST: usize = 15;

/// What the bytes at an address are.
pub(crate) enum Decoded<B: Bus> {
    /// An instruction.
    Op {
        op: Op<B>,
        /// As iced decoded it.
        instruction: Instruction,
        /// Nothing may follow it in its block.
        ends_block: bool,
    },
    /// The bytes end before the instruction does.
    Incomplete,
}

/// The size of code that a code segment's L and D bits select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodeSize {
    Bits16 = 0,
    Bits32 = 1,
    Bits64 = 2,
}

impl CodeSize {
    fn bits(self) -> u32 {
        16 << self as u32
    }
}

/// Which handlers instructions get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handlers {
    /// Specialised ones where there are some.
    Fastest,
    /// The general ones only: the reference that the specialised ones must agree with.
    General,
}

/// Decodes the first instruction of `bytes`.
///
/// The instruction pointer that iced is given is always 0: one decoding serves every linear address at which the page
/// is mapped, so that handlers may only use distances to `next_ip()`.
pub(crate) fn decode<B: Bus>(bytes: &[u8], size: CodeSize, handlers: Handlers) -> Decoded<B> {
    let bitness = size.bits();
    let mut decoder = Decoder::with_ip(bitness, bytes, 0, OPTIONS);
    let mut instruction = decoder.decode();
    if instruction.mnemonic() == Mnemonic::Pause && extends_register(bytes, &instruction) {
        instruction = Decoder::with_ip(bitness, bytes, 0, OPTIONS | DecoderOptions::NO_PAUSE).decode();
    }
    if instruction.is_invalid() {
        return match decoder.last_error() {
            DecoderError::NoMoreBytes if bytes.len() < LONGEST => Decoded::Incomplete,
            _ if is_too_long(bytes, bitness) => {
                Decoded::Op { op: refused(too_long, &instruction), instruction, ends_block: true }
            }
            _ => Decoded::Op { op: refused(undefined, &instruction), instruction, ends_block: true },
        };
    }
    let ends_block = instruction.flow_control() != FlowControl::Next || repeats(&instruction);
    let mut op = select(&instruction, size, handlers).unwrap_or_else(|| refused(undefined, &instruction));
    if is_x87(&instruction) {
        op.imm = x87_opcode(bytes).into();
    }
    Decoded::Op { op, instruction, ends_block }
}

/// Whether REX.B makes of the register in an opcode another one: then 0x90 is XCHG, whatever stands before it.
fn extends_register(bytes: &[u8], i: &Instruction) -> bool {
    i.code_size() == iced_x86::CodeSize::Code64
        && i.len() >= 2
        && matches!(bytes[i.len() - 2], rex if rex & 0xf1 == 0x41)
}

/// The opcode of an x87 instruction as the unit keeps it: 11 bits. SDM vol. 1, 8.1.9.
fn x87_opcode(bytes: &[u8]) -> u16 {
    let Some(at) = bytes.iter().position(|byte| (0xd8..0xe0).contains(byte)) else { return 0 };
    let second = bytes.get(at + 1).copied().unwrap_or(0);
    u16::from(bytes[at] & 7) << 8 | u16::from(second)
}

/// Whether an instruction that is not one goes on behind its 15th byte. Such a one has prefixes to spare: without one
/// of them, the remaining bytes must be too few.
fn is_too_long(bytes: &[u8], bitness: u32) -> bool {
    let Some(longest) = bytes.get(..LONGEST) else { return false };
    let mut shorter = longest.to_vec();
    shorter.remove(spare_prefix(longest, bitness));
    let mut decoder = Decoder::with_ip(bitness, &shorter, 0, OPTIONS);
    decoder.decode().is_invalid() && decoder.last_error() == DecoderError::NoMoreBytes
}

/// Place of a prefix without which the rest is the same instruction: a segment's, or one that another one overrides.
/// The first byte if there is none.
fn spare_prefix(bytes: &[u8], bitness: u32) -> usize {
    let is_rex = |byte: u8| bitness == 64 && byte & 0xf0 == 0x40;
    let is_segment = |byte: u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65);
    let is_repeat = |byte: u8| matches!(byte, 0xf2 | 0xf3);
    let is_prefix =
        |byte: u8| is_rex(byte) || is_segment(byte) || is_repeat(byte) || matches!(byte, 0x66 | 0x67 | 0xf0);
    let prefixes = bytes.split(|byte| !is_prefix(*byte)).next().unwrap_or(&[]);
    let is_spare = |at: usize| {
        let (byte, behind) = (prefixes[at], &prefixes[at + 1..]);
        is_segment(byte)
            || is_rex(byte) && !behind.is_empty()
            || behind.contains(&byte)
            || is_repeat(byte) && behind.iter().any(|other| is_repeat(*other))
    };
    (0..prefixes.len()).find(|at| is_spare(*at)).unwrap_or(0)
}

/// `None` for what is not offered.
fn select<B: Bus>(i: &Instruction, size: CodeSize, handlers: Handlers) -> Option<Op<B>> {
    if !offered(i) {
        return None;
    }
    if let Some(handler) = system::handler(i) {
        return Some(general(handler, i, size, handlers));
    }
    if handlers == Handlers::Fastest
        && (size == CodeSize::Bits64 || legacy::is_same_in_64_bit_mode(i))
        && let Some(op) = integer::specialise(i).or_else(|| sse::specialise(i))
    {
        return Some(op);
    }
    if let Some(handler) = integer::general(i) {
        return Some(general(handler, i, size, handlers));
    }
    if is_x87(i) {
        return Some(general(x87::execute, i, size, handlers));
    }
    sse::general(i).map(|handler| general(handler, i, size, handlers))
}

/// Whether there is a handler for `i`.
#[cfg(test)]
pub(crate) fn has_handler<B: Bus>(i: &Instruction, size: CodeSize) -> bool {
    select::<B>(i, size, Handlers::General).is_some()
}

fn general<B: Bus>(run: Handler<B>, i: &Instruction, size: CodeSize, handlers: Handlers) -> Op<B> {
    let checked = if size == CodeSize::Bits64 { None } else { legacy::checked(run, i) };
    let run = if checked.is_some() { legacy::execute } else { run };
    let flat = if size == CodeSize::Bits32 && handlers == Handlers::Fastest {
        integer::specialise_flat(i, run).map(Box::new)
    } else {
        None
    };
    Op {
        run: flat.as_ref().map_or(run, |flat| flat.run),
        imm: 0,
        mem: Mem::NONE,
        dst: 0,
        src: 0,
        len: i.len() as u8,
        jump: 0,
        full: Some(Box::new(Full { instruction: *i, checked, flat })),
    }
}

/// What raises its exception without a look at operands.
fn refused<B: Bus>(run: Handler<B>, i: &Instruction) -> Op<B> {
    general(run, i, CodeSize::Bits64, Handlers::General)
}

/// SDM vol. 3, 6.15, interrupt 13: the limit of 15 bytes.
fn too_long<B: Bus>(_: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    Err(Fault::GP0)
}

fn undefined<B: Bus>(_: &mut Cpu<B>, _: &mut B, _: &Op<B>) -> Result<(), Fault> {
    Err(Fault::UD)
}

fn repeats(i: &Instruction) -> bool {
    i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix())
}

/// Whether CPUID offers what `i` needs.
pub(crate) fn offered(i: &Instruction) -> bool {
    if is_hint(i.mnemonic()) {
        return true;
    }
    i.cpuid_features().iter().all(|feature| {
        use CpuidFeature as F;
        matches!(
            feature,
            F::INTEL8086
                | F::INTEL8086_ONLY
                | F::INTEL186
                | F::INTEL286
                | F::INTEL386
                | F::INTEL486
                | F::X64
                | F::FPU
                | F::FPU287
                | F::FPU387
                | F::CLFSH
                | F::CLFLUSHOPT
                | F::CLWB
                | F::CMOV
                | F::CMPXCHG16B
                | F::CPUID
                | F::CX8
                | F::FSGSBASE
                | F::FXSR
                | F::MMX
                | F::MSR
                | F::MULTIBYTENOP
                | F::PAUSE
                | F::POPCNT
                | F::PREFETCHW
                | F::RDRAND
                | F::RDTSCP
                | F::RDSEED
                | F::RDPMC
                | F::SEP
                | F::SMAP
                | F::SSE
                | F::SSE2
                | F::SSE3
                | F::SSSE3
                | F::SSE4_1
                | F::SSE4_2
                | F::SYSCALL
                | F::TSC
        )
    })
}

/// NOPs on every processor that does not give them a meaning.
pub(crate) fn is_hint(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Endbr32
            | M::Endbr64
            | M::Rdsspd
            | M::Rdsspq
            | M::Cldemote
            | M::Reservednop
            | M::Prefetch
            | M::Prefetchw
            | M::Prefetchwt1
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Prefetchnta
            | M::Prefetchit0
            | M::Prefetchit1
    )
}

fn is_x87(i: &Instruction) -> bool {
    i.mnemonic() == Mnemonic::Wait
        || i.cpuid_features().iter().any(|feature| {
            use CpuidFeature as F;
            matches!(feature, F::FPU | F::FPU287 | F::FPU387 | F::FXSR)
        })
}
