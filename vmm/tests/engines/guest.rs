//! Small guests: straight-line code in 64-bit mode, and what is needed around it.

use iced_x86::code_asm::CodeAssembler;
use vmm::{BootProtocol, Engine, Error, Machine, MachineConfig};

/// Where the code is loaded and entered.
pub const ENTRY: u64 = 0x20_0000;
/// RAM that nothing else uses.
pub const DATA: u64 = 0x30_0000;

/// Assembles code for [`ENTRY`].
pub fn assemble(code: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(64).unwrap();
    code(&mut assembler).unwrap();
    assembler.assemble(ENTRY).unwrap()
}

/// An ELF64 executable with one loaded segment.
fn kernel(code: &[u8]) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2u16, 62].map(u16::to_le_bytes).concat());
    elf.extend(1u32.to_le_bytes());
    elf.extend([ENTRY, 64, 0].map(u64::to_le_bytes).concat());
    elf.extend(0u32.to_le_bytes());
    elf.extend([64u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    elf.extend([1u32, 5].map(u32::to_le_bytes).concat());
    let len = code.len() as u64;
    elf.extend([120, ENTRY, ENTRY, len, len, 0x1000].map(u64::to_le_bytes).concat());
    elf.extend(code);
    elf
}

pub fn config(code: &[u8]) -> MachineConfig {
    MachineConfig {
        kernel: kernel(code),
        initrd: Vec::new(),
        modules: Vec::new(),
        command_line: String::new(),
        memory: 32 << 20,
        cpus: 1,
        nvdimms: Vec::new(),
        seed: 1,
        protocol: BootProtocol::Linux64,
    }
}

/// A machine on KVM, `None` (said loudly) where there is none.
pub fn on_kvm(config: &MachineConfig) -> Option<Machine> {
    match Machine::on(Engine::Kvm, config) {
        Ok(machine) => Some(machine),
        Err(Error::Kvm(why)) => {
            println!("SKIPPED: {why}");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

pub fn word(machine: &Machine, at: u64) -> u64 {
    let mut bytes = [0; 8];
    machine.read_pmem(at, &mut bytes);
    u64::from_le_bytes(bytes)
}
