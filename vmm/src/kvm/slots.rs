//! Guest memory as KVM sees it: one slot for each bank.

#![allow(unsafe_code)] // KVM writes the mapping behind the compiler's back.

use std::sync::Arc;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::MmapRegion;

use super::KvmError;
use crate::memory::{BankKind, Memory, PAGE};

/// Where the kernel may put what Intel's processors need to execute real mode: below the local APIC, where there is never
/// memory (Documentation/virt/kvm/api.rst, KVM_SET_TSS_ADDR).
const IDENTITY_MAP: u64 = 0xfffb_c000;
const TSS: usize = 0xfffb_d000;

/// A page where there is never memory: below the one for real mode.
const NOWHERE: u64 = IDENTITY_MAP - PAGE;

/// One bank.
struct Slot {
    base: u64,
    kind: BankKind,
    host: Arc<MmapRegion>,
    logged: bool,
}

/// All banks. Keeps their mappings alive as long as KVM may write them.
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    /// Gives the machine's memory to the guest.
    pub(super) fn new(vm: &VmFd, memory: &Memory) -> Result<Slots, KvmError> {
        vm.set_identity_map_address(IDENTITY_MAP).map_err(KvmError::call("KVM_SET_IDENTITY_MAP_ADDR"))?;
        vm.set_tss_address(TSS).map_err(KvmError::call("KVM_SET_TSS_ADDR"))?;
        let slots = memory.mappings().map(|(base, kind, host)| Slot {
            base,
            kind,
            host: host.clone(),
            logged: kind == BankKind::Pmem,
        });
        let slots = Slots(slots.collect());
        slots.0.iter().zip(0..).try_for_each(|(slot, index)| slot.set(vm, index))?;
        Ok(slots)
    }

    /// Whether changed pages of RAM are noted, too. Those of persistent memory always are.
    pub(super) fn log_ram(&mut self, vm: &VmFd, on: bool) -> Result<(), KvmError> {
        for (slot, index) in self.0.iter_mut().zip(0..) {
            if slot.kind == BankKind::Ram && slot.logged != on {
                slot.logged = on;
                slot.set(vm, index)?;
            }
        }
        Ok(())
    }

    /// Makes KVM forget what it keeps of the guest's page tables: it does when a slot goes. This one has never been more
    /// than that: no guest has executed while it was there.
    pub(super) fn forget_page_tables(&self, vm: &VmFd) -> Result<(), KvmError> {
        let Some(page) = self.0.first() else { return Ok(()) };
        for size in [PAGE, 0] {
            let region = kvm_userspace_memory_region {
                slot: self.0.len() as u32,
                flags: 0,
                guest_phys_addr: NOWHERE,
                memory_size: size,
                userspace_addr: page.host.as_ptr() as u64,
            };
            // SAFETY: the page lies in a mapping that `self` keeps.
            unsafe { vm.set_user_memory_region(region) }
                .map_err(KvmError::call("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(())
    }

    /// Numbers of the pages that KVM wrote since the last call, of the banks that are logged.
    pub(super) fn changed(&self, vm: &VmFd) -> Result<Vec<u64>, KvmError> {
        let mut pages = Vec::new();
        for (slot, index) in self.0.iter().zip(0..).filter(|(slot, _)| slot.logged) {
            let log =
                vm.get_dirty_log(index, slot.host.size()).map_err(KvmError::call("KVM_GET_DIRTY_LOG"))?;
            for (word, first) in log.into_iter().zip((slot.base / PAGE..).step_by(64)) {
                pages.extend((0..64).filter(|bit| word >> bit & 1 != 0).map(|bit| first + bit));
            }
        }
        Ok(pages)
    }
}

impl Slot {
    fn set(&self, vm: &VmFd, index: u32) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region {
            slot: index,
            flags: if self.logged { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
            guest_phys_addr: self.base,
            memory_size: self.host.size() as u64,
            userspace_addr: self.host.as_ptr() as u64,
        };
        // SAFETY: the mapping is as long as told, and `self` keeps it as long as the machine of KVM lives. No reference
        // stands for its bytes while KVM executes: see `Memory`.
        unsafe { vm.set_user_memory_region(region) }.map_err(KvmError::call("KVM_SET_USER_MEMORY_REGION"))
    }
}
