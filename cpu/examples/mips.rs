//! How many instructions a second the processor executes: some small loops in flat long mode, and the like in 32-bit
//! code.
//!
//! `cargo run --release -p cpu --example mips`

#![allow(unsafe_code)]

use std::time::Instant;

use cpu::{Bus, Cpu, CpuView, DrainKind, Exit, FlushKind, Page, REG_RIP, Segment, StoreKind};

const RAM: usize = 16 << 20;
const CODE: u64 = 0x10_0000;

/// Nothing but RAM.
struct Memory {
    ram: Vec<u8>,
}

impl Bus for Memory {
    fn page(&mut self, page: u64) -> Page {
        match self.ram.get_mut((page as usize) << 12..((page as usize) << 12) + 0x1000) {
            Some(bytes) => Page::Ram { host: bytes.as_mut_ptr() },
            None => Page::Device,
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

fn machine(code: &[u8], bits: u32) -> (Cpu<Memory>, Memory) {
    let mut memory = Memory { ram: vec![0; RAM] };
    let mut put = |at: usize, value: u64| memory.ram[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0x1000, 0x2003);
    put(0x2000, 0x3003);
    for n in 0..8 {
        put(0x3000 + n * 8, (n as u64) << 21 | 0x83);
    }
    memory.ram[CODE as usize..][..code.len()].copy_from_slice(code);
    let mut cpu = Cpu::new(1, 0);
    let mut state = cpu.state();
    state.cr0 = 0x8001_0033;
    state.cr3 = 0x1000;
    state.cr4 = 0x620;
    state.efer = 0xd01;
    state.segments = [Segment { selector: 0x18, base: 0, limit: u32::MAX, access: 0xc093 }; 6];
    state.segments[1] = Segment {
        selector: 0x10,
        base: 0,
        limit: u32::MAX,
        access: if bits == 64 { 0xa09b } else { 0xc09b },
    };
    state.regs[REG_RIP] = CODE;
    state.regs[4] = 0x20_0000;
    state.regs[3] = 0x30_0000;
    cpu.set_state(state);
    (cpu, memory)
}

fn main() {
    let loops: [(&str, &[u8], u32); 9] = [
        // add rax, rcx; imul rdx, rax, 3; xor rsi, rdx; shr rsi, 1; dec rcx; jne
        ("integer", b"\x48\x01\xc8\x48\x6b\xd0\x03\x48\x31\xd6\x48\xd1\xee\x48\xff\xc9\x75\xee\xeb\xec", 64),
        // mov rax, [rbx]; add rax, 8; mov [rbx + 8], rax; mov rdx, [rbx + rcx * 8]; cmp rdx, rax; jmp
        ("memory", b"\x48\x8b\x03\x48\x83\xc0\x08\x48\x89\x43\x08\x48\x8b\x14\xcb\x48\x39\xc2\xeb\xec", 64),
        // call f; dec rcx; jmp; f: push rbp; mov rbp, rsp; pop rbp; ret
        ("call and return", b"\xe8\x05\x00\x00\x00\x48\xff\xc9\xeb\xf6\x55\x48\x89\xe5\x5d\xc3", 64),
        // mov rsi, rbx; lea rdi, [rbx + 65536]; mov ecx, 4096; rep movsb; jmp
        (
            "rep movsb, 4 KiB",
            b"\x48\x89\xde\x48\x8d\xbb\x00\x00\x01\x00\xb9\x00\x10\x00\x00\xf3\xa4\xeb\xed",
            64,
        ),
        // lea rdi, [rbx + 65536]; mov ecx, 512; rep stosq; jmp
        ("rep stosq, 4 KiB", b"\x48\x8d\xbb\x00\x00\x01\x00\xb9\x00\x02\x00\x00\xf3\x48\xab\xeb\xef", 64),
        ("integer, 32 bits", b"\x01\xc8\x6b\xd0\x03\x31\xd6\xd1\xee\x49\x75\xf4\xeb\xf2", 32),
        ("memory, 32 bits", b"\x8b\x03\x83\xc0\x08\x89\x43\x08\x8b\x14\x8b\x39\xc2\xeb\xf1", 32),
        ("call, 32 bits", b"\xe8\x03\x00\x00\x00\x49\xeb\xf8\x55\x89\xe5\x5d\xc3", 32),
        ("rep movsb, 32 bits", b"\x89\xde\x8d\xbb\x00\x00\x01\x00\xb9\x00\x10\x00\x00\xf3\xa4\xeb\xef", 32),
    ];
    const COUNT: u64 = 100_000_000;
    for (name, code, bits) in loops {
        let (mut cpu, mut memory) = machine(code, bits);
        let start = Instant::now();
        assert_eq!(cpu.run(&mut memory, COUNT), Exit::Limit, "{name}");
        let seconds = start.elapsed().as_secs_f64();
        println!("{name:20} {:8.1} million instructions a second", COUNT as f64 / seconds / 1e6);
    }
}
