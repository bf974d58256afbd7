//! Runs one instruction on the software processor, in user mode, under tables like those of Linux.
//!
//! Every vector has a gate to a HLT of its own at CPL 0, so that the place of the halt is the exception and its frame
//! on the supervisor stack says the rest.

use cpu::{
    Bus, Cpu, CpuView, DrainKind, Exit, FlushKind, Page, REG_RIP, Segment, State, StoreKind, TableRegister,
};

use super::{
    case::{BREAKPOINT, Case, ENDLESS, Fx, LAYOUT, Outcome, READ_ONLY_BYTE},
    descriptors,
    features::Leaf,
};

/// Guest-physical pages: page tables, then what they map.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PT_LOW: u64 = 0x4000;
const PT_HIGH: u64 = 0x5000;
const SYSTEM_PDPT: u64 = 0x6000;
const SYSTEM_PD: u64 = 0x7000;
const SYSTEM_PT: u64 = 0x8000;
/// First guest-physical byte of the supervisor's page at linear `SYSTEM`.
const SYSTEM_FRAME: u64 = 0x9000;
/// GDT, LDT, TSS, IDT, handlers and stack: five pages in the kernel's half of the addresses.
const SYSTEM: u64 = 0xffff_8000_0000_0000;
const GDT: u64 = SYSTEM;
const LOCAL: u64 = SYSTEM + 0x400;
const TSS: u64 = SYSTEM + 0x800;
const IDT: u64 = SYSTEM + 0x1000;
const HANDLERS: u64 = SYSTEM + 0x2000;
const STACK_TOP: u64 = SYSTEM + 0x5000;
/// Physical addresses of the case's memory.
const CODE_FRAME: u64 = 0x10_0000;
const DATA_FRAME: u64 = 0x11_0000;
const READ_ONLY_FRAME: u64 = 0x12_0000;
const TAIL_FRAME: u64 = 0x12_8000;
const RAM: usize = 0x13_0000;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const NO_EXECUTE: u64 = 1 << 63;

const KERNEL_CODE: u16 = 0x10;

/// Exceptions that push an error code.
const WITH_CODE: [u8; 7] = [8, 10, 11, 12, 13, 14, 17];

/// A machine with nothing but RAM.
struct Ram(Vec<u8>);

impl Ram {
    fn poke(&mut self, physical: u64, bytes: &[u8]) {
        self.0[physical as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn poke64(&mut self, physical: u64, value: u64) {
        self.poke(physical, &value.to_le_bytes());
    }

    fn peek64(&self, physical: u64) -> u64 {
        u64::from_le_bytes(self.0[physical as usize..][..8].try_into().expect("8 bytes"))
    }

    /// Maps a linear range to physical memory by the table that covers it.
    fn map(&mut self, table: u64, linear: std::ops::Range<u64>, physical: u64, rights: u64) {
        let first = linear.start >> 12;
        for page in first..linear.end >> 12 {
            self.poke64(table + page % 512 * 8, (physical + ((page - first) << 12)) | PRESENT | rights);
        }
    }
}

impl Bus for Ram {
    fn page(&mut self, page: u64) -> Page {
        match self.0.get_mut((page << 12) as usize..) {
            Some(bytes) if bytes.len() >= 4096 => Page::Ram { host: bytes.as_mut_ptr() },
            _ => Page::Device,
        }
    }
    fn page_dirtied(&mut self, _: u64) {}
    fn mmio_read(&mut self, _: &CpuView, _: u64, _: usize) -> u64 {
        0
    }
    fn mmio_write(&mut self, _: &CpuView, _: u64, _: usize, _: u64) {}
    fn port_read(&mut self, _: &CpuView, _: u16, _: usize) -> u32 {
        0
    }
    fn port_write(&mut self, _: &CpuView, _: u16, _: usize, _: u32) {}
    fn read_msr(&mut self, _: &CpuView, _: u32) -> Option<u64> {
        None
    }
    fn write_msr(&mut self, _: &CpuView, _: u32, _: u64) -> Option<()> {
        None
    }
    fn read_cr8(&mut self) -> u64 {
        0
    }
    fn write_cr8(&mut self, _: &CpuView, _: u64) {}
    fn interrupt_pending(&mut self) -> bool {
        false
    }
    fn take_interrupt(&mut self) -> Option<u8> {
        None
    }
    fn attention(&self) -> bool {
        false
    }
    fn pmem_store(&mut self, _: &CpuView, _: u64, _: &[u8], _: StoreKind) {}
    fn pmem_flush(&mut self, _: &CpuView, _: u64, _: FlushKind) {}
    fn drain(&mut self, _: &CpuView, _: DrainKind) {}
    fn probe(&mut self, _: &CpuView, _: u64) {}
}

/// The software processor in its small machine.
pub struct Guest {
    cpu: Cpu<Ram>,
    ram: Ram,
    state: State,
}

impl Guest {
    /// With `general`, instructions are executed by the general handlers only.
    pub fn new(general: bool) -> Guest {
        let mut ram = Ram(vec![0; RAM]);
        page_tables(&mut ram);
        system_tables(&mut ram);
        ram.poke(READ_ONLY_FRAME, &[READ_ONLY_BYTE; 4096]);
        let mut cpu = Cpu::new(1, 0);
        if general {
            cpu.use_general_handlers();
        }
        let state = prepared(cpu.state());
        Guest { cpu, ram, state }
    }

    /// Executes the case's instruction. `None` if the model says that it cannot.
    pub fn run(&mut self, case: &Case) -> Option<Outcome> {
        self.load(case);
        let until = self.cpu.state().retired + 100_000;
        let exit = self.cpu.run(&mut self.ram, until);
        if let Exit::Unsupported { .. } = exit {
            return None;
        }
        if exit == Exit::Limit {
            return Some(Outcome { vector: ENDLESS, ..Outcome::default() });
        }
        let state = self.cpu.state();
        assert_eq!(exit, Exit::Halted, "the processor stopped at {:#x}, not in a handler", state.rip());
        Some(self.outcome(&state))
    }

    /// What CPUID answers for `leaf`, subleaf 0.
    pub fn cpuid(&mut self, leaf: u32) -> Leaf {
        let mut case = Case {
            code: vec![0x0f, 0xa2],
            at: LAYOUT.code.start,
            selectors: [0, descriptors::CODE64, descriptors::DATA, 0, 0, 0],
            bases: [0; 2],
            regs: [0; 16],
            rflags: 0,
            fx: Fx::default(),
            memory: vec![BREAKPOINT; LAYOUT.memory_len()],
        };
        case.regs[0] = leaf.into();
        case.poke(LAYOUT.code.start, &[0x0f, 0xa2]);
        let regs = self.run(&case).expect("CPUID executes").regs;
        [regs[0], regs[3], regs[1], regs[2]].map(|register| register as u32)
    }

    fn load(&mut self, case: &Case) {
        let mut from = case.memory.as_slice();
        for (frame, len) in writable_frames() {
            let (head, tail) = from.split_at(len);
            self.ram.poke(frame, head);
            from = tail;
        }
        for page in 0..(LAYOUT.code.end - LAYOUT.code.start) >> 12 {
            self.cpu.memory_changed((CODE_FRAME >> 12) + page);
        }
        let mut state = self.state.clone();
        for (register, selector) in state.segments.iter_mut().zip(case.selectors) {
            *register = segment(selector);
        }
        for (register, base) in state.segments[4..].iter_mut().zip(case.bases) {
            if register.selector == 0 {
                register.base = base;
            }
        }
        state.regs[..16].copy_from_slice(&case.regs);
        state.regs[REG_RIP] = case.at.wrapping_sub(state.segments[1].base);
        state.rflags = case.rflags | 0x202;
        load_fx(&mut state, &case.fx);
        self.cpu.set_state(state);
    }

    fn outcome(&self, state: &State) -> Outcome {
        let vector = ((state.regs[REG_RIP] - HANDLERS) / 16) as u8;
        let frame = SYSTEM_FRAME + (state.regs[4] - SYSTEM);
        let with_code = WITH_CODE.contains(&vector);
        let pushed = |n: u64| self.ram.peek64(frame + 8 * (n + with_code as u64));
        let mut regs: [u64; 16] = state.regs[..16].try_into().expect("16 registers");
        regs[4] = pushed(3);
        let mut selectors = state.segments.map(|segment| segment.selector);
        selectors[1] = pushed(1) as u16;
        selectors[2] = pushed(4) as u16;
        let mut memory = Vec::with_capacity(LAYOUT.memory_len());
        for (frame, len) in writable_frames() {
            memory.extend_from_slice(&self.ram.0[frame as usize..][..len]);
        }
        Outcome {
            vector,
            error: if with_code { self.ram.peek64(frame) } else { 0 },
            cr2: state.cr2,
            rip: pushed(0),
            selectors,
            bases: [state.segments[4].base, state.segments[5].base],
            regs,
            rflags: pushed(2),
            fx: store_fx(state),
            memory,
        }
    }
}

/// Guest-physical address and length of what is writable, in the order of [`Case::memory`].
fn writable_frames() -> [(u64, usize); 3] {
    let [data, tail, code] = LAYOUT.writable().map(|range| (range.end - range.start) as usize);
    [(DATA_FRAME, data), (TAIL_FRAME, tail), (CODE_FRAME, code)]
}

fn page_tables(ram: &mut Ram) {
    let link = PRESENT | WRITABLE | USER;
    ram.poke64(PML4, PDPT | link);
    ram.poke64(PDPT, PD | link);
    ram.poke64(PD + (LAYOUT.code.start >> 21) % 512 * 8, PT_LOW | link);
    ram.poke64(PD + (LAYOUT.data.start >> 21) % 512 * 8, PT_HIGH | link);
    ram.poke64(PML4 + (SYSTEM >> 39) % 512 * 8, SYSTEM_PDPT | link);
    ram.poke64(SYSTEM_PDPT, SYSTEM_PD | link);
    ram.poke64(SYSTEM_PD, SYSTEM_PT | link);
    ram.map(SYSTEM_PT, SYSTEM..STACK_TOP, SYSTEM_FRAME, WRITABLE);
    ram.map(PT_LOW, LAYOUT.code.clone(), CODE_FRAME, WRITABLE | USER);
    ram.map(PT_HIGH, LAYOUT.data.clone(), DATA_FRAME, WRITABLE | USER | NO_EXECUTE);
    ram.map(PT_HIGH, LAYOUT.read_only.clone(), READ_ONLY_FRAME, USER | NO_EXECUTE);
    ram.map(PT_HIGH, LAYOUT.tail.clone(), TAIL_FRAME, WRITABLE | USER | NO_EXECUTE);
}

fn system_tables(ram: &mut Ram) {
    let system = |linear: u64| SYSTEM_FRAME + (linear - SYSTEM);
    for (selector, descriptor) in descriptors::GDT {
        ram.poke64(system(GDT) + selector as u64, descriptor);
    }
    for (index, local) in descriptors::LDT.iter().enumerate() {
        ram.poke64(system(LOCAL) + 8 * index as u64, local.descriptor());
    }
    // RSP0; and an I/O map behind the limit, so that there is none.
    ram.poke64(system(TSS) + 4, STACK_TOP);
    ram.poke(system(TSS) + 102, &104u16.to_le_bytes());
    for vector in 0..256 {
        let handler = HANDLERS + vector * 16;
        // Linux lets programs raise these: arch/x86/kernel/idt.c, `SYSG` and the 32-bit system call.
        let dpl = if matches!(vector, 3 | 4 | 0x80) { 3 } else { 0 };
        let gate = handler & 0xffff
            | (KERNEL_CODE as u64) << 16
            | 0x8e00 << 32
            | dpl << 45
            | (handler >> 16 & 0xffff) << 48;
        ram.poke64(system(IDT) + vector * 16, gate);
        ram.poke64(system(IDT) + vector * 16 + 8, handler >> 32);
        ram.poke(system(handler), &[0xf4]);
    }
}

/// A processor in long mode with the tables above.
fn prepared(mut state: State) -> State {
    // PE, MP, ET, NE, WP, AM, PG; PAE, OSFXSR, OSXMMEXCPT, FSGSBASE; SCE, LME, LMA, NXE.
    state.cr0 = 0x8005_0033;
    state.cr4 = 0x1_0620;
    state.efer = 0xd01;
    state.cr3 = PML4;
    state.gdtr = TableRegister { base: GDT, limit: 0x7f };
    state.idtr = TableRegister { base: IDT, limit: 0xfff };
    state.tr = Segment { selector: 0x40, base: TSS, limit: 103, access: 0x8b };
    let limit = 8 * descriptors::LDT.len() as u32 - 1;
    state.ldtr = Segment { selector: 0x50, base: LOCAL, limit, access: 0x82 };
    state
}

/// The content of a segment register that a selector was loaded into.
fn segment(selector: u16) -> Segment {
    let Some(raw) = descriptors::descriptor(selector) else {
        return Segment { selector, ..Segment::default() };
    };
    Segment {
        selector,
        base: descriptors::base(selector),
        limit: descriptors::limit(selector),
        access: (raw >> 40) as u16 & 0xf0ff,
    }
}

fn load_fx(state: &mut State, fx: &Fx) {
    state.x87.control = fx.control();
    state.x87.status = fx.status();
    state.x87.tags = fx.tags();
    state.x87.opcode = fx.opcode();
    state.x87.ip = fx.instruction_pointer();
    state.x87.dp = fx.data_pointer();
    state.mxcsr = fx.mxcsr();
    let top = (fx.status() >> 11 & 7) as usize;
    for n in 0..8 {
        state.x87.regs[(top + n) % 8] = fx.st(n);
    }
    for n in 0..16 {
        state.xmm[n] = fx.xmm(n);
    }
}

fn store_fx(state: &State) -> Fx {
    let mut fx = Fx::default();
    fx.set_control(state.x87.control);
    fx.set_status(state.x87.status);
    fx.set_tags(state.x87.tags);
    fx.set_opcode(state.x87.opcode);
    fx.set_pointers(state.x87.ip, state.x87.dp);
    fx.set_mxcsr(state.mxcsr);
    let top = (state.x87.status >> 11 & 7) as usize;
    for n in 0..8 {
        fx.set_st(n, state.x87.regs[(top + n) % 8]);
    }
    for n in 0..16 {
        fx.set_xmm(n, state.xmm[n]);
    }
    fx
}
