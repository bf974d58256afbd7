//! One processor of KVM: its state comes from a [`State`] and goes back into one.

#![allow(unsafe_code)] // Calls that kvm-ioctls leaves to us to vouch for.

use std::os::fd::AsRawFd;

use cpu::State;
use kvm_bindings::{Msrs, kvm_device_attr, kvm_interrupt, kvm_msr_entry};
use kvm_ioctls::{SyncReg, VcpuFd, VmFd};

use super::{KvmError, model, msrs, registers};

/// KVM_INTERRUPT: `_IOW(0xae, 0x86, struct kvm_interrupt)`.
const INTERRUPT: libc::c_ulong = 0x4004_ae86;
/// KVM_SET_DEVICE_ATTR and KVM_GET_DEVICE_ATTR: `_IOW(0xae, 0xe1 or 0xe2, struct kvm_device_attr)`.
const SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;
const GET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee2;
/// Group and attribute KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET.
const TSC_OFFSET: (u32, u64) = (0, 0);

const RFLAGS_IF: u64 = 1 << 9;

/// Registers that a [`State`] keeps and KVM reads and writes by their numbers.
const BY_NUMBER: [u32; 10] = [
    msrs::SYSENTER_CS,
    msrs::SYSENTER_CS + 1,
    msrs::SYSENTER_CS + 2,
    msrs::PAT,
    msrs::STAR,
    msrs::LSTAR,
    msrs::CSTAR,
    msrs::FMASK,
    msrs::KERNEL_GS_BASE,
    msrs::TSC_AUX,
];

/// An exception that KVM has found and not delivered: vector and error code.
pub(super) type Undelivered = (u8, Option<u16>);

/// What [`Vcpu::store`] found on its way into the processor.
#[derive(Default)]
pub(super) struct OnTheWay {
    /// An exception: the software processor has to raise it.
    pub exception: Option<Undelivered>,
    /// An external interrupt that the local APIC has given away: it takes it back.
    pub interrupt: Option<u8>,
}

/// One processor.
pub(super) struct Vcpu {
    pub fd: VcpuFd,
    /// What KVM does not keep is current in here; the rest is as it was when it was loaded.
    pub state: State,
    /// Registers of [`BY_NUMBER`] that this KVM has.
    numbers: Vec<u32>,
    /// The last exit's answer has not been fetched yet: its instruction is not complete.
    pub unanswered: bool,
}

impl Vcpu {
    pub(super) fn new(vm: &VmFd, state: State, processors: u8) -> Result<Vcpu, KvmError> {
        let mut fd = vm.create_vcpu(state.vcpu.into()).map_err(KvmError::call("KVM_CREATE_VCPU"))?;
        let own = fd.get_tsc_khz().map_err(KvmError::call("KVM_GET_TSC_KHZ"))?;
        if own != state.model.tsc_khz {
            fd.set_tsc_khz(state.model.tsc_khz).map_err(KvmError::call("KVM_SET_TSC_KHZ"))?;
        }
        let table = model::table(&state.model, state.vcpu, processors)?;
        fd.set_cpuid2(&table).map_err(KvmError::call("KVM_SET_CPUID2"))?;
        fd.set_sync_valid_reg(SyncReg::Register);
        let numbers = BY_NUMBER.into_iter().filter(|&number| get_msr(&fd, number).is_ok()).collect();
        Ok(Vcpu { fd, state, numbers, unanswered: false })
    }

    /// Gives the processor a state, but for the time.
    pub(super) fn load(&mut self, state: State, apic_base: u64) -> Result<(), KvmError> {
        let fd = &self.fd;
        let mut sregs = fd.get_sregs().map_err(KvmError::call("KVM_GET_SREGS"))?;
        registers::special(&state, &mut sregs);
        sregs.apic_base = apic_base;
        fd.set_sregs(&sregs).map_err(KvmError::call("KVM_SET_SREGS"))?;
        fd.set_regs(&registers::general(&state)).map_err(KvmError::call("KVM_SET_REGS"))?;
        // SAFETY: the kernel reads 4096 bytes: nothing asks for states that need more.
        unsafe { fd.set_xsave(&registers::vector(&state)) }.map_err(KvmError::call("KVM_SET_XSAVE"))?;
        let mut values = state.clone();
        let entries = self.numbers.iter().map(|&number| (number, *by_number(&mut values, number)));
        set_msrs(fd, &entries.collect::<Vec<_>>())?;
        fd.set_debug_regs(&registers::debug(&state)).map_err(KvmError::call("KVM_SET_DEBUGREGS"))?;
        fd.set_vcpu_events(&registers::events(&state)).map_err(KvmError::call("KVM_SET_VCPU_EVENTS"))?;
        let run = self.fd.get_kvm_run();
        run.if_flag = u8::from(state.rflags & RFLAGS_IF != 0);
        run.ready_for_interrupt_injection = u8::from(run.if_flag != 0 && !state.interrupt_shadow);
        self.state = state;
        self.unanswered = false;
        Ok(())
    }

    /// Fetches the processor's state into [`Vcpu::state`], but for the time, and says what was on its way. The last exit
    /// must be answered.
    pub(super) fn store(&mut self) -> Result<OnTheWay, KvmError> {
        let (fd, state) = (&self.fd, &mut self.state);
        // First: it makes CR2 and DR6 current.
        let events = fd.get_vcpu_events().map_err(KvmError::call("KVM_GET_VCPU_EVENTS"))?;
        registers::set_events(state, &events);
        registers::set_general(state, &fd.get_regs().map_err(KvmError::call("KVM_GET_REGS"))?);
        registers::set_special(state, &fd.get_sregs().map_err(KvmError::call("KVM_GET_SREGS"))?);
        registers::set_vector(state, &fd.get_xsave().map_err(KvmError::call("KVM_GET_XSAVE"))?);
        for (number, value) in get_msrs(fd, &self.numbers)? {
            *by_number(state, number) = value;
        }
        registers::set_debug(state, &fd.get_debug_regs().map_err(KvmError::call("KVM_GET_DEBUGREGS"))?);
        let it = events.exception;
        let exception = (it.injected != 0 || it.pending != 0)
            .then(|| (it.nr, (it.has_error_code != 0).then_some(it.error_code as u16)));
        let interrupt =
            (events.interrupt.injected != 0 && events.interrupt.soft == 0).then_some(events.interrupt.nr);
        Ok(OnTheWay { exception, interrupt })
    }

    /// The processor takes the external interrupt `vector` before anything else.
    pub(super) fn interrupt(&mut self, vector: u8) -> Result<(), KvmError> {
        let interrupt = kvm_interrupt { irq: vector.into() };
        // SAFETY: the kernel reads the struct, which is valid.
        if unsafe { libc::ioctl(self.fd.as_raw_fd(), INTERRUPT, &interrupt) } != 0 {
            return Err(KvmError::last("KVM_INTERRUPT"));
        }
        self.fd.get_kvm_run().ready_for_interrupt_injection = 0;
        Ok(())
    }

    /// The time stamp counter.
    pub(super) fn tsc(&self) -> Result<u64, KvmError> {
        get_msr(&self.fd, msrs::TSC)
    }

    /// Sets the time stamp counter.
    pub(super) fn set_tsc(&self, ticks: u64) -> Result<(), KvmError> {
        let mut offset = 0;
        if self.tsc_offset(GET_DEVICE_ATTR, &mut offset).is_err() {
            // KVM takes values less than a second away from where it stands for an attempt to synchronise, and leaves it
            // as it is. Nothing here relies on it.
            return set_msrs(&self.fd, &[(msrs::TSC, ticks)]);
        }
        offset = offset.wrapping_add(ticks.wrapping_sub(self.tsc()?));
        self.tsc_offset(SET_DEVICE_ATTR, &mut offset)
    }

    /// Gets or sets what KVM adds to the host's counter.
    fn tsc_offset(&self, call: libc::c_ulong, offset: &mut u64) -> Result<(), KvmError> {
        let (group, attr) = TSC_OFFSET;
        let attr = kvm_device_attr { group, attr, addr: std::ptr::from_mut(offset) as u64, flags: 0 };
        // SAFETY: the kernel reads or writes the eight bytes at the attribute's address, which are `offset`.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), call, &attr) } {
            0 => Ok(()),
            _ => Err(KvmError::last("KVM_VCPU_TSC_OFFSET")),
        }
    }
}

/// Where a state keeps a register of [`BY_NUMBER`].
fn by_number(state: &mut State, number: u32) -> &mut u64 {
    match number {
        msrs::SYSENTER_CS..msrs::PAT => &mut state.sysenter[(number - msrs::SYSENTER_CS) as usize % 3],
        msrs::PAT => &mut state.pat,
        msrs::STAR => &mut state.star,
        msrs::LSTAR => &mut state.lstar,
        msrs::CSTAR => &mut state.cstar,
        msrs::FMASK => &mut state.fmask,
        msrs::KERNEL_GS_BASE => &mut state.kernel_gs_base,
        _ => &mut state.tsc_aux,
    }
}

fn get_msrs(fd: &VcpuFd, numbers: &[u32]) -> Result<Vec<(u32, u64)>, KvmError> {
    let refused = || KvmError::Call { call: "KVM_GET_MSRS", source: std::io::ErrorKind::InvalidInput.into() };
    let entries: Vec<_> =
        numbers.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
    let mut msrs = Msrs::from_entries(&entries).map_err(|_| refused())?;
    let count = fd.get_msrs(&mut msrs).map_err(KvmError::call("KVM_GET_MSRS"))?;
    if count != numbers.len() {
        return Err(refused());
    }
    Ok(msrs.as_slice().iter().map(|entry| (entry.index, entry.data)).collect())
}

fn get_msr(fd: &VcpuFd, number: u32) -> Result<u64, KvmError> {
    Ok(get_msrs(fd, &[number])?[0].1)
}

fn set_msrs(fd: &VcpuFd, values: &[(u32, u64)]) -> Result<(), KvmError> {
    let refused = || KvmError::Call { call: "KVM_SET_MSRS", source: std::io::ErrorKind::InvalidInput.into() };
    let entries: Vec<_> =
        values.iter().map(|&(index, data)| kvm_msr_entry { index, data, ..Default::default() }).collect();
    let msrs = Msrs::from_entries(&entries).map_err(|_| refused())?;
    let count = fd.set_msrs(&msrs).map_err(KvmError::call("KVM_SET_MSRS"))?;
    if count == values.len() { Ok(()) } else { Err(refused()) }
}
