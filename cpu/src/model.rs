//! What one machine's processors have and another's do not: an engine that runs on hardware offers what the hardware
//! has.

use serde::{Deserialize, Serialize};

use crate::cpuid;

/// Kilohertz of the TSC by default: one tick is one nanosecond.
const DEFAULT_TSC_KHZ: u32 = 1_000_000;

/// Feature bits of CPUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Leaf 1, ECX.
    pub leaf_1_ecx: u32,
    /// Leaf 1, EDX.
    pub leaf_1_edx: u32,
    /// Leaf 7, subleaf 0, EBX.
    pub leaf_7_ebx: u32,
    /// Leaf 0x80000001, ECX.
    pub extended_ecx: u32,
    /// Leaf 0x80000001, EDX.
    pub extended_edx: u32,
}

/// What may differ between the processors of two machines. All processors of one machine are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Thousands of ticks of the time stamp counter in a second of the machine.
    pub tsc_khz: u32,
    /// Features that CPUID does not tell of although the software processor has them. Their instructions still execute.
    pub withheld: Features,
    /// Whether there are machine checks, and CPUID tells so. The software processor alone has them.
    pub machine_checks: bool,
}

impl Default for Model {
    fn default() -> Model {
        Model { tsc_khz: DEFAULT_TSC_KHZ, withheld: Features::default(), machine_checks: false }
    }
}

impl Model {
    /// EAX, EBX, ECX and EDX of a leaf of CPUID on processor `vcpu` of `processors`.
    pub fn cpuid(&self, leaf: u32, subleaf: u32, vcpu: u8, processors: u8) -> [u32; 4] {
        cpuid::answer(self, leaf, subleaf, vcpu, processors)
    }

    /// The features that CPUID tells of.
    pub fn features(&self) -> Features {
        let [_, _, leaf_1_ecx, leaf_1_edx] = self.cpuid(1, 0, 0, 1);
        let [_, _, extended_ecx, extended_edx] = self.cpuid(0x8000_0001, 0, 0, 1);
        Features { leaf_1_ecx, leaf_1_edx, leaf_7_ebx: self.cpuid(7, 0, 0, 1)[1], extended_ecx, extended_edx }
    }

    /// Ticks of the time stamp counter in so many nanoseconds.
    #[inline]
    pub fn ticks(&self, nanoseconds: u64) -> u64 {
        scale(nanoseconds, self.tsc_khz, DEFAULT_TSC_KHZ)
    }

    /// Nanoseconds in so many ticks of the time stamp counter, rounded up.
    pub fn time(&self, ticks: u64) -> u64 {
        let down = scale(ticks, DEFAULT_TSC_KHZ, self.tsc_khz);
        if self.ticks(down) < ticks { down.saturating_add(1) } else { down }
    }
}

/// `value * to / from`, wrapped.
#[inline]
fn scale(value: u64, to: u32, from: u32) -> u64 {
    if to == from {
        return value;
    }
    (u128::from(value) * u128::from(to) / u128::from(from.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tick_is_one_nanosecond_unless_somebody_says_otherwise() {
        let model = Model::default();
        assert_eq!((model.ticks(12_345), model.time(12_345)), (12_345, 12_345));
        assert_eq!(model.cpuid(0x15, 0, 0, 1), [1, 40, 25_000_000, 0]);
    }

    #[test]
    fn a_faster_counter_is_told_by_its_leaf_and_a_deadline_is_never_early() {
        let model = Model { tsc_khz: 2_445_428, ..Model::default() };
        let [denominator, numerator, crystal, _] = model.cpuid(0x15, 0, 0, 1).map(u64::from);
        let khz = crystal / 1000 * numerator / denominator;
        assert!(crystal / 1000 * numerator < 1 << 32, "Linux has 32 bits");
        assert!(khz.abs_diff(2_445_428) < 100, "{khz}");
        for ticks in [1, 2, 3, 1000, 2_445_427, 1 << 50] {
            assert!(model.ticks(model.time(ticks)) >= ticks, "{ticks}");
            assert!(model.ticks(model.time(ticks) - 1) < ticks, "{ticks}");
        }
    }

    #[test]
    fn withheld_features_are_not_told() {
        let withheld = Features { leaf_1_ecx: 1 << 23, leaf_7_ebx: 1 << 20, ..Features::default() };
        let (all, some) = (Model::default(), Model { withheld, ..Model::default() });
        assert_eq!(some.features().leaf_1_ecx, all.features().leaf_1_ecx & !(1 << 23));
        assert_eq!(some.features().leaf_7_ebx, all.features().leaf_7_ebx & !(1 << 20));
        assert_eq!(some.features().extended_edx, all.features().extended_edx);
    }
}
