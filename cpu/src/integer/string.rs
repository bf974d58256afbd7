//! The string instructions, alone and repeated.
//!
//! One iteration of a repeated instruction retires as one instruction. Between iterations the run may end: then RIP
//! stays on the instruction and its registers say what is left. MOVS and STOS do as many iterations at once as lie in
//! one page of ordinary memory, or in one line of memory whose stores must be seen; no guest can tell the difference.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::{
    alu::{self, Binary, mask},
    flags,
    operand::{full, load, load_fast, register, set_register, store},
};
use crate::{
    Bus, Cpu, Fault,
    debug::between_iterations,
    op::Op,
    segments::{is_roomy, segment_index},
    state::REG_RIP,
    tlb::CHECKED,
};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;
/// Index of ES in `State::segments`.
const ES: usize = 0;
const PAGE: u64 = 4096;
const LINE: u64 = 64;

/// What one string instruction works on, the same for all of its iterations.
#[derive(Clone, Copy)]
struct Form {
    /// Bytes of one element.
    size: u64,
    /// Bits of RSI, RDI and RCX that are used.
    address_bits: u32,
    /// RSI and RDI go up.
    forward: bool,
    /// Offsets wrap and segments end only where pages do.
    whole_pages: bool,
}

impl Form {
    fn new<B: Bus>(cpu: &Cpu<B>, i: &Instruction) -> Form {
        use Mnemonic::*;
        let size = match i.mnemonic() {
            Movsb | Cmpsb | Stosb | Lodsb | Scasb => 1,
            Movsw | Cmpsw | Stosw | Lodsw | Scasw => 2,
            Movsd | Cmpsd | Stosd | Lodsd | Scasd => 4,
            _ => 8,
        };
        let narrow = |n| match i.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => 16,
            OpKind::MemorySegESI | OpKind::MemoryESEDI => 32,
            _ => 64,
        };
        let address_bits = narrow(0).min(narrow(1));
        let whole_pages = address_bits == 64 || address_bits == 32 && has_flat_segments(cpu, i);
        Form { size, address_bits, forward: cpu.state.rflags & flags::DF == 0, whole_pages }
    }

    fn bits(&self) -> u32 {
        self.size as u32 * 8
    }

    /// Moves RSI or RDI past `iterations` elements.
    fn advance<B: Bus>(&self, cpu: &mut Cpu<B>, pointer: u8, iterations: u64) {
        let bytes = iterations * self.size;
        let at = cpu.state.regs[pointer as usize];
        let at = if self.forward { at.wrapping_add(bytes) } else { at.wrapping_sub(bytes) };
        set_register(cpu, self.address_bits, pointer, at);
    }

    /// How many of at most `most` whole elements lie between `linear` and the next multiple of `block`, going up.
    fn whole_elements(&self, linear: u64, block: u64, most: u64) -> u64 {
        most.min((block - linear % block) / self.size)
    }
}

/// Whether, outside of 64-bit mode, the segments of both operands begin at 0 and do not end.
fn has_flat_segments<B: Bus>(cpu: &Cpu<B>, i: &Instruction) -> bool {
    let is_flat = |index: usize| {
        let segment = &cpu.state.segments[index];
        segment.base == 0 && is_roomy(segment)
    };
    !cpu.fetches_64_bit && is_flat(ES) && is_flat(segment_index(i.memory_segment()))
}

/// What a step has done of what it was asked for.
struct Step {
    /// At least 1.
    iterations: u64,
    /// The comparison says that no more follow.
    ends: bool,
}

/// How a step's stores reach the bus.
#[derive(Clone, Copy)]
enum Repeated {
    /// No REP prefix.
    No,
    /// REP, and whether these are the first iterations of this execution.
    Yes { first: bool },
}

/// Runs `step` until the count in RCX is used up, the comparison ends it or the run loop wants to look; once without
/// a REP prefix. `step` is told how many iterations it may do, at least 1; it moves RSI and RDI itself, and on a fault
/// has done none.
fn repeat<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
    form: Form,
    mut step: impl FnMut(&mut Cpu<B>, &mut B, u64, Repeated) -> Result<Step, Fault>,
) -> Result<(), Fault> {
    let i = full(op);
    if !i.has_rep_prefix() && !i.has_repne_prefix() {
        return step(cpu, bus, 1, Repeated::No).map(|_| ());
    }
    let mut count = register(cpu, form.address_bits, RCX);
    let mut first = cpu.state.rep_paused_at.take() != Some(cpu.state.retired);
    while count != 0 {
        let most = count.min(cpu.rep_budget().max(1));
        let done = match step(cpu, bus, most, Repeated::Yes { first }) {
            Ok(done) => done,
            Err(fault) => {
                if fault == Fault::UNDECIDED && !first {
                    // It goes on as if it had not stopped.
                    cpu.state.rep_paused_at = Some(cpu.state.retired);
                }
                return Err(fault);
            }
        };
        first = false;
        count -= done.iterations;
        set_register(cpu, form.address_bits, RCX, count);
        // The last one is counted by the run loop, or here when another follows.
        cpu.retire_iterations(done.iterations - 1);
        if done.ends || count == 0 {
            break;
        }
        if cpu.rep_budget() <= 1 {
            cpu.state.regs[REG_RIP] = cpu.state.regs[REG_RIP].wrapping_sub(op.len as u64);
            // The run loop counts the iteration before it looks.
            cpu.state.rep_paused_at = Some(cpu.state.retired + 1);
            between_iterations(cpu);
            break;
        }
        cpu.retire_iterations(1);
    }
    Ok(())
}

/// MOVS
pub(super) fn movs<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let form = Form::new(cpu, i);
    repeat(cpu, bus, op, form, |cpu, bus, most, repeated| {
        let from = cpu.element_address(i, 1, form.size, false)?;
        let to = match cpu.element_address(i, 0, form.size, true) {
            Ok(to) => to,
            Err(fault) => {
                // Reading comes first, and so does its fault.
                load(cpu, bus, form.bits(), from)?;
                return Err(fault);
            }
        };
        let iterations = match copy_many(cpu, bus, form, to, from, most, repeated)? {
            Some(iterations) => iterations,
            None => {
                copy_element(cpu, bus, form, to, from, repeated)?;
                1
            }
        };
        form.advance(cpu, RSI, iterations);
        form.advance(cpu, RDI, iterations);
        Ok(Step { iterations, ends: false })
    })
}

/// STOS
pub(super) fn stos<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let form = Form::new(cpu, i);
    repeat(cpu, bus, op, form, |cpu, bus, most, repeated| {
        let to = cpu.element_address(i, 0, form.size, true)?;
        let element = register(cpu, form.bits(), RAX);
        let iterations = match fill_many(cpu, bus, form, to, element, most, repeated)? {
            Some(iterations) => iterations,
            None => {
                store_element(cpu, bus, form, to, element, repeated)?;
                1
            }
        };
        form.advance(cpu, RDI, iterations);
        Ok(Step { iterations, ends: false })
    })
}

/// LODS
pub(super) fn lods<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let form = Form::new(cpu, i);
    repeat(cpu, bus, op, form, |cpu, bus, _, _| {
        let from = cpu.element_address(i, 1, form.size, false)?;
        let element = load(cpu, bus, form.bits(), from)?;
        set_register(cpu, form.bits(), RAX, element);
        form.advance(cpu, RSI, 1);
        Ok(Step { iterations: 1, ends: false })
    })
}

/// CMPS
pub(super) fn cmps<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let form = Form::new(cpu, i);
    compare(cpu, bus, op, form, |cpu, bus| {
        // When both fault, hardware reports the second.
        let right = cpu.element_address(i, 1, form.size, false)?;
        let b = load(cpu, bus, form.bits(), right)?;
        let left = cpu.element_address(i, 0, form.size, false)?;
        let a = load(cpu, bus, form.bits(), left)?;
        form.advance(cpu, RSI, 1);
        form.advance(cpu, RDI, 1);
        Ok((a, b))
    })
}

/// SCAS
pub(super) fn scas<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, op: &Op<B>) -> Result<(), Fault> {
    let i = full(op);
    let form = Form::new(cpu, i);
    compare(cpu, bus, op, form, |cpu, bus| {
        let right = cpu.element_address(i, 1, form.size, false)?;
        let b = load(cpu, bus, form.bits(), right)?;
        form.advance(cpu, RDI, 1);
        Ok((register(cpu, form.bits(), RAX), b))
    })
}

/// Repeats a comparison of what `elements` reads, while equal (REPE) or not (REPNE). A fault restores the flags that
/// were there before the instruction: SDM vol. 2, REP.
fn compare<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    op: &Op<B>,
    form: Form,
    mut elements: impl FnMut(&mut Cpu<B>, &mut B) -> Result<(u64, u64), Fault>,
) -> Result<(), Fault> {
    let before = cpu.flags;
    let while_equal = !full(op).has_repne_prefix();
    let result = repeat(cpu, bus, op, form, |cpu, bus, _, _| {
        let (a, b) = elements(cpu, bus)?;
        alu::binary(Binary::Cmp, &mut cpu.flags, form.bits(), a, b);
        Ok(Step { iterations: 1, ends: cpu.flags.zf() != while_equal })
    });
    if result.is_err() {
        cpu.flags = before;
    }
    result
}

/// Copies one element. Undecided bytes travel along unseen.
fn copy_element<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    form: Form,
    to: u64,
    from: u64,
    repeated: Repeated,
) -> Result<(), Fault> {
    if let Some(element) = load_fast(cpu, form.bits(), from) {
        return store_element(cpu, bus, form, to, element, repeated);
    }
    let size = form.size as usize;
    let Some(unseen) = cpu.read_unseen(bus, from, to, size)? else {
        let element = load(cpu, bus, form.bits(), from)?;
        return store_element(cpu, bus, form, to, element, repeated);
    };
    store_element(cpu, bus, form, to, u64::from_le_bytes(unseen.bytes), repeated)?;
    cpu.stored_unseen(bus, to, size, &unseen)
}

fn store_element<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    form: Form,
    to: u64,
    element: u64,
    repeated: Repeated,
) -> Result<(), Fault> {
    match repeated {
        Repeated::No => store(cpu, bus, form.bits(), to, element),
        Repeated::Yes { first } => {
            cpu.write_rep(bus, to, &element.to_le_bytes()[..form.size as usize], first)
        }
    }
}

/// Copies several elements at once and says how many, `None` if only the long way will do.
fn copy_many<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    form: Form,
    to: u64,
    from: u64,
    most: u64,
    repeated: Repeated,
) -> Result<Option<u64>, Fault> {
    let Repeated::Yes { first } = repeated else { return Ok(None) };
    let elements = form.whole_elements(to, PAGE, form.whole_elements(from, PAGE, most));
    if elements < 2 || !form.forward || !form.whole_pages {
        return Ok(None);
    }
    let Some(source) = cpu.source(bus, from)? else { return Ok(None) };
    let elements = cpu.loadable(bus, &source, elements, form.size)?;
    match cpu.host_write(bus, to)? {
        Some(destination) if !source.watched => {
            // SAFETY: `elements` do not leave either page, and both pages are host memory up to their ends.
            unsafe { copy_forward(source.host, destination, elements as usize, form.size as usize) };
            return Ok(Some(elements));
        }
        _ if cpu.copy_watched(bus, to, &source, (elements * form.size) as usize)? => {
            return Ok(Some(elements));
        }
        _ => (),
    }
    let elements = form.whole_elements(to, LINE, elements);
    let bytes = elements * form.size;
    // Two linear addresses may be one physical address: then an element stored early could be read later. At the same
    // place in their pages each element can only meet itself.
    let may_overlap = (1..bytes).contains(&(to.wrapping_sub(from) % PAGE));
    if elements < 2 || may_overlap || !is_seen_memory(cpu, to) || cpu.has_decoded_code(to, bytes as usize) {
        return Ok(None);
    }
    if !cpu.is_decided(bus, &source, bytes as usize, to)? {
        return Ok(None);
    }
    let mut line = [0; LINE as usize];
    let line = &mut line[..bytes as usize];
    // SAFETY: these bytes do not leave the page, which is host memory up to its end.
    unsafe { std::ptr::copy_nonoverlapping(source.host, line.as_mut_ptr(), line.len()) };
    cpu.write_rep(bus, to, line, first)?;
    Ok(Some(elements))
}

/// Stores an element several times at once and says how many times, `None` if only the long way will do.
fn fill_many<B: Bus>(
    cpu: &mut Cpu<B>,
    bus: &mut B,
    form: Form,
    to: u64,
    element: u64,
    most: u64,
    repeated: Repeated,
) -> Result<Option<u64>, Fault> {
    let Repeated::Yes { first } = repeated else { return Ok(None) };
    let elements = form.whole_elements(to, PAGE, most);
    if elements < 2 || !form.forward || !form.whole_pages {
        return Ok(None);
    }
    let pattern = repeat_element(element, form.bits());
    if let Some(destination) = cpu.host_write(bus, to)? {
        let bytes = (elements * form.size) as usize;
        // SAFETY: `elements` do not leave the page, which is host memory up to its end and nobody else's meanwhile.
        let destination = unsafe { std::slice::from_raw_parts_mut(destination, bytes) };
        fill(destination, pattern);
        return Ok(Some(elements));
    }
    let elements = form.whole_elements(to, LINE, elements);
    if elements < 2 || !is_seen_memory(cpu, to) || cpu.has_decoded_code(to, (elements * form.size) as usize) {
        return Ok(None);
    }
    let mut line = [0; LINE as usize];
    let line = &mut line[..(elements * form.size) as usize];
    fill(line, pattern);
    cpu.write_rep(bus, to, line, first)?;
    Ok(Some(elements))
}

/// Eight bytes of repetitions of an element.
fn repeat_element(element: u64, bits: u32) -> [u8; 8] {
    (element & mask(bits)).wrapping_mul(u64::MAX / mask(bits)).to_le_bytes()
}

fn fill(bytes: &mut [u8], pattern: [u8; 8]) {
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&pattern);
    }
    let rest = chunks.into_remainder();
    rest.copy_from_slice(&pattern[..rest.len()]);
}

/// Whether `linear`, for which [`Cpu::host_write`] has just returned `None`, is memory all the same: devices have no
/// translation in the TLB, and each of their elements is an access of its own, as it is where accesses are checked.
fn is_seen_memory<B: Bus>(cpu: &Cpu<B>, linear: u64) -> bool {
    let entry = cpu.tlb.write.entry(linear, cpu.privilege);
    entry.is_for(linear) && entry.tag & CHECKED == 0
}

/// Copies element by element, lowest address first, as MOVS does when the two overlap.
///
/// # Safety
/// `from` must be readable and `to` writable for `elements * size` bytes.
unsafe fn copy_forward(from: *const u8, to: *mut u8, elements: usize, size: usize) {
    let bytes = elements * size;
    let distance = (to as usize).wrapping_sub(from as usize);
    // SAFETY: both ranges are valid by contract.
    unsafe {
        if distance >= bytes {
            // No element is read after another one has been stored over it.
            std::ptr::copy(from, to, bytes);
            return;
        }
        for at in (0..bytes).step_by(size) {
            std::ptr::copy(from.add(at), to.add(at), size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_repeat_the_element() {
        assert_eq!(repeat_element(0x1ab, 8), [0xab; 8]);
        assert_eq!(repeat_element(0x1234, 16), [0x34, 0x12, 0x34, 0x12, 0x34, 0x12, 0x34, 0x12]);
        assert_eq!(repeat_element(0x1234_5678, 32), 0x1234_5678_1234_5678u64.to_le_bytes());
        assert_eq!(repeat_element(1 << 63, 64), (1u64 << 63).to_le_bytes());
    }

    #[test]
    fn an_overlapping_copy_repeats_its_beginning() {
        let mut bytes = *b"abcdefghijkl";
        let start = bytes.as_mut_ptr();
        // SAFETY: both ranges lie in `bytes`.
        unsafe { copy_forward(start, start.add(3), 9, 1) };
        assert_eq!(&bytes, b"abcabcabcabc");
    }
}
