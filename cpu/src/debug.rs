//! Debug exceptions: breakpoints of DR0 to DR3, single-stepping, MOV to and from debug registers. SDM vol. 3, chapter
//! 18 (17 in older editions).
//!
//! A breakpoint on instructions makes blocks begin wherever its offset in a page is: only the way into a block looks
//! for it. A breakpoint on data makes the translations of its page slow: only the slow path of an access looks for it.
//! Without either nothing is looked at.
//!
//! What an instruction triggers is collected in [`State::debug_traps`] and raised at the boundary behind it.

use iced_x86::Register;

use crate::{
    Bus, Cpu, Exit, Fault, State,
    blocks::CodeCache,
    op::Op,
    registers::{CR4_DE, RFLAGS_RF, RFLAGS_TF},
    system::full,
};

/// DR6: MOV to or from a debug register while DR7.GD is set.
const DR6_BD: u64 = 1 << 13;
/// DR6: single step.
const DR6_BS: u64 = 1 << 14;
/// Bits of DR6 that read as 1.
const DR6_ONES: u64 = 0xffff_0ff0;
const DR6_WRITABLE: u64 = 0xf | DR6_BD | DR6_BS | 1 << 15;
/// DR7: L0 to G3.
const DR7_ENABLED: u64 = 0xff;
/// DR7: MOV to and from debug registers raises #DB.
pub(crate) const DR7_GD: u64 = 1 << 13;
const DR7_ONES: u64 = 1 << 10;
const DR7_WRITABLE: u64 = 0xffff_0000 | DR7_GD | 0x3ff;
/// Offsets in a page at which blocks begin for breakpoints that are remembered before they are found anew.
const REMEMBERED_OFFSETS: usize = 64;

/// What a breakpoint waits for: DR7.R/W.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Execute,
    Write,
    Port,
    ReadOrWrite,
}

/// How data is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataAccess {
    Read,
    Write,
}

/// An enabled breakpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Breakpoint {
    /// Its bit in DR6.
    bit: u64,
    condition: Condition,
    /// First address; a multiple of `len`.
    start: u64,
    /// Bytes: 1, 2, 4 or 8.
    len: u64,
}

impl Breakpoint {
    fn overlaps(&self, start: u64, len: u64) -> bool {
        start.wrapping_sub(self.start) < self.len || self.start.wrapping_sub(start) < len
    }
}

impl State {
    /// The enabled breakpoints. R/W = 2 means ports only with CR4.DE; it is reserved otherwise.
    fn breakpoints(&self) -> impl Iterator<Item = Breakpoint> + use<> {
        let (registers, control) = (self.dr, self.dr[7]);
        let ports = self.cr4 & CR4_DE != 0;
        (0..4).filter(move |n| control >> (2 * n) & 3 != 0).filter_map(move |n| {
            let len = [1, 2, 8, 4][(control >> (18 + 4 * n) & 3) as usize];
            let condition = match control >> (16 + 4 * n) & 3 {
                0 => Condition::Execute,
                1 => Condition::Write,
                2 if ports => Condition::Port,
                2 => return None,
                _ => Condition::ReadOrWrite,
            };
            // An instruction is where it begins, whatever LEN says.
            let len = if condition == Condition::Execute { 1 } else { len };
            Some(Breakpoint { bit: 1 << n, condition, start: registers[n as usize] & !(len - 1), len })
        })
    }

    fn has_breakpoints(&self) -> bool {
        self.dr[7] & DR7_ENABLED != 0
    }

    /// Bits of DR6 for the breakpoints on the instruction at a linear address.
    fn instruction_breakpoints(&self, linear: u64) -> u64 {
        let hit = |it: &Breakpoint| it.condition == Condition::Execute && it.start == linear;
        self.breakpoints().filter(hit).fold(0, |bits, it| bits | it.bit)
    }

    /// Whether an access to the page at `linear` may trigger a breakpoint.
    pub(crate) fn watches_page(&self, linear: u64) -> bool {
        let page = linear & !0xfff;
        let on_data = |it: &Breakpoint| matches!(it.condition, Condition::Write | Condition::ReadOrWrite);
        self.has_breakpoints() && self.breakpoints().any(|it| on_data(&it) && it.overlaps(page, 0x1000))
    }
}

impl<B: Bus> Cpu<B> {
    /// Notes which breakpoints an access to data triggers.
    #[inline]
    pub(crate) fn watch_data(&mut self, linear: u64, len: usize, access: DataAccess) {
        if self.state.has_breakpoints() {
            let hit = |condition| {
                condition == Condition::ReadOrWrite
                    || condition == Condition::Write && access == DataAccess::Write
            };
            self.note_triggered(linear, len, hit);
        }
    }

    /// Notes which breakpoints an access to a port triggers.
    pub(crate) fn watch_port(&mut self, port: u16, size: usize) {
        if self.state.has_breakpoints() {
            self.note_triggered(port.into(), size, |condition| condition == Condition::Port);
        }
    }

    fn note_triggered(&mut self, start: u64, len: usize, hit: impl Fn(Condition) -> bool) {
        let triggered = |it: &Breakpoint| hit(it.condition) && it.overlaps(start, len as u64);
        let bits = self.state.breakpoints().filter(triggered).fold(0, |bits, it| bits | it.bit);
        if bits != 0 {
            self.state.debug_traps |= bits;
            self.boundary = true;
        }
    }

    /// Notes that the instruction that ends now was single-stepped.
    pub(crate) fn note_single_step(&mut self) {
        self.state.debug_traps |= DR6_BS;
        self.boundary = true;
    }

    /// The trap flag counts after SYSCALL and SYSRET as they leave it: a SYSCALL whose mask clears it is not stepped,
    /// a SYSRET that sets it traps before the first instruction of the program it returns to.
    pub(crate) fn step_by_new_flags(&mut self) {
        self.single_step = false;
        if self.state.rflags & RFLAGS_TF != 0 {
            self.note_single_step();
        }
    }

    /// Raises what the previous instruction triggered, unless it was MOV SS: then it waits for the next one.
    pub(crate) fn raise_debug_traps(&mut self, bus: &mut B) -> Result<(), Exit> {
        let bits = self.state.debug_traps;
        if bits == 0 || self.state.stack_shadow {
            return Ok(());
        }
        self.state.halted = false;
        self.raise_debug(bus, bits)
    }

    /// Raises #DB before the instruction at RIP if a breakpoint is on it. RF is pushed as it is: the handler sets it to
    /// go on.
    pub(crate) fn raise_instruction_breakpoint(&mut self, bus: &mut B, linear: u64) -> Result<bool, Exit> {
        if !self.state.has_breakpoints() || self.breakpoints_suppressed {
            return Ok(false);
        }
        let bits = self.state.instruction_breakpoints(linear);
        if bits != 0 {
            self.raise_debug(bus, bits)?;
        }
        Ok(bits != 0)
    }

    fn raise_debug(&mut self, bus: &mut B, bits: u64) -> Result<(), Exit> {
        self.state.dr[6] |= bits;
        let outcome = self.interrupt(bus, 1);
        // A breakpoint on the frame that was just pushed must not raise the next one without an end.
        if outcome != Err(Exit::Undecided) {
            self.state.debug_traps = 0;
        }
        outcome
    }

    /// Lets blocks begin wherever this processor has breakpoints on instructions.
    pub(crate) fn split_blocks_at_breakpoints(&mut self, code: &mut CodeCache<B>) {
        self.breakpoints_changed = false;
        if !self.state.has_breakpoints() {
            return;
        }
        let offsets: Vec<u16> = self
            .state
            .breakpoints()
            .filter(|it| it.condition == Condition::Execute)
            .map(|it| (it.start & 0xfff) as u16)
            .collect();
        if offsets.iter().all(|offset| self.block_starts.contains(offset)) {
            return;
        }
        if self.block_starts.len() > self.probes.len() + REMEMBERED_OFFSETS {
            self.block_starts = self.probes.iter().map(|linear| (linear & 0xfff) as u16).collect();
        }
        self.block_starts.extend(offsets);
        self.drop_all_code(code);
    }

    /// The index in `State::dr` of an operand. CPL, then the register, then general detect decide what is raised.
    fn debug_register(&mut self, register: Register) -> Result<usize, Fault> {
        self.require_cpl0()?;
        let number = match register.number() {
            4 | 5 if self.state.cr4 & CR4_DE != 0 => return Err(Fault::UD),
            4 => 6,
            5 => 7,
            number @ 0..8 => number,
            _ => return Err(Fault::UD),
        };
        if self.state.dr[7] & DR7_GD != 0 {
            self.state.dr[6] |= DR6_BD;
            return Err(Fault::DB);
        }
        Ok(number)
    }
}

/// MOV from DR
pub(crate) fn read_register<B: Bus>(cpu: &mut Cpu<B>, _: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let value = cpu.state.dr[cpu.debug_register(i.op1_register())?];
    cpu.set_gpr(i.op0_register(), value);
    Ok(())
}

/// MOV to DR
pub(crate) fn write_register<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op)?;
    let number = cpu.debug_register(i.op0_register())?;
    let source = i.op1_register();
    let value = cpu.state.regs[source.number()];
    let value = if source.size() == 4 { value & 0xffff_ffff } else { value };
    let value = match number {
        6 | 7 if value >> 32 != 0 => return Err(Fault::GP0),
        6 => value & DR6_WRITABLE | DR6_ONES,
        7 => value & DR7_WRITABLE | DR7_ONES,
        _ => value,
    };
    let before = cpu.state.dr;
    cpu.state.dr[number] = value;
    if before[7] & DR7_ENABLED != 0 || cpu.state.has_breakpoints() {
        // Which pages are watched stands in their translations.
        cpu.flush_tlb();
        cpu.breakpoints_changed = true;
        cpu.boundary = true;
    }
    cpu.drain_serialising(bus);
    Ok(())
}

/// A repeated string instruction pauses between two iterations: what interrupts it there pushes RF, and a breakpoint on
/// it does not count again.
pub(crate) fn between_iterations<B: Bus>(cpu: &mut Cpu<B>) {
    cpu.state.rflags |= RFLAGS_RF;
    cpu.boundary = true;
}
