//! virtio-pmem devices on the board: what they record, and when they interrupt.

use cpu::CpuView;
use devices::map;
use devices::virtio::{FlushEvent, FlushFault};

use super::Board;
use crate::device_memory::DeviceMemory;
use crate::memory::PAGE;

impl Board {
    /// Answers flushes whose time has come, up to the one behind which the run is to stop.
    pub(super) fn expire_virtio(&mut self, device: usize, now: u64) {
        while self.stop.is_none() {
            let event = self.chips.virtio[device].expire(now, &DeviceMemory::new(&mut self.memory));
            self.update_virtio_irq(device);
            match event {
                Some(event) => self.flush_event(None, device, event),
                None => return,
            }
        }
    }

    /// Records what happened to a flush, by the processor `view` if it was one.
    pub(super) fn flush_event(&mut self, view: Option<&CpuView>, device: usize, event: FlushEvent) {
        let Some(region) = self.wiring.virtio_regions().nth(device) else { return };
        self.look_at_pages();
        let region = region as u32;
        // Every device counts its own flushes.
        let id = |number: u64| u64::from(region) << 48 | number;
        let stop = match (event, view) {
            (FlushEvent::Submitted { number }, Some(view)) => {
                self.recorder.device_flush_submitted(view, region, id(number))
            }
            (FlushEvent::Submitted { .. }, None) => false,
            (FlushEvent::Completed { number, status }, _) => {
                self.recorder.device_flush_completed(region, id(number), status)
            }
        };
        self.recorded(stop);
    }

    pub(super) fn update_virtio_irq(&mut self, device: usize) {
        let pin = map::irq::VIRTIO + device as u8;
        let message = self.chips.ioapic.set_irq(pin, self.chips.virtio[device].irq());
        self.deliver(message);
    }

    /// Sets what goes wrong with the flushes of a region; false if no device tells of it.
    pub(crate) fn set_flush_faults(&mut self, region: usize, faults: &[FlushFault]) -> bool {
        let device = self.wiring.virtio_regions().position(|index| index == region);
        let Some(device) = device.and_then(|device| self.chips.virtio.get_mut(device)) else { return false };
        device.set_faults(faults);
        true
    }

    /// The virtio device that decodes `addr`, and the offset in its registers.
    pub(super) fn virtio(&self, addr: u64) -> Option<(usize, u64)> {
        let offset = addr.checked_sub(map::VIRTIO)?;
        let (device, offset) = ((offset / PAGE) as usize, offset % PAGE);
        (device < self.chips.virtio.len() && offset < map::VIRTIO_SIZE).then_some((device, offset))
    }
}
