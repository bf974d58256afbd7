//! Instances of a form: operands, register values and memory, chosen so that every address lies in the layout.

use iced_x86::{
    Code, Encoder, Instruction, MemoryOperand, Mnemonic, OpCodeOperandKind as Kind, OpKind, Register,
};

use super::{
    case::{Case, Fx, LAYOUT},
    forms::{indexes_bits, is_indirect_branch, is_return},
    random::Random,
};

const RAX: usize = 0;
const RCX: usize = 1;
const RBX: usize = 3;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;
const DF: u64 = 1 << 10;
/// CF, PF, AF, ZF, SF, OF.
const ARITHMETIC: u64 = 0x8d5;

/// A random instance of `code`, `None` if this choice of operands cannot be encoded.
pub fn case(code: Code, random: &mut Random) -> Option<(Case, Instruction)> {
    let rip = place(random);
    let mut instruction = instruction(code, rip, random)?;
    prefixes(&mut instruction, random);
    let mut encoder = Encoder::new(64);
    let len = encoder.encode(&instruction, rip).ok()?;
    let mut bytes = encoder.take_buffer();
    if random.percent(8) && len < 15 {
        // ES, CS, SS, DS: without a meaning in 64-bit mode.
        bytes.insert(0, random.pick(&[0x26, 0x2e, 0x36, 0x3e]));
    }
    let mut decoder = iced_x86::Decoder::with_ip(64, &bytes, rip, iced_x86::DecoderOptions::NONE);
    let decoded = decoder.decode();
    if decoded.code() != code || (0..decoded.op_count()).any(|n| targets_itself(&decoded, n)) {
        return None;
    }
    let mut case = Case {
        code: bytes,
        rip,
        regs: std::array::from_fn(|_| random.integer()),
        rflags: random.next() & (ARITHMETIC | DF),
        gs_base: 0,
        fx: fx(random),
        data: (0..LAYOUT.data_len() / 8).flat_map(|_| random.next().to_le_bytes()).collect(),
    };
    set_addresses(&mut case, &decoded, random);
    Some((case, decoded))
}

/// Where the instruction stands: sometimes across pages.
fn place(random: &mut Random) -> u64 {
    let middle = LAYOUT.code.start + 0x1000;
    if random.percent(3) {
        middle + 0x1000 - 1 - random.below(8)
    } else {
        middle + 0x400 + random.below(0x800)
    }
}

fn instruction(code: Code, rip: u64, random: &mut Random) -> Option<Instruction> {
    let mut i = Instruction::default();
    i.set_code(code);
    let kinds = code.op_code().op_kinds();
    for (n, kind) in kinds.iter().enumerate() {
        operand(&mut i, n as u32, *kind, rip, random)?;
    }
    Some(i)
}

fn operand(i: &mut Instruction, n: u32, kind: Kind, rip: u64, random: &mut Random) -> Option<()> {
    let set_register = |i: &mut Instruction, register| {
        i.set_op_kind(n, OpKind::Register);
        i.set_op_register(n, register);
    };
    let any = random.below(16) as u32;
    match kind {
        Kind::r8_or_mem
        | Kind::r16_or_mem
        | Kind::r32_or_mem
        | Kind::r64_or_mem
        | Kind::mm_or_mem
        | Kind::xmm_or_mem
            if random.percent(50) =>
        {
            memory(i, n, random);
        }
        Kind::mem => memory(i, n, random),
        Kind::mem_offs => {
            i.set_op_kind(n, OpKind::Memory);
            i.set_memory_displ_size(8);
            i.set_memory_displacement64(target(i, random));
        }
        Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => {
            // Index 4 to 7 is AH to BH, 8 to 11 SPL to DIL.
            set_register(i, Register::AL + random.below(20) as u32);
        }
        Kind::r16_or_mem | Kind::r16_reg | Kind::r16_rm | Kind::r16_opcode => {
            set_register(i, Register::AX + any)
        }
        Kind::r32_or_mem | Kind::r32_reg | Kind::r32_rm | Kind::r32_opcode => {
            set_register(i, Register::EAX + any)
        }
        Kind::r64_or_mem | Kind::r64_reg | Kind::r64_rm | Kind::r64_opcode => {
            set_register(i, Register::RAX + any)
        }
        Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => set_register(i, Register::MM0 + any % 8),
        Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm => set_register(i, Register::XMM0 + any),
        Kind::al => set_register(i, Register::AL),
        Kind::cl => set_register(i, Register::CL),
        Kind::ax => set_register(i, Register::AX),
        Kind::dx => set_register(i, Register::DX),
        Kind::eax => set_register(i, Register::EAX),
        Kind::rax => set_register(i, Register::RAX),
        Kind::st0 => set_register(i, Register::ST0),
        Kind::sti_opcode => set_register(i, Register::ST0 + any % 8),
        Kind::imm8 if n > 0 && i.op_kind(n - 1) == OpKind::Immediate16 => {
            // ENTER's nesting level, EXTRQ's second.
            i.set_op_kind(n, OpKind::Immediate8_2nd);
            i.set_immediate8_2nd(random.next() as u8);
        }
        Kind::imm8 => immediate(i, n, OpKind::Immediate8, small(random) & 0xff),
        Kind::imm8_const_1 => immediate(i, n, OpKind::Immediate8, 1),
        Kind::imm8sex16 => immediate(i, n, OpKind::Immediate8to16, random.integer() as i8 as u64),
        Kind::imm8sex32 => immediate(i, n, OpKind::Immediate8to32, random.integer() as i8 as u64),
        Kind::imm8sex64 => immediate(i, n, OpKind::Immediate8to64, random.integer() as i8 as u64),
        Kind::imm16 => immediate(i, n, OpKind::Immediate16, random.integer() & 0xffff),
        Kind::imm32 => immediate(i, n, OpKind::Immediate32, random.integer() & 0xffff_ffff),
        Kind::imm32sex64 => immediate(i, n, OpKind::Immediate32to64, random.integer() as i32 as u64),
        Kind::imm64 => immediate(i, n, OpKind::Immediate64, random.integer()),
        Kind::seg_rSI if short_strings(rip) => i.set_op_kind(n, OpKind::MemorySegESI),
        Kind::es_rDI if short_strings(rip) => i.set_op_kind(n, OpKind::MemoryESEDI),
        Kind::seg_rSI => i.set_op_kind(n, OpKind::MemorySegRSI),
        Kind::es_rDI => i.set_op_kind(n, OpKind::MemoryESRDI),
        Kind::seg_rDI => i.set_op_kind(n, OpKind::MemorySegRDI),
        Kind::seg_rBX_al => {
            i.set_op_kind(n, OpKind::Memory);
            i.set_memory_base(Register::RBX);
            i.set_memory_index(Register::AL);
        }
        Kind::br64_1 | Kind::br64_4 => {
            i.set_op_kind(n, OpKind::NearBranch64);
            let far = code_target(random);
            let near = rip.wrapping_add(random.next() as i8 as u64);
            i.set_near_branch64(if kind == Kind::br64_1 { near } else { far });
        }
        _ => return None,
    }
    Some(())
}

/// An immediate of a shift, shuffle or the like.
fn small(random: &mut Random) -> u64 {
    if random.percent(50) { random.below(72) } else { random.integer() }
}

fn immediate(i: &mut Instruction, n: u32, kind: OpKind, value: u64) {
    i.set_op_kind(n, kind);
    i.set_immediate_u64(n, value);
}

/// Whether a string instruction at `rip` gets 32-bit addresses: both of its operands must agree.
fn short_strings(rip: u64) -> bool {
    rip.is_multiple_of(8)
}

/// A memory operand. Which address it gives is decided later, by the values of its registers.
fn memory(i: &mut Instruction, n: u32, random: &mut Random) {
    i.set_op_kind(n, OpKind::Memory);
    if random.percent(5) {
        let target = target(i, random);
        *i = with_memory(*i, MemoryOperand::with_base_displ(Register::RIP, target as i64));
        return;
    }
    if random.percent(3) {
        let target = target(i, random);
        *i = with_memory(*i, MemoryOperand::with_displ(target, 8));
        return;
    }
    let first = if random.percent(15) { Register::EAX } else { Register::RAX };
    let base = random.below(16) as u32;
    let index = (0..).map(|_| random.below(16) as u32).find(|index| *index != 4 && *index != base);
    let index = match index {
        Some(index) if random.percent(50) => first + index,
        _ => Register::None,
    };
    let scale = 1 << random.below(4);
    let displacement = match random.below(3) {
        0 => 0,
        1 => random.next() as i8 as i64,
        _ => random.next() as i32 as i64 >> 4,
    };
    let scale = if index == Register::None { 1 } else { scale };
    let operand = MemoryOperand::new(first + base, index, scale, displacement, 1, false, Register::None);
    *i = with_memory(*i, operand);
}

fn with_memory(mut i: Instruction, memory: MemoryOperand) -> Instruction {
    i.set_memory_base(memory.base);
    i.set_memory_index(memory.index);
    i.set_memory_index_scale(memory.scale);
    i.set_memory_displacement64(memory.displacement as u64);
    i.set_memory_displ_size(memory.displ_size.max((memory.displacement != 0) as u32));
    i
}

fn prefixes(i: &mut Instruction, random: &mut Random) {
    let info = i.code().op_code();
    let in_memory = i.op_count() > 0 && i.op0_kind() == OpKind::Memory;
    if info.can_use_lock_prefix() && in_memory && random.percent(30) {
        i.set_has_lock_prefix(true);
    }
    if i.is_string_instruction() && random.percent(70) {
        if random.percent(50) { i.set_has_repe_prefix(true) } else { i.set_has_repne_prefix(true) }
    }
    if has_memory(i) && random.percent(5) {
        i.set_segment_prefix(Register::GS);
    }
}

fn has_memory(i: &Instruction) -> bool {
    i.op_kinds().any(|kind| kind == OpKind::Memory)
}

/// A branch into its own bytes would execute something else.
fn targets_itself(i: &Instruction, n: u32) -> bool {
    let inside = |target: u64| target.wrapping_add(16).wrapping_sub(i.ip()) < 32;
    i.op_kind(n) == OpKind::NearBranch64
        && (inside(i.near_branch64()) || !LAYOUT.code.contains(&i.near_branch64()))
}

/// An address of code far enough from every place of an instruction.
fn code_target(random: &mut Random) -> u64 {
    LAYOUT.code.start + random.below(0x1000)
}

/// An address for a memory operand of `i`: mostly aligned and present; sometimes unaligned, across pages, at the border
/// of the present pages, read-only, absent or not canonical.
fn target(i: &Instruction, random: &mut Random) -> u64 {
    let data = &LAYOUT.data;
    let near = |address: u64, random: &mut Random| address.wrapping_sub(24).wrapping_add(random.below(32));
    match random.below(100) {
        0..45 => data.start + 0x200 + random.below(0x100) * 16,
        45..75 => data.start + 0x200 + random.below(0x1000),
        75..85 => near(data.start + 0x1000, random),
        85..91 => near(data.end, random),
        91..93 => data.start.wrapping_sub(random.below(16)),
        93..97 => LAYOUT.read_only.start + random.below(0x1000) - 8,
        97..99 => data.end + 0x1000 + random.below(16),
        _ if i.memory_base().is_gpr64() => 0x8000_0000_0000_0000u64.wrapping_sub(random.below(64)),
        _ => data.end + 8,
    }
}

/// A pointer for an implicit operand: the stack, or a string.
fn pointer(random: &mut Random) -> u64 {
    let data = &LAYOUT.data;
    match random.below(20) {
        0 => data.end - random.below(64),
        1 => data.start + random.below(64),
        2 => LAYOUT.read_only.start + random.below(0x1000),
        3 => data.start + 0x1000 - 32 + random.below(64),
        4..8 => data.start + 0x400 + random.below(0x1000),
        _ => data.start + 0x400 + random.below(0x200) * 8,
    }
}

/// Gives registers the values that make the instruction's addresses the wanted ones.
fn set_addresses(case: &mut Case, i: &Instruction, random: &mut Random) {
    case.regs[RSP] = pointer(random);
    if matches!(i.mnemonic(), Mnemonic::Leave | Mnemonic::Enter) {
        case.regs[RBP] = pointer(random);
    }
    if i.is_string_instruction() || i.op_kinds().any(|kind| kind == OpKind::MemorySegRDI) {
        case.regs[RSI] = pointer(random);
        case.regs[RDI] =
            if random.percent(20) { case.regs[RSI].wrapping_add(random.below(16)) } else { pointer(random) };
        case.regs[RCX] = random.below(40);
        if i.op_kinds().any(|kind| matches!(kind, OpKind::MemorySegESI | OpKind::MemoryESEDI)) {
            for register in [RCX, RSI, RDI] {
                case.regs[register] |= random.next() << 32;
            }
        }
        if random.percent(30) {
            // Equal strings, for the comparisons.
            case.data.fill(case.regs[RAX] as u8);
        }
    }
    if !has_memory(i) {
        if is_indirect_branch(i) {
            case.regs[i.op0_register().number()] = code_target(random);
        }
        if is_return(i) {
            let (at, to) = (case.regs[RSP], code_target(random));
            poke(case, at, to);
        }
        return;
    }
    if i.segment_prefix() == Register::GS {
        case.gs_base = LAYOUT.data.start - random.below(0x10_0000);
    }
    let mut at = target(i, random);
    if indexes_bits(i.mnemonic()) && i.op1_kind() == OpKind::Register {
        let index = i.op1_register().full_register().number();
        case.regs[index] = random.below(0x2000).wrapping_sub(0x1000);
    }
    let (base, index) = (i.memory_base(), i.memory_index());
    if base == Register::RIP || base == Register::None && index == Register::None {
        at = i.memory_displacement64().wrapping_add(case.gs_base);
    } else if i.mnemonic() == Mnemonic::Xlatb {
        case.regs[RBX] = at.wrapping_sub(case.regs[RAX] & 0xff).wrapping_sub(case.gs_base);
    } else {
        let scaled = match index {
            Register::None => 0,
            index => case.regs[index.full_register().number()].wrapping_mul(i.memory_index_scale() as u64),
        };
        let offset =
            at.wrapping_sub(case.gs_base).wrapping_sub(i.memory_displacement64()).wrapping_sub(scaled);
        let high = if base.is_gpr32() { random.next() << 32 } else { 0 };
        case.regs[base.full_register().number()] =
            if base.is_gpr32() { offset as u32 as u64 | high } else { offset };
    }
    if is_indirect_branch(i) {
        let to = code_target(random);
        poke(case, at, to);
    }
}

/// Stores 8 bytes in the case's data, as far as they lie there.
fn poke(case: &mut Case, address: u64, value: u64) {
    for (n, byte) in value.to_le_bytes().into_iter().enumerate() {
        let offset = address.wrapping_add(n as u64).wrapping_sub(LAYOUT.data.start);
        if let Some(place) = case.data.get_mut(offset as usize) {
            *place = byte;
        }
    }
}

/// x87 and SSE state: exceptions masked most of the time, any rounding.
fn fx(random: &mut Random) -> Fx {
    let mut fx = Fx::default();
    let masks = if random.percent(90) { 0x3f } else { random.next() as u16 & 0x3f };
    let precision = random.pick(&[0, 0x200, 0x300, 0x300, 0x300]);
    fx.set_control(0x40 | masks | precision | (random.next() as u16 & 0xc00));
    let raised = random.next() as u16 & masks;
    let raised = if random.percent(50) { 0 } else { raised };
    fx.set_status(random.next() as u16 & 0x7f00 & !0x8000 | raised);
    let any = random.next() as u8;
    fx.set_tags(random.pick(&[0xff, 0xff, 0xff, 0, any]));
    let mxcsr_masks = if random.percent(90) { 0x1f80 } else { random.next() as u32 & 0x1f80 };
    let control = random.pick(&[0, 0, 0, 0x2000, 0x4000, 0x6000, 0x40, 0x8000, 0x8040]);
    let flags = if random.percent(70) { 0 } else { random.next() as u32 & 0x3f };
    fx.set_mxcsr(mxcsr_masks | control | flags);
    for n in 0..8 {
        fx.set_st(n, random.extended());
    }
    for n in 0..16 {
        fx.set_xmm(n, random.vector());
    }
    fx
}
