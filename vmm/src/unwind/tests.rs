//! Tables read from ELF files.

use object::write::{Object, Relocation, SectionId, StandardSection, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

use super::entry::Kind;
use super::*;

const CALL: [u8; 6] = [8, 0, 0, 0, 5, 2];
const END: [u8; 6] = [0, 0, 0, 0, 0, 1];
const UNDEFINED: [u8; 6] = [0; 6];

fn elf() -> Object<'static> {
    Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little)
}

fn add_section(elf: &mut Object, name: &str, data: &[u8]) -> SectionId {
    let section = elf.add_section(Vec::new(), name.into(), SectionKind::ReadOnlyData);
    elf.append_section_data(section, data, 1);
    section
}

fn add_function(elf: &mut Object, section: SectionId, name: &str, value: u64) {
    elf.add_symbol(Symbol {
        name: name.into(),
        value,
        size: 16,
        kind: SymbolKind::Text,
        scope: SymbolScope::Compilation,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
}

/// A module: functions `first` at 0 and `second` at 0x10 of .text, `early` at 0 of .init.text, one entry for each.
fn module() -> Vec<u8> {
    let mut elf = elf();
    let text = elf.section_id(StandardSection::Text);
    elf.append_section_data(text, &[0x90; 0x20], 16);
    let init = elf.add_section(Vec::new(), b".init.text".to_vec(), SectionKind::Text);
    elf.append_section_data(init, &[0x90; 0x10], 16);
    add_function(&mut elf, text, "first", 0);
    add_function(&mut elf, text, "second", 0x10);
    add_function(&mut elf, init, "early", 0);
    add_section(&mut elf, ".orc_header", &[0; 20]);
    add_section(&mut elf, ".orc_unwind", &[CALL, END, CALL].concat());
    let addresses = add_section(&mut elf, ".orc_unwind_ip", &[0; 12]);
    for (offset, section, addend) in [(0, text, 0), (4, text, 0x10), (8, init, 0)] {
        let symbol = elf.section_symbol(section);
        let flags = RelocationFlags::Elf { r_type: object::elf::R_X86_64_PC32 };
        elf.add_relocation(addresses, Relocation { offset, symbol, addend, flags }).unwrap();
    }
    elf.write().unwrap()
}

#[test]
fn a_module_is_placed_by_its_symbols() {
    let symbols = Symbols::from_kallsyms(
        "ffffffff81000000 T first\nffffffffc0100010 t second\t[some_module]\nffffffffc0100000 t first\t[other]\n",
    );
    let table = OrcTable::from_module(&module(), "some-module", &symbols).unwrap();
    // The init section is gone, and its entry with it.
    assert_eq!(table.len(), 2);
    assert!(table.covers(0xffffffffc0100000) && table.covers(0xffffffffc010001f));
    assert!(!table.covers(0xffffffffc0100020));
    assert_eq!(table.find(0xffffffffc010000f).unwrap().kind, Kind::Call);
    assert_eq!(table.find(0xffffffffc0100010).unwrap().kind, Kind::End);
}

#[test]
fn a_module_that_is_not_loaded_is_told() {
    let symbols = Symbols::from_kallsyms("ffffffff81000000 T first\n");
    let error = OrcTable::from_module(&module(), "some_module", &symbols).unwrap_err();
    assert!(matches!(error, UnwindError::NotLoaded(name) if name == "some_module"));
}

#[test]
fn a_kernel_without_the_tables_is_told() {
    let error = OrcTable::from_vmlinux(&elf().write().unwrap()).unwrap_err();
    assert!(matches!(error, UnwindError::Missing(".orc_unwind")));
    assert!(matches!(OrcTable::from_vmlinux(b"MZ").unwrap_err(), UnwindError::Elf(_)));
}

#[test]
fn sections_of_different_lengths_are_told() {
    let mut elf = elf();
    add_section(&mut elf, ".orc_unwind", &CALL);
    add_section(&mut elf, ".orc_unwind_ip", &[0; 8]);
    let error = OrcTable::from_vmlinux(&elf.write().unwrap()).unwrap_err();
    assert!(matches!(error, UnwindError::Sizes { entries: 6, addresses: 8 }));
}

#[test]
fn addresses_are_relative_to_where_they_stand_and_terminators_lose() {
    let mut elf = elf();
    add_section(&mut elf, ".orc_header", &[0; 20]);
    add_section(&mut elf, ".orc_unwind", &[CALL, UNDEFINED, END].concat());
    // The section stands at 0: the entries are for 0x100, 0x180 and 0x100 + 0x80 again.
    let distances: [i32; 3] = [0x100, 0x180 - 4, 0x180 - 8];
    add_section(&mut elf, ".orc_unwind_ip", &distances.map(i32::to_le_bytes).concat());
    let table = OrcTable::from_vmlinux(&elf.write().unwrap()).unwrap();
    assert_eq!(table.find(0xff), None);
    assert_eq!(table.find(0x17f).unwrap().kind, Kind::Call);
    assert_eq!(table.find(0x180).unwrap().kind, Kind::End);
}

#[test]
fn a_return_address_is_named_by_its_call() {
    let symbols = Symbols::from_kallsyms("1000 T caller\n1100 T next\n2000 t faulty\t[nfit]\n");
    let stack = Stack { addresses: vec![0x2000, 0x1100], exact: vec![true, false], end: End::Bottom };
    let shown: Vec<String> = stack.frames(&symbols).iter().map(Frame::to_string).collect();
    assert_eq!(shown, ["faulty+0x0 [nfit]", "caller+0x100"]);
}
