//! MADT (ACPI 6.4 5.2.12): local APICs and the IOAPIC. Its pins are the legacy interrupts, one to one, so there are
//! no overrides; there is no 8259 to be disabled (PCAT_COMPAT clear).

use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes};
use crate::map;

pub(super) fn build(cpus: u8) -> Vec<u8> {
    let address = LocalInterruptController::Address(map::LAPIC as u32);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, address);
    for id in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, map::IOAPIC as u32, 0));
    bytes(&madt)
}
