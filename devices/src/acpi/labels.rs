//! The methods by which a kernel reaches label areas (ACPI 6.4 6.5.10), over the mailbox of
//! [`crate::NvdimmFirmware`].

use acpi_tables::Aml;
use acpi_tables::aml::{
    Acquire, Arg, BufferData, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If,
    Index, Local, Method, MethodCall, Mid, Mutex, ONE, OpRegion, OpRegionSpace, PackageBuilder, Path,
    Release, Return, Store, Uuid, ZERO,
};

use crate::map;
use crate::nvdimm_firmware::{WINDOW, WINDOW_OFFSET, command};

/// Waits for ever.
pub(super) const FOR_EVER: u16 = 0xffff;

/// What the methods of all NVDIMMs share, below the NVDIMM root device:
///
/// - registers HAND, OFFS, LENG, COMM and the window DATA;
/// - `LASK(handle, offset, length, command)` does a command and returns its status; the mutex is its caller's.
/// - `LSIZ(handle)`, `LGET(handle, offset, length)` and `LPUT(handle, offset, length, bytes)` are the three methods.
pub(super) fn mailbox(code: &mut Vec<u8>) {
    let (place, size) = (map::NVDIMM_FIRMWARE, 0x1000_u32);
    OpRegion::new("LBOX".into(), OpRegionSpace::SystemMemory, &place, &size).to_aml_bytes(code);
    let registers = [*b"HAND", *b"OFFS", *b"LENG", *b"COMM"].map(|name| FieldEntry::Named(name, 32));
    field(FieldAccessType::DWord, registers.to_vec()).to_aml_bytes(code);
    let window = vec![
        FieldEntry::Reserved(8 * WINDOW_OFFSET as usize),
        // As wide as an access can be: every one of them costs the interpreter the same.
        FieldEntry::Named(*b"DATA", 8 * WINDOW),
    ];
    field(FieldAccessType::QWord, window).to_aml_bytes(code);
    Mutex::new("LMTX".into(), 0).to_aml_bytes(code);
    ask(code);
    size_of(code);
    get(code);
    put(code);
}

fn field(access: FieldAccessType, entries: Vec<FieldEntry>) -> Field {
    Field::new("LBOX".into(), access, FieldLockRule::NoLock, FieldUpdateRule::Preserve, entries)
}

pub(super) fn name(name: &str) -> Path {
    name.into()
}

fn ask(code: &mut Vec<u8>) {
    let (hand, offs, leng, comm) = (name("HAND"), name("OFFS"), name("LENG"), name("COMM"));
    let stores = [
        Store::new(&hand, &Arg(0)),
        Store::new(&offs, &Arg(1)),
        Store::new(&leng, &Arg(2)),
        Store::new(&comm, &Arg(3)),
    ];
    let status = Return::new(&comm);
    let mut body: Vec<&dyn Aml> = stores.iter().map(|store| store as &dyn Aml).collect();
    body.push(&status);
    Method::new("LASK".into(), 4, false, body).to_aml_bytes(code);
}

/// A package of zeros, to be filled in.
fn zeros(elements: usize) -> PackageBuilder {
    let mut package = PackageBuilder::new();
    (0..elements).for_each(|_| package.add_element(&ZERO));
    package
}

fn size_of(code: &mut Vec<u8>) {
    let answer = zeros(3);
    let (acquire, release) = (Acquire::new("LMTX".into(), FOR_EVER), Release::new("LMTX".into()));
    let command = command::INFORMATION;
    let asked = MethodCall::new("LASK".into(), vec![&Arg(0), &ZERO, &ZERO, &command]);
    let (status, package) = (Store::new(&Local(0), &asked), Store::new(&Local(2), &answer));
    let (offs, leng, two) = (name("OFFS"), name("LENG"), 2_u8);
    let places = [
        Index::new(&ZERO, &Local(2), &ZERO),
        Index::new(&ZERO, &Local(2), &ONE),
        Index::new(&ZERO, &Local(2), &two),
    ];
    let values: [&dyn Aml; 3] = [&Local(0), &offs, &leng];
    let stores: Vec<Store> =
        places.iter().zip(values).map(|(place, value)| Store::new(place, value)).collect();
    let result = Return::new(&Local(2));
    let mut body: Vec<&dyn Aml> = vec![&acquire, &status, &package];
    body.extend(stores.iter().map(|store| store as &dyn Aml));
    body.extend([&release as &dyn Aml, &result]);
    Method::new("LSIZ".into(), 1, false, body).to_aml_bytes(code);
}

fn get(code: &mut Vec<u8>) {
    let answer = zeros(2);
    let (acquire, release) = (Acquire::new("LMTX".into(), FOR_EVER), Release::new("LMTX".into()));
    let command = command::READ;
    let asked = MethodCall::new("LASK".into(), vec![&Arg(0), &Arg(1), &Arg(2), &command]);
    let (status, package) = (Store::new(&Local(0), &asked), Store::new(&Local(2), &answer));
    let (nothing, data) = (BufferData::new(Vec::new()), name("DATA"));
    let empty = Store::new(&Local(1), &nothing);
    let window = Store::new(&Local(3), &data);
    let part = Mid::new(&Local(3), &ZERO, &Arg(2), &Local(1));
    let done = Equal::new(&Local(0), &ZERO);
    let bytes = If::new(&done, vec![&window, &part]);
    let places = [Index::new(&ZERO, &Local(2), &ZERO), Index::new(&ZERO, &Local(2), &ONE)];
    let stores = [Store::new(&places[0], &Local(0)), Store::new(&places[1], &Local(1))];
    let result = Return::new(&Local(2));
    let body: Vec<&dyn Aml> =
        vec![&acquire, &status, &empty, &bytes, &release, &package, &stores[0], &stores[1], &result];
    Method::new("LGET".into(), 3, false, body).to_aml_bytes(code);
}

fn put(code: &mut Vec<u8>) {
    let (acquire, release) = (Acquire::new("LMTX".into(), FOR_EVER), Release::new("LMTX".into()));
    let (data, command) = (name("DATA"), command::WRITE);
    let bytes = Store::new(&data, &Arg(3));
    let asked = MethodCall::new("LASK".into(), vec![&Arg(0), &Arg(1), &Arg(2), &command]);
    let status = Store::new(&Local(0), &asked);
    let result = Return::new(&Local(0));
    Method::new("LPUT".into(), 4, false, vec![&acquire, &bytes, &status, &release, &result])
        .to_aml_bytes(code);
}

/// A family of _DSM functions of NVDIMMs that Linux knows: the one that Hyper-V introduced (NVDIMM_FAMILY_HYPERV).
const FAMILY: &str = "5746C5F2-A9A2-4264-AD0E-E4DDC9E09E80";

/// _DSM with function 0 only, which says that there is no other. Linux looks for _LSI, _LSR and _LSW only where there is
/// some family of functions (acpi_nfit_add_dimm, drivers/acpi/nfit/core.c).
fn no_functions(code: &mut Vec<u8>) {
    let family = Uuid::new(FAMILY);
    let (only_itself, nothing) = (BufferData::new(vec![1]), BufferData::new(vec![0]));
    let (only_itself, nothing) = (Return::new(&only_itself), Return::new(&nothing));
    let (family, function) = (Equal::new(&Arg(0), &family), Equal::new(&Arg(2), &ZERO));
    let function = If::new(&function, vec![&only_itself]);
    let family = If::new(&family, vec![&function]);
    Method::new("_DSM".into(), 4, false, vec![&family, &nothing]).to_aml_bytes(code);
}

/// _LSI, _LSR and _LSW of the NVDIMM with this NFIT device handle.
pub(super) fn methods_of_nvdimm(handle: u32, code: &mut Vec<u8>) {
    no_functions(code);
    let size = MethodCall::new("LSIZ".into(), vec![&handle]);
    let read = MethodCall::new("LGET".into(), vec![&handle, &Arg(0), &Arg(1)]);
    let write = MethodCall::new("LPUT".into(), vec![&handle, &Arg(0), &Arg(1), &Arg(2)]);
    for (method, arguments, call) in [("_LSI", 0, &size), ("_LSR", 2, &read), ("_LSW", 3, &write)] {
        Method::new(method.into(), arguments, false, vec![&Return::new(call)]).to_aml_bytes(code);
    }
}
