//! The host's KVM as it is before there is any machine: whether it opens, and what it can do.

use std::path::PathBuf;

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

use super::KvmError;

const DEVICE: &str = "/dev/kvm";

/// What this engine cannot do without. All are in Linux 5.10.
const NEEDED: [(Cap, &str); 9] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::Debugregs, "KVM_CAP_DEBUGREGS"),
    (Cap::Xsave, "KVM_CAP_XSAVE"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::SyncRegs, "KVM_CAP_SYNC_REGS"),
    (Cap::X86UserSpaceMsr, "KVM_CAP_X86_USER_SPACE_MSR"),
    (Cap::X86MsrFilter, "KVM_CAP_X86_MSR_FILTER"),
];

/// The open device.
pub(crate) struct System {
    pub(super) kvm: Kvm,
}

impl System {
    /// Opens the device, and refuses it if it cannot do what is needed.
    pub(crate) fn open() -> Result<System, KvmError> {
        let kvm = Kvm::new().map_err(|error| KvmError::Open {
            path: PathBuf::from(DEVICE),
            source: std::io::Error::from_raw_os_error(error.errno()),
        })?;
        let version = kvm.get_api_version();
        if version != KVM_API_VERSION as i32 {
            return Err(KvmError::Version { version });
        }
        match NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            Some((_, capability)) => Err(KvmError::Missing { capability }),
            None => Ok(System { kvm }),
        }
    }

    /// What processors here can be told to have.
    pub(super) fn cpuid(&self) -> Result<CpuId, KvmError> {
        self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(KvmError::call("KVM_GET_SUPPORTED_CPUID"))
    }

    /// Kilohertz of the TSC that a guest gets for `wanted`: `wanted` itself where the host can scale it, its own
    /// otherwise.
    pub(super) fn tsc_khz(&self, wanted: u32) -> Result<u32, KvmError> {
        let vm = self.kvm.create_vm().map_err(KvmError::call("KVM_CREATE_VM"))?;
        let vcpu = vm.create_vcpu(0).map_err(KvmError::call("KVM_CREATE_VCPU"))?;
        if self.kvm.check_extension(Cap::TscControl) && vcpu.set_tsc_khz(wanted).is_ok() {
            return Ok(wanted);
        }
        vcpu.get_tsc_khz().map_err(KvmError::call("KVM_GET_TSC_KHZ"))
    }
}
