//! Which model-specific registers KVM has and which are the software processor's: the fewest possible are KVM's, so that
//! both engines answer alike.

use kvm_bindings::{
    KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER, KVM_MSR_EXIT_REASON_INVAL,
    KVM_MSR_EXIT_REASON_UNKNOWN, kvm_enable_cap,
};
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

use super::KvmError;

pub(super) const TSC: u32 = 0x10;
pub(super) const SYSENTER_CS: u32 = 0x174;
pub(super) const PAT: u32 = 0x277;
pub(super) const TSC_DEADLINE: u32 = 0x6e0;
const EFER: u32 = 0xc000_0080;
pub(super) const STAR: u32 = 0xc000_0081;
pub(super) const LSTAR: u32 = 0xc000_0082;
pub(super) const CSTAR: u32 = 0xc000_0083;
pub(super) const FMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
pub(super) const KERNEL_GS_BASE: u32 = 0xc000_0102;
pub(super) const TSC_AUX: u32 = 0xc000_0103;

/// First register and number of registers that the guest reaches without us.
const NATIVE: [(u32, u32); 6] = [(TSC, 1), (SYSENTER_CS, 3), (PAT, 1), (EFER, 5), (FS_BASE, 3), (TSC_AUX, 1)];

/// Lets everything but [`NATIVE`] come to user space.
pub(super) fn filter(vm: &VmFd) -> Result<(), KvmError> {
    let reasons = KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL;
    let cap = kvm_enable_cap {
        cap: KVM_CAP_X86_USER_SPACE_MSR,
        args: [u64::from(reasons), 0, 0, 0],
        ..Default::default()
    };
    vm.enable_cap(&cap).map_err(KvmError::call("KVM_ENABLE_CAP(KVM_CAP_X86_USER_SPACE_MSR)"))?;
    let ranges = NATIVE.map(|(base, msr_count)| MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base,
        msr_count,
        bitmap: &[0xff],
    });
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges).map_err(KvmError::call("KVM_X86_SET_MSR_FILTER"))
}
