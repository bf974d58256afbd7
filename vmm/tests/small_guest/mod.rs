//! Machines for guests of a few instructions. Test programs that need them include this file.

use vmm::{BootProtocol, MachineConfig};

/// Where the code is loaded and entered.
pub const ENTRY: u64 = 0x20_0000;

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

/// A machine with one processor and 32 MiB of RAM, which enters `code` in 64-bit mode.
pub fn config(code: &[u8]) -> MachineConfig {
    MachineConfig {
        kernel: kernel(code),
        initrd: Vec::new(),
        modules: Vec::new(),
        command_line: String::new(),
        memory: 32 << 20,
        cpus: 1,
        nvdimms: Vec::new(),
        virtio_pmem: Vec::new(),
        legacy_pmem: Vec::new(),
        seed: 1,
        protocol: BootProtocol::Linux64,
    }
}
