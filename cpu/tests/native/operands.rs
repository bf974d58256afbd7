//! Instances of a form: an instruction with random operands and prefixes, encoded.

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, OpCodeOperandKind as Kind, OpKind, Register};

use super::{case::LAYOUT, random::Random};

/// A form in code of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    pub code: Code,
    /// Size of the code, and so the default size of addresses: 16, 32 or 64.
    pub bits: u32,
}

/// A random instance of `form` at `ip`, `None` if this choice of operands cannot be encoded.
pub fn encode(form: Form, ip: u64, random: &mut Random) -> Option<Vec<u8>> {
    let mut maker = Maker { i: Instruction::default(), form, ip, random, string_bits: 0 };
    maker.choose_string_addresses();
    maker.i.set_code(form.code);
    for (n, kind) in form.code.op_code().op_kinds().iter().enumerate() {
        maker.operand(n as u32, *kind)?;
    }
    maker.prefixes();
    let mut encoder = Encoder::new(form.bits);
    encoder.encode(&maker.i, ip).ok()?;
    Some(encoder.take_buffer())
}

struct Maker<'a> {
    i: Instruction,
    form: Form,
    ip: u64,
    random: &'a mut Random,
    /// Size of the addresses of a string instruction.
    string_bits: u32,
}

impl Maker<'_> {
    /// Address sizes that code of this size has, the usual one first.
    fn address_sizes(&self) -> [u32; 2] {
        match self.form.bits {
            64 => [64, 32],
            32 => [32, 16],
            _ => [16, 32],
        }
    }

    fn choose_string_addresses(&mut self) {
        let [usual, other] = self.address_sizes();
        self.string_bits = if self.random.percent(20) { other } else { usual };
    }

    fn set_register(&mut self, n: u32, register: Register) -> Option<()> {
        self.i.set_op_kind(n, OpKind::Register);
        self.i.set_op_register(n, register);
        Some(())
    }

    fn immediate(&mut self, n: u32, kind: OpKind, value: u64) -> Option<()> {
        self.i.set_op_kind(n, kind);
        self.i.set_immediate_u64(n, value);
        Some(())
    }

    fn string(&mut self, n: u32, kinds: [OpKind; 3]) -> Option<()> {
        let [short, usual, long] = kinds;
        let kind = match self.string_bits {
            16 => short,
            32 => usual,
            _ => long,
        };
        self.i.set_op_kind(n, kind);
        Some(())
    }

    fn operand(&mut self, n: u32, kind: Kind) -> Option<()> {
        let any = self.random.below(if self.form.bits == 64 { 16 } else { 8 }) as u32;
        match kind {
            Kind::r8_or_mem
            | Kind::r16_or_mem
            | Kind::r32_or_mem
            | Kind::r64_or_mem
            | Kind::mm_or_mem
            | Kind::xmm_or_mem
                if self.random.percent(50) =>
            {
                self.memory(n)
            }
            Kind::mem => self.memory(n),
            Kind::mem_offs => {
                let [usual, other] = self.address_sizes();
                let bits = if self.random.percent(80) { usual } else { other };
                self.i.set_op_kind(n, OpKind::Memory);
                self.i.set_memory_displ_size(bits / 8);
                let target = self.absolute();
                self.i.set_memory_displacement64(if bits == 16 { target & 0xffff } else { target });
                Some(())
            }
            // Index 4 to 7 is AH to BH, 8 to 11 SPL to DIL.
            Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => {
                let count = if self.form.bits == 64 { 20 } else { 8 };
                let register = Register::AL + self.random.below(count) as u32;
                self.set_register(n, register)
            }
            Kind::r16_or_mem | Kind::r16_reg | Kind::r16_reg_mem | Kind::r16_rm | Kind::r16_opcode => {
                self.set_register(n, Register::AX + any)
            }
            Kind::r32_or_mem | Kind::r32_reg | Kind::r32_reg_mem | Kind::r32_rm | Kind::r32_opcode => {
                self.set_register(n, Register::EAX + any)
            }
            Kind::r64_or_mem | Kind::r64_reg | Kind::r64_reg_mem | Kind::r64_rm | Kind::r64_opcode => {
                self.set_register(n, Register::RAX + any)
            }
            Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => self.set_register(n, Register::MM0 + any % 8),
            Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm => self.set_register(n, Register::XMM0 + any),
            Kind::seg_reg => self.set_register(n, Register::ES + any % 6),
            Kind::cr_reg => self.set_register(n, Register::CR0 + any),
            Kind::dr_reg => self.set_register(n, Register::DR0 + any),
            Kind::tr_reg => self.set_register(n, Register::TR0 + any % 8),
            Kind::es => self.set_register(n, Register::ES),
            Kind::cs => self.set_register(n, Register::CS),
            Kind::ss => self.set_register(n, Register::SS),
            Kind::ds => self.set_register(n, Register::DS),
            Kind::fs => self.set_register(n, Register::FS),
            Kind::gs => self.set_register(n, Register::GS),
            Kind::al => self.set_register(n, Register::AL),
            Kind::cl => self.set_register(n, Register::CL),
            Kind::ax => self.set_register(n, Register::AX),
            Kind::dx => self.set_register(n, Register::DX),
            Kind::eax => self.set_register(n, Register::EAX),
            Kind::rax => self.set_register(n, Register::RAX),
            Kind::st0 => self.set_register(n, Register::ST0),
            Kind::sti_opcode => self.set_register(n, Register::ST0 + any % 8),
            _ => self.other_operand(n, kind),
        }
    }

    fn other_operand(&mut self, n: u32, kind: Kind) -> Option<()> {
        use OpKind as O;
        match kind {
            Kind::imm8 if n > 0 && self.i.op_kind(n - 1) == O::Immediate16 => {
                // ENTER's nesting level.
                self.i.set_op_kind(n, O::Immediate8_2nd);
                self.i.set_immediate8_2nd(self.random.next() as u8);
                Some(())
            }
            Kind::imm8 => {
                let value = self.small() & 0xff;
                self.immediate(n, O::Immediate8, value)
            }
            Kind::imm8_const_1 => self.immediate(n, O::Immediate8, 1),
            Kind::imm8sex16 => self.signed_byte(n, O::Immediate8to16),
            Kind::imm8sex32 => self.signed_byte(n, O::Immediate8to32),
            Kind::imm8sex64 => self.signed_byte(n, O::Immediate8to64),
            Kind::imm16 => {
                let value = self.random.integer() & 0xffff;
                self.immediate(n, O::Immediate16, value)
            }
            Kind::imm32 => {
                let value = self.random.integer() & 0xffff_ffff;
                self.immediate(n, O::Immediate32, value)
            }
            Kind::imm32sex64 => {
                let value = self.random.integer() as i32 as u64;
                self.immediate(n, O::Immediate32to64, value)
            }
            Kind::imm64 => {
                let value = self.random.integer();
                self.immediate(n, O::Immediate64, value)
            }
            Kind::seg_rSI => self.string(n, [O::MemorySegSI, O::MemorySegESI, O::MemorySegRSI]),
            Kind::es_rDI => self.string(n, [O::MemoryESDI, O::MemoryESEDI, O::MemoryESRDI]),
            Kind::seg_rDI => self.string(n, [O::MemorySegDI, O::MemorySegEDI, O::MemorySegRDI]),
            Kind::seg_rBX_al => {
                self.i.set_op_kind(n, O::Memory);
                let base = match self.string_bits {
                    16 => Register::BX,
                    32 => Register::EBX,
                    _ => Register::RBX,
                };
                self.i.set_memory_base(base);
                self.i.set_memory_index(Register::AL);
                Some(())
            }
            Kind::br16_1 | Kind::br32_1 | Kind::br64_1 => {
                let target = self.ip.wrapping_add(self.random.next() as i8 as u64);
                self.branch(n, kind, target)
            }
            Kind::br16_2 | Kind::br32_4 | Kind::br64_4 => {
                let target = self.ip.wrapping_add(self.random.below(0x1000)).wrapping_sub(0x800);
                self.branch(n, kind, target)
            }
            Kind::farbr2_2 | Kind::farbr4_2 => {
                let target = self.ip.wrapping_add(self.random.below(0x1000)).wrapping_sub(0x800);
                self.i.set_far_branch_selector(super::cases::selector(self.random));
                if kind == Kind::farbr2_2 {
                    self.i.set_op_kind(n, O::FarBranch16);
                    self.i.set_far_branch16(target as u16);
                } else {
                    self.i.set_op_kind(n, O::FarBranch32);
                    self.i.set_far_branch32(target as u32);
                }
                Some(())
            }
            _ => None,
        }
    }

    fn branch(&mut self, n: u32, kind: Kind, target: u64) -> Option<()> {
        match kind {
            Kind::br16_1 | Kind::br16_2 => {
                self.i.set_op_kind(n, OpKind::NearBranch16);
                self.i.set_near_branch16(target as u16);
            }
            Kind::br32_1 | Kind::br32_4 => {
                self.i.set_op_kind(n, OpKind::NearBranch32);
                self.i.set_near_branch32(target as u32);
            }
            _ => {
                self.i.set_op_kind(n, OpKind::NearBranch64);
                self.i.set_near_branch64(target);
            }
        }
        Some(())
    }

    fn signed_byte(&mut self, n: u32, kind: OpKind) -> Option<()> {
        let value = self.random.integer() as i8 as u64;
        self.immediate(n, kind, value)
    }

    /// An immediate of a shift, shuffle or the like.
    fn small(&mut self) -> u64 {
        if self.random.percent(50) { self.random.below(72) } else { self.random.integer() }
    }

    /// An address for operands without a register to set.
    fn absolute(&mut self) -> u64 {
        let data = &LAYOUT.data;
        data.start + self.random.below(LAYOUT.tail.end + 32 - data.start)
    }

    /// A memory operand. Which address it gives is decided later, by the values of its registers.
    fn memory(&mut self, n: u32) -> Option<()> {
        self.i.set_op_kind(n, OpKind::Memory);
        let [usual, other] = self.address_sizes();
        let bits = if self.random.percent(85) { usual } else { other };
        let operand = match (self.random.below(100), bits) {
            (_, 16) => self.short_memory(),
            (0..6, _) if self.form.bits == 64 => {
                let register = if bits == 64 { Register::RIP } else { Register::EIP };
                let target = self.absolute();
                MemoryOperand::with_base_displ(register, target as i64)
            }
            (6..10, _) => {
                let target = self.absolute();
                MemoryOperand::with_displ(target, bits / 8)
            }
            _ => self.registers(bits),
        };
        self.i.set_memory_base(operand.base);
        self.i.set_memory_index(operand.index);
        self.i.set_memory_index_scale(operand.scale);
        self.i.set_memory_displacement64(operand.displacement as u64);
        self.i.set_memory_displ_size(operand.displ_size.max((operand.displacement != 0) as u32));
        Some(())
    }

    /// Base and index of 16-bit addressing: SDM vol. 2, table 2-1.
    fn short_memory(&mut self) -> MemoryOperand {
        use Register as R;
        let pairs = [
            (R::BX, R::SI),
            (R::BX, R::DI),
            (R::BP, R::SI),
            (R::BP, R::DI),
            (R::SI, R::None),
            (R::DI, R::None),
            (R::BP, R::None),
            (R::BX, R::None),
            (R::None, R::None),
        ];
        let (base, index) = self.random.pick(&pairs);
        let displacement = match (base, self.random.below(3)) {
            (R::None, _) => (self.absolute() & 0xffff) as i64,
            (_, 0) => 0,
            (_, 1) => self.random.next() as i8 as i64,
            _ => self.random.next() as i16 as i64,
        };
        let size = if base == R::None { 2 } else { 1 };
        MemoryOperand::new(base, index, 1, displacement, size, false, Register::None)
    }

    fn registers(&mut self, bits: u32) -> MemoryOperand {
        let first = if bits == 32 { Register::EAX } else { Register::RAX };
        let count = if self.form.bits == 64 { 16 } else { 8 };
        let base = first + self.random.below(count) as u32;
        let index = match self.random.below(count) as u32 {
            4 => Register::None,
            _ if self.random.percent(50) => Register::None,
            index => first + index,
        };
        let base = if index != Register::None && self.random.percent(10) { Register::None } else { base };
        let displacement = match self.random.below(3) {
            0 => 0,
            1 => self.random.next() as i8 as i64,
            _ => self.random.next() as i32 as i64 >> 4,
        };
        let scale = if index == Register::None { 1 } else { 1 << self.random.below(4) };
        MemoryOperand::new(base, index, scale, displacement, 1, false, Register::None)
    }

    fn prefixes(&mut self) {
        let in_memory = self.i.op_count() > 0 && self.i.op0_kind() == OpKind::Memory;
        if self.form.code.op_code().can_use_lock_prefix() && in_memory && self.random.percent(30) {
            self.i.set_has_lock_prefix(true);
        }
        if self.i.is_string_instruction() && self.random.percent(70) {
            match self.random.percent(50) {
                true => self.i.set_has_repe_prefix(true),
                false => self.i.set_has_repne_prefix(true),
            }
        }
        if self.i.op_kinds().any(|kind| kind == OpKind::Memory) && self.random.percent(10) {
            let segments = [Register::FS, Register::GS, Register::ES, Register::SS, Register::CS];
            let segment = self.random.pick(&segments);
            self.i.set_segment_prefix(segment);
        }
    }
}
