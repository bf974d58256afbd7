//! The _DSM of the NVDIMM root device (ACPI 6.4 9.20.7) and of NVDIMMs, over the mailbox of [`crate::NvdimmFirmware`].

use acpi_tables::Aml;
use acpi_tables::aml::{
    Acquire, Arg, BufferData, DeRefOf, Equal, If, Index, Local, Method, MethodCall, Mid, Or, Release, Return,
    SizeOf, Store, Uuid, ZERO,
};

use super::labels::{FOR_EVER, name};
use crate::nvdimm_firmware::command;
use crate::{bus_functions, dimm_functions};

/// Functions of the NVDIMM root device (9.20.7).
const BUS: &str = "2F10E7A4-9E91-11E4-89D3-123B93F75CBA";
/// Functions of NVDIMMs that Intel introduced (NVDIMM_FAMILY_INTEL).
const INTEL: &str = "4309AC30-0D11-11E4-9191-0800200C9A66";

/// _DSM of the root device.
pub(super) fn of_bus(code: &mut Vec<u8>) {
    method(BUS, bus_functions::FUNCTIONS, command::BUS, 0, code);
}

/// _DSM of the NVDIMM with this NFIT device handle.
pub(super) fn of_nvdimm(handle: u32, labels: bool, code: &mut Vec<u8>) {
    method(INTEL, dimm_functions::offered(labels), command::DIMM, handle, code);
}

/// Function 0 tells which there are; the others have one buffer in their package.
fn method(family: &str, offered: u8, first: u32, handle: u32, code: &mut Vec<u8>) {
    let (uuid, offered, none) = (Uuid::new(family), BufferData::new(vec![offered]), BufferData::new(vec![0]));
    let (offered, none) = (Return::new(&offered), Return::new(&none));
    let (is_family, is_query) = (Equal::new(&Arg(0), &uuid), Equal::new(&Arg(2), &ZERO));
    let query = If::new(&is_query, vec![&offered]);
    let command = Or::new(&Local(0), &Arg(2), &first);
    let package = Index::new(&ZERO, &Arg(3), &ZERO);
    let input = DeRefOf::new(&package);
    let output = MethodCall::new("FUNC".into(), vec![&handle, &Local(0), &input]);
    let output = Return::new(&output);
    let family = If::new(&is_family, vec![&query, &command, &output]);
    Method::new("_DSM".into(), 4, false, vec![&family, &none]).to_aml_bytes(code);
}

/// `FUNC(handle, command, input)` returns the output of a function.
pub(super) fn ask(code: &mut Vec<u8>) {
    let (acquire, release) = (Acquire::new("LMTX".into(), FOR_EVER), Release::new("LMTX".into()));
    let (data, leng) = (name("DATA"), name("LENG"));
    let input = Store::new(&data, &Arg(2));
    let size = SizeOf::new(&Arg(2));
    let asked = MethodCall::new("LASK".into(), vec![&Arg(0), &ZERO, &size, &Arg(1)]);
    let status = Store::new(&Local(1), &asked);
    let nothing = BufferData::new(Vec::new());
    let empty = Store::new(&Local(2), &nothing);
    let window = Store::new(&Local(3), &data);
    let part = Mid::new(&Local(3), &ZERO, &leng, &Local(2));
    let done = Equal::new(&Local(1), &ZERO);
    let bytes = If::new(&done, vec![&window, &part]);
    let output = Return::new(&Local(2));
    let body: Vec<&dyn Aml> = vec![&acquire, &input, &status, &empty, &bytes, &release, &output];
    Method::new("FUNC".into(), 3, false, body).to_aml_bytes(code);
}
