//! Why KVM_RUN came back, and where an answer to it goes.

#![allow(unsafe_code)] // `kvm_run` is a union that the kernel fills.

use kvm_bindings::*;
use kvm_ioctls::VcpuFd;

use super::KvmError;

/// What an exit wants of us.
#[derive(Debug)]
pub(super) enum Exit {
    /// A signal, or nothing at all.
    Interrupted,
    /// IN or OUT, `count` times. [`port_data`] has the bytes.
    Port { port: u16, size: usize, write: bool },
    /// A load of 1 to 8 bytes from where there is no memory. [`answer_load`] takes them.
    Load { addr: u64, size: usize },
    /// A store there.
    Store { addr: u64, size: usize, value: u64 },
    /// RDMSR of a register that is not KVM's. [`answer_msr`] takes what it reads.
    ReadMsr { index: u32 },
    /// WRMSR of one.
    WriteMsr { index: u32, value: u64 },
    /// HLT.
    Halted,
    /// Triple fault.
    Shutdown,
    /// In front of an address that was given to [`super::vcpu::Vcpu::stop_at`].
    Debug,
    /// KVM's emulator does not know the instruction at RIP, or cannot execute it where it stands.
    CannotEmulate,
    /// The processor cannot go on, and it is not the guest's doing.
    Failed(String),
}

/// Lets the processor execute until it exits.
pub(super) fn enter(vcpu: &mut VcpuFd) -> Result<Exit, KvmError> {
    if let Err(error) = vcpu.run() {
        return match error.errno() {
            libc::EINTR | libc::EAGAIN => Ok(Exit::Interrupted),
            _ => Err(KvmError::call("KVM_RUN")(error)),
        };
    }
    let run = vcpu.get_kvm_run();
    let of = &run.__bindgen_anon_1;
    // SAFETY, for each block below: `exit_reason` says which member of the union the kernel has filled, and every member
    // is plain data.
    Ok(match run.exit_reason {
        KVM_EXIT_IO => {
            // SAFETY: as above.
            let io = unsafe { of.io };
            let write = u32::from(io.direction) == KVM_EXIT_IO_OUT;
            Exit::Port { port: io.port, size: usize::from(io.size), write }
        }
        KVM_EXIT_MMIO => {
            // SAFETY: as above.
            let mmio = unsafe { of.mmio };
            let (addr, size) = (mmio.phys_addr, (mmio.len as usize).clamp(1, 8));
            let value = u64::from_le_bytes(mmio.data);
            if mmio.is_write != 0 { Exit::Store { addr, size, value } } else { Exit::Load { addr, size } }
        }
        // SAFETY: as above.
        KVM_EXIT_X86_RDMSR => Exit::ReadMsr { index: unsafe { of.msr }.index },
        KVM_EXIT_X86_WRMSR => {
            // SAFETY: as above.
            let msr = unsafe { of.msr };
            Exit::WriteMsr { index: msr.index, value: msr.data }
        }
        KVM_EXIT_HLT => Exit::Halted,
        KVM_EXIT_SHUTDOWN => Exit::Shutdown,
        KVM_EXIT_DEBUG => Exit::Debug,
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: as above.
            let suberror = unsafe { of.internal }.suberror;
            match suberror {
                KVM_INTERNAL_ERROR_EMULATION => Exit::CannotEmulate,
                // An exception or interrupt could not be delivered, because its stack or table is a device, say.
                KVM_INTERNAL_ERROR_DELIVERY_EV => Exit::CannotEmulate,
                other => Exit::Failed(format!("internal error {other} of KVM")),
            }
        }
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: as above.
            let reason = unsafe { of.fail_entry }.hardware_entry_failure_reason;
            Exit::Failed(format!("the host's processor refuses to enter the guest: reason {reason:#x}"))
        }
        KVM_EXIT_INTR | KVM_EXIT_IRQ_WINDOW_OPEN | KVM_EXIT_SET_TPR | KVM_EXIT_UNKNOWN => Exit::Interrupted,
        other => Exit::Failed(format!("exit reason {other} of KVM")),
    })
}

/// The bytes of the last [`Exit::Port`], one access behind the other.
pub(super) fn port_data(vcpu: &mut VcpuFd) -> &mut [u8] {
    let run = vcpu.get_kvm_run();
    // SAFETY: the last exit was for a port, so this member is filled.
    let io = unsafe { run.__bindgen_anon_1.io };
    let len = usize::from(io.size) * io.count as usize;
    // SAFETY: the kernel puts the bytes into the second page of the mapping of which `run` is the beginning, so many
    // that they fit into it; they are borrowed as `run` is.
    unsafe {
        std::slice::from_raw_parts_mut(std::ptr::from_mut(run).cast::<u8>().add(io.data_offset as usize), len)
    }
}

/// What the last [`Exit::Load`] reads.
pub(super) fn answer_load(vcpu: &mut VcpuFd, value: u64) {
    vcpu.get_kvm_run().__bindgen_anon_1.mmio.data = value.to_le_bytes();
}

/// What the last [`Exit::ReadMsr`] reads, or that the last [`Exit::WriteMsr`] is done; `None` raises #GP.
pub(super) fn answer_msr(vcpu: &mut VcpuFd, value: Option<u64>) {
    // SAFETY: the last exit was for this member, which is plain data.
    let msr = unsafe { &mut vcpu.get_kvm_run().__bindgen_anon_1.msr };
    msr.error = u8::from(value.is_none());
    msr.data = value.unwrap_or(0);
}
