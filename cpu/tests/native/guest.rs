//! Runs one instruction on the software processor, in user mode.
//!
//! Every vector has a gate to a HLT of its own at CPL 0, so that the place of the halt is the exception and its frame
//! on the supervisor stack says the rest.

use cpu::{
    Bus, Cpu, CpuView, DrainKind, Exit, FlushKind, Page, REG_RIP, Segment, State, StoreKind, TableRegister,
};

use super::case::{Case, Fx, LAYOUT, Outcome};

/// Guest-physical pages: page tables, then what they map.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PT_SYSTEM: u64 = 0x4000;
const PT_LOW: u64 = 0x5000;
const PT_HIGH: u64 = 0x6000;
/// First guest-physical byte of the supervisor's page at linear `SYSTEM`.
const SYSTEM_FRAME: u64 = 0x7000;
/// GDT, IDT, TSS, handlers and stack: five pages.
const SYSTEM: u64 = 0x1000_0000;
const GDT: u64 = SYSTEM;
const TSS: u64 = SYSTEM + 0x800;
const IDT: u64 = SYSTEM + 0x1000;
const HANDLERS: u64 = SYSTEM + 0x2000;
const STACK_TOP: u64 = SYSTEM + 0x5000;
/// Physical addresses of the case's memory.
const CODE_FRAME: u64 = 0x10_0000;
const DATA_FRAME: u64 = 0x11_0000;
const READ_ONLY_FRAME: u64 = 0x12_0000;
const RAM: usize = 0x13_0000;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;

const KERNEL_CODE: u16 = 0x08;
const USER_CODE: u16 = 0x33;
const USER_DATA: u16 = 0x2b;

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

    /// Maps a linear range to physical memory; the range must lie below 512 MiB + 4 MiB as `table` covers it.
    fn map(&mut self, table: u64, linear: std::ops::Range<u64>, physical: u64, rights: u64) {
        let first = linear.start >> 12;
        for page in first..linear.end >> 12 {
            self.poke64(table + page % 512 * 8, (physical + ((page - first) << 12)) | PRESENT | rights);
        }
        self.poke64(PD + (linear.start >> 21) % 512 * 8, table | PRESENT | WRITABLE | USER);
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
        ram.poke64(PML4, PDPT | PRESENT | WRITABLE | USER);
        ram.poke64(PDPT, PD | PRESENT | WRITABLE | USER);
        ram.map(PT_SYSTEM, SYSTEM..STACK_TOP, SYSTEM_FRAME, WRITABLE);
        ram.map(PT_LOW, LAYOUT.code.clone(), CODE_FRAME, WRITABLE | USER);
        ram.map(PT_HIGH, LAYOUT.data.clone(), DATA_FRAME, WRITABLE | USER);
        ram.map(PT_HIGH, LAYOUT.read_only.clone(), READ_ONLY_FRAME, USER);
        let system = |linear: u64| SYSTEM_FRAME + (linear - SYSTEM);
        ram.poke64(system(GDT) + 0x08, 0x00af_9b00_0000_ffff);
        ram.poke64(system(GDT) + 0x10, 0x00cf_9300_0000_ffff);
        ram.poke64(system(GDT) + 0x28, 0x00cf_f300_0000_ffff);
        ram.poke64(system(GDT) + 0x30, 0x00af_fb00_0000_ffff);
        // RSP0; and an I/O map behind the limit, so that there is none.
        ram.poke64(system(TSS) + 4, STACK_TOP);
        ram.poke(system(TSS) + 102, &104u16.to_le_bytes());
        for vector in 0..256 {
            let handler = HANDLERS + vector * 16;
            let gate = handler & 0xffff
                | (KERNEL_CODE as u64) << 16
                | 0x8e00 << 32
                | if vector == 3 || vector == 4 { 0x6000 << 32 } else { 0 }
                | (handler >> 16 & 0xffff) << 48;
            ram.poke64(system(IDT) + vector * 16, gate);
            ram.poke64(system(IDT) + vector * 16 + 8, handler >> 32);
            ram.poke(system(handler), &[0xf4]);
        }
        ram.poke(READ_ONLY_FRAME, &[0xcc; 4096]);
        let mut cpu = Cpu::new(1, 0);
        if general {
            cpu.use_general_handlers();
        }
        let state = user_mode(cpu.state());
        Guest { cpu, ram, state }
    }

    /// Executes the case's instruction.
    pub fn run(&mut self, case: &Case) -> Outcome {
        self.ram.0[CODE_FRAME as usize..][..LAYOUT.code_len()].fill(0xcc);
        self.ram.poke(CODE_FRAME + (case.rip - LAYOUT.code.start), &case.code);
        self.ram.poke(DATA_FRAME, &case.data);
        for page in 0..LAYOUT.code_len() as u64 >> 12 {
            self.cpu.memory_changed((CODE_FRAME >> 12) + page);
        }
        let mut state = self.state.clone();
        state.regs[..16].copy_from_slice(&case.regs);
        state.regs[REG_RIP] = case.rip;
        state.rflags = case.rflags | 0x202;
        state.segments[5].base = case.gs_base;
        load_fx(&mut state, &case.fx);
        let until = state.retired + 100_000;
        self.cpu.set_state(state);
        let exit = self.cpu.run(&mut self.ram, until);
        let state = self.cpu.state();
        assert_eq!(exit, Exit::Halted, "the processor stopped at {:#x}, not in a handler", state.rip());
        self.outcome(&state)
    }

    fn outcome(&self, state: &State) -> Outcome {
        let vector = ((state.regs[REG_RIP] - HANDLERS) / 16) as u8;
        let frame = SYSTEM_FRAME + (state.regs[4] - SYSTEM);
        let with_code = WITH_CODE.contains(&vector);
        let pushed = |n: u64| self.ram.peek64(frame + 8 * (n + with_code as u64));
        let mut regs: [u64; 16] = state.regs[..16].try_into().expect("16 registers");
        regs[4] = pushed(3);
        Outcome {
            vector,
            error: if with_code { self.ram.peek64(frame) } else { 0 },
            cr2: state.cr2,
            rip: pushed(0),
            regs,
            rflags: pushed(2),
            fx: store_fx(state),
            memory: self.ram.0[DATA_FRAME as usize..][..LAYOUT.data_len()].to_vec(),
        }
    }
}

/// A processor in 64-bit user mode with the tables above.
fn user_mode(mut state: State) -> State {
    // PE, MP, ET, NE, WP, PG; PAE, OSFXSR, OSXMMEXCPT; SCE, LME, LMA, NXE.
    state.cr0 = 0x8001_0033;
    state.cr4 = 0x620;
    state.efer = 0xd01;
    state.cr3 = PML4;
    let flat = |selector, access| Segment { selector, base: 0, limit: u32::MAX, access };
    let data = flat(USER_DATA, 0xc0f3);
    state.segments = [data, flat(USER_CODE, 0xa0fb), data, data, data, data];
    state.gdtr = TableRegister { base: GDT, limit: 0x7f };
    state.idtr = TableRegister { base: IDT, limit: 0xfff };
    state.tr = Segment { selector: 0x40, base: TSS, limit: 103, access: 0x8b };
    state
}

fn load_fx(state: &mut State, fx: &Fx) {
    state.x87.control = fx.control();
    state.x87.status = fx.status();
    state.x87.tags = fx.tags();
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
