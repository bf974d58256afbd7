//! What is not run or not compared, and why. The one place for such exceptions.

use iced_x86::{
    Code, CodeSize, Decoder, DecoderOptions, Instruction, MemorySize, Mnemonic, OpKind, Register, RflagsBits,
};

use super::{
    case::{Case, LAYOUT, Outcome},
    cases::{LONGEST, Made},
    descriptors,
    features::{Offered, is_of_others},
    forms::is_far_return,
    x87,
};

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
/// All flags that exist but RF, which debuggers and kernels use for their own purposes.
const COMPARED: u64 = 0x3e_7fd5;

/// Number of the last page below the addresses that are not canonical.
const LAST_USER_PAGE: u64 = 0x7_ffff_ffff;

/// What to do with a case.
pub enum Verdict {
    /// Both sides must agree.
    Compare,
    /// CPUID does not offer it: ours must raise #UD, whatever the host has.
    Undefined,
    /// Not run, for this reason.
    Skip(&'static str),
}

/// Why this form is never run on the host.
pub fn form(code: Code) -> Option<&'static str> {
    use Mnemonic::*;
    match code.mnemonic() {
        Syscall | Sysenter => Some("enters the host's kernel"),
        Sgdt | Sidt | Sldt | Smsw | Str => Some("Linux simulates it under UMIP"),
        _ => None,
    }
}

/// What to do with a case of code of `bits`.
pub fn verdict(made: &Made, bits: u32, ours: &Offered, hosts: &Offered) -> Verdict {
    let (case, i) = (&made.case, &made.instruction);
    if enters_kernel(&case.code, bits) {
        return Verdict::Skip("enters the host's kernel");
    }
    if bits == 64 && is_short_transfer(&case.code) {
        return Verdict::Skip("a near branch with an operand size prefix is 16 bits on AMD, 64 on Intel");
    }
    let newest = Decoder::with_ip(bits, &case.code, i.ip(), DecoderOptions::NONE).decode();
    if !newest.is_invalid() && !ours.has(newest.code()) {
        return match reads_as_older(newest.mnemonic()) {
            Older::SameOnHost => Verdict::Compare,
            Older::NewOnHost => Verdict::Skip("a newer processor reads it differently"),
            Older::No => Verdict::Undefined,
        };
    }
    let (prefixes, opcode) = split(&case.code, bits);
    if i.is_invalid() && is_simulated(opcode) {
        return Verdict::Skip("Linux simulates it under UMIP");
    }
    if i.is_invalid() && prefixes.contains(&0xf0) && opcode.starts_with(&[0x0f, 0x00]) {
        return Verdict::Skip("AMD lets LOCK stand before VERR and VERW");
    }
    if i.is_invalid() {
        return Verdict::Compare;
    }
    if !hosts.has(i.code()) {
        return Verdict::Skip("the host does not have it");
    }
    match form(i.code()).or_else(|| instance(i, case)).or_else(|| legacy_instance(i, case, bits)) {
        Some(why) => Verdict::Skip(why),
        None => Verdict::Compare,
    }
}

/// Whether the bytes, whatever their prefixes, are SYSCALL, SYSENTER or INT 0x80.
fn enters_kernel(code: &[u8], bits: u32) -> bool {
    matches!(split(code, bits).1, [0x0f, 0x05 | 0x34, ..] | [0xcd, 0x80, ..])
}

/// Whether Linux, after any #GP, takes the bytes for SLDT, STR, SGDT, SIDT or SMSW, whatever stands before them.
fn is_simulated(opcode: &[u8]) -> bool {
    match opcode {
        [0x0f, 0x00, modrm, ..] => modrm >> 3 & 7 < 2,
        [0x0f, 0x01, modrm, ..] => matches!(modrm >> 3 & 7, 0 | 1 | 4),
        _ => false,
    }
}

/// Prefixes, and what follows them.
fn split(code: &[u8], bits: u32) -> (&[u8], &[u8]) {
    let is_prefix = |byte: u8| {
        matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
            || bits == 64 && (0x40..0x50).contains(&byte)
    };
    code.split_at(code.iter().position(|byte| !is_prefix(*byte)).unwrap_or(code.len()))
}

/// Whether a processor without an instruction has another one in its place.
enum Older {
    No,
    /// A NOP, also on a host that has it.
    SameOnHost,
    NewOnHost,
}

/// Whether a processor without the instruction executes another one in its place.
pub fn has_older_meaning(mnemonic: Mnemonic) -> bool {
    !matches!(reads_as_older(mnemonic), Older::No)
}

fn reads_as_older(mnemonic: Mnemonic) -> Older {
    use Mnemonic as M;
    match mnemonic {
        M::Tzcnt | M::Lzcnt | M::Wbnoinvd => Older::NewOnHost,
        M::Endbr32 | M::Endbr64 | M::Rdsspd | M::Rdsspq | M::Cldemote | M::Reservednop => Older::SameOnHost,
        M::Prefetch | M::Prefetchwt1 | M::Prefetchit0 | M::Prefetchit1 => Older::SameOnHost,
        _ => Older::No,
    }
}

/// Why this instance of a form is not run.
fn instance(i: &Instruction, case: &Case) -> Option<&'static str> {
    if i.op_kinds().any(is_near_branch) {
        let inside = |target: u64| target.wrapping_add(16).wrapping_sub(i.ip()) < 32;
        if inside(i.near_branch_target()) {
            return Some("executes its own bytes");
        }
    }
    let (prefixes, opcode) = split(&case.code, if i.code_size() == CodeSize::Code64 { 64 } else { 32 });
    let repeat = prefixes.iter().rev().find(|prefix| matches!(prefix, 0xf2 | 0xf3));
    if matches!((repeat, opcode), (Some(0xf3), [0xe0, ..]) | (Some(0xf2), [0xe1, ..])) {
        return Some("AMD takes a REP prefix of LOOPE and LOOPNE for their condition");
    }
    match i.code() {
        Code::Shld_rm16_r16_imm8
        | Code::Shrd_rm16_r16_imm8
        | Code::Shld_rm16_r16_CL
        | Code::Shrd_rm16_r16_CL => {
            let count = i.try_immediate(2).unwrap_or(case.regs[1]) & 31;
            (count > 16).then_some("a word shifted by more than its length is undefined: vendors differ")
        }
        Code::Reservednop_rm16_r16_0F0D
        | Code::Reservednop_rm32_r32_0F0D
        | Code::Reservednop_rm64_r64_0F0D => Some("#UD on AMD, where it was 3DNow!; a NOP on Intel"),
        Code::Jmp_m1664
        | Code::Call_m1664
        | Code::Lss_r64_m1664
        | Code::Lfs_r64_m1664
        | Code::Lgs_r64_m1664 => Some("AMD has no far pointers with 64-bit offsets"),
        Code::Call_m1616 | Code::Call_m1632
            if i.code_size() == CodeSize::Code64 && case.regs[4] >> 32 != 0 =>
        {
            Some("AMD cuts the stack pointer of a far call to 32 bits")
        }
        Code::Int1 => Some("hypervisors report it in front of the instruction, the SDM says behind"),
        Code::Movsxd_r16_rm16 if i.op1_kind() == OpKind::Memory => Some("reads 4 bytes on AMD, 2 on Intel"),
        _ => x87::instance(i, case),
    }
}

/// As [`instance`], for what there is in 32-bit and 16-bit code only.
fn legacy_instance(i: &Instruction, case: &Case, bits: u32) -> Option<&'static str> {
    if bits == 64 {
        return None;
    }
    if pushes_selector_of_4_bytes(i) && !linear_stack(case, bits).is_multiple_of(4) {
        return Some("AMD accesses 4 bytes for a segment register, Intel 2");
    }
    let is_far_call = i.is_call_far() || i.is_call_far_indirect();
    if is_far_call && target_selector(i, case).is_some_and(|selector| descriptors::code_bits(selector) == 64)
    {
        return Some("AMD pushes for a far call to 64-bit code by all of RSP, whose upper half is undefined");
    }
    let size = (i.memory_size().size() as u64).max(1);
    if x87::offset(i, case).is_some_and(|offset| offset + size > 1 << 32) {
        return Some(
            "whether an operand may go on from 4 GiB to 0 is the processor's choice (SDM vol. 3, 5.3)",
        );
    }
    None
}

/// PUSH of a segment register where it takes 4 bytes of stack.
fn pushes_selector_of_4_bytes(i: &Instruction) -> bool {
    i.mnemonic() == Mnemonic::Push
        && i.op0_register().is_segment_register()
        && i.stack_pointer_increment() == -4
}

/// The selector that a far branch is to.
fn target_selector(i: &Instruction, case: &Case) -> Option<u16> {
    if i.is_call_far() {
        return Some(i.far_branch_selector());
    }
    let address = x87::address(i, case)?.wrapping_add(i.memory_size().size() as u64 - 2);
    Some(u16::from_le_bytes(case.peek(address & 0xffff_ffff)))
}

/// Whether the longest instruction in this place would go on behind the end of its code segment.
pub fn leaves_code_segment(case: &Case) -> bool {
    let offset = case.at.wrapping_sub(descriptors::base(case.selectors[1]));
    offset + LONGEST as u64 > descriptors::limit(case.selectors[1]).into()
}

fn is_near_branch(kind: OpKind) -> bool {
    matches!(kind, OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

/// Whether the bytes are a near branch, call or return with an operand size prefix.
fn is_short_transfer(code: &[u8]) -> bool {
    let (prefixes, opcode) = split(code, 64);
    prefixes.contains(&0x66)
        && match opcode {
            [0x0f, second, ..] => second & 0xf0 == 0x80,
            [0xff, modrm, ..] => matches!(modrm >> 3 & 7, 2 | 4),
            [first, ..] => matches!(first, 0x70..=0x7f | 0xc2 | 0xc3 | 0xe0..=0xe3 | 0xe8 | 0xe9 | 0xeb),
            [] => false,
        }
}

/// Makes equal in both outcomes what need not be equal.
pub fn forgive(made: &Made, bits: u32, host: &mut Outcome, guest: &mut Outcome) {
    let (case, i) = (&made.case, &made.instruction);
    let completed = matches!(host.vector, 1 | 3) || host.rip != i.ip();
    let undefined = if completed { undefined_flags(i) } else { 0 };
    let leaves_64_bit_mode = bits != 64 || descriptors::code_bits(host.selectors[1]) != 64;
    for outcome in [&mut *host, &mut *guest] {
        outcome.rflags &= COMPARED & !undefined;
        if outcome.vector == 14 && outcome.cr2 >= 0x7fff_ffff_f000 {
            // Linux shows all of its own half of the addresses as present.
            outcome.error |= 1;
        }
        if outcome.vector != 14 {
            // Only a page fault sets CR2, and the signal frame keeps an old one.
            outcome.cr2 = 0;
        }
        if !matches!(outcome.vector, 10..=14 | 17) {
            outcome.error = 0;
        }
        for selector in &mut outcome.selectors {
            // Returning from the kernel clears the RPL of null selectors: SDM vol. 2, IRET.
            *selector = if *selector < 4 { 0 } else { *selector };
        }
        if leaves_64_bit_mode {
            // What lies above 32 bits is undefined outside of 64-bit mode: SDM vol. 1, 3.4.1.1.
            for register in &mut outcome.regs[..8] {
                *register &= 0xffff_ffff;
            }
        }
    }
    forgive_own_values(i, host, guest);
    forgive_approximation(i, host, guest);
    x87::forgive(i, case, host, guest);
    forgive_order(case, i, bits, host, guest);
    if bits != 64 {
        forgive_legacy(case, i, bits, completed, host, guest);
    }
    if is_far_return(i) && matches!(host.vector, 12 | 14 | 17) && guest.vector == 13 {
        // AMD reads the outer stack before it looks at the selector.
        (guest.vector, guest.error, guest.cr2) = (host.vector, host.error, host.cr2);
    }
    if !completed && i.is_string_instruction() {
        // SDM: a fault restores the flags from before the instruction. AMD leaves those of the last iteration.
        guest.rflags = host.rflags;
    }
}

/// Which of several faults comes first, where the SDM leaves it open.
fn forgive_order(case: &Case, i: &Instruction, bits: u32, host: &mut Outcome, guest: &mut Outcome) {
    // Bytes behind what makes it undefined may be fetched first or not.
    let crosses = case.at + LONGEST as u64 > LAYOUT.code.end;
    let fetched = |outcome: &Outcome| outcome.vector == 14 && outcome.cr2 == LAYOUT.code.end;
    let undefined = |outcome: &Outcome| outcome.vector == 6;
    // An instruction that is undefined and too long.
    let refused = |outcome: &Outcome| matches!(outcome.vector, 6 | 13) && outcome.error == 0;
    let too_long =
        i.is_invalid() && refused(host) && refused(guest) && is_undefined(&shortest(&case.code, bits), bits);
    let of_fetch = crosses && (fetched(host) && undefined(guest) || undefined(host) && fetched(guest));
    // The parts of something long are accessed in an order of the processor's own.
    let both_paged = host.vector == 14 && guest.vector == 14;
    let across_the_edge = host.vector == 14 && guest.vector == 13 && host.cr2 >> 12 == LAST_USER_PAGE;
    let of_parts =
        both_paged && (has_long_operand(i) || is_far_transfer(i)) || across_the_edge && has_long_operand(i);
    if host.vector == guest.vector
        && !matches!(host.vector, 1 | 3)
        && (i.is_call_far_indirect() || i.is_call_far())
    {
        // Of what a far call pushes, AMD leaves what came before the fault.
        let stack = linear_stack(case, bits);
        forgive_bytes((1..=16).map(|below| stack.wrapping_sub(below)), host, guest);
    }
    // AMD looks at the alignment before the page, the SDM's table 6-2 has it the other way round.
    let unaligned = host.vector == 17 && guest.vector == 14
        // The SDM leaves it to the processor which of the two FXSAVE raises.
        || host.vector == 17 && guest.vector == 13 && has_long_operand(i);
    // The SDM does not say which of its two operands CMPS looks at first: the same cases came out both ways on two hosts.
    let of_operand = |outcome: &Outcome| matches!(outcome.vector, 12..=14);
    let of_two =
        matches!(i.mnemonic(), Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq)
            && of_operand(host)
            && of_operand(guest)
            && host.vector != guest.vector;
    if unaligned || of_fetch || too_long || of_parts || of_two {
        (guest.vector, guest.error, guest.cr2) = (host.vector, host.error, host.cr2);
    }
}

/// What there is in 32-bit and 16-bit code only.
fn forgive_legacy(
    case: &Case,
    i: &Instruction,
    bits: u32,
    completed: bool,
    host: &mut Outcome,
    guest: &mut Outcome,
) {
    use Mnemonic as M;
    // SDM: #UD outside of 64-bit mode. AMD looks at the privilege first.
    let sysret = i.mnemonic() == M::Sysret && host.vector == 13 && guest.vector == 6;
    // SDM: the target is checked before the return address is pushed. AMD pushes first.
    let call = i.mnemonic() == M::Call && matches!(host.vector, 12 | 14 | 17) && guest.vector == 13;
    // AMD reads the offset of a far pointer before it compares the place of the selector with the limit.
    let pointer =
        is_far_pointer(i) && host.vector == 14 && matches!(guest.vector, 12 | 13) && guest.error == 0;
    if sysret || call || pointer {
        (guest.vector, guest.error, guest.cr2) = (host.vector, host.error, host.cr2);
    }
    let stack = linear_stack(case, bits);
    if pushes_selector_of_4_bytes(i) && completed {
        // SDM: the upper half stays. AMD clears it.
        forgive_bytes((1..=2).map(|below| stack.wrapping_sub(below)), host, guest);
    }
    let releases = matches!(i.code(), Code::Retfw_imm16 | Code::Retfd_imm16);
    if releases && descriptors::stack_bits(case.selectors[2]) == 16 {
        // SDM: SP moves. On AMD there is a carry out of it.
        let kept = guest.regs[4] & 0xffff;
        guest.regs[4] = host.regs[4] & !0xffff | kept;
    }
    if matches!(i.mnemonic(), M::Popa | M::Popad) && !completed {
        // AMD leaves what it popped before the fault.
        guest.regs = host.regs;
    }
    if matches!(i.mnemonic(), M::Pusha | M::Pushad) && !completed {
        // AMD leaves what it pushed before the fault.
        forgive_bytes((1..=32).map(|below| stack.wrapping_sub(below)), host, guest);
    }
}

fn forgive_bytes(addresses: impl Iterator<Item = u64>, host: &mut Outcome, guest: &mut Outcome) {
    for address in addresses {
        if let (Some(theirs), Some(ours)) = (host.byte(address).copied(), guest.byte(address)) {
            *ours = theirs;
        }
    }
}

/// Where the stack pointer points.
fn linear_stack(case: &Case, bits: u32) -> u64 {
    let (pointer, selector) = (case.regs[4], case.selectors[2]);
    match bits {
        64 => pointer,
        _ if descriptors::stack_bits(selector) == 16 => descriptors::base(selector) + (pointer & 0xffff),
        _ => descriptors::base(selector).wrapping_add(pointer & 0xffff_ffff) & 0xffff_ffff,
    }
}

/// The same instruction without the prefixes that mean nothing in it.
fn shortest(code: &[u8], bits: u32) -> Vec<u8> {
    let (prefixes, opcode) = split(code, bits);
    let last = |wanted: &[u8]| prefixes.iter().rev().find(|prefix| wanted.contains(prefix));
    let rex = prefixes.last().filter(|prefix| bits == 64 && (0x40..0x50).contains(*prefix));
    let kept = [last(&[0xf0]), last(&[0xf2, 0xf3]), last(&[0x66]), last(&[0x67]), rex];
    kept.into_iter().flatten().chain(opcode).copied().collect()
}

fn is_undefined(code: &[u8], bits: u32) -> bool {
    let i = Decoder::new(bits, code, DecoderOptions::NONE).decode();
    let by_definition = matches!(i.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2);
    i.is_invalid() || by_definition || is_of_others(i.code())
}

fn has_long_operand(i: &Instruction) -> bool {
    use MemorySize as S;
    matches!(
        i.memory_size(),
        S::FpuEnv14 | S::FpuEnv28 | S::FpuState94 | S::FpuState108 | S::Fxsave_512Byte | S::Fxsave64_512Byte
    )
}

fn is_far_pointer(i: &Instruction) -> bool {
    matches!(i.memory_size(), MemorySize::SegPtr16 | MemorySize::SegPtr32 | MemorySize::SegPtr64)
}

fn is_far_transfer(i: &Instruction) -> bool {
    is_far_return(i) || i.is_call_far_indirect() || i.is_call_far() || i.is_jmp_far_indirect()
}

/// Values of the machine's own: its clocks, its identity, its random numbers. They must be as wide, no more.
fn forgive_own_values(i: &Instruction, host: &Outcome, guest: &mut Outcome) {
    use Mnemonic as M;
    let registers: &[usize] = match i.mnemonic() {
        M::Rdtsc => &[0, 2],
        M::Rdtscp => &[0, 1, 2],
        M::Cpuid => &[0, 1, 2, 3],
        M::Rdrand | M::Rdseed => &[i.op0_register().number()],
        _ => return,
    };
    let size = if i.op_count() == 0 { 4 } else { i.op0_register().size() };
    for register in registers {
        let (theirs, ours) = (host.regs[*register], &mut guest.regs[*register]);
        let kept = match size {
            2 => 16,
            4 => 32,
            _ => 0,
        };
        if kept == 0 || theirs >> kept == *ours >> kept {
            *ours = theirs;
        }
    }
}

/// Reciprocals may be off by 1.5 * 2^-12, so two of them by twice as much: SDM vol. 2, RCPPS and RSQRTPS.
fn forgive_approximation(i: &Instruction, host: &Outcome, guest: &mut Outcome) {
    use Mnemonic as M;
    if !matches!(i.mnemonic(), M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss) {
        return;
    }
    let register = i.op0_register().number();
    let (theirs, ours) = (host.fx.xmm(register), guest.fx.xmm(register));
    let near = (0..4).all(|n| {
        let lane = |vector: u128| f32::from_bits((vector >> (32 * n)) as u32);
        let (a, b) = (lane(theirs), lane(ours));
        a.to_bits() == b.to_bits() || ((a - b) / a).abs() <= 3.0 / 4096.0
    });
    if near {
        guest.fx.set_xmm(register, theirs);
    }
}

/// Flags that the SDM calls undefined after `i`.
fn undefined_flags(i: &Instruction) -> u64 {
    let bits = i.rflags_undefined();
    let flag = |bit: u32, flag: u64| if bits & bit != 0 { flag } else { 0 };
    let of_iced = flag(RflagsBits::CF, CF)
        | flag(RflagsBits::PF, PF)
        | flag(RflagsBits::AF, AF)
        | flag(RflagsBits::ZF, ZF)
        | flag(RflagsBits::SF, SF)
        | flag(RflagsBits::OF, OF);
    match i.mnemonic() {
        // The count decides, and iced does not know it when it is in CL.
        Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar | Mnemonic::Shld | Mnemonic::Shrd => {
            of_iced | AF | if counts_one(i) { 0 } else { OF | CF }
        }
        Mnemonic::Rol | Mnemonic::Ror | Mnemonic::Rcl | Mnemonic::Rcr if !counts_one(i) => of_iced | OF,
        _ => of_iced,
    }
}

fn counts_one(i: &Instruction) -> bool {
    matches!(i.try_immediate(i.op_count() - 1), Ok(1)) && i.op_register(i.op_count() - 1) == Register::None
}
