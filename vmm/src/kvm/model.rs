//! CPUID: the software processor's model, but for what the host does not have.

use cpu::{Features, Model};
use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::{KvmError, System};

/// A feature that the software processor offers and this KVM does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name in the SDM.
    pub name: String,
}

/// A feature: its name, in which word of CPUID, and which bit of that.
type Named = (&'static str, fn(&Features) -> u32, u32);

/// Names of the feature bits that our model offers.
const NAMES: [Named; 41] = [
    ("SSE3", |it| it.leaf_1_ecx, 0),
    ("SSSE3", |it| it.leaf_1_ecx, 9),
    ("CMPXCHG16B", |it| it.leaf_1_ecx, 13),
    ("SSE4.1", |it| it.leaf_1_ecx, 19),
    ("SSE4.2", |it| it.leaf_1_ecx, 20),
    ("POPCNT", |it| it.leaf_1_ecx, 23),
    ("TSC-Deadline", |it| it.leaf_1_ecx, 24),
    ("RDRAND", |it| it.leaf_1_ecx, 30),
    ("FPU", |it| it.leaf_1_edx, 0),
    ("DE", |it| it.leaf_1_edx, 2),
    ("PSE", |it| it.leaf_1_edx, 3),
    ("TSC", |it| it.leaf_1_edx, 4),
    ("MSR", |it| it.leaf_1_edx, 5),
    ("PAE", |it| it.leaf_1_edx, 6),
    ("CX8", |it| it.leaf_1_edx, 8),
    ("APIC", |it| it.leaf_1_edx, 9),
    ("SEP", |it| it.leaf_1_edx, 11),
    ("MTRR", |it| it.leaf_1_edx, 12),
    ("PGE", |it| it.leaf_1_edx, 13),
    ("CMOV", |it| it.leaf_1_edx, 15),
    ("PAT", |it| it.leaf_1_edx, 16),
    ("PSE-36", |it| it.leaf_1_edx, 17),
    ("CLFSH", |it| it.leaf_1_edx, 19),
    ("MMX", |it| it.leaf_1_edx, 23),
    ("FXSR", |it| it.leaf_1_edx, 24),
    ("SSE", |it| it.leaf_1_edx, 25),
    ("SSE2", |it| it.leaf_1_edx, 26),
    ("FSGSBASE", |it| it.leaf_7_ebx, 0),
    ("SMEP", |it| it.leaf_7_ebx, 7),
    ("ERMS", |it| it.leaf_7_ebx, 9),
    ("x87 selectors that read as 0", |it| it.leaf_7_ebx, 13),
    ("RDSEED", |it| it.leaf_7_ebx, 18),
    ("SMAP", |it| it.leaf_7_ebx, 20),
    ("CLFLUSHOPT", |it| it.leaf_7_ebx, 23),
    ("CLWB", |it| it.leaf_7_ebx, 24),
    ("LAHF", |it| it.extended_ecx, 0),
    ("PREFETCHW", |it| it.extended_ecx, 8),
    ("SYSCALL", |it| it.extended_edx, 11),
    ("NX", |it| it.extended_edx, 20),
    ("1 GiB pages", |it| it.extended_edx, 26),
    ("RDTSCP", |it| it.extended_edx, 27),
];

/// Told by processors, and not asked of KVM: it says that nothing is there where AMD's processors have the same
/// behaviour under another name, or our own local APIC makes the feature.
const OURS: Features = Features {
    leaf_1_ecx: 1 << 24,
    leaf_1_edx: 1 << 9 | 1 << 28,
    leaf_7_ebx: 1 << 13,
    extended_ecx: 0,
    // AMD does not repeat SYSCALL's availability for Intel's reading of it; both set bit 11.
    extended_edx: 0,
};

/// The model for a new machine on this KVM: everything that both offer.
pub(crate) fn offered(system: &System) -> Result<Model, KvmError> {
    let all = Model::default();
    let there = supported(&system.cpuid()?);
    let wanted = all.features();
    let withheld = Features {
        leaf_1_ecx: wanted.leaf_1_ecx & !there.leaf_1_ecx,
        leaf_1_edx: wanted.leaf_1_edx & !there.leaf_1_edx,
        leaf_7_ebx: wanted.leaf_7_ebx & !there.leaf_7_ebx,
        extended_ecx: wanted.extended_ecx & !there.extended_ecx,
        extended_edx: wanted.extended_edx & !there.extended_edx,
    };
    Ok(Model { tsc_khz: system.tsc_khz(all.tsc_khz)?, withheld, ..all })
}

/// What the software processor has and a machine with `model` lacks.
pub(crate) fn differences(model: &Model) -> Vec<Difference> {
    let missing = |&&(_, word, bit): &&Named| word(&model.withheld) >> bit & 1 != 0;
    NAMES.iter().filter(missing).map(|(name, ..)| Difference { name: (*name).to_owned() }).collect()
}

/// Refuses a model that has more than `offered`.
pub(super) fn check(model: &Model, offered: &Model) -> Result<(), KvmError> {
    let (wanted, there) = (model.features(), offered.features());
    let lacking = |&&(_, word, bit): &&Named| word(&wanted) >> bit & 1 != 0 && word(&there) >> bit & 1 == 0;
    let mut what: Vec<String> = NAMES.iter().filter(lacking).map(|(name, ..)| (*name).to_owned()).collect();
    if model.machine_checks {
        what.push("machine checks".to_owned());
    }
    if model.tsc_khz != offered.tsc_khz {
        what.push(format!("a TSC of {} kHz (here {})", model.tsc_khz, offered.tsc_khz));
    }
    if what.is_empty() { Ok(()) } else { Err(KvmError::Model { what: what.join(", ") }) }
}

/// The words of CPUID that tell features, as KVM offers them.
fn supported(cpuid: &CpuId) -> Features {
    let leaf = |function, index| {
        let found = |it: &&kvm_cpuid_entry2| it.function == function && it.index == index;
        cpuid.as_slice().iter().find(found).copied().unwrap_or_default()
    };
    let (basic, structured, extended) = (leaf(1, 0), leaf(7, 0), leaf(0x8000_0001, 0));
    Features {
        leaf_1_ecx: basic.ecx | OURS.leaf_1_ecx,
        leaf_1_edx: basic.edx | OURS.leaf_1_edx,
        leaf_7_ebx: structured.ebx | OURS.leaf_7_ebx,
        extended_ecx: extended.ecx | OURS.extended_ecx,
        extended_edx: extended.edx | OURS.extended_edx,
    }
}

/// The whole of CPUID for one processor, in KVM's form.
pub(super) fn table(model: &Model, vcpu: u8, processors: u8) -> Result<CpuId, KvmError> {
    // Leaves of our model and how many subleaves they have. KVM answers the rest as Intel's processors do.
    const LEAVES: [(u32, u32); 11] = [
        (0, 0),
        (1, 0),
        (2, 0),
        (4, 4),
        (6, 0),
        (7, 1),
        (0xb, 3),
        (0x15, 0),
        (0x16, 0),
        (0x8000_0000, 0),
        (0x8000_0001, 0),
    ];
    const EXTENDED: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0008;
    let leaves = LEAVES.into_iter().chain(EXTENDED.map(|leaf| (leaf, 0)));
    let mut entries = Vec::new();
    for (function, subleaves) in leaves {
        for index in 0..subleaves.max(1) {
            let [eax, ebx, ecx, edx] = model.cpuid(function, index, vcpu, processors);
            let flags = if subleaves > 0 { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
            entries.push(kvm_cpuid_entry2 {
                function,
                index,
                flags,
                eax,
                ebx,
                ecx,
                edx,
                ..Default::default()
            });
        }
    }
    CpuId::from_entries(&entries).map_err(|_| KvmError::Model { what: "too many leaves of CPUID".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_of_the_model_has_a_name() {
        let all = Model::default().features();
        let words: [fn(&Features) -> u32; 5] = [
            |it| it.leaf_1_ecx,
            |it| it.leaf_1_edx,
            |it| it.leaf_7_ebx,
            |it| it.extended_ecx,
            |it| it.extended_edx,
        ];
        let bits: u32 = words.iter().map(|word| word(&all).count_ones()).sum();
        // Long mode is not withheld from anybody, and has no name.
        assert_eq!(NAMES.len() as u32, bits - 1);
        assert!(NAMES.iter().all(|(_, word, bit)| word(&all) >> bit & 1 != 0));
    }

    #[test]
    fn a_model_with_more_than_there_is_is_refused_by_name() {
        let withheld = Features { leaf_1_ecx: 1 << 23, ..Features::default() };
        let less = Model { withheld, ..Model::default() };
        assert!(check(&less, &less).is_ok());
        let error = check(&Model::default(), &less).unwrap_err().to_string();
        assert!(error.contains("POPCNT"), "{error}");
        assert_eq!(differences(&less), [Difference { name: "POPCNT".to_owned() }]);
        let slower = Model { tsc_khz: 2_000_000, ..less };
        assert!(check(&slower, &less).unwrap_err().to_string().contains("2000000 kHz"));
    }

    #[test]
    fn the_table_has_what_the_software_processor_answers() {
        let model = Model::default();
        let table = table(&model, 1, 2).unwrap();
        for entry in table.as_slice() {
            let answer = model.cpuid(entry.function, entry.index, 1, 2);
            assert_eq!([entry.eax, entry.ebx, entry.ecx, entry.edx], answer, "leaf {:#x}", entry.function);
        }
    }
}
