//! FADT (ACPI 6.4 5.2.9).

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes};
use crate::map::port;
use crate::power::RESET_VALUE;
use crate::rtc::CENTURY;

/// IA-PC boot architecture flags (ACPI 6.4 5.2.9.3): no VGA, no CMOS RTC. Bit 1, an 8042, is clear.
///
/// The RTC is there and Linux reads the time from it whatever this flag says (mach_get_cmos_time); the flag keeps
/// Linux from adding a platform device that would ask for IRQ 8, which the RTC does not have.
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 5;

pub(super) fn build(dsdt: u64) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::HwReducedAcpi);
    fadt.fadt_minor_version = 4;
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.century = CENTURY;
    fadt.reset_reg = byte_port(port::RESET);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = byte_port(port::SLEEP_CONTROL);
    fadt.sleep_status_reg = byte_port(port::SLEEP_STATUS);
    bytes(&fadt.finalize())
}

fn byte_port(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into())
}
