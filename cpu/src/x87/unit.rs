//! The register stack and what instructions do to it. SDM vol. 1, 8.1 and 8.5.

use std::cmp::Ordering;

use super::arithmetic::Reduction;
use super::format::{BCD_INDEFINITE, Class, Extended, to_bcd};
use super::operation::{Constant, Format, Function, Function2, Operation, Source};
use super::rounding::{Answer, Context, INVALID};
use super::transcendental::{LN_2, LOG2_10, LOG2_E, LOG10_2, PI};
use crate::X87;

/// Status word: stack fault.
const STACK_FAULT: u16 = 1 << 6;
/// Status word: exception summary, and busy, which mirrors it.
const SUMMARY: u16 = 1 << 7 | 1 << 15;
/// Status word: condition codes.
const C0: u16 = 1 << 8;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;
const C3: u16 = 1 << 14;
/// Control word bits that hold what is written; of the others bit 6 reads as one.
const CONTROL_BITS: u16 = 0x1f3f;

/// Bytes on their way to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Two([u8; 2]),
    Four([u8; 4]),
    Eight([u8; 8]),
    Ten([u8; 10]),
}

/// What an instruction leaves outside of the unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    pub store: Option<Stored>,
    /// FCOMI and its kin: the order, or unordered.
    pub compared: Option<Option<Ordering>>,
}

/// The unit while it executes one instruction.
pub(super) struct Unit {
    pub state: X87,
    context: Context,
}

impl Unit {
    pub fn new(state: X87) -> Unit {
        Unit { context: Context::new(state.control), state }
    }

    /// Whether an unmasked exception waits to be reported.
    pub fn pending(&self) -> bool {
        self.state.status & SUMMARY != 0
    }

    pub fn set_control(&mut self, control: u16) {
        self.state.control = control & CONTROL_BITS | 0x40;
        self.summarise();
    }

    /// Writes the status word; the summary follows from the flags and the masks.
    pub fn set_status(&mut self, status: u16) {
        self.state.status = status;
        self.summarise();
    }

    pub fn clear_exceptions(&mut self) {
        self.state.status &= !(SUMMARY | STACK_FAULT | 0x3f);
    }

    /// FINIT. The registers keep their content and become empty.
    pub fn initialise(&mut self) {
        self.state = X87 { regs: self.state.regs, ..X87::default() };
    }

    fn summarise(&mut self) {
        let unmasked = self.state.status & !self.state.control & 0x3f != 0;
        self.state.status = self.state.status & !SUMMARY | if unmasked { SUMMARY } else { 0 };
    }

    /// Physical number of ST(i).
    pub fn physical(&self, i: usize) -> usize {
        (usize::from(self.state.status >> 11) + i) & 7
    }

    fn is_empty(&self, i: usize) -> bool {
        self.state.tags >> self.physical(i) & 1 == 0
    }

    pub fn get(&self, i: usize) -> Extended {
        Extended::from_bits(self.state.regs[self.physical(i)])
    }

    fn set(&mut self, i: usize, value: Extended) {
        let register = self.physical(i);
        self.state.regs[register] = value.bits();
        self.state.tags |= 1 << register;
    }

    fn rotate(&mut self, by: i8) {
        let top = (self.state.status >> 11).wrapping_add(by as u16) & 7;
        self.state.status = self.state.status & !(7 << 11) | top << 11;
    }

    fn pop(&mut self, count: u8) {
        for _ in 0..count {
            self.free(0);
            self.rotate(1);
        }
    }

    fn free(&mut self, i: usize) {
        self.state.tags &= !(1 << self.physical(i));
    }

    fn push(&mut self, value: Extended) {
        self.rotate(-1);
        self.set(0, value);
    }

    /// Raises stack underflow if one of the registers is empty. `Ok(true)` is the masked response.
    fn underflows(&mut self, registers: &[usize]) -> Answer<bool> {
        if !registers.iter().any(|i| self.is_empty(*i)) {
            return Ok(false);
        }
        self.state.status |= STACK_FAULT;
        self.context.raise(INVALID).map(|()| true)
    }

    /// As [`Unit::underflows`] for a register about to be pushed to.
    fn overflows(&mut self) -> Answer<bool> {
        if self.is_empty(7) {
            return Ok(false);
        }
        self.state.status |= STACK_FAULT;
        self.context.rounded_up = true;
        self.context.raise(INVALID).map(|()| true)
    }

    fn set_conditions(&mut self, set: u16) {
        self.state.status = self.state.status & !(C0 | C2 | C3) | set;
    }

    /// Executes an operation on registers and on what was read from memory. `i` is the register it names.
    pub fn execute(&mut self, operation: Operation, i: usize, memory: &[u8; 10], holds: bool) -> Effect {
        let mut effect = Effect::default();
        // What an unmasked exception blocks simply does not happen; the flags below tell of it.
        let _: Answer<()> = self.perform(operation, i, memory, holds, &mut effect);
        if self.context.flags == 0 && leaves_condition_1(operation) {
            return effect;
        }
        let up = if self.context.rounded_up { C1 } else { 0 };
        self.state.status = self.state.status & !C1 | up | self.context.flags;
        self.summarise();
        effect
    }

    fn perform(
        &mut self,
        operation: Operation,
        i: usize,
        memory: &[u8; 10],
        holds: bool,
        effect: &mut Effect,
    ) -> Answer<()> {
        match operation {
            Operation::Arithmetic(arithmetic, source) => {
                let other = self.operand(source, i, memory);
                let value = match self.underflows(&[0, if source == Source::Register { i } else { 0 }])? {
                    true => Extended::INDEFINITE,
                    false => self.context.arithmetic(arithmetic, self.get(0), other)?,
                };
                self.set(0, value);
            }
            Operation::ArithmeticInto(arithmetic, pop) => {
                let value = match self.underflows(&[0, i])? {
                    true => Extended::INDEFINITE,
                    false => self.context.arithmetic(arithmetic, self.get(i), self.get(0))?,
                };
                self.set(i, value);
                self.pop(pop);
            }
            Operation::Compare { source, quiet, pop } => self.compare(source, i, memory, quiet, pop)?,
            Operation::CompareNext { quiet } => self.compare(Source::Register, 1, memory, quiet, 2)?,
            Operation::CompareFlags { quiet, pop } => {
                let order = match self.underflows(&[0, i])? {
                    true => None,
                    false => self.context.compare(self.get(0), self.get(i), quiet)?,
                };
                effect.compared = Some(order);
                self.pop(pop);
            }
            Operation::Test => {
                let order = match self.underflows(&[0])? {
                    true => None,
                    false => self.context.compare(self.get(0), Extended::zero(false), false)?,
                };
                self.set_conditions(order_conditions(order));
            }
            Operation::Examine => {
                let (class, empty) = (self.get(0).class(), self.is_empty(0));
                self.set_conditions(if empty { C3 | C0 } else { class_conditions(class) });
                self.context.rounded_up = self.get(0).negative();
            }
            Operation::Load(source) => self.load(source, i, memory)?,
            Operation::LoadConstant(constant) => {
                let value = match self.overflows()? {
                    true => Extended::INDEFINITE,
                    false => self.constant(constant),
                };
                self.push(value);
            }
            Operation::Store(format, pop) => {
                effect.store = Some(self.store(format, false)?);
                self.pop(pop);
            }
            Operation::StoreTruncated(format) => {
                effect.store = Some(self.store(format, true)?);
                self.pop(1);
            }
            Operation::StoreRegister(pop) => {
                let value = if self.underflows(&[0])? { Extended::INDEFINITE } else { self.get(0) };
                self.set(i, value);
                self.pop(pop);
            }
            Operation::StoreRegisterQuietly => {
                if !self.is_empty(0) {
                    self.set(i, self.get(0));
                }
                self.pop(1);
            }
            Operation::Exchange => {
                let was_empty = [self.is_empty(0), self.is_empty(i)];
                self.underflows(&[0, i])?;
                let value = |empty, value| if empty { Extended::INDEFINITE } else { value };
                let (first, second) = (value(was_empty[0], self.get(0)), value(was_empty[1], self.get(i)));
                self.set(0, second);
                self.set(i, first);
            }
            Operation::Move(_) => match (self.underflows(&[0, i])?, holds) {
                (true, _) => self.set(0, Extended::INDEFINITE),
                (false, true) => self.set(0, self.get(i)),
                (false, false) => {}
            },
            Operation::Free(pop) => {
                self.free(i);
                self.pop(pop);
            }
            Operation::Rotate(by) => self.rotate(by),
            _ => self.perform_function(operation)?,
        }
        Ok(())
    }

    fn perform_function(&mut self, operation: Operation) -> Answer<()> {
        match operation {
            Operation::Apply(function) => {
                if matches!(function, Function::Sine | Function::Cosine) {
                    self.set_reduction(true);
                }
                if self.underflows(&[0])? {
                    self.set(0, Extended::INDEFINITE);
                } else {
                    self.apply(function)?;
                }
            }
            Operation::Apply2(function) => self.apply2(function)?,
            Operation::Tangent => self.push_reduced(|context, argument| {
                let tangent = context.tangent(argument)?;
                Ok(tangent.map(|tangent| (tangent, if is_nan(tangent) { tangent } else { Extended::ONE })))
            })?,
            Operation::SineCosine => {
                self.push_reduced(|context, argument| context.sine_cosine(argument, true, true))?
            }
            Operation::Extract => {
                self.push_result(|context, argument| context.extract(argument).map(Some))?
            }
            _ => {}
        }
        Ok(())
    }

    /// The source operand.
    fn operand(&mut self, source: Source, i: usize, memory: &[u8; 10]) -> Extended {
        match source {
            Source::Register => self.get(i),
            Source::Memory(format) => {
                let (value, denormal) = from_memory(format, memory);
                self.context.source_denormal = denormal;
                value
            }
        }
    }

    fn compare(&mut self, source: Source, i: usize, memory: &[u8; 10], quiet: bool, pop: u8) -> Answer<()> {
        let other = self.operand(source, i, memory);
        let order = match self.underflows(&[0, if source == Source::Register { i } else { 0 }])? {
            true => None,
            false => self.context.compare(self.get(0), other, quiet)?,
        };
        self.set_conditions(order_conditions(order));
        self.pop(pop);
        Ok(())
    }

    fn load(&mut self, source: Source, i: usize, memory: &[u8; 10]) -> Answer<()> {
        let value = self.operand(source, i, memory);
        let faulty = source == Source::Register && self.underflows(&[i])? || self.overflows()?;
        let value = match source {
            _ if faulty => Extended::INDEFINITE,
            Source::Memory(Format::Single | Format::Double) => match self.context.screen(value) {
                Some(nan) => nan?,
                None => {
                    // Unlike an operation on it, loading a denormal is carried out even when unmasked.
                    let _: Answer<()> = self.context.check_denormal(&[]);
                    value
                }
            },
            _ => value,
        };
        self.push(value);
        Ok(())
    }

    fn constant(&mut self, constant: Constant) -> Extended {
        let number = match constant {
            Constant::One => return Extended::ONE,
            Constant::Zero => return Extended::zero(false),
            Constant::Log2Of10 => LOG2_10,
            Constant::Log2OfE => LOG2_E,
            Constant::Pi => PI,
            Constant::Log10Of2 => LOG10_2,
            Constant::LnOf2 => LN_2,
        };
        self.context.constant(number)
    }

    fn store(&mut self, format: Format, truncate: bool) -> Answer<Stored> {
        let value = if self.underflows(&[0])? { None } else { Some(self.get(0)) };
        let context = &mut self.context;
        let number = value.unwrap_or(Extended::INDEFINITE);
        let mut integer = |bits: u32| match value {
            Some(value) => context.round_to_integer(value, bits, truncate),
            None => Ok(i64::MIN >> (64 - bits)),
        };
        Ok(match format {
            Format::Word => Stored::Two((integer(16)? as i16).to_le_bytes()),
            Format::Doubleword => Stored::Four((integer(32)? as i32).to_le_bytes()),
            Format::Quadword => Stored::Eight(integer(64)?.to_le_bytes()),
            Format::Single => Stored::Four(context.round_to_single(number)?.to_le_bytes()),
            Format::Double => Stored::Eight(context.round_to_double(number)?.to_le_bytes()),
            Format::Extended => {
                let mut bytes = [0; 10];
                bytes.copy_from_slice(&number.bits().to_le_bytes()[..10]);
                Stored::Ten(bytes)
            }
            Format::Decimal => {
                let digits = match value {
                    Some(value) => context.round_to_decimal(value)?,
                    None => None,
                };
                Stored::Ten(digits.map_or(BCD_INDEFINITE, |digits| to_bcd(number.negative(), digits)))
            }
        })
    }

    fn apply(&mut self, function: Function) -> Answer<()> {
        let argument = self.get(0);
        let context = &mut self.context;
        let value = match function {
            Function::ChangeSign => argument.negate(),
            Function::Absolute => argument.magnitude(),
            Function::SquareRoot => context.square_root(argument)?,
            Function::Round => context.round_to_whole(argument)?,
            Function::Exponential => context.exponential(argument)?,
            Function::Sine | Function::Cosine => {
                let sine = function == Function::Sine;
                let Some((s, c)) = context.sine_cosine(argument, sine, !sine)? else {
                    self.set_reduction(false);
                    return Ok(());
                };
                if sine { s } else { c }
            }
        };
        self.set(0, value);
        Ok(())
    }

    fn apply2(&mut self, function: Function2) -> Answer<()> {
        let pops =
            matches!(function, Function2::Arctangent | Function2::Logarithm | Function2::LogarithmPlusOne);
        let destination = usize::from(pops);
        if matches!(function, Function2::Remainder | Function2::RemainderNearest) {
            self.set_reduction(true);
        }
        if self.underflows(&[0, 1])? {
            self.set(destination, Extended::INDEFINITE);
            self.pop(u8::from(pops));
            return Ok(());
        }
        let (first, second) = (self.get(0), self.get(1));
        let context = &mut self.context;
        let value = match function {
            Function2::Scale => context.scale(first, second)?,
            Function2::Arctangent => context.arctangent(second, first)?,
            Function2::Logarithm => context.logarithm(second, first)?,
            Function2::LogarithmPlusOne => context.logarithm_plus_one(second, first)?,
            Function2::Remainder | Function2::RemainderNearest => {
                let nearest = function == Function2::RemainderNearest;
                let remainder = context.remainder(first, second, nearest)?;
                self.set_quotient(remainder.reduction);
                remainder.value
            }
        };
        self.set(destination, value);
        self.pop(u8::from(pops));
        Ok(())
    }

    /// As [`Unit::push_result`]; C2 tells whether the argument was out of range.
    fn push_reduced(
        &mut self,
        function: impl FnOnce(&mut Context, Extended) -> Answer<Option<(Extended, Extended)>>,
    ) -> Answer<()> {
        let mut complete = true;
        let done = self.push_result(|context, argument| {
            let results = function(context, argument)?;
            complete = results.is_some();
            Ok(results)
        });
        self.set_reduction(complete);
        done
    }

    /// Replaces ST(0) by the first result and pushes the second.
    fn push_result(
        &mut self,
        function: impl FnOnce(&mut Context, Extended) -> Answer<Option<(Extended, Extended)>>,
    ) -> Answer<()> {
        if self.underflows(&[0])? || self.overflows()? {
            self.set(0, Extended::INDEFINITE);
            self.push(Extended::INDEFINITE);
            return Ok(());
        }
        let argument = self.get(0);
        if let Some((first, second)) = function(&mut self.context, argument)? {
            self.set(0, first);
            self.push(second);
        }
        Ok(())
    }

    /// C2 tells that an argument was out of range.
    fn set_reduction(&mut self, complete: bool) {
        self.state.status = self.state.status & !C2 | if complete { 0 } else { C2 };
    }

    /// The three low bits of a quotient, or that the reduction is incomplete.
    fn set_quotient(&mut self, reduction: Reduction) {
        match reduction {
            Reduction::None => {}
            Reduction::Partial => {
                self.set_conditions(C2);
                self.context.rounded_up = false;
            }
            Reduction::Complete(quotient) => {
                let bit = |n: u64, flag| if quotient >> n & 1 != 0 { flag } else { 0 };
                self.set_conditions(bit(2, C0) | bit(1, C3));
                self.context.rounded_up = bit(0, C1) != 0;
            }
        }
    }
}

/// Reads an operand. The flag tells a denormal of a narrower format.
fn from_memory(format: Format, memory: &[u8; 10]) -> (Extended, bool) {
    let low = u64::from_le_bytes([
        memory[0], memory[1], memory[2], memory[3], memory[4], memory[5], memory[6], memory[7],
    ]);
    let value = match format {
        Format::Single => return Extended::from_single(low as u32),
        Format::Double => return Extended::from_double(low),
        Format::Word => Extended::from_integer((low as i16).into()),
        Format::Doubleword => Extended::from_integer((low as i32).into()),
        Format::Quadword => Extended::from_integer(low as i64),
        Format::Extended => {
            Extended { sign_exponent: u16::from_le_bytes([memory[8], memory[9]]), significand: low }
        }
        Format::Decimal => Extended::from_bcd(*memory),
    };
    (value, false)
}

/// Operations that leave C1 as it is unless they fail.
fn leaves_condition_1(operation: Operation) -> bool {
    matches!(operation, Operation::Nop | Operation::Move(_))
}

fn is_nan(value: Extended) -> bool {
    value.class() == Class::QuietNan
}

fn order_conditions(order: Option<Ordering>) -> u16 {
    match order {
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => C0,
        Some(Ordering::Equal) => C3,
        None => C3 | C2 | C0,
    }
}

/// SDM vol. 2A, table 3-42 (FXAM).
fn class_conditions(class: Class) -> u16 {
    match class {
        Class::Unsupported => 0,
        Class::QuietNan | Class::SignalingNan => C0,
        Class::Normal => C2,
        Class::Infinity => C2 | C0,
        Class::Zero => C3,
        Class::Denormal => C3 | C2,
    }
}
