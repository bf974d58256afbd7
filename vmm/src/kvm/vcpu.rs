//! One processor of KVM: its state comes from a [`State`] and goes back into one.

#![allow(unsafe_code)] // Calls that kvm-ioctls leaves to us to vouch for.

use std::os::fd::AsRawFd;

use cpu::State;
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_HW_BP, Msrs, kvm_debugregs, kvm_device_attr, kvm_guest_debug,
    kvm_interrupt, kvm_msr_entry, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{SyncReg, VcpuFd, VmFd};

use super::exit::{self, Exit};
use super::{KvmError, model, msrs, registers};

/// KVM_INTERRUPT: `_IOW(0xae, 0x86, struct kvm_interrupt)`.
const INTERRUPT: libc::c_ulong = 0x4004_ae86;
/// KVM_SET_DEVICE_ATTR and KVM_GET_DEVICE_ATTR: `_IOW(0xae, 0xe1 or 0xe2, struct kvm_device_attr)`.
const SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;
const GET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee2;
/// Group and attribute KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET.
const TSC_OFFSET: (u32, u64) = (0, 0);

const RFLAGS_IF: u64 = 1 << 9;
const CR4_OSXSAVE: u64 = 1 << 18;
/// CPUID leaf 1, ECX.
const XSAVE: u32 = 1 << 26;
/// XCR0.
const X87_AND_SSE: u64 = 3;

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

/// What comes with every exit, and goes with the next entry, without a call of its own.
const SYNCHRONISED: [SyncReg; 3] = [SyncReg::Register, SyncReg::SystemRegister, SyncReg::VcpuEvents];

/// What does not.
struct Known {
    vector: kvm_xsave,
    numbers: Vec<(u32, u64)>,
    debug: kvm_debugregs,
}

/// One processor.
pub(super) struct Vcpu {
    pub fd: VcpuFd,
    /// What KVM does not keep is current in here; the rest is as it was when it was loaded.
    pub state: State,
    /// Registers of [`BY_NUMBER`] that this KVM has.
    numbers: Vec<u32>,
    /// What KVM keeps of what costs a call to fetch and to give, as long as that is known: what was last given or fetched.
    known: Option<Known>,
    /// In KVM the guest's CR4.OSXSAVE is set, so that XCR0 counts, which allows x87 and SSE only: where CPUID cannot be
    /// intercepted programs believe that AVX is there, and nobody would save its registers. A kernel that KVM executes
    /// would see the bit.
    pub hides_avx: bool,
    /// Where it stops.
    breakpoints: Vec<u64>,
    /// The last exit's answer has not been fetched yet: its instruction is not complete.
    pub unanswered: bool,
}

impl Vcpu {
    pub(super) fn new(vm: &VmFd, state: State, processors: u8, leaks: bool) -> Result<Vcpu, KvmError> {
        let mut fd = vm.create_vcpu(state.vcpu.into()).map_err(KvmError::call("KVM_CREATE_VCPU"))?;
        let own = fd.get_tsc_khz().map_err(KvmError::call("KVM_GET_TSC_KHZ"))?;
        if own != state.model.tsc_khz {
            fd.set_tsc_khz(state.model.tsc_khz).map_err(KvmError::call("KVM_SET_TSC_KHZ"))?;
        }
        let mut table = model::table(&state.model, state.vcpu, processors)?;
        if leaks {
            let leaf_1 = table.as_mut_slice().iter_mut().filter(|entry| entry.function == 1);
            leaf_1.for_each(|entry| entry.ecx |= XSAVE);
        }
        fd.set_cpuid2(&table).map_err(KvmError::call("KVM_SET_CPUID2"))?;
        if leaks {
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
            (xcrs.xcrs[0].xcr, xcrs.xcrs[0].value) = (0, X87_AND_SSE);
            fd.set_xcrs(&xcrs).map_err(KvmError::call("KVM_SET_XCRS"))?;
        }
        SYNCHRONISED.into_iter().for_each(|kind| fd.set_sync_valid_reg(kind));
        let numbers = BY_NUMBER.into_iter().filter(|&number| get_msr(&fd, number).is_ok()).collect();
        Ok(Vcpu {
            fd,
            state,
            numbers,
            unanswered: false,
            known: None,
            breakpoints: Vec::new(),
            hides_avx: false,
        })
    }

    /// Gives the processor a state, but for the time.
    pub(super) fn load(&mut self, state: State, apic_base: u64) -> Result<(), KvmError> {
        let mut values = state.clone();
        let now = Known {
            vector: registers::vector(&state),
            numbers: self.numbers.iter().map(|&number| (number, *by_number(&mut values, number))).collect(),
            debug: registers::debug(&state),
        };
        let (fd, known) = (&self.fd, self.known.as_ref());
        if known.is_none_or(|known| known.vector.region != now.vector.region) {
            // SAFETY: the kernel reads 4096 bytes: nothing asks for states that need more.
            unsafe { fd.set_xsave(&now.vector) }.map_err(KvmError::call("KVM_SET_XSAVE"))?;
        }
        if known.is_none_or(|known| known.numbers != now.numbers) {
            set_msrs(fd, &now.numbers)?;
        }
        if known.is_none_or(|known| known.debug != now.debug) {
            fd.set_debug_regs(&now.debug).map_err(KvmError::call("KVM_SET_DEBUGREGS"))?;
        }
        self.known = Some(now);
        let sync = self.fd.sync_regs_mut();
        registers::special(&state, &mut sync.sregs);
        sync.sregs.apic_base = apic_base;
        if self.hides_avx {
            sync.sregs.cr4 |= CR4_OSXSAVE;
        }
        sync.regs = registers::general(&state);
        sync.events = registers::events(&state);
        SYNCHRONISED.into_iter().for_each(|kind| self.fd.set_sync_dirty_reg(kind));
        let run = self.fd.get_kvm_run();
        run.if_flag = u8::from(state.rflags & RFLAGS_IF != 0);
        run.ready_for_interrupt_injection = u8::from(run.if_flag != 0 && !state.interrupt_shadow);
        self.state = state;
        self.unanswered = false;
        Ok(())
    }

    /// Lets the processor execute. Afterwards what it keeps is to be fetched again.
    pub(super) fn enter(&mut self) -> Result<Exit, KvmError> {
        self.known = None;
        exit::enter(&mut self.fd)
    }

    /// Fetches the processor's state into [`Vcpu::state`], but for the time, and says what was on its way. The last exit
    /// must be answered.
    pub(super) fn store(&mut self) -> Result<OnTheWay, KvmError> {
        if self.known.is_some() {
            // It has not executed since it was given its state.
            return Ok(OnTheWay::default());
        }
        let (fd, state) = (&self.fd, &mut self.state);
        let now = Known {
            vector: fd.get_xsave().map_err(KvmError::call("KVM_GET_XSAVE"))?,
            numbers: get_msrs(fd, &self.numbers)?,
            debug: fd.get_debug_regs().map_err(KvmError::call("KVM_GET_DEBUGREGS"))?,
        };
        registers::set_vector(state, &now.vector);
        now.numbers.iter().for_each(|&(number, value)| *by_number(state, number) = value);
        registers::set_debug(state, &now.debug);
        self.known = Some(now);
        let sync = self.fd.sync_regs();
        registers::set_general(&mut self.state, &sync.regs);
        registers::set_special(&mut self.state, &sync.sregs);
        // The model has no XSAVE: it is never the guest that sets this.
        self.state.cr4 &= !CR4_OSXSAVE;
        registers::set_events(&mut self.state, &sync.events);
        let (it, interrupt) = (sync.events.exception, sync.events.interrupt);
        let exception = (it.injected != 0 || it.pending != 0)
            .then(|| (it.nr, (it.has_error_code != 0).then_some(it.error_code as u16)));
        Ok(OnTheWay {
            exception,
            interrupt: (interrupt.injected != 0 && interrupt.soft == 0).then_some(interrupt.nr),
        })
    }

    /// The processor stops in front of these linear addresses, of which it takes the first four: that many debug
    /// registers there are. While there is one, breakpoints of the guest's own do not go off.
    pub(super) fn stop_at(&mut self, addresses: &[u64]) -> Result<(), KvmError> {
        let addresses = &addresses[..addresses.len().min(4)];
        if self.breakpoints == addresses {
            return Ok(());
        }
        let mut debug = kvm_guest_debug::default();
        if !addresses.is_empty() {
            debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        }
        debug.arch.debugreg[..addresses.len()].copy_from_slice(addresses);
        // L0 to L3; R/W and LEN of all are those of an instruction.
        debug.arch.debugreg[7] = (0..addresses.len()).fold(1 << 10, |dr7, number| dr7 | 1 << (2 * number));
        self.fd.set_guest_debug(&debug).map_err(KvmError::call("KVM_SET_GUEST_DEBUG"))?;
        self.breakpoints = addresses.to_vec();
        Ok(())
    }

    /// The processor takes the external interrupt `vector` before anything else.
    pub(super) fn interrupt(&mut self, vector: u8) -> Result<(), KvmError> {
        self.fd.get_kvm_run().ready_for_interrupt_injection = 0;
        if self.fd.get_kvm_run().kvm_dirty_regs & SyncReg::VcpuEvents as u64 != 0 {
            // The events that go with the next entry replace what a call would queue now.
            let interrupt = &mut self.fd.sync_regs_mut().events.interrupt;
            (interrupt.injected, interrupt.nr, interrupt.soft) = (1, vector, 0);
            return Ok(());
        }
        let interrupt = kvm_interrupt { irq: vector.into() };
        // SAFETY: the kernel reads the struct, which is valid.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), INTERRUPT, &interrupt) } {
            0 => Ok(()),
            _ => Err(KvmError::last("KVM_INTERRUPT")),
        }
    }

    /// Privilege level that the processor executes with: as of the last exit, or as it was given.
    pub(super) fn privilege(&self) -> u8 {
        self.fd.sync_regs().sregs.ss.dpl & 3
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
