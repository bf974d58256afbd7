//! DSDT: the devices that cannot be found by looking (ACPI 6.4 5.2.11.1).

use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope,
};
use acpi_tables::{Aml, AmlSink, sdt::Sdt};

use super::{Config, Nvdimm, OEM_ID, OEM_REVISION, OEM_TABLE_ID, functions, labels};
use crate::map::{self, irq, port};
use crate::power::SLEEP_TYPE_S5;

pub(super) fn build(config: &Config) -> Vec<u8> {
    let mut code = Vec::new();
    soft_off(&mut code);
    serial(&mut code);
    if !config.nvdimms.is_empty() {
        nvdimm_root(config, &mut code);
    }
    (0..config.virtio_devices).for_each(|index| virtio(index, &mut code));
    // Revision 2: integers have 64 bits.
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&code);
    table.as_slice().to_vec()
}

/// \_S5: the values for the sleep registers (ACPI 6.4 7.4.2). Hardware-reduced machines use the first.
fn soft_off(code: &mut Vec<u8>) {
    let package = Package::new(vec![&SLEEP_TYPE_S5, &0u8, &0u8, &0u8]);
    Name::new("_S5_".into(), &package).to_aml_bytes(code);
}

/// COM1. Without it Linux would take IRQ 4 for granted, which a machine without 8259 does not have.
fn serial(code: &mut Vec<u8>) {
    let identity = Name::new("_HID".into(), &EISAName::new("PNP0501"));
    let unique = Name::new("_UID".into(), &1u8);
    let ports = IO::new(port::SERIAL, port::SERIAL, 1, 8);
    let interrupt = Interrupt::new(true, true, false, false, irq::SERIAL.into());
    let resources = ResourceTemplate::new(vec![&ports, &interrupt]);
    let resources = Name::new("_CRS".into(), &resources);
    let device = Device::new("COM1".into(), vec![&identity, &unique, &resources]);
    Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(code);
}

/// A virtio device behind the memory-mapped transport, by the identity that QEMU and Linux (virtio_mmio_acpi_match)
/// agreed upon. Its interrupt is level-triggered and active high.
fn virtio(index: usize, code: &mut Vec<u8>) {
    let identity = Name::new("_HID".into(), &"LNRO0005");
    let number = index as u8;
    let unique = Name::new("_UID".into(), &number);
    let registers = Memory32Fixed::new(true, map::virtio(index) as u32, map::VIRTIO_SIZE as u32);
    let interrupt = Interrupt::new(true, false, false, false, (irq::VIRTIO + number).into());
    let resources = ResourceTemplate::new(vec![&registers, &interrupt]);
    let resources = Name::new("_CRS".into(), &resources);
    let name = format!("VIO{index:X}");
    let device = Device::new(name.as_str().into(), vec![&identity, &unique, &resources]);
    Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(code);
}

/// The NVDIMM root device with one child per NVDIMM, whose _ADR is the NFIT device handle (ACPI 6.4 9.20.3).
fn nvdimm_root(config: &Config, code: &mut Vec<u8>) {
    let nvdimms = &config.nvdimms;
    let children = |nvdimm: &Nvdimm, handle: u32| {
        let mut bytes = Vec::new();
        Name::new("_ADR".into(), &handle).to_aml_bytes(&mut bytes);
        match (nvdimm.smart, nvdimm.labels) {
            (true, labels) => functions::of_nvdimm(handle, labels, &mut bytes),
            (false, true) => labels::methods_of_nvdimm(handle, &mut bytes),
            (false, false) => {}
        }
        Code(bytes)
    };
    let all = nvdimms.iter().flat_map(|nvdimm| nvdimm.handles().map(move |handle| (nvdimm, handle)));
    let contents: Vec<Code> = all.map(|(nvdimm, handle)| children(nvdimm, handle)).collect();
    let device = |(index, content)| -> Device {
        Device::new(format!("NV{index:02X}").as_str().into(), vec![content as &dyn Aml])
    };
    let devices: Vec<Device> = contents.iter().enumerate().map(device).collect();

    let identity = Name::new("_HID".into(), &"ACPI0012");
    let mut mailbox = Code(Vec::new());
    let smart = nvdimms.iter().any(|nvdimm| nvdimm.smart);
    if config.media_errors || smart || nvdimms.iter().any(|nvdimm| nvdimm.labels) {
        labels::mailbox(&mut mailbox.0);
    }
    if config.media_errors || smart {
        functions::ask(&mut mailbox.0);
    }
    if config.media_errors {
        functions::of_bus(&mut mailbox.0);
    }
    let mut children: Vec<&dyn Aml> = vec![&identity, &mailbox];
    children.extend(devices.iter().map(|device| device as &dyn Aml));
    let root = Device::new("NVDR".into(), children);
    Scope::new("_SB_".into(), vec![&root]).to_aml_bytes(code);
}

/// AML that is there already.
struct Code(Vec<u8>);

impl Aml for Code {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}
