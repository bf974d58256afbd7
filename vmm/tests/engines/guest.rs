//! Small guests: straight-line code in 64-bit mode, and what is needed around it.

use std::io::Write;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use vmm::{Engine, Error, KvmCounts, Machine, MachineConfig, Stop};

pub use crate::small_guest::{ENTRY, config};

/// RAM that nothing else uses: RBP points at it.
pub const DATA: u64 = 0x30_0000;
/// The interrupt table, and the operand of its LIDT.
const TABLE: u64 = 0x31_0000;
const TABLE_OPERAND: u64 = 0x31_1000;
/// Nanoseconds, or instructions, that no guest here needs.
pub const BUDGET: u64 = 60_000_000_000;
/// What a guest exits with that got where it should.
const DONE: u32 = 21;

/// What a guest is made of.
pub struct Guest {
    assembler: CodeAssembler,
    handlers: Vec<(u8, CodeLabel)>,
}

type Made = Result<(), IcedError>;

impl Guest {
    /// A guest whose code begins with RBP at [`DATA`], an interrupt table for its handlers loaded, and a stack.
    pub fn code(code: impl FnOnce(&mut Guest) -> Made) -> Vec<u8> {
        let mut guest = Guest { assembler: CodeAssembler::new(64).unwrap(), handlers: Vec::new() };
        guest.made(code).unwrap()
    }

    fn made(&mut self, code: impl FnOnce(&mut Guest) -> Made) -> Result<Vec<u8>, IcedError> {
        let mut handlers = self.assembler.create_label();
        let mut begin = self.assembler.create_label();
        self.mov(ebp, DATA as u32)?;
        self.mov(esp, 0x33_0000u32)?;
        self.mov(rdi, TABLE)?;
        self.jmp(handlers)?;
        self.assembler.set_label(&mut begin)?;
        self.mov(eax, TABLE_OPERAND as u32)?;
        self.mov(word_ptr(rax), 0xfff)?;
        self.mov(dword_ptr(rax + 2), TABLE as u32)?;
        self.mov(dword_ptr(rax + 6), 0)?;
        self.lidt(ptr(rax))?;
        // SSE is on.
        self.mov(rax, cr4)?;
        self.or(eax, 0x600)?;
        self.mov(cr4, rax)?;
        // No flag is left undefined.
        self.cmp(eax, eax)?;
        code(self)?;
        self.exit(DONE)?;
        self.assembler.set_label(&mut handlers)?;
        for (vector, label) in std::mem::take(&mut self.handlers) {
            // A 64-bit interrupt gate to the 64-bit code segment of the boot protocol.
            let at = 16 * i32::from(vector);
            self.lea(rax, ptr(label))?;
            self.mov(word_ptr(rdi + at), ax)?;
            self.mov(word_ptr(rdi + at + 2), 0x10)?;
            self.mov(word_ptr(rdi + at + 4), 0x8e00)?;
            self.shr(rax, 16)?;
            self.mov(word_ptr(rdi + at + 6), ax)?;
        }
        self.jmp(begin)?;
        self.assembler.assemble(ENTRY)
    }

    /// Exceptions or interrupts with `vector` go to `label`.
    pub fn handle(&mut self, vector: u8, label: CodeLabel) {
        self.handlers.push((vector, label));
    }

    /// Makes user mode possible: pages from 2 MiB on are for users, 64-bit segments of theirs are 0x2b and 0x23, and
    /// exceptions find a stack. Uses what is 0x4000 and 0x5000 behind [`DATA`].
    pub fn prepare_user_mode(&mut self) -> Made {
        let table = DATA as i32 + 0x4000;
        let task = DATA + 0x5000;
        // Pages from 2 MiB on are for users.
        self.mov(rax, cr3)?;
        self.or(qword_ptr(rax), 4)?;
        self.mov(rax, qword_ptr(rax))?;
        self.and(rax, -4096)?;
        self.or(qword_ptr(rax), 4)?;
        self.mov(rax, qword_ptr(rax))?;
        self.and(rax, -4096)?;
        self.or(qword_ptr(rax + 8), 4)?;
        self.mov(rax, cr3)?;
        self.mov(cr3, rax)?;
        // Segments: code and data for the kernel, data and code for users, a task with a stack.
        let task_segment = 0x8900_0000_0067 | (task & 0xffff) << 16 | (task >> 16 & 0xff) << 32;
        let segments = [
            0u64,
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
        ];
        for (number, segment) in (0..).zip(segments.into_iter().chain([task_segment, 0])) {
            self.mov(rax, segment)?;
            self.mov(qword_ptr(rbp + 0x4000 + 8 * number), rax)?;
        }
        self.mov(word_ptr(rbp + 0x4100), 0x3f)?;
        self.mov(qword_ptr(rbp + 0x4102), table)?;
        self.lgdt(ptr(rbp + 0x4100))?;
        self.mov(dword_ptr(rbp + 0x5004), 0x32_f000)?;
        self.mov(ax, 0x30)?;
        self.ltr(ax)?;
        Ok(())
    }

    /// Goes to `user` in user mode.
    pub fn enter_user_mode(&mut self, user: CodeLabel) -> Made {
        for value in [0x23, 0x32_0000, 2, 0x2b] {
            self.push(value)?;
        }
        self.lea(rax, ptr(user))?;
        self.push(rax)?;
        self.iretq()
    }

    /// Ends by the debug-exit port.
    pub fn exit(&mut self, value: u32) -> Made {
        self.mov(dx, 0xf4)?;
        self.mov(eax, value)?;
        self.out(dx, eax)?;
        self.cli()?;
        self.hlt()
    }
}

impl std::ops::Deref for Guest {
    type Target = CodeAssembler;
    fn deref(&self) -> &CodeAssembler {
        &self.assembler
    }
}

impl std::ops::DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut CodeAssembler {
        &mut self.assembler
    }
}

/// A machine on KVM, which executes everything that it can. `None` (said loudly) where there is no KVM.
pub fn on_kvm(config: &MachineConfig) -> Option<Machine> {
    let mut machine = as_is(config)?;
    machine.set_assist(1);
    Some(machine)
}

/// A machine on KVM and with the help that suits the host.
pub fn as_is(config: &MachineConfig) -> Option<Machine> {
    match Machine::on(Engine::Kvm, config) {
        Ok(machine) => Some(machine),
        Err(Error::Kvm(why)) => {
            // Not println: the harness would swallow it.
            let said = format!("SKIPPED: {why}\n");
            std::io::stderr().write_all(said.as_bytes()).expect("standard error takes a line");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// The same machine on both engines, the one on KVM first.
pub fn on_both(config: &MachineConfig) -> Option<[Machine; 2]> {
    let mut other = on_kvm(config)?;
    other.set_engine(Engine::Software).unwrap();
    Some([on_kvm(config)?, other])
}

/// Everything in RAM.
pub fn memory(machine: &Machine) -> Vec<u8> {
    let mut bytes = vec![0; 32 << 20];
    machine.read_pmem(0, &mut bytes);
    bytes
}

pub fn word(machine: &Machine, at: u64) -> u64 {
    let mut bytes = [0; 8];
    machine.read_pmem(at, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// Runs `code` to its end on both engines, and wants the same of them: how they stop, the console, all of RAM and the
/// registers. Returns the machine on KVM, if there is one.
#[track_caller]
pub fn same(code: &[u8]) -> Option<Machine> {
    same_until(code, Stop::DebugExit(DONE))
}

/// As [`same`], with another end.
#[track_caller]
pub fn same_until(code: &[u8], end: Stop) -> Option<Machine> {
    let mut machines = on_both(&config(code))?;
    for machine in &mut machines {
        let stop = machine.run(BUDGET);
        assert_eq!(stop, end, "{:?} at {:#x}", machine.engine(), machine.cpu_state().rip());
    }
    let [mut kvm, mut software] = machines;
    assert_eq!(kvm.take_console(), software.take_console());
    let (ours, theirs) = (memory(&software), memory(&kvm));
    let differing: Vec<usize> =
        (0..ours.len()).step_by(8).filter(|&at| ours[at..at + 8] != theirs[at..at + 8]).collect();
    let show = |at: &usize| {
        format!("{at:#x}: software {:#x}, kvm {:#x}", word(&software, *at as u64), word(&kvm, *at as u64))
    };
    assert!(differing.is_empty(), "{:#?}", differing.iter().take(20).map(show).collect::<Vec<_>>());
    if end == Stop::Shutdown {
        // What a processor in shutdown has in its registers is nobody's business.
        return Some(kvm);
    }
    let registers = |machine: &Machine| {
        let state = machine.cpu_state();
        (state.regs, state.rflags, state.xmm, state.mxcsr, state.cr2, state.dr)
    };
    assert_eq!(registers(&kvm), registers(&software));
    Some(kvm)
}

/// What a machine on KVM counted.
pub fn counts(machine: &Machine) -> KvmCounts {
    machine.kvm_counts().unwrap()
}
