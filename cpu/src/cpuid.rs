//! CPUID: one model. It offers only what is there. SDM vol. 2, CPUID.

use crate::{Bus, Cpu, Fault, Model, op::Op, registers::CR4_SMAP};

/// EAX, EBX, ECX, EDX of one leaf.
type Leaf = [u32; 4];

/// Hertz of the crystal that leaf 0x15 tells of; the TSC counts [`TSC_RATIO`] times as fast.
const CRYSTAL: u32 = 25_000_000;
const TSC_RATIO: u32 = 40;

/// Family 6, model 0x36, stepping 1: an in-order core. Linux knows (`cpu_vuln_whitelist`) that these do not speculate,
/// which is true of this one, and so leaves its mitigations off.
const SIGNATURE: u32 = 0x0003_0661;

const LAST_BASIC: u32 = 0x16;
const LAST_EXTENDED: u32 = 0x8000_0008;

/// CPUID
pub(crate) fn execute<B: Bus>(cpu: &mut Cpu<B>, bus: &mut B, _: &Op<B>) -> Result<(), Fault> {
    let (leaf, subleaf) = (cpu.state.regs[0] as u32, cpu.state.regs[1] as u32);
    let [a, b, c, d] = answer(&cpu.state.model, leaf, subleaf, cpu.state.vcpu, cpu.processors());
    for (register, value) in [(0, a), (3, b), (1, c), (2, d)] {
        cpu.state.regs[register] = u64::from(value);
    }
    cpu.drain_serialising(bus);
    Ok(())
}

/// What CPUID says of processor `vcpu`, one of `processors`: EAX, EBX, ECX, EDX of a leaf.
pub(crate) fn answer(model: &Model, leaf: u32, subleaf: u32, vcpu: u8, processors: u8) -> Leaf {
    let [a, b, c, d] = unrestricted(model, leaf, subleaf, vcpu, processors);
    let withheld = &model.withheld;
    match leaf {
        1 => [a, b, c & !withheld.leaf_1_ecx, d & !withheld.leaf_1_edx],
        7 if subleaf == 0 => [a, b & !withheld.leaf_7_ebx, c, d],
        0x8000_0001 => [a, b, c & !withheld.extended_ecx, d & !withheld.extended_edx],
        _ => [a, b, c, d],
    }
}

fn unrestricted(model: &Model, leaf: u32, subleaf: u32, vcpu: u8, processors: u8) -> Leaf {
    let mhz = model.tsc_khz / 1000;
    match leaf {
        0 => [LAST_BASIC, word(b"Genu"), word(b"ntel"), word(b"ineI")],
        1 => with_machine_checks(model, features(vcpu, processors)),
        // Descriptors of caches and TLBs: see leaf 4.
        2 => [0x00ff_ff01, 0, 0, 0],
        4 => cache(subleaf, processors),
        // APIC timer runs in every power state (ARAT).
        6 => [1 << 2, 0, 0, 0],
        7 if subleaf == 0 => [0, structured_features(), 0, 0],
        0xb if processors > 1 => topology(subleaf, vcpu, processors),
        0x15 if model.tsc_khz == CRYSTAL / 1000 * TSC_RATIO => [1, TSC_RATIO, CRYSTAL, 0],
        // As exact as Linux can multiply: native_calibrate_tsc has 32 bits for EBX times the crystal's kilohertz.
        0x15 => [CRYSTAL / 100_000, model.tsc_khz / 100, CRYSTAL, 0],
        0x16 => [mhz, mhz, 100, 0],
        0x8000_0000 => [LAST_EXTENDED, 0, 0, 0],
        0x8000_0001 => extended_features(),
        0x8000_0002 => [word(b"pmem"), word(b"sim\0"), 0, 0],
        0x8000_0003 | 0x8000_0004 => [0; 4],
        0x8000_0006 => [0, 0, 0x0100_6040, 0],
        0x8000_0007 => [0, 0, 0, 1 << 8],
        0x8000_0008 => [48 << 8 | crate::paging::PHYSICAL_BITS, 0, 0, 0],
        // Intel processors answer a leaf that they do not have like their last basic one.
        LAST_BASIC..0x4000_0000 | LAST_EXTENDED.. => [mhz, mhz, 100, 0],
        _ => [0; 4],
    }
}

fn word(text: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*text)
}

fn bits(numbers: &[u32]) -> u32 {
    numbers.iter().fold(0, |all, number| all | 1 << number)
}

fn features(vcpu: u8, processors: u8) -> Leaf {
    let clflush_bytes = 64 / 8;
    let ebx = u32::from(vcpu) << 24 | u32::from(processors) << 16 | clflush_bytes << 8;
    // SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT, TSC deadline, RDRAND
    let ecx = bits(&[0, 9, 13, 19, 20, 23, 24, 30]);
    // FPU, DE, PSE, TSC, MSR, PAE, CX8, APIC, SEP, MTRR, PGE, CMOV, PAT, PSE36, CLFSH, MMX, FXSR, SSE, SSE2
    let edx = bits(&[0, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 15, 16, 17, 19, 23, 24, 25, 26]);
    // HTT: the number in EBX counts.
    [SIGNATURE, ebx, ecx, edx | u32::from(processors > 1) << 28]
}

/// MCE, MCA
fn with_machine_checks(model: &Model, [a, b, c, d]: Leaf) -> Leaf {
    [a, b, c, if model.machine_checks { d | bits(&[7, 14]) } else { d }]
}

/// FSGSBASE, SMEP, ERMS, x87 selectors that read as 0, RDSEED, SMAP, CLFLUSHOPT, CLWB
fn structured_features() -> u32 {
    bits(&[0, 7, 9, 13, 18, 20, 23, 24])
}

fn extended_features() -> Leaf {
    // LAHF, PREFETCHW; SYSCALL, NX, 1 GiB pages, RDTSCP, long mode
    [0, 0, bits(&[0, 8]), bits(&[11, 20, 26, 27, 29])]
}

/// One level of topology a subleaf: one thread a core, every core in one package. EDX is the APIC ID.
fn topology(subleaf: u32, vcpu: u8, processors: u8) -> Leaf {
    let (id_bits, here, kind) = match subleaf {
        0 => (0, 1, 1),
        1 => (processors.next_power_of_two().trailing_zeros(), processors, 2),
        _ => (0, 0, 0),
    };
    [id_bits, here.into(), kind << 8 | subleaf & 0xff, vcpu.into()]
}

/// One level of cache a subleaf: 32 KiB data, 32 KiB instructions, 256 KiB unified; 8 ways, lines of 64 bytes. Each
/// core has its own.
fn cache(subleaf: u32, processors: u8) -> Leaf {
    let (kind, level, sets) = match subleaf {
        0 => (1, 1, 64),
        1 => (2, 1, 64),
        2 => (3, 2, 512),
        _ => return [0; 4],
    };
    let self_initialising = 1 << 8;
    let core_ids = u32::from(processors.next_power_of_two()) - 1;
    [core_ids << 26 | kind | level << 5 | self_initialising, 7 << 22 | 63, sets - 1, 0]
}

// What leaf 7 offers, CR4 must accept.
const _: () = assert!(crate::registers::CR4_DEFINED & CR4_SMAP != 0);
