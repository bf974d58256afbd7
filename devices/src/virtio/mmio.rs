//! The registers of the memory-mapped transport, version 2 (VIRTIO 1.3, 4.2.2), of a device with one queue.

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::*;
use vm_memory::GuestMemory;

use super::queue::{Broken, MAX_SIZE, Ring};

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// Subsystem vendor: any number will do (4.2.2), "PMSM" here.
const VENDOR: u32 = 0x4d53_4d50;
/// Every device of this transport is one of VIRTIO 1.
const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
/// Status bits that the driver sets.
const BY_DRIVER: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_DRIVER_OK
    | VIRTIO_CONFIG_S_FAILED;

/// What makes a device another one than the next: it never changes.
pub(super) struct Identity {
    /// Device type (VIRTIO 1.3, 5).
    pub device: u32,
    /// Features offered, VERSION_1 aside.
    pub features: u64,
    /// Device configuration, in its place.
    pub config: Vec<u8>,
    /// Guest-physical address and bytes of shared memory region 0 (2.10).
    pub shared_memory: (u64, u64),
}

/// What a write asks of the device behind the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// The driver has rung the doorbell of the queue, which is live.
    LookAtQueue,
    /// The device or its queue was reset: no request of before may be answered.
    ForgetRequests,
}

/// The registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registers {
    status: u32,
    interrupt: u32,
    driver_features: u64,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
    shared_memory_select: u32,
    pub queue: Ring,
}

impl Registers {
    /// Whether the interrupt line is high.
    pub(super) fn irq(&self) -> bool {
        self.interrupt != 0
    }

    /// Whether the driver drives the device and neither has given up.
    pub(super) fn is_live(&self) -> bool {
        let given_up = VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;
        self.status & (VIRTIO_CONFIG_S_DRIVER_OK | given_up) == VIRTIO_CONFIG_S_DRIVER_OK
    }

    /// The driver must reset the device before anything goes on. It is told if it drives already (2.1.2).
    pub(super) fn needs_reset(&mut self) {
        self.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        if self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.interrupt |= VIRTIO_MMIO_INT_CONFIG;
        }
    }

    /// Buffers have been given back to the driver.
    pub(super) fn buffers_used(&mut self) {
        self.interrupt |= VIRTIO_MMIO_INT_VRING;
    }

    /// Reads at `offset` of the registers. They take 32-bit accesses only, the configuration any that lie in it
    /// (4.2.2.2); all others read as zero.
    pub(super) fn read(&self, identity: &Identity, offset: u64, size: usize) -> u64 {
        if offset >= u64::from(VIRTIO_MMIO_CONFIG) {
            return config(&identity.config, offset - u64::from(VIRTIO_MMIO_CONFIG), size);
        }
        if size != 4 || !offset.is_multiple_of(4) {
            return 0;
        }
        let queue_zero = self.queue_select == 0;
        let value = match offset as u32 {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => identity.device,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => {
                half(identity.features | VERSION_1, self.device_features_select).unwrap_or(0)
            }
            VIRTIO_MMIO_QUEUE_NUM_MAX if queue_zero => MAX_SIZE.into(),
            VIRTIO_MMIO_QUEUE_READY if queue_zero => self.queue.ready.into(),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt,
            VIRTIO_MMIO_STATUS => self.status,
            VIRTIO_MMIO_SHM_LEN_LOW => self.shared_memory(identity).1 as u32,
            VIRTIO_MMIO_SHM_LEN_HIGH => (self.shared_memory(identity).1 >> 32) as u32,
            VIRTIO_MMIO_SHM_BASE_LOW => self.shared_memory(identity).0 as u32,
            VIRTIO_MMIO_SHM_BASE_HIGH => (self.shared_memory(identity).0 >> 32) as u32,
            // The configuration never changes, nor does its generation.
            VIRTIO_MMIO_CONFIG_GENERATION => 0,
            _ => 0,
        };
        value.into()
    }

    /// Base and length of the selected shared memory region; all ones where there is none.
    fn shared_memory(&self, identity: &Identity) -> (u64, u64) {
        if self.shared_memory_select == 0 { identity.shared_memory } else { (u64::MAX, u64::MAX) }
    }

    /// Writes at `offset` of the registers, 32 bits at a time; everything else is swallowed.
    pub(super) fn write<M: GuestMemory>(
        &mut self,
        identity: &Identity,
        offset: u64,
        size: usize,
        value: u64,
        memory: &M,
    ) -> Asked {
        let Some(offset) = u32::try_from(offset).ok().filter(|_| size == 4) else { return Asked::Nothing };
        let value = value as u32;
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.write_driver_features(value),
            VIRTIO_MMIO_QUEUE_SEL => self.queue_select = value,
            VIRTIO_MMIO_SHM_SEL => self.shared_memory_select = value,
            VIRTIO_MMIO_QUEUE_NOTIFY if value == 0 && self.is_live() && self.queue.ready => {
                return Asked::LookAtQueue;
            }
            VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt &= !value,
            VIRTIO_MMIO_STATUS => return self.write_status(identity, value),
            VIRTIO_MMIO_QUEUE_READY if self.queue_select == 0 && value & 1 == 0 => {
                self.queue.stop();
                return Asked::ForgetRequests;
            }
            _ if self.queue_select == 0 && !self.queue.ready => self.write_queue(offset, value, memory),
            _ => {}
        }
        Asked::Nothing
    }

    /// Features are settled once FEATURES_OK is set (3.1.1).
    fn write_driver_features(&mut self, value: u32) {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            set_half(&mut self.driver_features, self.driver_features_select, value);
        }
    }

    /// The driver sets bits one after the other and clears none but by a reset, which is writing zero (2.1.1).
    fn write_status(&mut self, identity: &Identity, value: u32) -> Asked {
        if value == 0 {
            *self = Registers::default();
            return Asked::ForgetRequests;
        }
        let mut set = value & BY_DRIVER;
        let refused = self.driver_features & !(identity.features | VERSION_1) != 0
            || self.driver_features & VERSION_1 == 0;
        if refused && self.status & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            set &= !(VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
        }
        self.status |= set;
        Asked::Nothing
    }

    /// Registers of the queue, which is not ready: a ready one does not change (4.2.2.2).
    fn write_queue<M: GuestMemory>(&mut self, offset: u32, value: u32, memory: &M) {
        let queue = &mut self.queue;
        match offset {
            VIRTIO_MMIO_QUEUE_READY => {
                if let Err(Broken) = queue.make_ready(memory) {
                    self.needs_reset();
                }
            }
            VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
            VIRTIO_MMIO_QUEUE_DESC_LOW => set_half(&mut queue.descriptors, 0, value),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => set_half(&mut queue.descriptors, 1, value),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_half(&mut queue.available, 0, value),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_half(&mut queue.available, 1, value),
            VIRTIO_MMIO_QUEUE_USED_LOW => set_half(&mut queue.used, 0, value),
            VIRTIO_MMIO_QUEUE_USED_HIGH => set_half(&mut queue.used, 1, value),
            _ => {}
        }
    }
}

/// `size` bytes of the configuration at `offset`, zero where there are none.
fn config(config: &[u8], offset: u64, size: usize) -> u64 {
    let mut bytes = [0; 8];
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    if let Some(found) = from.checked_add(size).and_then(|end| config.get(from..end))
        && let Some(place) = bytes.get_mut(..size)
    {
        place.copy_from_slice(found);
    }
    u64::from_le_bytes(bytes)
}

/// Low (0) or high (1) 32 bits.
fn half(value: u64, select: u32) -> Option<u32> {
    (select < 2).then(|| (value >> (32 * select)) as u32)
}

fn set_half(value: &mut u64, select: u32, half: u32) {
    if select < 2 {
        let shift = 32 * select;
        *value = *value & !(0xffff_ffff << shift) | u64::from(half) << shift;
    }
}
