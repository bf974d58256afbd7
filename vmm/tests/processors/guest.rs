//! Guests of one processor, or whose bootstrap processor starts the second one, that execute some code in 64-bit mode.

use vmm::{Machine, MachineConfig, Nvdimm};

use crate::small_guest::{ENTRY, config};

/// Where the code of the second processor begins.
const SECOND: u64 = ENTRY + 0x1000;
/// Where the code lies that brings the second processor from real mode to [`SECOND`].
const TRAMPOLINE: u64 = ENTRY + 0x2000;
/// What the guest's RBP points at: words of RAM that are 0 at first.
pub const RAM: u64 = 0x30_0000;
/// What the guest's RBX points at: the last word of a line of persistent memory.
pub const X: u64 = 0x1038;

/// In 64-bit mode, before either processor's own code: RBX and RBP as above, RDX is 1.
const PROLOGUE: &[&[u8]] = &[
    &[0x48, 0xbb, 0x38, 0x10, 0, 0, 1, 0, 0, 0], // mov rbx, 0x1_0000_1038
    &[0xbd, 0, 0, 0x30, 0],                      // mov ebp, RAM
    &[0xba, 1, 0, 0, 0],                         // mov edx, 1
];

/// Maps the GiB with persistent memory, copies the trampoline to page 0x50, and sends INIT and a start-up message to
/// processor 1.
const START_SECOND: &[&[u8]] = &[
    &[0x0f, 0x20, 0xd8],                         // mov rax, cr3
    &[0xa3, 0xf8, 0x0f, 0x05, 0, 0, 0, 0, 0],    // mov [0x50ff8], eax
    &[0x48, 0x8b, 0x00],                         // mov rax, [rax]
    &[0x48, 0x25, 0, 0xf0, 0xff, 0xff],          // and rax, -4096
    &[0x48, 0xb9, 0x83, 0, 0, 0, 1, 0, 0, 0],    // mov rcx, 0x1_0000_0083: 1 GiB from 4 GiB
    &[0x48, 0x89, 0x48, 0x20],                   // mov [rax + 4 * 8], rcx
    &[0xbe, 0, 0x20, 0x20, 0],                   // mov esi, TRAMPOLINE
    &[0xbf, 0, 0, 0x05, 0],                      // mov edi, 0x50000
    &[0xb9, 0, 2, 0, 0],                         // mov ecx, 512
    &[0xf3, 0xa4],                               // rep movsb
    &[0xbf, 0, 0, 0xe0, 0xfe],                   // mov edi, 0xfee00000
    &[0xc7, 0x87, 0x10, 3, 0, 0, 0, 0, 0, 1],    // mov dword [rdi + 0x310], 1 << 24: to APIC ID 1
    &[0xc7, 0x87, 0, 3, 0, 0, 0, 0x45, 0, 0],    // mov dword [rdi + 0x300], 0x4500: INIT
    &[0xc7, 0x87, 0, 3, 0, 0, 0x50, 0x46, 0, 0], // mov dword [rdi + 0x300], 0x4650: start at 0x50000
];

/// From real mode straight to 64-bit mode: paging, protection and long mode are switched on at once.
const FROM_REAL_MODE: &[&[u8]] = &[
    &[0xfa],                                  // cli
    &[0x8c, 0xc8],                            // mov ax, cs
    &[0x8e, 0xd8],                            // mov ds, ax
    &[0x66, 0x0f, 0x01, 0x16, 0xf0, 0x01],    // lgdt [0x1f0], 32-bit base
    &[0x66, 0xa1, 0xf8, 0x0f],                // mov eax, [0xff8]
    &[0x0f, 0x22, 0xd8],                      // mov cr3, eax
    &[0x66, 0xb8, 0x20, 0x06, 0, 0],          // mov eax, 0x620: PAE, OSFXSR, OSXMMEXCPT
    &[0x0f, 0x22, 0xe0],                      // mov cr4, eax
    &[0x66, 0xb9, 0x80, 0, 0, 0xc0],          // mov ecx, 0xc000_0080: EFER
    &[0x0f, 0x32],                            // rdmsr
    &[0x66, 0x0d, 0, 1, 0, 0],                // or eax, 0x100: LME
    &[0x0f, 0x30],                            // wrmsr
    &[0x66, 0xb8, 0x33, 0, 0x01, 0x80],       // mov eax, 0x8001_0033: PG, WP, NE, ET, MP, PE
    &[0x0f, 0x22, 0xc0],                      // mov cr0, eax
    &[0x66, 0xea, 0, 0x10, 0x20, 0, 0x10, 0], // jmp far 0x10:SECOND
];
/// Where the descriptor table lies in the trampoline's page, and the operand of its LGDT.
const TABLE: usize = 0x100;
const TABLE_REGISTER: usize = 0x1f0;

fn trampoline() -> Vec<u8> {
    let mut page = FROM_REAL_MODE.concat();
    page.resize(512, 0);
    let table: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    page[TABLE..TABLE + 32].copy_from_slice(&table.map(u64::to_le_bytes).concat());
    page[TABLE_REGISTER..TABLE_REGISTER + 6].copy_from_slice(&[31, 0, 0, 1, 0x05, 0]);
    page
}

/// Enables SSE and sets XMM0 to 1 in both halves, then R8 and R9 to the first flush hints of two DIMMs.
fn prologue_of_one() -> Vec<u8> {
    let mut code = PROLOGUE.concat();
    let instructions: [&[u8]; 5] = [
        &[0x0f, 0x20, 0xe0],             // mov rax, cr4
        &[0x0d, 0, 6, 0, 0],             // or eax, 0x600: OSFXSR, OSXMMEXCPT
        &[0x0f, 0x22, 0xe0],             // mov cr4, rax
        &[0x66, 0x48, 0x0f, 0x6e, 0xc2], // movq xmm0, rdx
        &[0x66, 0x0f, 0x6c, 0xc0],       // punpcklqdq xmm0, xmm0
    ];
    code.extend(instructions.concat());
    for (index, opcode) in [[0x49, 0xb8], [0x49, 0xb9]].iter().enumerate() {
        code.extend(opcode); // mov r8/r9, hint
        code.extend(devices::map::flush_hints(index, 1)[0].to_le_bytes());
    }
    code.extend(START_SECOND[..6].concat());
    code
}

/// A machine with one processor and two DIMMs, which executes this code.
pub fn machine_with_one(code: &[u8]) -> Machine {
    let code = [prologue_of_one(), code.to_vec()].concat();
    Machine::new(&with(&code, 1, 2, 0)).unwrap_or_else(|error| panic!("{error}"))
}

/// A machine with two processors and 2 MiB of persistent memory, whose processors execute this code.
pub fn machine(first: &[u8], second: &[u8], seed: u64) -> Machine {
    Machine::new(&config_of_two(first, second, seed)).unwrap_or_else(|error| panic!("{error}"))
}

/// What [`machine`] is made of.
pub fn config_of_two(first: &[u8], second: &[u8], seed: u64) -> MachineConfig {
    let mut code = [PROLOGUE.concat(), START_SECOND.concat(), first.to_vec()].concat();
    assert!(code.len() as u64 <= SECOND - ENTRY, "the first processor's code is too long");
    code.resize((SECOND - ENTRY) as usize, 0xcc);
    code.extend(PROLOGUE.concat());
    code.extend(second);
    assert!(code.len() as u64 <= TRAMPOLINE - ENTRY, "the second processor's code is too long");
    code.resize((TRAMPOLINE - ENTRY) as usize, 0xcc);
    code.extend(trampoline());
    with(&code, 2, 1, seed)
}

fn with(code: &[u8], cpus: u8, nvdimms: usize, seed: u64) -> MachineConfig {
    let nvdimm = Nvdimm { size: 2 << 20, flush_hints: 1, ..Nvdimm::default() };
    MachineConfig { cpus, nvdimms: vec![nvdimm; nvdimms], seed, ..config(code) }
}
