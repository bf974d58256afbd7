//! Cases around an instruction's bytes: segments, registers and memory, chosen so that most addresses lie in the
//! layout and most operands are interesting.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, MemorySize, Mnemonic, OpKind, Register};

use super::{
    case::{BREAKPOINT, Case, Fx, LAYOUT},
    descriptors::{self as d, CODE32, CODE64, DATA, LDT},
    forms::{indexes_bits, is_far_return, is_indirect_branch, is_return},
    operands::{self, Form},
    random::Random,
    raw,
};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;
const ES: usize = 0;
const CS: usize = 1;
const SS: usize = 2;
const DS: usize = 3;
const TF: u64 = 1 << 8;
const DF: u64 = 1 << 10;
const AC: u64 = 1 << 18;
/// Whether the model single-steps over POPF and IRET.
const SINGLE_STEP: bool = true;
/// Whether the model raises #AC.
const ALIGNMENT_CHECKS: bool = true;
/// CF, PF, AF, ZF, SF, OF.
const ARITHMETIC: u64 = 0x8d5;
/// Bytes of the longest instruction.
pub const LONGEST: usize = 15;

/// A case and the instruction that it holds: [`iced_x86::Code::INVALID`] where the model knows none.
pub struct Made {
    pub case: Case,
    pub instruction: Instruction,
}

/// How the model reads bytes: without the instructions that only newer processors read differently.
pub fn decode(bytes: &[u8], bits: u32, ip: u64) -> Instruction {
    let options = DecoderOptions::NO_MPFX_0FBC | DecoderOptions::NO_MPFX_0FBD | DecoderOptions::NO_WBNOINVD;
    Decoder::with_ip(bits, bytes, ip, options).decode()
}

/// A case of `form`, mostly as its encoder makes it, sometimes with more prefixes, which may make it another one.
/// `None` if this choice of operands cannot be encoded.
pub fn of_form(form: Form, memory: &[u8], random: &mut Random) -> Option<Made> {
    let place = Place::choose(form.bits, random);
    let mut bytes = operands::encode(form, place.ip(), random)?;
    if random.percent(10) {
        raw::add_prefixes(&mut bytes, form.bits, random);
    } else if decode(&bytes, form.bits, place.ip()).code() != form.code {
        return None;
    }
    Some(place.made(bytes, memory, random))
}

/// A case of random bytes.
pub fn of_random_bytes(bits: u32, memory: &[u8], random: &mut Random) -> Made {
    let place = Place::choose(bits, random);
    let bytes = raw::bytes(bits, random);
    place.made(bytes, memory, random)
}

/// Where an instruction stands, and under which segments.
struct Place {
    bits: u32,
    at: u64,
    selectors: [u16; 6],
    bases: [u64; 2],
}

impl Place {
    fn choose(bits: u32, random: &mut Random) -> Place {
        let middle = LAYOUT.code.start + 0x1000;
        let at = match random.below(100) {
            0..3 => middle + 0x1000 - 1 - random.below(LONGEST as u64),
            3..5 => LAYOUT.code.end - 1 - random.below(LONGEST as u64),
            _ => middle + 0x400 + random.below(0x800),
        };
        let data = |random: &mut Random| data_selector(random);
        let (selectors, bases) = match bits {
            64 => {
                let base = |random: &mut Random| match random.percent(50) {
                    true => LAYOUT.data.start - random.below(0x10_0000),
                    false => random.integer() & 0x3fff_ffff_ffff,
                };
                ([0, CODE64, DATA, 0, 0, 0], [base(random), base(random)])
            }
            32 => {
                let cs = random.pick(&[CODE32, CODE32, CODE32, d::CODE32_LOCAL, d::CODE32_LIMITED]);
                let ss = random.pick(&[DATA, DATA, DATA, d::DATA_BASED, d::DATA16_LOCAL, d::DATA_LIMITED]);
                ([data(random), cs, ss, data(random), data(random), data(random)], [0; 2])
            }
            _ => {
                let usual = |random: &mut Random| match random.percent(70) {
                    true => d::DATA16_LOCAL,
                    false => data_selector(random),
                };
                let ss = random.pick(&[d::DATA16_LOCAL, d::DATA16_LOCAL, DATA, d::EXPAND_DOWN16]);
                ([usual(random), d::CODE16_LOCAL, ss, usual(random), data(random), data(random)], [0; 2])
            }
        };
        Place { bits, at, selectors, bases }
    }

    fn ip(&self) -> u64 {
        self.at.wrapping_sub(d::base(self.selectors[CS]))
    }

    fn made(self, mut bytes: Vec<u8>, memory: &[u8], random: &mut Random) -> Made {
        // What follows in memory may belong to it.
        let len = bytes.len();
        bytes.resize(len.max(LONGEST + 1), BREAKPOINT);
        let instruction = decode(&bytes, self.bits, self.ip());
        bytes.truncate(if instruction.is_invalid() { len } else { instruction.len() });
        let mut case = Case {
            code: bytes,
            at: self.at,
            selectors: self.selectors,
            bases: self.bases,
            regs: std::array::from_fn(|_| random.integer()),
            rflags: random.next() & (ARITHMETIC | DF),
            fx: Fx::choose(random),
            memory: memory.to_vec(),
        };
        if SINGLE_STEP && random.percent(3) {
            case.rflags |= TF;
        }
        if ALIGNMENT_CHECKS && random.percent(5) {
            case.rflags |= AC;
        }
        let code = LAYOUT.offset(LAYOUT.code.start).expect("code is writable");
        case.memory[code..].fill(BREAKPOINT);
        let (at, bytes) = (case.at, case.code.clone());
        case.poke(at, &bytes);
        Operands { case: &mut case, i: &instruction, bits: self.bits, random }.set();
        Made { case, instruction }
    }
}

/// A selector for a data segment of 32-bit or 16-bit code.
fn data_selector(random: &mut Random) -> u16 {
    let special = [
        0,
        d::DATA_BASED,
        d::DATA16_LOCAL,
        d::DATA_LIMITED,
        d::EXPAND_DOWN32,
        d::EXPAND_DOWN16,
        d::DATA_READ_ONLY,
        d::CODE32_LOCAL,
    ];
    if random.percent(60) { DATA } else { random.pick(&special) }
}

/// Any selector, for instructions that load or inspect one. Not the one in whose limit Linux hides the number of the
/// processor (0x7b).
pub fn selector(random: &mut Random) -> u16 {
    match random.below(10) {
        0 => random.below(4) as u16,
        1..4 => random.pick(&[DATA, CODE32, CODE64]) - random.pick(&[0, 0, 0, 0, 0, 1, 3]),
        4..8 => (random.below(LDT.len() as u64 + 2) as u16) << 3 | 4 | random.pick(&[3, 3, 3, 0, 1]),
        8 => (random.below(12) as u16) << 3 | random.below(4) as u16,
        _ => random.next() as u16 | 0x100,
    }
}

/// Gives a case's registers and memory the values that its instruction finds interesting.
struct Operands<'a> {
    case: &'a mut Case,
    i: &'a Instruction,
    bits: u32,
    random: &'a mut Random,
}

impl Operands<'_> {
    fn set(&mut self) {
        let stack = self.pointer();
        let stack = stack.wrapping_sub(self.base(SS));
        self.set_low(RSP, self.stack_bits(), stack);
        if matches!(self.i.mnemonic(), Mnemonic::Leave | Mnemonic::Enter) {
            let frame = self.pointer().wrapping_sub(self.base(SS));
            self.set_low(RBP, self.stack_bits(), frame);
        }
        self.small_registers();
        if self.i.is_string_instruction() || self.kinds().any(is_rdi_operand) {
            self.string();
        }
        self.on_stack();
        if self.has_memory() {
            self.memory();
        } else if is_indirect_branch(self.i) {
            let to = self.code_target();
            let register = self.i.op0_register();
            self.set_low(register.number(), register.size() as u32 * 8, to);
        }
        if loads_selector(self.i) && self.i.op_kinds().any(|kind| kind == OpKind::Register) {
            for n in 0..self.i.op_count() {
                if self.i.op_kind(n) == OpKind::Register && self.i.op_register(n).is_gpr() {
                    let number = self.i.op_register(n).number();
                    self.case.regs[number] = self.random.next() << 16 | selector(self.random) as u64;
                }
            }
        }
    }

    fn kinds(&self) -> impl Iterator<Item = OpKind> + use<> {
        self.i.op_kinds()
    }

    fn has_memory(&self) -> bool {
        self.kinds().any(|kind| kind == OpKind::Memory)
    }

    fn stack_bits(&self) -> u32 {
        if self.bits == 64 { 64 } else { d::stack_bits(self.case.selectors[SS]) }
    }

    /// Base of a segment register as addresses see it.
    fn base(&self, segment: usize) -> u64 {
        let selector = self.case.selectors[segment];
        match segment {
            4.. if selector == 0 => self.case.bases[segment - 4],
            0..4 if self.bits == 64 => 0,
            _ => d::base(selector),
        }
    }

    fn set_low(&mut self, register: usize, bits: u32, value: u64) {
        let kept = &mut self.case.regs[register];
        *kept = if bits == 64 { value } else { *kept >> bits << bits | value & ((1 << bits) - 1) };
    }

    /// Small values where lengths, counts and dividends stand.
    fn small_registers(&mut self) {
        if self.random.percent(30) {
            for register in [RAX, RDX] {
                self.case.regs[register] = self.random.below(40).wrapping_sub(20);
            }
        }
        if matches!(self.i.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) && self.random.percent(60) {
            let signed = self.i.mnemonic() == Mnemonic::Idiv && (self.case.regs[RAX] as i64) < 0;
            self.case.regs[RDX] = if signed { u64::MAX } else { self.random.below(3) };
        }
    }

    fn string(&mut self) {
        let bits = match self.kinds().find(|kind| !matches!(kind, OpKind::Register)) {
            Some(OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI) => 16,
            Some(OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI) => 32,
            _ => 64,
        };
        let from = self.pointer();
        let to = match self.random.below(10) {
            0 => from.wrapping_add(self.random.below(16)),
            1 => from.wrapping_sub(self.random.below(16)),
            _ => self.pointer(),
        };
        let segment = segment_number(self.i.memory_segment()).unwrap_or(DS);
        let from = from.wrapping_sub(self.base(segment));
        let to_segment = if self.kinds().any(is_seg_rdi) { segment } else { ES };
        let to = to.wrapping_sub(self.base(to_segment));
        let count = match self.random.below(20) {
            0 => self.random.below(1500),
            _ => self.random.below(40),
        };
        for (register, value) in [(RSI, from), (RDI, to), (RCX, count)] {
            self.case.regs[register] = self.random.next();
            self.set_low(register, bits, value);
        }
        if self.random.percent(30) {
            // Equal strings, for the comparisons.
            let byte = self.case.regs[RAX] as u8;
            let code = LAYOUT.offset(LAYOUT.code.start).expect("code is writable");
            self.case.memory[..code].fill(byte);
        }
    }

    /// What returns and POPs find on the stack.
    fn on_stack(&mut self) {
        let mask = u64::MAX >> (64 - self.stack_bits());
        let at = (self.case.regs[RSP] & mask).wrapping_add(self.base(SS));
        if is_return(self.i) && !is_far_return(self.i) {
            let to = self.code_target();
            self.case.poke(at, &to.to_le_bytes());
        }
        if is_far_return(self.i) {
            self.far_frame(at);
        }
        match self.i.mnemonic() {
            Mnemonic::Pop if loads_selector(self.i) => {
                let value = self.random.next() << 16 | selector(self.random) as u64;
                self.case.poke(at, &value.to_le_bytes());
            }
            Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq if self.random.percent(70) => {
                let value = (self.random.next() & (ARITHMETIC | DF | TF)).to_le_bytes();
                self.case.poke(at, &value);
            }
            _ => {}
        }
    }

    /// RIP, CS, RFLAGS (IRET), RSP and SS, as wide as the instruction's operands.
    fn far_frame(&mut self, at: u64) {
        use Mnemonic as M;
        let size = match self.i.mnemonic() {
            M::Iret => 2,
            M::Iretd => 4,
            M::Iretq => 8,
            _ => far_return_size(self.i.code()),
        };
        let usual = self.case.selectors[CS];
        let cs = if self.random.percent(60) { usual } else { selector(self.random) };
        let base = if d::code_bits(cs) == 64 { 0 } else { d::base(cs) };
        let ip = LAYOUT.code.start.wrapping_add(self.random.below(0x1000)).wrapping_sub(base);
        let flags = self.random.next() & (ARITHMETIC | DF) | if self.random.percent(10) { TF } else { 0 };
        let sp = self.pointer().wrapping_sub(self.base(SS));
        let ss = if self.random.percent(60) { DATA } else { selector(self.random) };
        let is_iret = matches!(self.i.mnemonic(), M::Iret | M::Iretd | M::Iretq);
        let fields = if is_iret {
            vec![ip, cs as u64, flags, sp, ss as u64]
        } else {
            vec![ip, cs as u64, sp, ss as u64]
        };
        for (n, field) in fields.iter().enumerate() {
            self.case.poke(at.wrapping_add((n * size) as u64), &field.to_le_bytes()[..size]);
        }
    }

    /// Makes the memory operand's address a wanted one and puts a value there.
    fn memory(&mut self) {
        let i = self.i;
        if indexes_bits(i.mnemonic()) && i.op1_kind() == OpKind::Register {
            let index = i.op1_register().full_register().number();
            self.case.regs[index] = self.random.below(0x2000).wrapping_sub(0x1000);
        }
        let segment = self.segment();
        let base = self.base(segment);
        let wanted = self.target().wrapping_sub(base);
        let at = self.reach(wanted).wrapping_add(base);
        let at = if self.bits == 64 { at } else { at & 0xffff_ffff };
        self.value(at);
    }

    /// The segment register of the memory operand: in 64-bit mode only FS and GS can be named.
    fn segment(&self) -> usize {
        let named = segment_number(self.i.memory_segment()).unwrap_or(DS);
        if self.bits == 64 && named < 4 { DS } else { named }
    }

    /// Sets the registers of the memory operand so that its offset becomes `wanted`, as far as they can make it, and
    /// says what it has become.
    fn reach(&mut self, wanted: u64) -> u64 {
        let i = self.i;
        let (base, index, scale) = (i.memory_base(), i.memory_index(), i.memory_index_scale() as u64);
        let displacement = i.memory_displacement64();
        let bits = match (base, index) {
            (Register::RIP | Register::EIP, _) | (Register::None, Register::None) => return displacement,
            (Register::None, index) => index.size() as u32 * 8,
            (base, _) => base.size() as u32 * 8,
        };
        let mask = u64::MAX >> (64 - bits);
        let left = wanted.wrapping_sub(displacement) & mask;
        if index == Register::AL {
            let low = self.case.regs[RAX] & 0xff;
            self.set_low(RBX, bits, left.wrapping_sub(low));
            return wanted & mask;
        }
        let number = |register: Register| register.full_register().number();
        if base == index {
            self.set_low(number(base), bits, left / (1 + scale));
        } else if base == Register::None {
            self.set_low(number(index), bits, left / scale);
        } else {
            let scaled = match index {
                Register::None => 0,
                index => self.case.regs[number(index)].wrapping_mul(scale),
            };
            self.set_low(number(base), bits, left.wrapping_sub(scaled));
            return wanted & mask;
        }
        let of = |register: Register| match register {
            Register::None => 0,
            register => self.case.regs[number(register)],
        };
        of(base).wrapping_add(of(index).wrapping_mul(scale)).wrapping_add(displacement) & mask
    }

    /// Puts something interesting where the operand is.
    fn value(&mut self, at: u64) {
        let (i, random) = (self.i, &mut *self.random);
        if is_indirect_branch(i) {
            let to = self.code_target();
            self.case.poke(at, &to.to_le_bytes());
            return;
        }
        let size = i.memory_size().size();
        match i.memory_size() {
            MemorySize::Float80 => self.case.poke(at, &random.extended().to_le_bytes()[..10]),
            MemorySize::Float32 if random.percent(70) => self.case.poke(at, &random.single().to_le_bytes()),
            MemorySize::Float64 if random.percent(70) => self.case.poke(at, &random.double().to_le_bytes()),
            MemorySize::Bcd if random.percent(80) => {
                let digits: [u8; 10] = std::array::from_fn(|n| match n {
                    9 => random.next() as u8 & 0x80,
                    _ => (random.below(10) << 4 | random.below(10)) as u8,
                });
                self.case.poke(at, &digits);
            }
            MemorySize::FpuEnv14
            | MemorySize::FpuEnv28
            | MemorySize::FpuState94
            | MemorySize::FpuState108 => self.environment(at),
            MemorySize::Fxsave_512Byte | MemorySize::Fxsave64_512Byte => {
                let mut image = Fx::choose(random);
                if random.percent(10) {
                    image.set_mxcsr(random.next() as u32);
                }
                self.case.poke(at, &image.0[..416]);
            }
            _ if i.mnemonic() == Mnemonic::Ldmxcsr && random.percent(70) => {
                self.case.poke(at, &(random.next() as u16 as u32).to_le_bytes())
            }
            _ if size == 16 && random.percent(60) => self.case.poke(at, &random.vector().to_le_bytes()),
            _ if size <= 8 && random.percent(60) => {
                self.case.poke(at, &random.integer().to_le_bytes()[..size])
            }
            _ => {}
        }
        self.compared(at, size);
        if loads_selector(i) || is_far_branch(i) {
            self.far_pointer(at, size);
        }
    }

    /// An image for FLDENV or FRSTOR: control, status and tags are words at the start of their fields.
    fn environment(&mut self, at: u64) {
        let random = &mut *self.random;
        let image = Fx::choose(random);
        let step = match self.i.memory_size() {
            MemorySize::FpuEnv14 | MemorySize::FpuState94 => 2,
            _ => 4,
        };
        let tags = random.next() as u16;
        for (n, word) in [image.control(), image.status(), tags].into_iter().enumerate() {
            self.case.poke(at + n as u64 * step, &word.to_le_bytes());
        }
        for n in 0..8 {
            self.case.poke(at + 7 * step + n * 10, &image.st(n as usize).to_le_bytes()[..10]);
        }
    }

    /// Lets a comparison with the accumulator succeed.
    fn compared(&mut self, at: u64, size: usize) {
        if self.random.percent(50) {
            return;
        }
        match self.i.mnemonic() {
            Mnemonic::Cmpxchg => {
                let memory = u64::from_le_bytes(self.case.peek(at));
                self.set_low(RAX, size as u32 * 8, memory);
            }
            Mnemonic::Cmpxchg8b => {
                self.set_low(RAX, 32, u64::from(u32::from_le_bytes(self.case.peek(at))));
                self.set_low(RDX, 32, u64::from(u32::from_le_bytes(self.case.peek(at + 4))));
            }
            Mnemonic::Cmpxchg16b => {
                self.case.regs[RAX] = u64::from_le_bytes(self.case.peek(at));
                self.case.regs[RDX] = u64::from_le_bytes(self.case.peek(at + 8));
            }
            _ => {}
        }
    }

    /// A selector, alone or behind an offset.
    fn far_pointer(&mut self, at: u64, size: usize) {
        let usual = self.case.selectors[CS];
        let wanted =
            if is_far_branch(self.i) && self.random.percent(50) { usual } else { selector(self.random) };
        if size > 2 {
            let base = if d::code_bits(wanted) == 64 { 0 } else { d::base(wanted) };
            let to = (LAYOUT.code.start + self.random.below(0x1000)).wrapping_sub(base);
            self.case.poke(at, &to.to_le_bytes()[..size - 2]);
            self.case.poke(at.wrapping_add(size as u64 - 2), &wanted.to_le_bytes());
        } else {
            self.case.poke(at, &wanted.to_le_bytes());
        }
    }

    /// An address of code far enough from every place of an instruction, as an offset in CS.
    fn code_target(&mut self) -> u64 {
        (LAYOUT.code.start + self.random.below(0x1000)).wrapping_sub(self.base(CS))
    }

    /// An address for a memory operand: mostly aligned and present; sometimes unaligned, across pages, at the border
    /// of the present pages, read-only, absent, the kernel's or not canonical.
    fn target(&mut self) -> u64 {
        let random = &mut *self.random;
        let data = &LAYOUT.data;
        let near =
            |address: u64, random: &mut Random| address.wrapping_sub(24).wrapping_add(random.below(32));
        match random.below(100) {
            0..45 => data.start + 0x200 + random.below(0x100) * 16,
            45..72 => data.start + 0x200 + random.below(0x1000),
            72..80 => near(data.start + 0x1000, random),
            80..84 => near(data.end, random),
            84..87 => near(LAYOUT.read_only.end, random),
            87..91 => near(LAYOUT.tail.end, random),
            91..93 => data.start.wrapping_sub(random.below(16)),
            93..95 => LAYOUT.read_only.start + random.below(0x1000),
            95..97 => LAYOUT.tail.end + 0x1000 + random.below(16),
            97 => 0xffff_ff00_0000_0000 + random.below(0x1000),
            98 => 0x0000_8000_0000_0000 - 16 + random.below(0x1000),
            _ => 0x8000_0000_0000_0000u64.wrapping_sub(random.below(64)),
        }
    }

    /// A pointer for an implicit operand: the stack, or a string.
    fn pointer(&mut self) -> u64 {
        let random = &mut *self.random;
        let data = &LAYOUT.data;
        match random.below(24) {
            0 => data.end - random.below(64),
            1 => data.start + random.below(64),
            2 => LAYOUT.read_only.start + random.below(0x1000),
            3 => data.start + 0x1000 - 32 + random.below(64),
            4 => LAYOUT.tail.end - random.below(64),
            5 => LAYOUT.tail.start + random.below(64),
            6 if self.bits == 64 && random.percent(30) => 0x8000_0000_0000_0000 | random.below(64),
            6..10 => data.start + 0x400 + random.below(0x1000),
            _ => data.start + 0x400 + random.below(0x200) * 8,
        }
    }
}

fn is_rdi_operand(kind: OpKind) -> bool {
    is_seg_rdi(kind) || matches!(kind, OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI)
}

fn is_seg_rdi(kind: OpKind) -> bool {
    matches!(kind, OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI)
}

fn segment_number(register: Register) -> Option<usize> {
    register.is_segment_register().then(|| register.number())
}

/// Bytes of what a far return pops.
fn far_return_size(code: Code) -> usize {
    match code {
        Code::Retfw | Code::Retfw_imm16 => 2,
        Code::Retfd | Code::Retfd_imm16 => 4,
        _ => 8,
    }
}

fn is_far_branch(i: &Instruction) -> bool {
    i.is_jmp_far_indirect() || i.is_call_far_indirect()
}

/// Whether the instruction takes a selector from a register or from memory.
pub fn loads_selector(i: &Instruction) -> bool {
    use Mnemonic as M;
    let to_segment = i.op_count() > 0 && i.op0_register().is_segment_register();
    match i.mnemonic() {
        M::Mov | M::Pop => to_segment,
        M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss => true,
        M::Lar | M::Lsl | M::Verr | M::Verw | M::Lldt | M::Ltr => true,
        _ => false,
    }
}
