//! Small guests that want the machine to hang.

use vmm::{BootProtocol, Machine, MachineConfig, Stop};

/// Where the code is loaded and entered.
const ENTRY: u64 = 0x20_0000;

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

fn run(code: &[u8]) -> Stop {
    let config = MachineConfig {
        kernel: kernel(code),
        initrd: Vec::new(),
        modules: Vec::new(),
        command_line: String::new(),
        memory: 64 << 20,
        cpus: 1,
        nvdimms: Vec::new(),
        virtio_pmem: Vec::new(),
        legacy_pmem: Vec::new(),
        seed: 1,
        protocol: BootProtocol::Linux64,
    };
    Machine::new(&config).unwrap_or_else(|error| panic!("{error}")).run(1_000_000)
}

#[test]
fn a_timer_that_never_wakes_a_halted_processor_does_not_hang_the_machine() {
    // PIT channel 0 in mode 2, its IOAPIC pin masked as at power-on; interrupts off; halt.
    let code = [0xfa, 0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x10, 0xe6, 0x40, 0xe6, 0x40, 0xf4, 0xeb, 0xfd];
    assert_eq!(run(&code), Stop::Idle);
}

#[test]
fn a_processor_halted_for_good_is_idle() {
    assert_eq!(run(&[0xfa, 0xf4]), Stop::Idle);
}

#[test]
fn an_endless_loop_ends_with_the_budget() {
    assert_eq!(run(&[0xeb, 0xfe]), Stop::Budget);
}
