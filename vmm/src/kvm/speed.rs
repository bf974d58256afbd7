//! Two small guests that tell what KVM does not: how fast supervisor mode is, and whether CPUID is intercepted.
//!
//! Natively supervisor mode executes a few instructions a nanosecond; where KVM itself has no hardware below it and
//! emulates, about one a microsecond.

#![allow(unsafe_code)] // Memory for a guest, and KVM that writes it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cpu::Model;
use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::VcpuExit;
use vm_memory::MmapRegion;

use super::{KvmError, System, model};

/// Iterations of the loop, of two instructions each.
const ITERATIONS: u32 = 2000;
/// Picoseconds an instruction from which on supervisor mode counts as emulated: no processor is that slow, and no
/// emulator that fast.
const EMULATED: u64 = 50_000;
/// `again: dec ecx; jnz again; hlt`, in 32-bit code.
const LOOP: &[u8] = &[0x49, 0x75, 0xfd, 0xf4];
/// `mov eax, 1; cpuid; hlt`
const CPUID: &[u8] = &[0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0xf4];
const ENTRY: u64 = 0x1000;

/// What a host's KVM is to a guest in supervisor mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupervisorSpeed {
    /// Picoseconds an instruction of a short loop, the best of three.
    pub picoseconds: u64,
}

impl SupervisorSpeed {
    /// Whether supervisor mode is emulated, not executed.
    pub fn is_emulated(&self) -> bool {
        self.picoseconds > EMULATED
    }

    /// Measures with a small guest. Done once in a process.
    pub(crate) fn measure(system: &System) -> Result<SupervisorSpeed, KvmError> {
        static MEASURED: OnceLock<SupervisorSpeed> = OnceLock::new();
        if let Some(known) = MEASURED.get() {
            return Ok(*known);
        }
        let mut best = Duration::MAX;
        for _ in 0..3 {
            best = best.min(run(system, LOOP, None)?.0);
        }
        let picoseconds = best.as_nanos() as u64 * 1000 / u64::from(2 * ITERATIONS);
        Ok(*MEASURED.get_or_init(|| SupervisorSpeed { picoseconds }))
    }
}

/// Feature bits of leaf 1, ECX and EDX, that a guest sees although its CPUID does not have them. Not 0 where CPUID is not
/// intercepted.
pub(super) fn leaked(system: &System, model: &Model) -> Result<(u32, u32), KvmError> {
    let regs = run(system, CPUID, Some(model))?.1;
    let [_, _, ecx, edx] = model.cpuid(1, 0, 0, 1);
    // OSXSAVE follows CR4.
    Ok((regs.rcx as u32 & !ecx & !(1 << 27), regs.rdx as u32 & !edx))
}

/// Runs code to its HLT in 32-bit protected mode without paging. Returns the time that took, and the registers then.
fn run(system: &System, code: &[u8], model: Option<&Model>) -> Result<(Duration, kvm_regs), KvmError> {
    let page = MmapRegion::<()>::new(4096)
        .map_err(|error| KvmError::Call { call: "mmap", source: std::io::Error::other(error.to_string()) })?;
    assert!(code.len() <= page.size());
    // SAFETY: the mapping is a page long, and nobody else has it.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), page.as_ptr(), code.len()) };
    let vm = system.kvm.create_vm().map_err(KvmError::call("KVM_CREATE_VM"))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: ENTRY,
        memory_size: 4096,
        userspace_addr: page.as_ptr() as u64,
    };
    // SAFETY: the mapping outlives the virtual machine: it was made before, and is dropped after it.
    unsafe { vm.set_user_memory_region(region) }.map_err(KvmError::call("KVM_SET_USER_MEMORY_REGION"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(KvmError::call("KVM_CREATE_VCPU"))?;
    if let Some(model) = model {
        vcpu.set_cpuid2(&model::table(model, 0, 1)?).map_err(KvmError::call("KVM_SET_CPUID2"))?;
    }
    let mut sregs = vcpu.get_sregs().map_err(KvmError::call("KVM_GET_SREGS"))?;
    let flat = kvm_segment { base: 0, limit: u32::MAX, present: 1, s: 1, db: 1, g: 1, ..Default::default() };
    sregs.cs = kvm_segment { selector: 8, type_: 11, ..flat };
    let data = kvm_segment { selector: 16, type_: 3, ..flat };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr0 |= 1;
    vcpu.set_sregs(&sregs).map_err(KvmError::call("KVM_SET_SREGS"))?;
    let regs = kvm_regs { rip: ENTRY, rflags: 2, rcx: ITERATIONS.into(), ..Default::default() };
    vcpu.set_regs(&regs).map_err(KvmError::call("KVM_SET_REGS"))?;
    let begun = Instant::now();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::Hlt) => break,
            Ok(VcpuExit::Intr) => {}
            Ok(other) => {
                let why = std::io::Error::other(format!("{other:?} in a guest of a few instructions"));
                return Err(KvmError::Call { call: "KVM_RUN", source: why });
            }
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(KvmError::call("KVM_RUN")(error)),
        }
    }
    let took = begun.elapsed();
    Ok((took, vcpu.get_regs().map_err(KvmError::call("KVM_GET_REGS"))?))
}
