//! What the host's KVM is good for, to be told to people.

use kvm_ioctls::Cap;

use super::{Difference, KvmError, SupervisorSpeed, System, model, speed};

/// A capability that makes something better and is not needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name in the interface of KVM.
    pub name: &'static str,
    /// Whether it is there.
    pub there: bool,
    /// What is so without it.
    pub without: &'static str,
}

/// A KVM that machines can run on.
#[derive(Clone, Debug)]
pub struct KvmHost {
    /// How fast supervisor mode is.
    pub supervisor: SupervisorSpeed,
    /// What makes something better.
    pub capabilities: Vec<Capability>,
    /// What its processors lack that those of the software engine have.
    pub lacking: Vec<Difference>,
    /// Kilohertz of the time stamp counter that a machine gets.
    pub tsc_khz: u32,
    /// Feature bits of CPUID's leaf 1, ECX and EDX, that show the host's processor through.
    pub leaked: (u32, u32),
}

impl KvmHost {
    /// Opens KVM and looks, also by running small guests. An error says why no machine can run on it.
    pub fn examine() -> Result<KvmHost, KvmError> {
        const OPTIONAL: [(Cap, &str, &str); 2] = [
            (
                Cap::TscControl,
                "KVM_CAP_TSC_CONTROL",
                "the guest's time stamp counter is as fast as the host's",
            ),
            (Cap::SetGuestDebug, "KVM_CAP_SET_GUEST_DEBUG", "no stops in front of kernel functions"),
        ];
        let system = System::open()?;
        let capabilities = OPTIONAL.map(|(cap, name, without)| Capability {
            name,
            there: system.kvm.check_extension(cap),
            without,
        });
        let model = model::offered(&system)?;
        Ok(KvmHost {
            supervisor: SupervisorSpeed::measure(&system)?,
            capabilities: capabilities.to_vec(),
            lacking: model::differences(&model),
            tsc_khz: model.tsc_khz,
            leaked: speed::leaked(&system, &model)?,
        })
    }
}
