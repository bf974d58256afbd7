//! Where everything lies: guest-physical addresses, ports and interrupt numbers of the machine.
//!
//! ```text
//! 0x0000_0000  low RAM            640 KiB
//! 0x000a_0000  nothing            (VGA and option ROMs on a PC)
//! 0x000e_0000  ACPI tables        128 KiB, the RSDP at the start
//! 0x0010_0000  RAM                up to 3 GiB
//! 0xc000_0000  nothing            (PCI on a PC)
//! 0xf000_0000  label areas        128 KiB per NVDIMM; not decoded, a place to speak of them by
//! 0xfd00_0000  flush hints        one page per NVDIMM
//! 0xfd10_0000  NVDIMM firmware    one page, for AML only
//! 0xfd20_0000  virtio registers   one page per device
//! 0xfec0_0000  IOAPIC
//! 0xfee0_0000  local APIC
//! 0x1_0000_0000 RAM above 3 GiB, then, from the next GiB boundary, the ranges of persistent memory one after the other:
//!              NVDIMMs, those of virtio-pmem devices, legacy ones
//! ```

/// Frequency of the TSC, of the core crystal clock (CPUID 0x15) and of the local APIC timer before its divider, in
/// Hz. One tick is one nanosecond of virtual time.
pub const CLOCK_HZ: u64 = 1_000_000_000;

/// End of the RAM below 1 MiB.
pub const LOW_RAM_END: u64 = 0x000a_0000;
/// Where the ACPI tables are put, the RSDP first. The range must be reserved in e820.
pub const ACPI_AREA: u64 = 0x000e_0000;
/// Size of the ACPI area, in bytes.
pub const ACPI_AREA_SIZE: u64 = 0x2_0000;
/// Start of the RAM above 1 MiB.
pub const HIGH_RAM_START: u64 = 0x0010_0000;
/// End of RAM below 4 GiB: what does not fit goes above [`FOUR_GIB`].
pub const RAM_HOLE_START: u64 = 0xc000_0000;
/// 4 GiB.
pub const FOUR_GIB: u64 = 1 << 32;
/// Alignment of the first byte of persistent memory.
pub const GIB: u64 = 1 << 30;

/// Flush hint addresses: page N belongs to NVDIMM N.
pub const FLUSH_HINTS: u64 = 0xfd00_0000;
/// Bytes between two flush hints of one NVDIMM: each has a cache line of its own.
pub const FLUSH_HINT_STRIDE: u64 = 64;
/// Most flush hints of one NVDIMM: they share a page.
pub const MAX_FLUSH_HINTS: u32 = 64;
/// Most NVDIMMs of a machine.
pub const MAX_NVDIMMS: usize = 256;

/// Label areas: that of NVDIMM N is the Nth. No processor and no device reaches them at these addresses.
pub const LABELS: u64 = 0xf000_0000;
/// Bytes of a label area.
pub const LABELS_SIZE: u64 = 128 << 10;
/// Mailbox of the NVDIMMs' firmware, one page.
pub const NVDIMM_FIRMWARE: u64 = 0xfd10_0000;

/// Registers of the virtio devices: page N belongs to device N.
pub const VIRTIO: u64 = 0xfd20_0000;
/// Bytes that one virtio device decodes.
pub const VIRTIO_SIZE: u64 = 0x200;
/// Most virtio devices of a machine: each has an interrupt line of its own.
pub const MAX_VIRTIO: usize = 8;

/// Registers of the IOAPIC, one page.
pub const IOAPIC: u64 = 0xfec0_0000;
/// Registers of the local APIC, one page.
pub const LAPIC: u64 = 0xfee0_0000;

/// Ports of the devices.
pub mod port {
    /// First 8259: command, then data.
    pub const PIC_FIRST: u16 = 0x20;
    /// Second 8259: command, then data.
    pub const PIC_SECOND: u16 = 0xa0;
    /// 8254: three channels, then the control word.
    pub const PIT: u16 = 0x40;
    /// Gate of PIT channel 2 and its output.
    pub const SPEAKER: u16 = 0x61;
    /// Keyboard controller, of which only the reset line exists.
    pub const KEYBOARD: u16 = 0x64;
    /// CMOS index, then data.
    pub const RTC: u16 = 0x70;
    /// Debug console: every byte written comes out, without a device to set up.
    pub const DEBUG_CONSOLE: u16 = 0xe9;
    /// isa-debug-exit.
    pub const DEBUG_EXIT: u16 = 0xf4;
    /// 16550, eight registers.
    pub const SERIAL: u16 = 0x3f8;
    /// Selector of QEMU's firmware configuration.
    pub const FW_CFG_SELECTOR: u16 = 0x510;
    /// Data of QEMU's firmware configuration.
    pub const FW_CFG_DATA: u16 = 0x511;
    /// ACPI sleep control register.
    pub const SLEEP_CONTROL: u16 = 0x600;
    /// ACPI sleep status register.
    pub const SLEEP_STATUS: u16 = 0x601;
    /// Upper byte of the PM1 control register where QEMU's PC has it. ACPI does not tell of it: bare payloads power off by
    /// it without a look at the tables.
    pub const PM1_CONTROL_HIGH: u16 = 0x605;
    /// PCI configuration address; 0xcf9 within it is [`RESET`].
    pub const PCI_ADDRESS: u16 = 0xcf8;
    /// Reset control register.
    pub const RESET: u16 = 0xcf9;
    /// PCI configuration data.
    pub const PCI_DATA: u16 = 0xcfc;
    /// Control port of the simulator: 32-bit OUT only.
    pub const CONTROL: u16 = 0x0d50;
}

/// Interrupt lines, which are IOAPIC pins.
pub mod irq {
    /// PIT channel 0, where the MADT says nothing else.
    pub const PIT: u8 = 0;
    /// 16550.
    pub const SERIAL: u8 = 4;
    /// First virtio device; device N has line N behind it.
    pub const VIRTIO: u8 = 16;
}

/// RAM of `memory` bytes as (guest-physical start, size), in ascending order. `memory` of less than 1 MiB plus a
/// page is taken as that.
pub fn ram(memory: u64) -> Vec<(u64, u64)> {
    let memory = memory.max(HIGH_RAM_START + 0x1000);
    let below = memory.min(RAM_HOLE_START);
    let mut ranges = vec![(0, LOW_RAM_END), (HIGH_RAM_START, below - HIGH_RAM_START)];
    if memory > below {
        ranges.push((FOUR_GIB, memory - below));
    }
    ranges
}

/// Start of the first NVDIMM of a machine with `memory` bytes of RAM: at 4 GiB or the first GiB boundary above RAM.
pub fn pmem_base(memory: u64) -> u64 {
    let above = memory.saturating_sub(RAM_HOLE_START);
    (FOUR_GIB + above).next_multiple_of(GIB)
}

/// The `count` flush hint addresses of NVDIMM `index` (0-based), at most [`MAX_FLUSH_HINTS`].
pub fn flush_hints(index: usize, count: u32) -> Vec<u64> {
    let page = FLUSH_HINTS + 0x1000 * index as u64;
    (0..u64::from(count.min(MAX_FLUSH_HINTS))).map(|n| page + n * FLUSH_HINT_STRIDE).collect()
}

/// Label area of NVDIMM `index` (0-based).
pub fn labels(index: usize) -> u64 {
    LABELS + LABELS_SIZE * index as u64
}

/// Registers of virtio device `index` (0-based).
pub fn virtio(index: usize) -> u64 {
    VIRTIO + 0x1000 * index as u64
}

/// NFIT device handle of NVDIMM `index` (0-based): DIMM number in bits 3:0, channel in 7:4, memory controller in
/// 11:8 (ACPI 6.4 table 5.134). Never zero.
pub fn nvdimm_handle(index: usize) -> u32 {
    index as u32 + 1
}

/// Index of the NVDIMM with this handle: see [`nvdimm_handle`].
pub fn nvdimm_index(handle: u32) -> usize {
    handle.saturating_sub(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_above_three_gib_continues_at_four() {
        assert_eq!(ram(256 << 20), [(0, 0xa0000), (0x100000, 255 << 20)]);
        assert_eq!(ram(4 << 30)[1..], [(0x100000, (3 << 30) - 0x100000), (FOUR_GIB, 1 << 30)]);
    }

    #[test]
    fn pmem_begins_on_the_next_gib() {
        assert_eq!(pmem_base(256 << 20), 4 << 30);
        assert_eq!(pmem_base(3 << 30), 4 << 30);
        assert_eq!(pmem_base((3 << 30) + 4096), 5 << 30);
        assert_eq!(pmem_base(4 << 30), 5 << 30);
    }

    #[test]
    fn flush_hints_of_one_nvdimm_share_its_page() {
        assert_eq!(flush_hints(1, 2), [FLUSH_HINTS + 0x1000, FLUSH_HINTS + 0x1040]);
        assert_eq!(flush_hints(0, 1000).len(), 64);
    }
}
