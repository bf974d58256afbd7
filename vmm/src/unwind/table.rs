//! ORC tables of a kernel or a module, by code address.

use std::collections::HashMap;
use std::ops::Range;

use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{
    LittleEndian, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SectionKind,
    SymbolKind,
};

use super::entry::{ENTRY_SIZE, Entry, Kind, Layout};
use crate::Symbols;

type Elf<'a> = ElfFile<'a, FileHeader64<LittleEndian>>;

/// Why a file has no usable table.
#[derive(Debug, thiserror::Error)]
pub enum UnwindError {
    /// It is not an x86-64 ELF file, or a damaged one.
    #[error("not a readable x86-64 ELF file: {0}; give the vmlinux or the uncompressed .ko")]
    Elf(#[from] object::Error),
    /// The kernel was built without the ORC unwinder.
    #[error("no section {0}; build the kernel with CONFIG_UNWINDER_ORC")]
    Missing(&'static str),
    /// The two sections do not belong together.
    #[error(
        ".orc_unwind has {entries} bytes and .orc_unwind_ip {addresses}: not 6 to 4; the file is damaged"
    )]
    Sizes {
        /// Bytes of `.orc_unwind`.
        entries: usize,
        /// Bytes of `.orc_unwind_ip`.
        addresses: usize,
    },
    /// None of a module's functions is among the symbols.
    #[error("no function of module {0} is among the symbols; read /proc/kallsyms after loading it")]
    NotLoaded(String),
}

/// The ORC entries of the kernel or of one loaded module.
#[derive(Clone, Debug)]
pub struct OrcTable {
    /// Sorted by address. An entry holds up to the next one.
    entries: Vec<(u64, Entry)>,
    /// Where the code lies that the entries are for.
    code: Vec<Range<u64>>,
}

impl OrcTable {
    /// The table of a kernel that runs at the addresses it was linked for (`nokaslr`).
    pub fn from_vmlinux(elf: &[u8]) -> Result<OrcTable, UnwindError> {
        let elf = Elf::parse(elf)?;
        let sections = OrcSections::of(&elf)?;
        let start = sections.addresses_at;
        let addresses = sections.addresses.chunks_exact(4).enumerate().map(|(i, bytes)| {
            let distance = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            Some(start.wrapping_add(4 * i as u64).wrapping_add_signed(distance.into()))
        });
        let code = elf
            .sections()
            .filter(|section| section.kind() == SectionKind::Text)
            .map(|section| section.address()..section.address().saturating_add(section.size()))
            .collect();
        Ok(OrcTable::new(addresses.zip(sections.entries()), code))
    }

    /// The table of a module (`ko` is the uncompressed file) that is loaded where `symbols` say. Sections without a
    /// function in `symbols`, as the init sections of a running module, are left out.
    pub fn from_module(ko: &[u8], module: &str, symbols: &Symbols) -> Result<OrcTable, UnwindError> {
        let elf = Elf::parse(ko)?;
        let sections = OrcSections::of(&elf)?;
        let loaded = load_addresses(&elf, module, symbols);
        if loaded.is_empty() {
            return Err(UnwindError::NotLoaded(module.to_owned()));
        }
        let mut addresses = vec![None; sections.addresses.len() / 4];
        for (offset, relocation) in elf.section_by_index(sections.addresses_index)?.relocations() {
            let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
            let symbol = elf.symbol_by_index(symbol)?;
            let base = symbol.section_index().and_then(|section| loaded.get(&section));
            if let (Some(slot), Some(base)) = (addresses.get_mut(offset as usize / 4), base) {
                *slot = Some(base.wrapping_add(symbol.address()).wrapping_add_signed(relocation.addend()));
            }
        }
        let code = elf
            .sections()
            .filter_map(|section| {
                let base = *loaded.get(&section.index())?;
                Some(base..base.saturating_add(section.size()))
            })
            .collect();
        Ok(OrcTable::new(addresses.into_iter().zip(sections.entries()), code))
    }

    /// Leaves out entries without an address and sorts.
    fn new(entries: impl Iterator<Item = (Option<u64>, Entry)>, code: Vec<Range<u64>>) -> OrcTable {
        let mut entries: Vec<(u64, Entry)> =
            entries.filter_map(|(address, entry)| Some((address?, entry))).collect();
        // Of two entries at one address the one that ends the section before it must not win: orc_sort_cmp().
        entries.sort_by_key(|(address, entry)| (*address, entry.kind != Kind::Undefined));
        OrcTable { entries, code }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether an address lies in the code that the table is for.
    pub(super) fn covers(&self, address: u64) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }

    /// The entry that holds at an address the table covers.
    pub(super) fn find(&self, address: u64) -> Option<Entry> {
        let behind = self.entries.partition_point(|(start, _)| *start <= address);
        self.entries.get(behind.checked_sub(1)?).map(|(_, entry)| *entry)
    }

    #[cfg(test)]
    pub(super) fn for_test(entries: &[(u64, Entry)], code: Range<u64>) -> OrcTable {
        OrcTable::new(entries.iter().map(|(address, entry)| (Some(*address), *entry)), vec![code])
    }
}

/// The sections of one file.
struct OrcSections<'a> {
    entries: &'a [u8],
    addresses: &'a [u8],
    addresses_at: u64,
    addresses_index: SectionIndex,
    layout: Layout,
}

impl<'a> OrcSections<'a> {
    fn of(elf: &Elf<'a>) -> Result<OrcSections<'a>, UnwindError> {
        let section = |name| elf.section_by_name(name).ok_or(UnwindError::Missing(name));
        let entries = section(".orc_unwind")?.data()?;
        let addresses_section = section(".orc_unwind_ip")?;
        let addresses = addresses_section.data()?;
        if entries.len() / ENTRY_SIZE != addresses.len() / 4
            || entries.len() % ENTRY_SIZE != 0
            || addresses.len() % 4 != 0
        {
            return Err(UnwindError::Sizes { entries: entries.len(), addresses: addresses.len() });
        }
        // The header holds a hash over orc_types.h; it came after the last change of the layout.
        let layout = match elf.section_by_name(".orc_header") {
            Some(_) => Layout::WithSignal,
            None => Layout::WithEnd,
        };
        let (addresses_at, addresses_index) = (addresses_section.address(), addresses_section.index());
        Ok(OrcSections { entries, addresses, addresses_at, addresses_index, layout })
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let layout = self.layout;
        self.entries
            .chunks_exact(ENTRY_SIZE)
            .map(move |bytes| Entry::parse(std::array::from_fn(|i| bytes[i]), layout))
    }
}

/// Where a module's code sections were loaded, by the functions in them. Only names that are unique on both sides
/// tell.
fn load_addresses(elf: &Elf, module: &str, symbols: &Symbols) -> HashMap<SectionIndex, u64> {
    // modprobe treats both characters alike, and /proc/kallsyms shows the underscore.
    let module = module.replace('-', "_");
    let mut running: HashMap<&str, Option<u64>> = HashMap::new();
    for symbol in symbols.iter().filter(|symbol| symbol.module.as_ref() == Some(&module)) {
        running.entry(&symbol.name).and_modify(|address| *address = None).or_insert(Some(symbol.address));
    }
    let mut defined: HashMap<&str, Option<(SectionIndex, u64)>> = HashMap::new();
    for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        if let (Ok(name), Some(section)) = (symbol.name(), symbol.section_index()) {
            defined
                .entry(name)
                .and_modify(|place| *place = None)
                .or_insert(Some((section, symbol.address())));
        }
    }
    let placed = defined.into_iter().filter_map(|(name, place)| {
        let (section, offset) = place?;
        let address = (*running.get(name)?)?;
        Some((section, address.wrapping_sub(offset)))
    });
    placed.collect()
}
