//! Why KVM cannot be used.

use std::path::PathBuf;

/// What the host's KVM refused or lacks.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no device, or it may not be opened.
    #[error(
        "{path}: {source}; load the module kvm_intel or kvm_amd and ask for access to it, or use the software engine"
    )]
    Open {
        /// The device.
        path: PathBuf,
        /// Why it cannot be opened.
        source: std::io::Error,
    },
    /// The interface is not the one that every Linux since 2.6.22 has.
    #[error("KVM has interface version {version}, not 12: use the software engine")]
    Version {
        /// What it says.
        version: i32,
    },
    /// It lacks something that this engine needs.
    #[error("KVM has no {capability}: a Linux from 5.10 on has it; use the software engine")]
    Missing {
        /// Name of the capability in the interface of KVM.
        capability: &'static str,
    },
    /// The machine's processors have what this KVM does not offer.
    #[error(
        "the machine's processors have {what}, which KVM here does not offer: go on with the software engine"
    )]
    Model {
        /// What it does not offer.
        what: String,
    },
    /// It refused a call.
    #[error("{call}: {source}")]
    Call {
        /// The call in the interface of KVM or of the kernel.
        call: &'static str,
        /// What it answered.
        source: std::io::Error,
    },
}

impl KvmError {
    /// For `map_err` of a call into kvm-ioctls.
    pub(super) fn call(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
        move |error| KvmError::Call { call, source: std::io::Error::from_raw_os_error(error.errno()) }
    }

    /// There is no memory for a copy of the guest's.
    pub(super) fn memory(error: crate::Error) -> KvmError {
        KvmError::Call { call: "mmap", source: std::io::Error::other(error.to_string()) }
    }

    /// For calls into libc.
    pub(super) fn last(call: &'static str) -> KvmError {
        KvmError::Call { call, source: std::io::Error::last_os_error() }
    }
}
