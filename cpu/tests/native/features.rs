//! Which instruction sets a processor offers, by its own CPUID answer.

use iced_x86::{Code, CpuidFeature};

/// EAX, EBX, ECX, EDX of a leaf.
pub type Leaf = [u32; 4];

/// What offers a set.
enum Sign {
    /// Every processor with long mode.
    Always,
    /// (leaf, register, bit)
    Bit(u32, usize, u32),
    /// Nothing that a processor of this vendor could answer.
    Never,
}

const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// SDM vol. 2, CPUID; for the bits of leaf 0x80000001 also AMD's manual, vol. 3, appendix E.
fn sign(feature: CpuidFeature) -> Sign {
    use CpuidFeature as F;
    use Sign::{Always, Bit, Never};
    const EXTENDED: u32 = 0x8000_0001;
    match feature {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 => Always,
        F::CPUID | F::MULTIBYTENOP | F::RDPMC | F::PAUSE | F::SMM => Always,
        F::FPU | F::FPU287 | F::FPU387 => Bit(1, EDX, 0),
        F::TSC => Bit(1, EDX, 4),
        F::MSR => Bit(1, EDX, 5),
        F::CX8 => Bit(1, EDX, 8),
        F::SEP => Bit(1, EDX, 11),
        F::CMOV => Bit(1, EDX, 15),
        F::CLFSH => Bit(1, EDX, 19),
        F::MMX => Bit(1, EDX, 23),
        F::FXSR => Bit(1, EDX, 24),
        F::SSE => Bit(1, EDX, 25),
        F::SSE2 => Bit(1, EDX, 26),
        F::SSE3 => Bit(1, ECX, 0),
        F::PCLMULQDQ => Bit(1, ECX, 1),
        F::MONITOR => Bit(1, ECX, 3),
        F::VMX => Bit(1, ECX, 5),
        F::SMX => Bit(1, ECX, 6),
        F::SSSE3 => Bit(1, ECX, 9),
        F::FMA => Bit(1, ECX, 12),
        F::CMPXCHG16B => Bit(1, ECX, 13),
        F::SSE4_1 => Bit(1, ECX, 19),
        F::SSE4_2 => Bit(1, ECX, 20),
        F::MOVBE => Bit(1, ECX, 22),
        F::POPCNT => Bit(1, ECX, 23),
        F::AES => Bit(1, ECX, 25),
        F::XSAVE => Bit(1, ECX, 26),
        F::AVX => Bit(1, ECX, 28),
        F::F16C => Bit(1, ECX, 29),
        F::RDRAND => Bit(1, ECX, 30),
        F::FSGSBASE => Bit(7, EBX, 0),
        F::SGX1 => Bit(7, EBX, 2),
        F::BMI1 => Bit(7, EBX, 3),
        F::HLE => Bit(7, EBX, 4),
        F::AVX2 => Bit(7, EBX, 5),
        F::BMI2 => Bit(7, EBX, 8),
        F::INVPCID => Bit(7, EBX, 10),
        F::RTM | F::HLE_or_RTM => Bit(7, EBX, 11),
        F::MPX => Bit(7, EBX, 14),
        F::AVX512F => Bit(7, EBX, 16),
        F::AVX512DQ => Bit(7, EBX, 17),
        F::RDSEED => Bit(7, EBX, 18),
        F::ADX => Bit(7, EBX, 19),
        F::SMAP => Bit(7, EBX, 20),
        F::CLFLUSHOPT => Bit(7, EBX, 23),
        F::CLWB => Bit(7, EBX, 24),
        F::AVX512BW => Bit(7, EBX, 30),
        F::SHA => Bit(7, EBX, 29),
        F::PREFETCHWT1 => Bit(7, ECX, 0),
        F::PKU => Bit(7, ECX, 3),
        F::WAITPKG => Bit(7, ECX, 5),
        F::CET_SS => Bit(7, ECX, 7),
        F::GFNI => Bit(7, ECX, 8),
        F::VAES => Bit(7, ECX, 9),
        F::VPCLMULQDQ => Bit(7, ECX, 10),
        F::RDPID => Bit(7, ECX, 22),
        F::KL => Bit(7, ECX, 23),
        F::CLDEMOTE => Bit(7, ECX, 25),
        F::MOVDIRI => Bit(7, ECX, 27),
        F::MOVDIR64B => Bit(7, ECX, 28),
        F::ENQCMD => Bit(7, ECX, 29),
        F::UINTR => Bit(7, EDX, 5),
        F::SERIALIZE => Bit(7, EDX, 14),
        F::TSXLDTRK => Bit(7, EDX, 16),
        F::PCONFIG => Bit(7, EDX, 18),
        F::CET_IBT => Bit(7, EDX, 20),
        F::LZCNT => Bit(EXTENDED, ECX, 5),
        F::PREFETCHW => Bit(EXTENDED, ECX, 8),
        F::SYSCALL => Bit(EXTENDED, EDX, 11),
        F::RDTSCP => Bit(EXTENDED, EDX, 27),
        F::X64 => Bit(EXTENDED, EDX, 29),
        _ => Never,
    }
}

/// Whether the instruction belongs to a set that no bit above stands for, such as those of other vendors.
pub fn is_of_others(code: Code) -> bool {
    code.cpuid_features().iter().any(|feature| matches!(sign(*feature), Sign::Never))
}

/// The leaves that [`Offered`] asks for.
pub const LEAVES: [u32; 3] = [1, 7, 0x8000_0001];

/// The instruction sets of one processor.
pub struct Offered([(u32, Leaf); 3]);

impl Offered {
    /// From what the processor's CPUID answers.
    pub fn new(mut cpuid: impl FnMut(u32) -> Leaf) -> Offered {
        Offered(LEAVES.map(|leaf| (leaf, cpuid(leaf))))
    }

    /// Whether the processor has the instruction.
    pub fn has(&self, code: Code) -> bool {
        code.cpuid_features().iter().all(|feature| match sign(*feature) {
            Sign::Always => true,
            Sign::Never => false,
            Sign::Bit(leaf, register, bit) => {
                let (_, answer) = self.0.iter().find(|(number, _)| *number == leaf).expect("a known leaf");
                answer[register] >> bit & 1 != 0
            }
        })
    }
}
