//! Where QEMU 7.2 (TCG) does not do what the SDM says. Each entry names the cases and the reason. An entry that no
//! longer explains anything fails the test.

use crate::privileged::name;

/// How two outcomes may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Differ {
    /// In any way.
    Anyhow,
    /// In the error codes that name a gate of the IDT: QEMU takes the vector 16 times instead of 8 times, and leaves
    /// out the bit EXT.
    InGateCodes,
    /// In what is told in brackets at the end: marks of page-table entries.
    InMarks,
    /// In the accessed marks of descriptors.
    InDescriptors,
    /// In the selector in SS.
    InStackSelector,
}

struct Deviation {
    /// Names of cases; `*` stands for anything.
    cases: &'static [&'static str],
    differ: Differ,
    why: &'static str,
}

use Differ::*;

const DEVIATIONS: &[Deviation] = &[
    // Control and debug registers.
    Deviation {
        cases: &["privilege mov-*-cr1 *", "privilege mov-*-cr5 *", "privilege mov-*-cr9 *"],
        differ: Anyhow,
        why: "QEMU looks at CPL before it looks whether the register exists: #GP instead of #UD (SDM vol. 2, MOV CR)",
    },
    Deviation {
        cases: &["privilege lock-mov-*"],
        differ: Anyhow,
        why: "QEMU accepts LOCK in front of MOV CR and MOV DR, as AMD does for CR8: must be #UD",
    },
    Deviation {
        cases: &["privilege rdpmc cpl 0"],
        differ: Anyhow,
        why: "QEMU has no RDPMC: #UD instead of #GP for a counter that does not exist",
    },
    Deviation {
        cases: &["mov-cr0 a0010033", "mov-cr0 180010033", "mov-cr0 ffffffff"],
        differ: Anyhow,
        why: "QEMU does not refuse NW without CD nor bits 63 to 32, and keeps reserved bits (SDM vol. 2, MOV CR)",
    },
    Deviation {
        cases: &["mov-cr4 bit 0", "mov-cr4 bit 1"],
        differ: Anyhow,
        why: "QEMU lets CR4.VME and PVI be set although CPUID does not offer them",
    },
    Deviation {
        cases: &["mov-cr8 10", "mov-cr8 100", "mov-cr8 8000000000000000"],
        differ: Anyhow,
        why: "QEMU takes the lower 4 bits for CR8 instead of #GP (SDM vol. 3, 11.8.6.1)",
    },
    Deviation {
        cases: &["debug-registers dr*"],
        differ: Anyhow,
        why: "QEMU keeps reserved bits of DR6 (12) and DR7 (11, 12, 14, 15), which read as 0 (SDM vol. 3, 18.2)",
    },
    Deviation { cases: &["breakpoint general detect"], differ: Anyhow, why: "QEMU does not know DR7.GD" },
    // Model-specific registers.
    Deviation {
        cases: &["msr sysenter-cs *"],
        differ: Anyhow,
        why: "QEMU keeps 16 bits of IA32_SYSENTER_CS; processors keep more",
    },
    Deviation {
        cases: &["msr * 7040600070406", "msr * 800000000000", "bases wrfsbase *"],
        differ: Anyhow,
        why: "QEMU does not refuse addresses that are not canonical (SDM vol. 2, WRMSR and WRFSBASE)",
    },
    Deviation {
        cases: &["msr pat *", "msr fmask *", "msr tsc-aux *", "msr mtrr-physbase0 *", "msr-efer *"],
        differ: Anyhow,
        why: "QEMU does not refuse reserved bits and memory types (SDM vol. 4), and ignores a change of LME",
    },
    Deviation {
        cases: &["msr-privilege rdmsr of *", "msr-privilege wrmsr of *"],
        differ: Anyhow,
        why: "QEMU reads registers that do not exist as 0 and ignores writes: must be #GP",
    },
    // Segments and tables.
    Deviation {
        cases: &["lar* 170 cpl 0", "lsl* 170 cpl 0"],
        differ: Anyhow,
        why: "QEMU shows a 16-bit TSS in long mode, where the type is reserved (SDM vol. 2, LAR and LSL)",
    },
    Deviation {
        cases: &[
            "mov-ss * cpl *",
            "lss * cpl *",
            "iretq-stack * of *",
            "retf-stack * for cpl * of *",
            "retf-release * cpl 0",
            "retf-release * cpl 1",
        ],
        differ: Anyhow,
        why: "QEMU loads a null selector into SS whose RPL is not CPL; a stack that is absent is #NP instead of #SS",
    },
    Deviation { cases: &["lgs-quad *"], differ: Anyhow, why: "QEMU ignores REX.W of LGS, as AMD does" },
    Deviation {
        cases: &["descriptor-tables lgdt *", "descriptor-tables lidt *"],
        differ: Anyhow,
        why: "QEMU loads bases of tables that are not canonical",
    },
    Deviation {
        cases: &[
            "segment-use stack at *",
            "segment-use push at *",
            "segment-use by rbp at *",
            "segment-use by ss at *",
        ],
        differ: Anyhow,
        why: "QEMU raises #GP instead of #SS for stack addresses that are not canonical",
    },
    Deviation {
        cases: &["segment-use data at 7ffffffffffc"],
        differ: Anyhow,
        why: "QEMU misses the first page of an operand before it sees that the rest is not canonical; hardware refuses it",
    },
    Deviation {
        cases: &["segment-use clflush *"],
        differ: Anyhow,
        why: "QEMU's CLFLUSH does nothing, not even look at its address",
    },
    // Transfers.
    Deviation {
        cases: &[
            "segment-use jump to *",
            "segment-use call of *",
            "segment-use return to *",
            "far-address *",
            "iretq-address *",
            "sysret to *",
            "*-far* 148 cpl *",
            "*-far* 149 cpl *",
            "*-far* 14a cpl *",
            "*-far* 14b cpl *",
            "call-gate 148 cpl *",
        ],
        differ: Anyhow,
        why: "QEMU goes to addresses that are not canonical or above a limit, and faults there",
    },
    Deviation {
        cases: &["*-far* b0 cpl 0", "retf* b0 cpl 0", "iret* b0 cpl 0"],
        differ: Anyhow,
        why: "QEMU goes to a code segment with both L and D",
    },
    Deviation {
        cases: &["call-far* 38 cpl *", "retf* 38 cpl 0", "iret* 38 cpl 0"],
        differ: Anyhow,
        why: "QEMU does not hold the target against the limit of a 16-bit segment, or tells its selector",
    },
    Deviation {
        cases: &[
            "call-gate 1c8 cpl *",
            "*-far* 1c8 cpl *",
            "*-far* 1c9 cpl *",
            "*-far* 1ca cpl *",
            "*-far* 1cb cpl *",
        ],
        differ: Anyhow,
        why: "QEMU raises #GP instead of #NP for the absent target of a call gate",
    },
    Deviation {
        cases: &[
            "call-gate e8 cpl *",
            "call-far* e8 cpl *",
            "call-far* e9 cpl *",
            "call-far* ea cpl *",
            "call-far* eb cpl *",
        ],
        differ: Anyhow,
        why: "QEMU leaves the RPL of CS 0 when a gate leads to a conforming segment",
    },
    Deviation {
        cases: &["*-far* cpl *", "retf* cpl *", "iret* cpl *", "iretq-stack *", "retf-stack *"],
        differ: InDescriptors,
        why: "QEMU does not set the accessed bit of code segments, nor of stack segments by returns",
    },
    // System calls.
    Deviation {
        cases: &["syscall cpl * flags *"],
        differ: Anyhow,
        why: "QEMU's SYSCALL loses the arithmetic flags",
    },
    Deviation {
        cases: &["syscall from 32 bits"],
        differ: Anyhow,
        why: "QEMU allows SYSCALL in compatibility mode, as AMD does",
    },
    Deviation {
        cases: &["sysret flags *"],
        differ: Anyhow,
        why: "QEMU's SYSRET does not load VIF and VIP, and loads VM (SDM vol. 2, SYSRET)",
    },
    // Delivery.
    Deviation { cases: &["int int1 cpl *"], differ: Anyhow, why: "QEMU does not know INT1" },
    Deviation {
        cases: &["int *", "gate-type *", "idt-limit *", "double-fault *"],
        differ: InGateCodes,
        why: "QEMU's error codes for gates of the IDT count 16 a vector instead of 8, and lack EXT (SDM vol. 3, 6.13)",
    },
    Deviation {
        cases: &["gate-selector *"],
        differ: InStackSelector,
        why: "QEMU loads a null SS with every stack of the IST, also when CPL stays (SDM vol. 3, 6.14.4)",
    },
    // Pages.
    Deviation {
        cases: &["page-rights *", "page-reserved *", "page-marks *, read-only"],
        differ: InMarks,
        why: "QEMU sets accessed bits on the way to a fault; the SDM leaves it open (vol. 3, 4.8)",
    },
    Deviation {
        cases: &["page-marks clflush*"],
        differ: InMarks,
        why: "QEMU's CLFLUSH does nothing; it is a load for paging (SDM vol. 2, CLFLUSH)",
    },
    Deviation {
        cases: &["page-reserved *", "page-large *", "page-no-execute-off *"],
        differ: Anyhow,
        why: "QEMU leaves out P of the error code when a reserved bit is set (SDM vol. 3, 4.7)",
    },
    Deviation {
        cases: &["page-crossing read-modify-write"],
        differ: Anyhow,
        why: "QEMU reads first and tells of a read; an instruction that writes what it read tells of a write",
    },
    // Outside of long mode.
    Deviation {
        cases: &["32-call-far d* cpl *", "32-jmp-far d* cpl *"],
        differ: Anyhow,
        why: "QEMU takes 32 bits of the offset in a 16-bit call gate (SDM vol. 2, CALL)",
    },
    Deviation {
        cases: &[
            "32-call-far e8 cpl *",
            "32-call-far e9 cpl *",
            "32-call-far ea cpl *",
            "32-call-far eb cpl *",
        ],
        differ: Anyhow,
        why: "QEMU leaves the RPL of CS 0 when a gate leads to a conforming segment, and the case takes that for CPL",
    },
    Deviation {
        cases: &["32-privilege mov-from-cr8 cpl *"],
        differ: Anyhow,
        why: "QEMU takes LOCK MOV CR0 for CR8, as AMD does: must be #UD",
    },
    Deviation {
        cases: &["32-limit *"],
        differ: Anyhow,
        why: "QEMU holds no access against the limit and the rights of its segment",
    },
    Deviation {
        cases: &["32-gate-type *", "32-gate-selector *"],
        differ: InGateCodes,
        why: "QEMU leaves out the bit EXT of error codes (SDM vol. 3, 6.13)",
    },
];

/// What is left of the differences.
pub struct Judged {
    /// How many are explained.
    pub known: usize,
    /// Those that are not.
    pub unknown: Vec<String>,
    /// Reasons that explain nothing.
    pub unused: Vec<&'static str>,
}

/// Sorts the differing pairs of lines, ours and theirs, by what explains them.
pub fn judge(pairs: &[(&str, &str)]) -> Judged {
    let mut used = vec![false; DEVIATIONS.len()];
    let mut judged = Judged { known: 0, unknown: Vec::new(), unused: Vec::new() };
    for &(ours, theirs) in pairs {
        let name = name(theirs);
        let matching: Vec<usize> = (0..DEVIATIONS.len())
            .filter(|&index| DEVIATIONS[index].cases.iter().any(|pattern| matches(pattern, name)))
            .collect();
        let (mut left, mut right) = (ours.to_owned(), theirs.to_owned());
        for &index in &matching {
            let (a, b) =
                (without(DEVIATIONS[index].differ, &left), without(DEVIATIONS[index].differ, &right));
            used[index] |= (a == left) != (b == right) || a == b && left != right;
            (left, right) = (a, b);
        }
        if left == right {
            judged.known += 1;
        } else {
            judged.unknown.push(format!("ours {ours}\nQEMU {theirs}"));
        }
    }
    let unused = DEVIATIONS.iter().zip(used).filter(|(_, used)| !used);
    judged.unused = unused.map(|(deviation, _)| deviation.why).collect();
    judged
}

/// The line without what may differ.
fn without(differ: Differ, line: &str) -> String {
    let drop = |start: &str| {
        let kept = line.split(' ').filter(|word| !word.starts_with(start));
        kept.collect::<Vec<_>>().join(" ")
    };
    match differ {
        Anyhow => String::new(),
        InMarks => line.split(" [").next().unwrap_or(line).to_owned(),
        InDescriptors => drop("gdt["),
        InStackSelector => drop("ss="),
        InGateCodes => line.split(' ').map(gate_code).collect::<Vec<_>>().join(" "),
    }
}

/// `#13(402)` without its code, if that has the bit IDT; else without the bit EXT.
fn gate_code(word: &str) -> String {
    let code =
        word.strip_prefix('#').and_then(|rest| rest.strip_suffix(')')).and_then(|rest| rest.split_once('('));
    match code {
        Some((vector @ ("10" | "11" | "12" | "13"), code)) => {
            let code = u32::from_str_radix(code, 16).unwrap_or(0);
            if code & 2 != 0 { format!("#{vector}") } else { format!("#{vector}({:x})", code & !1) }
        }
        _ => word.to_owned(),
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len()).any(|at| name.is_char_boundary(at) && matches(rest, &name[at..]))
        }),
    }
}
