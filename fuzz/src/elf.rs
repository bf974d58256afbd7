//! Small ELF files to start from.

/// An ELF64 executable for x86-64: `code` is one segment, loaded at `entry`.
pub fn executable(entry: u64, code: &[u8]) -> Vec<u8> {
    let mut file = header(2, entry, 64, 0, 0);
    let len = code.len() as u64;
    file.extend([1u32, 5].map(u32::to_le_bytes).concat());
    file.extend([120, entry, entry, len, len, 0x1000].map(u64::to_le_bytes).concat());
    file.extend(code);
    file
}

/// The file's header, for one program header or for `sections` sections, the last of which has their names.
fn header(kind: u16, entry: u64, segments: u64, sections_at: u64, sections: u16) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([kind, 62].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    file.extend([entry, segments, sections_at].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    let count = u16::from(segments != 0);
    file.extend([64, 56, count, 64, sections, sections.saturating_sub(1)].map(u16::to_le_bytes).concat());
    file
}

/// A section to be: name, type, flags, content, link, info, size of an entry.
type Section = (&'static str, u32, u64, Vec<u8>, u32, u32, u64);

/// A relocatable file with what is looked for in kernels, modules and programs: code, `.modinfo`, unwind tables with
/// relocations, symbols, a build id.
pub fn sections() -> Vec<u8> {
    const EXECUTABLE: u64 = 6;
    let orc = [[8u8, 0, 0, 0, 5, 2], [0, 0, 0, 0, 0, 1], [16, 0, 0xf0, 0xff, 0x15, 2]].concat();
    // Offset, R_X86_64_PC32 against symbol 1, addend.
    let relocations =
        (0..3u64).flat_map(|n| [4 * n, 1 << 32 | 2, 8 * n].map(u64::to_le_bytes).concat()).collect();
    let sections: [Section; 10] = [
        ("", 0, 0, Vec::new(), 0, 0, 0),
        (".text", 1, EXECUTABLE, vec![0x90; 64], 0, 0, 0),
        (".modinfo", 1, 2, b"license=GPL\0depends=b,c-d\0name=a\0".to_vec(), 0, 0, 0),
        (".orc_header", 1, 2, vec![0; 20], 0, 0, 0),
        (".orc_unwind", 1, 2, orc, 0, 0, 0),
        (".orc_unwind_ip", 1, 2, vec![0; 12], 0, 0, 0),
        (".rela.orc_unwind_ip", 4, 0, relocations, 7, 5, 24),
        (".symtab", 2, 0, symbols(), 8, 1, 24),
        (".strtab", 3, 0, b"\0first\0_ZN1a1bE\0".to_vec(), 0, 0, 0),
        (".note.gnu.build-id", 7, 2, build_id(), 0, 0, 0),
    ];
    laid_out(&sections)
}

/// Two functions at the beginning and in the middle of section 1.
fn symbols() -> Vec<u8> {
    let mut symbols = vec![0; 24];
    for (name, value) in [(1u32, 0u64), (7, 16)] {
        symbols.extend(name.to_le_bytes());
        symbols.extend([0x12, 0, 1, 0]);
        symbols.extend([value, 16].map(u64::to_le_bytes).concat());
    }
    symbols
}

fn build_id() -> Vec<u8> {
    [&[4, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0][..], b"GNU\0", &[1, 2, 3, 4, 5, 6, 7, 8]].concat()
}

/// Header, contents, names, table of sections.
fn laid_out(sections: &[Section]) -> Vec<u8> {
    let mut names = Vec::new();
    let mut contents = Vec::new();
    let mut table = Vec::new();
    let mut entry = |name: usize, section: &Section, at: usize| {
        let (_, kind, flags, content, link, info, size) = section;
        table.extend([name as u32, *kind].map(u32::to_le_bytes).concat());
        table.extend([*flags, 0, at as u64, content.len() as u64].map(u64::to_le_bytes).concat());
        table.extend([*link, *info].map(u32::to_le_bytes).concat());
        table.extend([1, *size].map(u64::to_le_bytes).concat());
    };
    for section in sections {
        entry(names.len(), section, 64 + contents.len());
        names.extend(section.0.bytes().chain([0]));
        contents.extend(&section.3);
    }
    let own = names.len();
    names.extend(b".shstrtab\0");
    entry(own, &("", 3, 0, names.clone(), 0, 0, 0), 64 + contents.len());
    let table_at = (64 + contents.len() + names.len()) as u64;
    let file = header(1, 0, 0, table_at, sections.len() as u16 + 1);
    [file, contents, names, table].concat()
}
