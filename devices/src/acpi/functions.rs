//! The _DSM of the NVDIMM root device (ACPI 6.4 9.20.7), over the mailbox of [`crate::NvdimmFirmware`].

use acpi_tables::Aml;
use acpi_tables::aml::{
    Acquire, Arg, BufferData, DeRefOf, Equal, If, Index, Local, Method, MethodCall, Mid, Or, Release, Return,
    SizeOf, Store, Uuid, ZERO,
};

use super::labels::{FOR_EVER, name};
use crate::bus_functions::FUNCTIONS;
use crate::nvdimm_firmware::command;

/// Functions of the NVDIMM root device (9.20.7).
const BUS: &str = "2F10E7A4-9E91-11E4-89D3-123B93F75CBA";

/// _DSM of the root device. Function 0 tells which there are; the others have one buffer in their package.
pub(super) fn of_bus(code: &mut Vec<u8>) {
    ask_bus(code);
    let (uuid, offered, none) = (Uuid::new(BUS), BufferData::new(vec![FUNCTIONS]), BufferData::new(vec![0]));
    let (offered, none) = (Return::new(&offered), Return::new(&none));
    let (is_bus, is_query) = (Equal::new(&Arg(0), &uuid), Equal::new(&Arg(2), &ZERO));
    let query = If::new(&is_query, vec![&offered]);
    let first = Index::new(&ZERO, &Arg(3), &ZERO);
    let input = DeRefOf::new(&first);
    let output = MethodCall::new("BUSF".into(), vec![&Arg(2), &input]);
    let output = Return::new(&output);
    let bus = If::new(&is_bus, vec![&query, &output]);
    Method::new("_DSM".into(), 4, false, vec![&bus, &none]).to_aml_bytes(code);
}

/// `BUSF(function, input)` returns the output.
fn ask_bus(code: &mut Vec<u8>) {
    let (acquire, release) = (Acquire::new("LMTX".into(), FOR_EVER), Release::new("LMTX".into()));
    let (data, leng, bus) = (name("DATA"), name("LENG"), command::BUS);
    let input = Store::new(&data, &Arg(1));
    let function = Or::new(&Local(0), &Arg(0), &bus);
    let size = SizeOf::new(&Arg(1));
    let asked = MethodCall::new("LASK".into(), vec![&ZERO, &ZERO, &size, &Local(0)]);
    let status = Store::new(&Local(1), &asked);
    let nothing = BufferData::new(Vec::new());
    let empty = Store::new(&Local(2), &nothing);
    let window = Store::new(&Local(3), &data);
    let part = Mid::new(&Local(3), &ZERO, &leng, &Local(2));
    let done = Equal::new(&Local(1), &ZERO);
    let bytes = If::new(&done, vec![&window, &part]);
    let output = Return::new(&Local(2));
    let body: Vec<&dyn Aml> = vec![&acquire, &input, &function, &status, &empty, &bytes, &release, &output];
    Method::new("BUSF".into(), 2, false, body).to_aml_bytes(code);
}
